//! One direction between two nodes is cut for a while; the way back is open.
//!
//! The worst kind of cut: each end still can send, or still hears the other, so that no socket fails
//! by itself. Pings find it from both ends, since only a pong counts as life (B07): the one end gets
//! no pings and no pongs, the other is asked and its answers are lost. Until then calls between the
//! two wait, no longer than it takes to find out; from then on they are refused at once. No other
//! pair notices anything. Attempts to connect meanwhile come to nothing, some of them after their
//! TCP connection was made, and after the mending the next attempt succeeds.

use rand::RngExt;

use super::history::{History, fault_at};
use super::{Scenario, begin, sort, steady, two};
use crate::bounds::Bounds;
use crate::event::{Event, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "one_way_cut",
    about: "one direction of a link is cut: pings find it from both ends, and others are untouched",
    plan,
    expect,
};

const NODES: u8 = 4;
/// When everybody has long been connected.
const BEGUN_MS: u64 = 2_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("one_way_cut", seed, NODES, 46_000);
    plan.cluster.tick_ms = 5;
    let (from, to) = two(&mut rng, NODES);
    let cut = rng.random_range(5_000..12_000);
    let mended = cut + rng.random_range(15_000..20_000);
    plan.faults.push((cut, Fault::CutOneWay { from, to }));
    plan.faults.push((mended, Fault::Repair { a: from, b: to }));
    steady(&mut plan, &mut rng, 400);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let cut = fault_at(plan, |fault| matches!(fault, Fault::CutOneWay { .. }))?;
    let mended = fault_at(plan, |fault| matches!(fault, Fault::Repair { .. }))?;
    let ends = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::CutOneWay { from, to } => Some((*from, *to)),
        _ => None,
    });
    let (from, to) = ends.ok_or("the plan lacks a cut")?;
    must_be_found(&history, (from, to), cut, &bounds)?;
    calls_must_fail(&history, (from, to), cut..mended, &bounds)?;
    history
        .others_must_be_untouched(BEGUN_MS, |a, b| (a, b) == (from, to) || (b, a) == (from, to))?;
    history.must_not_spin((from, to), (cut, mended), &bounds.limits)?;
    // An attempt that hangs, the longest wait, and a handshake.
    let limit = bounds.attempt_ms() + bounds.backoff_ms() + 4 * bounds.round_trip_ms;
    history.must_connect(from, to, mended, limit)?;
    let mut after = history.calls.iter().filter(|call| call.at_ms > mended + limit);
    after.try_for_each(super::history::Call::must_be_answered)
}

/// By both ends, in time, and by pings where nothing else can tell.
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
            format!("{node} must find that {remote} is dead within {} ms", bounds.dead_peer_ms)
        })
    };
    let (deaf, heard) = (find(to, from)?, find(from, to)?);
    let by_pings =
        |cause: Option<&str>| cause.is_some_and(|cause| cause.contains("pings in a row"));
    if !by_pings(deaf.cause) {
        return Err(format!("{to} hears nothing and must find it by pings: {deaf:?}"));
    }
    // The other end may be told, if the end that hears nothing is the first to find out.
    if !by_pings(heard.cause) && heard.at_ms < deaf.at_ms {
        return Err(format!("{from} gets no pongs and must find it by pings: {heard:?}"));
    }
    Ok(())
}

fn calls_must_fail(
    history: &History<'_>,
    (from, to): (Node, Node),
    during: std::ops::Range<u64>,
    bounds: &Bounds,
) -> CheckResult {
    let found = during.start + bounds.dead_peer_ms;
    for call in history.calls.iter().filter(|call| call.is_between(from, to)) {
        let Some(made) = call.made_ms.filter(|made| during.contains(made)) else { continue };
        let outcome = call.ended.map(|(_, outcome)| outcome);
        match outcome {
            Some(Outcome::NotConnected) => {}
            Some(Outcome::Disconnected | Outcome::Deadline) if made < found => {}
            _ => return Err(call.complaint("must fail, and at once if long after the cut")),
        }
        if call.took_ms() > Some(bounds.dead_peer_ms) {
            return Err(call.complaint("must fail in the time that a dead peer is found in"));
        }
    }
    Ok(())
}
