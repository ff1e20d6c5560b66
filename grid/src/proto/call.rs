//! The calls that this side made and that are not over.
//!
//! A table from id to state. Ids grow and are never used again on the same connection, so a call
//! that is over can be forgotten at once: a late answer finds nothing and is discarded (P14).

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::event::UNKNOWN_HANDLER;
use super::message::{Checksum, Flags, Header, Message, Op, Outgoing};
use super::payload::{self, MuxConnectError};
use super::stream::{Open, Stream};
use super::subroute::SubrouteId;
use crate::time::Instant;

/// Names the waiter of a call by a number, for drivers that have nothing better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

/// A single request to be made.
#[derive(Debug, Clone)]
pub struct Request {
    /// The handler's id.
    pub handler: u8,
    /// Which of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// What the handler gets.
    pub payload: Bytes,
    /// When the call ends by itself.
    pub deadline: Instant,
}

/// How a call ended. Every call ends in exactly one of these, or was given up by its caller (B14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The handler answered.
    Response(Bytes),
    /// The handler failed, or the serving side gave up.
    RemoteError(Arc<str>),
    /// There is no such handler.
    UnknownHandler(Arc<str>),
    /// The serving side did not take the call.
    Refused(Arc<str>),
    /// The deadline passed.
    DeadlineExceeded,
    /// The connection ended.
    Disconnected,
}

/// A call, seen from its caller. A stream that was opened goes on in `stream`.
///
/// ```text
///              room in the queue           answer | refusal
///   Blocked ─────────────────────► Sent ─────────────────────► over
///      │                            │
///      │ deadline | given up        │ deadline | given up: DisconnectServerMux
///      └────────────────────────────┴────────────────────────► over
/// ```
///
/// `Blocked` exists so that a full queue holds the request, not the caller's task: giving it up
/// then needs no message, because the other side never heard of it.
#[derive(Debug)]
pub(super) enum State {
    /// Waits for room in the queue, at this place in the line.
    Blocked { request: Request, place: u64 },
    /// Was written to the queue.
    Sent,
    /// Likewise the opening message of a stream, with its place while it waits for room.
    StreamBlocked { stream: Box<Stream>, open: Box<Open>, place: u64 },
    /// Was written to the queue.
    Stream { stream: Box<Stream>, is_acknowledged: bool },
}

impl State {
    fn is_stream(&self) -> bool {
        match self {
            Self::Stream { .. } | Self::StreamBlocked { .. } => true,
            Self::Blocked { .. } | Self::Sent => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Call<S> {
    pub(super) slot: S,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) struct Calls<S> {
    live: FxHashMap<u64, Call<S>>,
    /// How many of them are streams.
    streams: usize,
    last_id: u64,
}

impl<S> Calls<S> {
    pub(super) fn new() -> Self {
        Self { live: FxHashMap::default(), streams: 0, last_id: 0 }
    }

    /// The id of the next call (P9).
    pub(super) fn allocate_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn insert(&mut self, mux_id: u64, call: Call<S>) {
        self.streams += usize::from(call.state.is_stream());
        let before = self.live.insert(mux_id, call);
        debug_assert!(before.is_none(), "ids are never used again");
    }

    pub(super) fn get_mut(&mut self, mux_id: u64) -> Option<&mut Call<S>> {
        self.live.get_mut(&mux_id)
    }

    pub(super) fn get(&self, mux_id: u64) -> Option<&Call<S>> {
        self.live.get(&mux_id)
    }

    pub(super) fn contains(&self, mux_id: u64) -> bool {
        self.live.contains_key(&mux_id)
    }

    /// The caller's end of a stream that the other side has heard of.
    pub(super) fn stream_mut(&mut self, mux_id: u64) -> Option<&mut Stream> {
        match self.live.get_mut(&mux_id)?.state {
            State::Stream { ref mut stream, .. } => Some(stream),
            State::Blocked { .. } | State::Sent | State::StreamBlocked { .. } => None,
        }
    }

    /// Forgets a call. The caller of this decides its outcome.
    pub(super) fn remove(&mut self, mux_id: u64) -> Option<Call<S>> {
        let call = self.live.remove(&mux_id)?;
        self.streams -= usize::from(call.state.is_stream());
        Some(call)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// How many of them are streams.
    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    /// Forgets all calls; returns them in the order in which they were made.
    pub(super) fn drain(&mut self) -> Vec<(u64, Call<S>)> {
        self.streams = 0;
        let mut calls: Vec<_> = self.live.drain().collect();
        calls.sort_unstable_by_key(|(mux_id, _)| *mux_id);
        calls
    }
}

/// The message that makes a call (P13).
pub(super) fn request_message(
    mux_id: u64,
    request: &Request,
    checksum: Checksum,
    now: Instant,
) -> Outgoing<'_> {
    let header = Header {
        deadline_ms: millis_left(request.deadline, now),
        handler: request.handler,
        flags: Flags::EOF,
        ..Header::new(mux_id, Op::Request)
    };
    Outgoing { header, payload: &request.payload, subroute: request.subroute.as_ref(), checksum }
}

/// Milliseconds to a deadline, rounded up: 0 would mean that there is none (P5).
pub(super) fn millis_left(deadline: Instant, now: Instant) -> u32 {
    let millis = deadline.since(now).as_nanos().div_ceil(1_000_000);
    u32::try_from(millis).unwrap_or(u32::MAX).max(1)
}

/// What a Response says of the call that it answers.
pub(super) fn outcome_of_response(message: Message) -> Outcome {
    if message.header.flags.contains(Flags::ERROR) {
        Outcome::RemoteError(payload::text(&message.payload))
    } else {
        Outcome::Response(message.payload)
    }
}

/// What a MuxConnectError says of the call that was not taken.
pub(super) fn outcome_of_refusal(message: &Message) -> Outcome {
    let reason: Arc<str> = match payload::decode::<MuxConnectError>(&message.payload) {
        Ok(refusal) => refusal.error.into(),
        Err(_) => "the peer gave no reason".into(),
    };
    if reason.starts_with(UNKNOWN_HANDLER) {
        Outcome::UnknownHandler(reason)
    } else {
        Outcome::Refused(reason)
    }
}

/// What a DisconnectClientMux says of the call that the serving side gives up.
pub(super) fn outcome_of_remote_end(message: &Message) -> Outcome {
    let has_reason = message.header.flags.contains(Flags::ERROR);
    Outcome::RemoteError(if has_reason {
        payload::text(&message.payload)
    } else {
        "cancelled by the peer".into()
    })
}
