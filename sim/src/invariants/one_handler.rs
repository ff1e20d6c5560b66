//! A call is served at most once, for the node that made it, and not at all if it was never sent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, Outcome, What};
use crate::plan::Node;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OneHandler {
    makers: BTreeMap<CallId, Node>,
    served: BTreeSet<CallId>,
    never_sent: BTreeSet<CallId>,
}

impl Invariant for OneHandler {
    fn name(&self) -> &'static str {
        "one_handler"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        match (&event.what, event.node) {
            (What::CallMade { call, .. }, Some(node)) => drop(self.makers.insert(*call, node)),
            (What::CallEnded { call, outcome }, _) => {
                if matches!(outcome, Outcome::NotConnected | Outcome::NotMade { .. }) {
                    if self.served.contains(call) {
                        return Err(format!("call {call} was served, and ended as {outcome}"));
                    }
                    self.never_sent.insert(*call);
                }
            }
            (What::HandlerStarted { call, from }, Some(node)) => {
                if !self.served.insert(*call) {
                    return Err(format!("call {call} was served twice"));
                }
                if self.never_sent.contains(call) {
                    return Err(format!("call {call} is served, and was never sent"));
                }
                if self.makers.get(call) != Some(from) {
                    return Err(format!("call {call} is served for {from}, who did not make it"));
                }
                if facts.load(*call).is_none_or(|load| load.ends().1 != node) {
                    return Err(format!("call {call} is served by {node}, whom it did not ask"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
