//! A holder's host is suspended together with its clocks, for longer than its lease.
//!
//! It cannot notice: when it resumes, its clock shows that hardly any time has passed, and
//! `is_held()` stays true until a locker reports the loss. By then another node holds the lock, and
//! has used the protected store with a greater token. The store must refuse every later operation
//! of the first holder ([B54]). The lockers report the loss soon.
//!
//! [B54]: crate::rules#b54

use rand::RngExt;

use super::lock_history::{
    held_until_lost, lease_expired_ms, lock, locks, new_locks_plan, turn_limit_ms,
};
use super::{Scenario, history::fault_at, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::{Pause, Resume};
use crate::invariants::CheckResult;
use crate::plan::{ClockWhilePaused, Fault, Load, LockPlan, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_suspended_holder",
    about: "a holder is suspended with its clock: it cannot notice, and the store refuses it",
    plan,
    expect,
};

const NODES: u8 = 4;
const LEASE_MS: u32 = 12_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_locks_plan("locks_suspended_holder", seed, NODES, 60_000, LEASE_MS);
    let (node, other) = two_nodes(&mut rng, NODES);
    let paused = rng.random_range(8_000..12_000);
    let resumed = paused + rng.random_range(22_000..28_000);
    plan.faults.push((paused, Fault::Pause(Pause { node })));
    plan.faults.push((resumed, Fault::Resume(Resume { node, clock: ClockWhilePaused::Frozen })));
    // So short that it reaches the store before it is notified.
    let holder = LockPlan { pace_ms: 1, ..held_until_lost(node) };
    plan.load.push((rng.random_range(3_000..6_000), Load::Lock(holder)));
    // So long that the order of the first holder's operations in flight stays decidable.
    let waiter = LockPlan { timeout_ms: 40_000, hold_ms: 40_000, pace_ms: 400, ..lock(other) };
    plan.load.push((paused + rng.random_range(100..2_000), Load::Lock(waiter)));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let [holder, other] = &locks[..] else { return Err("the plan has two locks".to_owned()) };
    let paused = fault_at(plan, |fault| matches!(fault, Fault::Pause(_)))?;
    let resumed = fault_at(plan, |fault| matches!(fault, Fault::Resume(_)))?;
    let granted = other.must_be_granted()?;
    if granted <= paused || granted > paused + lease_expired_ms(&bounds) + turn_limit_ms(&bounds) {
        return Err(other.violation("must be granted when the lease has expired"));
    }
    let late: Vec<_> = holder.at_store.iter().filter(|(at, _)| *at >= resumed).collect();
    if late.is_empty() {
        return Err(holder.violation("must reach the store after it resumed"));
    }
    if late.iter().any(|(_, accepted)| *accepted) {
        return Err(holder.violation("must be refused by the store after it resumed"));
    }
    let lost = holder.lost.map(|(at, _)| at);
    if lost.is_none_or(|lost| lost > resumed + bounds.lease_ms) {
        return Err(holder.violation("must be notified of the loss by the lockers"));
    }
    other.must_be_kept()
}
