//! Stream events of the two machines, checked against the model of the streams.

use std::collections::VecDeque;

use bytes::Bytes;
use grid::proto::connection::{End, Event, Incoming, StreamId, StreamSide};

use super::Pair;
use super::operation::EndpointId;
use super::stream_model::{CALLEE_SLOTS, CalleeState, ExpectedEnd, Stream};

impl Pair {
    pub(super) fn on_stream_event(&mut self, end: EndpointId, event: Event) {
        match event {
            Event::Opened(id) => {
                let stream = self.live_stream(end, id);
                assert!(!stream.is_acknowledged, "a stream is acknowledged once");
                assert_eq!(stream.callee_state, CalleeState::Accepted);
                stream.is_acknowledged = true;
            }
            Event::Readable(id) => {
                self.live_stream(end, id).half_mut(id.side).is_receiver_waiting = false;
            }
            Event::Writable(id) => self.live_stream(end, id).record_waiting_sent(id.side),
            Event::StreamEnded { slot, rest, end: how } => {
                if slot.0 < CALLEE_SLOTS {
                    self.on_caller_stream_ended(end, slot.0, &rest, how);
                } else {
                    self.on_callee_stream_ended(end, slot.0 - CALLEE_SLOTS, &rest, how);
                }
            }
            other => panic!("not a stream event: {other:?}"),
        }
    }

    /// Returns the stream of an event. The machine may have ended it since: events wait to be
    /// polled, but they keep their order.
    fn live_stream(&mut self, end: EndpointId, id: StreamId) -> &mut Stream {
        let caller = match id.side {
            StreamSide::Caller => end,
            StreamSide::Callee => end.other(),
        };
        let token = self.tokens.get(&(caller, id.mux_id)).expect("a stream that was opened");
        let stream = &mut self.streams[*token];
        assert!(stream.is_live(id.side), "an event of an ended stream");
        stream
    }

    pub(super) fn on_inbound_stream(
        &mut self,
        end: EndpointId,
        incoming: &Incoming,
        has_payload: bool,
    ) {
        let now = self.now;
        let token =
            self.tokens.get(&(end.other(), incoming.mux_id)).expect("the stream was opened");
        let token = *token;
        let stream = &mut self.streams[token];
        let payload = has_payload.then(|| incoming.payload.clone());
        assert_eq!(payload, stream.payload, "absent, empty or unchanged (P5)");
        assert_eq!(incoming.handler, 9);
        assert_eq!(incoming.subroute.is_some(), token.is_multiple_of(3));
        assert_eq!(stream.callee_state, CalleeState::Unknown, "a stream arrives once");
        assert!(!stream.never_sent, "a stream that was never sent never arrives");
        assert_eq!(incoming.deadline.is_some(), stream.deadline.is_some());
        assert!(incoming.deadline >= stream.deadline);
        assert!(incoming.deadline.is_none_or(|deadline| deadline > now));
        stream.callee_state = CalleeState::Undecided;
        stream.callee_deadline = incoming.deadline;

        let endpoint = self.endpoint_mut(end);
        assert!(!endpoint.is_draining, "a draining endpoint accepts no new stream");
        assert!(
            incoming.mux_id > endpoint.last_inbound,
            "calls are served in the order of their ids"
        );
        endpoint.last_inbound = incoming.mux_id;
        endpoint.streams.insert(incoming.mux_id, token);
    }

    fn on_caller_stream_ended(
        &mut self,
        end: EndpointId,
        token: usize,
        rest: &VecDeque<Bytes>,
        how: End,
    ) {
        let (now, is_late) = (self.now, self.is_late);
        let max = self.limits.stream_pings_missed_by_caller_max;
        let stream = &mut self.streams[token];
        assert_eq!(stream.caller, end, "the end of a stream is reported to its caller");
        assert_eq!(stream.caller_half.end, None, "a stream ends once (B14)");
        for payload in rest {
            stream.assert_next(StreamSide::Caller, payload);
        }
        let is_overdue = stream.deadline.is_some_and(|deadline| deadline <= now);
        let seen = match (&how, &stream.expected_end) {
            (_, Some(ExpectedEnd::End(expected))) if how == *expected => {
                assert_all_was_received(stream, &how);
                end_label(&how)
            }
            (End::RemoteError(text), Some(ExpectedEnd::TooLarge)) => {
                assert!(text.contains("larger than the limit"), "{text}");
                assert_all_was_received(stream, &how);
                "stream error too large"
            }
            (End::Cancelled, _) => {
                assert!(stream.is_cancelled, "only its caller cancels a stream (B23)");
                "stream cancelled"
            }
            (End::DeadlineExceeded, _) => {
                assert!(is_overdue);
                "stream deadline"
            }
            (End::Disconnected, _) => "stream disconnected",
            (End::PingTimeout { missed }, _) => {
                assert_eq!(*missed, max);
                "stream silent, seen by its caller"
            }
            (End::Refused(text), None) => {
                assert_eq!(
                    stream.callee_state,
                    CalleeState::Unknown,
                    "a refused stream never arrives"
                );
                let reasons = ["overloaded:", "this server is shutting down"];
                assert!(reasons.iter().any(|reason| text.starts_with(reason)), "{text}");
                "stream refused before it was served"
            }
            (End::RemoteError(text), _) if text.starts_with("no ping for") => {
                let is_reported = matches!(stream.callee_half.end, Some(End::PingTimeout { .. }));
                assert!(is_reported || stream.callee_state == CalleeState::Dropped, "{stream:?}");
                "stream silent, reported by the callee"
            }
            // Its deadline passed at the peer, and the local timer has not run yet.
            (End::NotFound | End::RemoteError(_), _) if is_late && is_overdue => {
                "stream deadline, reported by the peer"
            }
            (_, expected_end) => panic!("{how:?} instead of {expected_end:?}: {stream:?}"),
        };
        if seen == "stream remote error" && stream.callee_half.maybe_sent.is_some() {
            self.reached.insert("error overtook a waiting message");
        }
        // A waiting message was not sent, and a sent one may not have arrived: see B23 above.
        stream.caller_half.waiting = None;
        stream.caller_half.end = Some(how);
        self.reached.insert(seen);
    }

