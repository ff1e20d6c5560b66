//! Single requests of a connection: started, admitted, responded to, refused ([P13], [P14]).
//!
//! [P13]: crate::protocol#p13
//! [P14]: crate::protocol#p14

use super::UnblockResult::{self, Dequeued, NoRoom};
use super::timers::Timer;
use super::{Connection, QueueWaiter};
use crate::proto::end::End;
use crate::proto::event::{Event, StartError};
use crate::proto::inbound::{
    self, CallKind, HandlerResult, InboundCall, InboundState, InboundStream, Incoming,
};
use crate::proto::message::{Header, Message, Op};
use crate::proto::outbound::{self, OutboundCall, OutboundState, Request};
use crate::proto::payload::{self, MuxConnectError};
use crate::proto::queue::Push;
use crate::time::Instant;

/// The effect of a handler's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Respond {
    /// The response is queued, or waits for room or credit.
    Accepted,
    /// The call has ended, and the response is discarded: its caller cancelled it, or its deadline
    /// passed. Also the result of a second response.
    CallEnded,
}

/// The decision on a call of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Admission {
    Admitted,
    Refused,
}

impl<S> Connection<S> {
    /// Starts a call. It ends with an [`Event::CallEnded`] that returns `slot`, unless it is
    /// cancelled before.
    ///
    /// A full queue is no error: the request waits for room.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then there is no call.
    pub fn call(&mut self, slot: S, request: &Request, now: Instant) -> Result<u64, StartError> {
        self.checked(|connection| connection.start_call(slot, request, now))
    }

    fn start_call(&mut self, slot: S, request: &Request, now: Instant) -> Result<u64, StartError> {
        self.check_start(Some(request.deadline), now)?;
        let mux_id = self.outbound.allocate_id();
        let deadline = request.deadline;
        let message = outbound::request_message(mux_id, request, self.checksum, now);
        let bytes = message.encoded_len();
        if bytes > self.limits.message_bytes_max {
            return Err(StartError::TooLarge { bytes });
        }
        let state = match self.queue.try_push(&message, Some(&request.payload)) {
            Push::Queued => OutboundState::Sent,
            Push::NoRoom => {
                let position = self.queue.enqueue_waiter(QueueWaiter::Request(mux_id));
                OutboundState::Blocked { request: request.clone(), position }
            }
        };
        self.outbound.insert(mux_id, OutboundCall { slot, state });
        self.arm(deadline, Timer::OutboundDeadline(mux_id));
        self.counters.outbound_calls += 1;
        Ok(mux_id)
    }

