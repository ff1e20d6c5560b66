//! Streams of a connection: opening, flow control, liveness, end ([P15](crate::protocol#p15) to [P18](crate::protocol#p18)).
//!
//! `proto::stream` decides what one stream allows; this module connects it to the queue, the timers
//! and the tables of calls.

use std::time::Duration;

use bytes::Bytes;

use super::UnblockResult::{self, Dequeued, NoRoom};
use super::requests::deadline_of;
use super::{Connection, Initiator, QueueWaiter, Timer};
use crate::error::HandlerError;
use crate::proto::end::End;
use crate::proto::event::{Event, StartError};
use crate::proto::inbound::{
    CallKind, HandlerResult, InboundCall, InboundState, InboundStream, Incoming,
};
use crate::proto::message::{Flags, Header, Message, Op};
use crate::proto::outbound::{self, OutboundCall, OutboundState};
use crate::proto::payload::{self, PongPayload};
use crate::proto::stream::{
    self, Capacities, NextSend, OpenRequest, Received, SendStatus, Stream, StreamId, StreamSide,
    Violation,
};
use crate::time::{Instant, Timestamp};

/// Bytes by which a message may grow while it waits: its sequence number is assigned when it is
/// queued.
const SEQUENCE_GROWTH_BYTES_MAX: usize = size_of::<u32>();

