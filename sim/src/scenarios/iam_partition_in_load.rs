//! A node is cut off from all others while it loads, and has missed changes before.
//!
//! It was down while an item was put and another deleted, and waits for one of its pools when the
//! links are cut. It still loads the records of its own pools, once, and shows them: a server does
//! not need its peers to serve. Once the links are repaired, it fetches the missed changes without
//! waiting for its interval.

use rand::RngExt;

use super::iam_history::{Presence, Replicas, is_repair, last_fault, new_iam_plan};
use super::{Scenario, history::fault_at, sort};
use crate::event::Event;
use crate::fault::{Cut, PoolDown, PoolUp, PowerLoss, Repair, Restart};
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, Fault, ItemChange, Load, Node, Outage, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_partition_in_load",
    about: "a node is cut off while it loads: it shows its own records, and catches up later",
    plan,
    expect,
};

const NODES: u8 = 4;
/// The items that are deleted and put while the node is down.
const DELETED: u8 = 0;
const NEW: u8 = 30;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_iam_plan("iam_partition_in_load", seed, NODES, 100_000);
    let node = Node(rng.random_range(0..NODES));
    let others = || (0..NODES).map(Node).filter(|other| *other != node);
    let on = Node((node.0 + 1) % NODES);
    plan.faults.push((rng.random_range(4_000..6_000), Fault::PowerLoss(PowerLoss { node })));
    for (item, change) in [(DELETED, ItemChange::Delete), (NEW, ItemChange::Put)] {
        let at = rng.random_range(7_000..9_000);
        plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
    }
    let starts_at = rng.random_range(12_000..14_000);
    let (pool, reason) = (rng.random_range(0..2), Outage::Unavailable);
    plan.faults.push((starts_at, Fault::PoolDown(PoolDown { node, pool, reason })));
    plan.faults.push((starts_at, Fault::Restart(Restart { node })));
    let cut = starts_at + rng.random_range(0..2_000);
    plan.faults.extend(others().map(|b| (cut, Fault::Cut(Cut { a: node, b }))));
    let online = cut + rng.random_range(1_000..4_000);
    plan.faults.push((online, Fault::PoolUp(PoolUp { node, pool })));
    let repaired = online + rng.random_range(12_000..20_000);
    plan.faults.extend(others().map(|b| (repaired, Fault::Repair(Repair { a: node, b }))));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let replicas = Replicas::of(plan, events);
    let online = fault_at(plan, |fault| matches!(fault, Fault::PoolUp(_)))?;
    let repaired = last_fault(plan, is_repair)?;
    let node = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Restart(Restart { node }) => Some(*node),
        _ => None,
    });
    let node = node.ok_or("the plan lacks a restart")?;
    if replicas.snapshot(node, online - plan.cluster.tick_ms).is_some() {
        return Err(format!("{node} must wait for its last pool until {online} ms"));
    }
    // Its old state, until it can reach the others.
    let alone = repaired - plan.cluster.tick_ms;
    replicas.must_see(node, DELETED, Presence::Present, alone)?;
    replicas.must_see(node, NEW, Presence::Absent, alone)?;
    let (started, loads) = (replicas.starts(node).len(), replicas.loads(node));
    if (started, loads) != (2, 2) {
        return Err(format!("{node} must start and load twice: {started} times, and {loads}"));
    }
    replicas.must_converge_soon(repaired)?;
    replicas.must_see(node, DELETED, Presence::Absent, replicas.end_ms())?;
    replicas.must_see(node, NEW, Presence::Present, replicas.end_ms())
}
