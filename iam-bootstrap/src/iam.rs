//! One server's copy of all users, groups, policies and accounts: loaded, changed, and kept the same as
//! the others'.
//!
//! ```text
//!              pools online            peers compared
//!   Loading ─────────────────► CatchingUp ─────────────► Ready
//!      │
//!      └────────────────────► Failed     a pool that waiting does not mend
//!         other errors
//! ```
//!
//! Whoever asks reads the snapshot of the moment, without a lock. Whatever changes it goes through one
//! task (`writer`), which writes to the pool first. `tell` tells peers of a change, `compare` finds and
//! takes what was missed, `serve` answers those who do so with us.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use grid::net::clock::SystemClock;
use grid::time::Clock;
use grid::{Connection, Manager, Name, RegisterError};
use rand::rngs::{SmallRng, StdRng};
use rand::{CryptoRng, RngExt, SeedableRng};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use xxhash_rust::xxh3::xxh3_64;

use crate::body::{self, Change};
use crate::ending::Ending;
use crate::format::{FormatGuard, Unguarded};
use crate::limits::{CHANGES_QUEUED_MAX, REFRESH_INTERVAL};
use crate::load::{self, LoadError, LoadReport, Progress, Source};
use crate::model::UserName;
use crate::record::Version;
use crate::replica::Replica;
use crate::snapshot::{Item, ItemKey, Snapshot};
use crate::store::sealed::{Keys, Sealer};
use crate::store::{IamStore, ItemPath, StoreError};
use crate::writer::Job;
use crate::{compare, format, serve, writer};

/// Why a peer is not one of those that keep the same.
type Admission = Arc<dyn Fn(&Name) -> Result<(), String> + Send + Sync>;

/// Puts an [`Iam`] together.
pub struct IamBuilder {
    manager: Manager,
    root: UserName,
    keys: Keys,
    pools: Vec<Arc<dyn IamStore>>,
    guard: Arc<dyn FormatGuard>,
    refresh_interval: Duration,
    servers: Option<Vec<String>>,
    admission: Admission,
    clock: Option<Arc<dyn Clock>>,
    rng: Option<Box<dyn CryptoRng + Send>>,
}

impl fmt::Debug for IamBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Vec<_> = self.pools.iter().map(IamStore::name).collect();
        f.debug_struct("IamBuilder").field("pools", &pools).finish_non_exhaustive()
    }
}

/// Why there is no [`Iam`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no pool.
    #[error("IAM needs at least one pool to keep its items in")]
    NoPool,
    /// Two pools have one name.
    #[error("two pools are called {name}: names tell them apart in logs and errors")]
    DuplicatePool {
        /// The name.
        name: String,
    },
    /// A handler cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl IamBuilder {
    /// One more pool. Items of those given first count; changes go to the pool that has the item, new
    /// items to the first.
    ///
    /// A pool belongs to this server alone: what others keep, they keep in theirs.
    #[must_use]
    pub fn pool(mut self, pool: impl IamStore) -> Self {
        self.pools.push(Arc::new(pool));
        self
    }

    /// Who else is not told, not compared with and not answered: whoever this gives a reason for. For
    /// servers of another [deployment](crate::deployment).
    #[must_use]
    pub fn admission(
        mut self,
        admit: impl Fn(&Name) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.admission = Arc::new(admit);
        self
    }

    /// What is held while the format of what is kept is written for the first time. None, unless given.
    #[must_use]
    pub fn format_guard(mut self, guard: impl FormatGuard) -> Self {
        self.guard = Arc::new(guard);
        self
    }

    /// Longest time between two comparisons with each peer; [`REFRESH_INTERVAL`], unless given.
    #[must_use]
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }

    /// The servers that keep the same; all that the manager knows, unless told. Who else it knows is
    /// neither told of changes nor asked for them.
    #[must_use]
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.servers = Some(servers.into_iter().map(Into::into).collect());
        self
    }

    /// Another clock than the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Another source of randomness than the operating system's: for seals and jitter.
    #[must_use]
    pub fn rng(mut self, rng: impl CryptoRng + Send + 'static) -> Self {
        self.rng = Some(Box::new(rng));
        self
    }

    /// Builds it, and registers its handlers with the manager. Nothing is loaded before
    /// [`Iam::start`].
    ///
    /// # Errors
    ///
    /// [`BuildError`].
    pub fn build(self) -> Result<Iam, BuildError> {
        if self.pools.is_empty() {
            return Err(BuildError::NoPool);
        }
        let mut names = BTreeMap::new();
        for pool in &self.pools {
            if names.insert(pool.name(), ()).is_some() {
                return Err(BuildError::DuplicatePool { name: pool.name().to_owned() });
            }
        }
        let mut rng = self.rng.unwrap_or_else(os_rng);
        let jitter = SmallRng::from_rng(&mut rng);
        let (jobs, inbox) = mpsc::channel(CHANGES_QUEUED_MAX);
        let inner = Inner {
            node: xxh3_64(self.manager.local().as_str().as_bytes()),
            manager: self.manager,
            servers: self.servers,
            admission: self.admission,
            root: self.root,
            pools: self.pools,
            guard: self.guard,
            sealer: Sealer::new(self.keys, rng),
            refresh_interval: self.refresh_interval,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
            rng: Mutex::new(jitter),
            current: ArcSwapOption::empty(),
            copy: Mutex::default(),
            jobs,
            inbox: Mutex::new(Some(inbox)),
            phase: watch::Sender::new(Phase::Loading(Progress::default())),
            missed: Notify::new(),
            is_started: AtomicBool::new(false),
            ending: Arc::default(),
        };
        let iam = Iam { inner: Arc::new(inner) };
        serve::register(&iam)?;
        Ok(iam)
    }
}