/// The items that flushing a stream has queued.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flushed {
    has_sent: bool,
    has_ended: bool,
}

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
        let state = if self.queue.try_push(&message, open.payload.as_ref()) {
            self.retired_payloads.extend(open.payload);
            OutboundState::Stream { stream, is_acknowledged: false }
        } else {
            let position = self.queue.enqueue_waiter(QueueWaiter::Open(mux_id));
            OutboundState::StreamBlocked { stream, open: Box::new(open), position }
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
        if !self.queue.push_for_waiter(&message, open.payload.as_ref()) {
            return NoRoom;
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
        let deadline = deadline_of(&header, now);
        if header.flags.contains(Flags::STATELESS) {
            let call = InboundCall::new(&header, state, deadline, self.counters.inbound_calls);
            return self.send_refusal(mux_id, &call, "Stateless streams not supported");
        }
        let kind = CallKind::Stream { has_payload };
        let handler = header.handler;
        let incoming = Incoming { mux_id, kind, handler, subroute, payload, deadline };
        let serial = self.counters.inbound_calls;
        if self.admit_inbound(&header, state, incoming) {
            self.counters.inbound_streams += 1;
            self.arm_stream_ping_timeout(mux_id, serial, deadline, now);
        }
    }

    /// Accepts and acknowledges an inbound stream ([B20](crate::rules#b20)). Returns whether it was still outstanding.
    pub fn accept(&mut self, mux_id: u64, slot: S, capacities: Capacities, now: Instant) -> bool {
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

    fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
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
        let Some(stream) = self.stream_mut(id) else { return };
        let message = stream.take_waiting();
        self.retired_payloads.extend(message);
        self.flush_and_emit(id);
    }

    /// Finishes the sending direction of an outbound stream ([B25](crate::rules#b25)). The end follows the waiting
    /// message and takes a credit ([P17](crate::protocol#p17)). [`Event::Writable`] reports that a waiting end was queued.
    pub fn finish(&mut self, id: StreamId) -> SendStatus {
        debug_assert_eq!(id.side, StreamSide::Caller, "a handler finishes by returning");
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
        let Some(stream) = self.stream_mut(id) else { return Received::StreamEnded };
        let received = stream.take_received();
        if let Received::Message(_) = received {
            self.flush_and_emit(id);
        }
        received
    }

    /// Discards received and future messages, so that the peer's sender is not blocked.
    pub fn stop_receiving(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        let dropped = stream.start_discarding();
        self.retired_payloads.extend(dropped);
        self.flush_and_emit(id);
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
                Some(Ok(true)) => self.events.push_back(Event::Readable(id)),
                Some(Ok(false)) | None => {}
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
        let mut is_readable = false;
        let taken = stream.check_sequence(sequence).and_then(|()| {
            if is_message {
                is_readable = stream.receive(message.payload)?;
            }
            if is_last {
                is_readable |= !stream.has_received();
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
        if is_readable {
            self.events.push_back(Event::Readable(id));
        }
        self.flush_and_emit(id);
    }

    fn is_opening(&self, mux_id: u64) -> bool {
        let state = self.inbound.get(mux_id).map(|call| &call.state);
        matches!(state, Some(InboundState::Opening { .. }))
    }

    /// Ends one inbound stream, whose caller violated the protocol, with an error ([B21](crate::rules#b21), [B22](crate::rules#b22)).
    fn fail_inbound(&mut self, mux_id: u64, violation: Violation) {
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

    // ---- outgoing ----

    /// Queues what a stream may send, as far as there is room for it.
    fn flush_stream(&mut self, id: StreamId) -> Flushed {
        // A waiting stream is flushed when there is room. One without a message need not wait.
        let Some(stream) = self.stream_mut(id) else { return Flushed::default() };
        match (stream.position, stream.next_send()) {
            (Some(position), None) => {
                stream.position = None;
                self.queue.remove_waiter(position);
                Flushed::default()
            }
            (Some(_), Some(_)) | (None, None) => Flushed::default(),
            (None, Some(_)) => {
                let (flushed, is_done) = self.push_all(id, QueuePosition::New);
                if !is_done {
                    let position = self.queue.enqueue_waiter(QueueWaiter::Stream(id));
                    if let Some(stream) = self.stream_mut(id) {
                        stream.position = Some(position);
                    }
                }
                flushed
            }
        }
    }

    fn flush_and_emit(&mut self, id: StreamId) {
        let flushed = self.flush_stream(id);
        self.emit_flushed(id, &flushed);
    }

    pub(super) fn try_unblock_stream(&mut self, id: StreamId, now: Instant) -> UnblockResult {
        let deadline = match id.side {
            StreamSide::Callee => self.inbound.get(id.mux_id).and_then(|call| call.deadline),
            StreamSide::Caller => None, // its own timer expires it, and the callee has one too
        };
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.remove_and_cancel_inbound(id.mux_id, End::DeadlineExceeded);
            return Dequeued;
        }
        let (flushed, is_done) = self.push_all(id, QueuePosition::Front);
        if is_done && let Some(stream) = self.stream_mut(id) {
            stream.position = None;
        }
        self.emit_flushed(id, &flushed);
        if is_done { Dequeued } else { NoRoom }
    }

    /// Queues until nothing is left or there is no room. Returns whether nothing is left.
    fn push_all(&mut self, id: StreamId, position: QueuePosition) -> (Flushed, bool) {
        let Self { outbound, inbound, queue, retired_payloads, checksum, .. } = self;
        let mut flushed = Flushed::default();
        let stream = match id.side {
            StreamSide::Caller => outbound.stream_mut(id.mux_id),
            StreamSide::Callee => inbound.stream_mut(id.mux_id).map(|call| &mut call.stream),
        };
        let Some(stream) = stream else { return (flushed, true) };
        while let Some(next) = stream.next_send() {
            let (message, payload) = stream.outgoing(next, id.mux_id, *checksum);
            let is_queued = match position {
                QueuePosition::New => queue.try_push(&message, payload),
                QueuePosition::Front => queue.push_for_waiter(&message, payload),
            };
            if !is_queued {
                return (flushed, false);
            }
            retired_payloads.extend(stream.mark_sent(next));
            match next {
                NextSend::Credit => {}
                NextSend::Message => flushed.has_sent = true,
                NextSend::End | NextSend::Abort => flushed.has_ended = true,
            }
        }
        (flushed, true)
    }

    fn emit_flushed(&mut self, id: StreamId, flushed: &Flushed) {
        if flushed.has_ended && id.side == StreamSide::Callee {
            self.inbound_stream_finished(id.mux_id);
        } else if flushed.has_sent || flushed.has_ended {
            self.events.push_back(Event::Writable(id));
        }
    }

    /// Removes an inbound stream whose end was queued.
    fn inbound_stream_finished(&mut self, mux_id: u64) {
        if let Some(InboundCall { state: InboundState::Stream(inbound_stream), .. }) =
            self.inbound.remove(mux_id)
        {
            let InboundStream { slot, stream } = *inbound_stream;
            self.stream_ended(slot, stream, End::Finished);
            self.events.push_back(Event::ResponseRetired { mux_id });
        }
    }

    // ---- liveness of the other end (B07) ----

    pub(super) fn ping_stream(&mut self, mux_id: u64, now: Instant) {
        let max = self.limits.stream_pings_missed_by_caller_max;
        let Some(call) = self.outbound.get_mut(mux_id) else { return };
        match &mut call.state {
            OutboundState::Blocked { .. } | OutboundState::Sent => return,
            // Not sent yet: the connection's own pings check the peer's liveness.
            OutboundState::StreamBlocked { .. } => {}
            OutboundState::Stream { stream, .. } => {
                if stream.pings_without_pong >= max {
                    let missed = stream.pings_without_pong;
                    return self.end_and_notify_peer(mux_id, End::PingTimeout { missed });
                }
                stream.pings_without_pong += 1;
                let sequence = stream.next_sequence();
                self.control(Header { sequence, ..Header::new(mux_id, Op::Ping) }, &[]);
            }
        }
        if !self.is_closed {
            self.arm(now + self.limits.stream_ping_interval, Timer::StreamPing(mux_id));
        }
    }

    pub(super) fn handle_stream_ping(&mut self, header: &Header, now: Instant) {
        let mux_id = header.mux_id;
        let mut pong = PongPayload { not_found: false, error: None, t: Timestamp::default() };
        let checked = match self.inbound.get_mut(mux_id).map(|call| &mut call.state) {
            Some(InboundState::Stream(inbound_stream)) => {
                inbound_stream.stream.last_ping = now;
                inbound_stream.stream.check_sequence(header.sequence)
            }
            // Known, but not accepted or refused yet.
            Some(InboundState::Opening { pings, .. }) => {
                *pings += 1;
                stream::check_sequence(*pings, header.sequence)
            }
            Some(InboundState::Running | InboundState::Blocked { .. }) | None => {
                pong.not_found = true;
                Ok(())
            }
        };
        if let Err(violation) = checked {
            return self.fail_inbound(mux_id, violation);
        }
        let header = Header { op: Op::Pong, flags: Flags::NONE, ..*header };
        self.control(header, &payload::encode(&pong));
    }

    pub(super) fn handle_stream_pong(&mut self, message: &Message) {
        let mux_id = message.header.mux_id;
        let Some(stream) = self.outbound.stream_mut(mux_id) else {
            return self.send_disconnect_for_unknown_mux(message.header, Initiator::Local);
        };
        match payload::decode::<PongPayload>(&message.payload) {
            Err(error) => self.protocol_error(format!("malformed Pong: {error}")),
            Ok(PongPayload { error: Some(error), .. }) => {
                self.end_call(mux_id, End::RemoteError(error.into()));
            }
            Ok(PongPayload { not_found: true, .. }) => {
                if let Some(OutboundCall { slot, state: OutboundState::Stream { stream, .. } }) =
                    self.outbound.remove(mux_id)
                {
                    self.stream_ended(slot, *stream, End::NotFound);
                }
            }
            Ok(_) => stream.pings_without_pong = 0,
        }
    }

    /// Returns the longest wait for a ping: the last missed one is late after one more interval.
    fn stream_ping_timeout(&self) -> Duration {
        let intervals = self.limits.stream_pings_missed_by_callee_max.saturating_add(1);
        self.limits.stream_ping_interval.saturating_mul(intervals)
    }

    fn arm_stream_ping_timeout(
        &mut self,
        mux_id: u64,
        serial: u64,
        deadline: Option<Instant>,
        now: Instant,
    ) {
        let until = now + self.stream_ping_timeout();
        if deadline.is_none_or(|deadline| deadline > until) {
            self.arm(until, Timer::StreamPingTimeout { mux_id, serial });
        }
    }

    pub(super) fn check_stream_ping_timeout(&mut self, mux_id: u64, serial: u64, now: Instant) {
        let stream_ping_timeout = self.stream_ping_timeout();
        let until = match self.inbound.stream_mut(mux_id) {
            Some(InboundStream { stream, .. }) => stream.last_ping + stream_ping_timeout,
            None => now, // not accepted in all this time
        };
        if until > now {
            return self.arm(until, Timer::StreamPingTimeout { mux_id, serial });
        }
        let missed = self.limits.stream_pings_missed_by_callee_max;
        self.remove_and_cancel_inbound(mux_id, End::PingTimeout { missed });
        let header = Header { flags: Flags::ERROR, ..Header::new(mux_id, Op::DisconnectClientMux) };
        let text = format!("no ping for {} s", stream_ping_timeout.as_secs());
        self.control(header, text.as_bytes());
    }
}

/// Whether a stream is already the front waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueuePosition {
    New,
    Front,
}
