//! Events of the two machines, checked against the model of the calls.

use grid::proto::connection::{
    CallKind, CallOutcome, CloseReason, End, Event, Incoming, StreamSide,
};
use grid::proto::message::Op;

use super::operation::EndpointId;
use super::{CallEnd, Expected, Pair, TOKEN_BYTES};

impl Pair {
    pub(super) fn take_events(&mut self) {
        for end in EndpointId::BOTH {
            let mut is_disconnected = false;
            while let Some(event) = self.endpoint_mut(end).connection.poll_event() {
                assert!(!self.endpoint_mut(end).is_closed, "{event:?} after the last event");
                match event {
                    Event::CallEnded { slot, outcome } => {
                        is_disconnected |= outcome == Err(End::Disconnected);
                        self.on_call_ended(end, slot.0, outcome);
                    }
                    Event::Incoming(incoming) => match incoming.kind {
                        CallKind::Request => self.on_serve(end, &incoming),
                        CallKind::Stream { has_payload } => {
                            self.on_inbound_stream(end, &incoming, has_payload);
                        }
                    },
                    Event::Cancel { mux_id } => self.on_cancel(end, mux_id),
                    Event::ResponseRetired { mux_id } => self.on_response_retired(end, mux_id),
                    Event::Skipped { op, mux_id } => self.on_skipped(end, op, mux_id),
                    Event::Closed(reason) => self.on_closed(end, &reason),
                    event => {
                        if let Event::StreamEnded { end: End::Disconnected, .. } = &event {
                            is_disconnected = true;
                        }
                        self.on_stream_event(end, event);
                    }
                }
            }
            assert!(
                !is_disconnected || self.endpoint_mut(end).is_closed,
                "disconnected while open"
            );
        }
    }

    fn on_call_ended(&mut self, end: EndpointId, token: usize, outcome: CallOutcome) {
        let now = self.now;
        let call = &mut self.calls[token];
        assert_eq!(call.caller, end, "the end of a call is reported to its caller");
        assert_eq!(call.end, None, "a call ends once (B14)");
        match (&outcome, &call.expected) {
            (Err(End::DeadlineExceeded), _) => assert!(call.deadline <= now),
            (Err(End::Disconnected), _) => {}
            (Err(End::Refused(text)), None) => {
                assert!(!call.was_served, "a call refused for this reason never runs");
                let reasons = ["overloaded:", "this server is shutting down"];
                assert!(reasons.iter().any(|reason| text.starts_with(reason)), "{text}");
            }
            (Err(End::RemoteError(text)), Some(Expected::TooLarge)) => {
                assert!(text.contains("larger than the limit"), "{text}");
            }
            (_, Some(Expected::Outcome(expected))) => assert_eq!(outcome, *expected),
            (_, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
        let seen = match &outcome {
            Ok(_) => "response",
            Err(End::RemoteError(_)) if matches!(call.expected, Some(Expected::TooLarge)) => {
                "response too large"
            }
            Err(End::RemoteError(_)) => "remote error",
            Err(End::UnknownHandler(_)) => "unknown handler",
            Err(End::Refused(text)) if text.starts_with("overloaded:") => "overloaded",
            Err(End::Refused(text)) if text.contains("shutting down") => "draining",
            Err(End::Refused(_)) => "refused",
            Err(End::DeadlineExceeded) if call.was_served => "deadline after the handler started",
            Err(End::DeadlineExceeded) => "deadline before the handler started",
            Err(End::Disconnected) => "disconnected",
            Err(end) => panic!("a call ended as only a stream can: {end:?}"),
        };
        call.end = Some(CallEnd::Event(outcome));
        self.reached.insert(seen);
    }

    fn on_serve(&mut self, end: EndpointId, incoming: &Incoming) {
        let now = self.now;
        let token =
            usize::from_be_bytes(incoming.payload[..TOKEN_BYTES].try_into().expect("a token"));
        let call = &mut self.calls[token];
        assert_eq!(call.caller, end.other(), "a call is served by the other endpoint");
        assert_eq!((call.mux_id, &call.payload), (incoming.mux_id, &incoming.payload));
        assert_eq!(incoming.handler, 7);
        assert_eq!(incoming.subroute.is_some(), token.is_multiple_of(3));
        assert!(!call.was_served, "a call is served at most once");
        assert!(!call.never_sent, "a request that was never sent is never served");
        let deadline = incoming.deadline.expect("every call has a deadline");
        assert!(deadline >= call.deadline && deadline > now);
        call.was_served = true;
        call.callee_deadline = incoming.deadline;

        let endpoint = self.endpoint_mut(end);
        assert!(!endpoint.is_draining, "a draining endpoint accepts no new call");
        assert!(
            incoming.mux_id > endpoint.last_inbound,
            "calls are served in the order of their ids"
        );
        endpoint.last_inbound = incoming.mux_id;
        endpoint.running.insert(incoming.mux_id, token);
    }

    fn on_skipped(&mut self, end: EndpointId, op: Op, mux_id: u64) {
        let has_ended = match op {
            Op::MuxServerMsg => self.has_stream_ended(end, mux_id, StreamSide::Caller),
            Op::MuxClientMsg => self.has_stream_ended(end, mux_id, StreamSide::Callee),
            _ => false,
        };
        assert!(has_ended, "{op:?} of {mux_id} was discarded for a live stream");
        self.reached.insert("crossed ends");
    }

    fn on_cancel(&mut self, end: EndpointId, mux_id: u64) {
        if self.on_stream_cancel(end, mux_id) {
            return;
        }
        let endpoint = self.endpoint_mut(end);
        let was_running = endpoint.running.remove(&mux_id).is_some();
        let is_serving = endpoint.connection.is_inbound_live(mux_id);
        assert!(was_running, "no handler runs for {mux_id}");
        assert!(!is_serving, "a cancelled call is not live");
        self.reached.insert("handler cancelled");
    }

    fn on_response_retired(&mut self, end: EndpointId, mux_id: u64) {
        if self.on_stream_response_retired(end, mux_id) {
            return;
        }
        let endpoint = self.endpoint_mut(end);
        assert!(!endpoint.running.contains_key(&mux_id), "the handler of {mux_id} has returned");
        assert!(
            !endpoint.connection.is_inbound_live(mux_id),
            "a retired response is not waited for"
        );
        self.reached.insert("response waited for queue space");
    }

    fn on_closed(&mut self, end: EndpointId, reason: &CloseReason) {
        self.reached.insert(match reason {
            CloseReason::Peer => "closed by the peer",
            CloseReason::Transport(_) => "cut",
            CloseReason::PingTimeout { .. } => "ping timeout",
            CloseReason::ControlOverrun { .. } => "control overrun",
            other => panic!("closed for {other}"),
        });
        let endpoint = self.endpoint_mut(end);
        endpoint.is_closed = true;
        assert!(endpoint.running.is_empty(), "every handler is cancelled (B05)");
        assert!(endpoint.streams.is_empty(), "every stream has ended (B05)");
        self.endpoint_mut(end.other()).wire.clear();
    }
}
