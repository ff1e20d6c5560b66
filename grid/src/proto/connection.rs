//! One open connection: messages, timeouts and calls in; frames and events out.
//!
//! Both ends run the same machine: either may call, either serves. It is driven like quinn's:
//! [`handle_message`](Connection::handle_message) and
//! [`handle_timeout`](Connection::handle_timeout) let the world in,
//! [`poll_transmit`](Connection::poll_transmit), [`poll_event`](Connection::poll_event) and
//! [`poll_timeout`](Connection::poll_timeout) say what should happen next. Who waits for a call,
//! who runs a handler and who owns the socket is not known here.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

pub use super::call::{Outcome, Request, Slot};
pub use super::event::{CloseReason, Counters, Event, StartError, UNKNOWN_HANDLER};
pub use super::serve::{Answer, Asked, Incoming};
pub use super::stream::{Capacities, Open, Received, Sent, Side, StreamEnd, StreamId};

use super::call::{self, Call, Calls, State};
use super::deadlines::Deadlines;
use super::message::{Checksum, Flags, Header, Message, Op};
use super::payload::{self, PingPayload, PongPayload};
use super::ping::{Due, Pinger};
use super::queue::Queue;
use super::serve::{self, Served, ServedStream, Serving};
use super::stream::Stream;
use crate::limits::Limits;
use crate::time::{Instant, Timestamp};

mod output;
mod requests;
mod streams;

/// Who waits for room in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    Request(u64),
    Answer(u64),
    Open(u64),
    Stream(StreamId),
}

/// Which side chose the id of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Local,
    Remote,
}

/// A stream has its deadline and its pings. Fewer would make the sweep of timers that are over walk
/// over those of all streams and find few.
const TIMERS_PER_CALL_MAX: usize = 2;

/// What has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Call(u64),
    /// With a number of its own: a peer may use an id again, though it must not (P9), and then the
    /// timers of its earlier calls must neither cut the new one short nor pile up.
    Served {
        mux_id: u64,
        serial: u64,
    },
    /// The next ping of a stream of this side.
    StreamPing(u64),
    /// The time by which a stream that is served must have been pinged.
    StreamSilence {
        mux_id: u64,
        serial: u64,
    },
}

/// An open connection.
///
/// ```text
///               peer | pings missed | overrun | malformed | close()
///   Open ─────────────────────────────────────────────────────────► Closed
///    │ ▲
///    └─┘ drain(): takes no new calls, finishes those under way
/// ```
///
/// `S` is whatever the driver wants to be given back when a call ends.
#[derive(Debug)]
pub struct Connection<S = Slot> {
    limits: Limits,
    checksum: Checksum,
    calls: Calls<S>,
    serving: Serving<S>,
    deadlines: Deadlines<Timer>,
    pinger: Pinger,
    queue: Queue<Blocked>,
    events: VecDeque<Event<S>>,
    /// Payloads that are done with. Their memory may be the user's own, so it is not freed here,
    /// under whatever lock the driver holds.
    spent: Vec<Bytes>,
    counters: Counters,
    is_draining: bool,
    is_closed: bool,
}

impl<S> Connection<S> {
    /// A connection whose handshake is done.
    pub fn new(limits: &Limits, checksum: Checksum, now: Instant) -> Self {
        Self {
            checksum,
            calls: Calls::new(),
            serving: Serving::new(),
            deadlines: Deadlines::new(),
            pinger: Pinger::new(limits, now),
            queue: Queue::new(limits),
            events: VecDeque::new(),
            spent: Vec::new(),
            counters: Counters::default(),
            is_draining: false,
            is_closed: false,
            limits: limits.clone(),
        }
    }

    // ---- the network ----

    /// Takes in a message.
    pub fn handle_message(&mut self, message: Message, now: Instant) {
        if self.is_closed {
            return;
        }
        self.counters.messages_in += 1;
        let Header { mux_id, op, .. } = message.header;
        match op {
            Op::Request => self.handle_request(message, now),
            Op::Response if self.calls.stream_mut(mux_id).is_some() => self.skip(message.header),
            Op::Response => self.end_call(mux_id, call::outcome_of_response(message)),
            Op::MuxConnectError => self.end_call(mux_id, call::outcome_of_refusal(&message)),
            Op::Ping if mux_id == 0 => self.handle_ping(&message),
            Op::Pong if mux_id == 0 => self.handle_pong(&message, now),
            Op::Ping => self.handle_stream_ping(&message.header, now),
            Op::Pong => self.handle_stream_pong(&message),
            Op::ConnectMux => self.handle_connect_mux(message, now),
            Op::DisconnectServerMux => self.drop_served(mux_id, StreamEnd::Cancelled),
            Op::DisconnectClientMux => self.handle_remote_end(&message, now),
            Op::AckMux | Op::MuxServerMsg | Op::UnblockClMux => self.handle_server_message(message),
            Op::MuxClientMsg | Op::UnblockSrvMux => self.handle_client_message(message),
            Op::Disconnect => self.close(CloseReason::Peer),
            // Handshake messages after the handshake, an envelope (which parsing has opened), and
            // what newer peers may have to say.
            Op::Connect | Op::ConnectResponse | Op::Merged | Op::Unknown(_) => {
                self.skip(message.header);
            }
        }
    }

