//! A holder is cut off from all others. Its clock is as slow as a clock may be, those of the
//! lockers as fast.
//!
//! It receives no responses, and silence is not success. It must notice the loss when its lease may
//! end, by its own clock alone, and no later than the first locker may grant the lock to another by
//! its own clock ([B52]). A waiter is granted the lock soon after. In some runs the cut has one
//! direction only: the holder receives and cannot send, or the reverse.
//!
//! [B52]: crate::rules#b52

use rand::RngExt;

use super::lock_history::{
    cut_off, held_until_lost, lease_expired_ms, lock, locks, new_locks_plan, turn_limit_ms,
};
use super::{Scenario, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::{CutOneWay, Drift, Repair};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_cut_off_holder",
    about: "a holder with a slow clock is cut off: it notices before others are granted its lock",
    plan,
    expect,
};

const NODES: u8 = 5;
const LEASE_MS: u32 = 12_000;
const DRIFT_PPM: i32 = 10_000;
const CUT_MS: (u64, u64) = (8_000, 11_000);

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_cut_off_holder", seed, NODES, 45_000, LEASE_MS);
    let (node, other) = two_nodes(&mut rng, NODES);
    for locker in (0..NODES).map(Node) {
        let ppm = if locker == node { -DRIFT_PPM } else { DRIFT_PPM };
        plan.faults.push((0, Fault::Drift(Drift { node: locker, ppm })));
    }
    let (cut, repaired) = (rng.random_range(CUT_MS.0..CUT_MS.1), rng.random_range(38_000..42_000));
    match rng.random_range(0..3) {
        0 => cut_off(&mut plan, node, (cut, repaired)),
        direction => {
            for b in (0..NODES).map(Node).filter(|b| *b != node) {
                let (from, to) = if direction == 1 { (node, b) } else { (b, node) };
                plan.faults.push((cut, Fault::CutOneWay(CutOneWay { from, to })));
                plan.faults.push((repaired, Fault::Repair(Repair { a: node, b })));
            }
        }
    }
    plan.load.push((rng.random_range(3_000..6_000), Load::Lock(held_until_lost(node))));
    let waiter = LockPlan { timeout_ms: 30_000, ..lock(other) };
    plan.load.push((rng.random_range(7_000..CUT_MS.0), Load::Lock(waiter)));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let [holder, waiter] = &locks[..] else { return Err("the plan has two locks".to_owned()) };
    let is_cut = |fault: &Fault| matches!(fault, Fault::Cut(_) | Fault::CutOneWay(_));
    let cut = plan.faults.iter().find(|(_, fault)| is_cut(fault)).map(|(at, _)| *at);
    let cut = cut.ok_or("the plan lacks a cut")?;
    let (lost, _) = holder.must_be_lost()?;
    let granted = waiter.must_be_granted()?;
    if lost <= cut || lost > cut + bounds.lease_ms {
        return Err(holder.violation(&format!("must be lost after the cut at {cut} ms, in time")));
    }
    if granted <= lost {
        return Err(holder.violation("must notice before another holder is granted its lock"));
    }
    if granted > cut + lease_expired_ms(&bounds) + turn_limit_ms(&bounds) {
        return Err(waiter.violation("must be granted when the lease has expired"));
    }
    Ok(())
}
