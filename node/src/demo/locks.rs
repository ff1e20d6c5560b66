//! The locks of the demo: all servers lock the same few resources, for reading and for writing, one
//! or several at once. `exclusion` checks that no two conflicting holders overlap; outcomes are
//! counted here.
//!
//! ```text
//!   begin          end(outcome)
//!  ──────► Open ─────────────────► one outcome counted
//!            │ dropped
//!            └───────────────────► counted as `Killed`: its server was killed, with its tasks
//! ```

mod exclusion;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dsync::{DRWMutex, Dsync, Guard, LockError, LockKind, LockOptions};
use grid::sync::{Mutex, MutexGuard};
use hdrhistogram::CreationError;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

pub(super) use self::exclusion::ExclusionChecker;
use self::exclusion::LockClaim;
use crate::latency::Latencies;

/// Concurrent attempts on each server.
const WORKERS_PER_NODE: u64 = 2;

/// Resources to lock. Few enough that most attempts conflict.
const RESOURCES: [&str; 3] = ["demo/a", "demo/b", "demo/c"];

/// Longest wait for a lock. Less than the lease, so that waiters for the killed server's locks time
/// out.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time to hold a lock, and longest pause between two attempts.
const HOLD_MAX: Duration = Duration::from_millis(4);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Failures that are kept with their text. Others are only counted.
const FAILURES_KEPT: usize = 3;

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum LockOutcome {
    /// Acquired, held, and released while still held.
    Granted,
    /// Timed out, at the lockers or before this server was ready.
    TimedOut,
    /// Acquired and lost; the holder was notified of the loss in time.
    Lost,
    /// Cancelled while waiting.
    Cancelled,
    /// Failed with an unexpected error.
    Failed,
    /// The holder's server was killed.
    Killed,
}

impl LockOutcome {
    pub(super) const ALL: [Self; 6] =
        [Self::Granted, Self::TimedOut, Self::Lost, Self::Cancelled, Self::Failed, Self::Killed];

    /// Name of the outcome in reports.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::TimedOut => "timed out",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Killed => "holder killed",
        }
    }
}

/// The outcomes of all attempts on all servers.
pub(super) struct LockCounters {
    pub(super) exclusion: Arc<ExclusionChecker>,
    pub(super) nodes: Vec<Arc<LockAttempts>>,
}

impl LockCounters {
    pub(super) fn new(nodes: usize) -> Result<Self, CreationError> {
        let nodes =
            (0..nodes).map(|_| LockAttempts::new().map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Self { exclusion: Arc::default(), nodes })
    }

    /// Number of attempts, on all servers, with this outcome.
    pub(super) fn count(&self, outcome: LockOutcome) -> u64 {
        self.nodes.iter().map(|attempts| attempts.count(outcome)).sum()
    }

    /// Number of attempts.
    pub(super) fn started(&self) -> u64 {
        self.nodes.iter().map(|attempts| attempts.started()).sum()
    }
}

/// The attempts of one server, before and after its restart.
pub(super) struct LockAttempts {
    started: AtomicU64,
    outcomes: [AtomicU64; LockOutcome::ALL.len()],
    /// Whether the server was killed, so that holders may end with it.
    was_killed: AtomicBool,
    details: Mutex<Details>,
}

struct Details {
    /// Time from the start of an attempt until the lock was acquired.
    waits: Latencies,
    failures: Vec<String>,
}

impl LockAttempts {
    fn new() -> Result<Self, CreationError> {
        Ok(Self {
            started: AtomicU64::new(0),
            outcomes: [const { AtomicU64::new(0) }; LockOutcome::ALL.len()],
            was_killed: AtomicBool::new(false),
            details: Mutex::new(Details { waits: Latencies::new()?, failures: Vec::new() }),
        })
    }

    pub(super) fn begin(self: &Arc<Self>) -> OpenAttempt {
        self.started.fetch_add(1, Ordering::Relaxed);
        OpenAttempt { attempts: Arc::clone(self), started: Instant::now(), is_ended: false }
    }

    /// Marks that the server is about to be killed.
    pub(super) fn mark_killed(&self) {
        self.was_killed.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_killed(&self) -> bool {
        self.was_killed.load(Ordering::Relaxed)
    }

    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, outcome: LockOutcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    pub(super) fn ended(&self) -> u64 {
        LockOutcome::ALL.into_iter().map(|outcome| self.count(outcome)).sum()
    }

    pub(super) fn waits(&self) -> Latencies {
        self.details().waits.clone()
    }

    /// The error texts of some failures.
    pub(super) fn failures(&self) -> Vec<String> {
        self.details().failures.clone()
    }

    /// Sets all counters and latencies, for tests of their display.
    #[cfg(test)]
    pub(super) fn set_all(&self, count: u64, latency: Duration) {
        self.started.store(count, Ordering::Relaxed);
        self.outcomes.iter().for_each(|outcome| outcome.store(count, Ordering::Relaxed));
        self.details().waits.record(latency);
    }

    fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock()
    }
}

/// An attempt without an outcome.
#[must_use = "an attempt that is dropped counts as killed"]
pub(super) struct OpenAttempt {
    attempts: Arc<LockAttempts>,
    started: Instant,
    is_ended: bool,
}

