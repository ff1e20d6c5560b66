//! Messages of the comparison of configurations.

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

use crate::system::SystemConfig;

/// Requests a server's configuration.
pub const SERVER_VERIFY: SingleHandler<VerifyArgs, VerifyResponse> =
    SingleHandler::new(HandlerId::new(21), "ServerVerify");

/// Request for a server's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyArgs {
    /// Digest of the caller's configuration: if it is the same, the response omits the
    /// configuration.
    pub digest: String,
}

/// Response with a server's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyResponse {
    /// Digest of the callee's configuration, computed by the callee.
    pub digest: String,
    /// The whole configuration, unless its digest is the caller's.
    pub config: Option<SystemConfig>,
}

impl VerifyResponse {
    /// Returns the response of a server that runs with `config`, whose digest is `digest`.
    pub fn of(config: &SystemConfig, digest: &str, args: &VerifyArgs) -> Self {
        let config = (args.digest != digest).then(|| config.clone());
        Self { digest: digest.to_owned(), config }
    }

    /// Returns the peer's configuration; `None` if it is the same as ours, whose digest is
    /// `digest`.
    ///
    /// # Errors
    ///
    /// What is wrong with the response, in a sentence.
    pub fn into_config(self, digest: &str) -> Result<Option<SystemConfig>, String> {
        match self.config {
            Some(config) => config.check().map(|()| Some(config)),
            None if self.digest == digest => Ok(None),
            None => {
                Err("the response has neither a configuration nor the digest of this server"
                    .to_owned())
            }
        }
    }
}
