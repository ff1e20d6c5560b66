//! The locks of a trace, and plans with locks, for the expectations of scenarios.

use rand::rngs::SmallRng;

use super::new_plan;
use crate::bounds::Bounds;
use crate::event::{Event, EventKind, LockEnd, LockFailure, LossNotice};
use crate::fault::{Cut, Repair};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, LocksPlan, Node, Plan, PlannedLockEnd};

/// One lock of the plan, and its events.
#[derive(Debug)]
pub(super) struct LockHistory<'a> {
    /// Number of its call.
    pub(super) number: usize,
    /// Its plan.
    pub(super) plan: &'a LockPlan,
    /// Time of the request; none if the process did not run.
    pub(super) requested_ms: Option<u64>,
    /// Time of the grant.
    pub(super) granted_ms: Option<u64>,
    /// Its fencing token.
    pub(super) token: Option<u64>,
    /// Time and reason of the failure.
    pub(super) failed: Option<(u64, &'a LockFailure)>,
    /// Time at which its holder noticed the loss, and how.
    pub(super) lost: Option<(u64, LossNotice)>,
    /// Time and manner of its end.
    pub(super) ended: Option<(u64, LockEnd)>,
    /// Times at which its holder reached the store, and whether the store accepted.
    pub(super) at_store: Vec<(u64, bool)>,
}

impl LockHistory<'_> {
    /// Returns an error text with the requirement and the history of the lock.
    pub(super) fn violation(&self, requirement: &str) -> String {
        let Self { number, plan, requested_ms, granted_ms, failed, lost, ended, .. } = self;
        format!(
            "lock {number} of {} {requirement}: requested {requested_ms:?}, granted {granted_ms:?}, \
             failed {failed:?}, lost {lost:?}, ended {ended:?}",
            plan.on
        )
    }

    /// Checks that it was granted, and returns the time.
    pub(super) fn must_be_granted(&self) -> Result<u64, String> {
        self.granted_ms.ok_or_else(|| self.violation("must be granted"))
    }

    /// Checks that it was granted within this time.
    pub(super) fn must_be_granted_within(&self, limit_ms: u64) -> CheckResult {
        let granted = self.must_be_granted()?;
        if granted > self.requested_ms.unwrap_or(granted) + limit_ms {
            return Err(self.violation(&format!("must be granted within {limit_ms} ms")));
        }
        Ok(())
    }

    /// Checks that its holder noticed its loss, and returns when and how. In the tick of the
    /// notification, the holder may find the loss by a check first.
    pub(super) fn must_be_lost(&self) -> Result<(u64, LossNotice), String> {
        self.lost.ok_or_else(|| self.violation("must be lost, and its holder must notice"))
    }

    /// Checks that its holder did not lose it.
    pub(super) fn must_be_kept(&self) -> CheckResult {
        self.must_be_granted()?;
        match self.ended {
            Some((_, LockEnd::Unlocked | LockEnd::Dropped)) => Ok(()),
            _ => Err(self.violation("must be kept until its holder releases it")),
        }
    }
}

/// Returns all locks of the plan, in the order of their numbers.
pub(super) fn locks<'a>(plan: &'a Plan, events: &'a [Event]) -> Vec<LockHistory<'a>> {
    let mut locks = Vec::new();
    for (number, (_, load)) in plan.load.iter().enumerate() {
        if let Load::Lock(plan) = load {
            let own_events =
                events.iter().filter(|event| event.kind.call() == u32::try_from(number).ok());
            locks.push(lock_of(number, plan, own_events));
        }
    }
    locks
}

fn lock_of<'a>(
    number: usize,
    plan: &'a LockPlan,
    own_events: impl Iterator<Item = &'a Event>,
) -> LockHistory<'a> {
    let (mut requested_ms, mut granted_ms, mut token, mut failed) = (None, None, None, None);
    let (mut lost, mut ended, mut at_store) = (None, None, Vec::new());
    for Event { at_ms, kind, .. } in own_events {
        match kind {
            EventKind::LockRequested { .. } => requested_ms = Some(*at_ms),
            EventKind::LockGranted { token: granted_token, .. } => {
                (granted_ms, token) = (Some(*at_ms), Some(*granted_token));
            }
            EventKind::LockFailed { failure, .. } => failed = Some((*at_ms, failure)),
            EventKind::LockLost { notice, .. } => lost = Some((*at_ms, *notice)),
            EventKind::LockEnded { how, .. } => ended = Some((*at_ms, *how)),
            EventKind::StoreReached { accepted, .. } => at_store.push((*at_ms, *accepted)),
            _ => {}
        }
    }
    LockHistory { number, plan, requested_ms, granted_ms, token, failed, lost, ended, at_store }
}

/// Creates a plan in which all nodes are lockers.
pub(super) fn new_locks_plan(
    name: &str,
    seed: u64,
    nodes: u8,
    duration_ms: u64,
    lease_ms: u32,
) -> (Plan, SmallRng) {
    let (mut plan, rng) = new_plan(name, seed, nodes, duration_ms);
    plan.cluster.tick_ms = 5;
    // Segments to a paused process are buffered in its sockets.
    plan.cluster.socket_segments = 1_024;
    plan.cluster.limits.backoff_max_ms = Some(2_000);
    let lockers = (0..nodes).map(Node).collect();
    plan.cluster.locks = Some(LocksPlan::new(lease_ms, lease_ms / 6, lockers));
    (plan, rng)
}

/// Returns a write lock of the first resource that is held for a second, with store operations.
pub(super) fn lock(on: Node) -> LockPlan {
    LockPlan {
        on,
        resources: vec![0],
        write: true,
        timeout_ms: 20_000,
        hold_ms: 1_000,
        pace_ms: 100,
        store_ms: 2,
        ending: PlannedLockEnd::Unlock,
        cancel_after_ms: None,
    }
}

/// Returns a write lock of the first resource that is held until lost.
pub(super) fn held_until_lost(on: Node) -> LockPlan {
    LockPlan { ending: PlannedLockEnd::HoldUntilLost, ..lock(on) }
}

/// Cuts a node off from all others for a time.
pub(super) fn cut_off(plan: &mut Plan, a: Node, (from, to): (u64, u64)) {
    for b in (0..plan.cluster.nodes).map(Node).filter(|b| *b != a) {
        plan.faults.push((from, Fault::Cut(Cut { a, b })));
        plan.faults.push((to, Fault::Repair(Repair { a, b })));
    }
}

/// Returns the time to acquire a free lock: two rounds of requests, each a round trip, and a wait
/// between two attempts if one of them failed.
pub(super) fn free_lock_limit_ms(bounds: &Bounds) -> u64 {
    3 * bounds.round_trip_ms + 1_000
}

/// Returns the time after which a lease has expired everywhere, even by the slowest clock.
pub(super) fn lease_expired_ms(bounds: &Bounds) -> u64 {
    bounds.lease_ms + bounds.drift_of(bounds.lease_ms) + bounds.round_trip_ms
}

/// Returns the time within which a waiter acquires a lock that becomes free: it is notified, or
/// retries.
pub(super) fn turn_limit_ms(bounds: &Bounds) -> u64 {
    free_lock_limit_ms(bounds) + 5_000
}
