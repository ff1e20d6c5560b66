//! A link loses everything for a moment, with calls under way, and is whole again.
//!
//! What was lost nobody sends again in this network, so both directions of the TCP connection are
//! wedged: all that follows waits behind a gap that is never filled, and no socket fails. That is
//! what a middlebox does that forgot a connection. The pings must find it (B07), in bounded time
//! although the link is whole; then every call under way ends with the connection, none before and
//! none later, and one new connection replaces it at once: it had held long enough for its back-off
//! to be at its beginning. Nobody else notices.

use rand::RngExt;

use super::history::{Call, History, dialler_first, fault_at};
use super::{Scenario, begin, small, sort, steady, two};
use crate::bounds::Bounds;
use crate::event::{Event, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "half_open_peer",
    about: "a TCP connection is wedged without an error: pings find it, and a new one replaces it",
    plan,
    expect,
};

const NODES: u8 = 3;
/// When everybody has long been connected.
const BEGUN_MS: u64 = 2_000;
/// From this many milliseconds before the cut to as many after it calls come thick and fast.
const BUSY_MS: u64 = 300;
/// So often then, in either direction: more often than the shortest cut lasts.
const BUSY_EVERY_MS: usize = 15;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("half_open_peer", seed, NODES, 35_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.latency_min_ms = 15;
    plan.cluster.latency_max_ms = rng.random_range(20..40);
    // Longer than it takes to find the dead connection: calls end with it, and not before.
    plan.cluster.limits.deadline_default_ms = Some(20_000);
    let (a, b) = two(&mut rng, NODES);
    let cut = rng.random_range(13_000..16_000);
    plan.faults.push((cut, Fault::Cut { a, b }));
    plan.faults.push((cut + rng.random_range(50..200), Fault::Repair { a, b }));
    for (from, to) in [(a, b), (b, a)] {
        for at in (cut - BUSY_MS..cut + BUSY_MS).step_by(BUSY_EVERY_MS) {
            plan.load.push((at, Load::Request(small(from, to))));
        }
    }
    steady(&mut plan, &mut rng, 500);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let cut = fault_at(plan, |fault| matches!(fault, Fault::Cut { .. }))?;
    fault_at(plan, |fault| matches!(fault, Fault::Repair { .. }))?;
    let ends = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Cut { a, b } => Some(dialler_first(*a, *b)),
        _ => None,
    });
    let (dialler, acceptor) = ends.ok_or("the plan lacks a cut")?;
    let mut causes = Vec::new();
    for (node, remote) in [(dialler, acceptor), (acceptor, dialler)] {
        let lost = history.lost_after(node, remote, cut);
        let Some(lost) = lost.filter(|lost| lost.at_ms <= cut + bounds.dead_peer_ms) else {
            return Err(format!("{node} must find the dead connection to {remote}: {lost:?}"));
        };
        causes.push(lost.cause.unwrap_or_default());
        calls_must_end_at(&history, (node, remote), cut, lost.at_ms, &bounds)?;
    }
    if !causes.iter().any(|cause| cause.contains("pings in a row")) {
        return Err(format!("it must be found by pings: {causes:?}"));
    }
    must_be_replaced(&history, (dialler, acceptor), cut, &bounds)?;
    history.others_must_be_untouched(BEGUN_MS, |from, to| {
        [(dialler, acceptor), (acceptor, dialler)].contains(&(from, to))
    })
}

/// What `node` asked of `remote` since the cut ends when it finds the connection dead.
fn calls_must_end_at(
    history: &History<'_>,
    (node, remote): (Node, Node),
    cut: u64,
    lost_ms: u64,
    bounds: &Bounds,
) -> CheckResult {
    let asked = |call: &&Call<'_>| (call.from(), call.to()) == (node, remote);
    let mut count = 0;
    for call in history.calls.iter().filter(asked) {
        let Some(made) = call.made_ms.filter(|made| (cut..lost_ms).contains(made)) else {
            continue;
        };
        count += 1;
        match call.ended {
            Some((ended, Outcome::Disconnected)) if ended.abs_diff(lost_ms) <= bounds.ticks_ms => {}
            _ => {
                return Err(call.complaint(&format!(
                    "must end with its connection at {lost_ms} ms, made at {made} ms"
                )));
            }
        }
    }
    let at_least = usize::try_from(BUSY_MS).unwrap_or(0) / BUSY_EVERY_MS;
    if count < at_least {
        return Err(format!("{node} made {count} calls on the dead connection"));
    }
    Ok(())
}

/// By one new connection, soon after whoever dials has found the old one dead.
fn must_be_replaced(
    history: &History<'_>,
    (dialler, acceptor): (Node, Node),
    cut: u64,
    bounds: &Bounds,
) -> CheckResult {
    let lost = history.lost_after(dialler, acceptor, cut).map_or(cut, |lost| lost.at_ms);
    let limit = bounds.first_backoff_ms() + 4 * bounds.round_trip_ms;
    history.must_connect(dialler, acceptor, lost + limit, 0)?;
    let sockets: Vec<_> = history.dials(dialler, acceptor).iter().map(|dial| dial.socket).collect();
    let late = history.dials(dialler, acceptor).iter().filter(|dial| dial.at_ms > cut).count();
    if late != 1 || sockets.len() != 2 {
        return Err(format!("one connection must be replaced by one other: {sockets:?}"));
    }
    let mut after = history.calls.iter().filter(|call| call.at_ms > lost + limit);
    after.try_for_each(Call::must_be_answered)
}
