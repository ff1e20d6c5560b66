//! Several scrapers request metrics of one node at once and shortly after each other, repeatedly.
//! Another node is scraped so often that each collection is requested again before it expires.
//!
//! The first node requests the metrics of each peer once per burst, and the whole burst gets the
//! same result. The second node collects about once a second, and never reports older values.

use rand::RngExt;

use super::metrics_history::{new_metrics_plan, scrapes};
use super::{Scenario, two_nodes};
use crate::event::{Event, EventKind};
use crate::invariants::CheckResult;
use crate::plan::{Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "metrics_scrapes",
    about: "many scrapes at once and often: one request to each server, and no stale value",
    plan,
    expect,
};

const NODES: u8 = 4;
const INTERVAL_MS: u32 = 2_000;
const BURSTS: u64 = 5;
const BURST_SCRAPES: u64 = 6;
const FIRST_MS: u64 = 5_000;
/// Time between two bursts: the result of one is too old for the next.
const BURST_INTERVAL_MS: u64 = 5_000;
/// Duration of a burst: the result of its first scrape is valid for all of it.
const BURST_MS: u64 = 900;
const DURATION_MS: u64 = FIRST_MS + BURSTS * BURST_INTERVAL_MS;

fn nodes(plan: &Plan) -> Option<(Node, Node)> {
    let scrapes = &plan.cluster.metrics.as_ref()?.scrapes;
    let burst_node = scrapes.iter().find(|(at_ms, _)| *at_ms == FIRST_MS)?.1;
    Some((burst_node, scrapes.iter().find(|(_, on)| *on != burst_node)?.1))
}

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_metrics_plan("metrics_scrapes", seed, NODES, DURATION_MS, INTERVAL_MS);
    // A collection takes some time, in which other scrapes arrive.
    plan.cluster.latency_min_ms = rng.random_range(10..30);
    plan.cluster.latency_max_ms = plan.cluster.latency_min_ms + 10;
    let (burst_node, steady_node) = two_nodes(&mut rng, NODES);
    let mut planned = Vec::new();
    for burst in 0..BURSTS {
        let begin = FIRST_MS + burst * BURST_INTERVAL_MS;
        planned.extend([(begin, burst_node), (begin, burst_node), (begin + 1, burst_node)]);
        let later = 3..BURST_SCRAPES;
        planned.extend(later.map(|_| (begin + rng.random_range(2..BURST_MS), burst_node)));
    }
    let mut at = FIRST_MS + rng.random_range(1..200);
    while at < DURATION_MS {
        planned.push((at, steady_node));
        at += rng.random_range(200..700);
    }
    planned.sort();
    if let Some(metrics) = &mut plan.cluster.metrics {
        metrics.scrapes = planned;
    }
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let Some((burst_node, steady_node)) = nodes(plan) else {
        return Err("the plan lacks a burst".to_owned());
    };
    let scrapes = scrapes(events);
    for burst in 0..BURSTS {
        let begin = FIRST_MS + burst * BURST_INTERVAL_MS;
        let within = begin..begin + BURST_INTERVAL_MS;
        let mut own = scrapes
            .iter()
            .filter(|scrape| scrape.on == burst_node && within.contains(&scrape.requested_ms));
        let Some(first) = own.next() else {
            return Err(format!("no scrape was made on {burst_node} at {begin} ms"));
        };
        if let Some(other) = own.find(|other| other.servers != first.servers) {
            return Err(other.violation("must get the same result as the others of its burst"));
        }
        let sent = requests(events, burst_node, within);
        if sent != u64::from(NODES - 1) {
            return Err(format!("{burst_node} sent {sent} requests for one burst"));
        }
    }
    // Each collection is valid for a second, and the next scrape starts another.
    let slowest = (DURATION_MS - FIRST_MS) / 2_000 * u64::from(NODES - 1);
    let sent = requests(events, steady_node, FIRST_MS..DURATION_MS);
    if sent < slowest {
        return Err(format!(
            "{steady_node} sent only {sent} requests, and was scraped all the time"
        ));
    }
    scrapes.iter().try_for_each(|scrape| {
        (0..NODES).try_for_each(|server| scrape.must_be_up(Node(server)).map(drop))
    })
}

/// Returns how many requests a node sent to others in this time.
fn requests(events: &[Event], from: Node, within: std::ops::Range<u64>) -> u64 {
    let is_request = |event: &&Event| {
        event.node == Some(from)
            && within.contains(&event.at_ms)
            && matches!(&event.kind, EventKind::MessageSent { message, .. }
                if message.op == "Request" && message.call.is_none())
    };
    events.iter().filter(is_request).count() as u64
}
