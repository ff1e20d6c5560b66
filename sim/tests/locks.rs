//! The scenarios of fairness, lists of lockers and many leases pass, and detect violations: as in
//! `scenarios`.
#![allow(clippy::expect_used, clippy::panic)]

use sim::fault::Cut;
use sim::plan::{Fault, FlagsPlan, Load, LockPlan, Node, Plan, PlannedLockEnd};

use scenario_assertions::{assert_passes, assert_violates};

mod scenario_assertions;

fn lock_plans(plan: &mut Plan) -> impl Iterator<Item = &mut LockPlan> {
    plan.load.iter_mut().filter_map(|(_, load)| match load {
        Load::Lock(lock) => Some(lock),
        Load::Request(_) | Load::Stream(_) | Load::Force(_) | Load::Change(_) => None,
    })
}

#[test]
fn fair_passes() {
    assert_passes("fair");
}

#[test]
fn lists_passes() {
    assert_passes("lists");
}

#[test]
fn locks_far_waiter_passes() {
    assert_passes("locks_far_waiter");
}

#[test]
fn locks_lists_differ_passes() {
    assert_passes("locks_lists_differ");
}

#[test]
fn locks_long_readers_passes() {
    assert_passes("locks_long_readers");
}

#[test]
fn locks_many_leases_passes() {
    assert_passes("locks_many_leases");
}

#[test]
fn locks_mixed_passes() {
    assert_passes("locks_mixed");
}

#[test]
fn mixed_passes() {
    assert_passes("mixed");
}

#[test]
fn locks_readers_behind_writer_passes() {
    assert_passes("locks_readers_behind_writer");
}

#[test]
fn locks_rolling_list_passes() {
    assert_passes("locks_rolling_list");
}

#[test]
fn locks_far_waiter_detects_violations() {
    let is_far = |lock: &LockPlan| lock.on == Node(4);
    assert_violates("locks_far_waiter", "must be granted", |plan| {
        // As if its place were lost at each miss.
        lock_plans(plan).filter(|lock| is_far(lock)).for_each(|lock| lock.timeout_ms = 1_000);
    });
    assert_violates("locks_far_waiter", "must wait for others", |plan| {
        lock_plans(plan).filter(|lock| !is_far(lock)).for_each(|lock| lock.resources = vec![1]);
    });
}

#[test]
fn locks_lists_differ_detects_violations() {
    assert_violates("locks_lists_differ", "must not be granted under the other list", |plan| {
        plan.cluster.locks.as_mut().expect("it has locks").flags.clear();
    });
    assert_violates("locks_lists_differ", "must be granted", |plan| {
        // Two of five nodes agree on each of two lists, too few.
        let flags = &mut plan.cluster.locks.as_mut().expect("it has locks").flags;
        let third = FlagsPlan { node: Node(2), lockers: vec![Node(0)], ..flags[0].clone() };
        flags.push(third);
    });
    assert_violates("locks_lists_differ", "are too few", |plan| plan.load.truncate(8));
}

#[test]
fn locks_long_readers_detects_violations() {
    assert_violates("locks_long_readers", "must be granted", |plan| {
        // The readers before the writer hold the lock for longer.
        lock_plans(plan).filter(|lock| !lock.write).for_each(|lock| lock.hold_ms = 9_000);
    });
    assert_violates("locks_long_readers", "while readers hold it", |plan| {
        lock_plans(plan).filter(|lock| !lock.write).for_each(|lock| lock.hold_ms = 1);
    });
    assert_violates("locks_long_readers", "must be granted", |plan| {
        lock_plans(plan).filter(|lock| !lock.write).for_each(|lock| lock.timeout_ms = 3_000);
    });
}

#[test]
fn locks_many_leases_detects_violations() {
    assert_violates("locks_many_leases", "must be granted", |plan| plan.load.truncate(900));
    assert_violates("locks_many_leases", "must not be granted while others hold it", |plan| {
        lock_plans(plan).filter(|lock| !lock.write).for_each(|lock| lock.hold_ms = 100);
    });
    assert_violates("locks_many_leases", "must be granted within", |plan| {
        lock_plans(plan).for_each(|lock| lock.ending = PlannedLockEnd::HoldUntilLost);
        for b in (0..3).map(Node) {
            plan.faults.insert(0, (6_500, Fault::Cut(Cut { a: Node(3), b })));
        }
    });
}

#[test]
fn locks_mixed_detects_violations() {
    assert_violates("locks_mixed", "must be granted", |plan| {
        // One node holds the lock for longer than the others may wait.
        lock_plans(plan).take(1).for_each(|lock| lock.hold_ms = 16_000);
    });
    assert_violates("locks_mixed", "must be granted", |plan| plan.load.truncate(12));
}

#[test]
fn locks_readers_behind_writer_detects_violations() {
    assert_violates("locks_readers_behind_writer", "readers was granted after", |plan| {
        // Readers that exclude each other are granted the lock one by one.
        let many = lock_plans(plan).filter(|lock| lock.resources == [1]);
        many.for_each(|lock| (lock.write, lock.timeout_ms) = (true, 60_000));
        plan.duration_ms = 60_000;
    });
    assert_violates("locks_readers_behind_writer", "while the writer holds it", |plan| {
        for (at, load) in &mut plan.load {
            if matches!(load, Load::Lock(lock) if !lock.write && lock.resources == [1]) {
                *at = 15_000;
            }
        }
        plan.load.sort_by_key(|(at, _)| *at);
    });
}

#[test]
fn locks_rolling_list_detects_violations() {
    assert_violates("locks_rolling_list", "must be granted", |plan| {
        // The last restart is forgotten, so that the lists differ for ever.
        let flags = &mut plan.cluster.locks.as_mut().expect("it has locks").flags;
        flags.truncate(8);
    });
    assert_violates("locks_rolling_list", "are too few", |plan| plan.load.truncate(2));
}
