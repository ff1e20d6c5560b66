//! The outstanding inbound calls.
//!
//! A table from the caller's id to the state that is needed until the response is queued. The
//! driver runs the handlers; this table only knows whether a result is still needed.

use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::counter;
use super::message::{Checksum, Flags, Header, Op, Outgoing};
use super::stream::Stream;
use super::subroute::SubrouteId;
use crate::error::HandlerError;
use crate::time::Instant;

/// The kind of an incoming call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// One payload in, one response out.
    Request,
    /// A stream, to be accepted with [`Connection::accept`](super::connection::Connection::accept).
    Stream {
        /// Whether there is an initial payload; an empty one counts ([P5]).
        ///
        /// [P5]: crate::protocol#p5
        has_payload: bool,
    },
}

/// An incoming call. It must be completed exactly once, through
/// [`Connection::respond`](super::connection::Connection::respond) or
/// [`Connection::refuse`](super::connection::Connection::refuse).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The caller's id of the call.
    pub mux_id: u64,
    /// Single request or stream.
    pub kind: CallKind,
    /// The handler's id.
    pub handler: u8,
    /// The subroute that selects one of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// The payload for the handler: a slice of the received frame.
    pub payload: Bytes,
    /// The time at which the caller stops waiting, if it set one.
    pub deadline: Option<Instant>,
}

/// The result of a handler. The payload of a stream's result is ignored: a stream has sent its
/// messages before.
pub type HandlerResult = Result<Bytes, HandlerError>;

/// The state of an inbound call.
///
/// ```text
///   Request            response, queue full          room in the queue
///  ─────────► Running ────────────────────► Blocked ───────────────────► ended
///               │  │                           │
///               │  └── response, room ─────────┼───────────────────────► ended
///               └── cancel | deadline ─────────┴───────────────────────► ended, nothing is sent
///
///   ConnectMux           accept
///  ────────────► Opening ──────► Stream: see `stream`
/// ```
///
/// `Opening` exists because the driver looks up the handler, and with it the capacities.
#[derive(Debug)]
pub(super) enum InboundState<S> {
    /// The handler runs.
    Running,
    /// The response waits for room in the queue, at this position among the waiters.
    Blocked { response: HandlerResult, position: u64 },
    /// A stream that is not accepted yet, and the number of pings that its caller has sent.
    Opening { is_input_finished: bool, pings: u32 },
    /// An accepted stream.
    Stream(Box<InboundStream<S>>),
}

