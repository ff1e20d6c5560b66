//! One server's view of the cluster's locks, and the builder for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid::time::{Clock, Instant};
use grid::{Connection, Manager, Name};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::sync::Notify;

use crate::clock::LeaseClock;
use crate::error::{BuildError, LockError, LossReason};
use crate::limits::{LOCKERS_MAX, Limits};
use crate::local::LocalLocker;
use crate::lock::Lock;
use crate::locker::Locker;
use crate::proto::hold::{Hold, HoldConfig, WaitMode};
use crate::proto::quorum::LockKind;
use crate::proto::resources::Resources;
use crate::proto::token::{Token, TokenClock, TokenStamp};
use crate::remote::RemoteLocker;
use crate::stats::{Counters, Stats};
use crate::{recovery, server};

/// Builder of a [`Dsync`].
pub struct DsyncBuilder {
    manager: Manager,
    lockers: Option<Vec<String>>,
    limits: Limits,
    wait_mode: WaitMode,
    clock: Option<Arc<dyn Clock>>,
    rng: Option<Box<dyn Rng + Send>>,
}

impl std::fmt::Debug for DsyncBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DsyncBuilder").field("lockers", &self.lockers).finish_non_exhaustive()
    }
}

impl DsyncBuilder {
    /// Sets the servers that grant locks; by default all servers of the manager. Must be the same
    /// on every server of the cluster.
    #[must_use]
    pub fn lockers<I>(mut self, lockers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.lockers = Some(lockers.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how to wait for a lock. Polling instead of notifications is meant for benchmarks.
    #[must_use]
    pub fn wait_mode(mut self, wait_mode: WaitMode) -> Self {
        self.wait_mode = wait_mode;
        self
    }

    /// Sets the clock, instead of [`LeaseClock`].
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Sets the source of randomness for ids and jitter, instead of the operating system's.
    #[must_use]
    pub fn rng(mut self, rng: impl Rng + Send + 'static) -> Self {
        self.rng = Some(Box::new(rng));
        self
    }

    /// Builds the instance, and registers its handlers with the manager. Its locker grants nothing
    /// before [`Dsync::start`].
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the invalid locker or limit.
    pub fn build(self) -> Result<Dsync, BuildError> {
        self.limits.check()?;
        let manager = self.manager;
        let local = manager.local().clone();
        let remotes = manager.connections().into_iter().map(|remote| remote.remote().clone());
        let nodes: BTreeSet<Name> = remotes.chain([local.clone()]).collect();
        let lockers = check_lockers(self.lockers, &nodes)?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(LeaseClock::new()));
        let mut rng = SmallRng::from_rng(&mut self.rng.unwrap_or_else(os_rng));
        let nodes: Vec<Arc<str>> = nodes.iter().map(|node| node.as_str().into()).collect();
        let local_locker = lockers.contains(&local).then(|| {
            let clock = Arc::clone(&clock);
            LocalLocker::new(local.as_str(), nodes.clone(), &self.limits, clock, rng.random())
        });
        let lockers = lockers.iter().filter_map(|name| {
            let remote = || manager.connection(name.as_str()).map(RemoteLocker::new);
            match &local_locker {
                Some(local_locker) if *name == local => {
                    Some(Arc::new(local_locker.clone()) as Arc<dyn Locker>)
                }
                _ => remote().map(|remote| Arc::new(remote) as Arc<dyn Locker>),
            }
        });
        let lockers: Vec<_> = lockers.collect();
        let connections = manager.connections().into_iter();
        let connections = connections.map(|remote| (remote.remote().to_string(), remote)).collect();
        let inner = DsyncInner {
            owner: local.as_str().into(),
            instance_id: rng.random(),
            lockers,
            local_locker,
            connections,
            limits: self.limits,
            wait_mode: self.wait_mode,
            clock,
            tokens: Mutex::default(),
            rng: Mutex::new(rng),
            locks: Mutex::default(),
            is_closing: AtomicBool::new(false),
            is_started: AtomicBool::new(false),
            released: Notify::new(),
            counters: Counters::default(),
            loss_log: Mutex::default(),
        };
        let dsync = Dsync { inner: Arc::new(inner), manager };
        server::register(&dsync)?;
        Ok(dsync)
    }
}

#[expect(clippy::disallowed_methods, reason = "the default, where the application gives no other")]
fn os_rng() -> Box<dyn Rng + Send> {
    Box::new(SmallRng::from_rng(&mut rand::rng()))
}

fn check_lockers(
    given: Option<Vec<String>>,
    nodes: &BTreeSet<Name>,
) -> Result<BTreeSet<Name>, BuildError> {
    let mut lockers = BTreeSet::new();
    for text in given.into_iter().flatten() {
        let name: Name = text.parse()?;
        if !nodes.contains(&name) {
            return Err(BuildError::Unknown { name: text });
        }
        if !lockers.insert(name) {
            return Err(BuildError::Duplicate { name: text });
        }
    }
    if lockers.is_empty() {
        lockers.clone_from(nodes);
    }
    match lockers.len() {
        1..=LOCKERS_MAX => Ok(lockers),
        count => Err(BuildError::Lockers { count, max: LOCKERS_MAX }),
    }
}

/// The locks that this server holds, and its locker if the server is one. Cheap to clone.
///
/// It keeps its manager alive. Locks outlive it until they are released.
#[derive(Clone)]
pub struct Dsync {
    pub(crate) inner: Arc<DsyncInner>,
    pub(crate) manager: Manager,
}

impl std::fmt::Debug for Dsync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dsync")
            .field("owner", &self.inner.owner)
            .field("lockers", &self.inner.lockers.len())
            .finish_non_exhaustive()
    }
}

