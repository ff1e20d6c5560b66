//! One node has another secret than all others.
//!
//! No node accepts its connections, and it accepts none ([P2]): each dialer gets the reason, a
//! token with a wrong signature. Every call from or to the node is refused at once. The other nodes
//! are unaffected. When it restarts with the right secret, it connects to all others at their next
//! attempts.
//!
//! [P2]: grid::protocol#p2

use rand::RngExt;

use super::history::{History, dialer_first};
use super::{Scenario, add_steady_requests, new_plan};
use crate::bounds::Bounds;
use crate::event::{ConnectionState, Event, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "wrong_token",
    about: "a node with another secret is rejected with the reason, until it has the right one",
    plan,
    expect,
};

const NODES: u8 = 4;
/// Time by which all other nodes are connected.
const CONNECTED_MS: u64 = 2_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("wrong_token", seed, NODES, 25_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.wrong_secret_nodes.push(Node(rng.random_range(0..NODES)));
    add_steady_requests(&mut plan, &mut rng, 300);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (history, bounds) = (History::of(plan, events), Bounds::of(plan));
    let [outsider] = *plan.cluster.wrong_secret_nodes.as_slice() else {
        return Err("the plan lacks a node with a wrong secret".to_owned());
    };
    let healed = history.healed_ms;
    history.others_must_be_unaffected(CONNECTED_MS, |a, b| a == outsider || b == outsider)?;
    for call in history.calls.iter().filter(|call| call.concerns(outsider)) {
        let is_refused = matches!(call.ended, Some((_, Outcome::NotConnected)));
        if call.is_served || !is_refused || call.took_ms() > Some(bounds.timer_resolution_ms) {
            return Err(call.violation("must be refused at once"));
        }
    }
    for other in (0..NODES).map(Node).filter(|other| *other != outsider) {
        let (dialer, acceptor) = dialer_first(outsider, other);
        must_be_rejected(&history, (dialer, acceptor), healed)?;
        history.must_back_off((dialer, acceptor), (0, healed), &bounds.limits)?;
        // It restarts and dials at once; the others dial after their longest back-off.
        let wait = if dialer == outsider { 0 } else { bounds.backoff_ms() };
        let limit = wait + bounds.first_backoff_ms() + 4 * bounds.round_trip_ms;
        history.must_connect(outsider, other, healed, limit)?;
    }
    match history.starts(outsider) {
        [_, again] if *again >= healed => Ok(()),
        starts => {
            Err(format!("{outsider} must start again once all faults are healed: {starts:?}"))
        }
    }
}

/// Checks that each attempt is rejected because of its token.
fn must_be_rejected(
    history: &History<'_>,
    (dialer, acceptor): (Node, Node),
    healed: u64,
) -> CheckResult {
    let mut rejections = 0;
    for change in history.changes(dialer, acceptor).filter(|change| change.at_ms < healed) {
        let cause = change.cause.unwrap_or_default();
        match change.state {
            ConnectionState::Connected => {
                return Err(format!("{dialer} must not be connected to {acceptor}: {change:?}"));
            }
            ConnectionState::Backoff
                if cause.contains("auth token: signed with another secret") =>
            {
                rejections += 1;
            }
            // The very first attempts may come before the other node listens.
            ConnectionState::Backoff if rejections > 0 => {
                return Err(format!("{dialer} must get the reason, its token: {cause}"));
            }
            ConnectionState::Backoff | ConnectionState::Connecting | ConnectionState::Shutdown => {}
        }
    }
    if rejections < 3 {
        return Err(format!("{acceptor} must refuse {dialer} repeatedly: {rejections} times"));
    }
    Ok(())
}
