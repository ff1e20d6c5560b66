//! A node is down while an item that it has is deleted, and another is put.
//!
//! When it starts again, its pools still hold the deleted item. It may show the item until it has
//! reached a peer, and no longer: it fetches and persists the tombstone, and no peer fetches the
//! deleted item from it.

use rand::RngExt;

use super::iam_history::{new_iam_plan, soon_limit_ms};
use super::{Scenario, history::fault_at, sort};
use crate::event::{Event, EventKind, IamEvent};
use crate::fault::{PowerLoss, Restart};
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, Fault, ItemChange, Load, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_deletion_missed",
    about: "an item is deleted while a node that has it is down: the node applies the deletion",
    plan,
    expect,
};

const NODES: u8 = 3;
/// The deleted item, and the item that is put.
const DELETED: u8 = 0;
const NEW: u8 = 30;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_iam_plan("iam_deletion_missed", seed, NODES, 40_000);
    let node = Node(rng.random_range(0..NODES));
    let on = Node((node.0 + 1) % NODES);
    plan.faults.push((rng.random_range(6_000..8_000), Fault::PowerLoss(PowerLoss { node })));
    plan.faults.push((rng.random_range(14_000..20_000), Fault::Restart(Restart { node })));
    for (item, change) in [(DELETED, ItemChange::Delete), (NEW, ItemChange::Put)] {
        let at = rng.random_range(9_000..12_000);
        plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let is_restart = |fault: &Fault| matches!(fault, Fault::Restart(_));
    let restarted = fault_at(plan, is_restart)?;
    let node = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Restart(Restart { node }) => Some(*node),
        _ => None,
    });
    let bound = restarted + soon_limit_ms(plan);
    for item in [DELETED, NEW] {
        let persisted = events.iter().find(|event| {
            let EventKind::Iam(IamEvent::Persisted { record, .. }) = &event.kind else {
                return false;
            };
            let is_put = record.value.is_some();
            record.item == item && is_put == (item == NEW) && event.node == node
        });
        match persisted.map(|event| event.at_ms) {
            Some(at_ms) if (restarted..=bound).contains(&at_ms) => {}
            other => {
                return Err(format!(
                    "item {item} must be applied by the node that missed it after {restarted} ms: \
                     {other:?}"
                ));
            }
        }
    }
    Ok(())
}
