//! Invariants of a pair after each operation, and after everything was delivered or closed.

use std::collections::BTreeSet;
use std::time::Duration;

use grid::proto::connection::{CloseReason, Connection, Received, SendStatus, Slot, StreamSide};
use grid::time::Instant;

use super::operation::{EndpointId, HandlerResult, ReplyKind};
use super::stream_model::{CALLEE_SLOTS, CalleeState, other_side};
use super::{Call, Pair, Stream};

const SIDES: [StreamSide; 2] = [StreamSide::Caller, StreamSide::Callee];

impl Pair {
    pub(super) fn check(&mut self) {
        let now = self.now;
        let limits = self.limits.clone();
        for end in EndpointId::BOTH {
            let live = self.live_calls_of(end).len();
            let live_streams = self.live_streams_of(end).count();
            let endpoint = self.endpoint_mut(end);
            let connection = &endpoint.connection;
            assert_eq!(connection.live_outbound_calls(), live, "the machine agrees with the model");
            assert_eq!(connection.live_outbound_streams(), live_streams);
            assert!(connection.live_outbound_calls() <= limits.outbound_calls_max);
            assert!(connection.live_inbound_calls() <= limits.inbound_calls_max);
            assert!(
                connection.live_inbound_calls() >= endpoint.running.len() + endpoint.streams.len()
            );
            assert!(endpoint.running.keys().all(|mux_id| connection.is_inbound_live(*mux_id)));
            let bound = limits.queue_bytes_max + limits.control_bytes_max;
            assert!(connection.queued_bytes() <= bound, "the queue is bounded");
            let blocked = connection.blocked_messages();
            assert!(blocked <= connection.live_outbound_calls() + connection.live_inbound_calls());
            assert!(blocked == 0 || connection.wants_transmit(), "a blocked sender will be woken");
            assert_eq!(connection.wants_transmit(), connection.queued_bytes() > 0);
            assert_eq!(connection.live_inbound_streams(), endpoint.streams.len());
            assert!(endpoint.streams.keys().all(|mux_id| connection.is_inbound_live(*mux_id)));
            if endpoint.is_closed {
                assert_no_leaks(&mut endpoint.connection, now);
            }
        }
        for call in self.calls.iter().filter(|call| call.end.is_none()) {
            assert!(call.deadline > now || self.is_late, "no call outlives its deadline");
        }
        for token in 0..self.streams.len() {
            self.check_stream(token);
        }
    }

    fn check_stream(&mut self, token: usize) {
        let (now, is_late) = (self.now, self.is_late);
        for side in SIDES {
            let stream = &self.streams[token];
            let (id, end, half) = (stream.id(side), stream.endpoint_id_of(side), stream.half(side));
            let is_waiting = half.waiting.is_some();
            let (slot, deadline) = match side {
                StreamSide::Caller => (token, stream.deadline),
                StreamSide::Callee => (CALLEE_SLOTS + token, stream.callee_deadline),
            };
            if !stream.is_live(side) {
                let must_be_notified =
                    side == StreamSide::Callee && half.end.is_some() && !half.is_late;
                assert!(
                    half.is_handler_notified || !must_be_notified,
                    "the handler is notified of the end"
                );
                assert_eq!(half.waiting, None);
                continue;
            }
            let in_time = deadline.is_none_or(|deadline| deadline > now);
            assert!(in_time || is_late, "no stream outlives its deadline");
            let is_acknowledged = stream.is_acknowledged;
            let connection = &mut self.endpoint_mut(end).connection;
            assert_eq!(connection.slot_mut(id), Some(&mut Slot(slot)));
            let expected = if is_waiting { SendStatus::Waiting } else { SendStatus::Queued };
            assert_eq!(
                connection.send_status(id),
                expected,
                "a blocked sender is notified when it is unblocked"
            );
            if side == StreamSide::Caller {
                assert_eq!(connection.is_open(id.mux_id), is_acknowledged);
            }
        }
    }

    fn live_calls_of(&self, end: EndpointId) -> BTreeSet<u64> {
        let live = |call: &&Call| call.caller == end && call.end.is_none();
        let calls = self.calls.iter().filter(live).map(|call| call.mux_id);
        calls.chain(self.live_streams_of(end)).collect()
    }

    fn live_streams_of(&self, end: EndpointId) -> impl Iterator<Item = u64> {
        let live =
            move |stream: &&Stream| stream.caller == end && stream.is_live(StreamSide::Caller);
        self.streams.iter().filter(live).map(|stream| stream.mux_id)
    }

    /// Delivers everything that waits, in both directions, until nothing moves.
    pub(super) fn deliver_everything(&mut self) {
        loop {
            for end in EndpointId::BOTH {
                self.transmit(end, usize::MAX);
                self.take_events();
            }
            if [&self.a, &self.b]
                .iter()
                .all(|endpoint| endpoint.wire.is_empty() && !endpoint.is_closed)
            {
                return self.check();
            }
            for end in EndpointId::BOTH {
                let waiting = self.endpoint_mut(end.other()).wire.len();
                self.receive(end, waiting + 1);
                self.take_events();
            }
            if self.a.is_closed && self.b.is_closed {
                return self.check();
            }
            self.check();
        }
    }

