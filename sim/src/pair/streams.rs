//! Streams: the account of them, and what their callers and handlers do.
//!
//! An account knows of each end which messages left it, which one waits, and how many of the other
//! end's it has received; nothing of how the machines get there. What a message is compared with is
//! the list of those that left, position by position: a gap, a duplicate, another order and another
//! stream's message are all seen, and so is an empty message in the wrong place.

use std::time::Duration;

use bytes::Bytes;
use grid::error::HandlerError;
use grid::proto::connection::{
    Capacities, Open, Received, Sent, Side, Slot, StartError, StreamEnd, StreamId,
};
use grid::proto::subroute::SubrouteId;
use grid::time::Instant;

use super::World;
use super::operation::{Act, End, Initial, MESSAGE_BYTES_MAX, Message, Return, Welcome, pick};

/// Slots of the serving ends begin here, those of the calling ends at 0.
pub(super) const SERVING_SLOTS: usize = 1 << 20;

/// A stream in the world's account. Its index there is its token.
#[derive(Debug)]
pub struct Stream {
    pub(super) caller: End,
    pub(super) mux_id: u64,
    pub(super) payload: Option<Bytes>,
    pub(super) deadline: Option<Instant>,
    /// By the serving side's clock.
    pub(super) served_deadline: Option<Instant>,
    pub(super) capacities: Capacities,
    pub(super) service: Service,
    pub(super) is_acknowledged: bool,
    pub(super) is_given_up: bool,
    /// Given up before its opening message had left: the other side must never hear of it.
    pub(super) is_secret: bool,
    /// What its handler returned, or how it was refused: what the caller must see.
    pub(super) verdict: Option<Verdict>,
    pub(super) calling: Half,
    pub(super) serving: Half,
}

/// How far the serving side came with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// It has not heard of it.
    Unknown,
    /// It has not decided yet.
    Opening,
    /// Its handler runs, or has returned.
    Accepted,
    /// It did not take it.
    Refused,
    /// It was over before it was decided.
    Dropped,
}

/// What the caller must see, unless the stream ends before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    End(StreamEnd),
    /// An error that tells of an error beyond the limit.
    TooLarge,
}

/// One end of a stream.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// Messages that left, in their order.
    pub(super) left: Vec<Bytes>,
    /// The message that was handed over and waits.
    pub(super) waiting: Option<Bytes>,
    /// A message that waited when the handler's error ended the stream: it left before the error if
    /// there was credit for it, and was overtaken if there was none (B24). Which of the two, only the
    /// other end can tell.
    pub(super) perhaps_left: Option<Bytes>,
    /// How many were ever handed over.
    pub(super) handed_over: usize,
    /// Whether this end was told that nothing more will be sent.
    pub(super) is_finished: bool,
    /// How many of the other end's messages were received here.
    pub(super) received: usize,
    /// Whether nobody receives here any more.
    pub(super) is_discarding: bool,
    /// Whether whoever receives here was told that there is nothing, and not yet that there is.
    pub(super) is_receiver_waiting: bool,
    /// How it ended, once it has.
    pub(super) end: Option<StreamEnd>,
    /// Whether the handler learned that it is over, or that its answer is.
    pub(super) is_handler_told: bool,
    /// Whether its handler returned when it was too late.
    pub(super) is_late: bool,
    pub(super) wire: super::wire::Account,
}

impl Stream {
    pub(super) fn half(&self, side: Side) -> &Half {
        match side {
            Side::Calling => &self.calling,
            Side::Serving => &self.serving,
        }
    }

