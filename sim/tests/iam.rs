//! Scenarios of users, policies and mappings: each holds, and each would fail if what it shows did
//! not happen (see `scenarios.rs`).
#![allow(clippy::expect_used, clippy::panic)]

use sim::plan::{Fault, ItemChange, Load, Plan};

use judge::{bites, holds};

mod judge;

fn leave_out(plan: &mut Plan, is_meant: impl Fn(&Fault) -> bool) {
    plan.faults.retain(|(_, fault)| !is_meant(fault));
}

fn leave_out_changes(plan: &mut Plan, is_meant: impl Fn(ItemChange) -> bool) {
    plan.load.retain(|(_, load)| !matches!(load, Load::Change(change) if is_meant(change.kind)));
}

fn is_repair(fault: &Fault) -> bool {
    matches!(fault, Fault::Repair { .. })
}

fn is_cut(fault: &Fault) -> bool {
    matches!(fault, Fault::Cut { .. })
}

#[test]
fn iam_changes_in_a_partition_holds() {
    holds("iam_changes_in_a_partition");
}

#[test]
fn iam_changes_in_a_partition_bites() {
    let name = "iam_changes_in_a_partition";
    bites(name, "must", |plan| leave_out(plan, is_cut));
    bites(name, "must be the same by", |plan| leave_out(plan, is_repair));
    bites(name, "must not show item 1", |plan| {
        leave_out_changes(plan, |kind| kind == ItemChange::Delete);
    });
    bites(name, "the sides must differ", |plan| {
        leave_out_changes(plan, |kind| kind == ItemChange::Put);
    });
}

#[test]
fn iam_deletion_missed_holds() {
    holds("iam_deletion_missed");
}

#[test]
fn iam_deletion_missed_bites() {
    bites("iam_deletion_missed", "must be taken by who missed it", |plan| plan.faults.clear());
}

#[test]
fn iam_late_joiner_holds() {
    holds("iam_late_joiner");
}

#[test]
fn iam_late_joiner_bites() {
    bites("iam_late_joiner", "must begin once, after", |plan| plan.cluster.late.clear());
    bites("iam_late_joiner", "must not show item 0", |plan| {
        leave_out_changes(plan, |kind| kind == ItemChange::Delete);
    });
    bites("iam_late_joiner", "must show item 30", |plan| {
        leave_out_changes(plan, |kind| kind == ItemChange::Put);
    });
}

#[test]
fn iam_late_pools_holds() {
    holds("iam_late_pools");
}

#[test]
fn iam_late_pools_bites() {
    bites("iam_late_pools", "must show its copy once its last pool is there", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::PoolDown { .. }));
    });
    bites("iam_late_pools", "must show its copy once its last pool is there", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::PoolUp { pool: 0, .. }));
    });
}

#[test]
fn iam_partition_in_load_holds() {
    holds("iam_partition_in_load");
}

#[test]
fn iam_partition_in_load_bites() {
    let name = "iam_partition_in_load";
    bites(name, "must show item 0 at", |plan| leave_out(plan, is_cut));
    bites(name, "must be the same by", |plan| leave_out(plan, is_repair));
    bites(name, "must wait for its last pool", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::PoolDown { .. }));
    });
    bites(name, "must not show item 0 at", |plan| plan.load.clear());
}

#[test]
fn iam_reconnect_storm_holds() {
    holds("iam_reconnect_storm");
}

#[test]
fn iam_reconnect_storm_bites() {
    let name = "iam_reconnect_storm";
    bites(name, "must reach", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::Bounce { .. }));
    });
    bites(name, "must reach", |plan| leave_out(plan, is_cut));
    bites(name, "must not show item 0 at", |plan| plan.load.clear());
}
