//! Resource metrics in a run: nodes that sample synthetic hosts, and scrapes.
//!
//! The counters of a host are drawn from the seed of its incarnation, so that a reported value
//! identifies its sample. This module records the samples and the results of scrapes; everything in
//! between is the production crate.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use grid::Name;
use grid::env::Env;
use grid::time::Clock;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use resource_metrics::sample::{InterfaceCounters, Load, Sample, SampleFuture};
use resource_metrics::{Collection, Limits, Report, ResourceMetrics, ServerStatus, Source};

use crate::clock::NodeClock;
use crate::event::{EventKind, MetricsEvent, ReportedValues, ScrapeId, ServerReport};
use crate::gate::Gate;
use crate::host::{Host, Software};
use crate::node::node_of;
use crate::plan::{MetricsPlan, Node, Plan};
use crate::recorder::NodeRecorder;

/// Returns the software for the nodes of `plan`: `others`, and resource metrics if the plan has
/// them.
pub fn with_metrics(plan: &Plan, others: Arc<dyn Software>) -> Arc<dyn Software> {
    match &plan.cluster.metrics {
        Some(metrics) => Arc::new(MetricsSoftware { plan: metrics.clone(), others }),
        None => others,
    }
}

/// Pause between two scrapes after all faults are healed.
pub(crate) const PAUSE_MS: u64 = 1_000;

/// The only network interface of each synthetic host.
const INTERFACE: &str = "eth0";

/// Loads and growths are below this: small enough for thousandths of averages to be exact.
const VALUE_MAX: u32 = 1_000_000;

struct MetricsSoftware {
    plan: MetricsPlan,
    others: Arc<dyn Software>,
}

impl Software for MetricsSoftware {
    fn install(&self, host: &Host) -> Result<(), Box<dyn Error>> {
        self.others.install(host)?;
        let start_ms = millis(host.clock.wall().seconds(), host.clock.wall().nanos());
        let metrics = ResourceMetrics::builder(&host.manager)
            .source(SyntheticHost::new(&self.plan, host))
            .env(Env::new(host.clock.clone(), &mut SmallRng::seed_from_u64(host.seed)))
            .limits(limits_of(&self.plan))
            .build()?;
        host.recorder.record(EventKind::Metrics(MetricsEvent::Started { start_ms }));
        metrics.start();
        tokio::spawn(scrape_as_planned(
            self.scrape_times(host),
            metrics.clone(),
            host.recorder.clone(),
        ));
        let (recorder, healed, scraped) =
            (host.recorder.clone(), host.healed.clone(), metrics.clone());
        tokio::spawn(scrape_once_healed(self.plan.scrapes.len(), scraped, recorder, healed));
        let ending = host.ending.clone();
        tokio::spawn(async move {
            ending.pass().await;
            drop(metrics); // The last handle: sampling stops.
        });
        Ok(())
    }
}

/// Scrapes of one node, with their times.
type ScrapeTimes = Vec<(ScrapeId, u64)>;

impl MetricsSoftware {
    /// Returns the planned scrapes of this node that are due after the start of the process.
    fn scrape_times(&self, host: &Host) -> ScrapeTimes {
        let now_ms = host.recorder.now_ms();
        let planned = (0..).zip(&self.plan.scrapes);
        let own = planned.filter(|(_, (at_ms, on))| *on == host.node && *at_ms >= now_ms);
        own.map(|(scrape, (at_ms, _))| (scrape, *at_ms)).collect()
    }
}

/// Starts each scrape at its time, whether or not earlier ones have completed.
async fn scrape_as_planned(times: ScrapeTimes, metrics: ResourceMetrics, recorder: NodeRecorder) {
    for (scrape, at_ms) in times {
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(recorder.now_ms()))).await;
        let (metrics, recorder) = (metrics.clone(), recorder.clone());
        tokio::spawn(async move { run_scrape(scrape, &metrics, &recorder).await });
    }
}

