//! Hundreds of calls and streams are cancelled at once, and those of the other direction continue.
//!
//! Both directions of a connection number their calls from the same range, so almost every
//! cancelled call shares its id with a call of the other node. A cancellation must never end the
//! call of the other direction ([B16]): every call of the other direction completes, and so does
//! every call that the same node does not cancel. Handlers of cancelled calls are cancelled within
//! a round trip ([B11]), and calls that were cancelled before they were sent are never served.
//!
//! [B11]: crate::rules#b11
//! [B16]: crate::rules#b16

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::history::{CallHistory, History};
use super::{Scenario, new_plan, small_request, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{Event, EventKind, HandlerEnd, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Load, Node, Plan, PlannedHandlerEnd, RequestPlan, StreamPlan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "cancel_storm",
    about: "hundreds of calls are cancelled at once; calls with the same ids complete",
    plan,
    expect,
};

/// Number of calls that are cancelled.
const STORM: u32 = 300;
/// Time within which they are made, in milliseconds.
const STORM_MS: u64 = 150;
/// Longest time that any other call takes, in milliseconds.
const WORK_MS: u32 = 150;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("cancel_storm", seed, 2, 6_000);
    let (from, to) = two_nodes(&mut rng, 2);
    let storm = rng.random_range(2_000..3_000);
    for _ in 0..STORM {
        let at = storm + rng.random_range(0..STORM_MS);
        let cancel_after_ms = Some(rng.random_range(0..60));
        let cancelled = if rng.random_bool(0.3) {
            let ending = PlannedHandlerEnd::Never;
            let receive_pace_ms = if rng.random_bool(0.3) { None } else { Some(0) };
            Load::Stream(StreamPlan {
                ending,
                cancel_after_ms,
                receive_pace_ms,
                ..stream(&mut rng, from, to)
            })
        } else {
            let ending = if rng.random_bool(0.5) {
                PlannedHandlerEnd::Never
            } else {
                PlannedHandlerEnd::Success
            };
            let work_ms = 2_000;
            Load::Request(RequestPlan {
                ending,
                cancel_after_ms,
                work_ms,
                ..small_request(from, to)
            })
        };
        plan.load.push((at, cancelled));
    }
    for number in 0..STORM {
        let (from, to) = if number % 3 == 0 { (from, to) } else { (to, from) };
        let at = storm - 50 + rng.random_range(0..STORM_MS + 100);
        let uncancelled = if rng.random_bool(0.2) {
            Load::Stream(stream(&mut rng, from, to))
        } else {
            let work_ms = rng.random_range(0..WORK_MS);
            Load::Request(RequestPlan { work_ms, ..small_request(from, to) })
        };
        plan.load.push((at, uncancelled));
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
        ending: PlannedHandlerEnd::Success,
        timeout_ms: Some(5_000),
        cancel_after_ms: None,
    }
}

fn is_to_be_cancelled(load: &Load) -> bool {
    match load {
        Load::Request(plan) => plan.cancel_after_ms.is_some(),
        Load::Stream(plan) => plan.cancel_after_ms.is_some(),
        Load::Lock(plan) => plan.cancel_after_ms.is_some(),
        Load::Force(_) | Load::Change(_) => false,
    }
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let (cancelled, uncancelled): (Vec<_>, Vec<_>) =
        history.calls.iter().partition(|call| is_to_be_cancelled(call.load));
    uncancelled.into_iter().try_for_each(CallHistory::must_complete)?;
    let mut handlers_cancelled = 0;
    for call in cancelled {
        let Some((cancelled_ms, Outcome::Cancelled)) = call.ended else {
            return Err(call.violation("must be cancelled"));
        };
        match (call.is_served, call.handler_ended) {
            (false, _) => {}
            (true, Some((ended, HandlerEnd::Cancelled)))
                if (cancelled_ms..=cancelled_ms + bounds.round_trip_ms).contains(&ended) =>
            {
                handlers_cancelled += 1;
            }
            (true, ended) => {
                return Err(call.violation(&format!("has a handler that ended {ended:?}")));
            }
        }
    }
    if handlers_cancelled < STORM / 4 {
        return Err(format!("only {handlers_cancelled} handlers were cancelled"));
    }
    must_share_ids(&history, events)
}

/// Checks that enough ids are shared; otherwise the scenario would test nothing.
fn must_share_ids(history: &History<'_>, events: &[Event]) -> CheckResult {
    let (mut cancelled, mut uncancelled) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        let EventKind::MessageSent { message, .. } = &event.kind else { continue };
        let Some(call) = message.call.and_then(|call| history.calls.get(call as usize)) else {
            continue;
        };
        let end = (event.node, message.mux_id);
        if event.node != Some(call.from()) {
            continue; // a response carries the id that its caller chose
        }
        let ids = if is_to_be_cancelled(call.load) { &mut cancelled } else { &mut uncancelled };
        ids.insert(end);
    }
    let has_namesake = |(node, id): &&(Option<Node>, u64)| {
        uncancelled.iter().any(|(other, other_id)| other != node && other_id == id)
    };
    let shared_ids = cancelled.iter().filter(has_namesake).count();
    if shared_ids < 50 {
        return Err(format!("only {shared_ids} cancelled calls shared an id with another call"));
    }
    Ok(())
}
