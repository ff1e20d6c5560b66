//! The scenarios of resource metrics: each holds, and each would fail if what it shows did not
//! happen.
#![allow(clippy::expect_used, clippy::panic)]

use sim::plan::{Fault, MetricsPlan, Plan};

use judge::{bites, holds};

mod judge;

fn metrics(plan: &mut Plan) -> &mut MetricsPlan {
    plan.cluster.metrics.as_mut().expect("a plan with metrics")
}

fn leave_out(plan: &mut Plan, is_meant: impl Fn(&Fault) -> bool) {
    plan.faults.retain(|(_, fault)| !is_meant(fault));
}

fn is_repair(fault: &Fault) -> bool {
    matches!(fault, Fault::Repair { .. })
}

#[test]
fn metrics_partition_holds() {
    holds("metrics_partition");
}

#[test]
fn metrics_restart_holds() {
    holds("metrics_restart");
}

#[test]
fn metrics_scrapes_holds() {
    holds("metrics_scrapes");
}

#[test]
fn metrics_slow_node_holds() {
    holds("metrics_slow_node");
}

#[test]
fn metrics_partition_bites() {
    bites("metrics_partition", "is down", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::Cut { .. }));
    });
    bites("metrics_partition", "is up", |plan| leave_out(plan, is_repair));
    bites("metrics_partition", "must know that there is no connection", |plan| {
        // What is held is not lost: nobody can tell before the dead connection is found.
        plan.cluster.limits.ping_interval_ms = Some(8_000);
    });
    bites("metrics_partition", "nobody asked", |plan| metrics(plan).scrapes.clear());
}

#[test]
fn metrics_restart_bites() {
    bites("metrics_restart", "began anew", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::PowerLoss { .. }));
    });
    bites("metrics_restart", "before and after its restart", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::Restart { .. }));
    });
    bites("metrics_restart", "the first samples", |plan| metrics(plan).interval_ms = 600_000);
    bites("metrics_restart", "was down", |plan| {
        let (lost, back) = (plan.faults[0].0, plan.faults[1].0);
        metrics(plan).scrapes.retain(|(at, _)| !(lost - 2_000..back + 100).contains(at));
    });
}

#[test]
fn metrics_scrapes_bites() {
    bites("metrics_scrapes", "for one crowd", |plan| metrics(plan).ttl_ms = 0);
    bites("metrics_scrapes", "asked the others 0 times", |plan| metrics(plan).ttl_ms = 20_000);
    bites("metrics_scrapes", "was wanted all the time", |plan| {
        let crowded = metrics(plan).scrapes[0].1;
        metrics(plan).scrapes.retain(|(_, on)| *on == crowded);
    });
    bites("metrics_scrapes", "nobody scraped", |plan| metrics(plan).scrapes.clear());
}

#[test]
fn metrics_slow_node_bites() {
    bites("metrics_slow_node", "must not wait for", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::Slow { .. }));
    });
    bites("metrics_slow_node", "is up", |plan| leave_out(plan, is_repair));
    bites("metrics_slow_node", "must not wait for", |plan| metrics(plan).deadline_ms = 3_000);
    bites("metrics_slow_node", "nobody asked", |plan| metrics(plan).scrapes.clear());
}