    /// Ends a call that the other side knows to be over. One that is gone needs no answer: what
    /// comes late carries EOF or refers to nothing (P18).
    fn end_call(&mut self, mux_id: u64, outcome: Outcome) {
        match self.calls.get_mut(mux_id) {
            // The peer cannot answer what it never got: nothing that it sends ends this call.
            Some(Call { state: State::Blocked { .. } | State::StreamBlocked { .. }, .. })
            | None => {}
            Some(Call { state: State::Sent | State::Stream { .. }, .. }) => {
                if let Some(call) = self.calls.remove(mux_id) {
                    self.call_ended(call, outcome);
                }
            }
        }
    }

    /// Tells the caller how its call ended.
    fn call_ended(&mut self, call: Call<S>, outcome: Outcome) {
        let Call { slot, state } = call;
        match state {
            State::Blocked { request, .. } => {
                self.spent.push(request.payload);
                self.events.push_back(Event::Ended { slot, outcome });
            }
            State::Sent => self.events.push_back(Event::Ended { slot, outcome }),
            State::StreamBlocked { stream, open, .. } => {
                self.spent.extend(open.payload);
                self.stream_ended(slot, *stream, outcome.into());
            }
            State::Stream { stream, .. } => self.stream_ended(slot, *stream, outcome.into()),
        }
    }

    fn stream_ended(&mut self, slot: S, stream: Stream, end: StreamEnd) {
        if let Some(place) = stream.place {
            self.queue.leave_line(place);
        }
        let (rest, waiting) = stream.into_received();
        self.spent.extend(waiting);
        self.events.push_back(Event::StreamEnded { slot, rest, end });
    }

    /// Lets the serving side know that nobody waits any more, if it ever heard of the call.
    fn abandon(&mut self, mux_id: u64, call: Call<S>) {
        match call.state {
            State::Blocked { place, request } => {
                self.queue.leave_line(place);
                self.spent.push(request.payload);
            }
            State::StreamBlocked { stream, open, place } => {
                self.queue.leave_line(place);
                self.spent.extend(open.payload);
                self.stream_ended(call.slot, *stream, StreamEnd::Cancelled);
            }
            State::Sent => self.tell_caller_is_gone(mux_id),
            State::Stream { stream, .. } => {
                self.stream_ended(call.slot, *stream, StreamEnd::Cancelled);
                self.tell_caller_is_gone(mux_id);
            }
        }
    }

    fn tell_caller_is_gone(&mut self, mux_id: u64) {
        self.control(Header::new(mux_id, Op::DisconnectServerMux), &[]);
    }

    /// The serving side gives a call up, or does not know it any more. It forgets a stream without a
    /// word when the deadline has passed, and its clock may run a little faster than this one: what
    /// is sent then meets nobody, and what comes back gives no reason (P18). That is the deadline.
    fn handle_remote_end(&mut self, message: &Message, now: Instant) {
        let mux_id = message.header.mux_id;
        let has_reason = message.header.flags.contains(Flags::ERROR);
        let stream = self.calls.stream_mut(mux_id);
        let is_due = stream.is_some_and(|stream| stream.may_be_due_there(now));
        let outcome = match (has_reason, is_due) {
            (false, true) => Outcome::DeadlineExceeded,
            _ => call::outcome_of_remote_end(message),
        };
        self.end_call(mux_id, outcome);
    }

    /// A call that is served here is not wanted any more.
    fn drop_served(&mut self, mux_id: u64, end: StreamEnd) {
        if let Some(served) = self.serving.remove(mux_id) {
            self.cancel_served(mux_id, served, end);
        }
    }

