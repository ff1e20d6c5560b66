//! An operator forces a lock open ([B56]) that is held until lost and that another node waits for.
//!
//! A reachable holder is notified at once, and the waiter is granted the lock as soon as the holder
//! has released it. A holder that is cut off cannot be notified: its lease expires, no locker
//! extends it, and until then no other node is granted the lock. At no instant do two holders see
//! `is_held()`.
//!
//! [B56]: crate::rules#b56

use rand::RngExt;

use super::lock_history::{
    cut_off, free_lock_limit_ms, held_until_lost, lease_expired_ms, lock, locks, new_locks_plan,
    turn_limit_ms,
};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::{Event, EventKind};
use crate::invariants::CheckResult;
use crate::plan::{Fault, ForcePlan, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_force_unlock",
    about: "an operator forces a lock open: its holder is notified, or its lease expires",
    plan,
    expect,
};

const NODES: u8 = 4;
const LEASE_MS: u32 = 12_000;
const HOLDER: Node = Node(0);
const WAITER: Node = Node(1);
const OPERATOR: Node = Node(2);

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_force_unlock", seed, NODES, 40_000, LEASE_MS);
    plan.load.push((rng.random_range(3_000..5_000), Load::Lock(held_until_lost(HOLDER))));
    let waiter = LockPlan { timeout_ms: 30_000, ..lock(WAITER) };
    plan.load.push((rng.random_range(6_000..7_000), Load::Lock(waiter)));
    let forced = rng.random_range(9_000..12_000);
    plan.load.push((forced, Load::Force(ForcePlan { on: OPERATOR, resource: 0 })));
    if seed % 2 == 1 {
        cut_off(&mut plan, HOLDER, (forced - 1_000, 38_000));
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let [holder, waiter] = &locks[..] else { return Err("the plan has two locks".to_owned()) };
    let forced = plan.load.iter().find(|(_, load)| matches!(load, Load::Force(_)));
    let forced = forced.map(|(at, _)| *at).ok_or("the plan forces nothing open")?;
    let was_granted =
        |event: &Event| matches!(event.kind, EventKind::LockForced { lockers, .. } if lockers > 0);
    if !events.iter().any(was_granted) {
        return Err("no locker had a grant to force open".to_owned());
    }
    let (lost, _) = holder.must_be_lost()?;
    let granted = waiter.must_be_granted()?;
    let is_cut_off = plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Cut(_)));
    let limit =
        forced + if is_cut_off { lease_expired_ms(&bounds) } else { free_lock_limit_ms(&bounds) };
    if lost < forced.saturating_sub(1_000) || lost > limit {
        return Err(holder.violation(&format!("must be lost between {forced} and {limit} ms")));
    }
    if granted < lost || granted > limit + turn_limit_ms(&bounds) {
        return Err(waiter.violation("must be granted once its holder has released it"));
    }
    Ok(())
}
