//! The errors of the public API for what the state machine reports: refused starts, and ends.
//!
//! The machine does not know the remote's name, and its ends are those of calls and of streams. Here
//! each becomes the error of the operation that it ends.

#[cfg(feature = "net")]
use bytes::Bytes;

use crate::error::{CallError, SendError, StreamError};
use crate::limits::Limits;
use crate::name::Name;
#[cfg(feature = "net")]
use crate::proto::connection::CallOutcome;
use crate::proto::connection::{End, StartError};

/// Returns the error of a call or stream that was not started.
pub(crate) fn start_error(error: StartError, limits: &Limits, remote: &Name) -> CallError {
    let remote = remote.clone();
    match error {
        StartError::TooLarge { bytes } => {
            CallError::TooLarge { bytes, max: limits.message_bytes_max }
        }
        StartError::TooManyCalls => {
            CallError::TooManyCalls { remote, max: limits.outbound_calls_max }
        }
        StartError::DeadlinePassed => CallError::DeadlineExceeded { remote },
        StartError::Draining => CallError::Shutdown,
    }
}

/// Returns the result of a call for its caller.
#[cfg(feature = "net")]
pub(crate) fn call_result(outcome: CallOutcome, remote: &Name) -> Result<Bytes, CallError> {
    outcome.map_err(|end| match stream_error(end, remote) {
        StreamError::Call(error) => error,
        error => {
            crate::bug!("a call to {remote} ended as only a stream can: {error}");
            CallError::Disconnected { remote: remote.clone() }
        }
    })
}

/// Returns the error of a stream that ended, for its receiver.
pub(crate) fn stream_error(end: End, remote: &Name) -> StreamError {
    let remote = remote.clone();
    match end {
        End::Finished => StreamError::HandlerReturned { remote },
        End::RemoteError(message) => CallError::Remote { remote, message }.into(),
        End::UnknownHandler(message) => CallError::UnknownHandler { remote, message }.into(),
        End::Refused(message) => CallError::Refused { remote, message }.into(),
        End::DeadlineExceeded => CallError::DeadlineExceeded { remote }.into(),
        End::Disconnected => CallError::Disconnected { remote }.into(),
        End::Cancelled => StreamError::Cancelled { remote },
        End::IncorrectSequence { expected, received } => {
            StreamError::IncorrectSequence { remote, expected, received }
        }
        End::Overrun => StreamError::Overrun { remote },
        End::PingTimeout { missed } => StreamError::PingTimeout { remote, missed },
        End::NotFound => StreamError::NotFound { remote },
    }
}

/// Returns the error of a stream that ended, for its sender: a clean end is no failure of the
/// stream, but takes no more messages.
pub(crate) fn send_error(end: End, remote: &Name) -> SendError {
    match end {
        End::Finished => SendError::Finished,
        end => SendError::Stream(stream_error(end, remote)),
    }
}
