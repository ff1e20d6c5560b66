//! Who cannot know: locks over which their node was suspended with its clocks standing.
//!
//! Such a node goes on as if no time had passed. Nothing in it can tell that its lease is over,
//! which is what tokens and the store that compares them are for (B54). Only these are excused.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{CallId, Event, EventKind};
use crate::plan::{ClockWhilePaused, Fault, Node};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SuspendedHolders {
    stopped: BTreeSet<Node>,
    /// Locks that are waited for or held, and where.
    open: BTreeMap<CallId, Node>,
    /// Those of them over which their node's clocks excused.
    excused: BTreeSet<CallId>,
    /// When a node last went on.
    resumed: BTreeMap<Node, u64>,
}

impl SuspendedHolders {
    /// Something happened.
    pub(super) fn on_event(&mut self, event: &Event) {
        match (&event.kind, event.node) {
            (EventKind::LockRequested { call, .. }, Some(node)) => {
                drop(self.open.insert(*call, node))
            }
            (EventKind::LockFailed { call, .. } | EventKind::LockEnded { call, .. }, _) => {
                self.open.remove(call);
            }
            (EventKind::Fault { fault: Fault::Pause { node } }, _) => {
                drop(self.stopped.insert(*node))
            }
            (EventKind::Fault { fault: Fault::PowerLoss { node } }, _) => {
                self.stopped.remove(node);
            }
            (EventKind::Fault { fault: Fault::Resume { node, clock } }, _) => {
                self.resume(*node, *clock, event.at_ms);
            }
            (EventKind::Healed, _) => {
                for node in self.stopped.clone() {
                    self.resume(node, ClockWhilePaused::Ran, event.at_ms);
                }
            }
            _ => {}
        }
    }

    fn resume(&mut self, node: Node, clock: ClockWhilePaused, at: u64) {
        if !self.stopped.remove(&node) {
            return;
        }
        self.resumed.insert(node, at);
        if clock == ClockWhilePaused::Frozen {
            let its = self.open.iter().filter(|(_, on)| **on == node);
            self.excused.extend(its.map(|(call, _)| *call));
        }
    }

    /// Whether the holder of this lock cannot know whether it still holds it.
    pub(super) fn is_excused(&self, call: CallId) -> bool {
        self.excused.contains(&call)
    }

    /// Whether a node's process is stopped.
    pub(super) fn is_stopped(&self, node: Node) -> bool {
        self.stopped.contains(&node)
    }

    /// When a node last went on after it was stopped.
    pub(super) fn resumed_at(&self, node: Node) -> Option<u64> {
        self.resumed.get(&node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excused_is_a_lock_over_which_the_clocks_stood_and_no_other() {
        let node = Node(0);
        let mut suspended = SuspendedHolders::default();
        let on_event = |suspended: &mut SuspendedHolders, kind| {
            suspended.on_event(&Event { at_ms: 7, node: Some(node), kind });
        };
        let asked = |call| EventKind::LockRequested {
            call,
            resources: vec![0],
            write: true,
            timeout_ms: 9,
        };
        let fault = |fault| EventKind::Fault { fault };
        on_event(&mut suspended, asked(0));
        on_event(&mut suspended, fault(Fault::Pause { node }));
        assert!(suspended.is_stopped(node));
        on_event(&mut suspended, fault(Fault::Resume { node, clock: ClockWhilePaused::Ran }));
        assert!(!suspended.is_excused(0), "its clocks ran");
        assert_eq!((suspended.is_stopped(node), suspended.resumed_at(node)), (false, Some(7)));
        on_event(&mut suspended, fault(Fault::Resume { node, clock: ClockWhilePaused::Frozen }));
        assert!(!suspended.is_excused(0), "it was not stopped");
        on_event(&mut suspended, fault(Fault::Pause { node }));
        on_event(&mut suspended, fault(Fault::Resume { node, clock: ClockWhilePaused::Frozen }));
        on_event(&mut suspended, asked(1));
        assert!(suspended.is_excused(0));
        assert!(!suspended.is_excused(1), "it was asked for later");
    }
}
