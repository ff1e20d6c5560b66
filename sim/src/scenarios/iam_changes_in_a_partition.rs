//! A cluster is partitioned into two sides, and both change the same items.
//!
//! Each side continues on its own: each puts an item of its own, both put one item, and of two
//! others one side deletes what the other puts. While they are partitioned, the sides differ. Once
//! the links are repaired they converge without waiting for their intervals, and the last change of
//! each item wins, whichever side made it.

use rand::RngExt;

use super::iam_history::{Presence, Replicas, is_repair, last_fault, new_iam_plan};
use super::{Scenario, history::fault_at, sort};
use crate::event::{Event, EventKind, IamEvent, ItemRecord};
use crate::fault::{Cut, Repair};
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, Fault, ItemChange, Load, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_changes_in_a_partition",
    about: "two sides change the same items in a partition, and converge soon after it heals",
    plan,
    expect,
};

const NODES: u8 = 5;
/// Number of nodes of the first side.
const SIDE: u8 = 2;
/// Items: put on both sides, put on one side and deleted on the other. Those of `ONE_SIDE` are put
/// on one side only.
const BOTH: u8 = 0;
const PUT_AND_DELETED: u8 = 1;
const DELETED_AND_PUT: u8 = 2;
const ONE_SIDE: [u8; 2] = [30, 31];

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_iam_plan("iam_changes_in_a_partition", seed, NODES, 100_000);
    let cut = rng.random_range(4_000..6_000);
    let repaired = cut + rng.random_range(15_000..25_000);
    for (a, b) in pairs_across() {
        plan.faults.push((cut, Fault::Cut(Cut { a, b })));
        plan.faults.push((repaired, Fault::Repair(Repair { a, b })));
    }
    let (put, delete) = (ItemChange::Put, ItemChange::Delete);
    let sides = [
        [(BOTH, put), (PUT_AND_DELETED, put), (DELETED_AND_PUT, delete), (ONE_SIDE[0], put)],
        [(BOTH, put), (PUT_AND_DELETED, delete), (DELETED_AND_PUT, put), (ONE_SIDE[1], put)],
    ];
    for (changes, nodes) in sides.into_iter().zip([0..SIDE, SIDE..NODES]) {
        for (item, change) in changes {
            let on = Node(rng.random_range(nodes.clone()));
            let at = rng.random_range(cut + 500..repaired - 6_000);
            plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
        }
    }
    sort(&mut plan);
    plan
}

/// Returns all pairs with one node on each side.
fn pairs_across() -> impl Iterator<Item = (Node, Node)> {
    (0..SIDE).flat_map(|a| (SIDE..NODES).map(move |b| (Node(a), Node(b))))
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let replicas = Replicas::of(plan, events);
    let cut = fault_at(plan, |fault| matches!(fault, Fault::Cut(_)))?;
    let repaired = last_fault(plan, is_repair)?;
    let before_repair = repaired - plan.cluster.tick_ms;
    for (item, is_put_there) in [(PUT_AND_DELETED, true), (DELETED_AND_PUT, false)] {
        for node in (0..NODES).map(Node) {
            let is_there = (node.0 < SIDE) == is_put_there;
            let presence = if is_there { Presence::Present } else { Presence::Absent };
            replicas.must_see(node, item, presence, before_repair)?;
        }
    }
    let value = |node| {
        let snapshot = replicas.snapshot(Node(node), before_repair).unwrap_or_default();
        snapshot.iter().find(|(item, _)| *item == BOTH).map(|(_, value)| *value)
    };
    if value(0) == value(NODES - 1) {
        return Err(format!("the sides must differ in item {BOTH}: {:?}", value(0)));
    }
    replicas.must_converge_soon(repaired)?;
    for item in [BOTH, PUT_AND_DELETED, DELETED_AND_PUT] {
        let last = last_change(events, item, cut).ok_or("the item was not changed")?;
        let presence = if last.value.is_some() { Presence::Present } else { Presence::Absent };
        (0..NODES)
            .map(Node)
            .try_for_each(|node| replicas.must_see(node, item, presence, replicas.end_ms()))?;
    }
    Ok(())
}

/// Returns the latest record of an item that any node persisted.
fn last_change(events: &[Event], item: u8, since_ms: u64) -> Option<ItemRecord> {
    let changes = events.iter().filter(|event| event.at_ms >= since_ms);
    let changes = changes.filter_map(|event| match &event.kind {
        EventKind::Iam(IamEvent::Persisted { record, .. }) if record.item == item => Some(*record),
        _ => None,
    });
    changes.max_by_key(|record| record.version)
}
