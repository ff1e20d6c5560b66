//! Events of resource metrics: samples, scrapes, and what a scrape reports of each server.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::Node;

/// Number of a scrape: its index among those of the plan, or a number after the last of them.
pub type ScrapeId = u32;

/// An event of resource metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "metrics", rename_all = "snake_case")]
pub enum MetricsEvent {
    /// A node starts to sample itself, in a new process.
    Started {
        /// Start time by its wall clock, in milliseconds since the Unix epoch.
        start_ms: u64,
    },
    /// A node has sampled itself.
    Sampled {
        /// Time at which the counters were read, by the node's clock, in microseconds.
        clock_us: u64,
        /// Number of runnable tasks, which differs from sample to sample.
        load: u32,
        /// Bytes that have arrived since the process started.
        received: u64,
    },
    /// A scrape of the metrics of all nodes began on a node.
    Requested {
        /// Number of the scrape.
        scrape: ScrapeId,
    },
    /// The scrape completed.
    Completed {
        /// Number of the scrape.
        scrape: ScrapeId,
        /// The report on each node, in the order of their numbers.
        servers: Vec<(Node, ServerReport)>,
    },
    /// The scrape was aborted: the process ends.
    Aborted {
        /// Number of the scrape.
        scrape: ScrapeId,
    },
}

/// The report on one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ServerReport {
    /// It responded.
    Up {
        /// The values of its response.
        report: ReportedValues,
    },
    /// It did not respond.
    Down {
        /// The reason.
        reason: String,
    },
}

/// The values that a server reports of itself. An absent value is unknown; fractions are in
/// thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportedValues {
    /// Time at which it started to sample itself, in milliseconds since the Unix epoch.
    pub start_ms: Option<u64>,
    /// The length of the last interval, in milliseconds.
    pub interval_ms: Option<u64>,
    /// Number of runnable tasks.
    pub load: Option<u64>,
    /// Average of the load since the start, in thousandths.
    pub load_average: Option<u64>,
    /// Maximum of the load since the start.
    pub load_maximum: Option<u64>,
    /// Bytes per second that arrived in the last interval, in thousandths.
    pub receive_rate: Option<u64>,
}

impl fmt::Display for MetricsEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { start_ms } => write!(f, "sampling started at {start_ms}"),
            Self::Sampled { clock_us, load, received } => {
                write!(f, "sampled at {clock_us} us: load {load}, received {received} B")
            }
            Self::Requested { scrape } => write!(f, "scrape {scrape}"),
            Self::Completed { scrape, servers } => {
                write!(f, "scrape {scrape}:")?;
                servers.iter().try_for_each(|(server, report)| write!(f, " {server} {report};"))
            }
            Self::Aborted { scrape } => write!(f, "scrape {scrape} aborted"),
        }
    }
}

impl fmt::Display for ServerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { report } => report.fmt(f),
            Self::Down { reason } => write!(f, "DOWN, {reason}"),
        }
    }
}

impl fmt::Display for ReportedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start_ms, interval_ms, load, load_average, load_maximum, receive_rate } = self;
        let known = |value: &Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
        let load = [load, load_average, load_maximum].map(known).join("/");
        let [start, interval, rate] = [start_ms, interval_ms, receive_rate].map(known);
        write!(f, "load {load} rate {rate} in {interval} ms, since {start}")
    }
}
