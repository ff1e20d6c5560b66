//! Streams of a connection: opening, flow control, liveness, end ([P15](crate::protocol#p15) to [P18](crate::protocol#p18)).
//!
//! `proto::stream` decides what one stream allows; this module connects it to the queue, the timers
//! and the tables of calls.

use bytes::Bytes;

use super::UnblockResult::{self, Dequeued, NoRoom};
use super::requests::Admission;
use super::timers::Timer;
use super::{Connection, Initiator, QueueWaiter};
use crate::error::HandlerError;
use crate::proto::end::End;
use crate::proto::event::{Event, StartError};
use crate::proto::inbound::{
    self, CallKind, HandlerResult, InboundCall, InboundState, InboundStream, Incoming,
};
use crate::proto::message::{Flags, Header, Message, Op};
use crate::proto::outbound::{self, OutboundCall, OutboundState};
use crate::proto::payload;
use crate::proto::queue::Push;
use crate::proto::stream::{
    self, Arrival, Capacities, NextSend, OpenRequest, Received, SendStatus, Stream, StreamId,
    StreamSide, Violation,
};
use crate::time::Instant;

/// Bytes by which a message may grow while it waits: its sequence number is assigned when it is
/// queued.
const SEQUENCE_GROWTH_BYTES_MAX: usize = size_of::<u32>();

impl<S> Connection<S> {
    // ---- opening ----

    /// Opens a stream. It ends with an [`Event::StreamEnded`] that returns `slot`, also if it is
    /// cancelled. Messages may be passed to [`send`](Self::send) at once. They are queued when the
    /// peer has acknowledged the stream, which [`Event::Opened`] reports.
    ///
    /// A full queue is no error: the opening message waits for room.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then there is no stream.
    pub fn open(
        &mut self,
        slot: S,
        open: OpenRequest,
        now: Instant,
    ) -> Result<StreamId, StartError> {
        self.checked(|connection| connection.start_stream(slot, open, now))
    }

    fn start_stream(
        &mut self,
        slot: S,
        open: OpenRequest,
        now: Instant,
    ) -> Result<StreamId, StartError> {
        if let Err(error) = self.check_start(open.deadline, now) {
            self.retired_payloads.extend(open.payload);
            return Err(error);
        }
        let mux_id = self.outbound.allocate_id();
        let deadline = open.deadline;
        let deadline_ms = deadline.map_or(0, |deadline| outbound::millis_left(deadline, now));
        let message = stream::open_message(mux_id, &open, deadline_ms, self.checksum);
        let bytes = message.encoded_len();
        if bytes > self.limits.message_bytes_max {
            self.retired_payloads.extend(open.payload);
            return Err(StartError::TooLarge { bytes });
        }
        let stream = Box::new(Stream::for_caller(open.capacities, deadline, now));
        let state = match self.queue.try_push(&message, open.payload.as_ref()) {
            Push::Queued => {
                self.retired_payloads.extend(open.payload);
                OutboundState::Stream { stream, is_acknowledged: false }
            }
            Push::NoRoom => {
                let position = self.queue.enqueue_waiter(QueueWaiter::Open(mux_id));
                OutboundState::StreamBlocked { stream, open: Box::new(open), position }
            }
        };
        self.outbound.insert(mux_id, OutboundCall { slot, state });
        if let Some(deadline) = deadline {
            self.arm(deadline, Timer::OutboundDeadline(mux_id));
        }
        let first_ping = now + self.limits.stream_ping_interval;
        if deadline.is_none_or(|deadline| deadline > first_ping) {
            self.arm(first_ping, Timer::StreamPing(mux_id));
        }
        self.counters.outbound_calls += 1;
        self.counters.outbound_streams += 1;
        Ok(StreamId { side: StreamSide::Caller, mux_id })
    }

    pub(super) fn try_unblock_open(&mut self, mux_id: u64, now: Instant) -> UnblockResult {
        let checksum = self.checksum;
        let Some(call) = self.outbound.get(mux_id) else { return Dequeued };
        let OutboundState::StreamBlocked { open, .. } = &call.state else {
            return Dequeued;
        };
        if open.deadline.is_some_and(|deadline| deadline <= now) {
            self.expire_call(mux_id);
            return Dequeued;
        }
        let deadline_ms = open.deadline.map_or(0, |deadline| outbound::millis_left(deadline, now));
        let message = stream::open_message(mux_id, open, deadline_ms, checksum);
        match self.queue.push_for_waiter(&message, open.payload.as_ref()) {
            Push::NoRoom => return NoRoom,
            Push::Queued => {}
        }
        if let Some(OutboundCall {
            slot,
            state: OutboundState::StreamBlocked { stream, open, .. },
        }) = self.outbound.remove(mux_id)
        {
            self.retired_payloads.extend(open.payload);
            let state = OutboundState::Stream { stream, is_acknowledged: false };
            self.outbound.insert(mux_id, OutboundCall { slot, state });
        }
        Dequeued
    }

