//! A link loses all segments for a moment, with calls outstanding, and works again.
//!
//! The simulated network does not retransmit, so both directions of the TCP connection are wedged:
//! later segments wait behind a gap that is never filled, and no socket fails. A NAT or firewall
//! that dropped a connection from its table behaves like this. Pings must detect it ([B07]) in
//! bounded time although the link works. Every outstanding call then ends with the connection, none
//! earlier and none later. One new connection replaces it at once: the old one had lasted long
//! enough to reset the back-off. No other node is affected.
//!
//! [B07]: crate::rules#b07

use rand::RngExt;

use super::history::{CallHistory, History, dialer_first, fault_at};
use super::{Scenario, add_steady_requests, new_plan, small_request, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{Event, Outcome};
use crate::fault::{Cut, Repair};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "half_open_peer",
    about: "a TCP connection is wedged without an error: pings detect it, a new one replaces it",
    plan,
    expect,
};

const NODES: u8 = 3;
/// Time by which all nodes are connected.
const CONNECTED_MS: u64 = 2_000;
/// Time before and after the cut in which calls are frequent, in milliseconds.
const BUSY_MS: u64 = 300;
/// Interval of these calls in each direction: less than the shortest cut lasts.
const BUSY_INTERVAL_MS: usize = 15;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("half_open_peer", seed, NODES, 35_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.latency_min_ms = 15;
    plan.cluster.latency_max_ms = rng.random_range(20..40);
    // Longer than the detection of the dead connection: calls end with it, and not before.
    plan.cluster.limits.deadline_default_ms = Some(20_000);
    let (a, b) = two_nodes(&mut rng, NODES);
    let cut = rng.random_range(13_000..16_000);
    plan.faults.push((cut, Fault::Cut(Cut { a, b })));
    plan.faults.push((cut + rng.random_range(50..200), Fault::Repair(Repair { a, b })));
    for (from, to) in [(a, b), (b, a)] {
        for at in (cut - BUSY_MS..cut + BUSY_MS).step_by(BUSY_INTERVAL_MS) {
            plan.load.push((at, Load::Request(small_request(from, to))));
        }
    }
    add_steady_requests(&mut plan, &mut rng, 500);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let cut = fault_at(plan, |fault| matches!(fault, Fault::Cut(_)))?;
    fault_at(plan, |fault| matches!(fault, Fault::Repair(_)))?;
    let ends = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Cut(Cut { a, b }) => Some(dialer_first(*a, *b)),
        _ => None,
    });
    let (dialer, acceptor) = ends.ok_or("the plan lacks a cut")?;
    let mut causes = Vec::new();
    for (node, remote) in [(dialer, acceptor), (acceptor, dialer)] {
        let lost = history.lost_after(node, remote, cut);
        let Some(lost) = lost.filter(|lost| lost.at_ms <= cut + bounds.dead_peer_ms) else {
            return Err(format!("{node} must detect the dead connection to {remote}: {lost:?}"));
        };
        causes.push(lost.cause.unwrap_or_default());
        calls_must_end_at(&history, (node, remote), cut, lost.at_ms, &bounds)?;
    }
    if !causes.iter().any(|cause| cause.contains("pings in a row")) {
        return Err(format!("pings must detect the dead connection: {causes:?}"));
    }
    must_be_replaced(&history, (dialer, acceptor), cut, &bounds)?;
    history.others_must_be_unaffected(CONNECTED_MS, |from, to| {
        [(dialer, acceptor), (acceptor, dialer)].contains(&(from, to))
    })
}

/// Checks that calls from `node` to `remote` since the cut end when `node` detects the dead
/// connection.
fn calls_must_end_at(
    history: &History<'_>,
    (node, remote): (Node, Node),
    cut: u64,
    lost_ms: u64,
    bounds: &Bounds,
) -> CheckResult {
    let is_from_node = |call: &&CallHistory<'_>| (call.from(), call.to()) == (node, remote);
    let mut count = 0;
    for call in history.calls.iter().filter(is_from_node) {
        let Some(made) = call.made_ms.filter(|made| (cut..lost_ms).contains(made)) else {
            continue;
        };
        count += 1;
        match call.ended {
            Some((ended, Outcome::Disconnected))
                if ended.abs_diff(lost_ms) <= bounds.timer_resolution_ms => {}
            _ => {
                return Err(call.violation(&format!(
                    "must end with its connection at {lost_ms} ms, made at {made} ms"
                )));
            }
        }
    }
    let at_least = usize::try_from(BUSY_MS).unwrap_or(0) / BUSY_INTERVAL_MS;
    if count < at_least {
        return Err(format!("{node} made {count} calls on the dead connection"));
    }
    Ok(())
}

/// Checks that one new connection replaces the old one soon after the dialer has detected that it
/// is dead.
fn must_be_replaced(
    history: &History<'_>,
    (dialer, acceptor): (Node, Node),
    cut: u64,
    bounds: &Bounds,
) -> CheckResult {
    let lost = history.lost_after(dialer, acceptor, cut).map_or(cut, |lost| lost.at_ms);
    let limit = bounds.first_backoff_ms() + 4 * bounds.round_trip_ms;
    history.must_connect(dialer, acceptor, lost + limit, 0)?;
    let sockets: Vec<_> = history.dials(dialer, acceptor).iter().map(|dial| dial.socket).collect();
    let late = history.dials(dialer, acceptor).iter().filter(|dial| dial.at_ms > cut).count();
    if late != 1 || sockets.len() != 2 {
        return Err(format!("the connection must be replaced by exactly one other: {sockets:?}"));
    }
    let mut after = history.calls.iter().filter(|call| call.at_ms > lost + limit);
    after.try_for_each(CallHistory::must_complete)
}
