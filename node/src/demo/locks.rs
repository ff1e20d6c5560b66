//! The locks of the demo: all servers want the same few, for reading and for writing, one or several
//! at once. What they believe is checked in `arena`; what became of each try is counted here.
//!
//! ```text
//!   begin          end(outcome)
//!  ──────► Open ─────────────────► one outcome counted
//!            │ dropped
//!            └───────────────────► counted as `Killed`: its server went, and its task with it
//! ```

mod arena;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dsync::{DRWMutex, Dsync, Guard, Kind, LockError, LockOptions};
use hdrhistogram::CreationError;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

pub(super) use self::arena::Arena;
use self::arena::Claim;
use crate::latency::Latencies;

/// Tries under way at once at one server.
const WORKERS_PER_NODE: u64 = 2;

/// What is locked. Few enough that most tries meet somebody.
const RESOURCES: [&str; 3] = ["demo/a", "demo/b", "demo/c"];

/// Longest wait for a lock. Less than a lease: what a killed server held makes others time out.
const TRY_FOR: Duration = Duration::from_secs(1);

/// Longest time that a lock is held, and between two tries.
const HELD_MAX: Duration = Duration::from_millis(4);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Failures that are kept with their text. More are only counted.
const FAILURES_KEPT: usize = 3;

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum LockOutcome {
    /// Got, held, and released while it was still held.
    Granted,
    /// Not got in time.
    TimedOut,
    /// Got and lost: its holder knew in time.
    Lost,
    /// Dropped while it was tried for.
    GivenUp,
    /// Anything else: that should not be.
    Failed,
    /// Its server was killed meanwhile.
    Killed,
}

impl LockOutcome {
    pub(super) const ALL: [Self; 6] =
        [Self::Granted, Self::TimedOut, Self::Lost, Self::GivenUp, Self::Failed, Self::Killed];

    /// How it is called where it is counted.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::TimedOut => "timed out",
            Self::Lost => "lost",
            Self::GivenUp => "given up",
            Self::Failed => "failed",
            Self::Killed => "holder killed",
        }
    }
}

/// What became of all tries, of all servers.
pub(super) struct LockLedger {
    pub(super) arena: Arc<Arena>,
    pub(super) nodes: Vec<Arc<Tries>>,
}

impl LockLedger {
    pub(super) fn new(nodes: usize) -> Result<Self, CreationError> {
        let nodes = (0..nodes).map(|_| Tries::new().map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Self { arena: Arc::default(), nodes })
    }

    /// How many tries of all servers came to this.
    pub(super) fn count(&self, outcome: LockOutcome) -> u64 {
        self.nodes.iter().map(|tries| tries.count(outcome)).sum()
    }

    /// How many were begun.
    pub(super) fn begun(&self) -> u64 {
        self.nodes.iter().map(|tries| tries.begun()).sum()
    }
}

/// The tries of one server, in all its lives.
pub(super) struct Tries {
    begun: AtomicU64,
    outcomes: [AtomicU64; LockOutcome::ALL.len()],
    /// Whether the server was killed, so that holders may end with it.
    is_hit: AtomicBool,
    details: Mutex<Details>,
}

struct Details {
    /// From the beginning of a try until it was got.
    waits: Latencies,
    failures: Vec<String>,
}

impl Tries {
    fn new() -> Result<Self, CreationError> {
        Ok(Self {
            begun: AtomicU64::new(0),
            outcomes: [const { AtomicU64::new(0) }; LockOutcome::ALL.len()],
            is_hit: AtomicBool::new(false),
            details: Mutex::new(Details { waits: Latencies::new()?, failures: Vec::new() }),
        })
    }

    pub(super) fn begin(self: &Arc<Self>) -> OpenTry {
        self.begun.fetch_add(1, Ordering::Relaxed);
        OpenTry { tries: Arc::clone(self), begun: Instant::now(), is_ended: false }
    }