    fn on_callee_stream_ended(
        &mut self,
        end: EndpointId,
        token: usize,
        rest: &VecDeque<Bytes>,
        how: End,
    ) {
        let now = self.now;
        let max = self.limits.stream_pings_missed_by_callee_max;
        let stream = &mut self.streams[token];
        assert_eq!(stream.caller.other(), end, "the end is reported to the callee");
        assert_eq!(stream.callee_state, CalleeState::Accepted);
        assert_eq!(stream.callee_half.end, None, "a stream ends once (B14)");
        for payload in rest {
            stream.assert_next(StreamSide::Callee, payload);
        }
        let seen = match &how {
            End::Finished => {
                assert!(stream.callee_half.is_finished, "the handler has returned");
                if stream.has_failed() {
                    stream.callee_half.maybe_sent = stream.callee_half.waiting.take();
                }
                stream.record_waiting_sent(StreamSide::Callee); // a successful end overtakes nothing
                "inbound stream finished"
            }
            End::Cancelled => {
                assert_ne!(stream.caller_half.end, None, "its caller has ended it");
                "inbound stream cancelled"
            }
            End::DeadlineExceeded => {
                assert!(stream.callee_deadline.is_some_and(|deadline| deadline <= now));
                "inbound stream deadline"
            }
            End::Disconnected => "inbound stream disconnected",
            End::PingTimeout { missed } => {
                assert_eq!(*missed, max);
                "inbound stream silent"
            }
            _ => panic!("{how:?}: {stream:?}"),
        };
        stream.callee_half.waiting = None;
        stream.callee_half.end = Some(how);
        let mux_id = stream.mux_id;
        self.endpoint_mut(end).streams.remove(&mux_id);
        self.reached.insert(seen);
    }

    /// Cancels the handler of a stream, or a stream that is still undecided. Returns whether
    /// `mux_id` is a stream.
    pub(super) fn on_stream_cancel(&mut self, end: EndpointId, mux_id: u64) -> bool {
        let Some(token) = self.tokens.get(&(end.other(), mux_id)) else { return false };
        let stream = &mut self.streams[*token];
        match stream.callee_state {
            CalleeState::Undecided => {
                stream.callee_state = CalleeState::Dropped;
                self.endpoint_mut(end).streams.remove(&mux_id);
                self.reached.insert("stream ended before it was accepted");
            }
            CalleeState::Accepted => {
                assert_ne!(stream.callee_half.end, None, "the end is reported first");
                assert!(!stream.callee_half.is_finished, "the handler runs");
                assert!(!stream.callee_half.is_handler_notified, "the handler is notified once");
                stream.callee_half.is_handler_notified = true;
            }
            instead => panic!("no handler runs for {mux_id}: {instead:?}"),
        }
        true
    }

    /// Retires the waiting response of a stream's handler. Returns whether `mux_id` is a stream.
    pub(super) fn on_stream_response_retired(&mut self, end: EndpointId, mux_id: u64) -> bool {
        let Some(token) = self.tokens.get(&(end.other(), mux_id)) else { return false };
        let callee_half = &mut self.streams[*token].callee_half;
        assert_ne!(callee_half.end, None, "the end is reported first");
        assert!(
            callee_half.is_finished && !callee_half.is_handler_notified,
            "once, after the handler has returned"
        );
        callee_half.is_handler_notified = true;
        true
    }

    /// Returns whether a discarded message may be an end that crossed another end (P18).
    pub(super) fn has_stream_ended(&self, end: EndpointId, mux_id: u64, side: StreamSide) -> bool {
        let caller = if side == StreamSide::Caller { end } else { end.other() };
        let token = self.tokens.get(&(caller, mux_id));
        token.is_some_and(|token| !self.streams[*token].is_live(side))
    }
}

/// B23: all messages sent before the end are received before it.
fn assert_all_was_received(stream: &Stream, how: &End) {
    let left = stream.callee_half.sent.len();
    let is_complete = stream.caller_half.received == left || stream.caller_half.is_discarding;
    assert!(is_complete, "{how:?} after {} of {left} (B23)", stream.caller_half.received);
    assert_eq!(stream.callee_half.waiting, None, "the end overtakes nothing (B23)");
}

fn end_label(how: &End) -> &'static str {
    match how {
        End::Finished => "stream finished",
        End::RemoteError(_) => "stream remote error",
        End::UnknownHandler(_) => "stream unknown handler",
        _ => "stream refused",
    }
}
