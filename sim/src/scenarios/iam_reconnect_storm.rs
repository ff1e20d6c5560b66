//! One node restarts every half second, and the link between two others is as unstable.
//!
//! Connections open and close faster than the interval of reconciliations. The work does not
//! multiply: a node loads once per process, however often its peers reconnect, and logs that once.
//! It reconciles with a peer at most once per minimum interval (invariant `iam_rate_limits` counts
//! both). After the storm, a change that was made during it is on every node.

use rand::RngExt;

use super::iam_history::{Presence, Replicas, last_fault};
use super::{Scenario, history::fault_at, new_plan, sort};
use crate::event::Event;
use crate::fault::{Bounce, Cut, Repair};
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, Fault, IamPlan, ItemChange, Load, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_reconnect_storm",
    about: "connections cycle twice a second: no load is repeated, reconciliations stay spaced",
    plan,
    expect,
};

const NODES: u8 = 4;
const DELETED: u8 = 0;
const NEW: u8 = 30;
/// Start of the storm.
const FROM_MS: u64 = 5_000;
/// End of the storm.
const TO_MS: u64 = 25_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("iam_reconnect_storm", seed, NODES, 90_000);
    plan.cluster.tick_ms = 5;
    // A lost connection is detected, and dialed again, within fractions of a second.
    plan.cluster.limits.ping_interval_ms = Some(100);
    plan.cluster.limits.backoff_max_ms = Some(250);
    plan.cluster.iam = Some(IamPlan { pools: 2, seeded: 12, refresh_ms: 300_000, store_ms: 0 });
    let [node, a, b, on] = nodes_from(rng.random_range(0..NODES));
    let mut at = FROM_MS;
    while at < TO_MS {
        plan.faults.push((at, Fault::Bounce(Bounce { node, grace_ms: 0 })));
        at += rng.random_range(350..600);
    }
    let mut at = FROM_MS;
    while at < TO_MS {
        plan.faults.push((at, Fault::Cut(Cut { a, b })));
        at += rng.random_range(350..450);
        plan.faults.push((at, Fault::Repair(Repair { a, b })));
        at += rng.random_range(250..350);
    }
    for (item, change) in [(DELETED, ItemChange::Delete), (NEW, ItemChange::Put)] {
        let at = rng.random_range(FROM_MS + 2_000..TO_MS - 2_000);
        plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
    }
    sort(&mut plan);
    plan
}

/// Returns all nodes, starting with this one.
fn nodes_from(first: u8) -> [Node; NODES as usize] {
    std::array::from_fn(|index| Node((first + u8::try_from(index).unwrap_or(0)) % NODES))
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let replicas = Replicas::of(plan, events);
    let started = fault_at(plan, |fault| matches!(fault, Fault::Bounce(_)))?;
    let last = last_fault(plan, |_| true)?;
    let bounced = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Bounce(Bounce { node, .. }) => Some(*node),
        _ => None,
    });
    let [node, a, b, on] = nodes_from(bounced.ok_or("the plan lacks a bounce")?.0);
    for (one, other) in [(on, node), (a, node), (a, b), (b, a)] {
        let within = |times: Vec<u64>| {
            times.into_iter().filter(|at_ms| (started..last).contains(at_ms)).count()
        };
        let connects = within(replicas.connects(one, other));
        let reconciliations = within(replicas.reconciliations(one, other));
        let spaced = usize::try_from((last - started) / 1_000).unwrap_or(usize::MAX);
        if connects <= spaced || reconciliations < 2 || reconciliations > spaced + 3 {
            return Err(format!(
                "{one} must reach {other} more often than it reconciles: {connects} times, and \
                 {reconciliations} reconciliations in {spaced} s"
            ));
        }
    }
    for bystander in [a, b, on] {
        let (started, loads) = (replicas.starts(bystander).len(), replicas.loads(bystander));
        if (started, loads) != (1, 1) {
            return Err(format!(
                "{bystander} must start and load once: {started} times, and {loads}"
            ));
        }
    }
    replicas.must_converge_soon(last)?;
    for node in (0..NODES).map(Node) {
        replicas.must_see(node, DELETED, Presence::Absent, replicas.end_ms())?;
        replicas.must_see(node, NEW, Presence::Present, replicas.end_ms())?;
    }
    Ok(())
}
