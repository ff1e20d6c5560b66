//! One node's wall clock is more than five minutes off; another's is off, but not by as much.
//!
//! No handshake with the first succeeds (P11): whoever dials, it or the others, is told that the time
//! differs too much, and tries again less and less often. An operator finds the reason in the state
//! of each of its connections. Meanwhile the other cluster works, the node with the small error
//! included. When the clock is set right, everybody is connected after the next attempt.
//!
//! The clock is wrong from the beginning or, drawn, from before the node's restart: a connection that
//! exists is not ended by a clock that is set. A dialler that is more than twenty minutes behind sends
//! a token that has expired, and is told that and to compare the clocks.

use rand::RngExt;

use super::history::{Call, History, dialler_first};
use super::{Scenario, begin, sort, steady, two};
use crate::bounds::Bounds;
use crate::event::{Event, LinkState, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock_skew",
    about: "a node whose clock is off is refused with the reason, until its clock is right",
    plan,
    expect,
};

const NODES: u8 = 4;
/// When everybody else has long been connected.
const BEGUN_MS: u64 = 2_000;
/// A clock that is further off than this matters, in milliseconds.
const WRONG_MS: i64 = 300_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("clock_skew", seed, NODES, 40_000);
    plan.cluster.tick_ms = 5;
    let (wrong, imprecise) = two(&mut rng, NODES);
    let sign = if rng.random_bool(0.5) { 1 } else { -1 };
    // Wrong for the imprecise one as well, whose error is in the other direction or smaller.
    let skew = sign * rng.random_range(450_000..3_600_000);
    plan.faults.push((0, Fault::Skew { node: imprecise, ms: rng.random_range(-145_000..145_000) }));
    if rng.random_bool(0.5) {
        plan.faults.push((0, Fault::Skew { node: wrong, ms: skew }));
    } else {
        let at = rng.random_range(3_000..5_000);
        plan.faults.push((at, Fault::Skew { node: wrong, ms: skew }));
        plan.faults.push((at + 500, Fault::PowerLoss { node: wrong }));
        plan.faults.push((at + 1_000, Fault::Restart { node: wrong }));
    }
    let right = rng.random_range(18_000..28_000);
    plan.faults.push((right, Fault::Skew { node: wrong, ms: 0 }));
    steady(&mut plan, &mut rng, 400);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let is_wrong = |fault: &Fault| match *fault {
        Fault::Skew { node, ms } if ms.abs() > WRONG_MS => Some(node),
        _ => None,
    };
    let wrong = plan.faults.iter().find_map(|(_, fault)| is_wrong(fault));
    let wrong = wrong.ok_or("the plan lacks a wrong clock")?;
    let mut right = plan.faults.iter().filter_map(|(at, fault)| match fault {
        Fault::Skew { node, ms: 0 } if *node == wrong => Some(*at),
        _ => None,
    });
    let right = right.next().ok_or("the plan lacks a clock that is set right")?;
    let began = history.starts(wrong).last().copied().unwrap_or(0);
    history.others_must_be_untouched(BEGUN_MS, |a, b| a == wrong || b == wrong)?;
    for other in (0..NODES).map(Node).filter(|other| *other != wrong) {
        must_be_refused(&history, dialler_first(wrong, other), (began, right), &bounds)?;
        let limit = bounds.backoff_ms() + 4 * bounds.round_trip_ms;
        history.must_connect(wrong, other, right, limit)?;
        let between = |call: &&Call<'_>| call.is_between(wrong, other);
        for call in history.calls.iter().filter(between) {
            if call.made_ms.is_some_and(|made| began <= made && made < right) {
                let is_refused =
                    matches!(call.ended, Some((_, Outcome::NotConnected | Outcome::Disconnected)));
                // A connection from before a restart ends when the new process is heard of.
                if !is_refused && (call.from() == wrong || call.at_ms > began + BEGUN_MS) {
                    return Err(call.complaint("must be refused"));
                }
            } else if call.at_ms > right + limit {
                call.must_be_answered()?;
            }
        }
    }
    Ok(())
}

/// Over and over, with the reason, and with longer and longer waits between the attempts.
fn must_be_refused(
    history: &History<'_>,
    (dialler, acceptor): (Node, Node),
    (began, right): (u64, u64),
    bounds: &Bounds,
) -> CheckResult {
    let mut refused = 0;
    for change in history.changes(dialler, acceptor) {
        if change.at_ms < began || change.at_ms >= right {
            continue;
        }
        let cause = change.cause.unwrap_or_default();
        if change.state == LinkState::Connected {
            return Err(format!("{dialler} must not be connected to {acceptor}: {change:?}"));
        }
        if change.state == LinkState::Backoff && cause.contains("expired") {
            // So far behind that its token is old: the signature is looked at first.
            refused += 1;
            if !cause.contains("compare the clocks") {
                return Err(format!("{dialler} must be told to look at its clock: {cause}"));
            }
        } else if change.state == LinkState::Backoff && cause.contains("time difference too large")
        {
            refused += 1;
            let names = cause.contains("the clocks of") && cause.starts_with("rejected");
            if !names || !cause.contains("5m") && !cause.contains("300s") {
                return Err(format!("{dialler} must be told what is allowed: {cause}"));
            }
        }
    }
    if refused < 2 {
        return Err(format!("{dialler} must be refused by {acceptor} for its clock: {refused}"));
    }
    history.must_not_spin((dialler, acceptor), (began, right), &bounds.limits)
}
