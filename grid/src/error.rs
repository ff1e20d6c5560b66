//! The errors of the public API: one small enum per operation.
//!
//! Each variant states what is known and what is not, above all whether the handler may have run.

use std::sync::Arc;

use crate::limits::InvalidLimit;
use crate::name::{Name, NameError};

/// Why a call returned no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There was no connection when the call was made. Nothing was sent; the handler did not run.
    #[error("not connected to {remote}")]
    NotConnected {
        /// The server that was called.
        remote: Name,
    },
    /// The connection ended while the call was outstanding; whether the handler ran is not known.
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
    #[error("{remote} returned an error: {message}")]
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
    /// The remote rejected the call: it is overloaded or shutting down. Nothing ran.
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
    /// The number of outstanding calls is at its limit. Nothing was sent.
    #[error("{max} calls to {remote} are outstanding already, which is the limit")]
    TooManyCalls {
        /// The server that was called.
        remote: Name,
        /// [`Limits::outbound_calls_max`](crate::limits::Limits::outbound_calls_max).
        max: usize,
    },
    /// This manager is shutting down and accepts no new calls. Nothing was sent.
    #[error("this server is shutting down")]
    Shutdown,
}

/// Why a stream failed to open or was ended. Messages received before the error are valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The stream failed in a way that single calls fail too, such as a disconnect or a handler
    /// error.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A message of the stream is missing or duplicated.
    #[error("incorrect sequence from {remote}: expected {expected}, received {received}")]
    IncorrectSequence {
        /// The server at the other end.
        remote: Name,
        /// The next sequence number of the stream.
        expected: u32,
        /// The sequence number of the received message.
        received: u32,
    },
    /// The other end sent more messages than it had credit for. Both ends must be declared with the
    /// same capacities.
    #[error(
        "{remote} exceeded its stream credit: declare the stream with the same capacities on both \
         servers"
    )]
    Overrun {
        /// The server at the other end.
        remote: Name,
    },
    /// The other end of the stream sent neither pings nor pongs in time.
    #[error("ping timeout on the stream with {remote}: {missed} pings missed in a row")]
    PingTimeout {
        /// The server at the other end.
        remote: Name,
        /// Number of consecutive pings missed.
        missed: u32,
    },
    /// The other end does not know the stream any more; whether its handler returned is not known.
    #[error("{remote} does not know the stream any more")]
    NotFound {
        /// The server at the other end.
        remote: Name,
    },
    /// The caller cancelled the stream.
    #[error("the stream with {remote} was cancelled")]
    Cancelled {
        /// The server at the other end.
        remote: Name,
    },
    /// The handler on this server has returned.
    #[error("the handler of the stream with {remote} has returned")]
    HandlerReturned {
        /// The server at the other end.
        remote: Name,
    },
}

/// Why a message of a stream was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The stream or this direction of it finished cleanly: the handler has returned, or the sender
    /// was closed.
    #[error("the stream accepts no more messages: it is finished")]
    Finished,
    /// The stream was opened with an input capacity of 0 ([B26]).
    ///
    /// [B26]: crate::rules#b26
    #[error("the stream has no request side: its input capacity is 0")]
    NoInput,
    /// The message would be larger than the limit. The stream stays open.
    #[error("message of {bytes} bytes is larger than the limit of {max} bytes")]
    TooLarge {
        /// The message's size with its header.
        bytes: usize,
        /// [`Limits::message_bytes_max`](crate::limits::Limits::message_bytes_max).
        max: usize,
    },
    /// An earlier message is still queued. A `Sink` accepts a message only after `poll_ready`.
    #[error("an earlier message of the stream is still queued: wait until the sink is ready")]
    NotReady,
    /// The stream has ended with an error.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Why a message of a typed stream was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TypedSendError {
    /// The message could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The message could not be encoded. Nothing was sent; the stream stays open.
    #[error("cannot encode the message as {type_name}: {cause}")]
    Encode {
        /// The message's type.
        type_name: &'static str,
        /// The encoder's error.
        cause: Arc<str>,
    },
}

/// Why a typed stream failed to open, or why a message could not be received.
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
        /// The encoder's error.
        cause: Arc<str>,
    },
    /// A received message is not of the expected type. The next one can still be received.
    #[error("cannot decode the message as {type_name}: {cause}")]
    Decode {
        /// The message's type.
        type_name: &'static str,
        /// The decoder's error.
        cause: Arc<str>,
    },
}

/// Why a typed call returned no response.
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
        /// The encoder's error.
        cause: Arc<str>,
    },
    /// The handler's response is not of the expected type.
    #[error("cannot decode the response as {type_name}: {cause}")]
    Decode {
        /// The response's type.
        type_name: &'static str,
        /// The decoder's error.
        cause: Arc<str>,
    },
}

/// The error that a handler returns. Its text is sent to the caller, which receives it as
/// [`CallError::Remote`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(Arc<str>);

impl HandlerError {
    /// Creates an error with a text for the caller.
    pub fn new(message: impl Into<Arc<str>>) -> Self {
        Self(message.into())
    }

    /// Returns the text.
    pub fn message(&self) -> &str {
        &self.0
    }
}

impl From<&str> for HandlerError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

/// Lets a handler pass on the error of a call or stream of its own with `?`.
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

/// Why a manager could not be built ([B01]).
///
/// [B01]: crate::rules#b01
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
    /// The cluster has more servers than a manager supports.
    #[error("{count} servers are more than the limit of {max}")]
    TooManyServers {
        /// Number of servers that were given.
        count: usize,
        /// [`SERVERS_MAX`](crate::limits::SERVERS_MAX).
        max: usize,
    },
    /// A limit is out of range or inconsistent with another limit.
    #[error("limit {name} must be {must}")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// The requirement that it violates.
        must: &'static str,
    },
    /// The route path is not an absolute path.
    #[error("path {path:?} must begin with '/' and contain no space, '?' or '#'")]
    Path {
        /// The path that was given.
        path: String,
    },
    /// The manager was started outside of a tokio runtime.
    #[error("a manager must be started inside a tokio runtime")]
    NoRuntime,
    /// The builder was given no [`Auth`](crate::Auth).
    #[error("no authentication is configured: call `auth` on the builder")]
    NoAuth,
}

impl From<InvalidLimit> for BuildError {
    fn from(InvalidLimit { name, must }: InvalidLimit) -> Self {
        Self::Limit { name, must }
    }
}

/// Why a handler was not registered ([B33]).
///
/// [B33]: crate::rules#b33
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
