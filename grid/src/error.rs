//! What can go wrong for somebody who uses the crate: one small enum per operation.
//!
//! Each variant says what is known and what is not, above all whether the handler may have run.

use std::sync::Arc;

use crate::name::{Name, NameError};

/// Why a call did not return its answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There was no connection when the call was made. Nothing was sent; the handler did not run.
    #[error("not connected to {remote}")]
    NotConnected {
        /// The server that was called.
        remote: Name,
    },
    /// The connection ended while the call was under way; whether the handler ran is not known.
    #[error("disconnected from {remote}")]
    Disconnected {
        /// The server that was called.
        remote: Name,
    },
    /// The call's deadline passed; whether the handler ran is not known, but it is cancelled.
    /// A deadline that had passed before the call was made fails with this too, without sending.
    #[error("deadline exceeded calling {remote}")]
    DeadlineExceeded {
        /// The server that was called.
        remote: Name,
    },
    /// The handler ran and returned this error, or panicked.
    #[error("{remote} answered: {message}")]
    Remote {
        /// The server that was called.
        remote: Name,
        /// The error's text, as the handler gave it.
        message: Arc<str>,
    },
    /// The remote has no such handler, or not under that subroute. Nothing ran.
    #[error("{remote} has no such handler: {message}")]
    UnknownHandler {
        /// The server that was called.
        remote: Name,
        /// The text that the remote sent; it names the handler.
        message: Arc<str>,
    },
    /// The remote did not take the call: it is overloaded or shutting down. Nothing ran.
    #[error("{remote} refused the call: {message}")]
    Refused {
        /// The server that was called.
        remote: Name,
        /// The reason that the remote gave.
        message: Arc<str>,
    },
    /// The message would be larger than the limit. Nothing was sent.
    #[error("message of {bytes} bytes is larger than the limit of {max} bytes")]
    TooLarge {
        /// The message's size with its header.
        bytes: usize,
        /// [`Limits::message_bytes_max`](crate::limits::Limits::message_bytes_max).
        max: usize,
    },
    /// As many calls as this side may make at once are under way. Nothing was sent.
    #[error("{max} calls to {remote} are under way already, which is the limit")]
    TooManyCalls {
        /// The server that was called.
        remote: Name,
        /// [`Limits::calls_made_max`](crate::limits::Limits::calls_made_max).
        max: usize,
    },
    /// This manager is shutting down and takes no new calls. Nothing was sent.
    #[error("this server is shutting down")]
    Shutdown,
}

/// Why a typed call did not return its answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TypedCallError {
    /// The call itself failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request could not be encoded. Nothing was sent.
    #[error("cannot encode the request as {type_name}: {cause}")]
    Encode {
        /// The request's type.
        type_name: &'static str,
        /// What the encoder said.
        cause: Arc<str>,
    },
    /// The handler answered, but not with what this side expects.
    #[error("cannot decode the answer as {type_name}: {cause}")]
    Decode {
        /// The answer's type.
        type_name: &'static str,
        /// What the decoder said.
        cause: Arc<str>,
    },
}

/// What a handler returns when it fails. The text travels to the caller, who receives it as
/// [`CallError::Remote`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(Arc<str>);

impl HandlerError {
    /// An error with a text for the caller.
    pub fn new(message: impl Into<Arc<str>>) -> Self {
        Self(message.into())
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.0
    }
}

impl From<&str> for HandlerError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for HandlerError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// Why a manager could not be built (B01).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A server's address is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The local server is not among the servers.
    #[error("the local server {local} must be listed among the servers exactly once, but is not")]
    LocalMissing {
        /// The local server's name.
        local: Name,
    },
    /// A server is listed twice.
    #[error("server {name} is listed more than once")]
    Duplicate {
        /// The name that occurs twice.
        name: Name,
    },
    /// More servers than a manager may know.
    #[error("{count} servers are more than the limit of {max}")]
    TooManyServers {
        /// How many were given.
        count: usize,
        /// [`SERVERS_MAX`](crate::limits::SERVERS_MAX).
        max: usize,
    },
    /// A limit does not fit the others.
    #[error("limit {name} must be {must}")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// The route path is not an absolute path.
    #[error("path {path:?} must begin with '/' and hold neither spaces nor '?' nor '#'")]
    Path {
        /// The path that was given.
        path: String,
    },
    /// There is no tokio runtime to run on.
    #[error("a manager must be started inside a tokio runtime")]
    NoRuntime,
    /// The application gave no way to make and check tokens.
    #[error("no authentication is configured: give the builder one with `auth`")]
    NoAuth,
}

/// Why a handler was not registered (B33).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Handler ids are 1 to 255.
    #[error("handler id 0 is not valid: ids are 1 to 255")]
    InvalidId,
    /// The id is taken, under this subroute.
    #[error("handler {name} is registered already")]
    Duplicate {
        /// The handler's name, with its subroute.
        name: String,
    },
}
