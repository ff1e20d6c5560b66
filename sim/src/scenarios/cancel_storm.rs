//! Hundreds of calls and streams are given up at once, and those of the other direction go on.
//!
//! The two directions of a connection number their calls alike, so that almost every call that is
//! given up has a namesake that the other node made. What is said about the one must never end the
//! other (B16): every call of the other direction is answered, and so is every call that the same
//! node made beside those it gave up. Handlers of what was given up are cancelled within a round trip
//! (B11), and those that were given up before they left are never served.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::history::{Call, History};
use super::{Scenario, begin, small, sort, two};
use crate::bounds::Bounds;
use crate::event::{Event, EventKind, HandlerEnd, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{HandlerEnding, Load, Node, Plan, RequestPlan, StreamPlan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "cancel_storm",
    about: "hundreds of calls are given up at once; namesakes of the other direction are answered",
    plan,
    expect,
};

/// Calls that are given up.
const STORM: u32 = 300;
/// Within so many milliseconds.
const STORM_MS: u64 = 150;
/// Longest time that a call of the others takes, in milliseconds.
const WORK_MS: u32 = 150;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("cancel_storm", seed, 2, 6_000);
    let (from, to) = two(&mut rng, 2);
    let storm = rng.random_range(2_000..3_000);
    for _ in 0..STORM {
        let at = storm + rng.random_range(0..STORM_MS);
        let cancel_after_ms = Some(rng.random_range(0..60));
        let given_up = if rng.random_bool(0.3) {
            let ending = HandlerEnding::Never;
            let receive_pace_ms = if rng.random_bool(0.3) { None } else { Some(0) };
            Load::Stream(StreamPlan {
                ending,
                cancel_after_ms,
                receive_pace_ms,
                ..stream(&mut rng, from, to)
            })
        } else {
            let ending =
                if rng.random_bool(0.5) { HandlerEnding::Never } else { HandlerEnding::Success };
            let work_ms = 2_000;
            Load::Request(RequestPlan { ending, cancel_after_ms, work_ms, ..small(from, to) })
        };
        plan.load.push((at, given_up));
    }
    for number in 0..STORM {
        let (from, to) = if number % 3 == 0 { (from, to) } else { (to, from) };
        let at = storm - 50 + rng.random_range(0..STORM_MS + 100);
        let kept = if rng.random_bool(0.2) {
            Load::Stream(stream(&mut rng, from, to))
        } else {
            let work_ms = rng.random_range(0..WORK_MS);
            Load::Request(RequestPlan { work_ms, ..small(from, to) })
        };
        plan.load.push((at, kept));
    }
    sort(&mut plan);
    plan
}

fn stream(rng: &mut SmallRng, from: Node, to: Node) -> StreamPlan {
    let capacities = rng.random_range(1..4);
    StreamPlan {
        from,
        to,
        capacities,
        up: rng.random_range(0..5),
        down: rng.random_range(0..5),
        bytes: 100,
        up_pace_ms: 0,
        down_pace_ms: rng.random_range(0..20),
        receive_pace_ms: Some(0),
        ending: HandlerEnding::Success,
        timeout_ms: Some(5_000),
        cancel_after_ms: None,
    }
}

fn is_given_up(load: &Load) -> bool {
    match load {
        Load::Request(plan) => plan.cancel_after_ms.is_some(),
        Load::Stream(plan) => plan.cancel_after_ms.is_some(),
        Load::Lock(plan) => plan.cancel_after_ms.is_some(),
        Load::Force(_) | Load::Change(_) => false,
    }
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let (given_up, kept): (Vec<_>, Vec<_>) =
        history.calls.iter().partition(|call| is_given_up(call.load));
    kept.into_iter().try_for_each(Call::must_be_answered)?;
    let mut cancelled = 0;
    for call in given_up {
        let Some((left, Outcome::Cancelled)) = call.ended else {
            return Err(call.complaint("must be cancelled"));
        };
        match (call.is_served, call.handler_ended) {
            (false, _) => {}
            (true, Some((ended, HandlerEnd::Cancelled)))
                if (left..=left + bounds.round_trip_ms).contains(&ended) =>
            {
                cancelled += 1;
            }
            (true, ended) => {
                return Err(call.complaint(&format!("has a handler that ended {ended:?}")));
            }
        }
    }
    if cancelled < STORM / 4 {
        return Err(format!("only {cancelled} handlers were cancelled"));
    }
    must_be_namesakes(&history, events)
}

/// Or the scenario would show nothing.
fn must_be_namesakes(history: &History<'_>, events: &[Event]) -> CheckResult {
    let (mut given_up, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        let EventKind::MessageSent { message, .. } = &event.kind else { continue };
        let Some(call) = message.call.and_then(|call| history.calls.get(call as usize)) else {
            continue;
        };
        let end = (event.node, message.mux_id);
        if event.node != Some(call.from()) {
            continue; // an answer bears the number that its caller chose
        }
        let ids = if is_given_up(call.load) { &mut given_up } else { &mut kept };
        ids.insert(end);
    }
    let has_namesake = |(node, id): &&(Option<Node>, u64)| {
        kept.iter().any(|(other, theirs)| other != node && theirs == id)
    };
    let namesakes = given_up.iter().filter(has_namesake).count();
    if namesakes < 50 {
        return Err(format!("only {namesakes} calls that were given up had a namesake"));
    }
    Ok(())
}
