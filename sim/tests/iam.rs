//! Scenarios of users, policies and mappings: each passes, and each detects a missing fault or
//! change (see `scenarios.rs`).
#![allow(clippy::expect_used, clippy::panic)]

use sim::fault::PoolUp;
use sim::plan::{Fault, ItemChange, Load, Plan};

use scenario_assertions::{assert_passes, assert_violates};

mod scenario_assertions;

fn remove_faults(plan: &mut Plan, is_selected: impl Fn(&Fault) -> bool) {
    plan.faults.retain(|(_, fault)| !is_selected(fault));
}

fn remove_changes(plan: &mut Plan, is_selected: impl Fn(ItemChange) -> bool) {
    plan.load
        .retain(|(_, load)| !matches!(load, Load::Change(change) if is_selected(change.change)));
}

fn is_repair(fault: &Fault) -> bool {
    matches!(fault, Fault::Repair(_))
}

fn is_cut(fault: &Fault) -> bool {
    matches!(fault, Fault::Cut(_))
}

#[test]
fn iam_changes_in_a_partition_passes() {
    assert_passes("iam_changes_in_a_partition");
}

#[test]
fn iam_changes_in_a_partition_detects_violations() {
    let name = "iam_changes_in_a_partition";
    assert_violates(name, "must", |plan| remove_faults(plan, is_cut));
    assert_violates(name, "replicas must converge by", |plan| remove_faults(plan, is_repair));
    assert_violates(name, "must not show item 1", |plan| {
        remove_changes(plan, |change| change == ItemChange::Delete);
    });
    assert_violates(name, "the sides must differ", |plan| {
        remove_changes(plan, |change| change == ItemChange::Put);
    });
}

#[test]
fn iam_deletion_missed_passes() {
    assert_passes("iam_deletion_missed");
}

#[test]
fn iam_deletion_missed_detects_violations() {
    assert_violates("iam_deletion_missed", "must be applied by the node that missed it", |plan| {
        plan.faults.clear();
    });
}

#[test]
fn iam_late_joiner_passes() {
    assert_passes("iam_late_joiner");
}

#[test]
fn iam_late_joiner_detects_violations() {
    assert_violates("iam_late_joiner", "must start once, after", |plan| plan.cluster.late.clear());
    assert_violates("iam_late_joiner", "must not show item 0", |plan| {
        remove_changes(plan, |change| change == ItemChange::Delete);
    });
    assert_violates("iam_late_joiner", "must show item 30", |plan| {
        remove_changes(plan, |change| change == ItemChange::Put);
    });
}

#[test]
fn iam_late_pools_passes() {
    assert_passes("iam_late_pools");
}

#[test]
fn iam_late_pools_detects_violations() {
    assert_violates(
        "iam_late_pools",
        "must show its replica once its last pool is online",
        |plan| {
            remove_faults(plan, |fault| matches!(fault, Fault::PoolDown(_)));
        },
    );
    assert_violates(
        "iam_late_pools",
        "must show its replica once its last pool is online",
        |plan| {
            remove_faults(plan, |fault| matches!(fault, Fault::PoolUp(PoolUp { pool: 0, .. })));
        },
    );
}

#[test]
fn iam_partition_in_load_passes() {
    assert_passes("iam_partition_in_load");
}

#[test]
fn iam_partition_in_load_detects_violations() {
    let name = "iam_partition_in_load";
    assert_violates(name, "must show item 0 at", |plan| remove_faults(plan, is_cut));
    assert_violates(name, "replicas must converge by", |plan| remove_faults(plan, is_repair));
    assert_violates(name, "must wait for its last pool", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::PoolDown(_)));
    });
    assert_violates(name, "must not show item 0 at", |plan| plan.load.clear());
}

#[test]
fn iam_reconnect_storm_passes() {
    assert_passes("iam_reconnect_storm");
}

#[test]
fn iam_reconnect_storm_detects_violations() {
    let name = "iam_reconnect_storm";
    assert_violates(name, "must reach", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::Bounce(_)));
    });
    assert_violates(name, "must reach", |plan| remove_faults(plan, is_cut));
    assert_violates(name, "must not show item 0 at", |plan| plan.load.clear());
}
