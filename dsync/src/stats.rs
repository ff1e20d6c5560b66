//! What has happened so far: counters, and how long locks were waited for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::local::LocalLocker;
use crate::proto::hold::{End, Status, Tries};
use crate::proto::table::Counts;

/// What has happened so far, since the process began.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Locks that were got.
    pub locked: u64,
    /// Locks that were not got in time.
    pub timed_out: u64,
    /// Locks that were lost while they were held.
    pub lost: u64,
    /// Attempts, several for a lock that others held.
    pub attempts: u64,
    /// Attempts that needed a second round of requests, for their token.
    pub second_rounds: u64,
    /// How often a waiter was told that it was worth trying.
    pub calls: u64,
    /// Guards that are alive.
    pub held: u64,
    /// Locks that are held, tried for, or being released.
    pub live: usize,
    /// How long it took to get the locks that were got.
    pub waits: Waits,
    /// This server's locker, if it is one.
    pub locker: Option<LockerStats>,
}

/// How long it took to get locks: the part of them that the name says took no longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many there were.
    pub count: u64,
    /// The median.
    pub p50: Duration,
    /// Nine tenths.
    pub p90: Duration,
    /// Ninety-nine hundredths.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// What a locker has done, and what it has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockerStats {
    /// Locks granted, refused, expired and forced.
    pub counts: Counts,
    /// Grants that stand.
    pub grants: usize,
    /// Waiters.
    pub waiters: usize,
    /// Callers that were refused because too many waited for the table.
    pub overloaded: usize,
    /// Whether it grants.
    pub is_open: bool,
}

/// Where all that is counted.
#[derive(Debug)]
pub(crate) struct Meter {
    locked: AtomicU64,
    timed_out: AtomicU64,
    lost: AtomicU64,
    attempts: AtomicU64,
    second_rounds: AtomicU64,
    calls: AtomicU64,
    held: AtomicU64,
    waits: Mutex<Option<Histogram<u64>>>,
}

/// Waits are told apart to a hundredth of themselves.
const SIGNIFICANT_DIGITS: u8 = 2;

impl Default for Meter {
    fn default() -> Self {
        Self {
            locked: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            second_rounds: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            held: AtomicU64::new(0),
            waits: Mutex::new(Histogram::new(SIGNIFICANT_DIGITS).ok()),
        }
    }
}

impl Meter {
    /// A lock was tried for.
    pub(crate) fn tried(&self, status: Status, waited: Duration, tries: Tries) {
        self.attempts.fetch_add(u64::from(tries.attempts), Ordering::Relaxed);
        self.second_rounds.fetch_add(u64::from(tries.second_rounds), Ordering::Relaxed);
        self.calls.fetch_add(u64::from(tries.calls), Ordering::Relaxed);
        match status {
            Status::Held { .. } => {
                self.locked.fetch_add(1, Ordering::Relaxed);
                let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(waits) = &mut *waits {
                    let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
                    waits.saturating_record(micros.max(1));
                }
            }
            Status::Ended(End::TimedOut) => drop(self.timed_out.fetch_add(1, Ordering::Relaxed)),
            Status::Ended(_) | Status::Trying => {}
        }
    }

    /// There is a guard.
    pub(crate) fn made(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// A guard is gone, whose lock was still held or not.
    pub(crate) fn dropped(&self, was_held: bool) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        if !was_held {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn stats(&self, live: usize, own: Option<&LocalLocker>) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            locked: get(&self.locked),
            timed_out: get(&self.timed_out),
            lost: get(&self.lost),
            attempts: get(&self.attempts),
            second_rounds: get(&self.second_rounds),
            calls: get(&self.calls),
            held: get(&self.held),
            live,
            waits: self.waits(),
            locker: own.map(|own| {
                let (counts, grants, waiters, overloaded) = own.counts();
                let is_open = own.waits_for().is_none();
                LockerStats { counts, grants, waiters, overloaded, is_open }
            }),
        }
    }

    fn waits(&self) -> Waits {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.as_ref().map_or_else(Waits::default, |waits| {
            let at = |part| Duration::from_micros(waits.value_at_quantile(part));
            let max = Duration::from_micros(waits.max());
            Waits { count: waits.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max }
        })
    }
}
