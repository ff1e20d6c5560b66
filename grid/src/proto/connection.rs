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
pub use super::serve::{Answer, Incoming};

use super::call::{self, Call, Calls};
use super::deadlines::Deadlines;
use super::message::{Checksum, Flags, Header, Message, Op, Outgoing};
use super::outbox::{Lane, Transmit};
use super::payload::{self, MuxConnectError, PingPayload, PongPayload};
use super::ping::{Due, Pinger};
use super::queue::{Overrun, Queue};
use super::serve::{self, Served, Serving};
use crate::limits::Limits;
use crate::time::{Instant, Timestamp};

/// Who waits for room in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    Request(u64),
    Answer(u64),
}

/// Which side chose the id of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Local,
    Remote,
}

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
    serving: Serving,
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
            serving: Serving::default(),
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

    // ---- calling ----

    /// Starts a call. Its end is an [`Event::Ended`] with `slot`, unless it is given up before.
    ///
    /// A full queue is no error: the request waits in line.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then there is no call.
    pub fn call(&mut self, slot: S, request: &Request, now: Instant) -> Result<u64, StartError> {
        if self.is_draining || self.is_closed {
            return Err(StartError::Draining);
        }
        if request.deadline <= now {
            return Err(StartError::DeadlinePassed);
        }
        if self.calls.len() >= self.limits.calls_made_max {
            return Err(StartError::TooManyCalls);
        }
        let mux_id = self.calls.allocate_id();
        let deadline = request.deadline;
        let message = call::request_message(mux_id, request, self.checksum, now);
        let bytes = message.encoded_len();
        if bytes > self.limits.message_bytes_max {
            return Err(StartError::TooLarge { bytes });
        }
        let state = if self.queue.try_push(&message, Some(&request.payload)) {
            call::State::Sent
        } else {
            let place = self.queue.stand_in_line(Blocked::Request(mux_id));
            call::State::Blocked { request: request.clone(), place }
        };
        self.calls.insert(mux_id, Call { slot, state });
        self.arm(deadline, Timer::Call(mux_id));
        self.counters.calls_made += 1;
        Ok(mux_id)
    }

    /// The caller gives a call up (B11, P14). There will be no event for it.
    pub fn give_up(&mut self, mux_id: u64) {
        if let Some(call) = self.calls.remove(mux_id) {
            self.abandon(mux_id, call.state);
        }
    }

    /// Lets the serving side know that nobody waits any more, if it ever heard of the call.
    fn abandon(&mut self, mux_id: u64, state: call::State) {
        match state {
            call::State::Blocked { place, request } => {
                self.queue.leave_line(place);
                self.spent.push(request.payload);
            }
            call::State::Sent => self.control(Header::new(mux_id, Op::DisconnectServerMux), &[]),
        }
    }

    // ---- serving ----

    /// Answers a call that is served. Returns whether anybody still wanted the answer.
    ///
    /// A full queue is no obstacle: the answer waits in line.
    pub fn answer(&mut self, mux_id: u64, answer: &Answer, now: Instant) -> bool {
        let Some(served) = self.serving.get_mut(mux_id) else {
            return false;
        };
        if served.deadline.is_some_and(|deadline| deadline <= now) {
            self.serving.remove(mux_id); // P14: too late to be sent
            return false;
        }
        let message = serve::answer_message(mux_id, answer, self.checksum);
        let bytes = message.encoded_len();
        let max = self.limits.message_bytes_max;
        if bytes > max {
            let kind = if answer.is_ok() { "answer" } else { "error" };
            let problem =
                format!("the handler's {kind} of {bytes} bytes is larger than the limit of {max}");
            return self.answer(mux_id, &Err(problem.into()), now);
        }
        if self.queue.try_push(&message, answer.as_ref().ok()) {
            self.serving.remove(mux_id);
        } else {
            let place = self.queue.stand_in_line(Blocked::Answer(mux_id));
            if let Some(served) = self.serving.get_mut(mux_id) {
                served.state = serve::State::Blocked { answer: answer.clone(), place };
            }
        }
        true
    }

    /// Refuses a call that was to be served: it did not run, and the caller is told why (P13).
    pub fn refuse(&mut self, mux_id: u64, reason: &str) {
        if let Some(served) = self.serving.remove(mux_id) {
            self.send_refusal(mux_id, &served, reason);
        }
    }

    fn send_refusal(&mut self, mux_id: u64, served: &Served, reason: &str) {
        let payload = payload::encode(&MuxConnectError { error: reason.to_owned() });
        let mut header = Header::new(mux_id, Op::MuxConnectError);
        served.echo_into(&mut header);
        self.control(header, &payload);
    }

    /// Whether a served call is still wanted.
    pub fn is_serving(&self, mux_id: u64) -> bool {
        self.serving.contains(mux_id)
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
            Op::Response => self.end_call(mux_id, call::outcome_of_response(message)),
            Op::MuxConnectError => self.end_call(mux_id, call::outcome_of_refusal(&message)),
            Op::Ping if mux_id == 0 => self.handle_ping(&message),
            Op::Pong if mux_id == 0 => self.handle_pong(&message, now),
            Op::Ping => self.answer_ping_of_unknown_stream(&message.header),
            Op::ConnectMux => self.handle_connect_mux(&message.header),
            Op::DisconnectServerMux => self.handle_cancel(mux_id),
            Op::DisconnectClientMux => self.end_call(mux_id, call::outcome_of_remote_end(&message)),
            Op::AckMux | Op::MuxServerMsg | Op::Pong => {
                self.disown(message.header, Owner::Local);
            }
            Op::MuxClientMsg => self.disown(message.header, Owner::Remote),
            // A credit for a stream that is gone.
            Op::UnblockClMux | Op::UnblockSrvMux => {}
            Op::Disconnect => self.close(CloseReason::Peer),
            // Handshake messages after the handshake, an envelope (which parsing has opened), and
            // what newer peers may have to say.
            Op::Connect | Op::ConnectResponse | Op::Merged | Op::Unknown(_) => {
                self.skip(message.header);
            }
        }
    }

    fn handle_request(&mut self, message: Message, now: Instant) {
        let Message { header, payload, subroute } = message;
        let mux_id = header.mux_id;
        if mux_id == 0 || self.serving.contains(mux_id) {
            // At most one run of a handler per call: a second request with a number in use is no
            // call of its own.
            return self.skip(header);
        }
        let deadline = match header.deadline_ms {
            0 => None,
            ms => Some(now + Duration::from_millis(u64::from(ms))),
        };
        let serial = self.counters.calls_served;
        let served = Served::new(&header, deadline, serial);
        if self.is_draining {
            return self.send_refusal(mux_id, &served, "this server is shutting down");
        }
        if self.serving.len() >= self.limits.calls_served_max {
            let reason = format!("overloaded: {} calls are served already", self.serving.len());
            return self.send_refusal(mux_id, &served, &reason);
        }
        self.serving.insert(mux_id, served);
        if let Some(deadline) = deadline {
            self.arm(deadline, Timer::Served { mux_id, serial });
        }
        self.counters.calls_served += 1;
        let handler = header.handler;
        self.events.push_back(Event::Serve(Incoming {
            mux_id,
            handler,
            subroute,
            payload,
            deadline,
        }));
    }

    /// Ends a call that the other side knows to be over. One that is gone needs no answer: what
    /// comes late carries EOF or refers to nothing (P18).
    fn end_call(&mut self, mux_id: u64, outcome: Outcome) {
        match self.calls.get_mut(mux_id) {
            // The peer cannot answer what it never got: nothing that it sends ends this call.
            Some(Call { state: call::State::Blocked { .. }, .. }) | None => {}
            Some(Call { state: call::State::Sent, .. }) => {
                if let Some(Call { slot, .. }) = self.calls.remove(mux_id) {
                    self.events.push_back(Event::Ended { slot, outcome });
                }
            }
        }
    }

    /// The caller of a call that is served here gave it up.
    fn handle_cancel(&mut self, mux_id: u64) {
        if let Some(served) = self.serving.remove(mux_id) {
            self.cancel_served(mux_id, served);
        }
    }

    fn cancel_served(&mut self, mux_id: u64, served: Served) {
        match served.state {
            serve::State::Running => self.events.push_back(Event::Cancel { mux_id }),
            serve::State::Blocked { place, answer } => {
                self.queue.leave_line(place);
                self.spent.extend(answer);
                self.events.push_back(Event::AnswerOver { mux_id });
            }
        }
    }

    fn handle_connect_mux(&mut self, header: &Header) {
        let served = Served::new(header, None, self.counters.calls_served);
        if header.flags.contains(Flags::STATELESS) {
            return self.send_refusal(header.mux_id, &served, "Stateless streams not supported");
        }
        let reason = format!("{UNKNOWN_HANDLER}: {}", header.handler);
        self.send_refusal(header.mux_id, &served, &reason);
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

    fn answer_ping_of_unknown_stream(&mut self, header: &Header) {
        let pong =
            payload::encode(&PongPayload { not_found: true, error: None, t: Timestamp::default() });
        self.control(Header { op: Op::Pong, flags: Flags::NONE, ..*header }, &pong);
    }

    /// Tells the other end that a stream is gone, toward the side that owns its id. An end is not
    /// answered, or two ends would answer each other for ever (P18, B16).
    fn disown(&mut self, header: Header, owner: Owner) {
        let (op, is_single_request) = match owner {
            Owner::Local => (Op::DisconnectServerMux, self.calls.contains(header.mux_id)),
            Owner::Remote => (Op::DisconnectClientMux, self.serving.contains(header.mux_id)),
        };
        if is_single_request || header.flags.contains(Flags::EOF) {
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
                        self.handle_cancel(mux_id);
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
        if let Some(call) = self.calls.remove(mux_id) {
            let outcome = Outcome::DeadlineExceeded;
            self.events.push_back(Event::Ended { slot: call.slot, outcome });
            self.abandon(mux_id, call.state);
        }
    }

    fn arm(&mut self, at: Instant, timer: Timer) {
        let (calls, serving) = (&self.calls, &self.serving);
        self.deadlines.push(at, timer, calls.len() + serving.len(), |timer| match timer {
            Timer::Call(mux_id) => calls.contains(mux_id),
            Timer::Served { mux_id, serial } => serving.is_live(mux_id, serial),
        });
    }

    // ---- the queue ----

    /// The next frame to be written, and room for those who wait for it.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let mut transmit = self.queue.pop()?;
        self.counters.messages_out += u64::from(transmit.messages);
        self.counters.bytes_out += transmit.frame_bytes() as u64;
        self.unblock(now);
        transmit.is_last = self.queue.is_empty();
        Some(transmit)
    }

    /// Encodes those who wait, in their order, as long as there is room. Those who waited beyond
    /// their deadline are not sent, also where its timer has not run yet (B10, P14).
    fn unblock(&mut self, now: Instant) {
        while let Some((place, who)) = self.queue.first_in_line() {
            let is_out_of_line = match who {
                Blocked::Request(mux_id) => self.unblock_request(mux_id, now),
                Blocked::Answer(mux_id) => self.unblock_answer(mux_id, now),
            };
            if !is_out_of_line {
                return;
            }
            self.queue.leave_line(place);
        }
    }

    fn unblock_request(&mut self, mux_id: u64, now: Instant) -> bool {
        let checksum = self.checksum;
        let Some(call) = self.calls.get_mut(mux_id) else { return true };
        let call::State::Blocked { request, .. } = &call.state else { return true };
        if request.deadline <= now {
            self.call_is_due(mux_id);
            return true;
        }
        let message = call::request_message(mux_id, request, checksum, now);
        if !self.queue.push_from_line(&message, Some(&request.payload)) {
            return false;
        }
        let before = std::mem::replace(&mut call.state, call::State::Sent);
        if let call::State::Blocked { request, .. } = before {
            self.spent.push(request.payload);
        }
        true
    }

    fn unblock_answer(&mut self, mux_id: u64, now: Instant) -> bool {
        let Some(served) = self.serving.get_mut(mux_id) else { return true };
        if served.deadline.is_some_and(|deadline| deadline <= now) {
            self.handle_cancel(mux_id);
            return true;
        }
        let serve::State::Blocked { answer, .. } = &served.state else { return true };
        let message = serve::answer_message(mux_id, answer, self.checksum);
        if !self.queue.push_from_line(&message, answer.as_ref().ok()) {
            return false;
        }
        if let Some(Served { state: serve::State::Blocked { answer, .. }, .. }) =
            self.serving.remove(mux_id)
        {
            self.spent.extend(answer);
        }
        self.events.push_back(Event::AnswerOver { mux_id });
        true
    }

    /// Queues a control message of a call. It never waits for room, but stays behind what its call
    /// has queued: a cancellation must not overtake its request.
    fn control(&mut self, header: Header, payload: &[u8]) {
        let checksum = self.checksum;
        self.push_control(Lane::InOrder, Outgoing { header, payload, subroute: None, checksum });
    }

    /// Queues a message of the connection itself, ahead of all data.
    fn urgent(&mut self, header: Header, payload: &[u8], checksum: Checksum) {
        self.push_control(Lane::Urgent, Outgoing { header, payload, subroute: None, checksum });
    }

    fn push_control(&mut self, lane: Lane, message: Outgoing<'_>) {
        if self.is_closed {
            return;
        }
        if let Err(Overrun { max }) = self.queue.push_control(lane, &message) {
            self.close(CloseReason::ControlOverrun { max });
        }
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
        for Call { slot, state } in self.calls.drain() {
            let outcome = Outcome::Disconnected;
            self.events.push_back(Event::Ended { slot, outcome });
            if let call::State::Blocked { request, .. } = state {
                self.spent.push(request.payload);
            }
        }
        for (mux_id, served) in self.serving.drain() {
            self.cancel_served(mux_id, served);
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