    pub(super) fn handle_connect_mux(&mut self, message: Message, now: Instant) {
        let has_payload = message.present_payload().is_some();
        let Message { header, payload, subroute } = message;
        let mux_id = header.mux_id;
        if mux_id == 0 || self.inbound.contains(mux_id) {
            return self.skip(header); // as with a request: the id is in use
        }
        let is_input_finished = header.flags.contains(Flags::EOF);
        let state = InboundState::Opening { is_input_finished, pings: 0 };
        let deadline = inbound::deadline_of(&header, now);
        if header.flags.contains(Flags::STATELESS) {
            let call = InboundCall::new(&header, state, deadline, self.counters.inbound_calls);
            return self.send_refusal(mux_id, &call, "Stateless streams not supported");
        }
        let kind = CallKind::Stream { has_payload };
        let handler = header.handler;
        let incoming = Incoming { mux_id, kind, handler, subroute, payload, deadline };
        let serial = self.counters.inbound_calls;
        match self.admit_inbound(&header, state, incoming) {
            Admission::Refused => {}
            Admission::Admitted => {
                self.counters.inbound_streams += 1;
                self.arm_stream_ping_timeout(mux_id, serial, deadline, now);
            }
        }
    }

    /// Accepts and acknowledges an inbound stream ([B20](crate::rules#b20)). Returns whether it was
    /// still outstanding; if not, `slot` is dropped, and the handler must not start.
    #[must_use = "a stream that has ended has no handler"]
    pub fn accept(&mut self, mux_id: u64, slot: S, capacities: Capacities, now: Instant) -> bool {
        self.checked(|connection| connection.accept_stream(mux_id, slot, capacities, now))
    }

    fn accept_stream(
        &mut self,
        mux_id: u64,
        slot: S,
        capacities: Capacities,
        now: Instant,
    ) -> bool {
        let Some(call) = self.inbound.get_mut(mux_id) else { return false };
        let InboundState::Opening { is_input_finished, pings } = call.state else {
            // The peer reused the id, which it must not (P9), and it now names another call.
            return false;
        };
        let mut stream = Stream::for_callee(capacities, is_input_finished, pings, now);
        let sequence = stream.next_sequence();
        call.state = InboundState::Stream(Box::new(InboundStream { slot, stream }));
        self.control(Header { sequence, ..Header::new(mux_id, Op::AckMux) }, &[]);
        true
    }

    // ---- both ends ----

    /// Returns the driver's value of an outstanding stream.
    pub fn slot_mut(&mut self, id: StreamId) -> Option<&mut S> {
        match id.side {
            StreamSide::Caller => self.outbound.get_mut(id.mux_id).map(|call| &mut call.slot),
            StreamSide::Callee => self.inbound.stream_mut(id.mux_id).map(|call| &mut call.slot),
        }
    }

