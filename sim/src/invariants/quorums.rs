//! [B51]: a quorum of lockers has a grant of each lock whose holder sees `is_held()`, so that any
//! other quorum contains one of them. A lease after a lock has ended, no locker has a grant of it,
//! so that no crashed node keeps it for ever.
//!
//! `mutual_exclusion` follows from the first half, but fails only if another request comes at the
//! wrong moment: this invariant fails at any moment. A locker that grants nothing, because it is
//! closed or its process does not run, counts as one with a grant. Suspended holders are exempt
//! (see `suspended`).
//!
//! [B51]: crate::rules#b51

use std::collections::{BTreeMap, BTreeSet};

use super::suspended::SuspendedHolders;
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind};
use crate::lock::{HoldView, LockerView};
use crate::plan::Node;
use crate::world::NodeView;

/// Tracks holders and ended locks.
#[derive(Debug, Default)]
pub(super) struct Quorums {
    suspended: SuspendedHolders,
    /// The list of lockers of each node's process, where it is not that of the plan.
    lists: BTreeMap<Node, Vec<Node>>,
    held: Vec<HoldView>,
    ended: BTreeMap<CallId, u64>,
    healed_ms: u64,
}

impl Invariant for Quorums {
    fn name(&self) -> &'static str {
        "quorums"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        self.suspended.on_event(event);
        match event.kind {
            EventKind::LockFailed { call, .. } | EventKind::LockEnded { call, .. } => {
                self.ended.insert(call, event.at_ms);
            }
            EventKind::Healed => self.healed_ms = event.at_ms,
            EventKind::LockersConfigured { ref lockers } => {
                let lists = event.node.map(|node| (node, lockers.clone()));
                self.lists.extend(lists);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_tick(&mut self, hold_views: &[HoldView], _context: &CheckContext<'_>) -> CheckResult {
        let held = hold_views.iter().filter(|hold| hold.is_held);
        let checked = held.filter(|hold| !self.suspended.is_exempt(hold.call));
        self.held = checked.cloned().collect();
        Ok(())
    }

    fn on_view(&mut self, views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let Some(locks) = &context.plan.cluster.locks else { return Ok(()) };
        // Locks of other software may have no lockers.
        if self.held.is_empty() || locks.lockers.is_empty() {
            return Ok(());
        }
        let mut by_list = BTreeMap::new();
        for HoldView { call, node, id, write, .. } in &self.held {
            let list = self.lists.get(node).unwrap_or(&locks.lockers);
            let tables: &Vec<_> =
                by_list.entry(list).or_insert_with(|| tables(list, views).map(ids).collect());
            let may_have_grant = |ids: &&Option<BTreeSet<&str>>| {
                ids.as_ref().is_none_or(|ids| ids.contains(id.as_str()))
            };
            let grants = tables.iter().filter(may_have_grant).count();
            let needed = quorum(tables.len(), *write);
            if grants < needed {
                return Err(format!(
                    "the lock of call {call} is held by {node} with grants of {grants} lockers of \
                     {}: {needed} are needed",
                    tables.len()
                ));
            }
        }
        Ok(())
    }

    fn at_quiescence(&mut self, views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let Some(locks) = &context.plan.cluster.locks else { return Ok(()) };
        let bounds = context.bounds;
        // A request held up in the network may have been granted at healing.
        let lease_ms = bounds.lease_ms + bounds.drift_of(bounds.lease_ms);
        let allowance =
            lease_ms + bounds.queue_ms() + bounds.round_trip_ms + bounds.timer_resolution_ms;
        for grant in tables(&locks.lockers, views).flatten().flat_map(|table| &table.grants) {
            let ended = grant.call.and_then(|call| self.ended.get(&call).copied());
            if ended.is_none_or(|ended| ended.max(self.healed_ms) + allowance < context.now_ms) {
                return Err(format!(
                    "a locker keeps {} for call {:?}, which ended at {ended:?}",
                    grant.id, grant.call
                ));
            }
        }
        Ok(())
    }
}

/// Returns the table of each locker, if it is visible.
fn tables<'a>(
    lockers: &'a [Node],
    views: &'a [NodeView],
) -> impl Iterator<Item = Option<&'a LockerView>> {
    let view = |node| views.iter().find(move |view| view.node == node);
    lockers.iter().map(move |node| view(*node).and_then(|view| view.locks.locker.as_ref()))
}

/// Returns the ids of the current grants of a locker, if it is open.
fn ids(table: Option<&LockerView>) -> Option<BTreeSet<&str>> {
    let table = table.filter(|table| table.is_open)?;
    Some(table.grants.iter().map(|grant| grant.id.as_str()).collect())
}

