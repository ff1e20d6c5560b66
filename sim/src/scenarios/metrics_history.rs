//! What a trace says of each scrape, for the expectations of scenarios; and how such plans begin.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::begin;
use crate::event::{Event, EventKind, MetricsEvent, ReportedValues, ServerReport};
use crate::plan::{MetricsPlan, Node, Plan};

/// One scrape, and what it was answered.
#[derive(Debug)]
pub(super) struct Scrape<'a> {
    /// Who was asked.
    pub(super) on: Node,
    /// When.
    pub(super) asked_ms: u64,
    /// With what.
    pub(super) servers: &'a [(Node, ServerReport)],
}

impl<'a> Scrape<'a> {
    /// An error that names it and says what it was answered.
    pub(super) fn complaint(&self, wanted: &str) -> String {
        let Self { on, asked_ms, servers } = self;
        let told: Vec<_> = servers.iter().map(|(node, told)| format!("{node} {told}")).collect();
        format!("scrape of {on} at {asked_ms} ms {wanted}: {}", told.join("; "))
    }

    /// What it was told about a server.
    pub(super) fn of(&self, server: Node) -> Option<&'a ServerReport> {
        self.servers.iter().find(|(node, _)| *node == server).map(|(_, told)| told)
    }

    /// What a server said of itself; it must have.
    pub(super) fn must_be_up(&self, server: Node) -> Result<ReportedValues, String> {
        match self.of(server) {
            Some(ServerReport::Up { report }) => Ok(*report),
            _ => Err(self.complaint(&format!("must say that {server} is up"))),
        }
    }

    /// Why a server is down; it must be.
    pub(super) fn must_be_down(&self, server: Node) -> Result<&'a str, String> {
        match self.of(server) {
            Some(ServerReport::Down { reason }) => Ok(reason),
            _ => Err(self.complaint(&format!("must say that {server} is down"))),
        }
    }
}

/// All scrapes before everything was healed that were answered, in the order in which they were.
pub(super) fn scrapes(events: &[Event]) -> Vec<Scrape<'_>> {
    let (mut open, mut scrapes) = (BTreeMap::new(), Vec::new());
    for Event { at_ms, node, kind } in events {
        match (kind, *node) {
            (EventKind::Metrics(MetricsEvent::Requested { scrape }), Some(on)) => {
                open.insert((on, *scrape), *at_ms);
            }
            (EventKind::Metrics(MetricsEvent::Completed { scrape, servers }), Some(on)) => {
                let asked_ms = open.remove(&(on, *scrape));
                scrapes.extend(asked_ms.map(|asked_ms| Scrape { on, asked_ms, servers }));
            }
            (EventKind::Healed, _) => break,
            _ => {}
        }
    }
    scrapes
}

/// A plan with metrics and without scrapes.
pub(super) fn begin_metrics(
    name: &str,
    seed: u64,
    nodes: u8,
    duration_ms: u64,
    interval_ms: u32,
) -> (Plan, SmallRng) {
    let (mut plan, rng) = begin(name, seed, nodes, duration_ms);
    plan.cluster.limits.backoff_max_ms = Some(2_000);
    let (slow, scrapes) = (vec![], vec![]);
    let (deadline_ms, ttl_ms) = (1_000, 1_000);
    let metrics = MetricsPlan { interval_ms, deadline_ms, ttl_ms, slow, scrapes };
    plan.cluster.metrics = Some(metrics);
    (plan, rng)
}

/// Scrapes of each of these nodes, about every `every_ms` from the beginning to the end.
pub(super) fn steady_scrapes(
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

/// When all are connected that begin at once.
pub(super) const CONNECTED_MS: u64 = 4_000;
