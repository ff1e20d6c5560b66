//! All nodes restart cleanly one after another, as in an upgrade.
//!
//! A node that shuts down accepts no new calls, lets outstanding ones finish within its grace
//! period ([B09]), closes its connections and starts again. A call made before the shutdown
//! completes, a later one fails at once with an error that names the shutdown, and none waits for
//! its deadline. Pairs without the restarted node stay connected, its own pairs reconnect soon
//! after its start.
//!
//! [B09]: crate::rules#b09

use rand::RngExt;

use super::history::{CallHistory, History};
use super::{Scenario, new_plan, small_request, sort};
use crate::bounds::Bounds;
use crate::event::{Event, Outcome};
use crate::fault::Bounce;
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, Node, Plan, RequestPlan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rolling_restart",
    about: "nodes restart cleanly one by one: calls complete or fail fast, others continue",
    plan,
    expect,
};

const NODES: u8 = 5;
/// Time by which all nodes are connected, and connections are old enough to reset the back-off.
const CONNECTED_MS: u64 = 12_000;
/// The shortest time from one restart to the next.
const RESTART_INTERVAL_MS: u64 = 4_000;
/// The longest duration of a handler, in milliseconds: shorter than any grace period.
const WORK_MS: u32 = 400;
const GRACE_MS: std::ops::Range<u32> = 700..1_500;
/// Interval of calls from one node to another.
const CALL_INTERVAL_MS: u64 = 350;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("rolling_restart", seed, NODES, 45_000);
    plan.cluster.tick_ms = 5;
    let first = rng.random_range(0..NODES);
    let step = rng.random_range(1..NODES); // 5 is prime, so each node restarts once
    let mut at = CONNECTED_MS + rng.random_range(0..1_000);
    for number in 0..NODES {
        let node = Node((first + number * step) % NODES);
        plan.faults
            .push((at, Fault::Bounce(Bounce { node, grace_ms: rng.random_range(GRACE_MS) })));
        at += RESTART_INTERVAL_MS + rng.random_range(0..1_500);
    }
    for from in (0..NODES).map(Node) {
        for to in (0..NODES).map(Node).filter(|to| *to != from) {
            let mut at = CONNECTED_MS - rng.random_range(0..CALL_INTERVAL_MS);
            while at < plan.duration_ms - plan.cluster.tick_ms {
                let work_ms = if rng.random_bool(0.5) { 0 } else { rng.random_range(1..WORK_MS) };
                let timeout_ms = Some(5_000);
                let call = RequestPlan { work_ms, timeout_ms, ..small_request(from, to) };
                plan.load.push((at, Load::Request(call)));
                at += rng.random_range(CALL_INTERVAL_MS / 2..CALL_INTERVAL_MS * 3 / 2);
            }
        }
    }
    sort(&mut plan);
    plan
}

/// A restart of a node: its start, and the latest time by which the node is connected again.
struct Restart {
    node: Node,
    from_ms: u64,
    to_ms: u64,
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let restarts = restarts(plan, &history, &bounds)?;
    for (a, b) in history.pairs().filter(|(a, b)| a < b) {
        let mut since = CONNECTED_MS;
        for restart in restarts.iter().filter(|restart| [a, b].contains(&restart.node)) {
            history.must_stay_connected(a, b, since, restart.from_ms)?;
            since = restart.to_ms;
        }
        history.must_stay_connected(a, b, since, history.healed_ms)?;
    }
    for call in &history.calls {
        let trip = bounds.round_trip_ms;
        let is_affected = |restart: &&Restart| {
            let around = restart.from_ms.saturating_sub(trip)..=restart.to_ms;
            call.concerns(restart.node) && around.contains(&call.at_ms)
        };
        match restarts.iter().find(is_affected) {
            None => call.must_complete_within(u64::from(WORK_MS) + trip)?,
            Some(_) => must_complete_or_fail_fast(call, &bounds)?,
        }
    }
    Ok(())
}

fn restarts(plan: &Plan, history: &History<'_>, bounds: &Bounds) -> Result<Vec<Restart>, String> {
    let mut restarts = Vec::new();
    for (at, fault) in &plan.faults {
        let Fault::Bounce(Bounce { node, grace_ms }) = *fault else { continue };
        let [_, again] = history.starts(node) else {
            return Err(format!("{node} must start twice: {:?}", history.starts(node)));
        };
        // Outstanding calls take less than the grace period.
        let grace = u64::from(grace_ms.min(WORK_MS));
        let limit = grace + u64::from(WORK_MS) + 2 * bounds.round_trip_ms;
        if *again > at + limit {
            return Err(format!(
                "{node} must shut down within {limit} ms of {at}, started at {again}"
            ));
        }
        // Two back-offs of its dialers: the second is longer, as is the first after a connection
        // that was too short to reset the back-off.
        let to_ms = again + 6 * bounds.first_backoff_ms() + 4 * bounds.round_trip_ms;
        restarts.push(Restart { node, from_ms: *at, to_ms });
    }
    if restarts.len() == usize::from(plan.cluster.nodes) {
        Ok(restarts)
    } else {
        Err("every node must restart".to_owned())
    }
}

/// Checks that a call completes, or fails fast with an error that names the cause.
fn must_complete_or_fail_fast(call: &CallHistory<'_>, bounds: &Bounds) -> CheckResult {
    if call.made_ms.is_none() {
        return Ok(()); // its caller did not run
    }
    let is_clear = match call.ended {
        Some((_, Outcome::Completed | Outcome::Disconnected | Outcome::NotConnected)) => true,
        Some((_, Outcome::Refused { text } | Outcome::NotMade { text })) => {
            text.contains("shutting down")
        }
        _ => false,
    };
    let limit = u64::from(GRACE_MS.end) + bounds.round_trip_ms;
    if is_clear && call.took_ms() <= Some(limit) {
        Ok(())
    } else {
        Err(call.violation("must complete or fail fast"))
    }
}