pub(crate) struct DsyncInner {
    pub(crate) owner: Arc<str>,
    /// Random id of this process, which makes the ids of its locks globally unique.
    instance_id: u128,
    pub(crate) lockers: Vec<Arc<dyn Locker>>,
    pub(crate) local_locker: Option<LocalLocker>,
    /// Connections to every other server, by its name.
    pub(crate) connections: BTreeMap<String, Connection>,
    pub(crate) limits: Limits,
    wait_mode: WaitMode,
    pub(crate) clock: Arc<dyn Clock>,
    tokens: Mutex<TokenClock>,
    rng: Mutex<SmallRng>,
    locks: Mutex<LiveLocks>,
    is_closing: AtomicBool,
    is_started: AtomicBool,
    released: Notify,
    pub(crate) counters: Counters,
    loss_log: Mutex<LossLog>,
}

/// Minimum time between two log lines about lost locks: one cause usually affects many.
const LOSS_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Rate limiter of the log line about lost locks.
#[derive(Debug, Default)]
struct LossLog {
    unreported: u64,
    last_logged: Option<Instant>,
}

/// Locks of this process that are not finished, by number.
#[derive(Debug, Default)]
struct LiveLocks {
    last: u64,
    live: BTreeMap<u64, Arc<Lock>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dsync {
    /// Returns a builder for the servers of `manager`, which must carry lock traffic alone, at
    /// [`LOCK_GRID_PATH`](grid::LOCK_GRID_PATH).
    pub fn builder(manager: &Manager) -> DsyncBuilder {
        DsyncBuilder {
            manager: manager.clone(),
            lockers: None,
            limits: Limits::default(),
            wait_mode: WaitMode::default(),
            clock: None,
            rng: None,
        }
    }

    /// Starts the recovery of this server's locker, which grants once it knows its earlier grants
    /// ([B53]). To be called inside a tokio runtime; further calls do nothing.
    ///
    /// [B53]: crate::rules#b53
    pub fn start(&self) {
        if !self.inner.is_started.swap(true, Ordering::AcqRel)
            && let Some(local_locker) = &self.inner.local_locker
        {
            tokio::spawn(local_locker.clone().run_timers());
            recovery::start(self, local_locker);
        }
    }

    /// Returns this server's locker, if the server is a locker.
    pub fn locker(&self) -> Option<&LocalLocker> {
        self.inner.local_locker.as_ref()
    }

    /// Returns whether this server's locker grants locks, or the server is no locker.
    pub fn is_open(&self) -> bool {
        let locker = self.inner.local_locker.as_ref();
        locker.is_none_or(|locker| locker.unreported_nodes().is_none())
    }

    /// Returns the number of servers that grant locks.
    pub fn lockers(&self) -> usize {
        self.inner.lockers.len()
    }

    /// Returns the limits.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Returns the counters.
    pub fn stats(&self) -> Stats {
        let live = lock(&self.inner.locks).live.len();
        self.inner.counters.stats(live, self.inner.local_locker.as_ref())
    }

    /// Refuses new locks, releases all held ones, and waits at most `grace` until that is
    /// confirmed. This server's locker keeps running.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.is_closing.store(true, Ordering::Release);
        let locks: Vec<_> = lock(&self.inner.locks).live.values().cloned().collect();
        let now = self.inner.clock.now();
        for lock in locks {
            lock.release(now);
        }
        let all_released = async {
            loop {
                let released = self.inner.released.notified();
                if lock(&self.inner.locks).live.is_empty() {
                    return;
                }
                released.await;
            }
        };
        let _ = tokio::time::timeout(grace, all_released).await;
    }
}

