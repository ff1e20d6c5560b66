//! `gridwire iam`: administers users, groups, policies and service accounts of a running cluster.
//!
//! `request` builds a request from the command line, `client` signs and sends it, and `table`
//! prints the response. On the server, `http::admin` receives it and `operations` executes it.
//! `token`, `wire` and `permissions` are shared by both ends.

mod client;
pub(crate) mod operations;
mod permissions;
mod request;
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
use crate::{output, secret};

use self::client::AdminClient;
use self::request::PreparedRequest;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IamError {
    #[error("no server is given: use --server or GRIDWIRE_SERVER")]
    NoServer,
    #[error("no secret is given: use --secret-file or GRIDWIRE_ACCESS_SECRET_FILE")]
    NoSecret,
    #[error("{0} needs TLS, which gridwire does not have; use an address that begins with http://")]
    Secure(Name),
    #[error("secret_file = {path:?}: {problem}; it must be {}", secret::allowed())]
    SecretFile { path: PathBuf, problem: String },
    #[error("{path:?}: {error}")]
    NewSecret { path: PathBuf, error: SecretError },
    #[error("{path:?} cannot be read: {cause}")]
    File { path: PathBuf, cause: io::Error },
    #[error("{path:?} has {bytes} bytes, at most {max} are allowed")]
    TooLarge { path: PathBuf, bytes: u64, max: u64 },
    #[error("{path:?} is not a policy: {problem}")]
    Policy { path: PathBuf, problem: String },
    #[error("{0}")]
    Given(String),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot sign the request: {0}")]
    Sign(String),
    #[error("cannot reach {server}: {cause}; is it running?")]
    Unreachable { server: Name, cause: io::Error },
    #[error("the request to {server} failed: {cause}; the change may or may not have been made")]
    Http { server: Name, cause: String },
    #[error("{server} did not respond within {waited:?}; the change may or may not have been made")]
    Timeout { server: Name, waited: Duration },
    #[error("{server} responded {status}: {message}")]
    Refused { server: Name, status: StatusCode, message: String },
    #[error("unexpected response of {server}: {cause}; does it run another version?")]
    Response { server: Name, cause: String },
    #[error("not allowed")]
    NotAllowed,
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

impl IamError {
    /// Returns 2 for invalid arguments, 69 for an unreachable server, 1 for other failures.
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

/// Sends the request, and prints the response.
pub(crate) fn run(arguments: &IamArgs) -> Result<(), IamError> {
    let server = arguments.server.clone().ok_or(IamError::NoServer)?;
    if server.is_secure() {
        return Err(IamError::Secure(server));
    }
    let path = arguments.secret_file.clone().ok_or(IamError::NoSecret)?;
    let secret = secret::read(&path).map_err(|problem| IamError::SecretFile { path, problem })?;
    let PreparedRequest { request, secret: new_secret } = PreparedRequest::of(&arguments.command)?;
    let client = AdminClient { server, access_key: &arguments.access_key, secret };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(IamError::Runtime)?;
    let body = runtime.block_on(client.send_request(&request, arguments.timeout))?;
    let invalid = |cause: serde_json::Error| client.invalid_response(&cause);
    let mut value: serde_json::Value = serde_json::from_slice(&body).map_err(invalid)?;
    if let (Some(secret), Some(object)) = (&new_secret, value.as_object_mut()) {
        object.insert("secret".to_owned(), secret.expose().into());
    }
    let is_denied = value.get("allowed") == Some(&serde_json::Value::Bool(false));
    match arguments.json {
        true => output::print_line(&value)?,
        false => {
            let text = table::text(&arguments.command, value);
            output::print_line(&text.map_err(invalid)?)?;
        }
    }
    match &arguments.command {
        IamCommand::IsAllowed { .. } if is_denied => Err(IamError::NotAllowed),
        _ => Ok(()),
    }
}
