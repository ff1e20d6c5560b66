//! Streams of a connection: opened, accepted, sent and received on, finished, watched (P15 to P18).
//!
//! What one stream allows is decided in `proto::stream`; here it meets the queue, the timers and the
//! table of calls.

use std::time::Duration;

use bytes::Bytes;

use super::requests::deadline_of;
use super::{Blocked, Connection, Owner, Timer};
use crate::error::HandlerError;
use crate::proto::call::{self, Call, State};
use crate::proto::event::{Event, StartError};
use crate::proto::message::{Flags, Header, Message, Op};
use crate::proto::payload::{self, PongPayload};
use crate::proto::serve::{self, Answer, Asked, Incoming, Served, ServedStream};
use crate::proto::stream::{
    self, Capacities, Next, Open, Received, Sent, Side, Stream, StreamEnd, StreamId, Violation,
};
use crate::time::{Instant, Timestamp};

/// By how much a message may grow while it waits: its sequence is given to it when it leaves.
const SEQUENCE_GROWTH_BYTES_MAX: usize = size_of::<u32>();

/// What pumping a stream brought forward.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pumped {
    has_sent: bool,
    has_ended: bool,
}

impl<S> Connection<S> {
    // ---- opening ----

    /// Opens a stream. Its end is an [`Event::StreamEnded`] with `slot`, also if it is given up.
    /// Messages may be handed over at once; they leave when the other side has acknowledged the
    /// stream, which is an [`Event::Opened`].
    ///
    /// A full queue is no error: the opening message waits in line.
    ///
    /// # Errors
    ///
    /// [`StartError`]; then there is no stream.
    pub fn open(&mut self, slot: S, open: Open, now: Instant) -> Result<StreamId, StartError> {
        if let Err(error) = self.check_start(open.deadline, now) {
            self.spent.extend(open.payload);
            return Err(error);
        }
        let mux_id = self.calls.allocate_id();
        let deadline = open.deadline;
        let deadline_ms = deadline.map_or(0, |deadline| call::millis_left(deadline, now));
        let message = stream::open_message(mux_id, &open, deadline_ms, self.checksum);
        let bytes = message.encoded_len();
        if bytes > self.limits.message_bytes_max {
            self.spent.extend(open.payload);
            return Err(StartError::TooLarge { bytes });
        }
        let stream = Box::new(Stream::calling(open.capacities, deadline, now));
        let state = if self.queue.try_push(&message, open.payload.as_ref()) {
            self.spent.extend(open.payload);
            State::Stream { stream, is_acknowledged: false }
        } else {
            let place = self.queue.stand_in_line(Blocked::Open(mux_id));
            State::StreamBlocked { stream, open: Box::new(open), place }
        };
        self.calls.insert(mux_id, Call { slot, state });
        if let Some(deadline) = deadline {
            self.arm(deadline, Timer::Call(mux_id));
        }
        let first_ping = now + self.limits.stream_ping_interval;
        if deadline.is_none_or(|deadline| deadline > first_ping) {
            self.arm(first_ping, Timer::StreamPing(mux_id));
        }
        self.counters.calls_made += 1;
        self.counters.streams_made += 1;
        Ok(StreamId { side: Side::Calling, mux_id })
    }

    pub(super) fn unblock_open(&mut self, mux_id: u64, now: Instant) -> bool {
        let checksum = self.checksum;
        let Some(call) = self.calls.get(mux_id) else { return true };
        let State::StreamBlocked { open, .. } = &call.state else { return true };
        if open.deadline.is_some_and(|deadline| deadline <= now) {
            self.call_is_due(mux_id);
            return true;
        }
        let deadline_ms = open.deadline.map_or(0, |deadline| call::millis_left(deadline, now));
        let message = stream::open_message(mux_id, open, deadline_ms, checksum);
        if !self.queue.push_from_line(&message, open.payload.as_ref()) {
            return false;
        }
        if let Some(Call { slot, state: State::StreamBlocked { stream, open, .. } }) =
            self.calls.remove(mux_id)
        {
            self.spent.extend(open.payload);
            let state = State::Stream { stream, is_acknowledged: false };
            self.calls.insert(mux_id, Call { slot, state });
        }
        true
    }

