//! One caller never reads its stream, another reads slowly; all other calls continue.
//!
//! A handler may send as many messages as the caller has buffer space for ([B21]), and is then
//! blocked; a slow reader has no other effect. Streams and requests between the same two nodes, on
//! the same connection and in both directions, complete as fast as ever. The stream that is never
//! read lives until its caller drops it: its pings pass, and no timeout ends it. Then the blocked
//! handler is cancelled at once ([B24], [B25]).
//!
//! [B21]: crate::rules#b21
//! [B24]: crate::rules#b24
//! [B25]: crate::rules#b25

use rand::RngExt;

use super::history::{CallHistory, History};
use super::{Scenario, add_steady_requests, new_plan, sort};
use crate::bounds::Bounds;
use crate::event::{Event, HandlerEnd, Outcome, StreamSide};
use crate::invariants::CheckResult;
use crate::plan::{CAPACITIES, Load, Node, Plan, PlannedHandlerEnd, StreamPlan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "slow_reader",
    about: "a stream that is not read blocks its own handler only",
    plan,
    expect,
};

/// Time that the slow reader spends on a message, in milliseconds.
const SLOW_MS: u32 = 400;
/// Number of messages that it receives.
const SLOW_MESSAGES: u32 = 20;
/// Number of messages of each fast stream, in each direction.
const FAST_MESSAGES: u32 = 40;
/// Capacities of those streams: 8 and 8.
const FAST_CAPACITIES: u8 = 3;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("slow_reader", seed, 2, 22_000);
    plan.cluster.tick_ms = 5;
    // Several pings of the blocked stream.
    plan.cluster.limits.stream_ping_interval_ms = Some(2_000);
    let (caller, callee) = super::two_nodes(&mut rng, 2);
    let unread = StreamPlan {
        capacities: rng.random_range(0..=2),
        down: 30,
        bytes: rng.random_range(50..2_000),
        receive_pace_ms: None,
        cancel_after_ms: Some(rng.random_range(14_000..17_000)),
        ..stream(caller, callee)
    };
    let slow = StreamPlan {
        capacities: rng.random_range(0..=2),
        down: SLOW_MESSAGES,
        receive_pace_ms: Some(SLOW_MS),
        ..stream(caller, callee)
    };
    plan.load.push((rng.random_range(2_000..3_000), Load::Stream(unread)));
    plan.load.push((rng.random_range(2_000..3_000), Load::Stream(slow)));
    for number in 0..12 {
        let (from, to) = if number % 2 == 0 { (caller, callee) } else { (callee, caller) };
        let fast = StreamPlan { up: FAST_MESSAGES, down: FAST_MESSAGES, ..stream(from, to) };
        plan.load.push((rng.random_range(3_500..12_000), Load::Stream(fast)));
    }
    add_steady_requests(&mut plan, &mut rng, 150);
    sort(&mut plan);
    plan
}

fn stream(from: Node, to: Node) -> StreamPlan {
    StreamPlan {
        from,
        to,
        capacities: FAST_CAPACITIES,
        up: 0,
        down: 0,
        bytes: 500,
        up_pace_ms: 0,
        down_pace_ms: 0,
        receive_pace_ms: Some(0),
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: Some(60_000),
    }
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let mut has_unread = false;
    for call in history.calls.iter().filter(|call| call.at_ms >= 2_000) {
        match call.load {
            Load::Request(_) => call.must_complete_within(bounds.round_trip_ms)?,
            Load::Stream(stream) if stream.receive_pace_ms.is_none() => {
                has_unread = true;
                must_block_and_be_cancelled(call, stream, &bounds)?;
            }
            Load::Stream(stream) if stream.receive_pace_ms == Some(SLOW_MS) => {
                let (took, least) = (call.took_ms(), u64::from(SLOW_MS * SLOW_MESSAGES));
                // One more receive sees the end.
                call.must_complete_within(least + u64::from(2 * SLOW_MS) + bounds.round_trip_ms)?;
                if took < Some(least) || call.blocked_sends.is_empty() {
                    return Err(call.violation("must wait for its reader"));
                }
            }
            Load::Lock(_) | Load::Force(_) | Load::Change(_) => {}
            Load::Stream(_) => {
                let (input, _) = CAPACITIES[usize::from(FAST_CAPACITIES)];
                // One round trip each time that the credit is used up, and for the open and the
                // end.
                let trips = u64::from(FAST_MESSAGES / input) + 3;
                call.must_complete_within(trips * bounds.round_trip_ms)?;
            }
        }
    }
    if has_unread { Ok(()) } else { Err("a stream must not be read".to_owned()) }
}

/// Checks that the handler sends up to its credit, is blocked, and is cancelled with its call.
fn must_block_and_be_cancelled(
    call: &CallHistory<'_>,
    stream: &StreamPlan,
    bounds: &Bounds,
) -> CheckResult {
    let (_, output) = CAPACITIES[usize::from(stream.capacities)];
    let sent = call.sent.get(&StreamSide::Callee).copied().unwrap_or(0);
    let waits: Vec<_> = call.blocked_sends.iter().map(|(_, end, number)| (*end, *number)).collect();
    if sent != output || waits != [(StreamSide::Callee, output + 1)] {
        return Err(call.violation(&format!(
            "has credit for {output} messages: its handler sent {sent}, and waited for {waits:?}"
        )));
    }
    let cancel_after = u64::from(stream.cancel_after_ms.unwrap_or(0));
    let lived_ms = call.took_ms().unwrap_or(0);
    let Some((cancelled_ms, Outcome::Cancelled)) =
        call.ended.filter(|_| lived_ms + bounds.timer_resolution_ms > cancel_after)
    else {
        return Err(call.violation("must live until it is cancelled"));
    };
    match call.handler_ended {
        Some((ended, HandlerEnd::Cancelled))
            if (cancelled_ms..=cancelled_ms + bounds.round_trip_ms).contains(&ended) =>
        {
            Ok(())
        }
        ended => Err(call.violation(&format!("has a handler that must be cancelled: {ended:?}"))),
    }
}
