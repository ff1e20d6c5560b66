//! How calls and streams end: one vocabulary for both.
//!
//! This module only names the causes. `connection` decides which one applies.

use std::sync::Arc;

use bytes::Bytes;

/// The end of a stream, or of a call without a response. Every call and every stream has exactly one
/// end ([B14]).
///
/// Both kinds share most causes. A call never ends with [`Finished`](Self::Finished): its success is
/// a response. The causes that follow `Disconnected` are those of streams alone, because a call has
/// no sequence, credit or pings of its own.
///
/// [B14]: crate::rules#b14
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The handler succeeded, and all of its messages were received.
    Finished,
    /// The handler failed, or the callee cancelled the call or stream.
    RemoteError(Arc<str>),
    /// The peer has no such handler.
    UnknownHandler(Arc<str>),
    /// The callee refused the call or stream.
    Refused(Arc<str>),
    /// The caller cancelled it. No event reports this end of a call.
    Cancelled,
    /// The deadline passed.
    DeadlineExceeded,
    /// The connection ended.
    Disconnected,
    /// The peer sent a message out of sequence ([B22]).
    ///
    /// [B22]: crate::rules#b22
    IncorrectSequence {
        /// Expected sequence number.
        expected: u32,
        /// Received sequence number.
        received: u32,
    },
    /// The peer sent more than its credit allowed ([B21]).
    ///
    /// [B21]: crate::rules#b21
    Overrun,
    /// The peer's end of the stream sent no pings or pongs ([B07]).
    ///
    /// [B07]: crate::rules#b07
    PingTimeout {
        /// Pings in a row without a pong, or expected pings that did not arrive.
        missed: u32,
    },
    /// The peer no longer has the stream.
    NotFound,
}

/// The outcome of a call: the handler's response, or the end without one. Every call has exactly one,
/// unless its caller cancels it ([B14]).
///
/// [B14]: crate::rules#b14
pub type CallOutcome = Result<Bytes, End>;
