//! A cluster falls into two parts, and becomes whole again.
//!
//! While it is parted, calls within each part go on as if nothing had happened, and those across end
//! with an error within the time that a dead connection is found in: none hangs. After the links are
//! mended every pair of nodes finds each other by itself, and calls across are answered again.

use rand::RngExt;

use super::{Scenario, begin, small, steady};
use crate::event::{Event, EventKind, Outcome};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition_heals",
    about: "a cluster parts in two and heals: within the parts calls go on, across they fail, and recover",
    plan,
    expect,
};

const NODES: u8 = 4;
/// Nodes below this are one part.
const PART: u8 = 2;
/// When everybody has long been connected again.
const RECOVERED_MS: u64 = 60_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("partition_heals", seed, NODES, 70_000);
    let (parted, healed) = (rng.random_range(4_000..8_000), rng.random_range(20_000..30_000));
    for a in (0..PART).map(Node) {
        for b in (PART..NODES).map(Node) {
            plan.faults.push((parted, Fault::Cut { a, b }));
            plan.faults.push((healed, Fault::Repair { a, b }));
        }
    }
    steady(&mut plan, &mut rng, 500);
    plan.load.push((RECOVERED_MS, Load::Request(small(Node(0), Node(NODES - 1)))));
    super::sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    for event in events {
        let EventKind::CallEnded { call, outcome } = &event.kind else { continue };
        let Some((made, load)) = plan.load.get(*call as usize) else { continue };
        let (from, to) = load.ends();
        let is_across = (from.0 < PART) != (to.0 < PART);
        let must_succeed = *made > RECOVERED_MS || (!is_across && *made > 2_000);
        if must_succeed && *outcome != Outcome::Completed {
            return Err(format!("call {call} from {from} to {to} at {made} ms ended: {outcome}"));
        }
    }
    Ok(())
}
