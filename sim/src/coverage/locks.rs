//! Coverage points of locks.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{CallId, Event, EventKind, LockEnd, LockFailure, LossNotice};
use crate::fault::Effect;
use crate::plan::{Fault, Node};
use crate::world::NodeView;

/// State of the locks of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Locks {
    lockers: BTreeSet<Node>,
    paused: BTreeSet<Node>,
    /// Locks that are requested or held.
    open: BTreeMap<CallId, OpenLock>,
    /// How and when the last lock of each resource ended.
    last: BTreeMap<u8, (LockEnd, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenLock {
    node: Option<Node>,
    requested_ms: u64,
    resources: Vec<u8>,
    write: bool,
    is_held: bool,
    is_forced: bool,
    /// Lockers that lost power while it was held.
    crashed: BTreeSet<Node>,
}

/// Points that a set of swarm runs with locks must reach.
pub const LOCK_POINTS: &[&str] = &[
    "buggify_delay-flush",
    "buggify_early-timeout",
    "buggify_full-socket",
    "buggify_spurious-wake",
    "buggify_supersede",
    "buggify_tiny-queue",
    "concurrent_readers",
    "fault_bounce",
    "fault_cut",
    "fault_cut_one_way",
    "fault_drift",
    "fault_hold",
    "fault_pause",
    "fault_power_loss",
    "fault_repair",
    "fault_restart",
    "fault_resume",
    "fault_skew",
    "fault_slow",
    "lock_cancelled",
    "lock_dropped",
    "lock_force_unlocked",
    "lock_granted_after_holder_crashed",
    "lock_granted_after_holder_lost_it",
    "lock_granted_to_waiter",
    "lock_granted_while_another_holder_is_paused",
    "lock_kept_while_majority_of_lockers_crashed",
    "lock_kept_while_minority_of_lockers_crashed",
    "lock_loss_by_force_unlock",
    "lock_loss_found_by_check",
    "lock_loss_notified",
    "lock_of_several_resources",
    "lock_timed_out",
    "lock_unlocked",
    "lock_waiter_process_ended",
    "locker_expired_unrefreshed_grant",
    "store_rejected_holder",
    "token_took_a_second_round",
    "waiter_was_notified",
];

impl Locks {
    /// Handles an event. Returns the points that it reached.
    pub(super) fn on_event(&mut self, event: &Event) -> Vec<&'static str> {
        match &event.kind {
            EventKind::LockRequested { call, resources, write, .. } => {
                let (node, requested_ms, resources) = (event.node, event.at_ms, resources.clone());
                let crashed = BTreeSet::new();
                let (write, is_held, is_forced) = (*write, false, false);
                let open =
                    OpenLock { node, requested_ms, resources, write, is_held, is_forced, crashed };
                self.open.insert(*call, open);
                Vec::new()
            }
            EventKind::LockGranted { call, .. } => self.on_grant(*call),
            EventKind::LockFailed { call, failure } => {
                self.open.remove(call);
                failed(failure)
            }
            EventKind::LockLost { call, notice } => self.on_loss(*call, *notice),
            EventKind::LockEnded { call, how } => self.on_end(*call, *how, event.at_ms),
            EventKind::LockForced { resource, lockers: 1.., .. } => self.on_forced(*resource),
            EventKind::StoreReached { accepted: false, held: true, .. } => {
                vec!["store_rejected_holder"]
            }
            EventKind::Fault { fault } => {
                self.on_fault(*fault);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn on_fault(&mut self, fault: Fault) {
        match fault.effect() {
            Effect::ProcessPauses { node } => drop(self.paused.insert(node)),
            Effect::ProcessResumes { node, .. } => drop(self.paused.remove(&node)),
            Effect::NodeFails { node } => {
                self.paused.remove(&node);
                let is_locker = self.lockers.contains(&node);
                for open in self.open.values_mut().filter(|open| open.is_held && is_locker) {
                    open.crashed.insert(node);
                }
            }
            _ => {}
        }
    }

    fn on_grant(&mut self, call: CallId) -> Vec<&'static str> {
        let Some(open) = self.open.get_mut(&call) else { return Vec::new() };
        open.is_held = true;
        let open = open.clone();
        let mut points = Vec::new();
        if open.resources.len() > 1 {
            points.push("lock_of_several_resources");
        }
        let others = self.open.iter().filter(|(other, _)| **other != call).map(|(_, other)| other);
        for other in others.filter(|other| other.is_held && open.shares_with(other)) {
            if !open.write && !other.write {
                points.push("concurrent_readers");
            } else if other.node.is_some_and(|node| self.paused.contains(&node)) {
                points.push("lock_granted_while_another_holder_is_paused");
            }
        }
        for (how, at_ms) in open.resources.iter().filter_map(|resource| self.last.get(resource)) {
            if *at_ms > open.requested_ms {
                points.push("lock_granted_to_waiter");
            }
            match how {
                LockEnd::Crashed => points.push("lock_granted_after_holder_crashed"),
                LockEnd::Lost => points.push("lock_granted_after_holder_lost_it"),
                LockEnd::Unlocked | LockEnd::Dropped => {}
            }
        }
        points
    }

    fn on_loss(&self, call: CallId, notice: LossNotice) -> Vec<&'static str> {
        let mut points = vec![match notice {
            LossNotice::Notified => "lock_loss_notified",
            LossNotice::Checked => "lock_loss_found_by_check",
        }];
        if self.open.get(&call).is_some_and(|open| open.is_forced) {
            points.push("lock_loss_by_force_unlock");
        }
        points
    }

    fn on_end(&mut self, call: CallId, how: LockEnd, at_ms: u64) -> Vec<&'static str> {
        let Some(open) = self.open.remove(&call) else { return Vec::new() };
        for resource in &open.resources {
            self.last.insert(*resource, (how, at_ms));
        }
        let mut points = match how {
            LockEnd::Unlocked => vec!["lock_unlocked"],
            LockEnd::Dropped => vec!["lock_dropped"],
            LockEnd::Lost | LockEnd::Crashed => return Vec::new(),
        };
        match open.crashed.len() {
            0 => {}
            some if some * 2 > self.lockers.len() => {
                points.push("lock_kept_while_majority_of_lockers_crashed");
            }
            _ => points.push("lock_kept_while_minority_of_lockers_crashed"),
        }
        points
    }

    fn on_forced(&mut self, resource: u8) -> Vec<&'static str> {
        for open in self.open.values_mut() {
            open.is_forced |= open.is_held && open.resources.contains(&resource);
        }
        vec!["lock_force_unlocked"]
    }

    /// Handles the present state of the nodes.
    pub(super) fn on_view(&mut self, views: &[NodeView]) -> Vec<&'static str> {
        let mut points = Vec::new();
        for NodeView { node, locks, .. } in views {
            if let Some(locker) = &locks.locker {
                self.lockers.insert(*node);
                if locker.expired > 0 {
                    points.push("locker_expired_unrefreshed_grant");
                }
            }
            if locks.second_rounds > 0 {
                points.push("token_took_a_second_round");
            }
            if locks.notifications > 0 {
                points.push("waiter_was_notified");
            }
        }
        points
    }
}

impl OpenLock {
    fn shares_with(&self, other: &Self) -> bool {
        self.resources.iter().any(|resource| other.resources.contains(resource))
    }
}

fn failed(failure: &LockFailure) -> Vec<&'static str> {
    match failure {
        LockFailure::TimedOut => vec!["lock_timed_out"],
        LockFailure::Cancelled => vec!["lock_cancelled"],
        LockFailure::Crashed | LockFailure::ShuttingDown => {
            vec!["lock_waiter_process_ended"]
        }
        LockFailure::Lost | LockFailure::NotAttempted { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
