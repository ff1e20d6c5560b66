//! One locker is slow: each message to it or from it takes a second.
//!
//! As long as the others form a quorum, no node is affected ([B55]): a lock is granted in the time
//! that the fast lockers take, repeatedly on the same resource, and unlocked likewise. Late grants
//! of the slow locker are released ([B50]). Then it becomes as fast as any, and two others crash:
//! now it is needed for a quorum, and none of its late grants may block a request.
//!
//! [B50]: crate::rules#b50
//! [B55]: crate::rules#b55

use rand::RngExt;

use super::lock_history::{free_lock_limit_ms, lock, locks, new_locks_plan};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::{PowerLoss, Repair, Slow};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_slow_locker",
    about: "one locker is slow: no request with a quorum of other lockers is delayed",
    plan,
    expect,
};

const NODES: u8 = 5;
const LEASE_MS: u32 = 12_000;
const SLOW: Node = Node(NODES - 1);
/// Lockers that lose power once the slow one is as fast as the others. They request no locks.
const CRASHING: [Node; 2] = [Node(2), Node(3)];
/// Period in which it is slow, after all nodes are connected.
const SLOW_MS: (u64, u64) = (4_000, 20_000);
/// Time of the power losses, when messages in flight to and from the slow locker have arrived.
const CRASH_MS: u64 = SLOW_MS.1 + 2_500;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_slow_locker", seed, NODES, 30_000, LEASE_MS);
    for a in (0..NODES).map(Node).filter(|a| *a != SLOW) {
        plan.faults.push((SLOW_MS.0, Fault::Slow(Slow { a, b: SLOW, ms: 1_000 })));
        plan.faults.push((SLOW_MS.1, Fault::Repair(Repair { a, b: SLOW })));
    }
    plan.faults.extend(CRASHING.map(|node| (CRASH_MS, Fault::PowerLoss(PowerLoss { node }))));
    let mut at = SLOW_MS.0 + 1_000;
    while at < 28_000 {
        let on = Node(rng.random_range(0..NODES - 1 - CRASHING.len() as u8));
        let request = LockPlan { hold_ms: 50, pace_ms: 10, timeout_ms: 5_000, ..lock(on) };
        plan.load.push((at, Load::Lock(request)));
        // Each has ended before the next request.
        at += rng.random_range(400..900);
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    if !plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Slow(_))) {
        return Err("the plan lacks a slow locker".to_owned());
    }
    let fast_ms = 3 * bounds.round_trip_ms;
    let (mut granted, mut slow) = (0, 0);
    for lock in &locks {
        lock.must_be_granted_within(free_lock_limit_ms(&bounds))?;
        lock.must_be_kept()?;
        granted += 1;
        if lock.granted_ms > lock.requested_ms.map(|requested| requested + fast_ms) {
            slow += 1;
        }
    }
    // A request may have to retry occasionally.
    if granted < 20 || slow * 10 > granted {
        return Err(format!("{slow} of {granted} locks took longer than {fast_ms} ms"));
    }
    Ok(())
}