    fn cancel_served(&mut self, mux_id: u64, served: Served<S>, end: StreamEnd) {
        match served.state {
            serve::State::Running | serve::State::Opening { .. } => {
                self.events.push_back(Event::Cancel { mux_id });
            }
            serve::State::Blocked { place, answer } => {
                self.queue.leave_line(place);
                self.spent.extend(answer);
                self.events.push_back(Event::AnswerOver { mux_id });
            }
            serve::State::Stream(served) => {
                let ServedStream { slot, stream } = *served;
                let is_running = stream.is_running();
                self.stream_ended(slot, stream, end);
                self.events.push_back(if is_running {
                    Event::Cancel { mux_id }
                } else {
                    Event::AnswerOver { mux_id }
                });
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

    /// Tells the other end that a stream is gone, toward the side that owns its id. An end is not
    /// answered, or two ends would answer each other for ever (P18, B16).
    fn disown(&mut self, header: Header, owner: Owner) {
        let (op, is_another_call) = match owner {
            Owner::Local => (Op::DisconnectServerMux, self.calls.contains(header.mux_id)),
            Owner::Remote => (Op::DisconnectClientMux, self.serving.contains(header.mux_id)),
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
        self.close(CloseReason::Protocol(problem.into()));
    }

    // ---- time ----

    /// When [`handle_timeout`](Self::handle_timeout) should be called. May be early.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed {
            return None;
        }
        let ping = self.pinger.next_at();
        Some(self.deadlines.next().map_or(ping, |deadline| deadline.min(ping)))
    }

    /// Does what is due at `now`. `wall` travels in pings.
    pub fn handle_timeout(&mut self, now: Instant, wall: Timestamp) {
        if self.is_closed {
            return;
        }
        while let Some(timer) = self.deadlines.pop_due(now) {
            match timer {
                Timer::Call(mux_id) => self.call_is_due(mux_id),
                Timer::Served { mux_id, serial } => {
                    if self.serving.is_live(mux_id, serial) {
                        self.drop_served(mux_id, StreamEnd::DeadlineExceeded);
                    }
                }
                Timer::StreamPing(mux_id) => self.ping_stream(mux_id, now),
                Timer::StreamSilence { mux_id, serial } => {
                    if self.serving.is_live(mux_id, serial) {
                        self.check_silence(mux_id, serial, now);
                    }
                }
            }
        }
        match self.pinger.handle_timeout(now, wall) {
            Due::Nothing => {}
            Due::Dead { missed } => self.close(CloseReason::PingTimeout { missed }),
            Due::Send { payload, interval_ms } => {
                let header = Header { deadline_ms: interval_ms, ..Header::new(0, Op::Ping) };
                self.urgent(header, &payload::encode(&payload), Checksum::Off); // P12
            }
        }
    }

    fn call_is_due(&mut self, mux_id: u64) {
        self.end_and_tell(mux_id, StreamEnd::DeadlineExceeded);
    }

    /// Ends a call for a reason of this side's, and lets the serving side know.
    fn end_and_tell(&mut self, mux_id: u64, end: StreamEnd) {
        let Some(Call { slot, state }) = self.calls.remove(mux_id) else { return };
        match state {
            State::Blocked { place, request } => {
                self.queue.leave_line(place);
                self.spent.push(request.payload);
                self.events.push_back(Event::Ended { slot, outcome: Outcome::DeadlineExceeded });
            }
            State::Sent => {
                self.events.push_back(Event::Ended { slot, outcome: Outcome::DeadlineExceeded });
                self.tell_caller_is_gone(mux_id);
            }
            State::StreamBlocked { stream, open, place } => {
                self.queue.leave_line(place);
                self.spent.extend(open.payload);
                self.stream_ended(slot, *stream, end);
            }
            State::Stream { stream, .. } => {
                self.stream_ended(slot, *stream, end);
                self.tell_caller_is_gone(mux_id);
            }
        }
    }

    fn arm(&mut self, at: Instant, timer: Timer) {
        let (calls, serving) = (&self.calls, &self.serving);
        let live = TIMERS_PER_CALL_MAX * (calls.len() + serving.len());
        self.deadlines.push(at, timer, live, |timer| match timer {
            Timer::Call(mux_id) | Timer::StreamPing(mux_id) => calls.contains(mux_id),
            Timer::Served { mux_id, serial } | Timer::StreamSilence { mux_id, serial } => {
                serving.is_live(mux_id, serial)
            }
        });
    }

    // ---- the end ----

    /// Takes no new calls from either side; those under way go on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Ends everything at once: every call with [`Outcome::Disconnected`], every handler with
    /// [`Event::Cancel`], and nothing is left in the queue (B05).
    pub fn close(&mut self, reason: CloseReason) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        for (_, call) in self.calls.drain() {
            self.call_ended(call, Outcome::Disconnected);
        }
        for (mux_id, served) in self.serving.drain() {
            self.cancel_served(mux_id, served, StreamEnd::Disconnected);
        }
        self.deadlines.clear();
        self.spent.append(&mut self.queue.clear());
        self.events.push_back(Event::Closed(reason));
    }

    // ---- what can be seen ----

    /// The next thing that the driver must know.
    pub fn poll_event(&mut self) -> Option<Event<S>> {
        self.events.pop_front()
    }

    /// Payloads that are done with, for the driver to drop where it holds no lock.
    pub fn take_spent(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.spent)
    }

    /// Whether anything waits to be written.
    pub fn wants_transmit(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether no call is under way in either direction and nothing waits to be written.
    pub fn is_idle(&self) -> bool {
        self.calls.len() == 0 && self.serving.len() == 0 && self.queue.is_empty()
    }

    /// Calls of this side that are not over.
    pub fn live_calls(&self) -> usize {
        self.calls.len()
    }

    /// Calls of the peer that are not over.
    pub fn live_served(&self) -> usize {
        self.serving.len()
    }

    /// Streams among the calls of this side that are not over.
    pub fn live_streams(&self) -> usize {
        self.calls.streams()
    }

    /// Streams among the calls of the peer that are not over.
    pub fn live_streams_served(&self) -> usize {
        self.serving.streams()
    }

    /// Bytes of messages that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queue.queued_bytes()
    }

    /// Messages that wait for room in the queue.
    pub fn blocked_messages(&self) -> usize {
        self.queue.line_len()
    }

    /// Round trip of the last answered ping.
    pub fn ping_round_trip(&self) -> Option<Duration> {
        self.pinger.round_trip()
    }

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