#[expect(clippy::disallowed_methods, reason = "the default, where the application gave no other")]
fn os_rng() -> Box<dyn CryptoRng + Send> {
    Box::new(StdRng::from_rng(&mut rand::rng()))
}

/// How far this server is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The pools are being read.
    Loading(Progress),
    /// Everything is loaded; what was missed is being taken from peers.
    CatchingUp,
    /// Questions are answered.
    Ready,
    /// It cannot be loaded.
    Failed(LoadError),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loading(progress) => write!(f, "loading IAM: {progress}"),
            Self::CatchingUp => f.write_str("taking from other servers what was changed meanwhile"),
            Self::Ready => f.write_str("ready"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Why an item was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Nothing is loaded yet. Nothing was changed.
    #[error("IAM cannot be changed yet: this server is {phase}")]
    NotReady {
        /// How far it is.
        phase: String,
    },
    /// There is no such item to delete.
    #[error("there is no {key}")]
    NotFound {
        /// What was to be deleted.
        key: ItemKey,
    },
    /// Too many changes wait. Nothing was changed.
    #[error("{max} changes are waiting already: try again later")]
    Overloaded {
        /// [`CHANGES_QUEUED_MAX`].
        max: usize,
    },
    /// There are too many items. Nothing was changed.
    #[error("there are {max} items already, deleted ones of the last months included")]
    Full {
        /// [`ITEMS_MAX`](crate::limits::ITEMS_MAX).
        max: usize,
    },
    /// The pool did not take it. After [`StoreError::Unavailable`] it may have: the change may then come
    /// into force when this server is started again.
    #[error("not changed: {0}")]
    Store(#[from] StoreError),
    /// The server ends.
    #[error("not changed: the server is shutting down")]
    ShuttingDown,
}

/// Why a copy will not be ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// Nothing could be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server ends before it was ready.
    #[error("IAM is not loaded: the server is shutting down")]
    ShuttingDown,
}

/// A change that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Its version.
    pub version: Version,
    /// What each peer made of it. Those that failed find out by themselves, when they are reached again
    /// or at the next comparison.
    pub peers: BTreeMap<Name, Result<(), String>>,
}

