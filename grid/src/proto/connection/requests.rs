//! Single requests of a connection: made, served, answered, refused (P13, P14).

use std::time::Duration;

use super::{Blocked, Connection, Served, ServedStream, Timer};
use crate::proto::call::{self, Call, Request};
use crate::proto::event::{Event, StartError};
use crate::proto::message::{Header, Message, Op};
use crate::proto::payload::{self, MuxConnectError};
use crate::proto::serve::{self, Answer, Asked, Incoming};
use crate::proto::stream::StreamEnd;
use crate::time::Instant;

impl<S> Connection<S> {
    /// Starts a call. Its end is an [`Event::Ended`] with `slot`, unless it is given up before.
    ///
    /// A full queue is no error: the request waits in line.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then there is no call.
    pub fn call(&mut self, slot: S, request: &Request, now: Instant) -> Result<u64, StartError> {
        self.check_start(Some(request.deadline), now)?;
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

    /// Whether one more call may be started.
    pub(super) fn check_start(
        &self,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<(), StartError> {
        if self.is_draining || self.is_closed {
            return Err(StartError::Draining);
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(StartError::DeadlinePassed);
        }
        if self.calls.len() >= self.limits.calls_made_max {
            return Err(StartError::TooManyCalls);
        }
        Ok(())
    }

    /// The caller gives a call or a stream up (B11, P14). There will be no event for a call; a
    /// stream has its [`Event::StreamEnded`], so that whoever else holds a part of it knows.
    pub fn give_up(&mut self, mux_id: u64) {
        if let Some(call) = self.calls.remove(mux_id) {
            self.abandon(mux_id, call);
        }
    }

    /// Answers a call that is served. Returns whether anybody still wanted the answer.
    ///
    /// A full queue is no obstacle: the answer waits in line.
    pub fn answer(&mut self, mux_id: u64, answer: &Answer, now: Instant) -> bool {
        let Some(served) = self.serving.get_mut(mux_id) else {
            return false;
        };
        if served.deadline.is_some_and(|deadline| deadline <= now) {
            self.drop_late_answer(mux_id);
            return false;
        }
        match served.state {
            serve::State::Stream(_) => {
                self.answer_stream(mux_id, answer);
                return true;
            }
            // Nobody can have been asked yet: of an earlier call, by a peer that uses ids again.
            serve::State::Opening { .. } => return false,
            serve::State::Running | serve::State::Blocked { .. } => {}
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

    /// An answer that came after the deadline, though its timer has not run yet, is not sent (P14).
    /// Other parts of a stream's handler may still wait for something: they are told.
    fn drop_late_answer(&mut self, mux_id: u64) {
        if let Some(Served { state: serve::State::Stream(served), .. }) =
            self.serving.remove(mux_id)
        {
            let ServedStream { slot, stream } = *served;
            self.stream_ended(slot, stream, StreamEnd::DeadlineExceeded);
        }
    }

    /// Refuses a call that was to be served: it did not run, and the caller is told why (P13).
    pub fn refuse(&mut self, mux_id: u64, reason: &str) {
        if let Some(served) = self.serving.remove(mux_id) {
            self.send_refusal(mux_id, &served, reason);
        }
    }

    pub(super) fn send_refusal(&mut self, mux_id: u64, served: &Served<S>, reason: &str) {
        let payload = payload::encode(&MuxConnectError { error: reason.to_owned() });
        let mut header = Header::new(mux_id, Op::MuxConnectError);
        served.echo_into(&mut header);
        self.control(header, &payload);
    }

    /// Whether a served call is still wanted.
    pub fn is_serving(&self, mux_id: u64) -> bool {
        self.serving.contains(mux_id)
    }

    pub(super) fn handle_request(&mut self, message: Message, now: Instant) {
        let Message { header, payload, subroute } = message;
        let mux_id = header.mux_id;
        if mux_id == 0 || self.serving.contains(mux_id) {
            // At most one run of a handler per call: a second request with a number in use is no
            // call of its own.
            return self.skip(header);
        }
        let deadline = deadline_of(&header, now);
        let asked = Asked::Request;
        let incoming =
            Incoming { mux_id, asked, handler: header.handler, subroute, payload, deadline };
        self.take_call(&header, serve::State::Running, incoming);
    }

    /// Takes a call of the peer, unless it must be refused.
    pub(super) fn take_call(
        &mut self,
        header: &Header,
        state: serve::State<S>,
        incoming: Incoming,
    ) -> bool {
        let Incoming { mux_id, deadline, .. } = incoming;
        let serial = self.counters.calls_served;
        let served = Served::new(header, state, deadline, serial);
        if self.is_draining {
            self.send_refusal(mux_id, &served, "this server is shutting down");
            return false;
        }
        if self.serving.len() >= self.limits.calls_served_max {
            let reason = format!("overloaded: {} calls are served already", self.serving.len());
            self.send_refusal(mux_id, &served, &reason);
            return false;
        }
        self.serving.insert(mux_id, served);
        if let Some(deadline) = deadline {
            self.arm(deadline, Timer::Served { mux_id, serial });
        }
        self.counters.calls_served += 1;
        self.events.push_back(Event::Serve(incoming));
        true
    }

    pub(super) fn unblock_request(&mut self, mux_id: u64, now: Instant) -> bool {
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

    pub(super) fn unblock_answer(&mut self, mux_id: u64, now: Instant) -> bool {
        let Some(served) = self.serving.get_mut(mux_id) else { return true };
        if served.deadline.is_some_and(|deadline| deadline <= now) {
            self.drop_served(mux_id, StreamEnd::DeadlineExceeded);
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
}

/// When the caller stops waiting, by this side's clock.
pub(super) fn deadline_of(header: &Header, now: Instant) -> Option<Instant> {
    match header.deadline_ms {
        0 => None,
        ms => Some(now + Duration::from_millis(u64::from(ms))),
    }
}
