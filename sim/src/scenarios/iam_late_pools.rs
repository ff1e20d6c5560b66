//! Pools come online seconds after their nodes start, in any order.
//!
//! A node waits for the last of its pools and shows no snapshot before; then all items appear at
//! once. It retries soon enough that it is ready shortly after its last pool.

use rand::RngExt;

use super::{Scenario, new_plan, sort};
use crate::bounds::Bounds;
use crate::event::{Event, EventKind, IamEvent};
use crate::fault::{PoolDown, PoolUp};
use crate::invariants::CheckResult;
use crate::plan::{Fault, IamPlan, Node, Outage, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_late_pools",
    about: "pools come online late, in any order: a node waits for all of them",
    plan,
    expect,
};

const NODES: u8 = 3;
const POOLS: u8 = 3;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("iam_late_pools", seed, NODES, 50_000);
    plan.cluster.tick_ms = 5;
    plan.cluster.iam = Some(IamPlan { pools: POOLS, seeded: 30, refresh_ms: 300_000, store_ms: 2 });
    for node in (0..NODES).map(Node) {
        for pool in 0..POOLS {
            let is_uninitialised = rng.random_bool(0.5);
            let reason =
                if is_uninitialised { Outage::NotInitialised } else { Outage::Unavailable };
            plan.faults.push((0, Fault::PoolDown(PoolDown { node, pool, reason })));
            let online = rng.random_range(1_000..20_000);
            plan.faults.push((online, Fault::PoolUp(PoolUp { node, pool })));
        }
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let limit_ms = Bounds::of(plan).iam_load_ms;
    for node in (0..NODES).map(Node) {
        let ups = plan.faults.iter().filter_map(|(at, fault)| match fault {
            Fault::PoolUp(PoolUp { node: owner, .. }) if *owner == node => Some(*at),
            _ => None,
        });
        let last = ups.max().ok_or("the plan has pools that come online")?;
        let first_snapshot = events.iter().find(|event| {
            event.node == Some(node)
                && matches!(event.kind, EventKind::Iam(IamEvent::SnapshotChanged { .. }))
        });
        match first_snapshot.map(|event| event.at_ms) {
            Some(at_ms) if (last..=last + limit_ms).contains(&at_ms) => {}
            other => {
                return Err(format!(
                    "{node} must show its replica once its last pool is online at {last} ms: {other:?}"
                ));
            }
        }
    }
    Ok(())
}