    pub(super) fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        match id.side {
            StreamSide::Caller => match &mut self.outbound.get_mut(id.mux_id)?.state {
                OutboundState::Stream { stream, .. }
                | OutboundState::StreamBlocked { stream, .. } => Some(stream),
                OutboundState::Blocked { .. } | OutboundState::Sent => None,
            },
            StreamSide::Callee => self.inbound.stream_mut(id.mux_id).map(|call| &mut call.stream),
        }
    }

    /// Whether the peer has acknowledged an outbound stream.
    pub fn is_open(&self, mux_id: u64) -> bool {
        let state = self.outbound.get(mux_id).map(|call| &call.state);
        matches!(state, Some(OutboundState::Stream { is_acknowledged: true, .. }))
    }

    /// Passes a message to a stream, if none is waiting. With [`SendStatus::Waiting`], `payload` is
    /// `None` if the message was accepted and waits, and `Some` if an earlier one still waits. In
    /// both cases [`Event::Writable`] reports that the waiting message was queued.
    pub fn send(&mut self, id: StreamId, payload: &mut Option<Bytes>) -> SendStatus {
        self.checked(|connection| connection.send_message(id, payload))
    }

    fn send_message(&mut self, id: StreamId, payload: &mut Option<Bytes>) -> SendStatus {
        let max = self.limits.message_bytes_max;
        let checksum = self.checksum;
        let Some(stream) = self.stream_mut(id) else { return SendStatus::StreamEnded };
        if let Err(instead) = stream.check_can_send() {
            return instead;
        }
        let Some(message) = payload.take() else { return SendStatus::Queued };
        stream.send(message);
        let bytes = stream.outgoing(NextSend::Message, id.mux_id, checksum).0.encoded_len();
        if bytes + SEQUENCE_GROWTH_BYTES_MAX > max {
            *payload = stream.take_waiting();
            return SendStatus::TooLarge { bytes };
        }
        self.flush_stream(id);
        self.stream_mut(id).map_or(SendStatus::StreamEnded, |stream| stream.send_status())
    }

    /// Returns the progress of the last message passed to [`send`](Self::send).
    pub fn send_status(&mut self, id: StreamId) -> SendStatus {
        self.stream_mut(id).map_or(SendStatus::StreamEnded, |stream| stream.send_status())
    }

    /// Takes back the waiting message, if any ([B06](crate::rules#b06), [B11](crate::rules#b11)): the peer never receives it.
    pub fn cancel_send(&mut self, id: StreamId) {
        self.checked(|connection| {
            let Some(stream) = connection.stream_mut(id) else { return };
            let message = stream.take_waiting();
            connection.retired_payloads.extend(message);
            connection.flush_and_emit(id);
        });
    }

    /// Finishes the sending direction of an outbound stream ([B25](crate::rules#b25)). The end follows the waiting
    /// message and takes a credit ([P17](crate::protocol#p17)). [`Event::Writable`] reports that a waiting end was queued.
    pub fn finish(&mut self, id: StreamId) -> SendStatus {
        debug_assert_eq!(id.side, StreamSide::Caller, "a handler finishes by returning");
        self.checked(|connection| connection.finish_sending(id))
    }

    fn finish_sending(&mut self, id: StreamId) -> SendStatus {
        let Some(stream) = self.stream_mut(id) else { return SendStatus::StreamEnded };
        stream.finish();
        self.flush_stream(id);
        match self.stream_mut(id) {
            Some(stream) if stream.is_closed() => SendStatus::Queued,
            Some(_) => SendStatus::Waiting,
            None => SendStatus::StreamEnded,
        }
    }

    /// Takes the next received message and returns its credit to the peer ([P17](crate::protocol#p17)).
    pub fn receive(&mut self, id: StreamId) -> Received {
        self.checked(|connection| connection.take_received(id))
    }

    fn take_received(&mut self, id: StreamId) -> Received {
        let Some(stream) = self.stream_mut(id) else { return Received::StreamEnded };
        let received = stream.take_received();
        if let Received::Message(_) = received {
            self.flush_and_emit(id);
        }
        received
    }

    /// Discards received and future messages, so that the peer's sender is not blocked.
    pub fn stop_receiving(&mut self, id: StreamId) {
        self.checked(|connection| {
            let Some(stream) = connection.stream_mut(id) else { return };
            let dropped = stream.start_discarding();
            connection.retired_payloads.extend(dropped);
            connection.flush_and_emit(id);
        });
    }

    /// Records the result of a stream's handler and starts to close its sending direction.
    pub(super) fn respond_to_stream(&mut self, mux_id: u64, response: &HandlerResult) {
        let (max, checksum) = (self.limits.message_bytes_max, self.checksum);
        let Some(InboundStream { stream, .. }) = self.inbound.stream_mut(mux_id) else { return };
        stream.respond(response.as_ref().map(|_| ()).map_err(HandlerError::clone));
        let bytes = stream.outgoing(NextSend::End, mux_id, checksum).0.encoded_len();
        if bytes + SEQUENCE_GROWTH_BYTES_MAX > max {
            let problem =
                format!("the handler's error of {bytes} bytes is larger than the limit of {max}");
            stream.respond(Err(problem.into()));
        }
        // Later input has no reader; its sender must not be blocked (B25).
        let dropped = stream.start_discarding();
        self.retired_payloads.extend(dropped);
        let id = StreamId { side: StreamSide::Callee, mux_id };
        self.flush_and_emit(id);
    }

    // ---- incoming ----

    /// Handles AckMux, MuxServerMsg or UnblockClMux, from the callee's end.
    pub(super) fn handle_server_message(&mut self, message: Message) {
        let Header { mux_id, op, .. } = message.header;
        let id = StreamId { side: StreamSide::Caller, mux_id };
        let Some(stream) = self.outbound.stream_mut(mux_id) else {
            return match op {
                Op::UnblockClMux => {} // a credit for a stream that has ended
                _ => self.send_disconnect_for_unknown_mux(message.header, Initiator::Local),
            };
        };
        if let Err(violation) = stream.check_sequence(message.header.sequence) {
            return self.end_and_notify_peer(mux_id, violation.into_end());
        }
        match op {
            Op::UnblockClMux => {
                stream.grant_one();
                self.flush_and_emit(id);
            }
            Op::AckMux => {
                stream.grant_all();
                self.acknowledged(id);
                self.flush_and_emit(id);
            }
            _ => self.handle_data_from_handler(id, message),
        }
    }

    /// Marks an outbound stream as acknowledged: any message counts, as MinIO peers may reorder.
    fn acknowledged(&mut self, id: StreamId) {
        if let Some(OutboundCall { state: OutboundState::Stream { is_acknowledged, .. }, .. }) =
            self.outbound.get_mut(id.mux_id)
            && !*is_acknowledged
        {
            *is_acknowledged = true;
            self.events.push_back(Event::Opened(id));
        }
    }

    fn handle_data_from_handler(&mut self, id: StreamId, message: Message) {
        let mux_id = id.mux_id;
        let flags = message.header.flags;
        if flags.contains(Flags::ERROR) {
            let text = payload::text(&message.payload);
            return self.end_call(mux_id, End::RemoteError(text));
        }
        let is_last = flags.contains(Flags::EOF);
        let is_message = !is_last || message.present_payload().is_some();
        if is_message {
            match self.outbound.stream_mut(mux_id).map(|stream| stream.receive(message.payload)) {
                Some(Err(error)) => return self.end_and_notify_peer(mux_id, error.into_end()),
                Some(Ok(Arrival::First)) => self.events.push_back(Event::Readable(id)),
                Some(Ok(Arrival::Unnoticed)) | None => {}
            }
        }
        if is_last {
            if let Some(OutboundCall { slot, state: OutboundState::Stream { stream, .. } }) =
                self.outbound.remove(mux_id)
            {
                self.stream_ended(slot, *stream, End::Finished);
            }
            return;
        }
        self.acknowledged(id);
        self.flush_and_emit(id); // a discarded message returns its credit at once
    }

    /// Handles MuxClientMsg or UnblockSrvMux, from the caller's end.
    pub(super) fn handle_client_message(&mut self, message: Message) {
        let Header { mux_id, op, sequence, flags, .. } = message.header;
        let id = StreamId { side: StreamSide::Callee, mux_id };
        let Some(InboundStream { stream, .. }) = self.inbound.stream_mut(mux_id) else {
            if self.is_opening(mux_id) {
                let received = sequence;
                return self.fail_inbound(mux_id, Violation::Sequence { expected: 0, received });
            }
            return match op {
                Op::UnblockSrvMux => {} // a credit for a stream that has ended
                _ => self.send_disconnect_for_unknown_mux(message.header, Initiator::Remote),
            };
        };
        let is_last = op == Op::MuxClientMsg && flags.contains(Flags::EOF);
        let is_message =
            op == Op::MuxClientMsg && (!is_last || message.present_payload().is_some());
        let mut arrival = Arrival::Unnoticed;
        let taken = stream.check_sequence(sequence).and_then(|()| {
            if is_message {
                arrival = stream.receive(message.payload)?;
            }
            if is_last {
                if !stream.has_received() {
                    arrival = Arrival::First;
                }
                stream.end_input();
            }
            if op == Op::UnblockSrvMux {
                stream.grant_one();
            }
            Ok(())
        });
        if let Err(violation) = taken {
            return self.fail_inbound(mux_id, violation);
        }
        if arrival == Arrival::First {
            self.events.push_back(Event::Readable(id));
        }
        self.flush_and_emit(id);
    }

    fn is_opening(&self, mux_id: u64) -> bool {
        let state = self.inbound.get(mux_id).map(|call| &call.state);
        matches!(state, Some(InboundState::Opening { .. }))
    }

    /// Ends one inbound stream, whose caller violated the protocol, with an error ([B21](crate::rules#b21), [B22](crate::rules#b22)).
    pub(super) fn fail_inbound(&mut self, mux_id: u64, violation: Violation) {
        let Some(mut call) = self.inbound.remove(mux_id) else { return };
        let sequence = match &mut call.state {
            InboundState::Stream(inbound_stream) => inbound_stream.stream.next_sequence(),
            InboundState::Running | InboundState::Blocked { .. } | InboundState::Opening { .. } => {
                0
            }
        };
        let flags = Flags::EOF.with(Flags::ERROR);
        let header = Header { sequence, flags, ..Header::new(mux_id, Op::MuxServerMsg) };
        self.cancel_inbound(mux_id, call, violation.into_end());
        self.control(header, violation.text().as_bytes());
    }
}
