//! One server's replica of all users, groups, policies and accounts: loads it, changes it, and
//! keeps it consistent with the other servers'.
//!
//! ```text
//!              pools online              caught up
//!   Loading ─────────────────► CatchingUp ─────────────► Ready
//!      │
//!      └────────────────────► Failed     permanent error
//! ```
//!
//! Readers take the current snapshot, without a lock. All changes go through one task (`writer`),
//! which writes to the pool first. `broadcast` sends a change to the peers, `reconcile` finds and
//! applies changes that this server missed, and `serve` handles the same requests from peers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use grid::env::SystemClock;
use grid::time::Clock;
use grid::{Connection, Manager, Name, RegisterError};
use rand::rngs::{SmallRng, StdRng};
use rand::{CryptoRng, RngExt, SeedableRng};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{self, Change};
use crate::format::{FormatLock, NoFormatLock};
use crate::limits::{CHANGES_QUEUED_MAX, REFRESH_INTERVAL};
use crate::load::{self, LoadError, LoadReport, LoadSource, Progress};
use crate::model::UserName;
use crate::record::Version;
use crate::replica::Replica;
use crate::shutdown::Shutdown;
use crate::snapshot::{Item, ItemKey, Snapshot};
use crate::store::sealed::{Keys, Sealer};
use crate::store::{IamStore, ItemPath, StoreError};
use crate::writer::WriterJob;
use crate::{format, reconcile, serve, writer};

/// Returns an error with the reason if a peer is not admitted to replication.
type Admission = Arc<dyn Fn(&Name) -> Result<(), String> + Send + Sync>;

/// Builds an [`Iam`].
pub struct IamBuilder {
    manager: Manager,
    root: UserName,
    keys: Keys,
    pools: Vec<Arc<dyn IamStore>>,
    format_lock: Arc<dyn FormatLock>,
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

/// Error of [`IamBuilder::build`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No pool was given.
    #[error("IAM needs at least one pool to keep its items in")]
    NoPool,
    /// Two pools have the same name.
    #[error("two pools are named {name}: give each pool a unique name for logs and errors")]
    DuplicatePool {
        /// The duplicate name.
        name: String,
    },
    /// A handler cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl IamBuilder {
    /// Adds a pool. If several pools have an item, the pool that was added first wins. A change is
    /// written to the pool that has the item, a new item to the first pool.
    ///
    /// A pool belongs to this server alone: every server keeps its items in its own pools.
    #[must_use]
    pub fn pool(mut self, pool: impl IamStore) -> Self {
        self.pools.push(Arc::new(pool));
        self
    }

    /// Sets a filter on peers. A peer for which it returns an error receives no changes, is not
    /// reconciled with, and is refused. For servers of another [deployment](crate::deployment).
    #[must_use]
    pub fn admission(
        mut self,
        admit: impl Fn(&Name) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.admission = Arc::new(admit);
        self
    }

    /// Sets the lock that is held while the storage format is written for the first time. Default:
    /// no lock.
    #[must_use]
    pub fn format_lock(mut self, format_lock: impl FormatLock) -> Self {
        self.format_lock = Arc::new(format_lock);
        self
    }

