//! A holder's machine is suspended together with its clocks, for longer than its lease.
//!
//! It cannot know: when it goes on its clock says that hardly any time has passed, and it believes in its
//! lock until a locker has said otherwise. Another holds the lock by then, and has been at the protected
//! store with a greater token. The store must refuse everything that the first one still sends, and does
//! (B54). That it learns, soon, that its lock is lost is the lockers' doing.

use rand::RngExt;

use super::lock_history::{begin_locks, kept, lease_over_ms, lock, locks, turn_ms};
use super::{Scenario, history::fault_at, sort, two};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{ClockWhilePaused, Fault, Load, LockPlan, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_suspended_holder",
    about: "a holder is suspended together with its clock: it cannot know, and the store stops it",
    plan,
    expect,
};

const NODES: u8 = 4;
const LEASE_MS: u32 = 12_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_locks("locks_suspended_holder", seed, NODES, 60_000, LEASE_MS);
    let (node, other) = two(&mut rng, NODES);
    let stopped = rng.random_range(8_000..12_000);
    let woken = stopped + rng.random_range(22_000..28_000);
    plan.faults.push((stopped, Fault::Pause { node }));
    plan.faults.push((woken, Fault::Resume { node, clock: ClockWhilePaused::Frozen }));
    // So often that it comes to the store before it has heard of anything.
    let holds = LockPlan { pace_ms: 1, ..kept(node) };
    plan.load.push((rng.random_range(3_000..6_000), Load::Lock(holds)));
    // Not so often that there is no telling whether what the first had under way has its place.
    let waits = LockPlan { timeout_ms: 40_000, hold_ms: 40_000, pace_ms: 400, ..lock(other) };
    plan.load.push((stopped + rng.random_range(100..2_000), Load::Lock(waits)));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let [holder, other] = &locks[..] else { return Err("the plan has two locks".to_owned()) };
    let stopped = fault_at(plan, |fault| matches!(fault, Fault::Pause { .. }))?;
    let woken = fault_at(plan, |fault| matches!(fault, Fault::Resume { .. }))?;
    let granted = other.must_be_granted()?;
    if granted <= stopped || granted > stopped + lease_over_ms(&bounds) + turn_ms(&bounds) {
        return Err(other.complaint("must be granted when the lease has expired"));
    }
    let late: Vec<_> = holder.at_store.iter().filter(|(at, _)| *at >= woken).collect();
    if late.is_empty() {
        return Err(holder.complaint("must reach the store after it resumed"));
    }
    if late.iter().any(|(_, accepted)| *accepted) {
        return Err(holder.complaint("must be refused by the store after it went on"));
    }
    let lost = holder.lost.map(|(at, _)| at);
    if lost.is_none_or(|lost| lost > woken + bounds.lease_ms) {
        return Err(holder.complaint("must hear from the lockers that it is lost"));
    }
    other.must_be_kept()
}
