//! A holder's process is paused for longer than its lease, and its clocks run.
//!
//! No message reaches it or leaves it. Its lease expires at the lockers, and another node is
//! granted the lock during the pause ([B52]). When it resumes, it reads its clock first: it must
//! notice at that instant that its lock is lost, before it does anything under it. The messages of
//! the lockers arrive later.
//!
//! [B52]: crate::rules#b52

use rand::RngExt;

use super::lock_history::{
    held_until_lost, lease_expired_ms, lock, locks, new_locks_plan, turn_limit_ms,
};
use super::{Scenario, history::fault_at, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{Event, LossNotice};
use crate::fault::{Pause, Resume};
use crate::invariants::CheckResult;
use crate::plan::{ClockWhilePaused, Fault, Load, LockPlan, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_stopped_holder",
    about: "a holder is paused for longer than its lease, and notices at once when it resumes",
    plan,
    expect,
};

const NODES: u8 = 4;
const LEASE_MS: u32 = 60_000;
/// Duration of the pause: longer than the lease, and than any other node waits for the lock.
const PAUSED_MS: u64 = 90_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_locks_plan("locks_stopped_holder", seed, NODES, 125_000, LEASE_MS);
    let (node, other) = two_nodes(&mut rng, NODES);
    let paused = rng.random_range(15_000..30_000);
    plan.faults.push((paused, Fault::Pause(Pause { node })));
    plan.faults
        .push((paused + PAUSED_MS, Fault::Resume(Resume { node, clock: ClockWhilePaused::Ran })));
    plan.load.push((rng.random_range(3_000..6_000), Load::Lock(held_until_lost(node))));
    let waiter = LockPlan { timeout_ms: 88_000, ..lock(other) };
    plan.load.push((paused + rng.random_range(500..2_000), Load::Lock(waiter)));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let [holder, waiter] = &locks[..] else { return Err("the plan has two locks".to_owned()) };
    let paused = fault_at(plan, |fault| matches!(fault, Fault::Pause(_)))?;
    let resumed = fault_at(plan, |fault| matches!(fault, Fault::Resume(_)))?;
    if holder.must_be_granted()? >= paused {
        return Err(holder.violation("must be held when its process is paused"));
    }
    let (lost, notice) = holder.must_be_lost()?;
    if notice != LossNotice::Checked
        || !(resumed..=resumed + bounds.timer_resolution_ms).contains(&lost)
    {
        return Err(holder.violation(&format!("must be noticed as lost at {resumed} ms")));
    }
    // A message sent before the pause may arrive; no later one may.
    let travel_ms = u64::from(holder.plan.store_ms) + bounds.timer_resolution_ms;
    if holder.at_store.iter().any(|(at, _)| *at > paused + travel_ms) {
        return Err(holder.violation("must do nothing once it is paused"));
    }
    let granted = waiter.must_be_granted()?;
    if granted <= paused || granted > paused + lease_expired_ms(&bounds) + turn_limit_ms(&bounds) {
        return Err(waiter.violation("must be granted when the lease has expired"));
    }
    Ok(())
}
