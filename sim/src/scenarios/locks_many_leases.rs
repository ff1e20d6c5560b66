//! A node holds over a thousand locks when a majority of the lockers lose power.
//!
//! Its report to a restarted locker has more than one page. The locker grants nothing before it has
//! read all of them ([B53]): the lock of the last page excludes writers as before, and every lock
//! is kept.
//!
//! [B53]: crate::rules#b53

use rand::RngExt;

use super::lock_history::{lock, locks, new_locks_plan, turn_limit_ms};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::{PowerLoss, Restart};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_many_leases",
    about: "lockers restart while a node holds over 1000 locks: each page of its report counts",
    plan,
    expect,
};

const NODES: u8 = 4;
const HOLDER: Node = Node(NODES - 1);
const LEASE_MS: u32 = 24_000;
/// Leases in a page, and locks of another resource after them.
const FIRST_PAGE: usize = dsync::limits::HELD_LEASES_PER_RESPONSE;
const LAST_PAGE: usize = 40;
/// When all of them are held, the power loss, and when they are released.
const HELD_MS: u64 = 6_000;
const CRASH_MS: u64 = 7_000;
const RELEASED_MS: u64 = 15_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_many_leases", seed, NODES, 20_000, LEASE_MS);
    if let Some(locks) = &mut plan.cluster.locks {
        // The holder is no locker. Its refreshes are rare, so that its reports come first.
        locks.lockers.pop();
        locks.refresh_ms = LEASE_MS / 4;
    }
    let until = |at: u64| u32::try_from(RELEASED_MS - at).unwrap_or(0);
    for place in 0..FIRST_PAGE + LAST_PAGE {
        // Pages are in the order of the requests.
        let at = 2_000 + 3 * place as u64;
        let resource = u8::from(place >= FIRST_PAGE);
        let reader = LockPlan { write: false, hold_ms: until(at), pace_ms: 0, ..lock(HOLDER) };
        plan.load.push((at, Load::Lock(LockPlan { resources: vec![resource], ..reader })));
    }
    for node in [0, 1].map(Node) {
        plan.faults.push((CRASH_MS, Fault::PowerLoss(PowerLoss { node })));
        let back = CRASH_MS + rng.random_range(50..300);
        plan.faults.push((back, Fault::Restart(Restart { node })));
    }
    let mut at = CRASH_MS + 100;
    while at < CRASH_MS + 3_000 {
        let writer = LockPlan { resources: vec![1], timeout_ms: 200, pace_ms: 0, ..lock(Node(2)) };
        plan.load.push((at, Load::Lock(writer)));
        at += 100;
    }
    let last = LockPlan { resources: vec![1], ..lock(Node(2)) };
    plan.load.push((RELEASED_MS - 1_000, Load::Lock(last)));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let bounds = Bounds::of(plan);
    let is_crash = |fault: &Fault| matches!(fault, Fault::PowerLoss(_));
    if plan.faults.iter().filter(|(_, fault)| is_crash(fault)).count() < 2 {
        return Err("the plan lacks a power loss".to_owned());
    }
    let (mut held, mut granted) = (0, 0);
    for lock in locks(plan, events) {
        if lock.plan.on == HOLDER {
            if lock.must_be_granted()? > HELD_MS {
                return Err(lock.violation("must be granted before the power loss"));
            }
            lock.must_be_kept()?;
            held += 1;
        } else if lock.requested_ms.is_some_and(|requested| requested < RELEASED_MS - 1_000) {
            if lock.granted_ms.is_some() {
                return Err(lock.violation("must not be granted while others hold it"));
            }
        } else {
            lock.must_be_granted_within(1_000 + turn_limit_ms(&bounds))?;
            granted += 1;
        }
    }
    if held <= FIRST_PAGE || granted == 0 {
        return Err(format!("{held} held locks fit into one page"));
    }
    Ok(())
}
