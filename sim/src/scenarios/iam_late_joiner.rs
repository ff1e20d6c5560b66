//! A node starts after the others have made changes.
//!
//! Its pools hold the seeded items. Before it starts, one item is put, one changed and one deleted;
//! another is put and deleted that the node never had. It fetches all of these changes from its
//! peers soon after its start. It also fetches the tombstone of the item that it never had: another
//! node that missed the deletion may return with the item, and must find the tombstone on every
//! server.

use rand::RngExt;

use super::iam_history::{Presence, Replicas, soon_limit_ms};
use super::{Scenario, new_plan, sort};
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, IamPlan, ItemChange, Load, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_late_joiner",
    about: "a node starts after items were put and deleted: it fetches all changes and tombstones",
    plan,
    expect,
};

const NODES: u8 = 4;
const DELETED: u8 = 0;
const CHANGED: u8 = 1;
const NEW: u8 = 30;
/// Put and deleted before the node starts.
const PUT_AND_DELETED: u8 = 33;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("iam_late_joiner", seed, NODES, 80_000);
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
        (4_000, DELETED, delete),
        (4_000, CHANGED, put),
        (4_000, NEW, put),
        (4_000, PUT_AND_DELETED, put),
        (8_000, PUT_AND_DELETED, delete),
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
    let replicas = Replicas::of(plan, events);
    let [(late, starts)] = plan.cluster.late.as_slice() else {
        return Err("the plan lacks a late node".to_owned());
    };
    let late = *late;
    let started = match replicas.starts(late).as_slice() {
        [started] if started >= starts => *started,
        started => return Err(format!("{late} must start once, after {starts} ms: {started:?}")),
    };
    for node in (0..NODES).map(Node).filter(|node| *node != late) {
        replicas.must_see(node, DELETED, Presence::Absent, started)?;
        replicas.must_see(node, NEW, Presence::Present, started)?;
        replicas.must_see(node, PUT_AND_DELETED, Presence::Absent, started)?;
    }
    replicas.must_converge_soon(started)?;
    let limit = started + soon_limit_ms(plan);
    let changes = [
        (DELETED, Presence::Absent),
        (CHANGED, Presence::Present),
        (NEW, Presence::Present),
        (PUT_AND_DELETED, Presence::Absent),
    ];
    for (item, presence) in changes {
        match replicas.persisted(late, item, presence, started) {
            Some(at_ms) if at_ms <= limit => {}
            other => {
                return Err(format!(
                    "{late} must persist that item {item} is {presence:?} by {limit} ms: {other:?}"
                ));
            }
        }
    }
    Ok(())
}
