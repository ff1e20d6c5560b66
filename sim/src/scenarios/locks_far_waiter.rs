//! One node is far away: a round trip to any other takes 600 ms, longer than a locker reserves a
//! lock for a waiter. The others are near, and request the lock faster than it becomes free.
//!
//! A waiter that misses its notification keeps its place, and each reservation is twice as long as
//! the one before ([B58]). So the far node is granted the lock as well, after a few misses.
//!
//! [B58]: crate::rules#b58

use rand::RngExt;

use super::lock_history::{lock, locks, new_locks_plan};
use super::{Scenario, sort};
use crate::event::Event;
use crate::fault::Slow;
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_far_waiter",
    about: "a waiter behind a slow network, among near ones: it is granted the lock as well",
    plan,
    expect,
};

const NODES: u8 = 5;
const FAR: Node = Node(NODES - 1);
const LEASE_MS: u32 = 12_000;
const LATENCY_MS: u32 = 300;
const HOLD_MS: u32 = 100;
/// Time between two requests of near nodes: a little less than a lock takes.
const EVERY_MS: u64 = 110;
/// Times of the requests of the far node, when others wait.
const FAR_MS: [u64; 2] = [8_000, 26_000];
/// Five reservations that double from 500 ms, with the round trip of each attempt.
const LIMIT_MS: u64 = (500 << 5) + 5 * 2 * LATENCY_MS as u64;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_far_waiter", seed, NODES, 50_000, LEASE_MS);
    for b in (0..NODES).map(Node).filter(|node| *node != FAR) {
        plan.faults.push((2_000, Fault::Slow(Slow { a: FAR, b, ms: LATENCY_MS })));
    }
    // The far node is no locker.
    if let Some(locks) = &mut plan.cluster.locks {
        locks.lockers.pop();
    }
    let mut at = 4_000;
    while at < 44_000 {
        let on = Node(rng.random_range(0..NODES - 1));
        let near = LockPlan { hold_ms: HOLD_MS, pace_ms: 0, timeout_ms: 3_000, ..lock(on) };
        plan.load.push((at, Load::Lock(near)));
        at += EVERY_MS + rng.random_range(0..20);
    }
    for at in FAR_MS {
        let far = LockPlan { hold_ms: HOLD_MS, timeout_ms: 22_000, ..lock(FAR) };
        plan.load.push((at + rng.random_range(0..500), Load::Lock(far)));
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    if !plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Slow(_))) {
        return Err("the plan lacks a slow network".to_owned());
    }
    let locks = locks(plan, events);
    let mut far = 0;
    for lock in locks.iter().filter(|lock| lock.plan.on == FAR) {
        let waited = lock.must_be_granted()? - lock.requested_ms.unwrap_or_default();
        // A round trip to ask, and one to be notified and ask again.
        if waited < 4 * u64::from(LATENCY_MS) {
            return Err(lock.violation("must wait for others"));
        }
        lock.must_be_granted_within(LIMIT_MS)?;
        far += 1;
    }
    let near = locks.iter().filter(|lock| lock.plan.on != FAR && lock.granted_ms.is_some()).count();
    if far < FAR_MS.len() || near < 100 {
        return Err(format!("{far} locks of the far node and {near} of near ones are too few"));
    }
    Ok(())
}
