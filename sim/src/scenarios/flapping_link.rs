//! One link is cut and mended every few seconds, for the whole run.
//!
//! A loose cable. Each cut wedges what was connected; pings find it, attempts fail or succeed as the
//! moment has it, and a connection that was made is lost again soon, perhaps before any call. Back-off keeps the two ends from
//! hammering each other: a connection that did not hold does not start the waits anew (B04). Calls
//! between the two are answered or fail, none hangs, and everybody else notices nothing. When the
//! link stays whole, the two are soon connected and their calls answered.

use rand::RngExt;

use super::history::{History, fault_at};
use super::{Scenario, begin, sort, steady, two};
use crate::bounds::Bounds;
use crate::event::{Event, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "flapping_link",
    about: "a link is cut and mended over and over: few attempts, no call hangs, others untouched",
    plan,
    expect,
};

const NODES: u8 = 4;
/// When everybody has long been connected.
const BEGUN_MS: u64 = 2_000;
/// When the link has been mended for good.
const MENDED_MS: u64 = 40_000;
/// A connection that dies is found after three pings, of two seconds each, or just before; it is
/// dialled anew a few times then. On average no more than one attempt in this time.
const ATTEMPT_EVERY_MS: u64 = 2_500;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("flapping_link", seed, NODES, MENDED_MS + 25_000);
    plan.cluster.tick_ms = 5;
    let (a, b) = two(&mut rng, NODES);
    let mut at = rng.random_range(3_000..5_000);
    while at < MENDED_MS - 5_000 {
        plan.faults.push((at, Fault::Cut { a, b }));
        at += rng.random_range(1_500..5_000);
        plan.faults.push((at, Fault::Repair { a, b }));
        at += rng.random_range(1_000..4_000);
    }
    steady(&mut plan, &mut rng, 400);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let first = fault_at(plan, |fault| matches!(fault, Fault::Cut { .. }))?;
    let ends = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Cut { a, b } => Some((*a, *b)),
        _ => None,
    });
    let (a, b) = ends.ok_or("the plan lacks a cut")?;
    let is_flapping = |from: Node, to: Node| (from, to) == (a, b) || (to, from) == (a, b);
    history.others_must_be_untouched(BEGUN_MS, is_flapping)?;
    must_be_lost_again_and_again(&history, (a, b), first)?;
    few_attempts(&history, (a, b), first)?;
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
        if !is_known || call.took_ms() > Some(bounds.deadline_ms() + bounds.ticks_ms) {
            return Err(call.complaint("must complete or fail in time"));
        }
        if call.at_ms > last + limit {
            call.must_be_answered()?;
        }
    }
    Ok(())
}

/// Or the link did not flap.
fn must_be_lost_again_and_again(
    history: &History<'_>,
    (a, b): (Node, Node),
    first: u64,
) -> CheckResult {
    let mut at = first;
    for time in 1..=2 {
        let lost = history.lost_after(a, b, at);
        let lost = lost.ok_or_else(|| format!("{a} must lose {b} twice, not the {time}. time"))?;
        let again = history.connected_after(a, b, lost.at_ms);
        at = again.ok_or_else(|| format!("{a} must be connected to {b} again"))?;
    }
    Ok(())
}

fn few_attempts(history: &History<'_>, (a, b): (Node, Node), first: u64) -> CheckResult {
    let max = usize::try_from((MENDED_MS - first) / ATTEMPT_EVERY_MS).unwrap_or(0);
    for (node, remote) in [(a, b), (b, a)] {
        let attempts = history.attempts(node, remote, first, MENDED_MS);
        if attempts > max {
            return Err(format!("{node} tried {attempts} times to connect to {remote}"));
        }
    }
    Ok(())
}
