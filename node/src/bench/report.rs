//! The result of a bench: human-readable text, or one line of JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Tally;
use crate::cli::BenchArgs;
use crate::latency::DisplayLatency;
use crate::outcome::Outcome;

/// The result of a bench. Its fields are the JSON keys.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    peer: String,
    concurrency: u32,
    size_bytes: u64,
    threads: u16,
    /// Measured time.
    seconds: f64,
    /// Successful calls in that time.
    ops: u64,
    ops_per_second: f64,
    /// Payload in one direction; the other has as much.
    megabytes_per_second: f64,
    latency_us: LatencyReport,
    /// Failed calls, by reason.
    errors: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct LatencyReport {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Report {
    pub(super) fn new(arguments: &BenchArgs, tally: &Tally, elapsed: Duration) -> Self {
        let latencies = &tally.latencies;
        let ops = latencies.count();
        let ops_per_second = ops as f64 / elapsed.as_secs_f64();
        let errors = Outcome::ALL
            .into_iter()
            .map(|outcome| (outcome.label(), tally.failures[outcome.index()]))
            .filter(|(_, count)| *count > 0)
            .collect();
        Self {
            peer: arguments.peer.to_string(),
            concurrency: arguments.calls(),
            size_bytes: arguments.size,
            threads: arguments.threads,
            seconds: elapsed.as_secs_f64(),
            ops,
            ops_per_second: round(ops_per_second),
            megabytes_per_second: round(ops_per_second * arguments.size as f64 / 1e6),
            latency_us: LatencyReport {
                mean: micros(latencies.mean()),
                p50: micros(latencies.quantile(0.5)),
                p90: micros(latencies.quantile(0.9)),
                p99: micros(latencies.quantile(0.99)),
                p999: micros(latencies.quantile(0.999)),
                max: micros(latencies.max()),
            },
            errors,
        }
    }

    /// Returns the report as one line of JSON.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// Rounds to a tenth; finer differences are noise.
fn micros(latency: Duration) -> f64 {
    round(latency.as_secs_f64() * 1e6)
}

pub(super) fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, concurrency, size_bytes, threads, seconds, ops, .. } = self;
        writeln!(
            f,
            "{peer}: {concurrency} concurrent calls of {size_bytes} bytes, {threads} threads"
        )?;
        writeln!(f, "  calls       {ops} in {seconds:.2} s")?;
        writeln!(f, "  calls/s     {:.0}", self.ops_per_second)?;
        writeln!(f, "  payload     {:.1} MB/s in each direction", self.megabytes_per_second)?;
        let latency = &self.latency_us;
        for (name, micros) in [
            ("mean", latency.mean),
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
            ("max", latency.max),
        ] {
            writeln!(f, "  {name:<12}{}", DisplayLatency(Duration::from_secs_f64(micros / 1e6)))?;
        }
        write!(f, "  errors      {}", Errors(&self.errors))
    }
}

struct Errors<'a>(&'a BTreeMap<&'static str, u64>);

impl fmt::Display for Errors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let each: Vec<_> = self.0.iter().map(|(label, count)| format!("{count} {label}")).collect();
        f.write_str(&each.join(", "))
    }
}