    /// Responds to every outstanding call, receives every message, and delivers the responses.
    ///
    /// # Panics
    ///
    /// If a machine breaks a promise.
    pub fn finish_everything(&mut self) {
        self.advance(Duration::ZERO);
        self.take_events();
        self.receive_everything();
        if !self.a.is_closed {
            self.assert_no_stream_is_stuck();
            self.respond_to_everything();
        }
        self.receive_everything();
        self.assert_everything_has_ended("everything was delivered");
        for endpoint in [&self.a, &self.b] {
            assert!(endpoint.connection.is_idle(), "nothing is in flight");
        }
    }

    /// Accepts every stream and receives on every one, until nothing moves.
    fn receive_everything(&mut self) {
        loop {
            self.deliver_everything();
            let mut has_moved = false;
            for token in 0..self.streams.len() {
                if self.streams[token].callee_state == CalleeState::Undecided {
                    self.accept(token);
                    has_moved = true;
                }
                for side in SIDES {
                    while self.streams[token].is_live(side) && self.receive_message(token, side) {
                        has_moved = true;
                        self.take_events();
                    }
                }
            }
            self.take_events();
            self.check();
            if !has_moved {
                return;
            }
        }
    }

    /// Asserts that nothing waits once everything was delivered and received ([B21]).
    ///
    /// [B21]: crate::rules#b21
    fn assert_no_stream_is_stuck(&mut self) {
        for token in 0..self.streams.len() {
            let stream = &self.streams[token];
            let (caller_is_live, callee_is_live) =
                (stream.is_live(StreamSide::Caller), stream.is_live(StreamSide::Callee));
            assert_eq!(caller_is_live, callee_is_live, "both ends or none are live: {stream:?}");
            if !caller_is_live {
                continue;
            }
            assert!(!stream.callee_half.is_finished, "the handler's end arrives: {stream:?}");
            for side in SIDES {
                let (sender, receiver) = (stream.half(side), stream.half(other_side(side)));
                assert_eq!(sender.waiting, None, "no sender waits for ever: {stream:?}");
                let is_complete = sender.sent.len() == receiver.received;
                assert!(
                    is_complete || receiver.is_discarding,
                    "all sent messages arrived: {stream:?}"
                );
            }
            let (id, caller) = (stream.id(StreamSide::Caller), stream.caller);
            if stream.caller_half.is_finished {
                let handlers = stream.id(StreamSide::Callee);
                let sent = self.endpoint_mut(caller).connection.finish(id);
                assert_eq!(sent, SendStatus::Queued, "the end of the input is not blocked either");
                let received = self.endpoint_mut(caller.other()).connection.receive(handlers);
                assert_eq!(received, Received::InputFinished, "the end of the input arrives (B25)");
            }
        }
    }

    fn respond_to_everything(&mut self) {
        for end in EndpointId::BOTH {
            let endpoint = self.endpoint_mut(end);
            let running: BTreeSet<_> = endpoint.running.keys().copied().collect();
            let streams = endpoint.streams.clone();
            let served: BTreeSet<_> = running.iter().chain(streams.keys()).copied().collect();
            let wanted = self.live_calls_of(end.other());
            assert_eq!(
                served, wanted,
                "the inbound calls are the live outbound calls of the peer (B11)"
            );
            for mux_id in running {
                self.finish(end, mux_id, ReplyKind::Response);
                self.take_events();
                self.check();
            }
            for token in streams.into_values() {
                self.handler_returns(token, HandlerResult::Ok);
                self.take_events();
                self.check();
            }
        }
    }

    fn assert_everything_has_ended(&self, after: &str) {
        let calls = self.calls.iter().filter(|call| call.end.is_none()).count();
        assert_eq!(calls, 0, "after {after} every call has ended (B14)");
        for stream in &self.streams {
            let is_live = SIDES.into_iter().any(|side| stream.is_live(side));
            assert!(!is_live, "after {after} every stream has ended (B14): {stream:?}");
        }
    }

    /// Closes the connection at both ends.
    ///
    /// # Panics
    ///
    /// If a machine leaks anything.
    pub fn close_everything(&mut self) {
        for end in EndpointId::BOTH {
            self.endpoint_mut(end).connection.close(CloseReason::Transport("cut".into()));
        }
        self.take_events();
        self.check();
        self.assert_everything_has_ended("the end of the connection");
    }
}

/// B05: a closed connection holds nothing and stays closed.
fn assert_no_leaks(connection: &mut Connection, now: Instant) {
    assert_eq!(connection.live_outbound_calls(), 0);
    assert_eq!(connection.live_inbound_calls(), 0);
    assert_eq!(connection.queued_bytes(), 0);
    assert_eq!(connection.blocked_messages(), 0);
    assert_eq!(connection.poll_timeout(), None);
    assert_eq!(connection.poll_transmit(now), None);
    assert!(connection.is_idle());
}
