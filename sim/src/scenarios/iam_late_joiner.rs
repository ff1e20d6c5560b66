//! A node begins after the others have changed things.
//!
//! Its pools hold what all had at first. Meanwhile an item was put, one put anew and one deleted; and one
//! came and went that the node never had. It takes all of that from those it reaches, soon after it
//! began. It takes the deletion of what it never had as well: whoever else missed that deletion may come
//! back with the item, and must not find a server that does not know better.

use rand::RngExt;

use super::iam_history::{Copies, Is, soon_ms};
use super::{Scenario, begin, sort};
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, IamPlan, ItemChange, Load, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_late_joiner",
    about: "a node begins after items were put and deleted: it takes all of that, deletions too",
    plan,
    expect,
};

const NODES: u8 = 4;
const GONE: u8 = 0;
const CHANGED: u8 = 1;
const NEW: u8 = 30;
/// Put and deleted before the node begins.
const BRIEF: u8 = 33;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("iam_late_joiner", seed, NODES, 80_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.iam = Some(IamPlan {
        pools: rng.random_range(1..=3),
        seeded: 12,
        refresh_ms: 300_000,
        store_ms: rng.random_range(0..3) * 10,
    });
    let late = Node(rng.random_range(0..NODES));
    plan.cluster.late.push((late, rng.random_range(12_000..20_000)));
    let (put, delete) = (ItemChange::Put, ItemChange::Delete);
    let changes = [
        (4_000, GONE, delete),
        (4_000, CHANGED, put),
        (4_000, NEW, put),
        (4_000, BRIEF, put),
        (8_000, BRIEF, delete),
    ];
    for (from, item, change) in changes {
        let on = Node((late.0 + rng.random_range(1..NODES)) % NODES);
        let at = rng.random_range(from..from + 2_000);
        plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let copies = Copies::of(plan, events);
    let [(late, starts)] = plan.cluster.late.as_slice() else {
        return Err("the plan lacks a late node".to_owned());
    };
    let late = *late;
    let begun = match copies.starts(late).as_slice() {
        [begun] if begun >= starts => *begun,
        begun => return Err(format!("{late} must start once, after {starts} ms: {begun:?}")),
    };
    for node in (0..NODES).map(Node).filter(|node| *node != late) {
        copies.must_see(node, GONE, Is::Gone, begun)?;
        copies.must_see(node, NEW, Is::There, begun)?;
        copies.must_see(node, BRIEF, Is::Gone, begun)?;
    }
    copies.must_be_same_soon(begun)?;
    let limit = begun + soon_ms(plan);
    let taken = [(GONE, Is::Gone), (CHANGED, Is::There), (NEW, Is::There), (BRIEF, Is::Gone)];
    for (item, kind) in taken {
        match copies.kept(late, item, kind, begun) {
            Some(at_ms) if at_ms <= limit => {}
            other => {
                return Err(format!(
                    "{late} must keep that item {item} is {kind:?} by {limit} ms: {other:?}"
                ));
            }
        }
    }
    Ok(())
}
