//! One node begins again every half second, and the link between two others is as unsteady.
//!
//! Connections come and go faster than copies are compared. What follows from it does not multiply: a node
//! loads once in its process, however often others come back, and says so once; with a peer it compares
//! at most once in the shortest time between two comparisons (invariant `iam_calm` counts both). When it
//! is over, a change that was made in the middle of it is everywhere.

use rand::RngExt;

use super::iam_history::{Copies, Is, last_fault};
use super::{Scenario, begin, history::fault_at, sort};
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{ChangePlan, Fault, IamPlan, ItemChange, Load, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "iam_reconnect_storm",
    about: "connections come and go twice a second: no load is repeated, comparisons stay spaced",
    plan,
    expect,
};

const NODES: u8 = 4;
const GONE: u8 = 0;
const NEW: u8 = 30;
/// The storm lasts from here.
const FROM_MS: u64 = 5_000;
/// To here.
const TO_MS: u64 = 25_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin("iam_reconnect_storm", seed, NODES, 90_000);
    plan.cluster.tick_ms = 5;
    // What is lost is found, and dialled anew, within fractions of a second.
    plan.cluster.limits.ping_interval_ms = Some(100);
    plan.cluster.limits.backoff_max_ms = Some(250);
    plan.cluster.iam = Some(IamPlan { pools: 2, seeded: 12, refresh_ms: 300_000, store_ms: 0 });
    let [node, a, b, on] = shuffled(rng.random_range(0..NODES));
    let mut at = FROM_MS;
    while at < TO_MS {
        plan.faults.push((at, Fault::Bounce { node, grace_ms: 0 }));
        at += rng.random_range(350..600);
    }
    let mut at = FROM_MS;
    while at < TO_MS {
        plan.faults.push((at, Fault::Cut { a, b }));
        at += rng.random_range(350..450);
        plan.faults.push((at, Fault::Repair { a, b }));
        at += rng.random_range(250..350);
    }
    for (item, change) in [(GONE, ItemChange::Delete), (NEW, ItemChange::Put)] {
        let at = rng.random_range(FROM_MS + 2_000..TO_MS - 2_000);
        plan.load.push((at, Load::Change(ChangePlan { on, item, change })));
    }
    sort(&mut plan);
    plan
}

/// All nodes, from this one on.
fn shuffled(first: u8) -> [Node; NODES as usize] {
    std::array::from_fn(|place| Node((first + u8::try_from(place).unwrap_or(0)) % NODES))
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let copies = Copies::of(plan, events);
    let began = fault_at(plan, |fault| matches!(fault, Fault::Bounce { .. }))?;
    let last = last_fault(plan, |_| true)?;
    let bounced = plan.faults.iter().find_map(|(_, fault)| match fault {
        Fault::Bounce { node, .. } => Some(*node),
        _ => None,
    });
    let [node, a, b, on] = shuffled(bounced.ok_or("the plan lacks a bounce")?.0);
    for (one, other) in [(on, node), (a, node), (a, b), (b, a)] {
        let within = |times: Vec<u64>| {
            times.into_iter().filter(|at_ms| (began..last).contains(at_ms)).count()
        };
        let connects = within(copies.connects(one, other));
        let comparisons = within(copies.comparisons(one, other));
        let spaced = usize::try_from((last - began) / 1_000).unwrap_or(usize::MAX);
        if connects <= spaced || comparisons < 2 || comparisons > spaced + 3 {
            return Err(format!(
                "{one} must reach {other} more often than it compares: {connects} times, and \
                 {comparisons} comparisons in {spaced} s"
            ));
        }
    }
    for steady in [a, b, on] {
        let (begun, loads) = (copies.starts(steady).len(), copies.loads(steady));
        if (begun, loads) != (1, 1) {
            return Err(format!("{steady} must start and load once: {begun} times, and {loads}"));
        }
    }
    copies.must_be_same_soon(last)?;
    for node in (0..NODES).map(Node) {
        copies.must_see(node, GONE, Is::Gone, copies.end_ms())?;
        copies.must_see(node, NEW, Is::There, copies.end_ms())?;
    }
    Ok(())
}
