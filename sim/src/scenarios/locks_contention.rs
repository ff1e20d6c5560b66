//! All nodes request one lock repeatedly, as writers and readers, while the network is partitioned
//! and repaired: first into two sides, then in one direction.
//!
//! The side with a majority of the lockers continues: all its requests are granted in time. On the
//! other side, no request is granted during the partition. Its nodes are granted locks again after
//! the repair.

use rand::RngExt;

use super::lock_history::{lease_expired_ms, lock, locks, new_locks_plan, turn_limit_ms};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::{Cut, CutOneWay, Repair};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_contention",
    about: "all nodes request one lock while the network is partitioned: the larger side continues",
    plan,
    expect,
};

const NODES: u8 = 5;
/// Number of nodes of the smaller side: those with lower numbers.
const SMALLER_SIDE: u8 = 2;
const LEASE_MS: u32 = 6_000;
const CUT_MS: u64 = 10_000;
const REPAIRED_MS: u64 = 25_000;
/// Period in which all are connected again, and the next cut is not near.
const HEALTHY_MS: (u64, u64) = (32_000, 38_000);

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_contention", seed, NODES, 60_000, LEASE_MS);
    for a in (0..SMALLER_SIDE).map(Node) {
        for b in (SMALLER_SIDE..NODES).map(Node) {
            plan.faults.push((CUT_MS, Fault::Cut(Cut { a, b })));
            plan.faults.push((REPAIRED_MS, Fault::Repair(Repair { a, b })));
            let (from, to) = if rng.random_bool(0.5) { (a, b) } else { (b, a) };
            plan.faults.push((40_000, Fault::CutOneWay(CutOneWay { from, to })));
            plan.faults.push((50_000, Fault::Repair(Repair { a, b })));
        }
    }
    for on in (0..NODES).map(Node) {
        let mut at = rng.random_range(2_000..3_000);
        while at < 58_000 {
            let hold_ms = rng.random_range(5..60);
            let request =
                LockPlan { hold_ms, pace_ms: 10, write: rng.random_bool(0.5), ..lock(on) };
            plan.load.push((at, Load::Lock(request)));
            at += rng.random_range(500..1_500);
        }
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    // By then, the locks that the other side held at the cut are free.
    let free = CUT_MS + lease_expired_ms(&bounds);
    if !plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Cut(_))) {
        return Err("the plan lacks a cut".to_owned());
    }
    let (mut together, mut apart) = (0, 0);
    for lock in &locks {
        let Some(requested) = lock.requested_ms else { continue };
        let is_apart = lock.plan.on.0 < SMALLER_SIDE;
        let granted = lock.granted_ms;
        if is_apart && granted.is_some_and(|at| (free..REPAIRED_MS).contains(&at)) {
            return Err(lock.violation("must not be granted on the smaller side"));
        }
        let is_healthy =
            requested < CUT_MS - 1_000 || (HEALTHY_MS.0..HEALTHY_MS.1).contains(&requested);
        let is_on_larger_side = !is_apart && (free..REPAIRED_MS - 2_000).contains(&requested);
        if is_healthy || is_on_larger_side {
            lock.must_be_granted_within(turn_limit_ms(&bounds))?;
            together += u32::from(is_healthy);
            apart += u32::from(is_on_larger_side);
        }
    }
    if together < 30 || apart < 10 {
        return Err(format!(
            "{together} locks without partition and {apart} of the larger side are too few"
        ));
    }
    Ok(())
}
