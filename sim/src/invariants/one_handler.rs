//! A call is served at most once, for the node that made it, and never if it was not sent.

use std::collections::{BTreeMap, BTreeSet};

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind, Outcome};
use crate::plan::Node;

/// Tracks the handlers of every call.
#[derive(Debug, Default)]
pub(super) struct OneHandler {
    callers: BTreeMap<CallId, Node>,
    served: BTreeSet<CallId>,
    never_sent: BTreeSet<CallId>,
}

impl Invariant for OneHandler {
    fn name(&self) -> &'static str {
        "one_handler"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        match (&event.kind, event.node) {
            (EventKind::CallMade { call, .. }, Some(node)) => {
                self.callers.insert(*call, node);
            }
            (EventKind::CallEnded { call, outcome }, _) => {
                if matches!(outcome, Outcome::NotConnected | Outcome::NotMade { .. }) {
                    if self.served.contains(call) {
                        return Err(format!("call {call} was served, and ended as {outcome}"));
                    }
                    self.never_sent.insert(*call);
                }
            }
            (EventKind::HandlerStarted { call, from }, Some(node)) => {
                if !self.served.insert(*call) {
                    return Err(format!("call {call} was served twice"));
                }
                if self.never_sent.contains(call) {
                    return Err(format!("call {call} is served, and was never sent"));
                }
                if self.callers.get(call) != Some(from) {
                    return Err(format!("call {call} is served for {from}, which did not make it"));
                }
                if context.load(*call).is_none_or(|load| load.ends().1 != node) {
                    return Err(format!(
                        "call {call} is served by {node}, which is not its callee"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, assert_violates, ended, made, request, served,
    };
    use super::*;

    fn harness() -> Harness {
        let load = request(|_| {});
        let mut harness = Harness::new(OneHandler::default(), vec![load.clone()]);
        harness.feed([(1, CALLER, made(0, &load))]);
        harness
    }

    #[test]
    fn call_is_served_once_by_its_callee() {
        harness().feed([(2, CALLEE, served(0)), (3, CALLER, ended(0, Outcome::Completed))]);
        assert_violates(harness().at(2, CALLER, served(0)), "call 0 is served by node-0");
        assert_violates(harness().at(2, CALLEE, served(1)), "call 1 is served for node-0");
        let from = CALLEE;
        let other = EventKind::HandlerStarted { call: 0, from };
        assert_violates(harness().at(2, CALLEE, other), "call 0 is served for node-1");
        let mut twice = harness();
        twice.feed([(2, CALLEE, served(0))]);
        assert_violates(twice.at(3, CALLEE, served(0)), "call 0 was served twice");
    }

    #[test]
    fn call_that_was_never_sent_is_not_served() {
        let mut before = harness();
        before.feed([(2, CALLEE, served(0))]);
        assert_violates(
            before.at(3, CALLER, ended(0, Outcome::NotConnected)),
            "call 0 was served, and",
        );
        let mut after = harness();
        after.feed([(2, CALLER, ended(0, Outcome::NotConnected))]);
        assert_violates(after.at(3, CALLEE, served(0)), "call 0 is served, and was never sent");
    }
}
