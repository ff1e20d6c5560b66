//! Events from a connection to its driver, and the reasons for its end.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::end::{CallOutcome, End};
use super::inbound::Incoming;
use super::message::Op;
use super::outbound::Slot;
use super::stream::StreamId;

/// A change that the driver of the state machine must act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<S = Slot> {
    /// An outbound call ended.
    CallEnded {
        /// The driver's user data of the call.
        slot: S,
        /// How the call ended.
        outcome: CallOutcome,
    },
    /// A request came in, or a peer wants to open a stream.
    Incoming(Incoming),
    /// The peer acknowledged an outbound stream: messages may be sent.
    Opened(StreamId),
    /// A stream that had nothing to receive has something now.
    Readable(StreamId),
    /// The waiting message of a stream was queued, or the end of its sending direction was.
    Writable(StreamId),
    /// One end of a stream ended.
    StreamEnded {
        /// The driver's user data of the stream.
        slot: S,
        /// Messages that arrived before the end and were not received yet ([B23]).
        ///
        /// [B23]: crate::rules#b23
        rest: VecDeque<Bytes>,
        /// How the stream ended.
        end: End,
    },
    /// The result of this call's handler is no longer needed: its caller cancelled the call, its
    /// deadline passed, or the connection ended.
    Cancel {
        /// The caller's id of the call.
        mux_id: u64,
    },
    /// A response no longer waits for room in the queue: it was queued or discarded.
    ResponseRetired {
        /// The caller's id of the call.
        mux_id: u64,
    },
    /// A message without meaning in the current state was ignored.
    Skipped {
        /// The op of the message.
        op: Op,
        /// The call id in the message.
        mux_id: u64,
    },
    /// The connection must be closed. The last event.
    Closed(CloseReason),
}

/// The reason for the end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer sent a Disconnect, or closed its socket.
    #[error("the peer closed the connection")]
    Peer,
    /// The peer did not respond to pings.
    #[error("{missed} pings in a row without a pong")]
    PingTimeout {
        /// Number of pings without a pong.
        missed: u32,
    },
    /// The peer provoked replies and did not read them.
    #[error("the peer does not read: more than {max} bytes of control messages are queued")]
    ControlOverrun {
        /// [`Limits::control_bytes_max`](crate::limits::Limits::control_bytes_max).
        max: usize,
    },
    /// The peer violated the protocol.
    #[error("protocol error: {0}")]
    Protocol(Arc<str>),
    /// The socket failed.
    #[error("{0}")]
    Transport(Arc<str>),
    /// A newer connection of the same remote replaced this one.
    #[error("superseded by a newer connection")]
    Superseded,
    /// The local manager is shutting down.
    #[error("this server is shutting down")]
    Shutdown,
}

/// The reason why a call could not be started. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// The message is larger than the limit.
    TooLarge {
        /// Size of the message.
        bytes: usize,
    },
    /// Too many calls are outstanding.
    TooManyCalls,
    /// The deadline has already passed.
    DeadlinePassed,
    /// The connection is draining or closed, and takes no new calls.
    Draining,
}

/// Traffic counters of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages received.
    pub messages_in: u64,
    /// Messages given to the socket.
    pub messages_out: u64,
    /// Bytes of frames given to the socket.
    pub bytes_out: u64,
    /// Calls started by this side.
    pub outbound_calls: u64,
    /// Calls of the peer that were admitted.
    pub inbound_calls: u64,
    /// Streams among the calls started by this side.
    pub outbound_streams: u64,
    /// Streams among the admitted calls of the peer.
    pub inbound_streams: u64,
    /// Messages ignored as meaningless.
    pub skipped: u64,
}

impl Counters {
    /// Adds the counters of another connection.
    pub fn add(&mut self, other: &Self) {
        self.messages_in += other.messages_in;
        self.messages_out += other.messages_out;
        self.bytes_out += other.bytes_out;
        self.outbound_calls += other.outbound_calls;
        self.inbound_calls += other.inbound_calls;
        self.outbound_streams += other.outbound_streams;
        self.inbound_streams += other.inbound_streams;
        self.skipped += other.skipped;
    }
}
