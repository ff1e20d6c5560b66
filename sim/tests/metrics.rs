//! Scenarios of resource metrics: each passes, and each detects a missing fault or scrape.
#![allow(clippy::expect_used, clippy::panic)]

use sim::plan::{Fault, MetricsPlan, Plan};

use scenario_assertions::{assert_passes, assert_violates};

mod scenario_assertions;

fn metrics(plan: &mut Plan) -> &mut MetricsPlan {
    plan.cluster.metrics.as_mut().expect("a plan with metrics")
}

fn remove_faults(plan: &mut Plan, is_selected: impl Fn(&Fault) -> bool) {
    plan.faults.retain(|(_, fault)| !is_selected(fault));
}

fn is_repair(fault: &Fault) -> bool {
    matches!(fault, Fault::Repair(_))
}

#[test]
fn metrics_partition_passes() {
    assert_passes("metrics_partition");
}

#[test]
fn metrics_restart_passes() {
    assert_passes("metrics_restart");
}

#[test]
fn metrics_scrapes_passes() {
    assert_passes("metrics_scrapes");
}

#[test]
fn metrics_slow_node_passes() {
    assert_passes("metrics_slow_node");
}

#[test]
fn metrics_partition_detects_violations() {
    assert_violates("metrics_partition", "is down", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::Cut(_)));
    });
    assert_violates("metrics_partition", "is up", |plan| remove_faults(plan, is_repair));
    assert_violates("metrics_partition", "must report that there is no connection", |plan| {
        // The held link is indistinguishable from a slow one until the dead connection is detected.
        plan.cluster.limits.ping_interval_ms = Some(8_000);
    });
    assert_violates("metrics_partition", "no scrape was made", |plan| {
        metrics(plan).scrapes.clear();
    });
}

#[test]
fn metrics_restart_detects_violations() {
    assert_violates("metrics_restart", "restarted", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::PowerLoss(_)));
    });
    assert_violates("metrics_restart", "before and after its restart", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::Restart(_)));
    });
    assert_violates("metrics_restart", "the first samples", |plan| {
        metrics(plan).interval_ms = 600_000;
    });
    assert_violates("metrics_restart", "was down", |plan| {
        let (lost, back) = (plan.faults[0].0, plan.faults[1].0);
        metrics(plan).scrapes.retain(|(at, _)| !(lost - 2_000..back + 100).contains(at));
    });
}

#[test]
fn metrics_scrapes_detects_violations() {
    assert_violates("metrics_scrapes", "for one burst", |plan| metrics(plan).ttl_ms = 0);
    assert_violates("metrics_scrapes", "sent 0 requests for one burst", |plan| {
        metrics(plan).ttl_ms = 20_000;
    });
    assert_violates("metrics_scrapes", "was scraped all the time", |plan| {
        let crowded = metrics(plan).scrapes[0].1;
        metrics(plan).scrapes.retain(|(_, on)| *on == crowded);
    });
    assert_violates("metrics_scrapes", "no scrape was made", |plan| metrics(plan).scrapes.clear());
}

#[test]
fn metrics_slow_node_detects_violations() {
    assert_violates("metrics_slow_node", "must not wait for", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::Slow(_)));
    });
    assert_violates("metrics_slow_node", "is up", |plan| remove_faults(plan, is_repair));
    assert_violates("metrics_slow_node", "must not wait for", |plan| {
        metrics(plan).deadline_ms = 3_000;
    });
    assert_violates("metrics_slow_node", "no scrape was made", |plan| {
        metrics(plan).scrapes.clear();
    });
}