    pub(super) fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Calling => &mut self.calling,
            Side::Serving => &mut self.serving,
        }
    }

    /// What must hold where nothing but its handler and its caller can end it: it ended as they did,
    /// and with everything that they sent (B23).
    ///
    /// # Panics
    ///
    /// If it did not.
    pub fn assert_ended_as_told(&self) {
        let end = self.calling.end.as_ref();
        if self.is_given_up {
            assert_eq!(end, Some(&StreamEnd::Cancelled));
            return;
        }
        match &self.verdict {
            // Nobody accepted it for as long as pings may stay away.
            None if self.service == Service::Dropped => {
                assert!(matches!(end, Some(StreamEnd::RemoteError(_))), "{self:?}");
            }
            Some(Verdict::End(expected)) => assert_eq!(end, Some(expected), "{self:?}"),
            Some(Verdict::TooLarge) => assert!(matches!(end, Some(StreamEnd::RemoteError(_)))),
            None => panic!("nobody ended it, but {end:?}: {self:?}"),
        }
        let is_served = self.service == Service::Accepted;
        let is_finished = self.serving.end == Some(StreamEnd::Finished);
        assert!(is_finished || !is_served, "{self:?}");
        let left = self.serving.left.len();
        assert!(self.calling.received == left || self.calling.is_discarding, "{self:?}");
    }

    /// Whether one end of it is under way.
    pub(super) fn is_live(&self, side: Side) -> bool {
        let is_there = side == Side::Calling || self.service == Service::Accepted;
        is_there && self.half(side).end.is_none()
    }

    /// At which end of the connection one end of it is.
    pub(super) fn end_of(&self, side: Side) -> End {
        match side {
            Side::Calling => self.caller,
            Side::Serving => self.caller.other(),
        }
    }

    pub(super) fn id(&self, side: Side) -> StreamId {
        StreamId { side, mux_id: self.mux_id }
    }

    /// How many messages may be under way from one end of it.
    pub(super) fn capacity_from(&self, side: Side) -> usize {
        let capacity = match side {
            Side::Calling => self.capacities.input,
            Side::Serving => self.capacities.output,
        };
        capacity as usize
    }

    /// One end of it received a message: it is the next that left the other (B22).
    pub(super) fn assert_next(&mut self, side: Side, payload: &Bytes) {
        let nth = self.half(side).received;
        let sender = self.half_mut(other_side(side));
        if nth == sender.left.len() {
            sender.left.extend(sender.perhaps_left.take());
        }
        let expected = self.half(other_side(side)).left.get(nth);
        assert_eq!(Some(payload), expected, "message {nth}, in order and unchanged (B22)");
        assert!(!self.half(side).is_discarding, "nobody wants what comes in");
        self.half_mut(side).received += 1;
    }

    /// A message left one end of it.
    pub(super) fn leave(&mut self, side: Side, payload: Bytes) {
        assert!(self.is_acknowledged || side == Side::Serving, "before the acknowledgement (P15)");
        let capacity = self.capacity_from(side);
        let half = self.half_mut(side);
        half.left.push(payload);
        let left = half.left.len();
        let receiver = self.half(other_side(side));
        let under_way = left - receiver.received;
        assert!(under_way <= capacity || receiver.is_discarding, "{under_way} under way (B21)");
    }

    /// Whether the handler returned an error.
    pub(super) fn has_failed(&self) -> bool {
        !matches!(self.verdict, None | Some(Verdict::End(StreamEnd::Finished)))
    }

    /// What waited at one end of it, if anything did, does not any more: it has left.
    pub(super) fn waiting_left(&mut self, side: Side) {
        if let Some(payload) = self.half_mut(side).waiting.take() {
            self.leave(side, payload);
        }
    }
}

pub(super) fn other_side(side: Side) -> Side {
    match side {
        Side::Calling => Side::Serving,
        Side::Serving => Side::Calling,
    }
}

