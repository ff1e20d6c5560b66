//! A holder's machine loses its power, and never comes back while anybody waits.
//!
//! Nobody unlocks, and the lock must not stay locked for ever: a lease after the last refresh lockers
//! forget it (B52), and those who wait have it, one after the other. None of them has it before that: the
//! lockers cannot know that the holder is dead, and not merely far away.

use rand::RngExt;

use super::lock_history::{begin_locks, kept, lease_over_ms, lock, locks, turn_ms};
use super::{Scenario, history::fault_at, sort};
use crate::bounds::Bounds;
use crate::event::{Event, LockEnd};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_dead_holder",
    about: "a holder dies, and its lock is had by all who wait when its lease is over",
    plan,
    expect,
};

const NODES: u8 = 5;
const LEASE_MS: u32 = 12_000;
/// How long each of those who waited holds it.
const HOLD_MS: u32 = 200;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_locks("locks_dead_holder", seed, NODES, 50_000, LEASE_MS);
    let holder = Node(rng.random_range(0..NODES));
    let died = rng.random_range(8_000..12_000);
    plan.faults.push((died, Fault::PowerLoss { node: holder }));
    plan.load.push((rng.random_range(3_000..6_000), Load::Lock(kept(holder))));
    for waiter in (0..NODES).map(Node).filter(|node| *node != holder) {
        let waits = LockPlan { timeout_ms: 38_000, hold_ms: HOLD_MS, ..lock(waiter) };
        plan.load.push((rng.random_range(7_000..12_000), Load::Lock(waits)));
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let [holder, waiters @ ..] = &locks[..] else { return Err("the plan has a lock".to_owned()) };
    let died = fault_at(plan, |fault| matches!(fault, Fault::PowerLoss { .. }))?;
    let has_died = matches!(holder.ended, Some((at, LockEnd::Crashed)) if at >= died);
    if holder.must_be_granted()? > died || !has_died {
        return Err(holder.complaint(&format!("must be held until its process dies at {died} ms")));
    }
    let refresh_ms = plan.cluster.locks.as_ref().map_or(0, |locks| u64::from(locks.refresh_ms));
    // A refresh may have been under way when the last one but it was confirmed.
    let earliest = (died + bounds.lease_ms).saturating_sub(2 * refresh_ms + bounds.round_trip_ms);
    let latest = died + lease_over_ms(&bounds) + turn_ms(&bounds);
    for (turn, waiter) in (1..).zip(waiters) {
        let granted = waiter.must_be_granted()?;
        if granted < earliest {
            return Err(waiter.complaint("must not be granted before the lease expires"));
        }
        if granted > latest + turn * (u64::from(HOLD_MS) + bounds.round_trip_ms) {
            return Err(waiter.complaint("must be granted when the lease has expired"));
        }
        waiter.must_be_kept()?;
    }
    Ok(())
}
