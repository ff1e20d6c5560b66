//! The outcome of every call of the demo. `streams` does the same for streams.
//!
//! ```text
//!   begin          end(outcome)
//!  ──────► OpenCall ────────────► one outcome counted
//!            │ dropped
//!            └──────────────────► counted as `Killed`: its server was killed, with its tasks
//! ```
//!
//! A call that never gets a response stays open, so that fewer outcomes than calls are counted. The
//! report checks for that, and for unexpected outcomes.

mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use grid::sync::{Mutex, MutexGuard};
use hdrhistogram::CreationError;

use super::locks::LockCounters;
use crate::latency::Latencies;
use crate::outcome::Outcome;

pub(super) use self::streams::{OpenStream, Streams};

/// Unexpected outcomes that are kept with their text, for each pair. Others are only counted.
const UNEXPECTED_KEPT: usize = 3;

/// Counters of all pairs of servers, in both directions, and of the locks.
pub(super) struct Counters {
    pairs: Vec<Arc<Pair>>,
    pub(super) locks: LockCounters,
}

impl Counters {
    pub(super) fn new(nodes: usize) -> Result<Self, CreationError> {
        let mut pairs = Vec::new();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                pairs.push(Arc::new(Pair::new(from, to)?));
            }
        }
        Ok(Self { pairs, locks: LockCounters::new(nodes)? })
    }

    /// All pairs, in display order.
    pub(super) fn pairs(&self) -> &[Arc<Pair>] {
        &self.pairs
    }

    pub(super) fn pair(&self, from: usize, to: usize) -> Option<&Arc<Pair>> {
        self.pairs.iter().find(|pair| pair.from == from && pair.to == to)
    }

    /// Outcomes of all calls of all pairs so far.
    pub(super) fn outcomes(&self) -> [u64; Outcome::COUNT] {
        let mut sums = [0; Outcome::COUNT];
        for pair in &self.pairs {
            for (sum, outcome) in sums.iter_mut().zip(Outcome::ALL) {
                *sum += pair.count(outcome);
            }
        }
        sums
    }

    /// Number of calls so far.
    pub(super) fn started(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.started()).sum()
    }

    /// Outcomes of all streams of all pairs so far.
    pub(super) fn stream_outcomes(&self) -> [u64; Outcome::COUNT] {
        Outcome::ALL.map(|outcome| self.sum_of_streams(|streams| streams.count(outcome)))
    }

    /// Sum of one counter over the streams of all pairs.
    pub(super) fn sum_of_streams(&self, number: impl Fn(&Streams) -> u64) -> u64 {
        self.pairs.iter().map(|pair| number(&pair.streams)).sum()
    }
}

/// The calls and the streams from one server to another.
pub(super) struct Pair {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) streams: Streams,
    started: AtomicU64,
    outcomes: [AtomicU64; Outcome::COUNT],
    /// Whether one of the two was killed, so that calls may fail because of it.
    was_killed: AtomicBool,
    details: Mutex<Details>,
}

struct Details {
    latencies: Latencies,
    unexpected: Vec<String>,
    unexpected_count: u64,
    /// Connections of this end before its server was killed.
    connections_before: u64,
    recovered_after: Option<Duration>,
}

impl Pair {
    fn new(from: usize, to: usize) -> Result<Self, CreationError> {
        Ok(Self {
            from,
            to,
            streams: Streams::default(),
            started: AtomicU64::new(0),
            outcomes: [const { AtomicU64::new(0) }; Outcome::COUNT],
            was_killed: AtomicBool::new(false),
            details: Mutex::new(Details {
                latencies: Latencies::new()?,
                unexpected: Vec::new(),
                unexpected_count: 0,
                connections_before: 0,
                recovered_after: None,
            }),
        })
    }

    /// Counts a call that begins now.
    pub(super) fn begin(self: &Arc<Self>) -> OpenCall {
        self.started.fetch_add(1, Ordering::Relaxed);
        OpenCall { pair: Arc::clone(self), started: Instant::now(), is_ended: false }
    }

    /// Marks that one of the two servers is about to be killed.
    pub(super) fn mark_killed(&self) {
        self.was_killed.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_killed(&self) -> bool {
        self.was_killed.load(Ordering::Relaxed)
    }

    /// Records an unexpected outcome.
    pub(super) fn record_unexpected(&self, text: &str) {
        let mut details = self.details();
        details.unexpected_count += 1;
        if details.unexpected.len() < UNEXPECTED_KEPT {
            details.unexpected.push(text.to_owned());
        }
    }

    /// Adds the connections that this end had before its server was killed.
    pub(super) fn add_connections(&self, connections: u64) {
        self.details().connections_before += connections;
    }

    /// Records the time from the restart of the killed server until this end was connected.
    pub(super) fn recovered(&self, after: Duration) {
        self.details().recovered_after = Some(after);
    }

    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.index()].load(Ordering::Relaxed)
    }

    pub(super) fn ended(&self) -> u64 {
        Outcome::ALL.into_iter().map(|outcome| self.count(outcome)).sum()
    }

    pub(super) fn latencies(&self) -> Latencies {
        self.details().latencies.clone()
    }

    /// Some unexpected outcomes, and their total number.
    pub(super) fn unexpected(&self) -> (Vec<String>, u64) {
        let details = self.details();
        (details.unexpected.clone(), details.unexpected_count)
    }

    pub(super) fn connections_before(&self) -> u64 {
        self.details().connections_before
    }

    pub(super) fn recovered_after(&self) -> Option<Duration> {
        self.details().recovered_after
    }

    /// Sets all counters and latencies, for tests of their display.
    #[cfg(test)]
    pub(super) fn set_all(&self, count: u64, latency: Duration) {
        self.started.store(count, Ordering::Relaxed);
        self.outcomes.iter().for_each(|outcome| outcome.store(count, Ordering::Relaxed));
        self.streams.set_all(count);
        self.details().latencies.record(latency);
        self.recovered(latency);
    }

    fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock()
    }
}

/// A call without an outcome.
#[must_use = "a call that is dropped counts as killed"]
pub(super) struct OpenCall {
    pair: Arc<Pair>,
    started: Instant,
    is_ended: bool,
}

impl OpenCall {
    /// Counts the call's outcome.
    pub(super) fn end(mut self, outcome: Outcome) {
        if outcome == Outcome::Responded {
            self.pair.details().latencies.record(self.started.elapsed());
        }
        self.is_ended = true;
        self.count(outcome);
    }

    fn count(&self, outcome: Outcome) {
        self.pair.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if !self.is_ended {
            self.count(Outcome::Killed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_counted_once_however_it_ends() {
        let counters = Counters::new(2).expect("the histogram's bounds are constants");
        let pair = counters.pair(0, 1).expect("one of two");
        pair.begin().end(Outcome::Responded);
        pair.begin().end(Outcome::Deadline);
        drop(pair.begin());
        let hanging = pair.begin();
        assert_eq!((pair.started(), pair.ended()), (4, 3), "one has no outcome");
        drop(hanging);
        assert_eq!((pair.started(), pair.ended()), (4, 4));
        assert_eq!(pair.count(Outcome::Killed), 2);
        assert_eq!(pair.latencies().count(), 1);
        assert_eq!(counters.started(), 4);
    }
}
