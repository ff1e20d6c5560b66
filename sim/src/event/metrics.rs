//! Words for what nodes sample of themselves, and what is told about them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::Node;

/// Number of a scrape: its place among those of the plan, or behind them.
pub type ScrapeId = u32;

/// Something that happens to resource metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "metrics", rename_all = "snake_case")]
pub enum Metrics {
    /// A node begins to sample itself, in a new process.
    Began {
        /// When, by its wall clock, in milliseconds since 1970.
        start_ms: u64,
    },
    /// A node has sampled itself.
    Sampled {
        /// When its counters were read, by its own clock, in microseconds.
        clock_us: u64,
        /// How many wanted to run: a number that tells samples apart.
        load: u32,
        /// Bytes that have arrived since the process began.
        received: u64,
    },
    /// A node is asked for what all of them have to say.
    Asked {
        /// By which scrape.
        scrape: ScrapeId,
    },
    /// It answers.
    Answered {
        /// To which scrape.
        scrape: ScrapeId,
        /// With what, in the order of their numbers.
        servers: Vec<(Node, Told)>,
    },
    /// It does not answer: its process ends.
    Aborted {
        /// To which scrape.
        scrape: ScrapeId,
    },
}

/// What is told about a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Told {
    /// It answered, and this is what it said.
    Up {
        /// What it said.
        report: Reported,
    },
    /// It did not answer.
    Down {
        /// Why.
        reason: String,
    },
}

/// What a server said of itself. What is absent is not known. Of fractions there are thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// When it began to sample itself, in milliseconds since 1970.
    pub start_ms: Option<u64>,
    /// The length of the last interval, in milliseconds.
    pub interval_ms: Option<u64>,
    /// How many want to run.
    pub load: Option<u64>,
    /// Likewise, on average since the start; in thousandths.
    pub load_average: Option<u64>,
    /// Likewise, at most.
    pub load_maximum: Option<u64>,
    /// Bytes that arrived each second of the last interval, in thousandths.
    pub receive_rate: Option<u64>,
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began { start_ms } => write!(f, "samples itself from {start_ms} on"),
            Self::Sampled { clock_us, load, received } => {
                write!(f, "sampled at {clock_us} us: load {load}, received {received} B")
            }
            Self::Asked { scrape } => write!(f, "scrape {scrape}"),
            Self::Answered { scrape, servers } => {
                write!(f, "scrape {scrape}:")?;
                servers.iter().try_for_each(|(server, told)| write!(f, " {server} {told};"))
            }
            Self::Aborted { scrape } => write!(f, "scrape {scrape} aborted"),
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { report } => report.fmt(f),
            Self::Down { reason } => write!(f, "DOWN, {reason}"),
        }
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start_ms, interval_ms, load, load_average, load_maximum, receive_rate } = self;
        let known = |value: &Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
        let load = [load, load_average, load_maximum].map(known).join("/");
        let [start, interval, rate] = [start_ms, interval_ms, receive_rate].map(known);
        write!(f, "load {load} rate {rate} in {interval} ms, since {start}")
    }
}
