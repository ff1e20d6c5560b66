//! What holds between any two operations of a connection, for any input of the peer.
//!
//! Tables, counters, timers and the queue hold the same facts in several forms; here each is
//! compared with the one that it is derived from. What concerns one of them alone is checked by its
//! own module. In debug builds every operation ends with a check, so that each test, model and
//! simulated run performs it.

use super::timers::{TIMERS_PER_CALL_MAX, Timer};
use super::{Connection, QueueWaiter};
use crate::proto::deadlines::SWEEP_MIN;
use crate::proto::event::Event;
use crate::proto::inbound::{InboundCall, InboundState};
use crate::proto::outbound::OutboundState;
use crate::proto::stream::StreamId;
use crate::proto::stream::StreamSide::{Callee, Caller};

/// Live timers, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct TimerCounts {
    outbound_deadlines: usize,
    inbound_deadlines: usize,
    /// Of streams without a deadline; those with one may end before their first ping.
    stream_pings: usize,
    stream_ping_timeouts: usize,
}

impl<S> Connection<S> {
    /// Runs an operation, and then checks the invariants (debug builds). Every public method that
    /// changes the connection goes through here, except those that only take output.
    pub(super) fn checked<R>(&mut self, operation: impl FnOnce(&mut Self) -> R) -> R {
        let result = operation(self);
        if cfg!(debug_assertions) {
            let items = self.outbound.len()
                + self.inbound.len()
                + self.deadlines.len()
                + self.queue.waiters_len()
                + self.queue.frames();
            if self.checks.is_due_after_operation(items) {
                self.check_invariants();
            }
        }
        result
    }

    /// Checks that the parts of the state agree with each other. Walks over all of it.
    ///
    /// # Panics
    ///
    /// If they do not, which is a bug of this crate. The message names the field and both values.
    pub fn check_invariants(&self) {
        self.outbound.check_invariants();
        self.inbound.check_invariants(self.counters.inbound_calls);
        self.queue.check_invariants();
        self.pinger.check_invariants();
        self.check_counters();
        self.check_streams();
        self.check_waiters();
        self.check_timers();
        self.check_close();
    }

    fn check_counters(&self) {
        let at_most = |value: usize, max: u64, names: &str| {
            assert!(value as u64 <= max, "{names}: {value} exceeds {max}");
        };
        let counters = &self.counters;
        let (outbound, inbound) = (&self.outbound, &self.inbound);
        at_most(outbound.len(), self.limits.outbound_calls_max as u64, "outbound.len, its limit");
        at_most(inbound.len(), self.limits.inbound_calls_max as u64, "inbound.len, its limit");
        at_most(outbound.len(), counters.outbound_calls, "outbound.len, counters.outbound_calls");
        at_most(inbound.len(), counters.inbound_calls, "inbound.len, counters.inbound_calls");
        let streams = (counters.outbound_streams, counters.inbound_streams);
        at_most(outbound.streams(), streams.0, "outbound.streams, counters.outbound_streams");
        at_most(inbound.streams(), streams.1, "inbound.streams, counters.inbound_streams");
    }

    fn check_streams(&self) {
        let pings_max = self.limits.stream_pings_missed_by_caller_max;
        for (mux_id, call) in self.outbound.iter() {
            if let OutboundState::Stream { stream, .. }
            | OutboundState::StreamBlocked { stream, .. } = &call.state
            {
                stream.check_invariants(StreamId { side: Caller, mux_id });
                let pings = stream.pings_without_pong;
                assert!(
                    pings <= pings_max,
                    "stream {mux_id}: pings_without_pong = {pings} exceeds {pings_max}"
                );
            }
        }
        for (mux_id, call) in self.inbound.iter() {
            if let InboundState::Stream(inbound) = &call.state {
                inbound.stream.check_invariants(StreamId { side: Callee, mux_id });
            }
        }
    }

    /// Each waiter belongs to a call that has its position, and each such call has a waiter.
    fn check_waiters(&self) {
        for (position, waiter) in self.queue.waiters() {
            assert_eq!(
                self.position_of(waiter),
                Some(position),
                "the position that {waiter:?} has, and that in queue.waiters"
            );
        }
        let outbound = self.outbound.iter().filter(|(_, call)| match &call.state {
            OutboundState::Blocked { .. } | OutboundState::StreamBlocked { .. } => true,
            OutboundState::Stream { stream, .. } => stream.position.is_some(),
            OutboundState::Sent => false,
        });
        let inbound = self.inbound.iter().filter(|(_, call)| match &call.state {
            InboundState::Blocked { .. } => true,
            InboundState::Stream(inbound) => inbound.stream.position.is_some(),
            InboundState::Running | InboundState::Opening { .. } => false,
        });
        let waiting = outbound.count() + inbound.count();
        let waiters = self.queue.waiters_len();
        assert_eq!(waiters, waiting, "queue.waiters, and the calls that wait for room");
    }

