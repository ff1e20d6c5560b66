//! A node is down while an item that it has is deleted, and others are put.
//!
//! When it begins again its pools still hold what was deleted, as it was left. It may show that until it has
//! reached a peer, and no longer: it takes the deletion, keeps it, and nobody takes from it what is gone.

use rand::RngExt;

use super::iam_history::{begin_copies, soon_ms};
use super::{Scenario, history::fault_at, sort};
use crate::event::{Event, EventKind, IamEvent, ItemRecord};
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, Fault, ItemChange, Load, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_deletion_missed",
    about: "an item is deleted while a node that has it is down: the node takes the deletion",
    plan,
    expect,
};

const NODES: u8 = 3;
/// What is deleted, and what is put meanwhile.
const GONE: u8 = 0;
const NEW: u8 = 30;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_copies("iam_deletion_missed", seed, NODES, 40_000);
    let node = Node(rng.random_range(0..NODES));
    let on = Node((node.0 + 1) % NODES);
    plan.faults.push((rng.random_range(6_000..8_000), Fault::PowerLoss { node }));
    plan.faults.push((rng.random_range(14_000..20_000), Fault::Restart { node }));
    for (item, change) in [(GONE, ItemChange::Delete), (NEW, ItemChange::Put)] {
        let at = rng.random_range(9_000..12_000);
        plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let is_restart = |fault: &Fault| matches!(fault, Fault::Restart { .. });
    let restarted = fault_at(plan, is_restart)?;
    let node = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Restart { node } => Some(*node),
        _ => None,
    });
    let bound = restarted + soon_ms(plan);
    for item in [GONE, NEW] {
        let taken = events.iter().find(|event| {
            let is_it = |kept: &ItemRecord| kept.item == item && kept.value.is_some() == (item == NEW);
            matches!(&event.kind, EventKind::Iam(IamEvent::Persisted { record: kept, .. }) if is_it(kept))
                && event.node == node
        });
        match taken.map(|event| event.at_ms) {
            Some(at_ms) if (restarted..=bound).contains(&at_ms) => {}
            other => {
                return Err(format!(
                    "item {item} must be applied by the node that missed it after {restarted} ms: {other:?}"
                ));
            }
        }
    }
    Ok(())
}
