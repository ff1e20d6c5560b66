//! Counters, and a histogram of the time to acquire locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use grid::sync::Mutex;
use hdrhistogram::Histogram;

use crate::local::LocalLocker;
use crate::proto::hold::{AttemptStats, EndReason, Status};
use crate::proto::table::GrantCounts;

/// Counters since the process began.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Locks acquired.
    pub locked: u64,
    /// Locks not acquired in time.
    pub timed_out: u64,
    /// Locks lost while they were held.
    pub lost: u64,
    /// Attempts: several for a lock that others hold.
    pub attempts: u64,
    /// Attempts with a second round of requests, for their token.
    pub second_rounds: u64,
    /// Notifications to waiters that a retry is worthwhile.
    pub notifications: u64,
    /// Live guards.
    pub held: u64,
    /// Locks that are held, being acquired, or being released.
    pub live: usize,
    /// Time to acquire a lock, over the acquired ones.
    pub waits: WaitStats,
    /// Counters of this server's locker, if it is one.
    pub locker: Option<LockerStats>,
}

/// Quantiles of the time to acquire a lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaitStats {
    /// Number of samples.
    pub count: u64,
    /// Median.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Maximum.
    pub max: Duration,
}

/// Counters and gauges of a locker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockerStats {
    /// Locks granted, refused, expired and forced open.
    pub counts: GrantCounts,
    /// Current grants.
    pub grants: usize,
    /// Current waiters.
    pub waiters: usize,
    /// Requests refused because too many were waiting for the table.
    pub overloaded: usize,
    /// Whether it grants, rather than recovering from a restart.
    pub is_open: bool,
}

/// Atomic counters behind [`Stats`].
#[derive(Debug)]
pub(crate) struct Counters {
    locked: AtomicU64,
    timed_out: AtomicU64,
    lost: AtomicU64,
    attempts: AtomicU64,
    second_rounds: AtomicU64,
    notifications: AtomicU64,
    held: AtomicU64,
    waits: Mutex<Option<Histogram<u64>>>,
}

/// Precision of the recorded times: one percent.
const SIGNIFICANT_DIGITS: u8 = 2;

impl Default for Counters {
    fn default() -> Self {
        Self {
            locked: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            second_rounds: AtomicU64::new(0),
            notifications: AtomicU64::new(0),
            held: AtomicU64::new(0),
            waits: Mutex::new(Histogram::new(SIGNIFICANT_DIGITS).ok()),
        }
    }
}

impl Counters {
    /// Records the outcome of an acquisition.
    pub(crate) fn record_attempt(&self, status: Status, waited: Duration, stats: AttemptStats) {
        self.attempts.fetch_add(u64::from(stats.attempts), Ordering::Relaxed);
        self.second_rounds.fetch_add(u64::from(stats.second_rounds), Ordering::Relaxed);
        self.notifications.fetch_add(u64::from(stats.notifications), Ordering::Relaxed);
        match status {
            Status::Held { .. } => {
                self.locked.fetch_add(1, Ordering::Relaxed);
                let mut waits = self.waits.lock();
                if let Some(waits) = &mut *waits {
                    let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
                    waits.saturating_record(micros.max(1));
                }
            }
            Status::Ended(EndReason::TimedOut) => {
                self.timed_out.fetch_add(1, Ordering::Relaxed);
            }
            Status::Ended(_) | Status::Acquiring => {}
        }
    }

    /// Records a new guard.
    pub(crate) fn guard_created(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that a guard was dropped, and whether its lock was still held.
    pub(crate) fn guard_dropped(&self, was_held: bool) {
        let held = self.held.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(held > 0, "Counters.held: {held} before a guard was dropped");
        if !was_held {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn stats(&self, live: usize, own: Option<&LocalLocker>) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            locked: load(&self.locked),
            timed_out: load(&self.timed_out),
            lost: load(&self.lost),
            attempts: load(&self.attempts),
            second_rounds: load(&self.second_rounds),
            notifications: load(&self.notifications),
            held: load(&self.held),
            live,
            waits: self.waits(),
            locker: own.map(|own| {
                let (counts, grants, waiters, overloaded) = own.counts();
                let is_open = own.unreported_nodes().is_none();
                LockerStats { counts, grants, waiters, overloaded, is_open }
            }),
        }
    }

    fn waits(&self) -> WaitStats {
        let waits = self.waits.lock();
        waits.as_ref().map_or_else(WaitStats::default, |waits| {
            let at = |quantile| Duration::from_micros(waits.value_at_quantile(quantile));
            let max = Duration::from_micros(waits.max());
            WaitStats { count: waits.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max }
        })
    }
}
