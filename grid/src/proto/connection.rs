//! One open connection: messages, timeouts and calls in; frames and events out.
//!
//! Both ends run the same state machine: either may call, and either serves calls. It is driven
//! like quinn-proto's; [`Connection`] documents the contract. Waiting callers, running handlers and
//! the socket belong to the driver.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

pub use self::requests::Respond;
pub use self::slots::SlotOwner;
pub use super::end::{CallOutcome, End};
pub use super::event::{CloseReason, Counters, Event, StartError};
pub use super::inbound::{CallKind, HandlerResult, Incoming};
pub use super::outbound::{Request, Slot};
pub use super::payload::UNKNOWN_HANDLER;
pub use super::stream::{Capacities, OpenRequest, Received, SendStatus, StreamId, StreamSide};

use super::deadlines::Deadlines;
use super::inbound::InboundCalls;
use super::message::{Checksum, Flags, Header, Message, Op};
use super::outbound::{self, OutboundCalls};
use super::payload::{self, PingPayload, PongPayload};
use super::ping::Pinger;
use super::queue::Queue;
use crate::check_schedule::CheckSchedule;
use crate::limits::Limits;
use crate::time::{Instant, Timestamp};

mod ends;
mod flush;
mod invariants;
mod output;
mod requests;
mod slots;
mod stream_pings;
mod streams;
mod timers;

use timers::Timer;

/// A waiter for room in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueWaiter {
    Request(u64),
    Response(u64),
    Open(u64),
    Stream(StreamId),
}

/// The result for the front waiter when room was freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum UnblockResult {
    /// Its message was queued, or it no longer waits.
    Dequeued,
    /// There is still no room for its message.
    NoRoom,
}

/// The side that chose the id of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Initiator {
    Local,
    Remote,
}

/// An open connection, as a state machine without I/O.
///
/// ```text
///               peer | pings missed | overrun | malformed | close()
///   Open ─────────────────────────────────────────────────────────► Closed
///    │ ▲
///    └─┘ drain(): takes no new calls, finishes the outstanding ones
/// ```
///
/// `S` is the driver's user data of an outbound call or a stream. The event of its end returns it;
/// [`cancel`](Self::cancel) of a call and a failed start drop it.
///
/// # Contract
///
/// One driver owns the connection. No method blocks, reads a clock or calls back.
///
/// - *Inputs* may come in any order: [`handle_message`](Self::handle_message) as the socket
///   delivers, [`handle_timeout`](Self::handle_timeout), the operations of callers and handlers,
///   [`drain`](Self::drain), [`close`](Self::close). A malformed frame is a `close` with
///   [`CloseReason::Protocol`].
/// - *Outputs* accumulate until the driver takes them: [`poll_event`](Self::poll_event),
///   [`poll_transmit`](Self::poll_transmit),
///   [`take_retired_payloads`](Self::take_retired_payloads); [`poll_timeout`](Self::poll_timeout)
///   only reads.
/// - *Queries*, such as [`wants_transmit`](Self::wants_transmit), change nothing.
///
/// ```text
/// loop {
///     if poll_timeout() <= now: handle_timeout(now, wall)
///     for each received message: handle_message(message, now)
///     for each local operation: call(…), open(…), respond(…), send(…), …
///     while the socket has room and poll_transmit(now) gives a frame: write it
///     while poll_event() gives an event: act on it
///     drop(take_retired_payloads()), with no lock held
///     sleep until poll_timeout(), or input, or room in the socket if wants_transmit()
/// }
/// ```
///
/// Poll events after `poll_transmit` too: the room that a frame leaves lets waiting messages in,
/// and expires late ones. Write frames whole and in order.
///
/// Each [`Event::Incoming`] takes one [`respond`](Self::respond), for a stream after
/// [`accept`](Self::accept), or one [`refuse`](Self::refuse) before the handler starts. None is
/// needed after [`Event::Cancel`].
///
/// All `now` come from one monotonic clock. If it goes backwards, nothing panics: differences
/// saturate at zero, and timers fire early or late by up to the jump. `wall` is only sent in pings,
/// and may jump. An early `handle_timeout` does nothing; a late one lets timers fire late. The
/// timeout after `handle_timeout(now)` is later than `now`. Every input can move it: poll it before
/// each sleep. It is `None` only after the close.
///
/// [`Event::Closed`] is the last event: all calls have ended, no frame is left, and inputs have no
/// further effect. The driver then closes the socket.
///
/// ```
/// # use {bytes::Bytes, grid::limits::Limits, grid::time::Instant, std::time::Duration};
/// # use grid::proto::connection::{Connection, Event, Request, Respond, Slot};
/// # use grid::proto::message::{Checksum, parse_frame};
/// fn transfer(from: &mut Connection, to: &mut Connection, now: Instant) {
///     let mut messages = Vec::new();
///     while let Some(transmit) = from.poll_transmit(now) {
///         parse_frame(&transmit.into_bytes(), &mut messages).expect("a valid frame");
///     }
///     messages.into_iter().for_each(|message| to.handle_message(message, now));
/// }
/// let now = Instant::from_nanos(0);
/// let mut caller = Connection::new(&Limits::default(), Checksum::On, now);
/// let mut callee = Connection::new(&Limits::default(), Checksum::On, now);
/// let (payload, deadline) = (Bytes::from("hello"), now + Duration::from_secs(1));
/// let request = Request { handler: 9, subroute: None, payload, deadline };
/// caller.call(Slot(7), &request, now).expect("the call starts");
/// transfer(&mut caller, &mut callee, now);
/// let Some(Event::Incoming(incoming)) = callee.poll_event() else { panic!("no call came in") };
/// let respond = callee.respond(incoming.mux_id, &Ok(incoming.payload), now);
/// assert_eq!(respond, Respond::Accepted);
/// transfer(&mut callee, &mut caller, now);
/// let outcome = Ok(Bytes::from("hello"));
/// assert_eq!(caller.poll_event(), Some(Event::CallEnded { slot: Slot(7), outcome }));
/// ```
#[derive(Debug)]
pub struct Connection<S = Slot> {
    limits: Limits,
    checksum: Checksum,
    outbound: OutboundCalls<S>,
    inbound: InboundCalls<S>,
    deadlines: Deadlines<Timer>,
    pinger: Pinger,
    queue: Queue<QueueWaiter>,
    events: VecDeque<Event<S>>,
    /// Payloads that are no longer needed. Their memory may belong to the user, so it is not freed
    /// here, under a lock that the driver may hold.
    retired_payloads: Vec<Bytes>,
    counters: Counters,
    is_draining: bool,
    is_closed: bool,
    checks: CheckSchedule,
}

