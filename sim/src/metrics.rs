//! Resource metrics as a run sees them: nodes that sample machines which are made up, and who is
//! asked for all of them when.
//!
//! What a machine counts is drawn from the seed of its incarnation, so that whatever is reported
//! later can be told from all other samples. What is written down here is what was sampled, and
//! what was told in the end; what lies between is the crate that ships.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use grid::Name;
use grid::time::Clock;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use resource_metrics::sample::{InterfaceCounters, Load, Sample, Sampling};
use resource_metrics::{Answer, Collection, Limits, Report, ResourceMetrics, Source};

use crate::event::{Metrics, Reported, ScrapeId, Told, What};
use crate::plan::{MetricsPlan, Node, Plan};
use crate::recorder::Pen;
use crate::world::{Gate, Host, NodeClock, Software, node_of};

/// What the nodes of `plan` run: `others`, and resource metrics, if the plan has any.
pub fn over(plan: &Plan, others: Arc<dyn Software>) -> Arc<dyn Software> {
    match &plan.cluster.metrics {
        Some(metrics) => Arc::new(Measured { plan: metrics.clone(), others }),
        None => others,
    }
}

/// How long a node waits after everything is healed before it asks once more whether all are up.
pub(crate) const PAUSE_MS: u64 = 1_000;

/// The only interface of all machines.
const INTERFACE: &str = "eth0";

/// Loads and growths are below this: small enough for thousandths of averages to be exact.
const VALUE_MAX: u32 = 1_000_000;

struct Measured {
    plan: MetricsPlan,
    others: Arc<dyn Software>,
}

impl Software for Measured {
    fn install(&self, host: &Host) -> Result<(), Box<dyn Error>> {
        self.others.install(host)?;
        let start_ms = millis(host.clock.wall().seconds(), host.clock.wall().nanos());
        let metrics = ResourceMetrics::builder(&host.manager)
            .source(Machine::new(&self.plan, host))
            .clock(host.clock.clone())
            .limits(limits_of(&self.plan))
            .build()?;
        host.pen.record(What::Metrics(Metrics::Began { start_ms }));
        metrics.start();
        tokio::spawn(scrape_as_planned(self.times(host), metrics.clone(), host.pen.clone()));
        let (pen, healed, asked) = (host.pen.clone(), host.healed.clone(), metrics.clone());
        tokio::spawn(scrape_once_healed(self.plan.scrapes.len(), asked, pen, healed));
        let ending = host.ending.clone();
        tokio::spawn(async move {
            ending.pass().await;
            drop(metrics); // The last one: nothing is sampled any more.
        });
        Ok(())
    }
}

/// When this node is asked.
type Times = Vec<(ScrapeId, u64)>;

impl Measured {
    /// Those that come after the process has begun.
    fn times(&self, host: &Host) -> Times {
        let now_ms = host.pen.now_ms();
        let planned = (0..).zip(&self.plan.scrapes);
        let own = planned.filter(|(_, (at_ms, on))| *on == host.node && *at_ms >= now_ms);
        own.map(|(scrape, (at_ms, _))| (scrape, *at_ms)).collect()
    }
}

/// Each scrape at its time, whatever has become of those before.
async fn scrape_as_planned(times: Times, metrics: ResourceMetrics, pen: Pen) {
    for (scrape, at_ms) in times {
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(pen.now_ms()))).await;
        let (metrics, pen) = (metrics.clone(), pen.clone());
        tokio::spawn(async move { ask(scrape, &metrics, &pen).await });
    }
}