impl DsyncInner {
    /// Creates a lock, and begins its first attempt.
    pub(crate) fn begin_lock(
        &self,
        resources: Resources,
        kind: LockKind,
        source: Arc<str>,
        timeout: Option<Duration>,
    ) -> Result<Arc<Lock>, LockError> {
        if self.is_closing.load(Ordering::Acquire) {
            return Err(LockError::ShuttingDown);
        }
        let now = self.clock.now();
        let seed = lock(&self.rng).random();
        let tokens = *lock(&self.tokens);
        let mut locks = lock(&self.locks);
        if locks.live.len() >= self.limits.holds_max {
            return Err(LockError::TooMany { max: self.limits.holds_max });
        }
        locks.last += 1;
        let number = locks.last;
        let config = HoldConfig {
            lockers: self.lockers.len(),
            resources,
            kind,
            owner: Arc::clone(&self.owner),
            source,
            id: format!("{:032x}-{number:x}", self.instance_id).into(),
            deadline: timeout.map(|timeout| now + timeout),
            wait_mode: self.wait_mode,
            limits: self.limits.clone(),
            seed,
        };
        let new_lock = Arc::new(Lock::new(number, Hold::new(config, tokens, now)));
        locks.live.insert(number, Arc::clone(&new_lock));
        Ok(new_lock)
    }

    /// Removes a lock that is finished: everything is released.
    pub(crate) fn remove_lock(&self, number: u64) {
        let removed = lock(&self.locks).live.remove(&number);
        drop(removed);
        self.released.notify_waiters();
    }

    /// Logs that a lock was lost, at most once per interval.
    pub(crate) fn log_loss(&self, uid: &str, reason: LossReason) {
        let now = self.clock.now();
        let mut loss_log = lock(&self.loss_log);
        loss_log.unreported += 1;
        if loss_log.last_logged.is_some_and(|at| now.since(at) < LOSS_LOG_INTERVAL) {
            return;
        }
        let count = std::mem::take(&mut loss_log.unreported);
        loss_log.last_logged = Some(now);
        drop(loss_log);
        tracing::warn!(target: "dsync", count, uid, %reason, "lock lost");
    }

    /// Returns up to `count` unfinished locks with a greater number.
    pub(crate) fn locks_after(&self, number: u64, count: usize) -> Vec<(u64, Arc<Lock>)> {
        let locks = lock(&self.locks);
        let after = locks.live.range(number.saturating_add(1)..).take(count);
        after.map(|(number, lock)| (*number, Arc::clone(lock))).collect()
    }

    /// Returns the lock of the attempt with this id.
    pub(crate) fn lock_by_uid(&self, uid: &str) -> Option<Arc<Lock>> {
        let id = uid.rsplit_once('.')?.0.rsplit_once('-')?;
        if id.0 != format!("{:032x}", self.instance_id) {
            return None;
        }
        let number = u64::from_str_radix(id.1, 16).ok()?;
        lock(&self.locks).live.get(&number).cloned()
    }

    /// Records the token stamp of a locker.
    pub(crate) fn observe(&self, stamp: TokenStamp, now: Instant) {
        lock(&self.tokens).observe(stamp, now);
    }

    /// Records an issued token.
    pub(crate) fn observe_token(&self, token: Token) {
        lock(&self.tokens).observe_token(token);
    }

    /// Returns an upper bound of the tokens issued so far, as far as this server knows.
    pub(crate) fn highest_token(&self, now: Instant) -> Token {
        let seen = lock(&self.tokens).now(now);
        let locker = self.local_locker.as_ref();
        locker.map_or(seen, |locker| locker.highest_token().max(seen))
    }

    /// Returns a new source of randomness, for a task.
    pub(crate) fn fork_rng(&self) -> SmallRng {
        SmallRng::from_rng(&mut *lock(&self.rng))
    }

    /// Returns the index of a locker, by its server's name.
    pub(crate) fn locker_index(&self, name: &str) -> Option<usize> {
        self.lockers.iter().position(|locker| locker.name() == name)
    }
}
