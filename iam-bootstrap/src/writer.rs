//! The one task that changes a server's copy: one change after the other, into the pool first.
//!
//! What a peer sent and what is changed here go the same way, so no two changes of an item ever
//! overtake each other between the pool and the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::body::{self, Change};
use crate::iam::{ChangeError, Changed, Inner};
use crate::limits::{ITEMS_MAX, TELLING_MAX, WRITES_AT_ONCE};
use crate::load::within;
use crate::record::{Content, Record, Version};
use crate::replica::{Known, Standing};
use crate::store::{ItemPath, StoreError};
use crate::tell;

/// Something to be changed.
pub(crate) enum Job {
    /// By somebody who asked this server.
    Local { change: Change, done: oneshot::Sender<Result<Changed, ChangeError>> },
    /// On another server.
    Remote { records: Vec<(ItemPath, Record)>, done: oneshot::Sender<Result<usize, RemoteError>> },
    /// What is long over can be forgotten.
    Sweep,
}

/// Why what another server sent was not taken.
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

/// Makes changes, until nobody can ask for any.
pub(crate) async fn run(inner: Arc<Inner>, mut inbox: mpsc::Receiver<Job>) {
    let telling = Arc::new(Semaphore::new(TELLING_MAX));
    while let Some(job) = inbox.recv().await {
        match job {
            Job::Local { change, done } => {
                // Who changes faster than peers can be told waits here, and then in the queue.
                let Ok(permit) = Arc::clone(&telling).acquire_owned().await else { return };
                match make(&inner, change).await {
                    Err(error) => drop(done.send(Err(error))),
                    Ok((path, record)) => {
                        let own = Arc::clone(&inner);
                        inner.spawn(async move {
                            let version = record.version;
                            let peers = tell::all(&own, &path, &record).await;
                            drop(permit);
                            let _ = done.send(Ok(Changed { version, peers }));
                        });
                    }
                }
            }
            Job::Remote { records, done } => {
                let _ = done.send(take(&inner, records).await);
            }
            Job::Sweep => sweep(&inner).await,
        }
    }
}

/// Makes one change of this server's own.
async fn make(inner: &Inner, change: Change) -> Result<(ItemPath, Record), ChangeError> {
    let wall = inner.wall_micros();
    let (key, content) = match &change {
        Change::Put(item) => (item.key(), Content::Item(body::encode(item)?)),
        Change::Delete(key) => (key.clone(), Content::Deleted),
    };
    let path = body::path_of(&key);
    let looked = inner.with_copy(|copy| {
        let known = copy.get(&path);
        (copy.next_version(wall, inner.node), known, copy.len())
    });
    let Some((version, known, len)) = looked else {
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
    keep(inner, pool, &path, &record).await?;
    publish(inner, vec![Kept { path: path.clone(), pool, version, change }]);
    Ok((path, record))
}

/// A change that is in its pool.
struct Kept {
    path: ItemPath,
    pool: usize,
    version: Version,
    change: Change,
}

async fn keep(
    inner: &Inner,
    pool: usize,
    path: &ItemPath,
    record: &Record,
) -> Result<(), StoreError> {
    let Some(pool) = inner.pools.get(pool) else { return Ok(()) };
    within(&**pool, pool.write(path, record.encode())).await
}

/// All of these become visible at once.
fn publish(inner: &Inner, kept: Vec<Kept>) {
    inner.change_copy(|copy, snapshot| {
        let mut changed = snapshot.to_builder();
        for Kept { path, pool, version, change } in kept {
            copy.learn(&path, Known { version, pool });
            change.apply(&mut changed);
        }
        changed.build()
    });
}

/// Takes what is newer on another server. Returns how much that was.
async fn take(inner: &Inner, records: Vec<(ItemPath, Record)>) -> Result<usize, RemoteError> {
    let wall = inner.wall_micros();
    let mut newer: BTreeMap<ItemPath, (Record, Change, usize)> = BTreeMap::new();
    let mut failed = None;
    for (path, record) in records {
        match judge(inner, &path, &record, wall) {
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
        keep(inner, pool, &path, &record).await?;
        Ok(Kept { path, pool, version: record.version, change })
    });
    let mut writes = stream::iter(writes).buffered(WRITES_AT_ONCE);
    let mut kept = Vec::new();
    while let Some(written) = writes.next().await {
        match written {
            Ok(written) => kept.push(written),
            Err(error) => failed = Some(RemoteError::Store(error)),
        }
    }
    let taken = kept.len();
    if taken > 0 {
        publish(inner, kept);
    }
    failed.map_or(Ok(taken), Err)
}

/// What a record of another server does here, and in which pool; `None` if it is no news.
fn judge(
    inner: &Inner,
    path: &ItemPath,
    record: &Record,
    wall: u64,
) -> Result<Option<(Change, usize)>, RemoteError> {
    let looked = inner.with_copy(|copy| {
        (copy.standing(path, record.version, wall), copy.get(path).map_or(0, |known| known.pool))
    });
    let Some((standing, pool)) = looked else { return Ok(None) };
    match standing {
        Standing::Same | Standing::Older => Ok(None),
        Standing::Full => Err(RemoteError::Full),
        Standing::Future => {
            let micros = record.version.micros;
            Err(RemoteError::Future { path: path.clone(), micros, now: wall })
        }
        Standing::Newer => {
            let Some(change) = Change::of(path, record)? else { return Ok(None) };
            // All servers forget what is long over: what comes back of it is no news.
            Ok((!change.is_over(record.version, wall)).then_some((change, pool)))
        }
    }
}

/// Forgets what is long over: in the pool, in the snapshot, and of the versions.
async fn sweep(inner: &Inner) {
    let wall = inner.wall_micros();
    for (path, pool) in inner.over(wall) {
        let Some(store) = inner.pools.get(pool) else { continue };
        match within(&**store, store.delete(&path)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => inner.change_copy(|copy, snapshot| {
                copy.forget(&path);
                let mut changed = snapshot.to_builder();
                if let Some(Ok(key)) = body::key_of(&path) {
                    changed.remove(&key);
                }
                changed.build()
            }),
            Err(error) => {
                tracing::debug!(target: "iam", %path, %error, "what is long over is still kept");
            }
        }
    }
}
