//! Several scrapers come to one node at once and shortly after each other, again and again; another node
//! is scraped so often that what it collected is wanted before it is too old, always.
//!
//! The first node asks each other once for each crowd, and all of it gets the same. The second
//! asks about once a second, and what it tells is never older than that.

use rand::RngExt;

use super::metrics_history::{begin_metrics, scrapes};
use super::{Scenario, two};
use crate::event::{Event, EventKind};
use crate::invariants::CheckResult;
use crate::plan::{Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "metrics_scrapes",
    about: "many scrape at once and often: each server is asked once, and nothing is told too old",
    plan,
    expect,
};

const NODES: u8 = 4;
const INTERVAL_MS: u32 = 2_000;
const CROWDS: u64 = 5;
const CROWD: u64 = 6;
const FIRST_MS: u64 = 5_000;
/// Between two crowds: what the one was told is too old for the next.
const APART_MS: u64 = 5_000;
/// A crowd comes within this: what the first of it is told is good for all.
const TOGETHER_MS: u64 = 900;
const DURATION_MS: u64 = FIRST_MS + CROWDS * APART_MS;

fn nodes(plan: &Plan) -> Option<(Node, Node)> {
    let scrapes = &plan.cluster.metrics.as_ref()?.scrapes;
    let crowded = scrapes.iter().find(|(at_ms, _)| *at_ms == FIRST_MS)?.1;
    Some((crowded, scrapes.iter().find(|(_, on)| *on != crowded)?.1))
}

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        begin_metrics("metrics_scrapes", seed, NODES, DURATION_MS, INTERVAL_MS);
    // A collection takes some time, in which others come.
    plan.cluster.latency_min_ms = rng.random_range(10..30);
    plan.cluster.latency_max_ms = plan.cluster.latency_min_ms + 10;
    let (crowded, often) = two(&mut rng, NODES);
    let mut planned = Vec::new();
    for crowd in 0..CROWDS {
        let begin = FIRST_MS + crowd * APART_MS;
        planned.extend([(begin, crowded), (begin, crowded), (begin + 1, crowded)]);
        let later = 3..CROWD;
        planned.extend(later.map(|_| (begin + rng.random_range(2..TOGETHER_MS), crowded)));
    }
    let mut at = FIRST_MS + rng.random_range(1..200);
    while at < DURATION_MS {
        planned.push((at, often));
        at += rng.random_range(200..700);
    }
    planned.sort();
    if let Some(metrics) = &mut plan.cluster.metrics {
        metrics.scrapes = planned;
    }
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let Some((crowded, often)) = nodes(plan) else {
        return Err("the plan lacks a crowd".to_owned());
    };
    let scrapes = scrapes(events);
    for crowd in 0..CROWDS {
        let begin = FIRST_MS + crowd * APART_MS;
        let within = begin..begin + APART_MS;
        let mut of_it = scrapes
            .iter()
            .filter(|scrape| scrape.on == crowded && within.contains(&scrape.asked_ms));
        let Some(first) = of_it.next() else {
            return Err(format!("no scrape was made on {crowded} at {begin} ms"));
        };
        if let Some(other) = of_it.find(|other| other.servers != first.servers) {
            return Err(other.complaint("must be told the same as the others that came with it"));
        }
        let asked = requests(events, crowded, within);
        if asked != u64::from(NODES - 1) {
            return Err(format!("{crowded} asked the others {asked} times for one burst"));
        }
    }
    // Each collection is good for a second, and the next begins when somebody wants it.
    let slowest = (DURATION_MS - FIRST_MS) / 2_000 * u64::from(NODES - 1);
    let asked = requests(events, often, FIRST_MS..DURATION_MS);
    if asked < slowest {
        return Err(format!(
            "{often} asked the others {asked} times, and was scraped all the time"
        ));
    }
    scrapes.iter().try_for_each(|scrape| {
        (0..NODES).try_for_each(|server| scrape.must_be_up(Node(server)).map(drop))
    })
}

/// How often a node asked others in this time.
fn requests(events: &[Event], from: Node, within: std::ops::Range<u64>) -> u64 {
    let is_request = |event: &&Event| {
        event.node == Some(from)
            && within.contains(&event.at_ms)
            && matches!(&event.kind, EventKind::MessageSent { message, .. }
                if message.op == "Request" && message.call.is_none())
    };
    events.iter().filter(is_request).count() as u64
}
