//! One link is cut and repaired every few seconds, for the whole run.
//!
//! As with a loose cable. Each cut wedges the connection; pings detect it, attempts fail or
//! succeed, and a new connection is soon lost again, perhaps before any call. Back-off limits the
//! attempts of both ends: a short-lived connection does not reset it ([B04]). Calls between the two
//! complete or fail, none hangs, and no other pair is affected. Once the link stays up, the two
//! soon connect and their calls complete.
//!
//! [B04]: crate::rules#b04

use rand::RngExt;

use super::history::{History, fault_at};
use super::{Scenario, add_steady_requests, new_plan, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{Event, Outcome};
use crate::fault::{Cut, Repair};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "flapping_link",
    about: "a link is cut and repaired repeatedly: few attempts, no call hangs, others work",
    plan,
    expect,
};

const NODES: u8 = 4;
/// Time by which all nodes are connected.
const CONNECTED_MS: u64 = 2_000;
/// Time of the final repair of the link.
const REPAIRED_MS: u64 = 40_000;
/// Average time per attempt, at least. A dead connection is detected after three pings, of two
/// seconds each, or just before, and then dialed again a few times.
const ATTEMPT_INTERVAL_MS: u64 = 2_500;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("flapping_link", seed, NODES, REPAIRED_MS + 25_000);
    plan.cluster.tick_ms = 5;
    let (a, b) = two_nodes(&mut rng, NODES);
    let mut at = rng.random_range(3_000..5_000);
    while at < REPAIRED_MS - 5_000 {
        plan.faults.push((at, Fault::Cut(Cut { a, b })));
        at += rng.random_range(1_500..5_000);
        plan.faults.push((at, Fault::Repair(Repair { a, b })));
        at += rng.random_range(1_000..4_000);
    }
    add_steady_requests(&mut plan, &mut rng, 400);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let first = fault_at(plan, |fault| matches!(fault, Fault::Cut(_)))?;
    let ends = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Cut(Cut { a, b }) => Some((*a, *b)),
        _ => None,
    });
    let (a, b) = ends.ok_or("the plan lacks a cut")?;
    let is_flapping = |from: Node, to: Node| (from, to) == (a, b) || (to, from) == (a, b);
    history.others_must_be_unaffected(CONNECTED_MS, is_flapping)?;
    must_be_lost_twice(&history, (a, b), first)?;
    attempts_must_be_few(&history, (a, b), first)?;
    let last = plan.faults.last().map_or(0, |(at, _)| *at);
    let limit = bounds.reconnect_ms;
    history.must_connect(a, b, last + limit, 0)?;
    for call in history.calls.iter().filter(|call| is_flapping(call.from(), call.to())) {
        let is_known = matches!(
            call.ended,
            Some((
                _,
                Outcome::Completed
                    | Outcome::Disconnected
                    | Outcome::NotConnected
                    | Outcome::Deadline
            ))
        );
        if !is_known || call.took_ms() > Some(bounds.deadline_ms() + bounds.timer_resolution_ms) {
            return Err(call.violation("must complete or fail in time"));
        }
        if call.at_ms > last + limit {
            call.must_complete()?;
        }
    }
    Ok(())
}

/// Checks that the connection is lost twice, as it is on a flapping link.
fn must_be_lost_twice(history: &History<'_>, (a, b): (Node, Node), first: u64) -> CheckResult {
    let mut at = first;
    for loss in 1..=2 {
        let lost = history.lost_after(a, b, at);
        let lost = lost.ok_or_else(|| {
            format!("{a} must lose its connection to {b} twice: loss {loss} is missing")
        })?;
        let again = history.connected_after(a, b, lost.at_ms);
        at = again.ok_or_else(|| format!("{a} must be connected to {b} again"))?;
    }
    Ok(())
}

fn attempts_must_be_few(history: &History<'_>, (a, b): (Node, Node), first: u64) -> CheckResult {
    let max = usize::try_from((REPAIRED_MS - first) / ATTEMPT_INTERVAL_MS).unwrap_or(0);
    for (node, remote) in [(a, b), (b, a)] {
        let attempts = history.attempts(node, remote, first, REPAIRED_MS);
        if attempts > max {
            return Err(format!("{node} tried {attempts} times to connect to {remote}"));
        }
    }
    Ok(())
}
