//! What can go wrong for somebody who uses the crate: one small enum per operation.
//!
//! Each variant says what is known and what is not, above all whether the handler may have run.

use std::sync::Arc;

use crate::name::{Name, NameError};
#[cfg(feature = "net")]
use crate::proto::connection::StreamEnd;

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
        /// [`Limits::outbound_calls_max`](crate::limits::Limits::outbound_calls_max).
        max: usize,
    },
    /// This manager is shutting down and takes no new calls. Nothing was sent.
    #[error("this server is shutting down")]
    Shutdown,
}

/// Why a stream did not open, or did not end well. Everything that was received before it counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// As a call may fail: not connected, disconnected, refused, failed by its handler, and so on.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A message of the stream is missing, or came twice.
    #[error("incorrect sequence from {remote}: expected {expected}, received {received}")]
    IncorrectSequence {
        /// The server at the other end.
        remote: Name,
        /// The sequence that the message should have had.
        expected: u32,
        /// The one that it had.
        received: u32,
    },
    /// The other end sent more than it had credit for. Both ends must be declared with the same
    /// capacities.
    #[error(
        "{remote} sent more messages than there was credit for: are capacities the same there?"
    )]
    Overrun {
        /// The server at the other end.
        remote: Name,
    },
    /// The other end of the stream gave no sign of life.
    #[error("{remote} gave no sign of life on the stream: {missed} pings in a row are missing")]
    PingTimeout {
        /// The server at the other end.
        remote: Name,
        /// How many.
        missed: u32,
    },
    /// The other end does not know the stream any more; whether its handler returned is not known.
    #[error("{remote} does not know the stream any more")]
    NotFound {
        /// The server at the other end.
        remote: Name,
    },
    /// The caller gave the stream up.
    #[error("the stream with {remote} was cancelled")]
    Cancelled {
        /// The server at the other end.
        remote: Name,
    },
    /// This side's handler has returned.
    #[error("the handler of the stream with {remote} has returned")]
    HandlerReturned {
        /// The server at the other end.
        remote: Name,
    },
}

#[cfg(feature = "net")]
impl StreamError {
    pub(crate) fn new(end: StreamEnd, remote: &Name) -> Self {
        let remote = remote.clone();
        match end {
            StreamEnd::Finished => Self::HandlerReturned { remote },
            StreamEnd::RemoteError(message) => CallError::Remote { remote, message }.into(),
            StreamEnd::UnknownHandler(message) => {
                CallError::UnknownHandler { remote, message }.into()
            }
            StreamEnd::Refused(message) => CallError::Refused { remote, message }.into(),
            StreamEnd::DeadlineExceeded => CallError::DeadlineExceeded { remote }.into(),
            StreamEnd::Disconnected => CallError::Disconnected { remote }.into(),
            StreamEnd::Cancelled => Self::Cancelled { remote },
            StreamEnd::IncorrectSequence { expected, received } => {
                Self::IncorrectSequence { remote, expected, received }
            }
            StreamEnd::Overrun => Self::Overrun { remote },
            StreamEnd::Silent { missed } => Self::PingTimeout { remote, missed },
            StreamEnd::NotFound => Self::NotFound { remote },
        }
    }
}

/// Why a message of a stream was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The stream ended well, or this direction of it did: the handler has returned, or the sender
    /// was closed.
    #[error("the stream takes no more messages: it is finished")]
    Finished,
    /// The stream was opened with an input capacity of 0 (B26).
    #[error("the stream has no request side: its input capacity is 0")]
    NoInput,
    /// The message would be larger than the limit. The stream goes on.
    #[error("message of {bytes} bytes is larger than the limit of {max} bytes")]
    TooLarge {
        /// The message's size with its header.
        bytes: usize,
        /// [`Limits::message_bytes_max`](crate::limits::Limits::message_bytes_max).
        max: usize,
    },
    /// Another message waits. A `Sink` takes one only after it was ready.
    #[error("another message of the stream waits: wait until the sink is ready")]
    NotReady,
    /// The stream is over.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Why a message of a typed stream was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TypedSendError {
    /// It could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// It could not be encoded. Nothing was sent; the stream goes on.
    #[error("cannot encode the message as {type_name}: {cause}")]
    Encode {
        /// The message's type.
        type_name: &'static str,
        /// What the encoder said.
        cause: Arc<str>,
    },
}

/// Why a typed stream did not open, or why there is no message where one was expected.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TypedStreamError {
    /// The stream failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The initial payload could not be encoded. Nothing was sent.
    #[error("cannot encode the payload as {type_name}: {cause}")]
    Encode {
        /// The payload's type.
        type_name: &'static str,
        /// What the encoder said.
        cause: Arc<str>,
    },
    /// A message came, but not with what this side expects. The next one can still be received.
    #[error("cannot decode the message as {type_name}: {cause}")]
    Decode {
        /// The message's type.
        type_name: &'static str,
        /// What the decoder said.
        cause: Arc<str>,
    },
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

/// A handler that cannot send or receive any more fails with the reason, by `?`.
macro_rules! handler_error_from {
    ($($error:ty),*) => {$(
        impl From<$error> for HandlerError {
            fn from(error: $error) -> Self {
                Self::new(error.to_string())
            }
        }
    )*};
}

handler_error_from!(
    CallError,
    StreamError,
    SendError,
    TypedCallError,
    TypedSendError,
    TypedStreamError
);

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
    /// A stream's capacity is out of bounds.
    #[error("handler {name}: capacities must be at most {max}, and that of the output at least 1")]
    Capacity {
        /// The handler's name, with its subroute.
        name: String,
        /// [`STREAM_CAPACITY_MAX`](crate::limits::STREAM_CAPACITY_MAX).
        max: u32,
    },
    /// The id is taken, under this subroute.
    #[error("handler {name} is registered already")]
    Duplicate {
        /// The handler's name, with its subroute.
        name: String,
    },
}
