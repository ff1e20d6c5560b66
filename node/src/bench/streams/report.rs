//! The result of a bench of streams: a table, or one line of JSON.

use std::fmt;

use grid::limits::STREAM_CAPACITY;
use indicatif::HumanCount;
use serde::Serialize;

use super::{Direction, StreamRun};
use crate::bench::report::round;
use crate::cli::BenchArgs;

/// The result of a bench. Its fields are the JSON keys.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    peer: String,
    size_bytes: u64,
    threads: u16,
    /// Credit: messages in flight in each direction of a stream.
    capacity: u32,
    runs: Vec<RunRow>,
}

/// One measurement.
#[derive(Debug, Serialize)]
struct RunRow {
    streams: u32,
    way: &'static str,
    /// Time until the last message was confirmed.
    seconds: f64,
    sent: u64,
    /// Counted by the server's handler, or received as an echo.
    confirmed: u64,
    messages_per_second: f64,
    /// Payload in one direction.
    megabytes_per_second: f64,
    /// Failed streams, including the warm-up.
    failed: usize,
}

impl Report {
    pub(super) fn new(arguments: &BenchArgs, runs: &[StreamRun]) -> Self {
        Self {
            peer: arguments.peer.to_string(),
            size_bytes: arguments.size,
            threads: arguments.threads,
            capacity: STREAM_CAPACITY,
            runs: runs.iter().map(|run| RunRow::new(run, arguments.size)).collect(),
        }
    }

    /// Returns the report as one line of JSON.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

impl RunRow {
    fn new(run: &StreamRun, size_bytes: u64) -> Self {
        let messages_per_second = run.confirmed as f64 / run.elapsed.as_secs_f64();
        Self {
            streams: run.streams,
            way: match run.direction {
                Direction::OneWay => "one_way",
                Direction::Echoed => "echoed",
            },
            seconds: run.elapsed.as_secs_f64(),
            sent: run.sent,
            confirmed: run.confirmed,
            messages_per_second: round(messages_per_second),
            megabytes_per_second: round(messages_per_second * size_bytes as f64 / 1e6),
            failed: run.failures.len(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, size_bytes, threads, capacity, runs } = self;
        writeln!(f, "{peer}: messages of {size_bytes} bytes, {threads} threads")?;
        writeln!(f, "up to {capacity} messages in flight in each direction of a stream\n")?;
        write!(
            f,
            "{:>7}  {:<8}{:>10}{:>14}{:>14}{:>10}{:>8}",
            "streams", "way", "seconds", "confirmed", "messages/s", "MB/s", "failed"
        )?;
        for line in runs {
            write!(
                f,
                "\n{:>7}  {:<8}{:>10.2}{:>14}{:>14}{:>10.1}{:>8}",
                line.streams,
                line.way.replace('_', " "),
                line.seconds,
                HumanCount(line.confirmed).to_string(),
                HumanCount(line.messages_per_second as u64).to_string(),
                line.megabytes_per_second,
                line.failed,
            )?;
        }
        f.write_str(
            "\n\none way: into the server, whose handler counted them; echoed: into it and back\n\
             MB/s: payload in one direction",
        )
    }
}
