//! [B21]: a sender never has more messages in flight than the capacity of its direction, and
//! regains its credit once the messages were received, so that it does not wait for ever.
//!
//! [B21]: crate::rules#b21

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind, StreamSide};
use crate::plan::{CAPACITIES, Load, Node};
use crate::world::NodeView;

/// Counts sent and received messages of each direction.
#[derive(Debug, Default)]
pub(super) struct Credits {
    sent: BTreeMap<(CallId, StreamSide), u32>,
    received: BTreeMap<(CallId, StreamSide), u32>,
    /// Blocked senders: when they blocked, or the last message was received, and their nodes.
    waiting: BTreeMap<(CallId, StreamSide), (u64, Node, Node)>,
}

/// Time for a credit to return on an intact network, behind a full queue of large messages.
const CREDIT_MS: u64 = 2_000;

impl Invariant for Credits {
    fn name(&self) -> &'static str {
        "credits"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        match &event.kind {
            EventKind::Received { call, end, .. } => {
                *self.received.entry((*call, end.other())).or_default() += 1;
                if let Some((since, ..)) = self.waiting.get_mut(&(*call, end.other())) {
                    *since = event.at_ms;
                }
                Ok(())
            }
            EventKind::SendBlocked { call, end, .. } => {
                if let Some((from, to)) = context.load(*call).map(|load| load.ends()) {
                    self.waiting.insert((*call, *end), (event.at_ms, from, to));
                }
                Ok(())
            }
            // The loss of its connection ends every send, which only the receiving end reports.
            EventKind::State { remote, .. } => {
                let lost = event.node.map(|node| (node.min(*remote), node.max(*remote)));
                self.waiting
                    .retain(|_, (_, from, to)| Some(((*from).min(*to), (*from).max(*to))) != lost);
                Ok(())
            }
            EventKind::CallEnded { call, .. } | EventKind::HandlerEnded { call, .. } => {
                self.waiting.remove(&(*call, StreamSide::Caller));
                self.waiting.remove(&(*call, StreamSide::Callee));
                Ok(())
            }
            EventKind::Sent { call, end, .. } => {
                self.waiting.remove(&(*call, *end));
                let sent = self.sent.entry((*call, *end)).or_default();
                *sent += 1;
                let received = self.received.get(&(*call, *end)).copied().unwrap_or(0);
                let Some(Load::Stream(plan)) = context.load(*call) else {
                    return Err(format!("call {call} is not a stream"));
                };
                let (input, output) = CAPACITIES[usize::from(plan.capacities) % CAPACITIES.len()];
                let capacity = match end {
                    StreamSide::Caller => input,
                    StreamSide::Callee => output,
                };
                let in_flight = sent.saturating_sub(received);
                if in_flight > capacity {
                    return Err(format!(
                        "{end:?} of call {call} has {in_flight} messages in flight of {capacity}"
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        for ((call, end), (since, from, to)) in &self.waiting {
            let count = |counts: &BTreeMap<_, u32>| counts.get(&(*call, *end)).copied();
            if count(&self.received) < count(&self.sent) {
                continue; // the receiver may be slow
            }
            let healthy = context.health.healthy_since(*from, *to, context.bounds);
            let Some(healthy) = healthy else { continue };
            let due = healthy.max(*since) + CREDIT_MS;
            if context.now_ms > due {
                return Err(format!(
                    "{end:?} of call {call} is blocked since {since} ms, though all was received"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, LATE, assert_violates, request, stream};
    use super::*;
    use crate::event::ConnectionState;

    #[test]
    fn b21_no_end_has_more_in_flight_than_its_capacity() {
        for (end, capacity, here, there) in
            [(StreamSide::Caller, 2, CALLER, CALLEE), (StreamSide::Callee, 3, CALLEE, CALLER)]
        {
            let sent = |number| EventKind::Sent { call: 0, end, number };
            let mut harness = Harness::new(Credits::default(), vec![stream(|_| {})]);
            harness.feed((1..=capacity).map(|number| (1, here, sent(number))));
            let received = EventKind::Received { call: 0, end: end.other(), number: 1 };
            harness.feed([(2, there, received), (3, here, sent(capacity + 1))]);
            assert_violates(harness.at(4, here, sent(capacity + 2)), "of call 0 has");
        }
    }

    #[test]
    fn b21_credit_returns_on_an_intact_network() {
        let end = StreamSide::Caller;
        let waits = EventKind::SendBlocked { call: 0, end, number: 2 };
        let due = LATE + CREDIT_MS;
        let mut harness = Harness::new(Credits::default(), vec![stream(|_| {})]);
        harness.feed([
            (LATE, CALLER, EventKind::Sent { call: 0, end, number: 1 }),
            (LATE, CALLER, waits),
        ]);
        assert_eq!(harness.on_view(due + 1, &[]), Ok(()), "it was not received");
        let received = EventKind::Received { call: 0, end: StreamSide::Callee, number: 1 };
        harness.feed([(LATE, CALLEE, received)]);
        assert_eq!(harness.on_view(due, &[]), Ok(()));
        assert_violates(harness.on_view(due + 1, &[]), "of call 0 is blocked");
        harness.feed([(due, CALLER, EventKind::Sent { call: 0, end, number: 2 })]);
        assert_eq!(harness.on_view(due + 1, &[]), Ok(()));
    }

    #[test]
    fn lost_connection_has_no_blocked_sender() {
        let end = StreamSide::Caller;
        let mut harness = Harness::new(Credits::default(), vec![stream(|_| {})]);
        harness.feed([
            (LATE, CALLER, EventKind::SendBlocked { call: 0, end, number: 1 }),
            (
                LATE,
                CALLER,
                EventKind::State { remote: CALLEE, state: ConnectionState::Backoff, cause: None },
            ),
        ]);
        assert_eq!(harness.on_view(LATE + CREDIT_MS + 1, &[]), Ok(()));
    }

    #[test]
    fn message_sent_by_a_request_is_a_violation() {
        let mut harness = Harness::new(Credits::default(), vec![request(|_| {})]);
        let sent = EventKind::Sent { call: 0, end: StreamSide::Caller, number: 1 };
        assert_violates(harness.at(1, CALLER, sent), "call 0 is not a stream");
    }
}
