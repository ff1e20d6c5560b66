//! A node is cut off from all others while it loads, and has missed changes before.
//!
//! It was down while an item was put and another deleted, and waits for one of its pools when the network
//! breaks. It loads what its own pools hold all the same, once, and shows that: a server does not need
//! its peers to serve. When the network is whole it takes what it missed, without waiting for its
//! interval.

use rand::RngExt;

use super::iam_history::{Copies, Is, begin_copies, is_mend, last_fault};
use super::{Scenario, history::fault_at, sort};
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, Fault, ItemChange, Load, Node, Outage, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_partition_in_load",
    about: "a node is cut off while it loads: it shows what its own pools hold, and catches up later",
    plan,
    expect,
};

const NODES: u8 = 4;
/// What is deleted, and what is put, while the node is down.
const GONE: u8 = 0;
const NEW: u8 = 30;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_copies("iam_partition_in_load", seed, NODES, 100_000);
    let node = Node(rng.random_range(0..NODES));
    let others = || (0..NODES).map(Node).filter(|other| *other != node);
    let on = Node((node.0 + 1) % NODES);
    plan.faults.push((rng.random_range(4_000..6_000), Fault::PowerLoss { node }));
    for (item, change) in [(GONE, ItemChange::Delete), (NEW, ItemChange::Put)] {
        let at = rng.random_range(7_000..9_000);
        plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
    }
    let begins = rng.random_range(12_000..14_000);
    let (pool, reason) = (rng.random_range(0..2), Outage::Unavailable);
    plan.faults.push((begins, Fault::PoolDown { node, pool, reason }));
    plan.faults.push((begins, Fault::Restart { node }));
    let cut = begins + rng.random_range(0..2_000);
    plan.faults.extend(others().map(|b| (cut, Fault::Cut { a: node, b })));
    let online = cut + rng.random_range(1_000..4_000);
    plan.faults.push((online, Fault::PoolUp { node, pool }));
    let mended = online + rng.random_range(12_000..20_000);
    plan.faults.extend(others().map(|b| (mended, Fault::Repair { a: node, b })));
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let copies = Copies::of(plan, events);
    let online = fault_at(plan, |fault| matches!(fault, Fault::PoolUp { .. }))?;
    let mended = last_fault(plan, is_mend)?;
    let node = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Restart { node } => Some(*node),
        _ => None,
    });
    let node = node.ok_or("the plan lacks a restart")?;
    if copies.seen(node, online - plan.cluster.tick_ms).is_some() {
        return Err(format!("{node} must wait for its last pool until {online} ms"));
    }
    // As it was left, until the others can be reached.
    let alone = mended - plan.cluster.tick_ms;
    copies.must_see(node, GONE, Is::There, alone)?;
    copies.must_see(node, NEW, Is::Gone, alone)?;
    let (begun, loads) = (copies.starts(node).len(), copies.loads(node));
    if (begun, loads) != (2, 2) {
        return Err(format!("{node} must start and load twice: {begun} times, and {loads}"));
    }
    copies.must_be_same_soon(mended)?;
    copies.must_see(node, GONE, Is::Gone, copies.end_ms())?;
    copies.must_see(node, NEW, Is::There, copies.end_ms())
}
