//! Who cannot know: locks over which their node was suspended with its clocks standing.
//!
//! Such a node goes on as if no time had passed. Nothing in it can tell that its lease is over, which is
//! what tokens and the store that compares them are for (B54). Only these are excused.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{CallId, Event, EventKind};
use crate::plan::{ClockWhilePaused, Fault, Node};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Suspended {
    stopped: BTreeSet<Node>,
    /// Locks that are waited for or held, and where.
    open: BTreeMap<CallId, Node>,
    /// Those of them over which their node's clocks stood.
    stood: BTreeSet<CallId>,
    /// When a node last went on.
    woken: BTreeMap<Node, u64>,
}

impl Suspended {
    /// Something happened.
    pub(super) fn see(&mut self, event: &Event) {
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
                self.go_on(*node, *clock, event.at_ms);
            }
            (EventKind::Healed, _) => {
                for node in self.stopped.clone() {
                    self.go_on(node, ClockWhilePaused::Ran, event.at_ms);
                }
            }
            _ => {}
        }
    }

    fn go_on(&mut self, node: Node, clock: ClockWhilePaused, at: u64) {
        if !self.stopped.remove(&node) {
            return;
        }
        self.woken.insert(node, at);
        if clock == ClockWhilePaused::Frozen {
            let its = self.open.iter().filter(|(_, on)| **on == node);
            self.stood.extend(its.map(|(call, _)| *call));
        }
    }

    /// Whether the holder of this lock cannot know whether it still holds it.
    pub(super) fn is_over(&self, call: CallId) -> bool {
        self.stood.contains(&call)
    }

    /// Whether a node's process is stopped.
    pub(super) fn is_stopped(&self, node: Node) -> bool {
        self.stopped.contains(&node)
    }

    /// When a node last went on after it was stopped.
    pub(super) fn woken_at(&self, node: Node) -> Option<u64> {
        self.woken.get(&node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excused_is_a_lock_over_which_the_clocks_stood_and_no_other() {
        let node = Node(0);
        let mut suspended = Suspended::default();
        let see = |suspended: &mut Suspended, kind| {
            suspended.see(&Event { at_ms: 7, node: Some(node), kind });
        };
        let asked = |call| EventKind::LockRequested {
            call,
            resources: vec![0],
            write: true,
            timeout_ms: 9,
        };
        let fault = |fault| EventKind::Fault { fault };
        see(&mut suspended, asked(0));
        see(&mut suspended, fault(Fault::Pause { node }));
        assert!(suspended.is_stopped(node));
        see(&mut suspended, fault(Fault::Resume { node, clock: ClockWhilePaused::Ran }));
        assert!(!suspended.is_over(0), "its clocks ran");
        assert_eq!((suspended.is_stopped(node), suspended.woken_at(node)), (false, Some(7)));
        see(&mut suspended, fault(Fault::Resume { node, clock: ClockWhilePaused::Frozen }));
        assert!(!suspended.is_over(0), "it was not stopped");
        see(&mut suspended, fault(Fault::Pause { node }));
        see(&mut suspended, fault(Fault::Resume { node, clock: ClockWhilePaused::Frozen }));
        see(&mut suspended, asked(1));
        assert!(suspended.is_over(0));
        assert!(!suspended.is_over(1), "it was asked for later");
    }
}