    /// Returns the position that the call of a waiter has.
    fn position_of(&self, waiter: QueueWaiter) -> Option<u64> {
        let outbound = |mux_id| self.outbound.get(mux_id).map(|call| &call.state);
        let inbound = |mux_id| self.inbound.get(mux_id).map(|call| &call.state);
        match waiter {
            QueueWaiter::Request(mux_id) => match outbound(mux_id)? {
                OutboundState::Blocked { position, .. } => Some(*position),
                _ => None,
            },
            QueueWaiter::Open(mux_id) => match outbound(mux_id)? {
                OutboundState::StreamBlocked { position, .. } => Some(*position),
                _ => None,
            },
            QueueWaiter::Response(mux_id) => match inbound(mux_id)? {
                InboundState::Blocked { position, .. } => Some(*position),
                _ => None,
            },
            QueueWaiter::Stream(StreamId { side: Caller, mux_id }) => match outbound(mux_id)? {
                OutboundState::Stream { stream, .. } => stream.position,
                _ => None,
            },
            QueueWaiter::Stream(StreamId { side: Callee, mux_id }) => match inbound(mux_id)? {
                InboundState::Stream(inbound) => inbound.stream.position,
                _ => None,
            },
        }
    }

    /// Each call has the timers that end it. Timers of ended calls may be left.
    fn check_timers(&self) {
        let mut needed = TimerCounts::default();
        for (_, call) in self.outbound.iter() {
            let has_deadline = call.state.has_deadline();
            needed.outbound_deadlines += usize::from(has_deadline);
            needed.stream_pings += usize::from(!has_deadline);
        }
        for (_, InboundCall { state, deadline, .. }) in self.inbound.iter() {
            let is_stream = matches!(state, InboundState::Opening { .. } | InboundState::Stream(_));
            needed.inbound_deadlines += usize::from(deadline.is_some());
            needed.stream_ping_timeouts += usize::from(is_stream && deadline.is_none());
        }
        assert_eq!(self.live_timers(), needed, "the timers in deadlines, and those of the calls");
        // Stale timers are swept, so that calls that end early leave no more than others need.
        let calls_max =
            self.limits.outbound_calls_max.saturating_add(self.limits.inbound_calls_max);
        let max = calls_max.saturating_mul(2 * TIMERS_PER_CALL_MAX).saturating_add(SWEEP_MIN + 1);
        let timers = self.deadlines.len();
        assert!(timers <= max, "deadlines.len = {timers} exceeds {max}");
    }

    fn live_timers(&self) -> TimerCounts {
        let mut live = TimerCounts::default();
        for (at, timer) in self.deadlines.iter() {
            match timer {
                Timer::OutboundDeadline(mux_id) => {
                    live.outbound_deadlines += usize::from(self.outbound.contains(mux_id));
                }
                Timer::StreamPing(mux_id) => {
                    let call = self.outbound.get(mux_id);
                    let is_needed = call.is_some_and(|call| !call.state.has_deadline());
                    live.stream_pings += usize::from(is_needed);
                }
                Timer::InboundDeadline { mux_id, serial } => {
                    if let Some(call) = self.inbound.get_live(mux_id, serial) {
                        assert_eq!(Some(at), call.deadline, "call {mux_id}: timer and deadline");
                        live.inbound_deadlines += 1;
                    }
                }
                Timer::StreamPingTimeout { mux_id, serial } => {
                    let call = self.inbound.get_live(mux_id, serial);
                    let is_needed = call.is_some_and(|call| call.deadline.is_none());
                    live.stream_ping_timeouts += usize::from(is_needed);
                }
            }
        }
        live
    }

    /// Nothing outlives the close, and its event is the last one.
    fn check_close(&self) {
        if !self.is_closed {
            return;
        }
        let left = [
            ("outbound.len", self.outbound.len()),
            ("inbound.len", self.inbound.len()),
            ("deadlines.len", self.deadlines.len()),
            ("queue.waiters", self.queue.waiters_len()),
            ("queue.queued_bytes", self.queue.queued_bytes()),
        ];
        for (name, left) in left {
            assert_eq!(left, 0, "{name} after the close");
        }
        let is_last = matches!(self.events.back(), None | Some(Event::Closed(_)));
        assert!(is_last, "an event after Event::Closed");
    }
}
