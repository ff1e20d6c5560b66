//! The outstanding outbound calls.
//!
//! A table from id to state. Ids grow and are never reused on the same connection, so an ended call
//! is removed at once: a late response finds no entry and is discarded ([P14]).
//!
//! [P14]: crate::protocol#p14

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::counter;
use super::end::{CallOutcome, End};
use super::message::{Checksum, Flags, Header, Message, Op, Outgoing};
use super::payload::{self, MuxConnectError, UNKNOWN_HANDLER_PREFIX};
use super::stream::{OpenRequest, Stream};
use super::subroute::SubrouteId;
use crate::time::Instant;

/// The default user data of a call: a number, for drivers that need no other type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub usize);

/// A single request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// The handler's id.
    pub handler: u8,
    /// The subroute that selects one of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// The payload for the handler.
    pub payload: Bytes,
    /// The time at which the call expires.
    pub deadline: Instant,
}

/// The state of an outbound call. An opened stream continues in `stream`.
///
/// ```text
///              room in the queue           response | refusal
///   Blocked ─────────────────────► Sent ─────────────────────► ended
///      │                            │
///      │ deadline | cancelled       │ deadline | cancelled: DisconnectServerMux
///      └────────────────────────────┴────────────────────────► ended
/// ```
///
/// `Blocked` exists so that a full queue holds the request, not the caller's task. Cancelling it
/// needs no message, because the peer never received it.
#[derive(Debug)]
pub(super) enum OutboundState {
    /// The request waits for room in the queue, at this position among the waiters.
    Blocked { request: Request, position: u64 },
    /// The request was queued.
    Sent,
    /// The opening message of a stream waits for room in the queue.
    StreamBlocked { stream: Box<Stream>, open: Box<OpenRequest>, position: u64 },
    /// The opening message of a stream was queued.
    Stream { stream: Box<Stream>, is_acknowledged: bool },
}

impl OutboundState {
    /// Whether the peer may have received the call: its first message was queued.
    pub(super) fn is_sent(&self) -> bool {
        match self {
            Self::Sent | Self::Stream { .. } => true,
            Self::Blocked { .. } | Self::StreamBlocked { .. } => false,
        }
    }

    /// Whether a deadline was set: every request has one, a stream may.
    pub(super) fn has_deadline(&self) -> bool {
        match self {
            Self::Blocked { .. } | Self::Sent => true,
            Self::StreamBlocked { stream, .. } | Self::Stream { stream, .. } => {
                stream.has_deadline()
            }
        }
    }

    fn is_stream(&self) -> bool {
        match self {
            Self::Stream { .. } | Self::StreamBlocked { .. } => true,
            Self::Blocked { .. } | Self::Sent => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct OutboundCall<S> {
    pub(super) slot: S,
    pub(super) state: OutboundState,
}

#[derive(Debug)]
pub(super) struct OutboundCalls<S> {
    live: FxHashMap<u64, OutboundCall<S>>,
    /// Number of streams among the calls.
    streams: usize,
    last_id: u64,
}

impl<S> OutboundCalls<S> {
    pub(super) fn new() -> Self {
        Self { live: FxHashMap::default(), streams: 0, last_id: 0 }
    }

    /// Returns the id of the next call (P9).
    pub(super) fn allocate_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn insert(&mut self, mux_id: u64, call: OutboundCall<S>) {
        self.streams += usize::from(call.state.is_stream());
        let before = self.live.insert(mux_id, call);
        debug_assert!(before.is_none(), "ids are never reused");
    }

    pub(super) fn get_mut(&mut self, mux_id: u64) -> Option<&mut OutboundCall<S>> {
        self.live.get_mut(&mux_id)
    }

    pub(super) fn get(&self, mux_id: u64) -> Option<&OutboundCall<S>> {
        self.live.get(&mux_id)
    }

    pub(super) fn contains(&self, mux_id: u64) -> bool {
        self.live.contains_key(&mux_id)
    }

    /// Returns the caller's end of a stream whose opening message was queued.
    pub(super) fn stream_mut(&mut self, mux_id: u64) -> Option<&mut Stream> {
        match self.live.get_mut(&mux_id)?.state {
            OutboundState::Stream { ref mut stream, .. } => Some(stream),
            OutboundState::Blocked { .. }
            | OutboundState::Sent
            | OutboundState::StreamBlocked { .. } => None,
        }
    }

    /// Removes a call. The code that calls this decides the outcome.
    pub(super) fn remove(&mut self, mux_id: u64) -> Option<OutboundCall<S>> {
        let call = self.live.remove(&mux_id)?;
        let streams = usize::from(call.state.is_stream());
        counter::subtract(&mut self.streams, streams, "outbound.streams");
        Some(call)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Returns the number of streams among the calls.
    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    /// Returns all calls with their ids, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &OutboundCall<S>)> {
        self.live.iter().map(|(mux_id, call)| (*mux_id, call))
    }

    /// Checks what must hold between two operations.
    pub(super) fn check_invariants(&self) {
        let streams = self.live.values().filter(|call| call.state.is_stream()).count();
        assert_eq!(self.streams, streams, "outbound.streams, and the streams among its calls");
        for mux_id in self.live.keys() {
            let last_id = self.last_id;
            assert!((1..=last_id).contains(mux_id), "call {mux_id}, outbound.last_id = {last_id}");
        }
    }

    /// Removes all calls and returns them in the order in which they were started.
    pub(super) fn drain(&mut self) -> Vec<(u64, OutboundCall<S>)> {
        self.streams = 0;
        let mut calls: Vec<_> = self.live.drain().collect();
        calls.sort_unstable_by_key(|(mux_id, _)| *mux_id);
        calls
    }
}

/// Builds the Request message of a call (P13).
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

/// Returns the milliseconds to a deadline, rounded up and at least 1: 0 would mean no deadline
/// (P5).
pub(super) fn millis_left(deadline: Instant, now: Instant) -> u32 {
    let millis = deadline.since(now).as_nanos().div_ceil(1_000_000);
    u32::try_from(millis).unwrap_or(u32::MAX).max(1)
}

/// Converts a Response to the outcome of its call.
pub(super) fn outcome_of_response(message: Message) -> CallOutcome {
    if message.header.flags.contains(Flags::ERROR) {
        Err(End::RemoteError(payload::text(&message.payload)))
    } else {
        Ok(message.payload)
    }
}

/// Converts a MuxConnectError to the end of the refused call or stream.
pub(super) fn end_of_refusal(message: &Message) -> End {
    let reason: Arc<str> = match payload::decode::<MuxConnectError>(&message.payload) {
        Ok(refusal) => refusal.error.into(),
        Err(_) => "the peer gave no reason".into(),
    };
    if reason.starts_with(UNKNOWN_HANDLER_PREFIX) {
        End::UnknownHandler(reason)
    } else {
        End::Refused(reason)
    }
}

/// Converts a DisconnectClientMux to the end of the call or stream that the callee ended.
pub(super) fn end_of_disconnect(message: &Message) -> End {
    let has_reason = message.header.flags.contains(Flags::ERROR);
    End::RemoteError(if has_reason {
        payload::text(&message.payload)
    } else {
        "cancelled by the peer".into()
    })
}