/// Returns the size of a quorum of `lockers`. Any two quorums of writers share a locker, as does
/// one of writers with one of readers.
fn quorum(lockers: usize, write: bool) -> usize {
    if write { lockers / 2 + 1 } else { lockers - lockers / 2 }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, LATE, assert_violates, ended_lock, hold, views,
    };
    use super::*;
    use crate::fault::{Pause, Resume};
    use crate::lock::GrantView;
    use crate::plan::{ClockWhilePaused, Fault, LocksPlan};

    fn harness() -> Harness {
        let lockers = [CALLER, CALLEE].to_vec();
        let locks = LocksPlan::new(12_000, 2_000, lockers);
        Harness::with_locks(Quorums::default(), locks)
    }

    /// Returns views of two lockers with grants of these calls; `None` is a closed locker.
    fn lockers_with_grants(calls: [Option<&[CallId]>; 2]) -> Vec<NodeView> {
        let mut views = views();
        for (view, calls) in views.iter_mut().zip(calls) {
            let grant = |call: &CallId| GrantView { id: format!("lock-{call}"), call: Some(*call) };
            let grants = calls.unwrap_or_default().iter().map(grant).collect();
            let is_open = calls.is_some();
            view.locks.locker = Some(LockerView { is_open, grants, ..LockerView::default() });
        }
        views
    }

    #[test]
    fn b51_held_lock_has_grants_of_a_quorum() {
        let check = |write, views: &[NodeView]| {
            let mut harness = harness();
            assert_eq!(harness.on_tick(9, &[hold(0, CALLER, write)]), Ok(()));
            harness.on_view(9, views)
        };
        let (writer, reader) = (true, false);
        assert_eq!(check(writer, &lockers_with_grants([Some(&[0]), Some(&[0, 1])])), Ok(()));
        assert_violates(
            check(writer, &lockers_with_grants([Some(&[0]), Some(&[1])])),
            "grants of 1 lockers of 2",
        );
        assert_eq!(
            check(writer, &lockers_with_grants([Some(&[0]), None])),
            Ok(()),
            "a closed locker grants nothing"
        );
        assert_eq!(
            check(reader, &lockers_with_grants([Some(&[0]), Some(&[])])),
            Ok(()),
            "readers need half"
        );
        assert_violates(
            check(reader, &lockers_with_grants([Some(&[]), Some(&[])])),
            "grants of 0 lockers of 2",
        );
        let mut gone = lockers_with_grants([Some(&[0]), Some(&[])]);
        gone[1].locks.locker = None;
        assert_eq!(check(writer, &gone), Ok(()), "its process does not run");
    }

    #[test]
    fn b51_lost_or_suspended_lock_needs_no_quorum() {
        let no_grants = lockers_with_grants([Some(&[]), Some(&[])]);
        let mut harness = harness();
        let ended = HoldView { is_held: false, ..hold(0, CALLER, true) };
        assert_eq!(harness.on_tick(9, &[ended]), Ok(()));
        assert_eq!(harness.on_view(9, &no_grants), Ok(()));
        let (call, resources, write, timeout_ms) = (0, vec![0], true, 1_000);
        harness.feed([(
            1,
            CALLER,
            EventKind::LockRequested { call, resources, write, timeout_ms },
        )]);
        let node: Node = CALLER;
        harness.inject(2, Fault::Pause(Pause { node }));
        harness.inject(3, Fault::Resume(Resume { node, clock: ClockWhilePaused::Frozen }));
        assert_eq!(harness.on_tick(9, &[hold(0, CALLER, true)]), Ok(()));
        assert_eq!(harness.on_view(9, &no_grants), Ok(()));
    }

    #[test]
    fn b52_no_locker_keeps_an_ended_lock_for_ever() {
        let with_grant = lockers_with_grants([Some(&[0]), Some(&[])]);
        assert_violates(harness().at_quiescence(&with_grant), "which ended at None");
        let after = |ended_ms| {
            let mut harness = harness();
            harness.feed([(ended_ms, CALLER, ended_lock(0))]);
            harness.at_quiescence(&with_grant)
        };
        assert_eq!(after(LATE - 12_000), Ok(()), "its lease may not have expired");
        assert_violates(after(LATE - 13_000), "a locker keeps lock-0 for call Some(0)");
        assert_eq!(harness().at_quiescence(&lockers_with_grants([Some(&[]), None])), Ok(()));
    }
}
