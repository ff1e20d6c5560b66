//! A cluster is partitioned into two sides, and heals.
//!
//! During the partition, calls within each side complete as usual, and calls across end with an
//! error within the detection time of a dead connection: none hangs. After the links are repaired,
//! every pair of nodes reconnects by itself, and calls across complete again.

use rand::RngExt;

use super::{Scenario, add_steady_requests, new_plan, small_request};
use crate::event::{Event, EventKind, Outcome};
use crate::fault::{Cut, Repair};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition_heals",
    about: "a partition heals: calls within a side continue, calls across fail, then recover",
    plan,
    expect,
};

const NODES: u8 = 4;
/// Nodes below this number are one side.
const SIDE: u8 = 2;
/// Time by which all nodes are connected again.
const RECOVERED_MS: u64 = 60_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_plan("partition_heals", seed, NODES, 70_000);
    let (partitioned, healed) = (rng.random_range(4_000..8_000), rng.random_range(20_000..30_000));
    for a in (0..SIDE).map(Node) {
        for b in (SIDE..NODES).map(Node) {
            plan.faults.push((partitioned, Fault::Cut(Cut { a, b })));
            plan.faults.push((healed, Fault::Repair(Repair { a, b })));
        }
    }
    add_steady_requests(&mut plan, &mut rng, 500);
    plan.load.push((RECOVERED_MS, Load::Request(small_request(Node(0), Node(NODES - 1)))));
    super::sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    for event in events {
        let EventKind::CallEnded { call, outcome } = &event.kind else { continue };
        let Some((made, load)) = plan.load.get(*call as usize) else { continue };
        let (from, to) = load.ends();
        let is_across = (from.0 < SIDE) != (to.0 < SIDE);
        let must_succeed = *made > RECOVERED_MS || (!is_across && *made > 2_000);
        if must_succeed && *outcome != Outcome::Completed {
            return Err(format!("call {call} from {from} to {to} at {made} ms ended: {outcome}"));
        }
    }
    Ok(())
}
