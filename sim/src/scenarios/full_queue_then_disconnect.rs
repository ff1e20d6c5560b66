//! A link is held, queues fill and senders are blocked; then the segments in flight are lost.
//!
//! The network accepts nothing any more: the socket is full, then the queue, and streams of both
//! ends wait for queue space. When the connection is detected as dead, everything ends at once with
//! it: calls that were written, calls in the queue, and calls that wait to be queued. Handlers are
//! cancelled, and nothing leaks. No blocked sender delays the end or the reconnect ([B05], [B06]):
//! the next connection is open after one short wait.
//!
//! [B05]: crate::rules#b05
//! [B06]: crate::rules#b06

use rand::RngExt;
use rand::rngs::SmallRng;

use super::history::{CallHistory, History, dialer_first, fault_at};
use super::{Scenario, add_steady_requests, new_plan, small_request, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{Event, HandlerEnd, Outcome, StreamSide};
use crate::fault::{Cut, Hold, Repair};
use crate::invariants::CheckResult;
use crate::plan::{
    CAPACITIES, Fault, Load, Node, Plan, PlannedHandlerEnd, RequestPlan, StreamPlan,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "full_queue_then_disconnect",
    about: "a full queue with blocked senders: all calls end at once with their connection",
    plan,
    expect,
};

const NODES: u8 = 3;
/// Time by which all nodes are connected.
const CONNECTED_MS: u64 = 2_000;
/// Messages of each stream: fewer than its credit, so that they wait for queue space only.
const MESSAGES: u32 = 30;
/// Bytes of each: two of them fill the queue.
const BYTES: u32 = 15_000;
/// Number of streams, and of requests, in each direction.
const CALLS: u32 = 6;
/// Capacities of the streams.
const CAPACITY: u8 = 4;
const _: () = assert!(CAPACITIES[CAPACITY as usize].0 > MESSAGES);

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("full_queue_then_disconnect", seed, NODES, 32_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.socket_segments = 16;
    let limits = &mut plan.cluster.limits;
    limits.message_bytes_max = Some(16 * 1024);
    limits.queue_bytes_max = Some(32 * 1024);
    limits.frame_bytes_target = Some(rng.random_range(1_000..16_000));
    // Longer than the detection of the dead connection: calls end with it, and not before.
    limits.deadline_default_ms = Some(20_000);
    let (a, b) = two_nodes(&mut rng, NODES);
    let held = rng.random_range(12_000..14_000);
    let cut = held + rng.random_range(800..1_500);
    plan.faults.push((held, Fault::Hold(Hold { a, b })));
    plan.faults.push((cut, Fault::Cut(Cut { a, b })));
    // Before the dead connection is detected: only the queue could delay the next one.
    plan.faults.push((cut + rng.random_range(500..1_500), Fault::Repair(Repair { a, b })));
    for (from, to) in [(a, b), (b, a)] {
        for _ in 0..CALLS {
            let at = held - rng.random_range(0..100);
            plan.load.push((at, Load::Stream(stream(&mut rng, from, to))));
            let at = held + rng.random_range(0..500);
            let request =
                RequestPlan { bytes: BYTES, response_bytes: BYTES, ..small_request(from, to) };
            plan.load.push((at, Load::Request(request)));
        }
    }
    add_steady_requests(&mut plan, &mut rng, 500);
    sort(&mut plan);
    plan
}

/// Returns a stream whose ends send for several times as long as the link works.
fn stream(rng: &mut SmallRng, from: Node, to: Node) -> StreamPlan {
    StreamPlan {
        from,
        to,
        capacities: CAPACITY,
        up: MESSAGES,
        down: MESSAGES,
        bytes: BYTES,
        up_pace_ms: rng.random_range(10..40),
        down_pace_ms: rng.random_range(10..40),
        receive_pace_ms: Some(0),
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: Some(60_000),
    }
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let held = fault_at(plan, |fault| matches!(fault, Fault::Hold(_)))?;
    let cut = fault_at(plan, |fault| matches!(fault, Fault::Cut(_)))?;
    let ends = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Cut(Cut { a, b }) => Some(dialer_first(*a, *b)),
        _ => None,
    });
    let (dialer, acceptor) = ends.ok_or("the plan lacks a cut")?;
    for (node, remote) in [(dialer, acceptor), (acceptor, dialer)] {
        must_wait_for_queue_space(&history, (node, remote), held, cut)?;
        let lost = history.lost_after(node, remote, held).map(|lost| lost.at_ms);
        let Some(lost) = lost.filter(|lost| *lost <= held + bounds.dead_peer_ms) else {
            return Err(format!("{node} must detect that {remote} is dead: {lost:?}"));
        };
        all_must_end_at(&history, (node, remote), lost, &bounds)?;
    }
    let lost = history.lost_after(dialer, acceptor, held).map_or(held, |lost| lost.at_ms);
    let limit = bounds.first_backoff_ms() + 4 * bounds.round_trip_ms;
    history.must_connect(dialer, acceptor, lost + limit, 0)?;
    let mut after = history.calls.iter().filter(|call| call.at_ms > lost + limit);
    after.try_for_each(CallHistory::must_complete)?;
    history.others_must_be_unaffected(CONNECTED_MS, |from, to| {
        [(dialer, acceptor), (acceptor, dialer)].contains(&(from, to))
    })
}

/// Checks that messages from `node` to `remote` were blocked: of its own calls, and of its
/// handlers.
fn must_wait_for_queue_space(
    history: &History<'_>,
    (node, remote): (Node, Node),
    held: u64,
    cut: u64,
) -> CheckResult {
    for (from, to, side) in [(node, remote, StreamSide::Caller), (remote, node, StreamSide::Callee)]
    {
        let calls = history.calls.iter().filter(|call| (call.from(), call.to()) == (from, to));
        let sends = calls.flat_map(|call| &call.blocked_sends);
        let blocked = sends.filter(|(at, s, _)| (held..cut).contains(at) && *s == side).count();
        if blocked == 0 {
            return Err(format!(
                "no message of {side:?} waits at {node} for queue space to {remote}"
            ));
        }
    }
    Ok(())
}

/// Checks that the calls from `node` to `remote`, and the handlers that it runs for `remote`,
/// ended.
fn all_must_end_at(
    history: &History<'_>,
    (node, remote): (Node, Node),
    lost: u64,
    bounds: &Bounds,
) -> CheckResult {
    let mut ended = 0;
    for call in history.calls.iter().filter(|call| call.is_between(node, remote)) {
        if call.from() == node && call.is_outstanding(lost) {
            match call.ended {
                Some((at, Outcome::Disconnected)) if at <= lost + bounds.timer_resolution_ms => {
                    ended += 1;
                }
                _ => return Err(call.violation(&format!("must end with its connection at {lost}"))),
            }
        }
        let is_running = |(at, _): &(u64, HandlerEnd)| *at >= lost;
        if call.to() == node
            && call.at_ms < lost
            && call.handler_ended.is_some_and(|e| is_running(&e))
        {
            match call.handler_ended {
                Some((at, HandlerEnd::Cancelled | HandlerEnd::Failed))
                    if at <= lost + bounds.timer_resolution_ms => {}
                how => {
                    return Err(call.violation(&format!(
                        "has a handler that must end at {lost} ms and ended {how:?}"
                    )));
                }
            }
        }
    }
    if ended < CALLS {
        return Err(format!("{node} had only {ended} outstanding calls when {remote} was lost"));
    }
    Ok(())
}