/// Asks, again and again, until all are up.
async fn scrape_once_healed(planned: usize, metrics: ResourceMetrics, pen: Pen, healed: Gate) {
    healed.pass().await;
    for scrape in ScrapeId::try_from(planned).unwrap_or(0).. {
        match ask(scrape, &metrics, &pen).await {
            Some(told) if told.iter().any(|(_, told)| matches!(told, Told::Down { .. })) => {}
            Some(_) | None => return,
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}

/// One scrape.
async fn ask(scrape: ScrapeId, metrics: &ResourceMetrics, pen: &Pen) -> Option<Vec<(Node, Told)>> {
    pen.record(What::Metrics(Metrics::Asked { scrape }));
    let Ok(collection) = metrics.collect().await else {
        pen.record(What::Metrics(Metrics::Aborted { scrape }));
        return None;
    };
    let servers = told(&collection);
    pen.record(What::Metrics(Metrics::Answered { scrape, servers: servers.clone() }));
    Some(servers)
}

fn told(collection: &Collection) -> Vec<(Node, Told)> {
    let servers = collection.servers.iter().map(|(name, answer)| {
        let node = name.parse::<Name>().map_or(Node(u8::MAX), |name| node_of(&name));
        let told = match answer {
            Answer::Up(report) => Told::Up { report: reported(report) },
            Answer::Down(down) => Told::Down { reason: down.reason.as_str().to_owned() },
        };
        (node, told)
    });
    let mut servers: Vec<_> = servers.collect();
    servers.sort_by_key(|(node, _)| *node);
    servers
}

fn reported(report: &Report) -> Reported {
    let load = report.load.unwrap_or_default().one;
    let interface = report.interfaces.get(INTERFACE).copied().unwrap_or_default();
    Reported {
        start_ms: report.start_time_seconds.map(thousandths),
        interval_ms: report.sample_interval_seconds.map(thousandths),
        load: load.current.map(whole),
        load_average: load.average.map(thousandths),
        load_maximum: load.maximum.map(whole),
        receive_rate: interface.receive_bytes.current.map(thousandths),
    }
}

/// Rounded. What is no number, or none that a machine here counts, becomes one that none does.
pub(crate) fn whole(value: f64) -> u64 {
    value.round() as u64
}

pub(crate) fn thousandths(value: f64) -> u64 {
    whole(value * 1_000.0)
}

fn millis(seconds: i64, nanos: u32) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1_000 + u64::from(nanos / 1_000_000)
}

fn limits_of(plan: &MetricsPlan) -> Limits {
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    let mut limits = Limits::default();
    limits.sample_interval = millis(plan.interval_ms);
    limits.collect_deadline = millis(plan.deadline_ms);
    limits.collect_shared_for = millis(plan.shared_ms);
    limits
}

/// A machine that is made up.
struct Machine {
    seed: u64,
    taken: AtomicU64,
    received: AtomicU64,
    slow: Duration,
    clock: NodeClock,
    pen: Pen,
}

impl Machine {
    fn new(plan: &MetricsPlan, host: &Host) -> Self {
        let slow = plan.slow.iter().find(|(node, _)| *node == host.node).map_or(0, |(_, ms)| *ms);
        Self {
            seed: host.seed ^ 0x6d65_7472_6963,
            taken: AtomicU64::new(0),
            received: AtomicU64::new(0),
            slow: Duration::from_millis(u64::from(slow)),
            clock: host.clock.clone(),
            pen: host.pen.clone(),
        }
    }
}

impl Source for Machine {
    fn sample(&self) -> Sampling {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let mut rng = SmallRng::seed_from_u64(self.seed ^ number.rotate_left(32));
        let load = rng.random_range(1..VALUE_MAX);
        let growth = u64::from(rng.random_range(0..VALUE_MAX));
        let received = self.received.fetch_add(growth, Ordering::Relaxed) + growth;
        let clock_us = self.clock.now().as_nanos() / 1_000;
        let (slow, pen) = (self.slow, self.pen.clone());
        Box::pin(async move {
            if !slow.is_zero() {
                tokio::time::sleep(slow).await;
            }
            pen.record(What::Metrics(Metrics::Sampled { clock_us, load, received }));
            let counters = InterfaceCounters { receive_bytes: received, ..Default::default() };
            Sample {
                load: Some(Load { one: f64::from(load), ..Load::default() }),
                interfaces: Some([(INTERFACE.to_owned(), counters)].into()),
                ..Sample::default()
            }
        })
    }
}
