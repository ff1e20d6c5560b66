//! The one task that changes a server's replica: changes are applied one after the other, in the
//! pool first.
//!
//! Local changes and records of peers take the same path, so two changes of an item are never
//! reordered between the pool and the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use grid::env::Env;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::broadcast::Broadcaster;
use crate::change::{ChangeError, ChangeOutcome};
use crate::codec::{self, Change};
use crate::limits::{BROADCASTS_MAX, CHANGES_QUEUED_MAX, CONCURRENT_WRITES_MAX, ITEMS_MAX};
use crate::pools::Pools;
use crate::record::{Content, Record, Version};
use crate::replica::{Freshness, KnownItem};
use crate::state::IamState;
use crate::store::{ItemPath, StoreError};
use crate::tasks::Tasks;
use crate::time::unix_micros;

/// Work item of the writer.
pub(crate) enum WriterJob {
    /// A change that was requested on this server.
    Local { change: Change, reply: oneshot::Sender<Result<ChangeOutcome, ChangeError>> },
    /// Records that another server sent.
    Remote { records: Vec<(ItemPath, Record)>, reply: oneshot::Sender<Result<usize, RemoteError>> },
    /// Removal of collectable items.
    Sweep,
}

/// Error of applying records of another server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("this server has not loaded IAM yet, and will ask for it when it has")]
    NotLoaded,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{path} was changed in the future, at {micros} µs since 1970, and it is {now} here: one of \
         the clocks is wrong"
    )]
    Future { path: ItemPath, micros: u64, now: u64 },
    #[error("there are {ITEMS_MAX} items already")]
    Full,
}

/// The writer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterEnded;

/// Queues jobs of the writer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WriterHandle {
    state: Arc<IamState>,
    jobs: mpsc::Sender<WriterJob>,
}

impl WriterHandle {
    /// Creates a handle, and the queue from which the writer takes its jobs.
    pub(crate) fn new(state: Arc<IamState>) -> (Self, mpsc::Receiver<WriterJob>) {
        let (jobs, queue) = mpsc::channel(CHANGES_QUEUED_MAX);
        (Self { state, jobs }, queue)
    }

    /// Makes a local change. Once queued, it is made and broadcast even if the future is dropped.
    pub(crate) async fn change(&self, change: Change) -> Result<ChangeOutcome, ChangeError> {
        if !self.state.is_loaded() {
            return Err(ChangeError::NotReady { phase: self.state.phase().to_string() });
        }
        let (reply, outcome) = oneshot::channel();
        let queued = self.jobs.try_send(WriterJob::Local { change, reply });
        queued.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                ChangeError::Overloaded { max: CHANGES_QUEUED_MAX }
            }
            mpsc::error::TrySendError::Closed(_) => ChangeError::ShuttingDown,
        })?;
        outcome.await.map_err(|_| ChangeError::ShuttingDown)?
    }

    /// Applies the records of a peer. Returns how many were newer.
    pub(crate) async fn apply_remote(
        &self,
        records: Vec<(ItemPath, Record)>,
    ) -> Result<usize, RemoteError> {
        if !self.state.is_loaded() {
            return Err(RemoteError::NotLoaded);
        }
        let (reply, outcome) = oneshot::channel();
        let job = WriterJob::Remote { records, reply };
        self.jobs.send(job).await.map_err(|_| RemoteError::ShuttingDown)?;
        outcome.await.map_err(|_| RemoteError::ShuttingDown)?
    }

    /// Queues the removal of collectable items.
    pub(crate) async fn sweep(&self) -> Result<(), WriterEnded> {
        self.jobs.send(WriterJob::Sweep).await.map_err(|_| WriterEnded)
    }
}

/// Changes the replica.
pub(crate) struct Writer {
    pub(crate) state: Arc<IamState>,
    pub(crate) pools: Pools,
    pub(crate) broadcaster: Broadcaster,
    pub(crate) tasks: Tasks,
    pub(crate) env: Env,
    /// Hash of this server's name, part of each version.
    pub(crate) node: u64,
}

/// A change that is in its pool.
struct Persisted {
    path: ItemPath,
    pool: usize,
    version: Version,
    change: Change,
}

impl Writer {
    /// Runs until all handles are gone.
    pub(crate) async fn run(self, mut jobs: mpsc::Receiver<WriterJob>) {
        let broadcasts = Arc::new(Semaphore::new(BROADCASTS_MAX));
        while let Some(job) = jobs.recv().await {
            match job {
                WriterJob::Local { change, reply } => {
                    // Backpressure: if changes outrun the broadcasts, the writer waits here and
                    // jobs wait in the queue.
                    let Ok(permit) = Arc::clone(&broadcasts).acquire_owned().await else { return };
                    match self.apply_local(change).await {
                        Err(error) => drop(reply.send(Err(error))),
                        Ok((path, record)) => {
                            let broadcaster = self.broadcaster.clone();
                            self.tasks.spawn(async move {
                                let version = record.version;
                                let peers = broadcaster.broadcast(&path, &record).await;
                                drop(permit);
                                let _ = reply.send(Ok(ChangeOutcome { version, peers }));
                            });
                        }
                    }
                }
                WriterJob::Remote { records, reply } => {
                    let _ = reply.send(self.apply_remote(records).await);
                }
                WriterJob::Sweep => self.sweep().await,
            }
        }
    }

