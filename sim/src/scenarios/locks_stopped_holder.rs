//! A holder's process is stopped for longer than its lease, and its clocks run on.
//!
//! Nobody can tell it anything, and it can tell nobody. Its lease ends at the lockers, and another is
//! granted the lock while it is stopped (B52). When it goes on, the first thing it does is to look at its
//! clock: it must know in that moment that its lock is lost, before it does anything under it, and
//! whatever the lockers have to say arrives later.

use rand::RngExt;

use super::lock_history::{begin_locks, kept, lease_over_ms, lock, locks, turn_ms};
use super::{Scenario, history::fault_at, sort, two};
use crate::bounds::Bounds;
use crate::event::{Event, LossNotice};
use crate::invariants::CheckResult;
use crate::plan::{ClockWhilePaused, Fault, Load, LockPlan, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_stopped_holder",
    about: "a holder is stopped for longer than its lease, and knows at once when it goes on",
    plan,
    expect,
};

const NODES: u8 = 4;
const LEASE_MS: u32 = 60_000;
/// How long it is stopped: longer than the lease, and than anybody waits for it afterwards.
const STOPPED_MS: u64 = 90_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_locks("locks_stopped_holder", seed, NODES, 125_000, LEASE_MS);
    let (node, other) = two(&mut rng, NODES);
    let stopped = rng.random_range(15_000..30_000);
    plan.faults.push((stopped, Fault::Pause { node }));
    plan.faults.push((stopped + STOPPED_MS, Fault::Resume { node, clock: ClockWhilePaused::Ran }));
    plan.load.push((rng.random_range(3_000..6_000), Load::Lock(kept(node))));
    let waits = LockPlan { timeout_ms: 88_000, ..lock(other) };
    plan.load.push((stopped + rng.random_range(500..2_000), Load::Lock(waits)));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let [holder, waiter] = &locks[..] else { return Err("the plan has two locks".to_owned()) };
    let stopped = fault_at(plan, |fault| matches!(fault, Fault::Pause { .. }))?;
    let woken = fault_at(plan, |fault| matches!(fault, Fault::Resume { .. }))?;
    if holder.must_be_granted()? >= stopped {
        return Err(holder.complaint("must be held when its process is stopped"));
    }
    let (lost, notice) = holder.must_be_lost()?;
    if notice != LossNotice::Checked || !(woken..=woken + bounds.ticks_ms).contains(&lost) {
        return Err(holder.complaint(&format!("must be noticed as lost at {woken} ms")));
    }
    // What it had sent when it was stopped may arrive, and nothing after that.
    let travels = u64::from(holder.plan.store_ms) + bounds.ticks_ms;
    if holder.at_store.iter().any(|(at, _)| *at > stopped + travels) {
        return Err(holder.complaint("must do nothing once it is stopped"));
    }
    let granted = waiter.must_be_granted()?;
    if granted <= stopped || granted > stopped + lease_over_ms(&bounds) + turn_ms(&bounds) {
        return Err(waiter.complaint("must be granted when the lease has expired"));
    }
    Ok(())
}
