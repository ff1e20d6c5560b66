//! Locks whose holder was suspended with its clocks frozen.
//!
//! Such a node continues as if no time had passed. Nothing in it can detect that its lease has
//! expired, which is what fencing tokens are for ([B54]). Only these locks are exempt.
//!
//! [B54]: crate::rules#b54

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{CallId, Event, EventKind};
use crate::fault::Effect;
use crate::plan::{ClockWhilePaused, Node};

/// Tracks paused nodes and exempt locks.
#[derive(Debug, Default)]
pub(super) struct SuspendedHolders {
    paused: BTreeSet<Node>,
    /// Locks that are requested or held, and their nodes.
    open: BTreeMap<CallId, Node>,
    /// Locks over which the clocks of their node were frozen.
    exempt: BTreeSet<CallId>,
    /// When each node last resumed.
    resumed: BTreeMap<Node, u64>,
}

impl SuspendedHolders {
    /// Handles an event.
    pub(super) fn on_event(&mut self, event: &Event) {
        match (&event.kind, event.node) {
            (EventKind::LockRequested { call, .. }, Some(node)) => {
                self.open.insert(*call, node);
            }
            (EventKind::LockFailed { call, .. } | EventKind::LockEnded { call, .. }, _) => {
                self.open.remove(call);
            }
            (EventKind::Fault { fault }, _) => self.on_effect(fault.effect(), event.at_ms),
            (EventKind::Healed, _) => {
                for node in self.paused.clone() {
                    self.resume(node, ClockWhilePaused::Ran, event.at_ms);
                }
            }
            _ => {}
        }
    }

    fn on_effect(&mut self, effect: Effect, at: u64) {
        match effect {
            Effect::ProcessPauses { node } => drop(self.paused.insert(node)),
            Effect::ProcessResumes { node, clock } => self.resume(node, clock, at),
            Effect::NodeFails { node } => drop(self.paused.remove(&node)),
            _ => {}
        }
    }

    fn resume(&mut self, node: Node, clock: ClockWhilePaused, at: u64) {
        if !self.paused.remove(&node) {
            return;
        }
        self.resumed.insert(node, at);
        if clock == ClockWhilePaused::Frozen {
            let open_there = self.open.iter().filter(|(_, on)| **on == node);
            self.exempt.extend(open_there.map(|(call, _)| *call));
        }
    }

    /// Returns whether the holder of this lock cannot know that it may have lost it.
    pub(super) fn is_exempt(&self, call: CallId) -> bool {
        self.exempt.contains(&call)
    }

    /// Returns whether a node's process is paused.
    pub(super) fn is_paused(&self, node: Node) -> bool {
        self.paused.contains(&node)
    }

    /// Returns when a node last resumed from a pause.
    pub(super) fn resumed_at(&self, node: Node) -> Option<u64> {
        self.resumed.get(&node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Pause, Resume};
    use crate::plan::Fault;

    #[test]
    fn only_locks_over_which_the_clocks_were_frozen_are_exempt() {
        let node = Node(0);
        let mut suspended = SuspendedHolders::default();
        let on_event = |suspended: &mut SuspendedHolders, kind| {
            suspended.on_event(&Event { at_ms: 7, node: Some(node), kind });
        };
        let requested = |call| EventKind::LockRequested {
            call,
            resources: vec![0],
            write: true,
            timeout_ms: 9,
        };
        let fault = |fault| EventKind::Fault { fault };
        on_event(&mut suspended, requested(0));
        on_event(&mut suspended, fault(Fault::Pause(Pause { node })));
        assert!(suspended.is_paused(node));
        on_event(
            &mut suspended,
            fault(Fault::Resume(Resume { node, clock: ClockWhilePaused::Ran })),
        );
        assert!(!suspended.is_exempt(0), "its clocks ran");
        assert_eq!((suspended.is_paused(node), suspended.resumed_at(node)), (false, Some(7)));
        on_event(
            &mut suspended,
            fault(Fault::Resume(Resume { node, clock: ClockWhilePaused::Frozen })),
        );
        assert!(!suspended.is_exempt(0), "it was not paused");
        on_event(&mut suspended, fault(Fault::Pause(Pause { node })));
        on_event(
            &mut suspended,
            fault(Fault::Resume(Resume { node, clock: ClockWhilePaused::Frozen })),
        );
        on_event(&mut suspended, requested(1));
        assert!(suspended.is_exempt(0));
        assert!(!suspended.is_exempt(1), "it was requested later");
    }
}