impl World {
    pub(super) fn open(&mut self, end: End, initial: Initial, capacities: Capacities, ms: u32) {
        let (now, token, calls_made_max) =
            (self.now, self.streams.len(), self.limits.calls_made_max);
        let payload = initial_payload(token, initial);
        let deadline = (ms > 0).then(|| now + Duration::from_millis(u64::from(ms)));
        let subroute = token.is_multiple_of(3).then(|| SubrouteId::new(9, "drive-2"));
        let open = Open { handler: 9, subroute, payload: payload.clone(), deadline, capacities };

        let side = self.side(end);
        let live_before = side.connection.live_calls();
        let opened = side.connection.open(Slot(token), open, now);
        let expected_error = if side.is_draining || side.is_closed {
            Some(StartError::Draining)
        } else if live_before >= calls_made_max {
            Some(StartError::TooManyCalls)
        } else {
            None
        };
        let id = match (opened, expected_error) {
            (Ok(id), None) => id,
            (Err(StartError::TooLarge { bytes }), None) => {
                return assert!(bytes > MESSAGE_BYTES_MAX);
            }
            (Err(error), Some(expected)) => return assert_eq!(error, expected),
            (opened, expected) => panic!("{opened:?} instead of {expected:?}"),
        };
        assert_eq!(id.side, Side::Calling);
        if side.streams.contains_key(&id.mux_id) {
            self.seen.insert("one stream's number in use in both directions");
        }
        self.tokens.insert((end, id.mux_id), token);
        self.streams.push(Stream {
            caller: end,
            mux_id: id.mux_id,
            payload,
            deadline,
            served_deadline: None,
            capacities,
            service: Service::Unknown,
            is_acknowledged: false,
            is_given_up: false,
            is_secret: false,
            verdict: None,
            calling: Half { is_finished: capacities.input == 0, ..Half::default() },
            serving: Half::default(),
        });
    }

    /// The serving side decides on one of the streams that came in.
    pub(super) fn welcome(&mut self, end: End, which: u32, welcome: Welcome) {
        let streams = &self.streams;
        let is_opening = |token: &usize| streams[*token].service == Service::Opening;
        let opening: Vec<_> =
            self.side_of(end).streams.values().copied().filter(is_opening).collect();
        let Some(token) = pick(&opening, which) else { return };
        match welcome {
            Welcome::Accept => self.accept(token),
            Welcome::UnknownHandler => {
                let reason = format!("Invalid Handler for type: {token}");
                self.turn_away(token, &reason, StreamEnd::UnknownHandler(reason.as_str().into()));
            }
            Welcome::Refuse => {
                let reason = format!("stream {token} is not wanted here");
                self.turn_away(token, &reason, StreamEnd::Refused(reason.as_str().into()));
            }
        }
    }

    pub(super) fn accept(&mut self, token: usize) {
        let now = self.now;
        let stream = &mut self.streams[token];
        let (end, mux_id, capacities) = (stream.caller.other(), stream.mux_id, stream.capacities);
        stream.service = Service::Accepted;
        let slot = Slot(SERVING_SLOTS + token);
        let is_wanted = self.side(end).connection.accept(mux_id, slot, capacities, now);
        assert!(is_wanted, "what was not cancelled is wanted");
    }

    fn turn_away(&mut self, token: usize, reason: &str, verdict: StreamEnd) {
        let stream = &mut self.streams[token];
        let (end, mux_id) = (stream.caller.other(), stream.mux_id);
        stream.service = Service::Refused;
        stream.verdict = Some(Verdict::End(verdict));
        let side = self.side(end);
        side.connection.refuse(mux_id, reason);
        side.streams.remove(&mux_id);
    }

    /// Whoever holds an end of a stream does something with it.
    pub(super) fn act(&mut self, end: End, which: u32, act: Act) {
        let sides: &[Side] = match act {
            Act::Finish | Act::GiveUp => &[Side::Calling],
            Act::Return(_) => &[Side::Serving],
            Act::Send(_) | Act::Receive | Act::StopReceiving | Act::CancelSend => {
                &[Side::Calling, Side::Serving]
            }
        };
        // Those under way, and the last that is not: whoever holds its end may still try.
        let (mut candidates, mut over) = (Vec::new(), None);
        for (token, stream) in self.streams.iter().enumerate() {
            for side in sides.iter().copied().filter(|side| stream.end_of(*side) == end) {
                if stream.is_live(side) {
                    candidates.push((token, side));
                } else if stream.half(side).end.is_some() {
                    over = Some((token, side));
                }
            }
        }
        candidates.extend(over);
        let Some((token, side)) = pick(&candidates, which) else { return };
        match act {
            Act::Send(message) => self.send(token, side, message),
            Act::Receive => {
                self.receive_message(token, side);
            }
            Act::StopReceiving => self.stop_receiving(token, side),
            Act::CancelSend => self.cancel_send(token, side),
            Act::Finish => self.finish_input(token),
            Act::GiveUp => self.give_up_stream(token),
            Act::Return(result) if self.streams[token].is_live(side) => {
                self.handler_returns(token, result);
            }
            Act::Return(_) => {}
        }
    }

