//! What travels when servers compare their configurations.

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

use crate::system::SystemConfig;

/// Tells what this server runs with.
pub const SERVER_VERIFY: SingleHandler<VerifyArgs, VerifyAnswer> =
    SingleHandler::new(HandlerId::new(21), "ServerVerify");

/// Asks for a server's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyArgs {
    /// The digest of the asker's: if it is the same, there is no need to tell more.
    pub digest: String,
}

/// A server's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyAnswer {
    /// Its digest, as the answering server makes it.
    pub digest: String,
    /// All of it, unless it has the asker's digest.
    pub config: Option<SystemConfig>,
}

impl VerifyAnswer {
    /// What a server answers that runs with `config`, whose digest is `digest`.
    pub fn of(config: &SystemConfig, digest: &str, asked: &VerifyArgs) -> Self {
        let config = (asked.digest != digest).then(|| config.clone());
        Self { digest: digest.to_owned(), config }
    }

    /// What was answered: `None` is the same as ours, whose digest is `digest`.
    ///
    /// # Errors
    ///
    /// What is wrong with the answer, in a sentence.
    pub fn into_config(self, digest: &str) -> Result<Option<SystemConfig>, String> {
        match self.config {
            Some(config) => config.check().map(|()| Some(config)),
            None if self.digest == digest => Ok(None),
            None => Err("it told neither its configuration nor our digest".to_owned()),
        }
    }
}
