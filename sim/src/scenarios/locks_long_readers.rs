//! Readers hold a lock for six seconds each, and another one comes each 400 ms: without a queue, a
//! writer would never find it free.
//!
//! A writer that is queued excludes the readers that come after it ([B58]): it is granted the lock
//! when the readers before it have ended. Then the readers continue.
//!
//! [B58]: crate::rules#b58

use rand::RngExt;

use super::lock_history::{LockHistory, free_lock_limit_ms, lock, locks, new_locks_plan};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_long_readers",
    about: "a writer among readers with long holds: it waits only for those before it",
    plan,
    expect,
};

const LEASE_MS: u32 = 20_000;
const DURATION_MS: u64 = 60_000;
const HOLD_MS: u32 = 6_000;
const EVERY_MS: u64 = 400;
/// Time of the writer's request, when readers overlap.
const WRITER_MS: u64 = 12_000;
/// Time of the last reader.
const LAST_MS: u64 = 40_000;

fn plan(seed: u64) -> Plan {
    let (nodes, timeout_ms) = (4, 45_000);
    let (mut plan, mut rng) =
        new_locks_plan("locks_long_readers", seed, nodes, DURATION_MS, LEASE_MS);
    let mut at = 2_000;
    while at < LAST_MS {
        let on = Node(rng.random_range(0..nodes));
        let reader = LockPlan { write: false, hold_ms: HOLD_MS, pace_ms: 0, ..lock(on) };
        plan.load.push((at, Load::Lock(LockPlan { timeout_ms: 30_000, ..reader })));
        at += EVERY_MS;
    }
    for (at, on) in [(WRITER_MS, 0), (WRITER_MS + rng.random_range(8_000..12_000), 1)] {
        let writer = LockPlan { hold_ms: 300, timeout_ms, ..lock(Node(on)) };
        plan.load.push((at, Load::Lock(writer)));
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let bounds = Bounds::of(plan);
    let locks = locks(plan, events);
    let (writers, readers): (Vec<_>, Vec<_>) = locks.iter().partition(|lock| lock.plan.write);
    let is_read_before = |writer: &LockHistory<'_>| {
        readers.iter().any(|reader| {
            reader.granted_ms < writer.requested_ms
                && reader.ended.is_none_or(|(at, _)| Some(at) > writer.requested_ms)
        })
    };
    for writer in &writers {
        if !is_read_before(writer) {
            return Err(writer.violation("must be requested while readers hold it"));
        }
        writer.must_be_granted_within(u64::from(HOLD_MS) + free_lock_limit_ms(&bounds))?;
        writer.must_be_kept()?;
    }
    // The last of them come after the writers, and wait for none.
    for reader in &readers {
        reader.must_be_granted()?;
    }
    match (writers.len(), readers.len()) {
        (2, 80..) => Ok(()),
        (writers, readers) => Err(format!("{writers} writers among {readers} readers")),
    }
}
