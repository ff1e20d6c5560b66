//! [B65]: a process uses locks only once it has verified its peers, and only under a list of
//! lockers that most nodes have.
//!
//! Checked where the flags of processes differ. The invariant knows the flags of every process from
//! the run, not from the servers:
//!
//! - Before a process has verified its peers, it is granted no lock, and its locker grants none. Its
//!   locker may know leases of its earlier processes: locks that were requested before it started.
//! - A lock is granted only under a list that more than half of all nodes had during the last
//!   lease. Proof: an open gate relies on confirmations that are at most half a lease old, and the
//!   attempt that it admits ends within a sixth.
//! - Locks under two different lists are never held at one instant.
//!
//! Suspended holders are exempt (see `suspended`).
//!
//! [B65]: crate::rules#b65

use std::collections::BTreeMap;

use super::suspended::SuspendedHolders;
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind};
use crate::fault::Effect;
use crate::lock::HoldView;
use crate::plan::{LocksPlan, Node};
use crate::world::NodeView;

/// Tracks the flags of processes, and the list under which each lock was requested.
#[derive(Debug, Default)]
pub(super) struct LockGate {
    suspended: SuspendedHolders,
    processes: BTreeMap<Node, Vec<Process>>,
    requested: BTreeMap<CallId, Request>,
}

/// A lock that was requested, and has not ended.
#[derive(Debug)]
struct Request {
    at_ms: u64,
    /// The list of the process that requested it.
    lockers: Vec<Node>,
}

/// One process of a node.
#[derive(Debug)]
struct Process {
    started_ms: u64,
    lockers: Vec<Node>,
    is_verified: bool,
    /// When it ended; `None` while it runs.
    ended_ms: Option<u64>,
}

impl Invariant for LockGate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        self.suspended.on_event(event);
        match (&event.kind, event.node) {
            (EventKind::LockersConfigured { lockers }, Some(node)) => {
                self.end_process(node, event.at_ms);
                let process = Process {
                    started_ms: event.at_ms,
                    lockers: lockers.clone(),
                    is_verified: false,
                    ended_ms: None,
                };
                self.processes.entry(node).or_default().push(process);
            }
            (EventKind::PeersVerified, Some(node)) => {
                if let Some(process) = self.processes.get_mut(&node).and_then(|all| all.last_mut())
                {
                    process.is_verified = true;
                }
            }
            (EventKind::Fault { fault }, _) => {
                if let Effect::NodeFails { node } = fault.effect() {
                    self.end_process(node, event.at_ms);
                }
            }
            (EventKind::LockRequested { call, .. }, Some(node)) => {
                if let Some(process) = self.process(node) {
                    let lockers = process.lockers.clone();
                    self.requested.insert(*call, Request { at_ms: event.at_ms, lockers });
                }
            }
            (EventKind::LockFailed { call, .. } | EventKind::LockEnded { call, .. }, _) => {
                self.requested.remove(call);
            }
            (EventKind::LockGranted { call, .. }, Some(node)) => {
                return self.on_grant(*call, node, context);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_tick(&mut self, hold_views: &[HoldView], _context: &CheckContext<'_>) -> CheckResult {
        let holders =
            hold_views.iter().filter(|hold| hold.is_held && !self.suspended.is_exempt(hold.call));
        let list_of = |call| self.requested.get(call).map(|request| &request.lockers);
        let mut known = holders.filter_map(|hold| Some((hold, list_of(&hold.call)?)));
        let Some((first, list)) = known.next() else { return Ok(()) };
        match known.find(|(_, other)| *other != list) {
            None => Ok(()),
            Some((hold, other)) => Err(format!(
                "locks are held under two lists: that of call {} on {} under {list:?}, and that of \
                 call {} on {} under {other:?}",
                first.call, first.node, hold.call, hold.node
            )),
        }
    }

    fn on_view(&mut self, views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        if flags_of(context).is_none() {
            return Ok(());
        }
        for NodeView { node, locks, .. } in views {
            let Some(process) = self.process(*node).filter(|process| !process.is_verified) else {
                continue;
            };
            let calls = locks.locker.iter().flat_map(|locker| &locker.grants);
            let requests = calls.filter_map(|grant| {
                let call = grant.call?;
                Some((call, self.requested.get(&call)?))
            });
            let mut new = requests.filter(|(_, request)| request.at_ms > process.started_ms);
            if let Some((call, _)) = new.next() {
                return Err(format!(
                    "the locker of {node} has granted call {call} before it has verified its peers"
                ));
            }
        }
        Ok(())
    }
}

/// Returns the locks of the plan, if processes have flags of their own.
fn flags_of<'a>(context: &CheckContext<'a>) -> Option<&'a LocksPlan> {
    context.plan.cluster.locks.as_ref().filter(|locks| !locks.flags.is_empty())
}

impl LockGate {
    fn process(&self, node: Node) -> Option<&Process> {
        self.processes.get(&node)?.last()
    }

    fn end_process(&mut self, node: Node, at_ms: u64) {
        if let Some(process) = self.processes.get_mut(&node).and_then(|all| all.last_mut()) {
            process.ended_ms.get_or_insert(at_ms);
        }
    }