    /// Sets the longest time between two reconciliations with each peer. Default:
    /// [`REFRESH_INTERVAL`].
    #[must_use]
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }

    /// Sets the servers that replicate with each other. Default: all servers that the manager
    /// knows. Any other remote of the manager neither receives changes nor is queried for them.
    #[must_use]
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.servers = Some(servers.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the clock. Default: the system clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Sets the source of randomness for nonces and jitter. Default: the operating system's.
    #[must_use]
    pub fn rng(mut self, rng: impl CryptoRng + Send + 'static) -> Self {
        self.rng = Some(Box::new(rng));
        self
    }

    /// Builds the [`Iam`] and registers its handlers with the manager. Nothing is loaded before
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
        let (writer_jobs, writer_inbox) = mpsc::channel(CHANGES_QUEUED_MAX);
        let inner = IamInner {
            node: xxh3_64(self.manager.local().as_str().as_bytes()),
            manager: self.manager,
            servers: self.servers,
            admission: self.admission,
            root: self.root,
            pools: self.pools,
            format_lock: self.format_lock,
            sealer: Sealer::new(self.keys, rng),
            refresh_interval: self.refresh_interval,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
            rng: Mutex::new(jitter),
            current: ArcSwapOption::empty(),
            replica: Mutex::default(),
            writer_jobs,
            writer_inbox: Mutex::new(Some(writer_inbox)),
            phase: watch::Sender::new(Phase::Loading(Progress::default())),
            reconcile_now: Notify::new(),
            is_started: AtomicBool::new(false),
            shutdown: Arc::default(),
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

/// State of this server's replica.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The pools are being read.
    Loading(Progress),
    /// The pools are loaded; changes that this server missed are being fetched from peers.
    CatchingUp,
    /// Snapshots are complete, and changes are accepted.
    Ready,
    /// Loading failed for good.
    Failed(LoadError),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loading(progress) => write!(f, "loading IAM: {progress}"),
            Self::CatchingUp => f.write_str("catching up with the changes of other servers"),
            Self::Ready => f.write_str("ready"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Error of [`Iam::put`] and [`Iam::delete`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Nothing is loaded yet. Nothing was changed.
    #[error("IAM cannot be changed yet: this server is {phase}")]
    NotReady {
        /// The current phase.
        phase: String,
    },
    /// The item to delete does not exist.
    #[error("there is no {key}")]
    NotFound {
        /// Key of the item to delete.
        key: ItemKey,
    },
    /// Too many changes are queued. Nothing was changed.
    #[error("{max} changes are queued already: try again later")]
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
    /// The pool refused the write. After [`StoreError::Unavailable`] the outcome is unknown: the
    /// change may take effect when this server is restarted.
    #[error("not changed: {0}")]
    Store(#[from] StoreError),
    /// The server is shutting down.
    #[error("not changed: the server is shutting down")]
    ShuttingDown,
}

/// Error of [`Iam::ready`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// Loading failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server shuts down before the replica is ready.
    #[error("IAM is not loaded: the server is shutting down")]
    ShuttingDown,
}

/// Outcome of a change that is durable on this server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeOutcome {
    /// Version of the change.
    pub version: Version,
    /// Result of the broadcast to each peer. A peer that failed fetches the change when it
    /// reconnects, or at the next reconciliation.
    pub peers: BTreeMap<Name, Result<(), String>>,
}

/// One server's replica of all IAM items. Cheap to clone.
#[derive(Clone)]
pub struct Iam {
    pub(crate) inner: Arc<IamInner>,
}

impl fmt::Debug for Iam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iam").field("phase", &*self.inner.phase.borrow()).finish_non_exhaustive()
    }
}

pub(crate) struct IamInner {
    pub(crate) manager: Manager,
    servers: Option<Vec<String>>,
    admission: Admission,
    /// Hash of this server's name, part of each version.
    pub(crate) node: u64,
    pub(crate) root: UserName,
    pub(crate) pools: Vec<Arc<dyn IamStore>>,
    pub(crate) format_lock: Arc<dyn FormatLock>,
    pub(crate) sealer: Sealer,
    pub(crate) refresh_interval: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    rng: Mutex<SmallRng>,
    /// Snapshot that readers see; `None` until it is complete.
    current: ArcSwapOption<Snapshot>,
    /// Versions of the items in `current`. Changed together with it, by the writer alone.
    replica: Mutex<Option<Replica>>,
    pub(crate) writer_jobs: mpsc::Sender<WriterJob>,
    writer_inbox: Mutex<Option<mpsc::Receiver<WriterJob>>>,
    phase: watch::Sender<Phase>,
    /// Wakes the reconcile tasks after a change could not be applied.
    pub(crate) reconcile_now: Notify,
    is_started: AtomicBool,
    shutdown: Arc<Shutdown>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Iam {
    /// Returns a builder for the replica on the server of `manager`. `root` is the account with
    /// all permissions, which is not stored. Changes are sent sealed with `keys`, which are the
    /// same on all servers.
    pub fn builder(manager: &Manager, root: UserName, keys: Keys) -> IamBuilder {
        IamBuilder {
            manager: manager.clone(),
            root,
            keys,
            pools: Vec::new(),
            format_lock: Arc::new(NoFormatLock),
            refresh_interval: REFRESH_INTERVAL,
            servers: None,
            admission: Arc::new(|_| Ok(())),
            clock: None,
            rng: None,
        }
    }

    /// Starts loading in the background, until [`Iam::shutdown`]. Must be called inside a tokio
    /// runtime; further calls do nothing.
    pub fn start(&self) {
        if !self.inner.is_started.swap(true, Ordering::AcqRel) {
            self.inner.spawn(load_and_serve(Arc::clone(&self.inner)));
        }
    }

    /// Stops all background tasks. Snapshots can still be read; no further change is made. A
    /// pending change returns [`ChangeError::ShuttingDown`]: it may have been made. A pending
    /// [`Iam::ready`] returns [`ReadyError::ShuttingDown`].
    pub fn shutdown(&self) {
        self.inner.shutdown.begin();
    }

    /// Returns the current snapshot; `None` until everything is loaded, never a part of it ([B61]).
    /// Takes no lock.
    ///
    /// [B61]: crate::rules#b61
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.inner.current.load_full()
    }

