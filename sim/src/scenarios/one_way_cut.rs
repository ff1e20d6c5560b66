//! One direction between two nodes is cut for a time; the other direction stays open.
//!
//! The worst kind of cut: one end can still send, and the other can still receive, so no socket
//! fails. Pings detect it at both ends, since only a pong proves that the peer is alive ([B07]):
//! one end gets neither pings nor pongs, and the other's pings get no pongs. Until then calls
//! between the two wait, at most for the detection time; afterwards they are refused at once. No
//! other pair is affected. Attempts to connect during the cut fail, some of them after their TCP
//! connection is open, and the next attempt after the repair succeeds.
//!
//! [B07]: crate::rules#b07

use rand::RngExt;

use super::history::{History, fault_at};
use super::{Scenario, add_steady_requests, new_plan, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{Event, Outcome};
use crate::fault::{CutOneWay, Repair};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one_way_cut",
    about: "one direction of a link is cut: pings detect it at both ends, others are unaffected",
    plan,
    expect,
};

const NODES: u8 = 4;
/// Time by which all nodes are connected.
const CONNECTED_MS: u64 = 2_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("one_way_cut", seed, NODES, 46_000);
    plan.cluster.tick_ms = 5;
    let (from, to) = two_nodes(&mut rng, NODES);
    let cut = rng.random_range(5_000..12_000);
    let repaired = cut + rng.random_range(15_000..20_000);
    plan.faults.push((cut, Fault::CutOneWay(CutOneWay { from, to })));
    plan.faults.push((repaired, Fault::Repair(Repair { a: from, b: to })));
    add_steady_requests(&mut plan, &mut rng, 400);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let cut = fault_at(plan, |fault| matches!(fault, Fault::CutOneWay(_)))?;
    let repaired = fault_at(plan, |fault| matches!(fault, Fault::Repair(_)))?;
    let ends = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::CutOneWay(CutOneWay { from, to }) => Some((*from, *to)),
        _ => None,
    });
    let (from, to) = ends.ok_or("the plan lacks a cut")?;
    must_be_found(&history, (from, to), cut, &bounds)?;
    calls_must_fail(&history, (from, to), cut..repaired, &bounds)?;
    history.others_must_be_unaffected(CONNECTED_MS, |a, b| {
        (a, b) == (from, to) || (b, a) == (from, to)
    })?;
    history.must_back_off((from, to), (cut, repaired), &bounds.limits)?;
    // A hanging attempt, the longest back-off, and a handshake.
    let limit = bounds.attempt_ms() + bounds.backoff_ms() + 4 * bounds.round_trip_ms;
    history.must_connect(from, to, repaired, limit)?;
    let mut after = history.calls.iter().filter(|call| call.at_ms > repaired + limit);
    after.try_for_each(super::history::CallHistory::must_complete)
}

/// Checks that both ends detect the cut in time, and by pings where no other sign exists.
fn must_be_found(
    history: &History<'_>,
    (from, to): (Node, Node),
    cut: u64,
    bounds: &Bounds,
) -> CheckResult {
    let find = |node, remote| {
        let lost = history.lost_after(node, remote, cut);
        let lost = lost.filter(|lost| lost.at_ms <= cut + bounds.dead_peer_ms);
        lost.ok_or_else(|| {
            format!("{node} must detect that {remote} is dead within {} ms", bounds.dead_peer_ms)
        })
    };
    let (receiver, sender) = (find(to, from)?, find(from, to)?);
    let by_pings =
        |cause: Option<&str>| cause.is_some_and(|cause| cause.contains("pings in a row"));
    if !by_pings(receiver.cause) {
        return Err(format!("{to} receives nothing and must detect it by pings: {receiver:?}"));
    }
    // The sender may get a close instead, if the receiver is the first to detect the cut.
    if !by_pings(sender.cause) && sender.at_ms < receiver.at_ms {
        return Err(format!("{from} gets no pongs and must detect it by pings: {sender:?}"));
    }
    Ok(())
}

fn calls_must_fail(
    history: &History<'_>,
    (from, to): (Node, Node),
    during: std::ops::Range<u64>,
    bounds: &Bounds,
) -> CheckResult {
    let detected = during.start + bounds.dead_peer_ms;
    for call in history.calls.iter().filter(|call| call.is_between(from, to)) {
        let Some(made) = call.made_ms.filter(|made| during.contains(made)) else { continue };
        let outcome = call.ended.map(|(_, outcome)| outcome);
        match outcome {
            Some(Outcome::NotConnected) => {}
            Some(Outcome::Disconnected | Outcome::Deadline) if made < detected => {}
            _ => return Err(call.violation("must fail, and at once if long after the cut")),
        }
        if call.took_ms() > Some(bounds.dead_peer_ms) {
            return Err(call.violation("must fail within the detection time of a dead peer"));
        }
    }
    Ok(())
}
