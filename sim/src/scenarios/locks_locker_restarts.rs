//! Lockers lose power and restart with empty tables: one, a minority, a majority, or all at once.
//!
//! Meanwhile a lock is held on a node that is no locker. Restarted lockers must not grant it to
//! another: they grant nothing until holders have reported the current leases to them ([B53]). So
//! the holder keeps its lock, a competing request times out, and a free lock can be acquired soon
//! after the lockers are back: long before a lease expires.
//!
//! [B53]: crate::rules#b53

use rand::RngExt;

use super::lock_history::{
    free_lock_limit_ms, held_until_lost, lock, locks, new_locks_plan, turn_limit_ms,
};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::{Event, LockFailure};
use crate::fault::{PowerLoss, Restart};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_locker_restarts",
    about: "lockers restart with empty tables, some or all: held locks stay held",
    plan,
    expect,
};

const LOCKERS: u8 = 5;
/// Nodes that are no lockers: the holder, and the node with competing requests.
const HOLDER: Node = Node(LOCKERS);
const OTHER: Node = Node(LOCKERS + 1);
const LEASE_MS: u32 = 30_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_locks_plan("locks_locker_restarts", seed, LOCKERS + 2, 50_000, LEASE_MS);
    if let Some(locks) = &mut plan.cluster.locks {
        locks.lockers.truncate(usize::from(LOCKERS));
    }
    let lost = [1, 2, 3, LOCKERS][usize::try_from(seed % 4).unwrap_or(0)];
    let first = rng.random_range(0..LOCKERS);
    for index in 0..lost {
        let node = Node((first + index) % LOCKERS);
        let at = rng.random_range(10_000..10_200);
        plan.faults.push((at, Fault::PowerLoss(PowerLoss { node })));
        plan.faults.push((at + rng.random_range(300..2_000), Fault::Restart(Restart { node })));
    }
    plan.load.push((rng.random_range(3_000..6_000), Load::Lock(held_until_lost(HOLDER))));
    // It times out before all faults are healed, when the holder releases the lock.
    let competing = LockPlan { timeout_ms: 30_000, ..lock(OTHER) };
    plan.load.push((rng.random_range(7_000..15_000), Load::Lock(competing)));
    let free = LockPlan { resources: vec![1], timeout_ms: 25_000, ..lock(OTHER) };
    plan.load.push((12_300, Load::Lock(free)));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let restarts = plan.faults.iter().filter(|(_, fault)| matches!(fault, Fault::Restart(_)));
    if restarts.count() == 0 {
        return Err("the plan lacks a restart".to_owned());
    }
    for lock in &locks {
        match (lock.plan.on, &lock.plan.resources[..]) {
            (HOLDER, _) => lock.must_be_kept()?,
            (_, [0]) => {
                if !matches!(lock.failed, Some((_, LockFailure::TimedOut))) {
                    return Err(lock.violation("must not be granted while another holds it"));
                }
            }
            // Dead connections are detected and replaced, and the lockers query all nodes.
            _ => lock.must_be_granted_within(
                bounds.reconnect_ms.min(bounds.lease_ms / 2)
                    + free_lock_limit_ms(&bounds)
                    + turn_limit_ms(&bounds),
            )?,
        }
    }
    Ok(())
}