impl<S> InboundState<S> {
    fn is_stream(&self) -> bool {
        match self {
            Self::Opening { .. } | Self::Stream(_) => true,
            Self::Running | Self::Blocked { .. } => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct InboundStream<S> {
    pub(super) slot: S,
    pub(super) stream: Stream,
}

#[derive(Debug)]
pub(super) struct InboundCall<S> {
    pub(super) state: InboundState<S>,
    pub(super) deadline: Option<Instant>,
    /// Distinguishes this call from an earlier one with the same id.
    serial: u64,
    /// A refusal echoes these fields of the request.
    handler: u8,
    deadline_ms: u32,
    flags: Flags,
}

impl<S> InboundCall<S> {
    pub(super) fn new(
        header: &Header,
        state: InboundState<S>,
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

    /// Whether the deadline has passed.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Copies the fields of the request that a refusal echoes (P13).
    pub(super) fn echo_into(&self, header: &mut Header) {
        header.handler = self.handler;
        header.deadline_ms = self.deadline_ms;
        header.flags = self.flags.without(Flags::CRC).without(Flags::SUBROUTE);
    }
}

#[derive(Debug)]
pub(super) struct InboundCalls<S> {
    live: FxHashMap<u64, InboundCall<S>>,
    /// Number of streams among the calls.
    streams: usize,
}

impl<S> InboundCalls<S> {
    pub(super) fn new() -> Self {
        Self { live: FxHashMap::default(), streams: 0 }
    }

    pub(super) fn insert(&mut self, mux_id: u64, call: InboundCall<S>) {
        self.streams += usize::from(call.state.is_stream());
        let before = self.live.insert(mux_id, call);
        debug_assert!(before.is_none(), "a duplicate id was refused earlier");
    }

    pub(super) fn get(&self, mux_id: u64) -> Option<&InboundCall<S>> {
        self.live.get(&mux_id)
    }

    pub(super) fn get_mut(&mut self, mux_id: u64) -> Option<&mut InboundCall<S>> {
        self.live.get_mut(&mux_id)
    }

    /// Returns the callee's end of an accepted stream.
    pub(super) fn stream_mut(&mut self, mux_id: u64) -> Option<&mut InboundStream<S>> {
        match self.live.get_mut(&mux_id)?.state {
            InboundState::Stream(ref mut stream) => Some(stream),
            InboundState::Running | InboundState::Blocked { .. } | InboundState::Opening { .. } => {
                None
            }
        }
    }

    /// Returns the number of streams among the calls.
    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    pub(super) fn contains(&self, mux_id: u64) -> bool {
        self.live.contains_key(&mux_id)
    }

    /// Whether this very call, not a later one with its id, is outstanding.
    pub(super) fn is_live(&self, mux_id: u64, serial: u64) -> bool {
        self.get_live(mux_id, serial).is_some()
    }

    /// Returns this very call, not a later one with its id.
    pub(super) fn get_live(&self, mux_id: u64, serial: u64) -> Option<&InboundCall<S>> {
        self.live.get(&mux_id).filter(|call| call.serial == serial)
    }

    pub(super) fn remove(&mut self, mux_id: u64) -> Option<InboundCall<S>> {
        let call = self.live.remove(&mux_id)?;
        let streams = usize::from(call.state.is_stream());
        counter::subtract(&mut self.streams, streams, "inbound.streams");
        Some(call)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Returns all calls with their ids, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &InboundCall<S>)> {
        self.live.iter().map(|(mux_id, call)| (*mux_id, call))
    }

    /// Checks what must hold between two operations. `admitted` is the number of calls so far.
    pub(super) fn check_invariants(&self, admitted: u64) {
        let streams = self.live.values().filter(|call| call.state.is_stream()).count();
        assert_eq!(self.streams, streams, "inbound.streams, and the streams among its calls");
        for (mux_id, InboundCall { serial, .. }) in &self.live {
            assert_ne!(*mux_id, 0, "an inbound call with the connection's id");
            assert!(*serial < admitted, "call {mux_id}: serial = {serial}, admitted = {admitted}");
        }
    }

    /// Removes all calls and returns them in ascending order of their ids.
    pub(super) fn drain(&mut self) -> Vec<(u64, InboundCall<S>)> {
        self.streams = 0;
        let mut calls: Vec<_> = self.live.drain().collect();
        calls.sort_unstable_by_key(|(mux_id, _)| *mux_id);
        calls
    }
}

/// Converts the deadline in a header to an instant of the local clock.
pub(super) fn deadline_of(header: &Header, now: Instant) -> Option<Instant> {
    match header.deadline_ms {
        0 => None,
        ms => Some(now + Duration::from_millis(u64::from(ms))),
    }
}

/// Builds the Response message of a call (P13, P14).
pub(super) fn response_message(
    mux_id: u64,
    response: &HandlerResult,
    checksum: Checksum,
) -> Outgoing<'_> {
    let (payload, flags): (&[u8], _) = match response {
        Ok(payload) if payload.is_empty() => (&[], Flags::EOF.with(Flags::ZERO)),
        Ok(payload) => (payload, Flags::EOF),
        Err(error) => (error.message().as_bytes(), Flags::EOF.with(Flags::ERROR)),
    };
    let header = Header { flags, ..Header::new(mux_id, Op::Response) };
    Outgoing { header, payload, subroute: None, checksum }
}
