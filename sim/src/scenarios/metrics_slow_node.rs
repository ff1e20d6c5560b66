//! Two nodes are far away for a while, so that their answers come after the deadline; another takes
//! seconds for each sample of itself.
//!
//! Neither delays anybody: answers come by the deadline, in which the two are down because they did not
//! answer in time, although they are connected, and all others are up. What takes long to sample is told
//! as it was before: a server is never asked to sample.

use rand::RngExt;

use super::metrics_history::{CONNECTED_MS, begin_metrics, scrapes, steady_scrapes};
use super::{Scenario, sort};
use crate::event::{Event, ServerReport};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "metrics_slow_node",
    about: "two nodes answer too late and one samples slowly: nobody waits for them",
    plan,
    expect,
};

const NODES: u8 = 5;
const INTERVAL_MS: u32 = 5_000;
/// One way: there and back takes longer than the deadline, which is a second.
const SLOW_MS: std::ops::Range<u32> = 600..800;
/// Scrapes that began before are over, and so is what was on its way.
const MARGIN_MS: u64 = 4_000;

/// The two that are far away, and the one that samples slowly.
fn roles(seed: u64) -> (Node, Node, Node) {
    let node = |nth: u64| Node(u8::try_from((seed + nth) % u64::from(NODES)).unwrap_or(0));
    (node(0), node(1), node(2))
}

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_metrics("metrics_slow_node", seed, NODES, 45_000, INTERVAL_MS);
    let (one, other, sampler) = roles(seed);
    let (slow, mended) = (rng.random_range(8_000..10_000), rng.random_range(28_000..30_000));
    for a in [one, other] {
        for b in (0..NODES).map(Node).filter(|b| ![one, other].contains(b)) {
            let ms = rng.random_range(SLOW_MS);
            plan.faults.push((slow, Fault::Slow { a, b, ms }));
            plan.faults.push((mended, Fault::Repair { a, b }));
        }
    }
    if let Some(metrics) = &mut plan.cluster.metrics {
        metrics.slow.push((sampler, rng.random_range(2_000..4_000)));
    }
    let near = (0..NODES).map(Node).filter(|node| ![one, other].contains(node));
    steady_scrapes(&mut plan, &mut rng, near, 1_500);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let (one, other, _) = roles(plan.seed);
    let (Some((slow_ms, _)), Some((mended_ms, _))) = (plan.faults.first(), plan.faults.last())
    else {
        return Err("the plan lacks slow links".to_owned());
    };
    let mut is_seen = (false, false);
    for scrape in scrapes(events) {
        for server in (0..NODES).map(Node) {
            let is_far = [one, other].contains(&server);
            let asked_ms = scrape.asked_ms;
            if asked_ms < CONNECTED_MS {
                continue;
            }
            if !is_far || asked_ms + MARGIN_MS < *slow_ms || asked_ms > mended_ms + MARGIN_MS {
                scrape.must_be_up(server)?;
                is_seen.1 |= asked_ms > *mended_ms;
            } else if (slow_ms + MARGIN_MS..mended_ms - MARGIN_MS).contains(&asked_ms) {
                if scrape.of(server) != Some(&ServerReport::Down { reason: "timeout".to_owned() }) {
                    return Err(scrape.complaint(&format!("must not wait for {server}")));
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
