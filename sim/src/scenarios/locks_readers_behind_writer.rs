//! Readers wait behind one writer: 64 of one resource, then up to a thousand of another.
//!
//! They are notified in waves, each of which follows the grants of the one before ([B58]): the last
//! of a thousand is granted its lock within three times the time that 64 of them take.
//!
//! [B58]: crate::rules#b58

use rand::RngExt;

use super::lock_history::{LockHistory, lock, locks, new_locks_plan};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_readers_behind_writer",
    about: "many readers wait behind one writer: all are granted soon after it ends",
    plan,
    expect,
};

const NODES: u8 = 4;
const LEASE_MS: u32 = 12_000;
const FEW: usize = 64;
const MANY: std::ops::RangeInclusive<usize> = 200..=1_000;
/// When the writer of each group requests its lock, and how long it holds it.
const WRITERS_MS: [u64; 2] = [2_000, 8_000];
const HOLD_MS: u32 = 4_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_locks_plan("locks_readers_behind_writer", seed, NODES, 24_000, LEASE_MS);
    let many = rng.random_range(MANY);
    for (resource, (at, count)) in (0..).zip(WRITERS_MS.into_iter().zip([FEW, many])) {
        let quiet = |on| LockPlan { resources: vec![resource], pace_ms: 0, ..lock(Node(on)) };
        plan.load.push((at, Load::Lock(LockPlan { hold_ms: HOLD_MS, ..quiet(0) })));
        for _ in 0..count {
            let on = rng.random_range(0..NODES);
            let reader = LockPlan { write: false, hold_ms: 0, ..quiet(on) };
            plan.load.push((at + rng.random_range(300..2_000), Load::Lock(reader)));
        }
    }
    sort(&mut plan);
    plan
}

/// Returns the number of readers of a resource, and the time from the end of its writer to the last
/// of their grants.
fn last_grant(locks: &[LockHistory<'_>], resource: u8) -> Result<(usize, u64), String> {
    let of_resource = || locks.iter().filter(|lock| lock.plan.resources == [resource]);
    let writer = of_resource().find(|lock| lock.plan.write).ok_or("the plan lacks a writer")?;
    let freed = writer.ended.map(|(at, _)| at).ok_or_else(|| writer.violation("must end"))?;
    let (mut count, mut last) = (0, freed);
    for reader in of_resource().filter(|lock| !lock.plan.write) {
        if reader.requested_ms.is_none_or(|requested| requested > freed) {
            return Err(reader.violation("must be requested while the writer holds it"));
        }
        last = last.max(reader.must_be_granted()?);
        count += 1;
    }
    Ok((count, last - freed))
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (locks, bounds) = (locks(plan, events), Bounds::of(plan));
    let ((few, few_ms), (many, many_ms)) = (last_grant(&locks, 0)?, last_grant(&locks, 1)?);
    if few != FEW || !MANY.contains(&many) {
        return Err(format!("{few} and {many} readers are not what the plan says"));
    }
    // Times are those of ticks.
    let limit_ms = 3 * (few_ms + bounds.timer_resolution_ms);
    if many_ms > limit_ms {
        return Err(format!(
            "the last of {many} readers was granted after {many_ms} ms, the last of {few} after \
             {few_ms} ms"
        ));
    }
    Ok(())
}
