//! What a connection tells its driver, and why it ends.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::call::{Outcome, Slot};
use super::message::Op;
use super::serve::Incoming;
use super::stream::{StreamEnd, StreamId};

/// How a refusal begins that means "no such handler" (P13).
pub const UNKNOWN_HANDLER: &str = "Invalid Handler for type";

/// Something that the driver of the machine must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<S = Slot> {
    /// A call of this side is over.
    Ended {
        /// Whose call.
        slot: S,
        /// How it ended.
        outcome: Outcome,
    },
    /// A request came in, or a stream is to be opened.
    Serve(Incoming),
    /// A stream of this side was acknowledged: messages may be sent.
    Opened(StreamId),
    /// There is something to be received from a stream again.
    Readable(StreamId),
    /// The message that waited was sent, or the end of this direction was.
    Writable(StreamId),
    /// A stream is over, at this end.
    StreamEnded {
        /// Whose stream.
        slot: S,
        /// What came in and was not received yet. It came before the end (B23).
        rest: VecDeque<Bytes>,
        /// How it ended.
        end: StreamEnd,
    },
    /// The handler of this call is not wanted any more: its caller gave up, its deadline passed, or
    /// the connection ended.
    Cancel {
        /// The caller's id of the call.
        mux_id: u64,
    },
    /// An answer that had to wait for room in the queue does not wait any more: it was queued, or is
    /// not wanted.
    AnswerOver {
        /// The caller's id of the call.
        mux_id: u64,
    },
    /// A message that means nothing here was skipped.
    Skipped {
        /// What it claimed to be.
        op: Op,
        /// The call that it named.
        mux_id: u64,
    },
    /// The connection must be closed. The last event.
    Closed(CloseReason),
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer said so, or closed its socket.
    #[error("the peer closed the connection")]
    Peer,
    /// Pings went unanswered.
    #[error("{missed} pings in a row went unanswered")]
    PingTimeout {
        /// How many.
        missed: u32,
    },
    /// The peer made us answer and did not read the answers.
    #[error("the peer does not read: more than {max} bytes of control messages wait")]
    ControlOverrun {
        /// [`Limits::control_bytes_max`](crate::limits::Limits::control_bytes_max).
        max: usize,
    },
    /// The peer sent what is no message.
    #[error("protocol error: {0}")]
    Protocol(Arc<str>),
    /// The socket failed.
    #[error("{0}")]
    Transport(Arc<str>),
    /// A newer connection of the same remote took its place.
    #[error("superseded by a newer connection")]
    Superseded,
    /// This manager shuts down.
    #[error("this server is shutting down")]
    Shutdown,
}

/// Why a call could not be started. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// The message is larger than the limit.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Too many calls are under way.
    TooManyCalls,
    /// The deadline has passed already.
    DeadlinePassed,
    /// No new calls are taken.
    Draining,
}

/// What went through a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages received.
    pub messages_in: u64,
    /// Messages given to the socket.
    pub messages_out: u64,
    /// Bytes of frames given to the socket.
    pub bytes_out: u64,
    /// Calls that this side started.
    pub calls_made: u64,
    /// Calls of the peer that were taken.
    pub calls_served: u64,
    /// Streams among the calls that this side started.
    pub streams_made: u64,
    /// Streams among the calls of the peer that were taken.
    pub streams_served: u64,
    /// Messages that meant nothing.
    pub skipped: u64,
}

impl Counters {
    /// Adds those of another connection.
    pub fn add(&mut self, other: &Self) {
        self.messages_in += other.messages_in;
        self.messages_out += other.messages_out;
        self.bytes_out += other.bytes_out;
        self.calls_made += other.calls_made;
        self.calls_served += other.calls_served;
        self.streams_made += other.streams_made;
        self.streams_served += other.streams_served;
        self.skipped += other.skipped;
    }
}
