//! `gridwire iam`: users and their rights, asked of and changed on a running server.
//!
//! `request` makes a request of the command line, `client` sends it, signed, and `table` prints the
//! answer. On the server, `http::admin` takes it, and `operations` does what it says; `token`, `wire`
//! and `rights` are what both sides agree on.

mod client;
pub(crate) mod operations;
mod request;
mod rights;
mod show;
mod table;
pub(crate) mod token;
pub(crate) mod wire;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use grid::Name;
use http::StatusCode;
use iam_bootstrap::model::SecretError;

use crate::cli::{IamArgs, IamCommand};
use crate::{secret, stdout};

use self::client::Client;
use self::request::Made;

/// Why it is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IamError {
    #[error("no server is given: use --server or GRIDWIRE_SERVER")]
    NoServer,
    #[error("no secret is given: use --secret-file or GRIDWIRE_ACCESS_SECRET_FILE")]
    NoSecret,
    #[error("{0} needs TLS, which gridwire does not have; give an address that begins with http://")]
    Secure(Name),
    #[error("secret_file = {path:?}: {problem}; it must be {}", secret::allowed())]
    SecretFile { path: PathBuf, problem: String },
    #[error("{path:?}: {error}")]
    NewSecret { path: PathBuf, error: SecretError },
    #[error("{path:?} cannot be read: {cause}")]
    File { path: PathBuf, cause: io::Error },
    #[error("{path:?} has {bytes} bytes, and may have {max}")]
    TooLarge { path: PathBuf, bytes: u64, max: u64 },
    #[error("{path:?} is no policy: {problem}")]
    Policy { path: PathBuf, problem: String },
    #[error("{0}")]
    Given(String),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot sign the request: {0}")]
    Sign(String),
    #[error("cannot reach {server}: {cause}; does it run?")]
    Unreachable { server: Name, cause: io::Error },
    #[error("asking {server} failed: {cause}; a change may have been made or not")]
    Http { server: Name, cause: String },
    #[error("{server} did not answer within {waited:?}; a change may have been made or not")]
    Timeout { server: Name, waited: Duration },
    #[error("{server} answered {status}: {message}")]
    Refused { server: Name, status: StatusCode, message: String },
    #[error("{server} answered with something else than expected: {cause}; is it another version?")]
    Answer { server: Name, cause: String },
    #[error("not allowed")]
    NotAllowed,
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

impl IamError {
    /// 2 for what the user gave, 69 for a server that is not there, 1 for what happened.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoServer
            | Self::NoSecret
            | Self::Secure(_)
            | Self::SecretFile { .. }
            | Self::NewSecret { .. }
            | Self::File { .. }
            | Self::TooLarge { .. }
            | Self::Policy { .. }
            | Self::Given(_)
            | Self::Refused { status: StatusCode::BAD_REQUEST, .. } => 2,
            Self::Unreachable { .. } | Self::Timeout { .. } => 69,
            _ => 1,
        }
    }
}

/// Asks, and prints what comes of it.
pub(crate) fn run(arguments: &IamArgs) -> Result<(), IamError> {
    let server = arguments.server.clone().ok_or(IamError::NoServer)?;
    if server.is_secure() {
        return Err(IamError::Secure(server));
    }
    let path = arguments.secret_file.clone().ok_or(IamError::NoSecret)?;
    let secret = secret::read(&path).map_err(|problem| IamError::SecretFile { path, problem })?;
    let Made { request, secret: made } = Made::of(&arguments.command)?;
    let client = Client { server, access_key: &arguments.access_key, secret };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(IamError::Runtime)?;
    let body = runtime.block_on(client.ask(&request, arguments.timeout))?;
    let answer = |cause: serde_json::Error| client.not_understood(&cause);
    let mut value: serde_json::Value = serde_json::from_slice(&body).map_err(answer)?;
    if let (Some(made), Some(object)) = (&made, value.as_object_mut()) {
        object.insert("secret".to_owned(), made.expose().into());
    }
    let is_denied = value.get("allowed") == Some(&serde_json::Value::Bool(false));
    match arguments.json {
        true => stdout::line(&value)?,
        false => {
            let text = table::text(&arguments.command, value);
            stdout::line(&text.map_err(answer)?)?;
        }
    }
    match &arguments.command {
        IamCommand::IsAllowed { .. } if is_denied => Err(IamError::NotAllowed),
        _ => Ok(()),
    }
}