    /// Checks whether one more call may be started.
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
        if self.outbound.len() >= self.limits.outbound_calls_max {
            return Err(StartError::TooManyCalls);
        }
        Ok(())
    }

    /// Cancels an outbound call or stream ([B11], [P14]). No event follows for a call. A stream ends
    /// with [`Event::StreamEnded`], which informs the holders of its other half. Does nothing if it
    /// has ended.
    ///
    /// [B11]: crate::rules#b11
    /// [P14]: crate::protocol#p14
    pub fn cancel(&mut self, mux_id: u64) {
        self.checked(|connection| {
            if let Some(call) = connection.outbound.remove(mux_id) {
                connection.cancel_outbound(mux_id, call);
            }
        });
    }

    /// Responds to an inbound call. A call takes one response; a second one has no effect.
    ///
    /// A full queue is no error: the response waits for room, and [`Event::ResponseRetired`]
    /// reports the end of the wait.
    pub fn respond(&mut self, mux_id: u64, response: &HandlerResult, now: Instant) -> Respond {
        self.checked(|connection| connection.accept_response(mux_id, response, now))
    }

    fn accept_response(&mut self, mux_id: u64, response: &HandlerResult, now: Instant) -> Respond {
        let Some(call) = self.inbound.get(mux_id) else { return Respond::CallEnded };
        match &call.state {
            InboundState::Running | InboundState::Stream(_) if call.is_overdue(now) => {
                self.discard_late_response(mux_id);
                Respond::CallEnded
            }
            InboundState::Running => self.respond_to_request(mux_id, response),
            InboundState::Stream(inbound) if inbound.stream.is_handler_running() => {
                self.respond_to_stream(mux_id, response);
                Respond::Accepted
            }
            // The result is of an earlier call, whose id the peer reused (it must not: P9). The new
            // call's handler has not started, or its own result waits for room or credit.
            InboundState::Opening { .. }
            | InboundState::Blocked { .. }
            | InboundState::Stream(_) => Respond::CallEnded,
        }
    }

    fn respond_to_request(&mut self, mux_id: u64, response: &HandlerResult) -> Respond {
        let message = inbound::response_message(mux_id, response, self.checksum);
        let bytes = message.encoded_len();
        let max = self.limits.message_bytes_max;
        if bytes > max {
            let kind = if response.is_ok() { "answer" } else { "error" };
            let problem =
                format!("the handler's {kind} of {bytes} bytes is larger than the limit of {max}");
            return self.respond_to_request(mux_id, &Err(problem.into()));
        }
        match self.queue.try_push(&message, response.as_ref().ok()) {
            Push::Queued => {
                self.inbound.remove(mux_id);
            }
            Push::NoRoom => {
                let position = self.queue.enqueue_waiter(QueueWaiter::Response(mux_id));
                if let Some(call) = self.inbound.get_mut(mux_id) {
                    call.state = InboundState::Blocked { response: response.clone(), position };
                }
            }
        }
        Respond::Accepted
    }

    /// Discards a response after the deadline, even if its timer has not run yet ([P14]). The end of
    /// a stream is still reported: other parts of its handler may wait for it.
    ///
    /// [P14]: crate::protocol#p14
    fn discard_late_response(&mut self, mux_id: u64) {
        if let Some(InboundCall { state: InboundState::Stream(inbound_stream), .. }) =
            self.inbound.remove(mux_id)
        {
            let InboundStream { slot, stream } = *inbound_stream;
            self.stream_ended(slot, stream, End::DeadlineExceeded);
        }
    }

    /// Refuses an inbound call whose handler did not run, with a reason for the caller ([P13]). Does
    /// nothing if the call has ended, was accepted, or has its response.
    ///
    /// [P13]: crate::protocol#p13
    pub fn refuse(&mut self, mux_id: u64, reason: &str) {
        self.checked(|connection| {
            match connection.inbound.get(mux_id).map(|call| &call.state) {
                Some(InboundState::Running | InboundState::Opening { .. }) => {}
                // The refusal is of an earlier call, whose id the peer reused (it must not: P9).
                Some(InboundState::Blocked { .. } | InboundState::Stream(_)) | None => return,
            }
            if let Some(call) = connection.inbound.remove(mux_id) {
                connection.send_refusal(mux_id, &call, reason);
            }
        });
    }

    pub(super) fn send_refusal(&mut self, mux_id: u64, call: &InboundCall<S>, reason: &str) {
        let payload = payload::encode(&MuxConnectError { error: reason.to_owned() });
        let mut header = Header::new(mux_id, Op::MuxConnectError);
        call.echo_into(&mut header);
        self.control(header, &payload);
    }

    /// Whether an inbound call is still outstanding.
    pub fn is_inbound_live(&self, mux_id: u64) -> bool {
        self.inbound.contains(mux_id)
    }

    pub(super) fn handle_request(&mut self, message: Message, now: Instant) {
        let Message { header, payload, subroute } = message;
        let mux_id = header.mux_id;
        if mux_id == 0 || self.inbound.contains(mux_id) {
            // A handler runs at most once per call: a second request with an id in use is not a new
            // call.
            return self.skip(header);
        }
        let deadline = inbound::deadline_of(&header, now);
        let kind = CallKind::Request;
        let incoming =
            Incoming { mux_id, kind, handler: header.handler, subroute, payload, deadline };
        // A refused request needs nothing more.
        let _: Admission = self.admit_inbound(&header, InboundState::Running, incoming);
    }

    /// Admits a call of the peer, unless it must be refused.
    pub(super) fn admit_inbound(
        &mut self,
        header: &Header,
        state: InboundState<S>,
        incoming: Incoming,
    ) -> Admission {
        let Incoming { mux_id, deadline, .. } = incoming;
        let serial = self.counters.inbound_calls;
        let call = InboundCall::new(header, state, deadline, serial);
        if self.is_draining {
            self.send_refusal(mux_id, &call, "this server is shutting down");
            return Admission::Refused;
        }
        if self.inbound.len() >= self.limits.inbound_calls_max {
            let reason = format!("overloaded: {} calls are served already", self.inbound.len());
            self.send_refusal(mux_id, &call, &reason);
            return Admission::Refused;
        }
        self.inbound.insert(mux_id, call);
        if let Some(deadline) = deadline {
            self.arm(deadline, Timer::InboundDeadline { mux_id, serial });
        }
        self.counters.inbound_calls += 1;
        self.events.push_back(Event::Incoming(incoming));
        Admission::Admitted
    }

    pub(super) fn try_unblock_request(&mut self, mux_id: u64, now: Instant) -> UnblockResult {
        let checksum = self.checksum;
        let Some(call) = self.outbound.get_mut(mux_id) else { return Dequeued };
        let OutboundState::Blocked { request, .. } = &call.state else {
            return Dequeued;
        };
        if request.deadline <= now {
            self.expire_call(mux_id);
            return Dequeued;
        }
        let message = outbound::request_message(mux_id, request, checksum, now);
        match self.queue.push_for_waiter(&message, Some(&request.payload)) {
            Push::NoRoom => return NoRoom,
            Push::Queued => {}
        }
        let before = std::mem::replace(&mut call.state, OutboundState::Sent);
        if let OutboundState::Blocked { request, .. } = before {
            self.retired_payloads.push(request.payload);
        }
        Dequeued
    }

    pub(super) fn try_unblock_response(&mut self, mux_id: u64, now: Instant) -> UnblockResult {
        let Some(call) = self.inbound.get_mut(mux_id) else { return Dequeued };
        if call.is_overdue(now) {
            self.remove_and_cancel_inbound(mux_id, End::DeadlineExceeded);
            return Dequeued;
        }
        let InboundState::Blocked { response, .. } = &call.state else {
            return Dequeued;
        };
        let message = inbound::response_message(mux_id, response, self.checksum);
        match self.queue.push_for_waiter(&message, response.as_ref().ok()) {
            Push::NoRoom => return NoRoom,
            Push::Queued => {}
        }
        if let Some(InboundCall { state: InboundState::Blocked { response, .. }, .. }) =
            self.inbound.remove(mux_id)
        {
            self.retired_payloads.extend(response);
        }
        self.events.push_back(Event::ResponseRetired { mux_id });
        Dequeued
    }
}
