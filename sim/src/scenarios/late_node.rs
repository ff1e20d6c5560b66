//! One node starts seconds after all others.
//!
//! Attempts to dial it hang until they time out, and the back-off between them grows, so there are
//! few. Calls to it are refused at once. When it starts, it connects at once to the nodes that it
//! dials itself. Those that dial it may be in a hanging attempt, or in the wait after it, and
//! connect at their next attempt. No other node is affected.

use rand::RngExt;

use super::history::{CallHistory, History, dialer_first};
use super::{Scenario, add_steady_requests, new_plan};
use crate::bounds::Bounds;
use crate::event::{Event, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "late_node",
    about: "a node starts late: the others make few attempts, and connect soon after it starts",
    plan,
    expect,
};

const NODES: u8 = 4;
/// Time by which all other nodes are connected.
const CONNECTED_MS: u64 = 2_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("late_node", seed, NODES, 40_000);
    plan.cluster.tick_ms = 5;
    let late = Node(rng.random_range(0..NODES));
    plan.cluster.late.push((late, rng.random_range(3_000..25_000)));
    add_steady_requests(&mut plan, &mut rng, 400);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let [(late, starts)] = plan.cluster.late.as_slice() else {
        return Err("the plan lacks a late node".to_owned());
    };
    let late = *late;
    match history.starts(late) {
        [started] if *started >= *starts => {}
        started => return Err(format!("{late} must start once, after {starts} ms: {started:?}")),
    }
    let started = history.starts(late).first().copied().unwrap_or(0);
    history.others_must_be_unaffected(CONNECTED_MS, |a, b| a == late || b == late)?;
    for other in (0..NODES).map(Node).filter(|other| *other != late) {
        let (dialer, acceptor) = dialer_first(late, other);
        let handshake = 4 * bounds.round_trip_ms;
        let limit = if dialer == late {
            handshake
        } else {
            bounds.attempt_ms() + bounds.backoff_ms() + handshake
        };
        history.must_connect(late, other, started, limit)?;
        history.must_stay_connected(late, other, started + limit, history.healed_ms)?;
        must_keep_trying(&history, (dialer, acceptor), started, &bounds)?;
        let mut after = history.calls.iter().filter(|call| call.at_ms > started + limit);
        after
            .by_ref()
            .filter(|call| call.is_between(late, other))
            .try_for_each(CallHistory::must_complete)?;
    }
    for call in history.calls.iter().filter(|call| call.concerns(late) && call.at_ms < *starts) {
        let is_refused = matches!(call.ended, Some((_, Outcome::NotConnected)))
            && call.took_ms() <= Some(bounds.timer_resolution_ms);
        // The late node makes no calls: it does not run.
        if call.from() == late && call.made_ms.is_some() || call.to() == late && !is_refused {
            return Err(call.violation("must be refused at once"));
        }
    }
    Ok(())
}

/// Checks the number of attempts: each hangs as long as a handshake may take, and a wait follows
/// it.
fn must_keep_trying(
    history: &History<'_>,
    (dialer, acceptor): (Node, Node),
    started: u64,
    bounds: &Bounds,
) -> CheckResult {
    let attempts = history.attempts(dialer, acceptor, 0, started);
    let times = |each_ms| usize::try_from(started / each_ms).unwrap_or(0);
    let (least, most) =
        (times(bounds.attempt_ms() + bounds.backoff_ms()), times(bounds.attempt_ms()) + 1);
    let is_late = history.starts(dialer).first() == Some(&started);
    if !is_late && !(least..=most).contains(&attempts) {
        return Err(format!(
            "{dialer} tried {attempts} times to connect to {acceptor} before it started, \
             {least} to {most} are expected"
        ));
    }
    Ok(())
}