    /// The server is about to be killed.
    pub(super) fn hit(&self) {
        self.is_hit.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_hit(&self) -> bool {
        self.is_hit.load(Ordering::Relaxed)
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
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

    /// The texts of some failures.
    pub(super) fn failures(&self) -> Vec<String> {
        self.details().failures.clone()
    }

    fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A try that has no outcome yet.
#[must_use = "a try that is dropped counts as killed"]
pub(super) struct OpenTry {
    tries: Arc<Tries>,
    begun: Instant,
    is_ended: bool,
}

impl OpenTry {
    /// It has the lock.
    fn got(&self) {
        self.tries.details().waits.record(self.begun.elapsed());
    }

    pub(super) fn fail(self, error: &LockError) {
        let mut details = self.tries.details();
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
        self.tries.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenTry {
    fn drop(&mut self) {
        if !self.is_ended {
            self.count(LockOutcome::Killed);
        }
    }
}

/// Tries for one lock after the other.
pub(super) struct LockWorker {
    node: usize,
    dsync: Dsync,
    tries: Arc<Tries>,
    arena: Arc<Arena>,
    rng: SmallRng,
    is_over: Arc<AtomicBool>,
}

impl LockWorker {
    /// The workers of one server.
    pub(super) fn of_node(
        node: usize,
        dsync: &Dsync,
        ledger: &LockLedger,
        is_over: &Arc<AtomicBool>,
    ) -> impl Iterator<Item = Self> {
        (0..WORKERS_PER_NODE).map(move |number| Self {
            node,
            dsync: dsync.clone(),
            tries: Arc::clone(&ledger.nodes[node]),
            arena: Arc::clone(&ledger.arena),
            rng: SmallRng::seed_from_u64((node as u64) << 8 | number),
            is_over: Arc::clone(is_over),
        })
    }

    pub(super) async fn work(mut self) {
        while !self.is_over.load(Ordering::Relaxed) {
            self.try_once().await;
            tokio::time::sleep(self.up_to(PAUSE_MAX)).await;
        }
    }

    async fn try_once(&mut self) {
        let (resources, kind) = self.draw();
        let mutex =
            DRWMutex::new(&self.dsync, resources.iter().map(|resource| RESOURCES[*resource]));
        let options = LockOptions::default().timeout(TRY_FOR).source("gridwire demo");
        // One of so many is not waited for.
        let patience = match self.rng.random_range(0..20) {
            0 => self.up_to(HELD_MAX),
            _ => Duration::MAX,
        };
        let open = self.tries.begin();
        let taking = async {
            match kind {
                Kind::Read => mutex.read_lock(options).await,
                Kind::Write => mutex.lock(options).await,
            }
        };
        match timeout(patience, taking).await {
            Err(_) => open.end(LockOutcome::GivenUp),
            Ok(Err(LockError::TimedOut { .. })) => open.end(LockOutcome::TimedOut),
            Ok(Err(error)) => open.fail(&error),
            Ok(Ok(guard)) => {
                open.got();
                let outcome = self.hold(resources, kind, guard).await;
                open.end(outcome);
            }
        }
    }

    /// Holds it for a while, and releases it.
    async fn hold(&mut self, resources: Vec<usize>, kind: Kind, guard: Guard) -> LockOutcome {
        let guard = Arc::new(guard);
        let claim = Claim { node: self.node, resources, kind, token: guard.token() };
        let Some(entered) = self.arena.enter(claim, Arc::clone(&guard) as Arc<_>) else {
            return LockOutcome::Lost;
        };
        tokio::time::sleep(self.up_to(HELD_MAX)).await;
        let is_held = guard.is_held();
        drop(entered);
        // It is nobody else's any more.
        if let Some(guard) = Arc::into_inner(guard) {
            guard.unlock().await;
        }
        if is_held { LockOutcome::Granted } else { LockOutcome::Lost }
    }

    /// One resource mostly, sometimes two.
    fn draw(&mut self) -> (Vec<usize>, Kind) {
        let first = self.rng.random_range(0..RESOURCES.len());
        let mut resources = vec![first];
        if self.rng.random_range(0..8) == 0 {
            resources.push((first + 1) % RESOURCES.len());
        }
        let kind = if self.rng.random_range(0..5) < 2 { Kind::Read } else { Kind::Write };
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
    fn every_try_is_counted_once_however_it_ends() {
        let ledger = LockLedger::new(1).expect("the histogram's bounds are constants");
        let tries = &ledger.nodes[0];
        for outcome in LockOutcome::ALL {
            tries.begin().end(outcome);
            assert_eq!(tries.count(outcome), 1, "{}", outcome.label());
        }
        tries.begin().fail(&LockError::ShuttingDown);
        assert_eq!(tries.failures(), ["this server is shutting down"]);
        drop(tries.begin());
        let hanging = tries.begin();
        assert_eq!((ledger.begun(), tries.ended()), (9, 8), "one has no outcome");
        drop(hanging);
        assert_eq!((tries.ended(), ledger.count(LockOutcome::Killed)), (9, 3));
    }
}
