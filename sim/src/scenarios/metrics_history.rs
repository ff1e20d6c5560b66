//! The scrapes of a trace, and plans with metrics, for the expectations of scenarios.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::new_plan;
use crate::event::{Event, EventKind, MetricsEvent, ReportedValues, ServerReport};
use crate::plan::{MetricsPlan, Node, Plan};

/// One scrape, and its result.
#[derive(Debug)]
pub(super) struct Scrape<'a> {
    /// The scraped node.
    pub(super) on: Node,
    /// Time of the request.
    pub(super) requested_ms: u64,
    /// The reports on all servers.
    pub(super) servers: &'a [(Node, ServerReport)],
}

impl<'a> Scrape<'a> {
    /// Returns an error text with the requirement and the result of the scrape.
    pub(super) fn violation(&self, requirement: &str) -> String {
        let Self { on, requested_ms, servers } = self;
        let reports: Vec<_> =
            servers.iter().map(|(node, report)| format!("{node} {report}")).collect();
        format!("scrape of {on} at {requested_ms} ms {requirement}: {}", reports.join("; "))
    }

    /// Returns its report on a server.
    pub(super) fn of(&self, server: Node) -> Option<&'a ServerReport> {
        self.servers.iter().find(|(node, _)| *node == server).map(|(_, report)| report)
    }

    /// Checks that a server is up, and returns its values.
    pub(super) fn must_be_up(&self, server: Node) -> Result<ReportedValues, String> {
        match self.of(server) {
            Some(ServerReport::Up { report }) => Ok(*report),
            _ => Err(self.violation(&format!("must report that {server} is up"))),
        }
    }

    /// Checks that a server is down, and returns the reason.
    pub(super) fn must_be_down(&self, server: Node) -> Result<&'a str, String> {
        match self.of(server) {
            Some(ServerReport::Down { reason }) => Ok(reason),
            _ => Err(self.violation(&format!("must report that {server} is down"))),
        }
    }
}

/// Returns all scrapes that completed before all faults were healed, in the order of completion.
pub(super) fn scrapes(events: &[Event]) -> Vec<Scrape<'_>> {
    let (mut outstanding, mut scrapes) = (BTreeMap::new(), Vec::new());
    for Event { at_ms, node, kind } in events {
        match (kind, *node) {
            (EventKind::Metrics(MetricsEvent::Requested { scrape }), Some(on)) => {
                outstanding.insert((on, *scrape), *at_ms);
            }
            (EventKind::Metrics(MetricsEvent::Completed { scrape, servers }), Some(on)) => {
                let requested_ms = outstanding.remove(&(on, *scrape));
                scrapes.extend(requested_ms.map(|requested_ms| Scrape {
                    on,
                    requested_ms,
                    servers,
                }));
            }
            (EventKind::Healed, _) => break,
            _ => {}
        }
    }
    scrapes
}

/// Creates a plan with metrics and without scrapes.
pub(super) fn new_metrics_plan(
    name: &str,
    seed: u64,
    nodes: u8,
    duration_ms: u64,
    interval_ms: u32,
) -> (Plan, SmallRng) {
    let (mut plan, rng) = new_plan(name, seed, nodes, duration_ms);
    plan.cluster.limits.backoff_max_ms = Some(2_000);
    let (slow, scrapes) = (vec![], vec![]);
    let (deadline_ms, ttl_ms) = (1_000, 1_000);
    let metrics = MetricsPlan { interval_ms, deadline_ms, ttl_ms, slow, scrapes };
    plan.cluster.metrics = Some(metrics);
    (plan, rng)
}

/// Adds scrapes of each of these nodes, about every `every_ms` throughout the run.
pub(super) fn add_steady_scrapes(
    plan: &mut Plan,
    rng: &mut SmallRng,
    nodes: impl IntoIterator<Item = Node>,
    every_ms: u64,
) {
    let Some(metrics) = &mut plan.cluster.metrics else { return };
    for node in nodes {
        let mut at = rng.random_range(1..every_ms);
        while at < plan.duration_ms {
            metrics.scrapes.push((at, node));
            at += rng.random_range(every_ms / 2..=every_ms * 3 / 2).max(1);
        }
    }
    metrics.scrapes.sort();
}

/// Time by which all nodes that start at once are connected.
pub(super) const CONNECTED_MS: u64 = 4_000;
