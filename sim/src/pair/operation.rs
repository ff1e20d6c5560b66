//! What can happen in a pair, as plain data: written down, drawn, mutated or read from a file, it
//! means the same.
//!
//! Every value of every field means something, so that a fuzzer may write whatever it likes: where
//! one of several calls is meant, a number picks it modulo how many there are.

use serde::{Deserialize, Serialize};

/// Largest message of a pair.
pub const MESSAGE_BYTES_MAX: usize = 300;

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum End {
    /// The one.
    A,
    /// The other.
    B,
}

impl End {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that this is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How the handler of a single request answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyKind {
    /// With a payload.
    Response,
    /// With one beyond the limit.
    ResponseTooLarge,
    /// With an error.
    Error,
    /// With one beyond the limit.
    ErrorTooLarge,
    /// There is no such handler.
    UnknownHandler,
    /// Not at all.
    Refusal,
}

/// What a stream is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitialPayload {
    /// Nothing.
    Absent,
    /// A payload without bytes, which is not nothing.
    Empty,
    /// A payload of about that many.
    Bytes(u16),
}

/// What the serving side does with a stream that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// Takes it.
    Accept,
    /// Has no such handler.
    UnknownHandler,
    /// Does not take it.
    Refuse,
}

/// A message of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Without bytes.
    Empty,
    /// Of about that many.
    Bytes(u16),
}

/// What the handler of a stream returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandlerResult {
    /// It is done.
    Ok,
    /// It failed.
    Error,
    /// It failed, and says more than fits a message.
    ErrorTooLarge,
}

/// What whoever holds one end of a stream does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamAction {
    /// Hands over a message.
    Send(Message),
    /// Takes what is next.
    Receive,
    /// Does not want what comes in any more.
    StopReceiving,
    /// Takes back the message that waits.
    CancelSend,
    /// The caller sends nothing more.
    Finish,
    /// The caller does not want the stream any more.
    Cancel,
    /// The handler returns.
    Return(HandlerResult),
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// A single request is made.
    Call {
        /// By whom.
        end: End,
        /// How much it carries.
        payload_bytes: u16,
        /// How long its caller waits.
        deadline_ms: u32,
    },
    /// A caller does not want its response any more.
    Cancel {
        /// At which end.
        end: End,
        /// Which of all calls ever made there.
        selector: u32,
    },
    /// The handler of a single request is done.
    Finish {
        /// At which end it ran.
        end: End,
        /// Which of those that run.
        selector: u32,
        /// With what.
        how: ReplyKind,
    },
    /// A stream is opened.
    Open {
        /// By whom.
        end: End,
        /// With what.
        initial: InitialPayload,
        /// How many messages of the caller may be under way, modulo 4.
        input: u8,
        /// How many of the handler, modulo 3, beyond the 1 that always may.
        output: u8,
        /// When it ends by itself; never if 0.
        deadline_ms: u32,
    },
    /// The serving side decides on a stream that came in.
    Decide {
        /// At which end.
        end: End,
        /// Which of those that wait for it.
        selector: u32,
        /// What it decides.
        decision: Decision,
    },
    /// Somebody does something with an end of a stream.
    Stream {
        /// At which end of the connection.
        end: End,
        /// Which of those that are under way there, and of which this can be done.
        selector: u32,
        /// What.
        action: StreamAction,
    },
    /// Moves frames from a machine's queue onto the wire.
    Transmit {
        /// Whose.
        end: End,
        /// At most how many.
        frames: u8,
    },
    /// Takes frames from the wire into a machine, or learns that the other end is gone.
    Receive {
        /// Into whose.
        end: End,
        /// At most how many.
        frames: u8,
    },
    /// Time passes.
    Advance {
        /// How much.
        millis: u32,
    },
    /// Time passes, and nobody looks at the timers: what runs on a machine that is busy.
    Stall {
        /// How much.
        millis: u32,
    },
    /// Time passes on a connection that works: what is written arrives at once.
    Run {
        /// How much, in milliseconds modulo 60 s.
        millis: u32,
    },
    /// No new calls are taken.
    Drain {
        /// Where.
        end: End,
    },
    /// The connection is cut.
    Close {
        /// Who notices first.
        end: End,
    },
}

/// The one of `all` that `which` picks.
pub(super) fn pick<T: Copy>(all: &[T], selector: u32) -> Option<T> {
    let count = u32::try_from(all.len()).ok().filter(|count| *count > 0)?;
    all.get((selector % count) as usize).copied()
}