/// One server's copy. Cheap to clone.
#[derive(Clone)]
pub struct Iam {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Iam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iam").field("phase", &*self.inner.phase.borrow()).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) manager: Manager,
    servers: Option<Vec<String>>,
    admission: Admission,
    /// The hash of this server's name, for versions.
    pub(crate) node: u64,
    pub(crate) root: UserName,
    pub(crate) pools: Vec<Arc<dyn IamStore>>,
    pub(crate) guard: Arc<dyn FormatGuard>,
    pub(crate) sealer: Sealer,
    pub(crate) refresh_interval: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    rng: Mutex<SmallRng>,
    /// What is asked; `None` until it is complete.
    current: ArcSwapOption<Snapshot>,
    /// The versions of what is asked. Changed together with it, by the writer alone.
    copy: Mutex<Option<Replica>>,
    pub(crate) jobs: mpsc::Sender<Job>,
    inbox: Mutex<Option<mpsc::Receiver<Job>>>,
    phase: watch::Sender<Phase>,
    /// A change could not be taken: peers are to be asked soon.
    pub(crate) missed: Notify,
    is_started: AtomicBool,
    ending: Arc<Ending>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Iam {
    /// A copy on the server of `manager`. `root` is the account that may do everything, and is kept
    /// nowhere. Changes travel sealed with `keys`, which are the same on all servers.
    pub fn builder(manager: &Manager, root: UserName, keys: Keys) -> IamBuilder {
        IamBuilder {
            manager: manager.clone(),
            root,
            keys,
            pools: Vec::new(),
            guard: Arc::new(Unguarded),
            refresh_interval: REFRESH_INTERVAL,
            servers: None,
            admission: Arc::new(|_| Ok(())),
            clock: None,
            rng: None,
        }
    }

    /// Begins to load, and goes on by itself until [`Iam::shutdown`]. To be called inside a tokio
    /// runtime; further calls do nothing.
    pub fn start(&self) {
        if !self.inner.is_started.swap(true, Ordering::AcqRel) {
            self.inner.spawn(run(Arc::clone(&self.inner)));
        }
    }

    /// Ends all that goes on by itself. Questions are still answered from what is known; nothing is
    /// changed any more, and whoever waits for a change is told [`ChangeError::ShuttingDown`]: it may
    /// have been kept. Whoever waits for [`Iam::ready`] in vain is told as well.
    pub fn shutdown(&self) {
        self.inner.ending.begin();
    }

    /// All that is known now; `None` until everything is loaded, never a part of it (B61). Without a
    /// lock.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.inner.current.load_full()
    }

    /// How far this server is.
    pub fn phase(&self) -> Phase {
        self.inner.phase.borrow().clone()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    ///
    /// Why it never will be.
    ///
    /// # Cancel safety
    ///
    /// Waiting changes nothing.
    pub async fn ready(&self) -> Result<(), ReadyError> {
        let mut phases = self.inner.phase.subscribe();
        let decided = phases.wait_for(|phase| matches!(phase, Phase::Ready | Phase::Failed(_)));
        tokio::select! {
            biased;
            phase = decided => match phase.as_deref() {
                Ok(Phase::Failed(error)) => Err(error.clone().into()),
                _ => Ok(()), // The sender is ours.
            },
            () = self.inner.ending.wait() => Err(ReadyError::ShuttingDown),
        }
    }

    /// Puts an item, in place of the one that is there: into the pool first, then here, then on all
    /// peers.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]. That a peer did not take it is no error.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled it is made, and peers are told, also if this future is dropped.
    pub async fn put(&self, item: Item) -> Result<Changed, ChangeError> {
        self.change(Change::Put(item)).await
    }

    /// Deletes an item, likewise. It does not come back from a peer that missed it.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    ///
    /// # Cancel safety
    ///
    /// As [`Iam::put`].
    pub async fn delete(&self, key: ItemKey) -> Result<Changed, ChangeError> {
        self.change(Change::Delete(key)).await
    }

    async fn change(&self, change: Change) -> Result<Changed, ChangeError> {
        if self.inner.current.load().is_none() {
            return Err(ChangeError::NotReady { phase: self.phase().to_string() });
        }
        let (done, outcome) = oneshot::channel();
        self.inner.jobs.try_send(Job::Local { change, done }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                ChangeError::Overloaded { max: CHANGES_QUEUED_MAX }
            }
            mpsc::error::TrySendError::Closed(_) => ChangeError::ShuttingDown,
        })?;
        outcome.await.map_err(|_| ChangeError::ShuttingDown)?
    }
}

/// From nothing to ready.
async fn run(inner: Arc<Inner>) {
    let Some(inbox) = lock(&inner.inbox).take() else { return };
    match load_all(&inner).await {
        Ok(report) => {
            tracing::info!(
                target: "iam",
                items = report.items,
                deleted = report.deleted,
                skipped = report.skipped_total,
                pools = report.pools,
                retries = report.retries,
                took = ?report.took,
                "IAM is loaded"
            );
        }
        Err(error) => {
            tracing::error!(target: "iam", %error, "IAM is not loaded");
            inner.phase.send_replace(Phase::Failed(error));
            return;
        }
    }
    inner.spawn(writer::run(Arc::clone(&inner), inbox));
    compare::catch_up(&inner).await;
    inner.phase.send_replace(Phase::Ready);
    compare::start(&inner);
}

