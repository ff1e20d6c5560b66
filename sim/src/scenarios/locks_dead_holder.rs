//! A holder's node loses power, and does not restart while other nodes wait.
//!
//! The lock is never unlocked, and must not stay locked for ever. A lease after the last refresh,
//! the lockers expire the grant ([B52]), and the waiters are granted the lock in turn. None of them
//! is granted it earlier: the lockers cannot distinguish a crashed holder from a partitioned one.
//!
//! [B52]: crate::rules#b52

use rand::RngExt;

use super::lock_history::{
    held_until_lost, lease_expired_ms, lock, locks, new_locks_plan, turn_limit_ms,
};
use super::{Scenario, history::fault_at, sort};
use crate::bounds::Bounds;
use crate::event::{Event, LockEnd};
use crate::fault::PowerLoss;
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_dead_holder",
    about: "a holder crashes: all waiters are granted its lock once its lease has expired",
    plan,
    expect,
};

const NODES: u8 = 5;
const LEASE_MS: u32 = 12_000;
/// How long each waiter holds it.
const HOLD_MS: u32 = 200;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_dead_holder", seed, NODES, 50_000, LEASE_MS);
    let holder = Node(rng.random_range(0..NODES));
    let crashed = rng.random_range(8_000..12_000);
    plan.faults.push((crashed, Fault::PowerLoss(PowerLoss { node: holder })));
    plan.load.push((rng.random_range(3_000..6_000), Load::Lock(held_until_lost(holder))));
    for waiter in (0..NODES).map(Node).filter(|node| *node != holder) {
        let waiter = LockPlan { timeout_ms: 38_000, hold_ms: HOLD_MS, ..lock(waiter) };
        plan.load.push((rng.random_range(7_000..12_000), Load::Lock(waiter)));
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let [holder, waiters @ ..] = &locks[..] else { return Err("the plan has a lock".to_owned()) };
    let crashed = fault_at(plan, |fault| matches!(fault, Fault::PowerLoss(_)))?;
    let has_died = matches!(holder.ended, Some((at, LockEnd::Crashed)) if at >= crashed);
    if holder.must_be_granted()? > crashed || !has_died {
        return Err(
            holder.violation(&format!("must be held until its process dies at {crashed} ms"))
        );
    }
    let refresh_ms = plan.cluster.locks.as_ref().map_or(0, |locks| u64::from(locks.refresh_ms));
    // The last refresh may have been in flight, with only the one before it confirmed.
    let earliest =
        (crashed + bounds.lease_ms).saturating_sub(2 * refresh_ms + bounds.round_trip_ms);
    let latest = crashed + lease_expired_ms(&bounds) + turn_limit_ms(&bounds);
    for (turn, waiter) in (1..).zip(waiters) {
        let granted = waiter.must_be_granted()?;
        if granted < earliest {
            return Err(waiter.violation("must not be granted before the lease expires"));
        }
        if granted > latest + turn * (u64::from(HOLD_MS) + bounds.round_trip_ms) {
            return Err(waiter.violation("must be granted when the lease has expired"));
        }
        waiter.must_be_kept()?;
    }
    Ok(())
}
