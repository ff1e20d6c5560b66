//! A link stops, queues fill and senders wait in line; then what was under way is lost.
//!
//! The network takes nothing any more, so that the socket is full, then the queue, and streams of
//! both ends wait for room. When the connection is found dead, everything ends at once and with it:
//! calls that were written, calls in the queue, and those that wait to be queued; handlers are
//! cancelled, and nothing is left. None of the senders that wait delays the end or the reconnect
//! (B05, B06): the next connection is there after one short wait.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::history::{Call, History, dialler_first, fault_at};
use super::{Scenario, begin, small, sort, steady, two};
use crate::bounds::Bounds;
use crate::event::{Event, HandlerEnd, Outcome, StreamSide};
use crate::invariants::CheckResult;
use crate::plan::{CAPACITIES, Fault, HandlerEnding, Load, Node, Plan, RequestPlan, StreamPlan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "full_queue_then_disconnect",
    about: "a full queue with a line of senders before it: all end at once with their connection",
    plan,
    expect,
};

const NODES: u8 = 3;
/// When everybody has long been connected.
const BEGUN_MS: u64 = 2_000;
/// Messages of each stream: fewer than its credit, so that they wait for nothing but room.
const MESSAGES: u32 = 30;
/// Bytes of each: two of them fill the queue.
const BYTES: u32 = 15_000;
/// Streams, and as many requests, in each direction.
const CALLS: u32 = 6;
/// Capacities of the streams.
const CAPACITY: u8 = 4;
const _: () = assert!(CAPACITIES[CAPACITY as usize].0 > MESSAGES);

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("full_queue_then_disconnect", seed, NODES, 32_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.socket_segments = 16;
    let limits = &mut plan.cluster.limits;
    limits.message_bytes_max = Some(16 * 1024);
    limits.queue_bytes_max = Some(32 * 1024);
    limits.frame_bytes_target = Some(rng.random_range(1_000..16_000));
    // Longer than it takes to find the dead connection: calls end with it, and not before.
    limits.deadline_default_ms = Some(20_000);
    let (a, b) = two(&mut rng, NODES);
    let held = rng.random_range(12_000..14_000);
    let cut = held + rng.random_range(800..1_500);
    plan.faults.push((held, Fault::Hold { a, b }));
    plan.faults.push((cut, Fault::Cut { a, b }));
    // Before the dead connection is found: nothing but the queue could delay the next one.
    plan.faults.push((cut + rng.random_range(500..1_500), Fault::Repair { a, b }));
    for (from, to) in [(a, b), (b, a)] {
        for _ in 0..CALLS {
            let at = held - rng.random_range(0..100);
            plan.load.push((at, Load::Stream(stream(&mut rng, from, to))));
            let at = held + rng.random_range(0..500);
            let request = RequestPlan { bytes: BYTES, response_bytes: BYTES, ..small(from, to) };
            plan.load.push((at, Load::Request(request)));
        }
    }
    steady(&mut plan, &mut rng, 500);
    sort(&mut plan);
    plan
}

/// Each sends all the time, over several times as long as the link is whole.
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
        ending: HandlerEnding::Success,
        timeout_ms: None,
        cancel_after_ms: Some(60_000),
    }
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let held = fault_at(plan, |fault| matches!(fault, Fault::Hold { .. }))?;
    let cut = fault_at(plan, |fault| matches!(fault, Fault::Cut { .. }))?;
    let ends = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Cut { a, b } => Some(dialler_first(*a, *b)),
        _ => None,
    });
    let (dialler, acceptor) = ends.ok_or("the plan lacks a cut")?;
    for (node, remote) in [(dialler, acceptor), (acceptor, dialler)] {
        must_wait_for_room(&history, (node, remote), held, cut)?;
        let lost = history.lost_after(node, remote, held).map(|lost| lost.at_ms);
        let Some(lost) = lost.filter(|lost| *lost <= held + bounds.dead_peer_ms) else {
            return Err(format!("{node} must find that {remote} is dead: {lost:?}"));
        };
        all_must_end_at(&history, (node, remote), lost, &bounds)?;
    }
    let lost = history.lost_after(dialler, acceptor, held).map_or(held, |lost| lost.at_ms);
    let limit = bounds.first_backoff_ms() + 4 * bounds.round_trip_ms;
    history.must_connect(dialler, acceptor, lost + limit, 0)?;
    let mut after = history.calls.iter().filter(|call| call.at_ms > lost + limit);
    after.try_for_each(Call::must_be_answered)?;
    history.others_must_be_untouched(BEGUN_MS, |from, to| {
        [(dialler, acceptor), (acceptor, dialler)].contains(&(from, to))
    })
}

/// Messages that `node` had for `remote`: its own calls', and those of its handlers.
fn must_wait_for_room(
    history: &History<'_>,
    (node, remote): (Node, Node),
    held: u64,
    cut: u64,
) -> CheckResult {
    for (from, to, side) in [(node, remote, StreamSide::Caller), (remote, node, StreamSide::Callee)]
    {
        let calls = history.calls.iter().filter(|call| (call.from(), call.to()) == (from, to));
        let waits = calls.flat_map(|call| &call.waits);
        let waits = waits.filter(|(at, end, _)| (held..cut).contains(at) && *end == side).count();
        if waits == 0 {
            return Err(format!("no message of {side:?} waits at {node} for room to {remote}"));
        }
    }
    Ok(())
}

/// Calls that `node` has made to `remote`, and handlers that it runs for it.
fn all_must_end_at(
    history: &History<'_>,
    (node, remote): (Node, Node),
    lost: u64,
    bounds: &Bounds,
) -> CheckResult {
    let mut ended = 0;
    for call in history.calls.iter().filter(|call| call.is_between(node, remote)) {
        if call.from() == node && call.is_under_way(lost) {
            match call.ended {
                Some((at, Outcome::Disconnected)) if at <= lost + bounds.ticks_ms => ended += 1,
                _ => return Err(call.complaint(&format!("must end with its connection at {lost}"))),
            }
        }
        let is_running = |(at, _): &(u64, HandlerEnd)| *at >= lost;
        if call.to() == node
            && call.at_ms < lost
            && call.handler_ended.is_some_and(|e| is_running(&e))
        {
            match call.handler_ended {
                Some((at, HandlerEnd::Cancelled | HandlerEnd::Failed))
                    if at <= lost + bounds.ticks_ms => {}
                how => {
                    return Err(call.complaint(&format!(
                        "has a handler that must end at {lost} ms and ended {how:?}"
                    )));
                }
            }
        }
    }
    if ended < CALLS {
        return Err(format!("{node} had only {ended} calls under way when {remote} was lost"));
    }
    Ok(())
}