async fn load_all(inner: &Arc<Inner>) -> Result<LoadReport, LoadError> {
    let source = Source { clock: Arc::clone(&inner.clock), seed: inner.fork_seed() };
    format::check(inner, &source).await?;
    let progress = watch::Sender::new(Progress::default());
    let mut seen = progress.subscribe();
    let loading = load::load(&inner.pools, &inner.root, &source, &progress);
    tokio::pin!(loading);
    let loaded = loop {
        tokio::select! {
            biased;
            loaded = &mut loading => break loaded?,
            changed = seen.changed() => if changed.is_ok() {
                inner.set_phase(Phase::Loading(seen.borrow_and_update().clone()));
            },
        }
    };
    inner.publish(loaded.snapshot, loaded.replica);
    inner.phase.send_replace(Phase::CatchingUp);
    Ok(loaded.report)
}

impl Inner {
    /// Whether this server keeps the same as that one.
    pub(crate) fn admit(&self, peer: &Name) -> Result<(), String> {
        if let Some(servers) = &self.servers
            && !servers.iter().any(|server| server == peer.as_str())
        {
            return Err(format!("{peer} is none of the servers that keep the same"));
        }
        (self.admission)(peer)
    }

    /// The servers that keep the same, but for this one.
    pub(crate) fn peers(&self) -> Vec<Connection> {
        let mut peers = self.manager.connections();
        if let Some(servers) = &self.servers {
            peers.retain(|peer| servers.iter().any(|server| server == peer.remote().as_str()));
        }
        peers
    }

    /// Runs it in a task of its own, until it is done or all ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ending = Arc::clone(&self.ending);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = ending.wait() => {}
                () = task => {}
            }
        });
    }

    /// From now on this is what is asked, and these are its versions.
    pub(crate) fn publish(&self, snapshot: Snapshot, replica: Replica) {
        let mut copy = lock(&self.copy);
        *copy = Some(replica);
        self.current.store(Some(Arc::new(snapshot)));
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// How far this server is, in words.
    pub(crate) fn phase_text(&self) -> String {
        self.phase.borrow().to_string()
    }

    /// Whether there is such an item now.
    pub(crate) fn contains(&self, key: &ItemKey) -> bool {
        self.current.load().as_ref().is_some_and(|snapshot| snapshot.contains(key))
    }

    /// What is so long over that it can be forgotten, and in which pool it is.
    pub(crate) fn over(&self, wall_micros: u64) -> Vec<(ItemPath, usize)> {
        let snapshot = self.current.load_full();
        let is_over = |path: &ItemPath, version: Version| {
            let Some(Ok(key)) = body::key_of(path) else { return false };
            let change = match (&key, snapshot.as_deref()) {
                (_, None) => return false,
                (ItemKey::Temporary(key), Some(snapshot)) if snapshot.temporary(key).is_some() => {
                    snapshot.temporary(key).cloned().map(Item::Temporary).map(Change::Put)
                }
                (key, Some(snapshot)) if snapshot.contains(key) => None,
                (key, Some(_)) => Some(Change::Delete(key.clone())),
            };
            change.is_some_and(|change| change.is_over(version, wall_micros))
        };
        let over = |copy: &Replica| {
            let all = copy.iter().filter(|(path, known)| is_over(path, known.version));
            all.map(|(path, known)| (path.clone(), known.pool)).collect()
        };
        self.with_copy(over).unwrap_or_default()
    }

    /// Looks at the versions; `None` before everything is loaded.
    pub(crate) fn with_copy<T>(&self, look: impl FnOnce(&Replica) -> T) -> Option<T> {
        lock(&self.copy).as_ref().map(look)
    }

    /// What is asked now, and a copy of its versions that may be changed: for the writer.
    pub(crate) fn change_copy(&self, change: impl FnOnce(&mut Replica, &Snapshot) -> Snapshot) {
        let mut copy = lock(&self.copy);
        if let (Some(replica), Some(snapshot)) = (copy.as_mut(), self.current.load().as_ref()) {
            let changed = change(replica, snapshot);
            self.current.store(Some(Arc::new(changed)));
        }
    }

    /// Whether it is loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.current.load().is_some()
    }

    /// Microseconds since 1970, by this server's clock.
    pub(crate) fn wall_micros(&self) -> u64 {
        crate::wall_micros(&*self.clock)
    }

    /// A source of randomness for a task.
    pub(crate) fn fork_seed(&self) -> u64 {
        lock(&self.rng).random()
    }
}
