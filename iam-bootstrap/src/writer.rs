//! The one task that changes a server's replica: changes are applied one after the other, in the
//! pool first.
//!
//! Local changes and records of peers take the same path, so two changes of an item are never
//! reordered between the pool and the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::broadcast;
use crate::codec::{self, Change};
use crate::iam::{ChangeError, ChangeOutcome, IamInner};
use crate::limits::{BROADCASTS_MAX, CONCURRENT_WRITES_MAX, ITEMS_MAX};
use crate::load::with_store_timeout;
use crate::record::{Content, Record, Version};
use crate::replica::{Freshness, KnownItem};
use crate::store::{ItemPath, StoreError};

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

/// Runs the writer until all senders of jobs are gone.
pub(crate) async fn run(inner: Arc<IamInner>, mut inbox: mpsc::Receiver<WriterJob>) {
    let broadcasts = Arc::new(Semaphore::new(BROADCASTS_MAX));
    while let Some(job) = inbox.recv().await {
        match job {
            WriterJob::Local { change, reply } => {
                // Backpressure: if changes outrun the broadcasts, the writer waits here and jobs
                // wait in the queue.
                let Ok(permit) = Arc::clone(&broadcasts).acquire_owned().await else { return };
                match apply_local(&inner, change).await {
                    Err(error) => drop(reply.send(Err(error))),
                    Ok((path, record)) => {
                        let own = Arc::clone(&inner);
                        inner.spawn(async move {
                            let version = record.version;
                            let peers = broadcast::broadcast(&own, &path, &record).await;
                            drop(permit);
                            let _ = reply.send(Ok(ChangeOutcome { version, peers }));
                        });
                    }
                }
            }
            WriterJob::Remote { records, reply } => {
                let _ = reply.send(apply_remote(&inner, records).await);
            }
            WriterJob::Sweep => sweep(&inner).await,
        }
    }
}

/// Applies one local change.
async fn apply_local(inner: &IamInner, change: Change) -> Result<(ItemPath, Record), ChangeError> {
    let wall = inner.wall_micros();
    let (key, content) = match &change {
        Change::Put(item) => (item.key(), Content::Item(codec::encode(item)?)),
        Change::Delete(key) => (key.clone(), Content::Deleted),
    };
    let path = codec::path_of(&key);
    let looked_up = inner.with_replica(|replica| {
        let known = replica.get(&path);
        (replica.next_version(wall, inner.node), known, replica.len())
    });
    let Some((version, known, len)) = looked_up else {
        return Err(ChangeError::NotReady { phase: inner.phase_text() });
    };
    if matches!(change, Change::Delete(_)) && !inner.contains(&key) {
        return Err(ChangeError::NotFound { key });
    }
    if known.is_none() && len >= ITEMS_MAX {
        return Err(ChangeError::Full { max: ITEMS_MAX });
    }
    let record = Record { version, content };
    let pool = known.map_or(0, |known| known.pool);
    persist(inner, pool, &path, &record).await?;
    publish(inner, vec![Persisted { path: path.clone(), pool, version, change }]);
    Ok((path, record))
}

/// A change that is in its pool.
struct Persisted {
    path: ItemPath,
    pool: usize,
    version: Version,
    change: Change,
}

async fn persist(
    inner: &IamInner,
    pool: usize,
    path: &ItemPath,
    record: &Record,
) -> Result<(), StoreError> {
    let Some(pool) = inner.pools.get(pool) else { return Ok(()) };
    with_store_timeout(&**pool, pool.write(path, record.encode())).await
}

/// Makes all of these changes visible at once.
fn publish(inner: &IamInner, persisted: Vec<Persisted>) {
    inner.update_replica(|replica, snapshot| {
        let mut changed = snapshot.to_builder();
        for Persisted { path, pool, version, change } in persisted {
            replica.record(&path, KnownItem { version, pool });
            change.apply(&mut changed);
        }
        changed.build()
    });
}

/// Applies the records that are newer than this server's. Returns their number.
async fn apply_remote(
    inner: &IamInner,
    records: Vec<(ItemPath, Record)>,
) -> Result<usize, RemoteError> {
    let wall = inner.wall_micros();
    let mut newer: BTreeMap<ItemPath, (Record, Change, usize)> = BTreeMap::new();
    let mut failed = None;
    for (path, record) in records {
        match classify(inner, &path, &record, wall) {
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
        persist(inner, pool, &path, &record).await?;
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
        publish(inner, persisted);
    }
    failed.map_or(Ok(applied), Err)
}

/// Returns the change that a record of another server makes here, and its pool; `None` if the
/// record is not newer.
fn classify(
    inner: &IamInner,
    path: &ItemPath,
    record: &Record,
    wall: u64,
) -> Result<Option<(Change, usize)>, RemoteError> {
    let looked_up = inner.with_replica(|replica| {
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
async fn sweep(inner: &IamInner) {
    let wall = inner.wall_micros();
    for (path, pool) in inner.collectable(wall) {
        let Some(store) = inner.pools.get(pool) else { continue };
        match with_store_timeout(&**store, store.delete(&path)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {
                inner.update_replica(|replica, snapshot| {
                    replica.remove(&path);
                    let mut changed = snapshot.to_builder();
                    if let Some(Ok(key)) = codec::key_of(&path) {
                        changed.remove(&key);
                    }
                    changed.build()
                });
            }
            Err(error) => {
                tracing::debug!(target: "iam", %path, %error, "item sweep failed");
            }
        }
    }
}