    /// Returns the current phase.
    pub fn phase(&self) -> Phase {
        self.inner.phase.borrow().clone()
    }

    /// Waits until the replica is ready.
    ///
    /// # Errors
    ///
    /// [`ReadyError`] if it never will be.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn ready(&self) -> Result<(), ReadyError> {
        let mut phases = self.inner.phase.subscribe();
        let settled = phases.wait_for(|phase| matches!(phase, Phase::Ready | Phase::Failed(_)));
        tokio::select! {
            biased;
            phase = settled => match phase.as_deref() {
                Ok(Phase::Failed(error)) => Err(error.clone().into()),
                _ => Ok(()), // The sender lives as long as `self`.
            },
            () = self.inner.shutdown.wait() => Err(ReadyError::ShuttingDown),
        }
    }

    /// Inserts or replaces an item: first in the pool, then in the local snapshot, then on all
    /// peers.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]. A peer that did not apply the change is not an error.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the change is made and broadcast even if this future is dropped.
    pub async fn put(&self, item: Item) -> Result<ChangeOutcome, ChangeError> {
        self.change(Change::Put(item)).await
    }

    /// Deletes an item, in the same way. A peer that missed the deletion does not bring the item
    /// back.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    ///
    /// # Cancel safety
    ///
    /// As [`Iam::put`].
    pub async fn delete(&self, key: ItemKey) -> Result<ChangeOutcome, ChangeError> {
        self.change(Change::Delete(key)).await
    }

    async fn change(&self, change: Change) -> Result<ChangeOutcome, ChangeError> {
        if self.inner.current.load().is_none() {
            return Err(ChangeError::NotReady { phase: self.phase().to_string() });
        }
        let (reply, outcome) = oneshot::channel();
        self.inner.writer_jobs.try_send(WriterJob::Local { change, reply }).map_err(|error| {
            match error {
                mpsc::error::TrySendError::Full(_) => {
                    ChangeError::Overloaded { max: CHANGES_QUEUED_MAX }
                }
                mpsc::error::TrySendError::Closed(_) => ChangeError::ShuttingDown,
            }
        })?;
        outcome.await.map_err(|_| ChangeError::ShuttingDown)?
    }
}

/// Loads the pools, catches up with the peers, and starts the writer and reconcile tasks.
async fn load_and_serve(inner: Arc<IamInner>) {
    let Some(writer_inbox) = lock(&inner.writer_inbox).take() else { return };
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
            tracing::error!(target: "iam", %error, "IAM load failed");
            inner.phase.send_replace(Phase::Failed(error));
            return;
        }
    }
    inner.spawn(writer::run(Arc::clone(&inner), writer_inbox));
    reconcile::catch_up(&inner).await;
    inner.phase.send_replace(Phase::Ready);
    reconcile::start(&inner);
}