impl OpenAttempt {
    /// Records the latency of an acquired lock.
    fn record_granted(&self) {
        self.attempts.details().waits.record(self.started.elapsed());
    }

    pub(super) fn fail(self, error: &LockError) {
        let mut details = self.attempts.details();
        if details.failures.len() < FAILURES_KEPT {
            details.failures.push(error.to_string());
        }
        drop(details);
        self.end(LockOutcome::Failed);
    }

    pub(super) fn end(mut self, outcome: LockOutcome) {
        self.is_ended = true;
        self.count(outcome);
    }

    fn count(&self, outcome: LockOutcome) {
        self.attempts.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenAttempt {
    fn drop(&mut self) {
        if !self.is_ended {
            self.count(LockOutcome::Killed);
        }
    }
}

/// Attempts to acquire one lock after the other.
pub(super) struct LockWorker {
    node: usize,
    dsync: Dsync,
    attempts: Arc<LockAttempts>,
    exclusion: Arc<ExclusionChecker>,
    rng: SmallRng,
    is_stopping: Arc<AtomicBool>,
}

impl LockWorker {
    /// Creates the workers of one server.
    pub(super) fn of_node(
        node: usize,
        dsync: &Dsync,
        counters: &LockCounters,
        is_stopping: &Arc<AtomicBool>,
    ) -> impl Iterator<Item = Self> {
        (0..WORKERS_PER_NODE).map(move |number| Self {
            node,
            dsync: dsync.clone(),
            attempts: Arc::clone(&counters.nodes[node]),
            exclusion: Arc::clone(&counters.exclusion),
            rng: SmallRng::seed_from_u64((node as u64) << 8 | number),
            is_stopping: Arc::clone(is_stopping),
        })
    }

    pub(super) async fn work(mut self) {
        while !self.is_stopping.load(Ordering::Relaxed) {
            self.attempt_lock().await;
            tokio::time::sleep(self.up_to(PAUSE_MAX)).await;
        }
    }

    async fn attempt_lock(&mut self) {
        let (resources, kind) = self.draw();
        let mutex =
            DRWMutex::new(&self.dsync, resources.iter().map(|resource| RESOURCES[*resource]));
        let options = LockOptions::default().timeout(LOCK_TIMEOUT).source("gridwire demo");
        // One in twenty attempts is cancelled early.
        let cancel_after = match self.rng.random_range(0..20) {
            0 => self.up_to(HOLD_MAX),
            _ => Duration::MAX,
        };
        let open = self.attempts.begin();
        let taking = async {
            match kind {
                LockKind::Read => mutex.read_lock(options).await,
                LockKind::Write => mutex.lock(options).await,
            }
        };
        match timeout(cancel_after, taking).await {
            Err(_) => open.end(LockOutcome::Cancelled),
            // A restarted server takes no locks before it has verified the others.
            Ok(Err(LockError::TimedOut { .. } | LockError::NotReady { .. })) => {
                open.end(LockOutcome::TimedOut);
            }
            Ok(Err(error)) => open.fail(&error),
            Ok(Ok(guard)) => {
                open.record_granted();
                let outcome = self.hold(resources, kind, guard).await;
                open.end(outcome);
            }
        }
    }

    /// Holds the lock for a while, and releases it.
    async fn hold(&mut self, resources: Vec<usize>, kind: LockKind, guard: Guard) -> LockOutcome {
        let guard = Arc::new(guard);
        let claim = LockClaim {
            node: self.node,
            resources,
            kind,
            token: guard.token().unwrap_or_default(),
        };
        let Some(entered) = self.exclusion.register(claim, Arc::clone(&guard) as Arc<_>) else {
            return LockOutcome::Lost;
        };
        tokio::time::sleep(self.up_to(HOLD_MAX)).await;
        let is_held = guard.is_held();
        drop(entered);
        // This is the last reference.
        if let Some(guard) = Arc::into_inner(guard) {
            guard.unlock();
        }
        if is_held { LockOutcome::Granted } else { LockOutcome::Lost }
    }

    /// Draws one resource, sometimes two.
    fn draw(&mut self) -> (Vec<usize>, LockKind) {
        let first = self.rng.random_range(0..RESOURCES.len());
        let mut resources = vec![first];
        if self.rng.random_range(0..8) == 0 {
            resources.push((first + 1) % RESOURCES.len());
        }
        let kind = if self.rng.random_range(0..5) < 2 { LockKind::Read } else { LockKind::Write };
        (resources, kind)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_is_counted_once_however_it_ends() {
        let counters = LockCounters::new(1).expect("the histogram's bounds are constants");
        let attempts = &counters.nodes[0];
        for outcome in LockOutcome::ALL {
            attempts.begin().end(outcome);
            assert_eq!(attempts.count(outcome), 1, "{}", outcome.label());
        }
        attempts.begin().fail(&LockError::ShuttingDown);
        assert_eq!(attempts.failures(), ["this server is shutting down"]);
        drop(attempts.begin());
        let hanging = attempts.begin();
        assert_eq!((counters.started(), attempts.ended()), (9, 8), "one has no outcome");
        drop(hanging);
        assert_eq!((attempts.ended(), counters.count(LockOutcome::Killed)), (9, 3));
    }
}
