//! One server's part in the locking of its cluster.

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
use crate::error::{BuildError, LockError, Lost};
use crate::limits::{LOCKERS_MAX, Limits};
use crate::local::LocalLocker;
use crate::lock::Lock;
use crate::locker::Locker;
use crate::proto::hold::{Config, Hold, Waiting};
use crate::proto::names::Names;
use crate::proto::quorum::Kind;
use crate::proto::token::{Stamp, Token, TokenClock};
use crate::remote::RemoteLocker;
use crate::stats::{Meter, Stats};
use crate::{recovery, server};

/// Puts a [`Dsync`] together.
pub struct DsyncBuilder {
    manager: Manager,
    lockers: Option<Vec<String>>,
    limits: Limits,
    waiting: Waiting,
    clock: Option<Arc<dyn Clock>>,
    rng: Option<Box<dyn Rng + Send>>,
}

impl std::fmt::Debug for DsyncBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DsyncBuilder").field("lockers", &self.lockers).finish_non_exhaustive()
    }
}

impl DsyncBuilder {
    /// The servers that grant locks, where they are not all that the manager knows. The same on every
    /// server of the cluster.
    #[must_use]
    pub fn lockers<I>(mut self, lockers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.lockers = Some(lockers.into_iter().map(Into::into).collect());
        self
    }

    /// Other limits than the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Another way to wait than to be told: for comparisons.
    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }

    /// Another clock than [`LeaseClock`].
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Another source of randomness than the operating system's: for ids and jitter.
    #[must_use]
    pub fn rng(mut self, rng: impl Rng + Send + 'static) -> Self {
        self.rng = Some(Box::new(rng));
        self
    }

    /// Builds it, and registers its handlers with the manager. It grants nothing before
    /// [`Dsync::start`].
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the locker or limit that is wrong.
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
        let own = lockers.contains(&local).then(|| {
            let clock = Arc::clone(&clock);
            LocalLocker::new(local.as_str(), nodes.clone(), &self.limits, clock, rng.random())
        });
        let lockers = lockers.iter().filter_map(|name| {
            let remote = || manager.connection(name.as_str()).map(RemoteLocker::new);
            match &own {
                Some(own) if *name == local => Some(Arc::new(own.clone()) as Arc<dyn Locker>),
                _ => remote().map(|remote| Arc::new(remote) as Arc<dyn Locker>),
            }
        });
        let lockers: Vec<_> = lockers.collect();
        let connections = manager.connections().into_iter();
        let connections = connections.map(|remote| (remote.remote().to_string(), remote)).collect();
        let inner = Inner {
            owner: local.as_str().into(),
            instance: rng.random(),
            lockers,
            own,
            connections,
            limits: self.limits,
            waiting: self.waiting,
            clock,
            tokens: Mutex::default(),
            rng: Mutex::new(rng),
            locks: Mutex::default(),
            is_closing: AtomicBool::new(false),
            is_started: AtomicBool::new(false),
            released: Notify::new(),
            meter: Meter::default(),
            losses: Mutex::default(),
        };
        let dsync = Dsync { inner: Arc::new(inner), manager };
        server::register(&dsync)?;
        Ok(dsync)
    }
}

#[expect(clippy::disallowed_methods, reason = "the default, where the application gave no other")]
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

/// One server's part in the locking of its cluster: the locks that it holds, and its locker if it is
/// one. Cheap to clone.
///
/// Keeps its manager alive. Locks outlive it until they are released.
#[derive(Clone)]
pub struct Dsync {
    pub(crate) inner: Arc<Inner>,
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

pub(crate) struct Inner {
    pub(crate) owner: Arc<str>,
    /// Tells this process from all others, ever.
    instance: u128,
    pub(crate) lockers: Vec<Arc<dyn Locker>>,
    pub(crate) own: Option<LocalLocker>,
    /// To every other server, by its name.
    pub(crate) connections: BTreeMap<String, Connection>,
    pub(crate) limits: Limits,
    waiting: Waiting,
    pub(crate) clock: Arc<dyn Clock>,
    tokens: Mutex<TokenClock>,
    rng: Mutex<SmallRng>,
    locks: Mutex<Locks>,
    is_closing: AtomicBool,
    is_started: AtomicBool,
    released: Notify,
    pub(crate) meter: Meter,
    losses: Mutex<Losses>,
}

/// How often it is logged that locks were lost: whatever takes one takes many.
const LOSSES_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Locks that were lost.
#[derive(Debug, Default)]
struct Losses {
    untold: u64,
    told_at: Option<Instant>,
}

/// All locks of this process that are not over, by their numbers.
#[derive(Debug, Default)]
struct Locks {
    last: u64,
    live: BTreeMap<u64, Arc<Lock>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dsync {
    /// A part in the locking between the servers of `manager`, which is to be one for this alone, at
    /// [`LOCK_GRID_PATH`](grid::LOCK_GRID_PATH).
    pub fn builder(manager: &Manager) -> DsyncBuilder {
        DsyncBuilder {
            manager: manager.clone(),
            lockers: None,
            limits: Limits::default(),
            waiting: Waiting::default(),
            clock: None,
            rng: None,
        }
    }

    /// Begins: this server's locker finds out what it granted before it was started, and then grants
    /// (B53). To be called inside a tokio runtime; further calls do nothing.
    pub fn start(&self) {
        if !self.inner.is_started.swap(true, Ordering::AcqRel)
            && let Some(own) = &self.inner.own
        {
            tokio::spawn(own.clone().keep_time());
            recovery::start(self, own);
        }
    }

    /// This server's locker, if it is one.
    pub fn locker(&self) -> Option<&LocalLocker> {
        self.inner.own.as_ref()
    }

    /// Whether this server's locker grants, or it has none.
    pub fn is_open(&self) -> bool {
        self.inner.own.as_ref().is_none_or(|own| own.waits_for().is_none())
    }

    /// How many servers grant locks.
    pub fn lockers(&self) -> usize {
        self.inner.lockers.len()
    }

    /// The limits that it runs with.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        let live = lock(&self.inner.locks).live.len();
        self.inner.meter.stats(live, self.inner.own.as_ref())
    }

