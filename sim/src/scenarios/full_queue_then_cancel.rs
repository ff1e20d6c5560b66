//! A link is held and queues fill; callers cancel calls; the link is released.
//!
//! A cancellation must not need queue space ([B06]): each is accepted at once, queued behind the
//! messages before it, and reaches its handler when the link is released. No segment is lost, so
//! the connection survives, and the streams that filled the queue complete.
//!
//! [B06]: crate::rules#b06

use rand::RngExt;

use super::history::{CallHistory, History, fault_at};
use super::{Scenario, new_plan, small_request, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{Event, HandlerEnd, Outcome, StreamSide};
use crate::fault::{Hold, Repair};
use crate::invariants::CheckResult;
use crate::plan::{
    CAPACITIES, Fault, Load, Node, Plan, PlannedHandlerEnd, RequestPlan, StreamPlan,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "full_queue_then_cancel",
    about: "calls are cancelled while the queue is full: handlers are cancelled once it drains",
    plan,
    expect,
};

/// Time by which all nodes are connected.
const CONNECTED_MS: u64 = 2_000;
/// Bytes of each message: two of them fill the queue.
const BYTES: u32 = 15_000;
/// Messages of each stream: fewer than its credit, so that they wait for queue space only.
const MESSAGES: u32 = 60;
/// Number of streams that fill the queue, and of calls that are cancelled.
const CALLS: u32 = 12;
/// Capacities of the streams.
const CAPACITY: u8 = 4;
const _: () = assert!(CAPACITIES[CAPACITY as usize].0 > MESSAGES);
/// Time for the full queue to drain once the link is released.
const BACKLOG_MS: u64 = 500;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("full_queue_then_cancel", seed, 2, 10_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.socket_segments = 16;
    let limits = &mut plan.cluster.limits;
    limits.message_bytes_max = Some(16 * 1024);
    limits.queue_bytes_max = Some(32 * 1024);
    limits.deadline_default_ms = Some(60_000);
    let (from, to) = two_nodes(&mut rng, 2);
    let held = rng.random_range(3_000..4_000);
    let cancelled = held + rng.random_range(1_000..1_500);
    plan.faults.push((held, Fault::Hold(Hold { a: from, b: to })));
    plan.faults.push((cancelled + 500, Fault::Repair(Repair { a: from, b: to })));
    for _ in 0..CALLS {
        let at = held - 200 - rng.random_range(0..100);
        let cancel_after_ms = u32::try_from(cancelled - at).ok();
        let never = RequestPlan {
            ending: PlannedHandlerEnd::Never,
            cancel_after_ms,
            ..small_request(from, to)
        };
        plan.load.push((at, Load::Request(never)));
        // Open before the link is held.
        let at = held - 100 - rng.random_range(0..50);
        plan.load.push((at, Load::Stream(stream(from, to))));
    }
    sort(&mut plan);
    plan
}

/// Returns a stream that sends all the time, mostly while the link is held.
fn stream(from: Node, to: Node) -> StreamPlan {
    StreamPlan {
        from,
        to,
        capacities: CAPACITY,
        up: MESSAGES,
        down: 0,
        bytes: BYTES,
        up_pace_ms: 20,
        down_pace_ms: 0,
        receive_pace_ms: Some(0),
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: Some(30_000),
    }
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let held = fault_at(plan, |fault| matches!(fault, Fault::Hold(_)))?;
    let repaired = fault_at(plan, |fault| matches!(fault, Fault::Repair(_)))?;
    history.must_stay_connected(Node(0), Node(1), CONNECTED_MS, plan.duration_ms)?;
    must_be_full(&history, held, repaired)?;
    let limit = repaired + bounds.round_trip_ms + BACKLOG_MS;
    for call in &history.calls {
        match call.load {
            Load::Stream(_) => call.must_complete()?,
            Load::Request(_) => must_be_cancelled(call, (held, repaired, limit))?,
            Load::Lock(_) | Load::Force(_) | Load::Change(_) => {}
        }
    }
    Ok(())
}

/// Checks that sends of the streams were blocked when the calls were cancelled.
fn must_be_full(history: &History<'_>, held: u64, repaired: u64) -> CheckResult {
    let waits = history.calls.iter().flat_map(|call| &call.blocked_sends);
    let mut waits = waits
        .filter(|(at, end, _)| (held..repaired - 500).contains(at) && *end == StreamSide::Caller);
    waits.next().map(|_| ()).ok_or_else(|| "no message waits for queue space".to_owned())
}

fn must_be_cancelled(
    call: &CallHistory<'_>,
    (held, repaired, limit): (u64, u64, u64),
) -> CheckResult {
    match call.ended {
        Some((at, Outcome::Cancelled)) if (held..repaired).contains(&at) => {}
        _ => return Err(call.violation("must be cancelled while the queue is full")),
    }
    match call.handler_ended {
        Some((at, HandlerEnd::Cancelled)) if (repaired..=limit).contains(&at) => Ok(()),
        how => {
            let requirement =
                format!("has a handler that must be cancelled by {limit} ms: {how:?}");
            Err(call.violation(&requirement))
        }
    }
}
