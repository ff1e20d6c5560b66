//! What became of every call of the demo. What became of its streams is in `streams`.
//!
//! ```text
//!   begin          end(outcome)
//!  ──────► Open ─────────────────► one outcome counted
//!            │ dropped
//!            └───────────────────► counted as `Killed`: its server went, and its task with it
//! ```
//!
//! A call that is never answered stays open, so that fewer outcomes than calls are counted. That is
//! what the verdict looks for, next to outcomes that nobody expected.

mod streams;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::CreationError;

use super::locks::LockLedger;
use crate::latency::Latencies;
use crate::outcome::Outcome;

pub(super) use self::streams::{OpenStream, Streams};

/// Unexpected outcomes that are kept with their text, for each pair. More are only counted.
const SURPRISES_KEPT: usize = 3;

/// All pairs of servers, in both directions; and the locks, which are not of pairs.
pub(super) struct Ledger {
    pairs: Vec<Arc<Pair>>,
    pub(super) locks: LockLedger,
}

impl Ledger {
    pub(super) fn new(nodes: usize) -> Result<Self, CreationError> {
        let mut pairs = Vec::new();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                pairs.push(Arc::new(Pair::new(from, to)?));
            }
        }
        Ok(Self { pairs, locks: LockLedger::new(nodes)? })
    }

    /// In the order in which they are shown.
    pub(super) fn pairs(&self) -> &[Arc<Pair>] {
        &self.pairs
    }

    pub(super) fn pair(&self, from: usize, to: usize) -> Option<&Arc<Pair>> {
        self.pairs.iter().find(|pair| pair.from == from && pair.to == to)
    }

    /// All outcomes so far, of all pairs.
    pub(super) fn outcomes(&self) -> [u64; Outcome::COUNT] {
        let mut sums = [0; Outcome::COUNT];
        for pair in &self.pairs {
            for (sum, outcome) in sums.iter_mut().zip(Outcome::ALL) {
                *sum += pair.count(outcome);
            }
        }
        sums
    }

    /// All calls so far.
    pub(super) fn started(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.started()).sum()
    }

    /// Likewise of all streams.
    pub(super) fn stream_outcomes(&self) -> [u64; Outcome::COUNT] {
        Outcome::ALL.map(|outcome| self.sum_of_streams(|streams| streams.count(outcome)))
    }

    /// The sum of one number of the streams of all pairs.
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
    /// Whether one of the two was killed, so that calls may fail for it.
    is_hit: AtomicBool,
    details: Mutex<Details>,
}

struct Details {
    latencies: Latencies,
    surprises: Vec<String>,
    surprise_count: u64,
    /// Connections that ended with a server that was killed.
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
            is_hit: AtomicBool::new(false),
            details: Mutex::new(Details {
                latencies: Latencies::new()?,
                surprises: Vec::new(),
                surprise_count: 0,
                connections_before: 0,
                recovered_after: None,
            }),
        })
    }

    /// A call begins now.
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        self.started.fetch_add(1, Ordering::Relaxed);
        Open { pair: Arc::clone(self), begun: Instant::now(), is_ended: false }
    }

    /// One of its servers is about to be killed.
    pub(super) fn hit(&self) {
        self.is_hit.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_hit(&self) -> bool {
        self.is_hit.load(Ordering::Relaxed)
    }

    /// Keeps an outcome that should not have been.
    pub(super) fn surprised(&self, surprise: &str) {
        let mut details = self.details();
        details.surprise_count += 1;
        if details.surprises.len() < SURPRISES_KEPT {
            details.surprises.push(surprise.to_owned());
        }
    }

    /// The server at this end was killed; it had had so many connections.
    pub(super) fn add_connections(&self, connections: u64) {
        self.details().connections_before += connections;
    }

    /// The pair was connected again, so long after the killed server had been started again.
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

    /// Some unexpected outcomes, and how many there were.
    pub(super) fn surprises(&self) -> (Vec<String>, u64) {
        let details = self.details();
        (details.surprises.clone(), details.surprise_count)
    }

    pub(super) fn connections_before(&self) -> u64 {
        self.details().connections_before
    }

    pub(super) fn recovered_after(&self) -> Option<Duration> {
        self.details().recovered_after
    }

    fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that has no outcome yet.
#[must_use = "a call that is dropped counts as killed"]
pub(super) struct Open {
    pair: Arc<Pair>,
    begun: Instant,
    is_ended: bool,
}

impl Open {
    /// The call's outcome.
    pub(super) fn end(mut self, outcome: Outcome) {
        if outcome == Outcome::Answered {
            self.pair.details().latencies.record(self.begun.elapsed());
        }
        self.is_ended = true;
        self.count(outcome);
    }

    fn count(&self, outcome: Outcome) {
        self.pair.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Open {
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
        let ledger = Ledger::new(2).expect("the histogram's bounds are constants");
        let pair = ledger.pair(0, 1).expect("one of two");
        pair.begin().end(Outcome::Answered);
        pair.begin().end(Outcome::Deadline);
        drop(pair.begin());
        let hanging = pair.begin();
        assert_eq!((pair.started(), pair.ended()), (4, 3), "one has no outcome");
        drop(hanging);
        assert_eq!((pair.started(), pair.ended()), (4, 4));
        assert_eq!(pair.count(Outcome::Killed), 2);
        assert_eq!(pair.latencies().count(), 1);
        assert_eq!(ledger.started(), 4);
    }
}