async fn load_all(inner: &Arc<IamInner>) -> Result<LoadReport, LoadError> {
    let source = LoadSource { clock: Arc::clone(&inner.clock), seed: inner.fork_seed() };
    format::check(inner, &source).await?;
    let progress = watch::Sender::new(Progress::default());
    let mut updates = progress.subscribe();
    let loading = load::load(&inner.pools, &inner.root, &source, &progress);
    tokio::pin!(loading);
    let loaded = loop {
        tokio::select! {
            biased;
            loaded = &mut loading => break loaded?,
            changed = updates.changed() => if changed.is_ok() {
                inner.set_phase(Phase::Loading(updates.borrow_and_update().clone()));
            },
        }
    };
    inner.publish(loaded.snapshot, loaded.replica);
    inner.phase.send_replace(Phase::CatchingUp);
    Ok(loaded.report)
}

impl IamInner {
    /// Checks whether this server replicates with `peer`.
    pub(crate) fn admit(&self, peer: &Name) -> Result<(), String> {
        if let Some(servers) = &self.servers
            && !servers.iter().any(|server| server == peer.as_str())
        {
            return Err(format!("{peer} is none of the servers that keep the same"));
        }
        (self.admission)(peer)
    }

    /// Returns the connections to the other servers that replicate with this one.
    pub(crate) fn peers(&self) -> Vec<Connection> {
        let mut peers = self.manager.connections();
        if let Some(servers) = &self.servers {
            peers.retain(|peer| servers.iter().any(|server| server == peer.remote().as_str()));
        }
        peers
    }

    /// Spawns a task that ends with [`Iam::shutdown`].
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = Arc::clone(&self.shutdown);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = shutdown.wait() => {}
                () = task => {}
            }
        });
    }

    /// Replaces the snapshot that readers see, and the versions of its items.
    pub(crate) fn publish(&self, snapshot: Snapshot, replica: Replica) {
        let mut current = lock(&self.replica);
        *current = Some(replica);
        self.current.store(Some(Arc::new(snapshot)));
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Returns the current phase as text.
    pub(crate) fn phase_text(&self) -> String {
        self.phase.borrow().to_string()
    }

    /// Returns whether the current snapshot has such an item.
    pub(crate) fn contains(&self, key: &ItemKey) -> bool {
        self.current.load().as_ref().is_some_and(|snapshot| snapshot.contains(key))
    }

    /// Returns the items past their retention, with the index of their pool.
    pub(crate) fn collectable(&self, wall_micros: u64) -> Vec<(ItemPath, usize)> {
        let snapshot = self.current.load_full();
        let is_collectable = |path: &ItemPath, version: Version| {
            let Some(Ok(key)) = codec::key_of(path) else { return false };
            let change = match (&key, snapshot.as_deref()) {
                (_, None) => return false,
                (ItemKey::Temporary(key), Some(snapshot)) if snapshot.temporary(key).is_some() => {
                    snapshot.temporary(key).cloned().map(Item::Temporary).map(Change::Put)
                }
                (key, Some(snapshot)) if snapshot.contains(key) => None,
                (key, Some(_)) => Some(Change::Delete(key.clone())),
            };
            change.is_some_and(|change| change.is_collectable(version, wall_micros))
        };
        let collectable = |replica: &Replica| {
            let all = replica.iter().filter(|(path, known)| is_collectable(path, known.version));
            all.map(|(path, known)| (path.clone(), known.pool)).collect()
        };
        self.with_replica(collectable).unwrap_or_default()
    }

    /// Reads the versions; `None` before everything is loaded.
    pub(crate) fn with_replica<T>(&self, read: impl FnOnce(&Replica) -> T) -> Option<T> {
        lock(&self.replica).as_ref().map(read)
    }

    /// Updates the versions and the snapshot together. For the writer alone.
    pub(crate) fn update_replica(&self, change: impl FnOnce(&mut Replica, &Snapshot) -> Snapshot) {
        let mut current = lock(&self.replica);
        if let (Some(replica), Some(snapshot)) = (current.as_mut(), self.current.load().as_ref()) {
            let changed = change(replica, snapshot);
            self.current.store(Some(Arc::new(changed)));
        }
    }

    /// Returns whether everything is loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.current.load().is_some()
    }

    /// Returns this server's wall clock in microseconds since the Unix epoch.
    pub(crate) fn wall_micros(&self) -> u64 {
        crate::wall_micros(&*self.clock)
    }

    /// Draws a seed for a task's own generator.
    pub(crate) fn fork_seed(&self) -> u64 {
        lock(&self.rng).random()
    }
}
