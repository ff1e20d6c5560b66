//! [B11], [B25]: a handler whose call has ended is cancelled: at once if the network is intact,
//! and otherwise once the dead connection is detected.
//!
//! [B11]: crate::rules#b11
//! [B25]: crate::rules#b25

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind};
use crate::plan::Node;
use crate::world::NodeView;

/// Tracks running handlers and ended calls.
#[derive(Debug, Default)]
pub(super) struct Cancellation {
    /// Running handlers: the nodes of their callers and their own.
    running: BTreeMap<CallId, (Node, Node)>,
    /// When their calls ended.
    ended: BTreeMap<CallId, u64>,
}

impl Invariant for Cancellation {
    fn name(&self) -> &'static str {
        "cancellation"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        match (&event.kind, event.node) {
            (EventKind::HandlerStarted { call, from }, Some(node)) => {
                self.running.insert(*call, (*from, node));
            }
            (EventKind::HandlerEnded { call, .. }, _) => {
                self.running.remove(call);
                self.ended.remove(call);
            }
            (EventKind::CallEnded { call, .. }, _) => drop(self.ended.insert(*call, event.at_ms)),
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        for (call, (from, to)) in &self.running {
            let Some(ended) = self.ended.get(call) else { continue };
            let bounds = context.bounds;
            // Before that, the connection may be dead without having been detected.
            let Some(healthy) = context.health.healthy_since(*from, *to, bounds) else { continue };
            let due = healthy.max(*ended) + bounds.round_trip_ms + bounds.queue_ms();
            if context.now_ms > due {
                return Err(format!(
                    "the handler of call {call} still runs {} ms after the call ended",
                    context.now_ms - ended
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, LATE, assert_violates, ended, request, served,
    };
    use super::*;
    use crate::event::{HandlerEnd, Outcome};
    use crate::fault::{Cut, Repair};
    use crate::plan::Fault;

    fn harness() -> Harness {
        let mut harness = Harness::new(Cancellation::default(), vec![request(|_| {})]);
        harness.feed([(LATE, CALLEE, served(0)), (LATE, CALLER, ended(0, Outcome::Cancelled))]);
        harness
    }

    #[test]
    fn b11_handler_ends_within_a_bound_after_its_call() {
        let mut harness = harness();
        let soon = LATE + harness.bounds().round_trip_ms;
        let queue_ms = harness.bounds().queue_ms();
        assert_eq!(harness.on_view(soon, &[]), Ok(()));
        assert_violates(
            harness.on_view(soon + queue_ms + 1, &[]),
            "the handler of call 0 still runs",
        );
        harness.feed([(
            soon,
            CALLEE,
            EventKind::HandlerEnded { call: 0, how: HandlerEnd::Cancelled },
        )]);
        assert_eq!(harness.on_view(soon + queue_ms + 1, &[]), Ok(()));
    }

    #[test]
    fn b11_handler_on_a_dead_connection_ends_once_it_is_detected() {
        let mut harness = harness();
        harness.inject(LATE + 1, Fault::Cut(Cut { a: CALLER, b: CALLEE }));
        assert_eq!(
            harness.on_view(2 * LATE, &[]),
            Ok(()),
            "the dead connection is not detected yet"
        );
        harness.inject(2 * LATE, Fault::Repair(Repair { a: CALLER, b: CALLEE }));
        let bounds = harness.bounds();
        let found = 2 * LATE + bounds.reconnect_ms + bounds.round_trip_ms + bounds.queue_ms();
        assert_eq!(harness.on_view(found, &[]), Ok(()));
        assert_violates(harness.on_view(found + 1, &[]), "the handler of call 0 still runs");
    }
}