impl<S> Connection<S> {
    /// Creates a connection whose handshake is complete.
    pub fn new(limits: &Limits, checksum: Checksum, now: Instant) -> Self {
        Self {
            checksum,
            outbound: OutboundCalls::new(),
            inbound: InboundCalls::new(),
            deadlines: Deadlines::new(),
            pinger: Pinger::new(limits, now),
            queue: Queue::new(limits),
            events: VecDeque::new(),
            retired_payloads: Vec::new(),
            counters: Counters::default(),
            is_draining: false,
            is_closed: false,
            checks: CheckSchedule::default(),
            limits: limits.clone(),
        }
    }

    // ---- network ----

    /// Handles a received message. Ignored after the connection has closed.
    pub fn handle_message(&mut self, message: Message, now: Instant) {
        self.checked(|connection| connection.dispatch_message(message, now));
    }

    fn dispatch_message(&mut self, message: Message, now: Instant) {
        if self.is_closed {
            return;
        }
        self.counters.messages_in += 1;
        let Header { mux_id, op, .. } = message.header;
        match op {
            Op::Request => self.handle_request(message, now),
            Op::Response => self.handle_response(message),
            Op::MuxConnectError => self.end_call(mux_id, outbound::end_of_refusal(&message)),
            Op::Ping if mux_id == 0 => self.handle_ping(&message),
            Op::Pong if mux_id == 0 => self.handle_pong(&message, now),
            Op::Ping => self.handle_stream_ping(&message.header, now),
            Op::Pong => self.handle_stream_pong(&message),
            Op::ConnectMux => self.handle_connect_mux(message, now),
            Op::DisconnectServerMux => self.remove_and_cancel_inbound(mux_id, End::Cancelled),
            Op::DisconnectClientMux => self.handle_remote_end(&message, now),
            Op::AckMux | Op::MuxServerMsg | Op::UnblockClMux => self.handle_server_message(message),
            Op::MuxClientMsg | Op::UnblockSrvMux => self.handle_client_message(message),
            Op::Disconnect => self.close_now(CloseReason::Peer),
            // Handshake messages after the handshake, an envelope (which parsing has opened), and
            // ops of newer peers.
            Op::Connect | Op::ConnectResponse | Op::Merged | Op::Unknown(_) => {
                self.skip(message.header);
            }
        }
    }

