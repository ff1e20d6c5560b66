//! Two nodes are far away for a time, so that their responses arrive after the deadline; another
//! takes seconds for each sample.
//!
//! Neither delays a scrape. Scrapes complete by the deadline and report the two as down with a
//! timeout, although they are connected, and all others as up. A node with slow samples reports its
//! last sample: a scrape never triggers one.

use rand::RngExt;

use super::metrics_history::{CONNECTED_MS, add_steady_scrapes, new_metrics_plan, scrapes};
use super::{Scenario, sort};
use crate::event::{Event, ServerReport};
use crate::fault::{Repair, Slow};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "metrics_slow_node",
    about: "two nodes respond too late and one samples slowly: no scrape waits for them",
    plan,
    expect,
};

const NODES: u8 = 5;
const INTERVAL_MS: u32 = 5_000;
/// Latency of one direction: a round trip takes longer than the deadline of a second.
const SLOW_MS: std::ops::Range<u32> = 600..800;
/// Time for earlier scrapes and segments in flight to complete.
const MARGIN_MS: u64 = 4_000;

/// Returns the two nodes that are far away, and the one that samples slowly.
fn roles(seed: u64) -> (Node, Node, Node) {
    let node = |nth: u64| Node(u8::try_from((seed + nth) % u64::from(NODES)).unwrap_or(0));
    (node(0), node(1), node(2))
}

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_metrics_plan("metrics_slow_node", seed, NODES, 45_000, INTERVAL_MS);
    let (one, other, sampler) = roles(seed);
    let (slow, repaired) = (rng.random_range(8_000..10_000), rng.random_range(28_000..30_000));
    for a in [one, other] {
        for b in (0..NODES).map(Node).filter(|b| ![one, other].contains(b)) {
            let ms = rng.random_range(SLOW_MS);
            plan.faults.push((slow, Fault::Slow(Slow { a, b, ms })));
            plan.faults.push((repaired, Fault::Repair(Repair { a, b })));
        }
    }
    if let Some(metrics) = &mut plan.cluster.metrics {
        metrics.slow.push((sampler, rng.random_range(2_000..4_000)));
    }
    let near = (0..NODES).map(Node).filter(|node| ![one, other].contains(node));
    add_steady_scrapes(&mut plan, &mut rng, near, 1_500);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (one, other, _) = roles(plan.seed);
    let (Some((slow_ms, _)), Some((repaired_ms, _))) = (plan.faults.first(), plan.faults.last())
    else {
        return Err("the plan lacks slow links".to_owned());
    };
    let mut is_seen = (false, false);
    for scrape in scrapes(events) {
        for server in (0..NODES).map(Node) {
            let is_far = [one, other].contains(&server);
            let requested_ms = scrape.requested_ms;
            if requested_ms < CONNECTED_MS {
                continue;
            }
            if !is_far
                || requested_ms + MARGIN_MS < *slow_ms
                || requested_ms > repaired_ms + MARGIN_MS
            {
                scrape.must_be_up(server)?;
                is_seen.1 |= requested_ms > *repaired_ms;
            } else if (slow_ms + MARGIN_MS..repaired_ms - MARGIN_MS).contains(&requested_ms) {
                if scrape.of(server) != Some(&ServerReport::Down { reason: "timeout".to_owned() }) {
                    return Err(scrape.violation(&format!("must not wait for {server}")));
                }
                is_seen.0 = true;
            }
        }
    }
    match is_seen {
        (true, true) => Ok(()),
        _ => Err("no scrape was made while nodes were far away, and after".to_owned()),
    }
}