    /// Takes no more locks, releases all that are held, and waits until that is confirmed, for so
    /// long at most. Lockers go on.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.is_closing.store(true, Ordering::Release);
        let locks: Vec<_> = lock(&self.inner.locks).live.values().cloned().collect();
        let now = self.inner.clock.now();
        for lock in locks {
            lock.let_go(now);
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

impl Inner {
    /// Begins to try for a lock.
    pub(crate) fn begin(
        &self,
        names: Names,
        kind: Kind,
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
        let config = Config {
            lockers: self.lockers.len(),
            names,
            kind,
            owner: Arc::clone(&self.owner),
            source,
            id: format!("{:032x}-{number:x}", self.instance).into(),
            deadline: timeout.map(|timeout| now + timeout),
            waiting: self.waiting,
            limits: self.limits.clone(),
            seed,
        };
        let begun = Arc::new(Lock::new(number, Hold::new(config, tokens, now)));
        locks.live.insert(number, Arc::clone(&begun));
        Ok(begun)
    }

    /// A lock is over: everything is released.
    pub(crate) fn forget(&self, number: u64) {
        let forgotten = lock(&self.locks).live.remove(&number);
        drop(forgotten);
        self.released.notify_waiters();
    }

    /// Logs that a lock was lost: of many, one now and then.
    pub(crate) fn tell_of_loss(&self, uid: &str, why: Lost) {
        let now = self.clock.now();
        let mut losses = lock(&self.losses);
        losses.untold += 1;
        if losses.told_at.is_some_and(|at| now.since(at) < LOSSES_TOLD_EVERY) {
            return;
        }
        let count = std::mem::take(&mut losses.untold);
        losses.told_at = Some(now);
        drop(losses);
        tracing::warn!(target: "dsync", count, uid, "{why}");
    }

    /// Locks that are not over, from after this number on.
    pub(crate) fn locks_after(&self, number: u64, count: usize) -> Vec<(u64, Arc<Lock>)> {
        let locks = lock(&self.locks);
        let after = locks.live.range(number.saturating_add(1)..).take(count);
        after.map(|(number, lock)| (*number, Arc::clone(lock))).collect()
    }

    /// The lock whose attempt this id names.
    pub(crate) fn lock_of(&self, uid: &str) -> Option<Arc<Lock>> {
        let id = uid.rsplit_once('.')?.0.rsplit_once('-')?;
        if id.0 != format!("{:032x}", self.instance) {
            return None;
        }
        let number = u64::from_str_radix(id.1, 16).ok()?;
        lock(&self.locks).live.get(&number).cloned()
    }

    /// A locker has told this of tokens.
    pub(crate) fn observe(&self, stamp: Stamp, now: Instant) {
        lock(&self.tokens).observe(stamp, now);
    }

    /// This token was given.
    pub(crate) fn observe_token(&self, token: Token) {
        lock(&self.tokens).observe_token(token);
    }

    /// The highest token that may have been given, as far as this server knows.
    pub(crate) fn high(&self, now: Instant) -> Token {
        let seen = lock(&self.tokens).now(now);
        self.own.as_ref().map_or(seen, |own| own.high().max(seen))
    }

    /// A source of randomness for a task.
    pub(crate) fn fork_rng(&self) -> SmallRng {
        SmallRng::from_rng(&mut *lock(&self.rng))
    }

    /// Where a locker is among all, by its server's name.
    pub(crate) fn locker_index(&self, name: &str) -> Option<usize> {
        self.lockers.iter().position(|locker| locker.name() == name)
    }
}
