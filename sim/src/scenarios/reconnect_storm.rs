//! All nine nodes lose power within a second, and restart within a second.
//!
//! All connections of the cluster open at once: 36 of them, each dialed from one end. A node that
//! restarts before another cannot reach it yet, and its first attempt may hang until it times out;
//! the next follows soon, since back-off starts short. So all pairs are connected within one such
//! attempt, one short wait and a handshake after the restart of the last node, and at once if all
//! restart together. No node needs more than a few attempts for any other ([B04]), and once all are
//! connected, every call completes.
//!
//! [B04]: crate::rules#b04

use rand::RngExt;

use super::history::{CallHistory, History};
use super::{Scenario, add_steady_requests, new_plan, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::{PowerLoss, Restart};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "reconnect_storm",
    about: "nine nodes lose power and return together: all are connected soon, with few attempts",
    plan,
    expect,
};

const NODES: u8 = 9;
/// Maximum number of TCP connections that one node may open to another after its restart.
const DIALS_MAX: usize = 2;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("reconnect_storm", seed, NODES, 20_000);
    plan.cluster.tick_ms = 5;
    let (lost, returned) = (rng.random_range(3_000..4_000), rng.random_range(6_000..8_000));
    // All in one tick, or each at a separate time.
    let spread = if rng.random_bool(0.5) { 1 } else { 1_000 };
    for node in (0..NODES).map(Node) {
        let lost = lost + rng.random_range(0..spread);
        plan.faults.push((lost, Fault::PowerLoss(PowerLoss { node })));
        plan.faults
            .push((returned + rng.random_range(0..spread), Fault::Restart(Restart { node })));
    }
    add_steady_requests(&mut plan, &mut rng, 2_500);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let mut returns = Vec::new();
    for node in (0..NODES).map(Node) {
        match history.starts(node) {
            [_, again] => returns.push(*again),
            starts => return Err(format!("{node} must start twice: {starts:?}")),
        }
    }
    let first = returns.iter().copied().min().unwrap_or(0);
    let last = returns.iter().copied().max().unwrap_or(0);
    let due = plan.faults.last().map_or(0, |(at_ms, _)| at_ms + bounds.timer_resolution_ms);
    if last > due {
        return Err(format!("all must return by {due} ms, the last did at {last}"));
    }
    // Two short waits: an attempt that is refused because the other does not listen yet adds one.
    let soon = 2 * bounds.first_backoff_ms() + 4 * bounds.round_trip_ms;
    let limit = if first == last { soon } else { bounds.attempt_ms() + soon };
    for (a, b) in history.pairs().filter(|(a, b)| a < b) {
        history.must_connect(a, b, last, limit)?;
        history.must_stay_connected(a, b, last + limit, history.healed_ms)?;
    }
    for (node, remote) in history.pairs() {
        let dials = history.dials(node, remote).iter().filter(|dial| dial.at_ms >= first).count();
        let attempts = history.attempts(node, remote, first, history.healed_ms);
        if dials > DIALS_MAX || attempts > DIALS_MAX + 1 {
            return Err(format!(
                "{node} opened {dials} connections to {remote} in {attempts} attempts"
            ));
        }
    }
    let mut after = history.calls.iter().filter(|call| call.at_ms > last + limit);
    after.try_for_each(CallHistory::must_complete)
}
