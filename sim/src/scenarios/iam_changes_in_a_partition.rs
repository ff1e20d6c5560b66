//! A cluster falls into two, and both sides change the same items.
//!
//! Each side goes on by itself: an item of its own is put, one is put on both sides, and of two others one
//! side deletes what the other puts. While they cannot reach each other the sides differ. When they can
//! they become the same without waiting for their intervals, each item as it was changed last, on
//! whichever side that was.

use rand::RngExt;

use super::iam_history::{Copies, Is, begin_copies, is_mend, last_fault};
use super::{Scenario, history::fault_at, sort};
use crate::event::{Event, EventKind, IamEvent, ItemRecord};
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, Fault, ItemChange, Load, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_changes_in_a_partition",
    about: "two halves change the same items, and are the same soon after they reach each other",
    plan,
    expect,
};

const NODES: u8 = 5;
/// Nodes of the first side.
const SIDE: u8 = 2;
/// All are there from the beginning: put on both sides, put on one and deleted on the other, and put on
/// one side alone.
const BOTH: u8 = 0;
const PUT_AND_DELETED: u8 = 1;
const DELETED_AND_PUT: u8 = 2;
const OWN: [u8; 2] = [30, 31];

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_copies("iam_changes_in_a_partition", seed, NODES, 100_000);
    let cut = rng.random_range(4_000..6_000);
    let mended = cut + rng.random_range(15_000..25_000);
    for (a, b) in across() {
        plan.faults.push((cut, Fault::Cut { a, b }));
        plan.faults.push((mended, Fault::Repair { a, b }));
    }
    let (put, delete) = (ItemChange::Put, ItemChange::Delete);
    let sides = [
        [(BOTH, put), (PUT_AND_DELETED, put), (DELETED_AND_PUT, delete), (OWN[0], put)],
        [(BOTH, put), (PUT_AND_DELETED, delete), (DELETED_AND_PUT, put), (OWN[1], put)],
    ];
    for (changes, nodes) in sides.into_iter().zip([0..SIDE, SIDE..NODES]) {
        for (item, change) in changes {
            let on = Node(rng.random_range(nodes.clone()));
            let at = rng.random_range(cut + 500..mended - 6_000);
            plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
        }
    }
    sort(&mut plan);
    plan
}

/// All pairs with one on each side.
fn across() -> impl Iterator<Item = (Node, Node)> {
    (0..SIDE).flat_map(|a| (SIDE..NODES).map(move |b| (Node(a), Node(b))))
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let copies = Copies::of(plan, events);
    let cut = fault_at(plan, |fault| matches!(fault, Fault::Cut { .. }))?;
    let mended = last_fault(plan, is_mend)?;
    let apart = mended - plan.cluster.tick_ms;
    for (item, is_put_there) in [(PUT_AND_DELETED, true), (DELETED_AND_PUT, false)] {
        for node in (0..NODES).map(Node) {
            let is_there = (node.0 < SIDE) == is_put_there;
            let kind = if is_there { Is::There } else { Is::Gone };
            copies.must_see(node, item, kind, apart)?;
        }
    }
    let value = |node| {
        let seen = copies.seen(Node(node), apart).unwrap_or_default();
        seen.iter().find(|(item, _)| *item == BOTH).map(|(_, value)| *value)
    };
    if value(0) == value(NODES - 1) {
        return Err(format!("the sides must differ in item {BOTH}: {:?}", value(0)));
    }
    copies.must_be_same_soon(mended)?;
    for item in [BOTH, PUT_AND_DELETED, DELETED_AND_PUT] {
        let last = last_change(events, item, cut).ok_or("nothing was changed")?;
        let kind = if last.value.is_some() { Is::There } else { Is::Gone };
        (0..NODES)
            .map(Node)
            .try_for_each(|node| copies.must_see(node, item, kind, copies.end_ms()))?;
    }
    Ok(())
}

/// The latest record of an item that anybody made.
fn last_change(events: &[Event], item: u8, since_ms: u64) -> Option<ItemRecord> {
    let changes = events.iter().filter(|event| event.at_ms >= since_ms);
    let changes = changes.filter_map(|event| match &event.kind {
        EventKind::Iam(IamEvent::Persisted { record: kept, .. }) if kept.item == item => {
            Some(*kept)
        }
        _ => None,
    });
    changes.max_by_key(|kept| kept.version)
}
