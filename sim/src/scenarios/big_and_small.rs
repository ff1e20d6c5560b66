//! Messages of the largest size beside small ones, in both directions.
//!
//! Sixteen megabytes at once, more than once: together they are more than the queue holds, so that
//! the last must wait for room. Small calls of the same connection go on beside them and are answered
//! within two round trips more than usual, and the large ones arrive whole. What the simulated network
//! counts is segments, not bytes: this shows that nothing waits for the wrong thing, and how long
//! bytes take is for a benchmark to say.

use rand::RngExt;

use super::history::{Call, History};
use super::{Scenario, begin, small, sort, two};
use crate::bounds::Bounds;
use crate::event::{Event, EventKind};
use crate::invariants::CheckResult;
use crate::plan::{Load, Plan, RequestPlan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "big_and_small",
    about: "messages of 16 MiB arrive whole, and small ones beside them are not kept waiting",
    plan,
    expect,
};

/// Bytes of a large payload: the largest message, less what its header may take.
const BIG_BYTES: u32 = 16 * 1024 * 1024 - 128;
/// Large requests that one node makes at once: more than its queue holds.
const BIG: usize = 3;
/// How long small calls are made before and after the large ones, in milliseconds.
const AROUND_MS: u64 = 300;
const BIG_AT_MS: u64 = 1_500;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("big_and_small", seed, 2, 2_500);
    plan.cluster.socket_segments = 64;
    let (from, to) = two(&mut rng, 2);
    for _ in 0..BIG {
        let at = BIG_AT_MS + rng.random_range(0..3);
        plan.load.push((at, Load::Request(RequestPlan { bytes: BIG_BYTES, ..small(from, to) })));
    }
    let answered = RequestPlan { response_bytes: BIG_BYTES, ..small(from, to) };
    plan.load.push((BIG_AT_MS + rng.random_range(0..20), Load::Request(answered)));
    for (from, to) in [(from, to), (to, from)] {
        for at in BIG_AT_MS - AROUND_MS..BIG_AT_MS + AROUND_MS {
            plan.load.push((at, Load::Request(small(from, to))));
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
        call.must_be_answered_within(bounds.deadline_ms())?;
    }
    for call in &small {
        call.must_be_answered_within(3 * bounds.round_trip_ms)?;
    }
    if big.len() <= BIG || !small.iter().any(|small| is_overtaking(small, &big)) {
        return Err("small calls must be made and answered while big ones are under way".to_owned());
    }
    let sizes = events.iter().filter_map(|event| match &event.kind {
        EventKind::MessageSent { message, .. } => Some(message.bytes),
        _ => None,
    });
    let whole = sizes.filter(|bytes| *bytes == BIG_BYTES).count();
    if whole != big.len() {
        return Err(format!("{whole} large messages were written, {} were asked for", big.len()));
    }
    Ok(())
}

/// Made while a large one was under way, and answered.
fn is_overtaking(small: &Call<'_>, big: &[&Call<'_>]) -> bool {
    let Some(made) = small.made_ms else { return false };
    small.is_answered() && big.iter().any(|big| big.is_under_way(made))
}