    fn on_grant(&self, call: CallId, node: Node, context: &CheckContext<'_>) -> CheckResult {
        if flags_of(context).is_none() || self.suspended.is_exempt(call) {
            return Ok(());
        }
        let Some(process) = self.process(node) else { return Ok(()) };
        if !process.is_verified {
            return Err(format!(
                "call {call} was granted its lock before {node} verified its peers"
            ));
        }
        let since = context.now_ms.saturating_sub(context.bounds.lease_ms);
        // A process that was paused is granted, when it resumes, what its gate admitted before.
        if self.suspended.resumed_at(node).is_some_and(|resumed| resumed >= since) {
            return Ok(());
        }
        let had = |all: &&Vec<Process>| {
            all.iter().any(|other| {
                other.lockers == process.lockers
                    && other.ended_ms.is_none_or(|ended| ended >= since)
            })
        };
        let nodes = self.processes.values().filter(had).count();
        if 2 * nodes <= usize::from(context.plan.cluster.nodes) {
            return Err(format!(
                "call {call} on {node} was granted its lock under the list {:?}, which {nodes} of {} \
                 nodes had during the last lease",
                process.lockers, context.plan.cluster.nodes
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, LATE, assert_violates, granted, hold, lock, made, views,
    };
    use super::*;
    use crate::fault::PowerLoss;
    use crate::lock::{GrantView, LockerView};
    use crate::plan::{Fault, FlagsPlan};

    fn configured(lockers: &[Node]) -> EventKind {
        EventKind::LockersConfigured { lockers: lockers.to_vec() }
    }

    /// Two nodes that have started with these lists, and a lock that the first one requested.
    fn harness(lists: [&[Node]; 2]) -> Harness {
        let mut locks = LocksPlan::new(12_000, 2_000, vec![CALLER, CALLEE]);
        locks.flags = vec![FlagsPlan {
            node: CALLER,
            from_ms: 0,
            lockers: vec![CALLER],
            build: 0,
            root_user: 0,
        }];
        let mut harness = Harness::with_locks(LockGate::default(), locks);
        harness.feed([(0, CALLER, configured(lists[0])), (0, CALLEE, configured(lists[1]))]);
        harness.feed([(LATE, CALLER, made(0, &lock(|_| {})))]);
        harness
    }

    const BOTH: &[Node] = &[CALLER, CALLEE];
    const ONE: &[Node] = &[CALLER];

    #[test]
    fn b65_lock_is_granted_only_after_verification() {
        let mut early = harness([BOTH, BOTH]);
        assert_violates(
            early.at(LATE + 1, CALLER, granted(0, true, 1)),
            "before node-0 verified its peers",
        );
        let mut verified = harness([BOTH, BOTH]);
        verified.feed([(LATE, CALLER, EventKind::PeersVerified)]);
        assert_eq!(verified.at(LATE + 1, CALLER, granted(0, true, 1)), Ok(()));
        let mut restarted = harness([BOTH, BOTH]);
        restarted.feed([(9, CALLER, EventKind::PeersVerified), (99, CALLER, configured(BOTH))]);
        assert_violates(
            restarted.at(LATE + 1, CALLER, granted(0, true, 1)),
            "before node-0 verified its peers",
        );
    }

    #[test]
    fn b65_locker_grants_only_after_verification() {
        let mut views = views();
        let grants = vec![GrantView { id: "lock-0".to_owned(), call: Some(0) }];
        views[1].locks.locker = Some(LockerView { is_open: true, grants, ..LockerView::default() });
        let mut harness = harness([BOTH, BOTH]);
        assert_violates(harness.on_view(LATE, &views), "node-1 has granted call 0 before");
        let mut restarted = self::harness([BOTH, BOTH]);
        restarted.feed([(LATE + 1, CALLEE, configured(BOTH))]);
        assert_eq!(restarted.on_view(LATE + 2, &views), Ok(()), "a lease of its earlier process");
        harness.feed([(LATE, CALLEE, EventKind::PeersVerified)]);
        assert_eq!(harness.on_view(LATE, &views), Ok(()));
    }

    #[test]
    fn b65_lock_is_granted_under_the_list_of_most_nodes() {
        let mut outlier = harness([ONE, BOTH]);
        outlier.feed([(LATE, CALLER, EventKind::PeersVerified)]);
        assert_violates(
            outlier.at(LATE + 1, CALLER, granted(0, true, 1)),
            "which 1 of 2 nodes had during the last lease",
        );
        let after_power_loss = |lost_ms| {
            let mut harness = harness([BOTH, BOTH]);
            harness.feed([(9, CALLER, EventKind::PeersVerified)]);
            harness.inject(lost_ms, Fault::PowerLoss(PowerLoss { node: CALLEE }));
            harness.at(LATE, CALLER, granted(0, true, 1))
        };
        assert_eq!(after_power_loss(LATE - 12_000), Ok(()));
        assert_violates(after_power_loss(LATE - 12_001), "1 of 2 nodes");
    }

    #[test]
    fn b65_locks_of_two_lists_are_not_held_at_one_instant() {
        let mut harness = harness([ONE, BOTH]);
        harness.feed([(LATE, CALLEE, made(1, &lock(|_| {})))]);
        let (one, other) = (hold(0, CALLER, true), hold(1, CALLEE, false));
        assert_eq!(harness.on_tick(LATE, std::slice::from_ref(&one)), Ok(()));
        assert_violates(harness.on_tick(LATE, &[one.clone(), other.clone()]), "under two lists");
        let over = HoldView { is_held: false, ..other };
        assert_eq!(harness.on_tick(LATE, &[one, over]), Ok(()));
    }
}
