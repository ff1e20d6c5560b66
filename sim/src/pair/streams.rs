//! The actions of the callers and handlers of streams.

use std::time::Duration;

use bytes::Bytes;
use grid::error::HandlerError;
use grid::proto::connection::{
    Capacities, End, OpenRequest, Received, Respond, SendStatus, Slot, StartError, StreamSide,
};
use grid::proto::subroute::SubrouteId;

use super::Pair;
use super::operation::{
    Decision, EndpointId, HandlerResult, InitialPayload, MESSAGE_BYTES_MAX, Message, StreamAction,
    pick,
};
use super::stream_model::{CALLEE_SLOTS, CalleeState, ExpectedEnd, Stream, StreamHalf};

impl Pair {
    pub(super) fn open(
        &mut self,
        end: EndpointId,
        initial: InitialPayload,
        capacities: Capacities,
        ms: u32,
    ) {
        let (now, token, outbound_calls_max) =
            (self.now, self.streams.len(), self.limits.outbound_calls_max);
        let payload = initial_payload(token, initial);
        let deadline = (ms > 0).then(|| now + Duration::from_millis(u64::from(ms)));
        let subroute = token.is_multiple_of(3).then(|| SubrouteId::new(9, "drive-2"));
        let open =
            OpenRequest { handler: 9, subroute, payload: payload.clone(), deadline, capacities };

        let endpoint = self.endpoint_mut(end);
        let live_before = endpoint.connection.live_outbound_calls();
        let opened = endpoint.connection.open(Slot(token), open, now);
        let expected_error = if endpoint.is_draining || endpoint.is_closed {
            Some(StartError::Draining)
        } else if live_before >= outbound_calls_max {
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
        assert_eq!(id.side, StreamSide::Caller);
        if endpoint.streams.contains_key(&id.mux_id) {
            self.reached.insert("one stream mux id in use in both directions");
        }
        self.tokens.insert((end, id.mux_id), token);
        self.streams.push(Stream {
            caller: end,
            mux_id: id.mux_id,
            payload,
            deadline,
            callee_deadline: None,
            capacities,
            callee_state: CalleeState::Unknown,
            is_acknowledged: false,
            is_cancelled: false,
            never_sent: false,
            expected_end: None,
            caller_half: StreamHalf { is_finished: capacities.input == 0, ..StreamHalf::default() },
            callee_half: StreamHalf::default(),
        });
    }

    /// Decides on one of the inbound streams.
    pub(super) fn decide(&mut self, end: EndpointId, selector: u32, decision: Decision) {
        let streams = &self.streams;
        let is_opening = |token: &usize| streams[*token].callee_state == CalleeState::Undecided;
        let opening: Vec<_> =
            self.endpoint_of(end).streams.values().copied().filter(is_opening).collect();
        let Some(token) = pick(&opening, selector) else { return };
        match decision {
            Decision::Accept => self.accept(token),
            Decision::UnknownHandler => {
                let reason = format!("Invalid Handler for type: {token}");
                self.reject(token, &reason, End::UnknownHandler(reason.as_str().into()));
            }
            Decision::Refuse => {
                let reason = format!("stream {token} is not wanted here");
                self.reject(token, &reason, End::Refused(reason.as_str().into()));
            }
        }
    }

    pub(super) fn accept(&mut self, token: usize) {
        let now = self.now;
        let stream = &mut self.streams[token];
        let (end, mux_id, capacities) = (stream.caller.other(), stream.mux_id, stream.capacities);
        stream.callee_state = CalleeState::Accepted;
        let slot = Slot(CALLEE_SLOTS + token);
        let is_live = self.endpoint_mut(end).connection.accept(mux_id, slot, capacities, now);
        assert!(is_live, "a stream that was not cancelled is live");
    }

    fn reject(&mut self, token: usize, reason: &str, expected_end: End) {
        let stream = &mut self.streams[token];
        let (end, mux_id) = (stream.caller.other(), stream.mux_id);
        stream.callee_state = CalleeState::Refused;
        stream.expected_end = Some(ExpectedEnd::End(expected_end));
        let endpoint = self.endpoint_mut(end);
        endpoint.connection.refuse(mux_id, reason);
        endpoint.streams.remove(&mux_id);
    }

    /// Acts on an end of a stream.
    pub(super) fn act_on_stream(&mut self, end: EndpointId, selector: u32, action: StreamAction) {
        let sides: &[StreamSide] = match action {
            StreamAction::Finish | StreamAction::Cancel => &[StreamSide::Caller],
            StreamAction::Return(_) => &[StreamSide::Callee],
            StreamAction::Send(_)
            | StreamAction::Receive
            | StreamAction::StopReceiving
            | StreamAction::CancelSend => &[StreamSide::Caller, StreamSide::Callee],
        };
        // The live ones, and the last ended one: an application may still act on an ended stream.
        let (mut candidates, mut over) = (Vec::new(), None);
        for (token, stream) in self.streams.iter().enumerate() {
            for side in sides.iter().copied().filter(|side| stream.endpoint_id_of(*side) == end) {
                if stream.is_live(side) {
                    candidates.push((token, side));
                } else if stream.half(side).end.is_some() {
                    over = Some((token, side));
                }
            }
        }
        candidates.extend(over);
        let Some((token, side)) = pick(&candidates, selector) else { return };
        match action {
            StreamAction::Send(message) => self.send(token, side, message),
            StreamAction::Receive => {
                self.receive_message(token, side);
            }
            StreamAction::StopReceiving => self.stop_receiving(token, side),
            StreamAction::CancelSend => self.cancel_send(token, side),
            StreamAction::Finish => self.finish_input(token),
            StreamAction::Cancel => self.cancel_stream(token),
            StreamAction::Return(result) if self.streams[token].is_live(side) => {
                self.handler_returns(token, result);
            }
            StreamAction::Return(_) => {}
        }
    }

    fn send(&mut self, token: usize, side: StreamSide, message: Message) {
        let nth = self.streams[token].half(side).submitted;
        let payload = message_payload(token, side, nth, message);
        let stream = &self.streams[token];
        let (id, half) = (stream.id(side), stream.half(side));
        let refused = if half.end.is_some() {
            Some(SendStatus::StreamEnded)
        } else if side == StreamSide::Caller && stream.capacities.input == 0 {
            Some(SendStatus::NoInput)
        } else if half.is_finished {
            Some(SendStatus::Finished)
        } else if half.waiting.is_some() {
            Some(SendStatus::Waiting)
        } else {
            None
        };
        let end = stream.endpoint_id_of(side);
        let mut submitted = Some(payload.clone());
        let sent = self.endpoint_mut(end).connection.send(id, &mut submitted);
        let is_taken = submitted.is_none();
        if let Some(refused) = refused {
            assert_eq!((sent, is_taken), (refused, false));
            return;
        }
        if let SendStatus::TooLarge { bytes } = sent {
            assert!(payload.len() > MESSAGE_BYTES_MAX / 2 && bytes + 4 > MESSAGE_BYTES_MAX);
            return assert!(!is_taken, "the message was not taken");
        }
        assert!(is_taken && payload.len() < MESSAGE_BYTES_MAX);
        let blocked = self.endpoint_mut(end).connection.blocked_messages();
        let stream = &mut self.streams[token];
        stream.half_mut(side).submitted += 1;
        match sent {
            SendStatus::Queued => stream.record_sent(side, payload),
            SendStatus::Waiting => {
                stream.half_mut(side).waiting = Some(payload);
                let has_room = blocked == 0;
                self.reached.insert(if has_room {
                    "waited for credit"
                } else {
                    "waited for queue space"
                });
            }
            // The connection found that it must close.
            SendStatus::StreamEnded => {}
            instead => panic!("{instead:?}"),
        }
    }

    /// Receives the next message. Returns whether there was one.
    pub(super) fn receive_message(&mut self, token: usize, side: StreamSide) -> bool {
        let stream = &self.streams[token];
        let (id, end) = (stream.id(side), stream.endpoint_id_of(side));
        let received = self.endpoint_mut(end).connection.receive(id);
        let stream = &mut self.streams[token];
        let was_waiting = stream.half(side).is_receiver_waiting;
        match &received {
            Received::Message(payload) => {
                assert!(!was_waiting, "a waiting receiver is notified of input");
                assert_eq!(stream.half(side).end, None);
                stream.assert_next(side, payload);
            }
            Received::Empty => stream.half_mut(side).is_receiver_waiting = true,
            Received::InputFinished => {
                assert!(
                    !was_waiting || stream.half(side).is_discarding,
                    "a waiting receiver is notified of the end"
                );
                assert_eq!(side, StreamSide::Callee, "the caller's end has no half-close");
                assert!(stream.caller_half.is_finished && stream.caller_half.waiting.is_none());
                let is_complete = stream.callee_half.received == stream.caller_half.sent.len();
                assert!(
                    is_complete || stream.callee_half.is_discarding,
                    "all messages precede the end (B22)"
                );
                self.reached.insert("half-closed");
            }
            Received::StreamEnded => assert_ne!(stream.half(side).end, None),
        }
        matches!(received, Received::Message(_))
    }

    fn stop_receiving(&mut self, token: usize, side: StreamSide) {
        let stream = &mut self.streams[token];
        let (id, end) = (stream.id(side), stream.endpoint_id_of(side));
        stream.half_mut(side).is_discarding = true;
        self.endpoint_mut(end).connection.stop_receiving(id);
        self.reached.insert("stopped receiving");
    }

    fn cancel_send(&mut self, token: usize, side: StreamSide) {
        let stream = &mut self.streams[token];
        let (id, end) = (stream.id(side), stream.endpoint_id_of(side));
        if stream.half_mut(side).waiting.take().is_some() {
            self.reached.insert("send cancelled");
        }
        self.endpoint_mut(end).connection.cancel_send(id);
    }

    /// Finishes the caller's input.
    pub(super) fn finish_input(&mut self, token: usize) {
        let stream = &mut self.streams[token];
        let (id, end, has_ended) =
            (stream.id(StreamSide::Caller), stream.caller, !stream.is_live(StreamSide::Caller));
        let has_input = stream.capacities.input > 0;
        let is_waiting = stream.caller_half.waiting.is_some();
        stream.caller_half.is_finished = true;
        let sent = self.endpoint_mut(end).connection.finish(id);
        match sent {
            SendStatus::StreamEnded => {
                assert!(has_ended || self.endpoint_mut(end).connection.live_outbound_calls() == 0);
            }
            SendStatus::Queued => assert!(!has_ended && !is_waiting, "the end overtakes nothing"),
            SendStatus::Waiting => {
                assert!(
                    !has_ended && has_input,
                    "the end of the input may wait only while the stream is live"
                );
                self.reached.insert("end of input waited");
            }
            instead => panic!("{instead:?}"),
        }
    }

    fn cancel_stream(&mut self, token: usize) {
        let stream = &mut self.streams[token];
        let (mux_id, end, has_ended) =
            (stream.mux_id, stream.caller, !stream.is_live(StreamSide::Caller));
        stream.is_cancelled |= !has_ended;
        let connection = &mut self.endpoint_mut(end).connection;
        let before = (connection.queued_bytes(), connection.live_outbound_calls());
        connection.cancel(mux_id);
        let after = (connection.queued_bytes(), connection.live_outbound_calls());
        if has_ended {
            return assert_eq!(before, after, "cancelling an ended stream does nothing");
        }
        let never_sent = after.0 == before.0;
        self.streams[token].never_sent = never_sent;
        self.reached.insert(if never_sent {
            "stream cancelled while blocked"
        } else {
            "stream cancelled by its caller"
        });
    }

    /// Returns from the handler of a stream.
    pub(super) fn handler_returns(&mut self, token: usize, result: HandlerResult) {
        let now = self.now;
        let stream = &mut self.streams[token];
        if stream.callee_half.is_finished {
            return; // a handler returns once
        }
        let (mux_id, end) = (stream.mux_id, stream.caller.other());
        let text = format!("the error of stream {token}");
        let (response, expected_end) = match result {
            HandlerResult::Ok => (Ok(Bytes::new()), ExpectedEnd::End(End::Finished)),
            HandlerResult::Error => {
                let end = End::RemoteError(text.as_str().into());
                (Err(HandlerError::new(text)), ExpectedEnd::End(end))
            }
            HandlerResult::ErrorTooLarge => {
                (Err("x".repeat(MESSAGE_BYTES_MAX).into()), ExpectedEnd::TooLarge)
            }
        };
        stream.callee_half.is_finished = true;
        stream.callee_half.is_discarding = true;
        let is_late = stream.callee_deadline.is_some_and(|deadline| deadline <= now);
        if is_late {
            stream.callee_half.is_late = true;
        } else {
            stream.expected_end = Some(expected_end);
        }
        let has_unread_input = stream.callee_half.received < stream.caller_half.sent.len();
        let (sent_count, received) = (stream.callee_half.sent.len(), stream.caller_half.received);
        let has_no_credit = sent_count - received >= stream.capacities.output as usize;
        let respond = self.endpoint_mut(end).connection.respond(mux_id, &response, now);
        let is_live = respond == Respond::Accepted;
        assert_eq!(is_live, !is_late, "a stream that was not cancelled is live");
        if has_unread_input {
            self.reached.insert("input unread when the handler returned");
        }
        if has_no_credit {
            let is_error = result != HandlerResult::Ok;
            self.reached.insert(if is_error {
                "error without credit"
            } else {
                "end waited for credit"
            });
        }
    }
}

fn initial_payload(token: usize, initial: InitialPayload) -> Option<Bytes> {
    match initial {
        InitialPayload::Absent => None,
        InitialPayload::Empty => Some(Bytes::new()),
        InitialPayload::Bytes(bytes) => {
            let mut payload = token.to_be_bytes().to_vec();
            payload.resize(usize::from(bytes).max(payload.len()), b'o');
            Some(payload.into())
        }
    }
}

/// Returns a payload that names its stream, direction and number.
fn message_payload(token: usize, side: StreamSide, nth: usize, message: Message) -> Bytes {
    let Message::Bytes(bytes) = message else { return Bytes::new() };
    let mut payload = format!("{token} {side:?} {nth} ").into_bytes();
    payload.resize(usize::from(bytes).max(payload.len()), b'm');
    payload.into()
}
