//! One node's wall clock is more than five minutes off; another's is off by less.
//!
//! No handshake with the first node succeeds ([P11]). Each dialer gets the reason, a time
//! difference that is too large, and retries with growing back-off. An operator finds the reason in
//! the state of each connection. The rest of the cluster works, including the node with the small
//! error. Once the clock is right, all nodes connect at their next attempt.
//!
//! The clock is wrong from the start or, drawn, from before the node's restart: a change of the
//! clock does not end an existing connection. A dialer that is more than twenty minutes behind
//! sends an expired token; its error says so and advises to compare the clocks.
//!
//! [P11]: grid::protocol#p11

use rand::RngExt;

use super::history::{CallHistory, History, dialer_first};
use super::{Scenario, add_steady_requests, new_plan, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{ConnectionState, Event, Outcome};
use crate::fault::{PowerLoss, Restart, Skew};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock_skew",
    about: "a node with a wrong clock is rejected with the reason, until its clock is right",
    plan,
    expect,
};

const NODES: u8 = 4;
/// Time by which all other nodes are connected.
const CONNECTED_MS: u64 = 2_000;
/// The largest clock error that handshakes tolerate, in milliseconds.
const SKEW_MAX_MS: i64 = 300_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("clock_skew", seed, NODES, 40_000);
    plan.cluster.tick_ms = 5;
    let (skewed, imprecise) = two_nodes(&mut rng, NODES);
    let sign = if rng.random_bool(0.5) { 1 } else { -1 };
    // Also wrong relative to the imprecise node, whose error is in the other direction or smaller.
    let skew = sign * rng.random_range(450_000..3_600_000);
    plan.faults
        .push((0, Fault::Skew(Skew { node: imprecise, ms: rng.random_range(-145_000..145_000) })));
    if rng.random_bool(0.5) {
        plan.faults.push((0, Fault::Skew(Skew { node: skewed, ms: skew })));
    } else {
        let at = rng.random_range(3_000..5_000);
        plan.faults.push((at, Fault::Skew(Skew { node: skewed, ms: skew })));
        plan.faults.push((at + 500, Fault::PowerLoss(PowerLoss { node: skewed })));
        plan.faults.push((at + 1_000, Fault::Restart(Restart { node: skewed })));
    }
    let corrected = rng.random_range(18_000..28_000);
    plan.faults.push((corrected, Fault::Skew(Skew { node: skewed, ms: 0 })));
    add_steady_requests(&mut plan, &mut rng, 400);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let is_skewed = |fault: &Fault| match *fault {
        Fault::Skew(Skew { node, ms }) if ms.abs() > SKEW_MAX_MS => Some(node),
        _ => None,
    };
    let skewed = plan.faults.iter().find_map(|(_, fault)| is_skewed(fault));
    let skewed = skewed.ok_or("the plan lacks a wrong clock")?;
    let mut corrected = plan.faults.iter().filter_map(|(at, fault)| match fault {
        Fault::Skew(Skew { node, ms: 0 }) if *node == skewed => Some(*at),
        _ => None,
    });
    let corrected = corrected.next().ok_or("the plan does not correct the clock")?;
    let started = history.starts(skewed).last().copied().unwrap_or(0);
    history.others_must_be_unaffected(CONNECTED_MS, |a, b| a == skewed || b == skewed)?;
    for other in (0..NODES).map(Node).filter(|other| *other != skewed) {
        must_be_rejected(&history, dialer_first(skewed, other), (started, corrected), &bounds)?;
        let limit = bounds.backoff_ms() + 4 * bounds.round_trip_ms;
        history.must_connect(skewed, other, corrected, limit)?;
        let between = |call: &&CallHistory<'_>| call.is_between(skewed, other);
        for call in history.calls.iter().filter(between) {
            if call.made_ms.is_some_and(|made| started <= made && made < corrected) {
                let is_refused =
                    matches!(call.ended, Some((_, Outcome::NotConnected | Outcome::Disconnected)));
                // A connection from before a restart ends when the new process connects.
                if !is_refused && (call.from() == skewed || call.at_ms > started + CONNECTED_MS) {
                    return Err(call.violation("must be refused"));
                }
            } else if call.at_ms > corrected + limit {
                call.must_complete()?;
            }
        }
    }
    Ok(())
}

/// Checks that the dialer is rejected repeatedly, with the reason, and backs off.
fn must_be_rejected(
    history: &History<'_>,
    (dialer, acceptor): (Node, Node),
    (started, corrected): (u64, u64),
    bounds: &Bounds,
) -> CheckResult {
    let mut rejections = 0;
    for change in history.changes(dialer, acceptor) {
        if change.at_ms < started || change.at_ms >= corrected {
            continue;
        }
        let cause = change.cause.unwrap_or_default();
        if change.state == ConnectionState::Connected {
            return Err(format!("{dialer} must not be connected to {acceptor}: {change:?}"));
        }
        if change.state == ConnectionState::Backoff && cause.contains("expired") {
            // So far behind that its token has expired: the token is checked first.
            rejections += 1;
            if !cause.contains("compare the clocks") {
                return Err(format!("{dialer} must get the advice to compare the clocks: {cause}"));
            }
        } else if change.state == ConnectionState::Backoff
            && cause.contains("time difference too large")
        {
            rejections += 1;
            let names = cause.contains("the clocks of") && cause.starts_with("rejected");
            if !names || !cause.contains("5m") && !cause.contains("300s") {
                return Err(format!("{dialer} must get the allowed difference: {cause}"));
            }
        }
    }
    if rejections < 2 {
        return Err(format!(
            "{dialer} must be rejected by {acceptor} for its clock: {rejections} times"
        ));
    }
    history.must_back_off((dialer, acceptor), (started, corrected), &bounds.limits)
}
