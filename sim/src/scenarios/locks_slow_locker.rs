//! One locker is slow: everything takes a second on its way to it and from it.
//!
//! As long as the others make a quorum, nobody notices (B55): a lock is granted in the time that the
//! fast ones take, again and again on the same resource, and unlocked likewise. What the slow one grants
//! late is released (B50). Then it is as fast as any, and two others die: now it is needed for a quorum,
//! and nothing that it granted late may stand in the way.

use rand::RngExt;

use super::lock_history::{begin_locks, free_ms, lock, locks};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_slow_locker",
    about: "one locker is slow, and nobody who has a quorum without it notices",
    plan,
    expect,
};

const NODES: u8 = 5;
const LEASE_MS: u32 = 12_000;
const SLOW: Node = Node(NODES - 1);
/// They lose their power when the slow one is as fast as the others, and nobody on them asks for locks.
const DYING: [Node; 2] = [Node(2), Node(3)];
/// When it is slow: everybody has long been connected.
const SLOW_MS: (u64, u64) = (4_000, 20_000);
/// When others die: what was under way to the slow one and back has arrived.
const DEATH_MS: u64 = SLOW_MS.1 + 2_500;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_locks("locks_slow_locker", seed, NODES, 30_000, LEASE_MS);
    for a in (0..NODES).map(Node).filter(|a| *a != SLOW) {
        plan.faults.push((SLOW_MS.0, Fault::Slow { a, b: SLOW, ms: 1_000 }));
        plan.faults.push((SLOW_MS.1, Fault::Repair { a, b: SLOW }));
    }
    plan.faults.extend(DYING.map(|node| (DEATH_MS, Fault::PowerLoss { node })));
    let mut at = SLOW_MS.0 + 1_000;
    while at < 28_000 {
        let on = Node(rng.random_range(0..NODES - 1 - DYING.len() as u8));
        let one = LockPlan { hold_ms: 50, pace_ms: 10, timeout_ms: 5_000, ..lock(on) };
        plan.load.push((at, Load::Lock(one)));
        // Each has ended before the next is asked for.
        at += rng.random_range(400..900);
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    if !plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Slow { .. })) {
        return Err("the plan lacks a slow locker".to_owned());
    }
    let quick = 3 * bounds.round_trip_ms;
    let (mut waited, mut slow) = (0, 0);
    for lock in &locks {
        lock.must_be_granted_within(free_ms(&bounds))?;
        lock.must_be_kept()?;
        waited += 1;
        if lock.granted_ms > lock.asked_ms.map(|asked| asked + quick) {
            slow += 1;
        }
    }
    // One now and then may have to come again.
    if waited < 20 || slow * 10 > waited {
        return Err(format!("{slow} of {waited} locks took longer than {quick} ms"));
    }
    Ok(())
}
