//! The calls that this side serves and that are not over.
//!
//! A table from the caller's id to what must be known until the answer is queued. Running the
//! handler is somebody else's business; this only says whether it is still wanted.

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::message::{Checksum, Flags, Header, Op, Outgoing};
use super::stream::Stream;
use super::subroute::SubrouteId;
use crate::error::HandlerError;
use crate::time::Instant;

/// What a call that came in asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// One answer to one payload.
    Request,
    /// A stream, to be taken with [`Connection::accept`](super::connection::Connection::accept).
    Stream {
        /// Whether there is an initial payload; an empty one is one (P5).
        has_payload: bool,
    },
}

/// A call that came in and must be answered, once, through
/// [`Connection::answer`](super::connection::Connection::answer) or
/// [`Connection::refuse`](super::connection::Connection::refuse).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The caller's id of the call.
    pub mux_id: u64,
    /// What it asks for.
    pub asked: Asked,
    /// The handler's id.
    pub handler: u8,
    /// Which of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// What the handler gets: a slice of the received frame.
    pub payload: Bytes,
    /// When the caller stops waiting; `None` if it never does.
    pub deadline: Option<Instant>,
}

/// What a handler returned. That of a stream has no payload: what it had to say it has sent.
pub type Answer = Result<Bytes, HandlerError>;

/// A single request, seen from the side that serves it.
///
/// ```text
///   Request            answer, queue full            room in the queue
///  ─────────► Running ────────────────────► Blocked ───────────────────► over
///               │  │                           │
///               │  └── answer, room ───────────┼───────────────────────► over
///               └── cancel | deadline ─────────┴───────────────────────► over, nothing is sent
///
///   ConnectMux           accept
///  ────────────► Opening ──────► Stream: see `stream`
/// ```
///
/// `Opening` exists because capacities are known to whoever looks the handler up, not here.
#[derive(Debug)]
pub(super) enum State<S> {
    /// The handler runs.
    Running,
    /// The answer waits for room in the queue, at this place in the line.
    Blocked { answer: Answer, place: u64 },
    /// A stream that was not accepted yet, and how often its caller has asked whether it lives.
    Opening { is_input_over: bool, pings: u32 },
    /// A stream, and whose it is.
    Stream(Box<ServedStream<S>>),
}

impl<S> State<S> {
    fn is_stream(&self) -> bool {
        match self {
            Self::Opening { .. } | Self::Stream(_) => true,
            Self::Running | Self::Blocked { .. } => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct ServedStream<S> {
    pub(super) slot: S,
    pub(super) stream: Stream,
}

#[derive(Debug)]
pub(super) struct Served<S> {
    pub(super) state: State<S>,
    pub(super) deadline: Option<Instant>,
    /// Tells this call from an earlier one with the same id.
    serial: u64,
    /// A refusal gives these back as they came.
    handler: u8,
    deadline_ms: u32,
    flags: Flags,
}

impl<S> Served<S> {
    pub(super) fn new(
        header: &Header,
        state: State<S>,
        deadline: Option<Instant>,
        serial: u64,
    ) -> Self {
        Self {
            state,
            deadline,
            serial,
            handler: header.handler,
            deadline_ms: header.deadline_ms,
            flags: header.flags,
        }
    }

    /// Header fields of a refusal: those of the request (P13).
    pub(super) fn echo_into(&self, header: &mut Header) {
        header.handler = self.handler;
        header.deadline_ms = self.deadline_ms;
        header.flags = self.flags.without(Flags::CRC).without(Flags::SUBROUTE);
    }
}

#[derive(Debug)]
pub(super) struct Serving<S> {
    live: FxHashMap<u64, Served<S>>,
    /// How many of them are streams.
    streams: usize,
}

impl<S> Serving<S> {
    pub(super) fn new() -> Self {
        Self { live: FxHashMap::default(), streams: 0 }
    }

    pub(super) fn insert(&mut self, mux_id: u64, served: Served<S>) {
        self.streams += usize::from(served.state.is_stream());
        let before = self.live.insert(mux_id, served);
        debug_assert!(before.is_none(), "a duplicate id is refused before");
    }

    pub(super) fn get(&self, mux_id: u64) -> Option<&Served<S>> {
        self.live.get(&mux_id)
    }

    pub(super) fn get_mut(&mut self, mux_id: u64) -> Option<&mut Served<S>> {
        self.live.get_mut(&mux_id)
    }

    /// The handler's end of a stream that was accepted.
    pub(super) fn stream_mut(&mut self, mux_id: u64) -> Option<&mut ServedStream<S>> {
        match self.live.get_mut(&mux_id)?.state {
            State::Stream(ref mut stream) => Some(stream),
            State::Running | State::Blocked { .. } | State::Opening { .. } => None,
        }
    }

    /// How many of them are streams.
    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    pub(super) fn contains(&self, mux_id: u64) -> bool {
        self.live.contains_key(&mux_id)
    }

    /// Whether this very call is not over.
    pub(super) fn is_live(&self, mux_id: u64, serial: u64) -> bool {
        self.live.get(&mux_id).is_some_and(|served| served.serial == serial)
    }

    pub(super) fn remove(&mut self, mux_id: u64) -> Option<Served<S>> {
        let served = self.live.remove(&mux_id)?;
        self.streams -= usize::from(served.state.is_stream());
        Some(served)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Forgets all calls; returns them in ascending order of their ids.
    pub(super) fn drain(&mut self) -> Vec<(u64, Served<S>)> {
        self.streams = 0;
        let mut served: Vec<_> = self.live.drain().collect();
        served.sort_unstable_by_key(|(mux_id, _)| *mux_id);
        served
    }
}

/// The message that answers a call (P13, P14).
pub(super) fn answer_message(mux_id: u64, answer: &Answer, checksum: Checksum) -> Outgoing<'_> {
    let (payload, flags): (&[u8], _) = match answer {
        Ok(payload) if payload.is_empty() => (&[], Flags::EOF.with(Flags::ZERO)),
        Ok(payload) => (payload, Flags::EOF),
        Err(error) => (error.message().as_bytes(), Flags::EOF.with(Flags::ERROR)),
    };
    let header = Header { flags, ..Header::new(mux_id, Op::Response) };
    Outgoing { header, payload, subroute: None, checksum }
}
