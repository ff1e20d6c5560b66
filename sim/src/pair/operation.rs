//! Operations on a pair, as plain data: an operation means the same whether it is written down,
//! drawn, mutated or read from a file.
//!
//! Every value of every field is valid, so that a fuzzer may write any. A selector picks one of
//! several calls, modulo their number.

use serde::{Deserialize, Serialize};

/// Largest message of a pair, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 300;

/// Identifies one of the two endpoints of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndpointId {
    /// The first endpoint.
    A,
    /// The second endpoint.
    B,
}

impl EndpointId {
    /// Both endpoints.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Returns the opposite endpoint.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The result of the handler of a single request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyKind {
    /// A payload.
    Response,
    /// A payload above the size limit.
    ResponseTooLarge,
    /// An error.
    Error,
    /// An error above the size limit.
    ErrorTooLarge,
    /// There is no such handler.
    UnknownHandler,
    /// A refusal.
    Refusal,
}

/// The payload that a stream is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitialPayload {
    /// No payload.
    Absent,
    /// A payload of zero bytes, which differs from no payload.
    Empty,
    /// A payload of about that many bytes.
    Bytes(u16),
}

/// The callee's decision on an inbound stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// Accepts it.
    Accept,
    /// Has no such handler.
    UnknownHandler,
    /// Refuses it.
    Refuse,
}

/// A message of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Zero bytes.
    Empty,
    /// About that many bytes.
    Bytes(u16),
}

/// The result of the handler of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandlerResult {
    /// Success.
    Ok,
    /// An error.
    Error,
    /// An error above the size limit.
    ErrorTooLarge,
}

/// An action on one end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamAction {
    /// Sends a message.
    Send(Message),
    /// Receives the next message.
    Receive,
    /// Discards all further input.
    StopReceiving,
    /// Cancels the blocked send.
    CancelSend,
    /// Finishes the caller's input.
    Finish,
    /// Cancels the stream, as its caller.
    Cancel,
    /// Returns from the handler.
    Return(HandlerResult),
}

/// An operation on the pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Makes a single request.
    Call {
        /// The caller's endpoint.
        end: EndpointId,
        /// Bytes of its payload.
        payload_bytes: u16,
        /// The call's deadline.
        deadline_ms: u32,
    },
    /// Cancels a call.
    Cancel {
        /// The caller's endpoint.
        end: EndpointId,
        /// One of all calls ever made there.
        selector: u32,
    },
    /// Returns from the handler of a single request.
    Finish {
        /// The callee's endpoint.
        end: EndpointId,
        /// One of the running handlers.
        selector: u32,
        /// The handler's result.
        reply: ReplyKind,
    },
    /// Opens a stream.
    Open {
        /// The caller's endpoint.
        end: EndpointId,
        /// The initial payload.
        initial: InitialPayload,
        /// Credits of the caller, modulo 4.
        input: u8,
        /// Credits of the handler beyond the first, modulo 3.
        output: u8,
        /// The stream's deadline; none if 0.
        deadline_ms: u32,
    },
    /// Decides on an inbound stream.
    Decide {
        /// The callee's endpoint.
        end: EndpointId,
        /// One of the undecided streams.
        selector: u32,
        /// The decision.
        decision: Decision,
    },
    /// Acts on one end of a stream.
    Stream {
        /// The endpoint.
        end: EndpointId,
        /// One of the live streams there that permit the action.
        selector: u32,
        /// The action.
        action: StreamAction,
    },
    /// Moves frames from a machine's queue onto the wire.
    Transmit {
        /// The sender's endpoint.
        end: EndpointId,
        /// Maximum number of frames.
        frames: u8,
    },
    /// Delivers frames from the wire to a machine, or the close of the other endpoint.
    Receive {
        /// The receiver's endpoint.
        end: EndpointId,
        /// Maximum number of frames.
        frames: u8,
    },
    /// Advances the clock, and runs the timers.
    Advance {
        /// Milliseconds.
        millis: u32,
    },
    /// Advances the clock without running the timers, as on a busy machine.
    Stall {
        /// Milliseconds.
        millis: u32,
    },
    /// Advances the clock while everything that is written arrives at once.
    Run {
        /// Milliseconds, modulo 60 s.
        millis: u32,
    },
    /// Stops accepting new calls.
    Drain {
        /// The draining endpoint.
        end: EndpointId,
    },
    /// Cuts the connection.
    Close {
        /// The endpoint that notices first.
        end: EndpointId,
    },
}

/// Returns the element of `all` that `selector` picks.
pub(super) fn pick<T: Copy>(all: &[T], selector: u32) -> Option<T> {
    let count = u32::try_from(all.len()).ok().filter(|count| *count > 0)?;
    all.get((selector % count) as usize).copied()
}