    /// Applies one local change.
    async fn apply_local(&self, change: Change) -> Result<(ItemPath, Record), ChangeError> {
        let wall = unix_micros(self.env.wall());
        let (key, content) = match &change {
            Change::Put(item) => (item.key(), Content::Item(codec::encode(item)?)),
            Change::Delete(key) => (key.clone(), Content::Deleted),
        };
        let path = codec::path_of(&key);
        let looked_up = self.state.with_replica(|replica| {
            let known = replica.get(&path);
            (replica.next_version(wall, self.node), known, replica.len())
        });
        let Some((version, known, len)) = looked_up else {
            return Err(ChangeError::NotReady { phase: self.state.phase().to_string() });
        };
        if matches!(change, Change::Delete(_)) && !self.state.contains(&key) {
            return Err(ChangeError::NotFound { key });
        }
        if known.is_none() && len >= ITEMS_MAX {
            return Err(ChangeError::Full { max: ITEMS_MAX });
        }
        let record = Record { version, content };
        let pool = known.map_or(0, |known| known.pool);
        self.pools.write(pool, &path, &record).await?;
        self.publish(vec![Persisted { path: path.clone(), pool, version, change }]);
        Ok((path, record))
    }

    /// Makes all of these changes visible at once.
    fn publish(&self, persisted: Vec<Persisted>) {
        self.state.update(|replica, snapshot| {
            let mut changed = snapshot.to_builder();
            for Persisted { path, pool, version, change } in persisted {
                replica.record(&path, KnownItem { version, pool });
                change.apply(&mut changed);
            }
            changed.build()
        });
    }

    /// Applies the records that are newer than this server's. Returns their number.
    async fn apply_remote(&self, records: Vec<(ItemPath, Record)>) -> Result<usize, RemoteError> {
        let wall = unix_micros(self.env.wall());
        let mut newer: BTreeMap<ItemPath, (Record, Change, usize)> = BTreeMap::new();
        let mut failed = None;
        for (path, record) in records {
            match self.classify(&path, &record, wall) {
                Ok(Some((change, pool))) => {
                    let before = newer.get(&path).map(|(before, ..)| before.version);
                    if before.is_none_or(|before| before < record.version) {
                        newer.insert(path, (record, change, pool));
                    }
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        let writes = newer.into_iter().map(|(path, (record, change, pool))| async move {
            self.pools.write(pool, &path, &record).await?;
            Ok(Persisted { path, pool, version: record.version, change })
        });
        let mut writes = stream::iter(writes).buffered(CONCURRENT_WRITES_MAX);
        let mut persisted = Vec::new();
        while let Some(written) = writes.next().await {
            match written {
                Ok(written) => persisted.push(written),
                Err(error) => failed = Some(RemoteError::Store(error)),
            }
        }
        let applied = persisted.len();
        if applied > 0 {
            self.publish(persisted);
        }
        failed.map_or(Ok(applied), Err)
    }

    /// Returns the change that a record of another server makes here, and its pool; `None` if the
    /// record is not newer.
    fn classify(
        &self,
        path: &ItemPath,
        record: &Record,
        wall: u64,
    ) -> Result<Option<(Change, usize)>, RemoteError> {
        let looked_up = self.state.with_replica(|replica| {
            (
                replica.freshness(path, record.version, wall),
                replica.get(path).map_or(0, |known| known.pool),
            )
        });
        let Some((freshness, pool)) = looked_up else { return Ok(None) };
        match freshness {
            Freshness::Same | Freshness::Older => Ok(None),
            Freshness::Full => Err(RemoteError::Full),
            Freshness::Future => {
                let micros = record.version.micros;
                Err(RemoteError::Future { path: path.clone(), micros, now: wall })
            }
            Freshness::Newer => {
                let Some(change) = Change::from_record(path, record)? else { return Ok(None) };
                // All servers remove collectable items; one that comes back is not newer.
                Ok((!change.is_collectable(record.version, wall)).then_some((change, pool)))
            }
        }
    }

    /// Removes collectable items from the pool, the snapshot and the versions.
    async fn sweep(&self) {
        let wall = unix_micros(self.env.wall());
        for (path, pool) in self.state.collectable(wall) {
            if let Err(error) = self.pools.delete(pool, &path).await {
                tracing::debug!(target: "iam", %path, %error, "item sweep failed");
                continue;
            }
            self.state.update(|replica, snapshot| {
                replica.remove(&path);
                let mut changed = snapshot.to_builder();
                if let Some(Ok(key)) = codec::key_of(&path) {
                    changed.remove(&key);
                }
                changed.build()
            });
        }
    }
}