    fn send(&mut self, token: usize, side: Side, message: Message) {
        let nth = self.streams[token].half(side).handed_over;
        let payload = message_payload(token, side, nth, message);
        let stream = &self.streams[token];
        let (id, half) = (stream.id(side), stream.half(side));
        let refused = if half.end.is_some() {
            Some(Sent::StreamOver)
        } else if side == Side::Calling && stream.capacities.input == 0 {
            Some(Sent::NoInput)
        } else if half.is_finished {
            Some(Sent::Finished)
        } else if half.waiting.is_some() {
            Some(Sent::Waiting)
        } else {
            None
        };
        let end = stream.end_of(side);
        let mut handed_over = Some(payload.clone());
        let sent = self.side(end).connection.send(id, &mut handed_over);
        let is_taken = handed_over.is_none();
        if let Some(refused) = refused {
            assert_eq!((sent, is_taken), (refused, false));
            return;
        }
        if let Sent::TooLarge { bytes } = sent {
            assert!(payload.len() > MESSAGE_BYTES_MAX / 2 && bytes + 4 > MESSAGE_BYTES_MAX);
            return assert!(!is_taken, "nothing was done");
        }
        assert!(is_taken && payload.len() < MESSAGE_BYTES_MAX);
        let blocked = self.side(end).connection.blocked_messages();
        let stream = &mut self.streams[token];
        stream.half_mut(side).handed_over += 1;
        match sent {
            Sent::Queued => stream.leave(side, payload),
            Sent::Waiting => {
                stream.half_mut(side).waiting = Some(payload);
                let has_room = blocked == 0;
                self.seen.insert(if has_room { "waited for credit" } else { "waited in line" });
            }
            // The connection found that it must be closed.
            Sent::StreamOver => {}
            instead => panic!("{instead:?}"),
        }
    }

    /// Receives what is next. Returns whether it was a message.
    pub(super) fn receive_message(&mut self, token: usize, side: Side) -> bool {
        let stream = &self.streams[token];
        let (id, end) = (stream.id(side), stream.end_of(side));
        let received = self.side(end).connection.receive(id);
        let stream = &mut self.streams[token];
        let was_waiting = stream.half(side).is_receiver_waiting;
        match &received {
            Received::Message(payload) => {
                assert!(!was_waiting, "whoever waits is told that there is something");
                assert_eq!(stream.half(side).end, None);
                stream.assert_next(side, payload);
            }
            Received::Nothing => stream.half_mut(side).is_receiver_waiting = true,
            Received::InputOver => {
                assert!(!was_waiting || stream.half(side).is_discarding, "likewise of the end");
                assert_eq!(side, Side::Serving, "the caller's end has no half-close");
                assert!(stream.calling.is_finished && stream.calling.waiting.is_none());
                let is_complete = stream.serving.received == stream.calling.left.len();
                assert!(is_complete || stream.serving.is_discarding, "all before the end (B22)");
                self.seen.insert("half-closed");
            }
            Received::StreamOver => assert_ne!(stream.half(side).end, None),
        }
        matches!(received, Received::Message(_))
    }

    fn stop_receiving(&mut self, token: usize, side: Side) {
        let stream = &mut self.streams[token];
        let (id, end) = (stream.id(side), stream.end_of(side));
        stream.half_mut(side).is_discarding = true;
        self.side(end).connection.stop_receiving(id);
        self.seen.insert("stopped receiving");
    }

    fn cancel_send(&mut self, token: usize, side: Side) {
        let stream = &mut self.streams[token];
        let (id, end) = (stream.id(side), stream.end_of(side));
        if stream.half_mut(side).waiting.take().is_some() {
            self.seen.insert("send cancelled");
        }
        self.side(end).connection.cancel_send(id);
    }

