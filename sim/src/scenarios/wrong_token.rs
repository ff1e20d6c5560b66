//! One node has another secret than all others.
//!
//! Nobody takes its connections, and it takes nobody's (P2): whoever dials is told that its token is
//! no good. It serves nobody and nobody serves it: each call from or to it is refused at once. The
//! others go on as if it were not there. When it is given the right secret and begins again, it is
//! connected to everybody after their next attempts.

use rand::RngExt;

use super::history::{History, dialler_first};
use super::{Scenario, begin, steady};
use crate::bounds::Bounds;
use crate::event::{Event, LinkState, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "wrong_token",
    about: "a node with another secret is refused with the reason, until it has the right one",
    plan,
    expect,
};

const NODES: u8 = 4;
/// When everybody else has long been connected.
const BEGUN_MS: u64 = 2_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("wrong_token", seed, NODES, 25_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.wrong_secret_nodes.push(Node(rng.random_range(0..NODES)));
    steady(&mut plan, &mut rng, 300);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let [stranger] = *plan.cluster.wrong_secret_nodes.as_slice() else {
        return Err("the plan lacks a stranger".to_owned());
    };
    let healed = history.healed_ms;
    history.others_must_be_untouched(BEGUN_MS, |a, b| a == stranger || b == stranger)?;
    for call in history.calls.iter().filter(|call| call.concerns(stranger)) {
        let is_refused = matches!(call.ended, Some((_, Outcome::NotConnected)));
        if call.is_served || !is_refused || call.took_ms() > Some(bounds.ticks_ms) {
            return Err(call.complaint("must be refused at once"));
        }
    }
    for other in (0..NODES).map(Node).filter(|other| *other != stranger) {
        let (dialler, acceptor) = dialler_first(stranger, other);
        must_be_refused(&history, (dialler, acceptor), healed)?;
        history.must_not_spin((dialler, acceptor), (0, healed), &bounds.limits)?;
        // It ends and begins again; then it dials at once, and the others after their longest wait.
        let wait = if dialler == stranger { 0 } else { bounds.backoff_ms() };
        let limit = wait + bounds.first_backoff_ms() + 4 * bounds.round_trip_ms;
        history.must_connect(stranger, other, healed, limit)?;
    }
    match history.starts(stranger) {
        [_, again] if *again >= healed => Ok(()),
        starts => {
            Err(format!("{stranger} must start again once all faults are healed: {starts:?}"))
        }
    }
}

/// For its token, each time, and told so.
fn must_be_refused(
    history: &History<'_>,
    (dialler, acceptor): (Node, Node),
    healed: u64,
) -> CheckResult {
    let mut refused = 0;
    for change in history.changes(dialler, acceptor).filter(|change| change.at_ms < healed) {
        let cause = change.cause.unwrap_or_default();
        match change.state {
            LinkState::Connected => {
                return Err(format!("{dialler} must not be connected to {acceptor}: {change:?}"));
            }
            LinkState::Backoff if cause.contains("auth token: signed with another secret") => {
                refused += 1;
            }
            // The very first dials may come before the other one listens.
            LinkState::Backoff if refused > 0 => {
                return Err(format!("{dialler} must be told that its token is no good: {cause}"));
            }
            LinkState::Backoff | LinkState::Connecting | LinkState::Shutdown => {}
        }
    }
    if refused < 3 {
        return Err(format!("{acceptor} must refuse {dialler} again and again: {refused}"));
    }
    Ok(())
}
