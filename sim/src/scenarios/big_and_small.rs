//! Messages of the largest size interleaved with small ones, in both directions.
//!
//! Several messages of 16 MiB are sent at once: together they exceed the queue, so the last must
//! wait for queue space. Small calls on the same connection continue and complete within two round
//! trips more than usual, and the large messages arrive intact. The simulated network counts
//! segments, not bytes: this scenario shows that no call waits for the wrong message; a benchmark
//! measures how long bytes take.

use rand::RngExt;

use super::history::{CallHistory, History};
use super::{Scenario, new_plan, small_request, sort, two_nodes};
use crate::bounds::Bounds;
use crate::event::{Event, EventKind};
use crate::invariants::CheckResult;
use crate::plan::{Load, Plan, RequestPlan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "big_and_small",
    about: "messages of 16 MiB arrive intact and do not delay concurrent small ones",
    plan,
    expect,
};

/// Bytes of a large payload: the largest message, less what its header may take.
const BIG_BYTES: u32 = 16 * 1024 * 1024 - 128;
/// Number of large requests that one node makes at once: more than its queue holds.
const BIG: usize = 3;
/// Time before and after the large calls in which small ones are made, in milliseconds.
const SMALL_CALLS_MARGIN_MS: u64 = 300;
const BIG_AT_MS: u64 = 1_500;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("big_and_small", seed, 2, 2_500);
    plan.cluster.socket_segments = 64;
    let (from, to) = two_nodes(&mut rng, 2);
    for _ in 0..BIG {
        let at = BIG_AT_MS + rng.random_range(0..3);
        plan.load
            .push((at, Load::Request(RequestPlan { bytes: BIG_BYTES, ..small_request(from, to) })));
    }
    let large_response = RequestPlan { response_bytes: BIG_BYTES, ..small_request(from, to) };
    plan.load.push((BIG_AT_MS + rng.random_range(0..20), Load::Request(large_response)));
    for (from, to) in [(from, to), (to, from)] {
        for at in BIG_AT_MS - SMALL_CALLS_MARGIN_MS..BIG_AT_MS + SMALL_CALLS_MARGIN_MS {
            plan.load.push((at, Load::Request(small_request(from, to))));
        }
    }
    sort(&mut plan);
    plan
}

fn is_big(load: &Load) -> bool {
    matches!(load, Load::Request(plan) if plan.bytes.max(plan.response_bytes) == BIG_BYTES)
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let (big, small): (Vec<_>, Vec<_>) = history.calls.iter().partition(|call| is_big(call.load));
    for call in &big {
        call.must_complete_within(bounds.deadline_ms())?;
    }
    for call in &small {
        call.must_complete_within(3 * bounds.round_trip_ms)?;
    }
    if big.len() <= BIG || !small.iter().any(|small| is_overtaking(small, &big)) {
        return Err("small calls must complete while large ones are outstanding".to_owned());
    }
    let sizes = events.iter().filter_map(|event| match &event.kind {
        EventKind::MessageSent { message, .. } => Some(message.bytes),
        _ => None,
    });
    let written = sizes.filter(|bytes| *bytes == BIG_BYTES).count();
    if written != big.len() {
        return Err(format!("{written} large messages were written, {} were requested", big.len()));
    }
    Ok(())
}

/// Returns whether it was made while a large call was outstanding, and completed.
fn is_overtaking(small: &CallHistory<'_>, big: &[&CallHistory<'_>]) -> bool {
    let Some(made) = small.made_ms else { return false };
    small.is_completed() && big.iter().any(|big| big.is_outstanding(made))
}