    /// The caller sends nothing more.
    pub(super) fn finish_input(&mut self, token: usize) {
        let stream = &mut self.streams[token];
        let (id, end, is_over) =
            (stream.id(Side::Calling), stream.caller, !stream.is_live(Side::Calling));
        let has_input = stream.capacities.input > 0;
        let is_waiting = stream.calling.waiting.is_some();
        stream.calling.is_finished = true;
        let sent = self.side(end).connection.finish(id);
        match sent {
            Sent::StreamOver => assert!(is_over || self.side(end).connection.live_calls() == 0),
            Sent::Queued => assert!(!is_over && !is_waiting, "the end overtakes nothing"),
            Sent::Waiting => {
                assert!(!is_over && has_input, "there is no end to be sent");
                self.seen.insert("end of input waited");
            }
            instead => panic!("{instead:?}"),
        }
    }

    fn give_up_stream(&mut self, token: usize) {
        let stream = &mut self.streams[token];
        let (mux_id, end, is_over) = (stream.mux_id, stream.caller, !stream.is_live(Side::Calling));
        stream.is_given_up |= !is_over;
        let connection = &mut self.side(end).connection;
        let before = (connection.queued_bytes(), connection.live_calls());
        connection.give_up(mux_id);
        let after = (connection.queued_bytes(), connection.live_calls());
        if is_over {
            return assert_eq!(before, after, "giving up what is over does nothing");
        }
        let is_secret = after.0 == before.0;
        self.streams[token].is_secret = is_secret;
        self.seen.insert(if is_secret {
            "stream given up while blocked"
        } else {
            "stream given up"
        });
    }

    /// The handler of a stream returns.
    pub(super) fn handler_returns(&mut self, token: usize, result: Return) {
        let now = self.now;
        let stream = &mut self.streams[token];
        if stream.serving.is_finished {
            return; // it returns once
        }
        let (mux_id, end) = (stream.mux_id, stream.caller.other());
        let text = format!("the error of stream {token}");
        let (answer, verdict) = match result {
            Return::Ok => (Ok(Bytes::new()), Verdict::End(StreamEnd::Finished)),
            Return::Error => {
                let end = StreamEnd::RemoteError(text.as_str().into());
                (Err(HandlerError::new(text)), Verdict::End(end))
            }
            Return::ErrorTooLarge => (Err("x".repeat(MESSAGE_BYTES_MAX).into()), Verdict::TooLarge),
        };
        stream.serving.is_finished = true;
        stream.serving.is_discarding = true;
        let is_late = stream.served_deadline.is_some_and(|deadline| deadline <= now);
        if is_late {
            stream.serving.is_late = true;
        } else {
            stream.verdict = Some(verdict);
        }
        let input_left = stream.serving.received < stream.calling.left.len();
        let (left, received) = (stream.serving.left.len(), stream.calling.received);
        let has_no_credit = left - received >= stream.capacities.output as usize;
        let is_wanted = self.side(end).connection.answer(mux_id, &answer, now);
        assert_eq!(is_wanted, !is_late, "what was not cancelled is wanted");
        if input_left {
            self.seen.insert("input left when the handler returned");
        }
        if has_no_credit {
            let is_error = result != Return::Ok;
            self.seen.insert(if is_error {
                "abort without credit"
            } else {
                "end waited for credit"
            });
        }
    }
}

fn initial_payload(token: usize, initial: Initial) -> Option<Bytes> {
    match initial {
        Initial::Absent => None,
        Initial::Empty => Some(Bytes::new()),
        Initial::Bytes(bytes) => {
            let mut payload = token.to_be_bytes().to_vec();
            payload.resize(usize::from(bytes).max(payload.len()), b'o');
            Some(payload.into())
        }
    }
}

/// Says which stream it is of, in which direction, and which message it is.
fn message_payload(token: usize, side: Side, nth: usize, message: Message) -> Bytes {
    let Message::Bytes(bytes) = message else { return Bytes::new() };
    let mut payload = format!("{token} {side:?} {nth} ").into_bytes();
    payload.resize(usize::from(bytes).max(payload.len()), b'm');
    payload.into()
}