    pub(super) fn handle_connect_mux(&mut self, message: Message, now: Instant) {
        let has_payload = message.present_payload().is_some();
        let Message { header, payload, subroute } = message;
        let mux_id = header.mux_id;
        if mux_id == 0 || self.serving.contains(mux_id) {
            return self.skip(header); // as with a request: the number is in use
        }
        let is_input_over = header.flags.contains(Flags::EOF);
        let state = serve::State::Opening { is_input_over, pings: 0 };
        let deadline = deadline_of(&header, now);
        if header.flags.contains(Flags::STATELESS) {
            let served = Served::new(&header, state, deadline, self.counters.calls_served);
            return self.send_refusal(mux_id, &served, "Stateless streams not supported");
        }
        let asked = Asked::Stream { has_payload };
        let handler = header.handler;
        let incoming = Incoming { mux_id, asked, handler, subroute, payload, deadline };
        let serial = self.counters.calls_served;
        if self.take_call(&header, state, incoming) {
            self.counters.streams_served += 1;
            self.watch_for_silence(mux_id, serial, deadline, now);
        }
    }

    /// Takes a stream that came in; the acknowledgement is the first that the caller hears of it
    /// (B20). Returns whether the caller still wants it.
    pub fn accept(&mut self, mux_id: u64, slot: S, capacities: Capacities, now: Instant) -> bool {
        let Some(served) = self.serving.get_mut(mux_id) else { return false };
        let serve::State::Opening { is_input_over, pings } = served.state else {
            // A peer that used the id again, which it must not (P9), has another call under it now.
            return false;
        };
        let mut stream = Stream::serving(capacities, is_input_over, pings, now);
        let sequence = stream.next_sequence();
        served.state = serve::State::Stream(Box::new(ServedStream { slot, stream }));
        self.control(Header { sequence, ..Header::new(mux_id, Op::AckMux) }, &[]);
        true
    }

    // ---- both ends ----

    /// What was given with a stream that is not over.
    pub fn slot_mut(&mut self, id: StreamId) -> Option<&mut S> {
        match id.side {
            Side::Calling => self.calls.get_mut(id.mux_id).map(|call| &mut call.slot),
            Side::Serving => self.serving.stream_mut(id.mux_id).map(|served| &mut served.slot),
        }
    }

    fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        match id.side {
            Side::Calling => match &mut self.calls.get_mut(id.mux_id)?.state {
                State::Stream { stream, .. } | State::StreamBlocked { stream, .. } => Some(stream),
                State::Blocked { .. } | State::Sent => None,
            },
            Side::Serving => self.serving.stream_mut(id.mux_id).map(|served| &mut served.stream),
        }
    }

    /// Whether the other side has acknowledged a stream that this side opened.
    pub fn is_open(&self, mux_id: u64) -> bool {
        let state = self.calls.get(mux_id).map(|call| &call.state);
        matches!(state, Some(State::Stream { is_acknowledged: true, .. }))
    }

    /// Hands over a message, if none waits. [`Sent::Waiting`] is told of it when `payload` was
    /// taken, and also when it was not because another one waits: `payload` is empty in the first
    /// case only. An [`Event::Writable`] follows.
    pub fn send(&mut self, id: StreamId, payload: &mut Option<Bytes>) -> Sent {
        let max = self.limits.message_bytes_max;
        let checksum = self.checksum;
        let Some(stream) = self.stream_mut(id) else { return Sent::StreamOver };
        if let Err(instead) = stream.can_send() {
            return instead;
        }
        let Some(message) = payload.take() else { return Sent::Queued };
        stream.send(message);
        let bytes = stream.outgoing(Next::Message, id.mux_id, checksum).0.encoded_len();
        if bytes + SEQUENCE_GROWTH_BYTES_MAX > max {
            *payload = stream.take_back();
            return Sent::TooLarge { bytes };
        }
        self.pump(id);
        self.stream_mut(id).map_or(Sent::StreamOver, |stream| stream.sent())
    }

    /// How far the message that was handed over last came.
    pub fn sent(&mut self, id: StreamId) -> Sent {
        self.stream_mut(id).map_or(Sent::StreamOver, |stream| stream.sent())
    }

    /// Takes back the message that waits, if it does (B06, B11): the other side never hears of it.
    pub fn cancel_send(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        let message = stream.take_back();
        self.spent.extend(message);
        self.pump_and_tell(id);
    }

    /// The caller sends nothing more (B25). The end follows the message that waits, and waits for
    /// credit like one (P17); an [`Event::Writable`] says that it left.
    pub fn finish(&mut self, id: StreamId) -> Sent {
        debug_assert_eq!(id.side, Side::Calling, "a handler finishes by its answer");
        let Some(stream) = self.stream_mut(id) else { return Sent::StreamOver };
        stream.finish();
        self.pump(id);
        match self.stream_mut(id) {
            Some(stream) if stream.is_closed() => Sent::Queued,
            Some(_) => Sent::Waiting,
            None => Sent::StreamOver,
        }
    }

    /// The next message that came in. Gives its credit back (P17).
    pub fn receive(&mut self, id: StreamId) -> Received {
        let Some(stream) = self.stream_mut(id) else { return Received::StreamOver };
        let received = stream.take_received();
        if let Received::Message(_) = received {
            self.pump_and_tell(id);
        }
        received
    }

    /// Nobody wants what comes in any more: it is dropped, so that the sender is not stuck for it.
    pub fn stop_receiving(&mut self, id: StreamId) {
        let Some(stream) = self.stream_mut(id) else { return };
        let dropped = stream.discard();
        self.spent.extend(dropped);
        self.pump_and_tell(id);
    }

    /// The handler of a stream returned.
    pub(super) fn answer_stream(&mut self, mux_id: u64, answer: &Answer) {
        let (max, checksum) = (self.limits.message_bytes_max, self.checksum);
        let Some(ServedStream { stream, .. }) = self.serving.stream_mut(mux_id) else { return };
        stream.answer(answer.as_ref().map(|_| ()).map_err(HandlerError::clone));
        let bytes = stream.outgoing(Next::End, mux_id, checksum).0.encoded_len();
        if bytes + SEQUENCE_GROWTH_BYTES_MAX > max {
            let problem =
                format!("the handler's error of {bytes} bytes is larger than the limit of {max}");
            stream.answer(Err(problem.into()));
        }
        // What still comes in is for nobody; its sender must not be stuck for it (B25).
        let dropped = stream.discard();
        self.spent.extend(dropped);
        let id = StreamId { side: Side::Serving, mux_id };
        self.pump_and_tell(id);
    }

    // ---- what comes in ----

    /// AckMux, MuxServerMsg or UnblockClMux: from the handler's end.
    pub(super) fn handle_server_message(&mut self, message: Message) {
        let Header { mux_id, op, .. } = message.header;
        let id = StreamId { side: Side::Calling, mux_id };
        let Some(stream) = self.calls.stream_mut(mux_id) else {
            return match op {
                Op::UnblockClMux => {} // a credit for a stream that is gone
                _ => self.disown(message.header, Owner::Local),
            };
        };
        if let Err(violation) = stream.check_sequence(message.header.sequence) {
            return self.end_and_tell(mux_id, violation.into_end());
        }
        match op {
            Op::UnblockClMux => {
                stream.grant_one();
                self.pump_and_tell(id);
            }
            Op::AckMux => {
                stream.grant_all();
                self.acknowledged(id);
                self.pump_and_tell(id);
            }
            _ => self.handle_data_from_handler(id, message),
        }
    }

    /// The other side knows the stream. Existing peers may let the acknowledgement be overtaken, so
    /// any message will do.
    fn acknowledged(&mut self, id: StreamId) {
        if let Some(Call { state: State::Stream { is_acknowledged, .. }, .. }) =
            self.calls.get_mut(id.mux_id)
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
            return self.end_call(mux_id, call::Outcome::RemoteError(text));
        }
        let is_last = flags.contains(Flags::EOF);
        let is_message = !is_last || message.present_payload().is_some();
        if is_message {
            match self.calls.stream_mut(mux_id).map(|stream| stream.receive(message.payload)) {
                Some(Err(violation)) => return self.end_and_tell(mux_id, violation.into_end()),
                Some(Ok(true)) => self.events.push_back(Event::Readable(id)),
                Some(Ok(false)) | None => {}
            }
        }
        if is_last {
            if let Some(Call { slot, state: State::Stream { stream, .. } }) =
                self.calls.remove(mux_id)
            {
                self.stream_ended(slot, *stream, StreamEnd::Finished);
            }
            return;
        }
        self.acknowledged(id);
        self.pump_and_tell(id); // what is discarded gives its credit back at once
    }

    /// MuxClientMsg or UnblockSrvMux: from the caller's end.
    pub(super) fn handle_client_message(&mut self, message: Message) {
        let Header { mux_id, op, sequence, flags, .. } = message.header;
        let id = StreamId { side: Side::Serving, mux_id };
        let Some(ServedStream { stream, .. }) = self.serving.stream_mut(mux_id) else {
            if self.is_opening(mux_id) {
                let received = sequence;
                return self.fail_served(mux_id, Violation::Sequence { expected: 0, received });
            }
            return match op {
                Op::UnblockSrvMux => {} // a credit for a stream that is gone
                _ => self.disown(message.header, Owner::Remote),
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
            return self.fail_served(mux_id, violation);
        }
        if is_readable {
            self.events.push_back(Event::Readable(id));
        }
        self.pump_and_tell(id);
    }

    fn is_opening(&self, mux_id: u64) -> bool {
        let state = self.serving.get(mux_id).map(|served| &served.state);
        matches!(state, Some(serve::State::Opening { .. }))
    }

    /// The caller broke the rules: its stream ends with an error, and only its stream (B21, B22).
    fn fail_served(&mut self, mux_id: u64, violation: Violation) {
        let Some(mut served) = self.serving.remove(mux_id) else { return };
        let sequence = match &mut served.state {
            serve::State::Stream(served) => served.stream.next_sequence(),
            serve::State::Running | serve::State::Blocked { .. } | serve::State::Opening { .. } => {
                0
            }
        };
        let flags = Flags::EOF.with(Flags::ERROR);
        let header = Header { sequence, flags, ..Header::new(mux_id, Op::MuxServerMsg) };
        self.cancel_served(mux_id, served, violation.into_end());
        self.control(header, violation.text().as_bytes());
    }

    // ---- what goes out ----

    /// Queues what a stream may send, as far as there is room for it.
    fn pump(&mut self, id: StreamId) -> Pumped {
        // One that stands in line has its turn when there is room; but if what it waited with was
        // taken back, it has nothing to stand there for.
        let Some(stream) = self.stream_mut(id) else { return Pumped::default() };
        match (stream.place, stream.next()) {
            (Some(place), None) => {
                stream.place = None;
                self.queue.leave_line(place);
                Pumped::default()
            }
            (Some(_), Some(_)) | (None, None) => Pumped::default(),
            (None, Some(_)) => {
                let (pumped, is_done) = self.push_all(id, Turn::New);
                if !is_done {
                    let place = self.queue.stand_in_line(Blocked::Stream(id));
                    if let Some(stream) = self.stream_mut(id) {
                        stream.place = Some(place);
                    }
                }
                pumped
            }
        }
    }

    fn pump_and_tell(&mut self, id: StreamId) {
        let pumped = self.pump(id);
        self.tell(id, &pumped);
    }

    pub(super) fn unblock_stream(&mut self, id: StreamId, now: Instant) -> bool {
        let deadline = match id.side {
            Side::Serving => self.serving.get(id.mux_id).and_then(|served| served.deadline),
            Side::Calling => None, // its own timer tells it, and the other side has one too
        };
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.drop_served(id.mux_id, StreamEnd::DeadlineExceeded);
            return true;
        }
        let (pumped, is_done) = self.push_all(id, Turn::FirstInLine);
        if is_done && let Some(stream) = self.stream_mut(id) {
            stream.place = None;
        }
        self.tell(id, &pumped);
        is_done
    }

    /// Queues until nothing is left, or there is no room; returns which of the two.
    fn push_all(&mut self, id: StreamId, turn: Turn) -> (Pumped, bool) {
        let Self { calls, serving, queue, spent, checksum, .. } = self;
        let mut pumped = Pumped::default();
        let stream = match id.side {
            Side::Calling => calls.stream_mut(id.mux_id),
            Side::Serving => serving.stream_mut(id.mux_id).map(|served| &mut served.stream),
        };
        let Some(stream) = stream else { return (pumped, true) };
        while let Some(next) = stream.next() {
            let (message, payload) = stream.outgoing(next, id.mux_id, *checksum);
            let is_queued = match turn {
                Turn::New => queue.try_push(&message, payload),
                Turn::FirstInLine => queue.push_from_line(&message, payload),
            };
            if !is_queued {
                return (pumped, false);
            }
            spent.extend(stream.mark_sent(next));
            match next {
                Next::Credit => {}
                Next::Message => pumped.has_sent = true,
                Next::End | Next::Abort => pumped.has_ended = true,
            }
        }
        (pumped, true)
    }

    fn tell(&mut self, id: StreamId, pumped: &Pumped) {
        if pumped.has_ended && id.side == Side::Serving {
            self.served_to_the_end(id.mux_id);
        } else if pumped.has_sent || pumped.has_ended {
            self.events.push_back(Event::Writable(id));
        }
    }

    /// The end of a stream that is served here was queued.
    fn served_to_the_end(&mut self, mux_id: u64) {
        if let Some(Served { state: serve::State::Stream(served), .. }) =
            self.serving.remove(mux_id)
        {
            let ServedStream { slot, stream } = *served;
            self.stream_ended(slot, stream, StreamEnd::Finished);
            self.events.push_back(Event::AnswerOver { mux_id });
        }
    }

    // ---- whether the other end lives (B07) ----

    pub(super) fn ping_stream(&mut self, mux_id: u64, now: Instant) {
        let max = self.limits.stream_pings_missed_by_caller_max;
        let Some(call) = self.calls.get_mut(mux_id) else { return };
        match &mut call.state {
            State::Blocked { .. } | State::Sent => return,
            // The other side has not heard of it: the connection's own pings tell whether it lives.
            State::StreamBlocked { .. } => {}
            State::Stream { stream, .. } => {
                if stream.pings_unanswered >= max {
                    let missed = stream.pings_unanswered;
                    return self.end_and_tell(mux_id, StreamEnd::Silent { missed });
                }
                stream.pings_unanswered += 1;
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
        let checked = match self.serving.get_mut(mux_id).map(|served| &mut served.state) {
            Some(serve::State::Stream(served)) => {
                served.stream.last_ping = now;
                served.stream.check_sequence(header.sequence)
            }
            // Known, though nobody has decided on it yet.
            Some(serve::State::Opening { pings, .. }) => {
                *pings += 1;
                stream::check_sequence(*pings, header.sequence)
            }
            Some(serve::State::Running | serve::State::Blocked { .. }) | None => {
                pong.not_found = true;
                Ok(())
            }
        };
        if let Err(violation) = checked {
            return self.fail_served(mux_id, violation);
        }
        let header = Header { op: Op::Pong, flags: Flags::NONE, ..*header };
        self.control(header, &payload::encode(&pong));
    }

    pub(super) fn handle_stream_pong(&mut self, message: &Message) {
        let mux_id = message.header.mux_id;
        let Some(stream) = self.calls.stream_mut(mux_id) else {
            return self.disown(message.header, Owner::Local);
        };
        match payload::decode::<PongPayload>(&message.payload) {
            Err(error) => self.protocol_error(format!("malformed Pong: {error}")),
            Ok(PongPayload { error: Some(error), .. }) => {
                self.end_call(mux_id, call::Outcome::RemoteError(error.into()));
            }
            Ok(PongPayload { not_found: true, .. }) => {
                if let Some(Call { slot, state: State::Stream { stream, .. } }) =
                    self.calls.remove(mux_id)
                {
                    self.stream_ended(slot, *stream, StreamEnd::NotFound);
                }
            }
            Ok(_) => stream.pings_unanswered = 0,
        }
    }

    /// How long the pings of a stream that is served here may stay away: one interval more than may
    /// be missed, as the last of them is late only then.
    fn silence_max(&self) -> Duration {
        let intervals = self.limits.stream_pings_missed_by_callee_max.saturating_add(1);
        self.limits.stream_ping_interval.saturating_mul(intervals)
    }

    fn watch_for_silence(
        &mut self,
        mux_id: u64,
        serial: u64,
        deadline: Option<Instant>,
        now: Instant,
    ) {
        let until = now + self.silence_max();
        if deadline.is_none_or(|deadline| deadline > until) {
            self.arm(until, Timer::StreamSilence { mux_id, serial });
        }
    }

    pub(super) fn check_silence(&mut self, mux_id: u64, serial: u64, now: Instant) {
        let silence_max = self.silence_max();
        let until = match self.serving.stream_mut(mux_id) {
            Some(ServedStream { stream, .. }) => stream.last_ping + silence_max,
            None => now, // never accepted, in all this time
        };
        if until > now {
            return self.arm(until, Timer::StreamSilence { mux_id, serial });
        }
        let missed = self.limits.stream_pings_missed_by_callee_max;
        self.drop_served(mux_id, StreamEnd::Silent { missed });
        let header = Header { flags: Flags::ERROR, ..Header::new(mux_id, Op::DisconnectClientMux) };
        let text = format!("no ping for {} s", silence_max.as_secs());
        self.control(header, text.as_bytes());
    }
}

/// Whether a stream waits for its turn already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    New,
    FirstInLine,
}