    fn handle_ping(&mut self, message: &Message) {
        let t = match payload::decode::<PingPayload>(&message.payload) {
            Ok(ping) => ping.t,
            Err(_) if message.payload.is_empty() => Timestamp::default(),
            Err(error) => return self.protocol_error(format!("malformed Ping: {error}")),
        };
        let pong = payload::encode(&PongPayload { not_found: false, error: None, t });
        let header = Header { op: Op::Pong, flags: Flags::NONE, ..message.header };
        self.urgent(header, &pong, self.checksum);
    }

    fn handle_pong(&mut self, message: &Message, now: Instant) {
        match payload::decode::<PongPayload>(&message.payload) {
            Ok(pong) => self.pinger.handle_pong(&pong, now),
            Err(error) => self.protocol_error(format!("malformed Pong: {error}")),
        }
    }

    /// Notifies the peer that this side has no call of that id, with the op for the side that chose
    /// the id. A message with EOF gets no reply, or two ends would reply to each other for ever
    /// ([P18], [B16]).
    ///
    /// [B16]: crate::rules#b16
    /// [P18]: crate::protocol#p18
    fn send_disconnect_for_unknown_mux(&mut self, header: Header, initiator: Initiator) {
        let (op, is_another_call) = match initiator {
            Initiator::Local => (Op::DisconnectServerMux, self.outbound.contains(header.mux_id)),
            Initiator::Remote => (Op::DisconnectClientMux, self.inbound.contains(header.mux_id)),
        };
        if is_another_call || header.flags.contains(Flags::EOF) {
            return self.skip(header);
        }
        self.control(Header::new(header.mux_id, op), &[]);
    }

    fn skip(&mut self, header: Header) {
        self.counters.skipped += 1;
        self.events.push_back(Event::Skipped { op: header.op, mux_id: header.mux_id });
    }

    fn protocol_error(&mut self, problem: String) {
        self.close_now(CloseReason::Protocol(problem.into()));
    }

    // ---- end ----

    /// Takes no new calls from either side; outstanding ones continue.
    pub fn drain(&mut self) {
        self.checked(|connection| connection.is_draining = true);
    }

    /// Closes the connection at once, without sending anything ([B05]). Every outbound call ends with
    /// [`End::Disconnected`], every running handler gets [`Event::Cancel`], and the queue
    /// is discarded.
    ///
    /// [B05]: crate::rules#b05
    pub fn close(&mut self, reason: CloseReason) {
        self.checked(|connection| connection.close_now(reason));
    }

    fn close_now(&mut self, reason: CloseReason) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        for (_, call) in self.outbound.drain() {
            self.call_ended(call, End::Disconnected);
        }
        for (mux_id, call) in self.inbound.drain() {
            self.cancel_inbound(mux_id, call, End::Disconnected);
        }
        self.deadlines.clear();
        self.retired_payloads.append(&mut self.queue.clear());
        self.events.push_back(Event::Closed(reason));
    }

    // ---- outputs and queries ----

    /// Returns the next event for the driver.
    pub fn poll_event(&mut self) -> Option<Event<S>> {
        self.events.pop_front()
    }

    /// Returns payloads that are no longer needed, for the driver to drop where it holds no lock.
    pub fn take_retired_payloads(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.retired_payloads)
    }

    /// Whether a frame is queued for writing.
    pub fn wants_transmit(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether no call is outstanding in either direction and no frame is queued.
    pub fn is_idle(&self) -> bool {
        self.outbound.len() == 0 && self.inbound.len() == 0 && self.queue.is_empty()
    }

    /// Returns the number of outstanding calls of this side.
    pub fn live_outbound_calls(&self) -> usize {
        self.outbound.len()
    }

    /// Returns the number of outstanding calls of the peer.
    pub fn live_inbound_calls(&self) -> usize {
        self.inbound.len()
    }

    /// Returns the number of streams among the outstanding calls of this side.
    pub fn live_outbound_streams(&self) -> usize {
        self.outbound.streams()
    }

    /// Returns the number of streams among the outstanding calls of the peer.
    pub fn live_inbound_streams(&self) -> usize {
        self.inbound.streams()
    }

    /// Returns the bytes of the queued messages.
    pub fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    /// Returns the number of messages that wait for room in the queue.
    pub fn blocked_messages(&self) -> usize {
        self.queue.waiters_len()
    }

    /// Returns the round trip of the last ping whose pong matched.
    pub fn ping_round_trip(&self) -> Option<Duration> {
        self.pinger.round_trip()
    }

    /// Returns the traffic counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
