//! MinIO servers among ours: they are lockers, holders or both, and all nodes request one lock.
//!
//! A MinIO holder keeps one id over all its attempts, and a MinIO locker executes requests in any
//! order ([B59]). No node is refused for ever, and no grant is left behind: every request is granted
//! in time.
//!
//! [B59]: crate::rules#b59

use rand::RngExt;

use super::lock_history::{lock, locks, new_locks_plan};
use super::{Scenario, sort};
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_mixed",
    about: "MinIO servers among ours, as lockers and as holders: every request is granted in time",
    plan,
    expect,
};

const NODES: u8 = 4;
const LEASE_MS: u32 = 12_000;
/// Longest wait: less than an orphaned grant lasts at a MinIO locker.
const LIMIT_MS: u64 = LEASE_MS as u64;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_mixed", seed, NODES, 58_000, LEASE_MS);
    if let Some(locks) = &mut plan.cluster.locks {
        locks.lockers = (0..3).map(Node).collect();
        // Two of our lockers and one of theirs, or the other way round; one more holder.
        let minio: &[u8] = if seed.is_multiple_of(2) { &[2, 3] } else { &[1, 2] };
        locks.minio = minio.iter().copied().map(Node).collect();
    }
    // No MinIO server reports leases: our lockers grant nothing for the first lease.
    let mut at = 3 * u64::from(LEASE_MS) / 2 + 2_000;
    while at < 42_000 {
        let on = Node(rng.random_range(0..NODES));
        let write = rng.random_bool(0.8);
        let contended = LockPlan { hold_ms: rng.random_range(20..200), pace_ms: 0, ..lock(on) };
        plan.load.push((at, Load::Lock(LockPlan { write, timeout_ms: 15_000, ..contended })));
        at += rng.random_range(100..900);
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let minio = plan.cluster.locks.as_ref().map_or(&[][..], |locks| &locks.minio);
    let (mut ours, mut theirs) = (0, 0);
    for lock in locks(plan, events) {
        lock.must_be_granted_within(LIMIT_MS)?;
        lock.must_be_kept()?;
        *(if minio.contains(&lock.plan.on) { &mut theirs } else { &mut ours }) += 1;
    }
    if ours < 10 || theirs < 10 {
        return Err(format!("{ours} locks of ours and {theirs} of MinIO are too few"));
    }
    Ok(())
}