/// Scrapes repeatedly once all faults are healed, until all servers are up.
async fn scrape_once_healed(
    planned: usize,
    metrics: ResourceMetrics,
    recorder: NodeRecorder,
    healed: Gate,
) {
    healed.pass().await;
    for scrape in ScrapeId::try_from(planned).unwrap_or(0).. {
        match run_scrape(scrape, &metrics, &recorder).await {
            Some(servers)
                if servers
                    .iter()
                    .any(|(_, report)| matches!(report, ServerReport::Down { .. })) => {}
            Some(_) | None => return,
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}

/// Performs one scrape.
async fn run_scrape(
    scrape: ScrapeId,
    metrics: &ResourceMetrics,
    recorder: &NodeRecorder,
) -> Option<Vec<(Node, ServerReport)>> {
    recorder.record(EventKind::Metrics(MetricsEvent::Requested { scrape }));
    let Ok(collection) = metrics.collect().await else {
        recorder.record(EventKind::Metrics(MetricsEvent::Aborted { scrape }));
        return None;
    };
    let servers = server_reports(&collection);
    recorder
        .record(EventKind::Metrics(MetricsEvent::Completed { scrape, servers: servers.clone() }));
    Some(servers)
}

fn server_reports(collection: &Collection) -> Vec<(Node, ServerReport)> {
    let servers = collection.servers.iter().map(|(name, status)| {
        let node = name.parse::<Name>().map_or(Node(u8::MAX), |name| node_of(&name));
        let report = match status {
            ServerStatus::Up(report) => ServerReport::Up { report: reported_values(report) },
            ServerStatus::Down(down) => {
                ServerReport::Down { reason: down.reason.as_str().to_owned() }
            }
        };
        (node, report)
    });
    let mut servers: Vec<_> = servers.collect();
    servers.sort_by_key(|(node, _)| *node);
    servers
}

fn reported_values(report: &Report) -> ReportedValues {
    let load = report.load.unwrap_or_default().one;
    let interface = report.interfaces.get(INTERFACE).copied().unwrap_or_default();
    ReportedValues {
        start_ms: report.start_time_seconds.map(thousandths),
        interval_ms: report.sample_interval_seconds.map(thousandths),
        load: load.current.map(rounded),
        load_average: load.average.map(thousandths),
        load_maximum: load.maximum.map(rounded),
        receive_rate: interface.receive_bytes.current.map(thousandths),
    }
}

/// Rounds a value. Negative, infinite and NaN values saturate, so that they still differ from all
/// expected ones.
pub(crate) fn rounded(value: f64) -> u64 {
    value.round() as u64
}

pub(crate) fn thousandths(value: f64) -> u64 {
    rounded(value * 1_000.0)
}

fn millis(seconds: i64, nanos: u32) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1_000 + u64::from(nanos / 1_000_000)
}

fn limits_of(plan: &MetricsPlan) -> Limits {
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    let mut limits = Limits::default();
    limits.sample_interval = millis(plan.interval_ms);
    limits.collect_deadline = millis(plan.deadline_ms);
    limits.collect_ttl = millis(plan.ttl_ms);
    limits
}

/// Source of the counters of a node, drawn from its seed.
struct SyntheticHost {
    seed: u64,
    samples: AtomicU64,
    received: AtomicU64,
    slow: Duration,
    clock: NodeClock,
    recorder: NodeRecorder,
}

impl SyntheticHost {
    fn new(plan: &MetricsPlan, host: &Host) -> Self {
        let slow = plan.slow.iter().find(|(node, _)| *node == host.node).map_or(0, |(_, ms)| *ms);
        Self {
            seed: host.seed ^ 0x6d65_7472_6963,
            samples: AtomicU64::new(0),
            received: AtomicU64::new(0),
            slow: Duration::from_millis(u64::from(slow)),
            clock: host.clock.clone(),
            recorder: host.recorder.clone(),
        }
    }
}

impl Source for SyntheticHost {
    fn sample(&self) -> SampleFuture {
        let number = self.samples.fetch_add(1, Ordering::Relaxed);
        let mut rng = SmallRng::seed_from_u64(self.seed ^ number.rotate_left(32));
        let load = rng.random_range(1..VALUE_MAX);
        let growth = u64::from(rng.random_range(0..VALUE_MAX));
        let received = self.received.fetch_add(growth, Ordering::Relaxed) + growth;
        let clock_us = self.clock.now().as_nanos() / 1_000;
        let (slow, recorder) = (self.slow, self.recorder.clone());
        Box::pin(async move {
            if !slow.is_zero() {
                tokio::time::sleep(slow).await;
            }
            recorder.record(EventKind::Metrics(MetricsEvent::Sampled { clock_us, load, received }));
            let counters = InterfaceCounters { receive_bytes: received, ..Default::default() };
            Sample {
                load: Some(Load { one: f64::from(load), ..Load::default() }),
                interfaces: Some([(INTERFACE.to_owned(), counters)].into()),
                ..Sample::default()
            }
        })
    }
}
