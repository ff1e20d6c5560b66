//! Loads the content of all pools into one snapshot ([B61]).
//!
//! All pools are read in parallel. A pool that is not initialised or unavailable is retried until
//! it can be read; any other failure of a whole pool ends the load. A damaged item is reported and
//! skipped. If several pools have an item, the first pool wins.
//!
//! [B61]: crate::rules#b61

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grid::env::Env;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use crate::codec::Change;
use crate::limits::{ITEMS_MAX, ITEMS_PER_READ, PARSED_PER_YIELD, SKIPPED_REPORTED_MAX};
use crate::model::UserName;
use crate::record::Record;
use crate::replica::{KnownItem, Replica};
use crate::retry::RetryState;
use crate::snapshot::{Snapshot, SnapshotBuilder};
use crate::store::{self, IamStore, ItemKind, ItemPath, StoreError, with_store_timeout};
use crate::time::unix_micros;

/// Permanent error of a load. Retrying does not help; an operator has to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A pool cannot be read as a whole, and retrying does not help.
    #[error("cannot load IAM from {pool}: {error}")]
    Pool {
        /// Name of the pool.
        pool: String,
        /// Error of the pool.
        error: StoreError,
    },
    /// The pools hold more items than a server keeps.
    #[error("cannot load IAM: there are more than {max} items, deleted ones included")]
    TooMany {
        /// [`ITEMS_MAX`].
        max: usize,
    },
    /// The items were written by a newer version.
    #[error(
        "cannot load IAM: the pool is in format {found}, and this version reads up to {max}: upgrade"
    )]
    Format {
        /// Format of the pool.
        found: u32,
        /// Newest format that this version reads.
        max: u32,
    },
}

/// Progress of a load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Items read so far.
    pub items: usize,
    /// Items listed so far.
    pub listed: usize,
    /// Reason why each unreadable pool is waited for, by the pool's name.
    pub waiting: BTreeMap<String, String>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} items", self.items, self.listed)?;
        self.waiting.values().try_for_each(|cause| write!(f, "; {cause}"))
    }
}

/// Result of a load: what was loaded, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Items in effect.
    pub items: usize,
    /// Tombstones of deleted items.
    pub deleted: usize,
    /// Damaged items, the first few.
    pub skipped: Vec<StoreError>,
    /// Number of damaged items.
    pub skipped_total: usize,
    /// Names in pools that are not item names, the first few.
    pub unrecognised: Vec<String>,
    /// Pools read.
    pub pools: usize,
    /// Retries of all pools.
    pub retries: u32,
    /// Duration of the load.
    pub took: Duration,
}

/// Result of a load.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    pub(crate) replica: Replica,
    pub(crate) report: LoadReport,
}

/// Loads everything. Retries unavailable pools forever.
///
/// # Cancel safety
///
/// Loading changes nothing.
pub(crate) async fn load(
    pools: &[Arc<dyn IamStore>],
    root: &UserName,
    env: &Env,
    progress: &watch::Sender<Progress>,
) -> Result<Loaded, LoadError> {
    let started = env.now();
    let read = pools.iter().map(|pool| {
        PoolReader { pool: &**pool, env, rng: env.fork(), retry: RetryState::new(), progress }
            .read_all()
    });
    let mut merged = Merged::new(root, unix_micros(env.wall()));
    for (index, pool) in futures_util::future::join_all(read).await.into_iter().enumerate() {
        merged.add(index, pool?).await?;
    }
    let mut loaded = merged.finish();
    loaded.report.pools = pools.len();
    loaded.report.took = env.now().since(started);
    Ok(loaded)
}

/// Content of one pool.
#[derive(Debug, Default)]
struct PoolContent {
    items: Vec<store::ReadItem>,
    unrecognised: Vec<String>,
    retries: u32,
}

/// Reads one pool, with retries.
struct PoolReader<'a> {
    pool: &'a dyn IamStore,
    env: &'a Env,
    rng: SmallRng,
    retry: RetryState,
    progress: &'a watch::Sender<Progress>,
}

impl PoolReader<'_> {
    async fn read_all(mut self) -> Result<PoolContent, LoadError> {
        let mut read = PoolContent::default();
        for kind in ItemKind::ALL {
            let listing = loop {
                match with_store_timeout(self.pool, self.pool.list(kind)).await {
                    Ok(listing) => break listing,
                    Err(error) => self.wait(error).await?,
                }
            };
            read.unrecognised.extend(listing.unrecognised);
            self.progress.send_modify(|progress| progress.listed += listing.paths.len());
            for part in listing.paths.chunks(ITEMS_PER_READ) {
                let mut items = loop {
                    match with_store_timeout(self.pool, self.pool.read_many(part)).await {
                        Ok(items) => break items,
                        Err(error) => self.wait(error).await?,
                    }
                };
                self.progress.send_modify(|progress| progress.items += items.len());
                read.items.append(&mut items);
            }
        }
        self.progress.send_modify(|progress| {
            progress.waiting.remove(self.pool.name());
        });
        read.retries = self.retry.failures();
        Ok(read)
    }

    /// Waits before the next attempt, or returns the error if a retry cannot help.
    async fn wait(&mut self, error: StoreError) -> Result<(), LoadError> {
        let pool = self.pool.name();
        if !error.is_transient() {
            return Err(LoadError::Pool { pool: pool.to_owned(), error });
        }
        let cause = error.to_string();
        let decision = self.retry.failed(&cause, self.env.now(), &mut self.rng);
        if decision.log.is_log() {
            tracing::info!(target: "iam", pool, cause, "IAM load is waiting for a pool");
        }
        self.progress.send_modify(|progress| {
            progress.waiting.insert(pool.to_owned(), cause);
        });
        tokio::time::sleep(decision.after).await;
        Ok(())
    }
}

/// Content of all pools.
struct Merged {
    snapshot: SnapshotBuilder,
    replica: Replica,
    report: LoadReport,
    wall_micros: u64,
}

impl Merged {
    fn new(root: &UserName, wall_micros: u64) -> Self {
        let snapshot = SnapshotBuilder::new(root.clone());
        let (replica, report) = (Replica::default(), LoadReport::default());
        Self { snapshot, replica, report, wall_micros }
    }

    /// Adds the items that no earlier pool has.
    async fn add(&mut self, index: usize, pool: PoolContent) -> Result<(), LoadError> {
        self.report.retries += pool.retries;
        let remaining = SKIPPED_REPORTED_MAX.saturating_sub(self.report.unrecognised.len());
        self.report.unrecognised.extend(pool.unrecognised.into_iter().take(remaining));
        for (number, item) in pool.items.into_iter().enumerate() {
            if number % PARSED_PER_YIELD == 0 {
                tokio::task::yield_now().await;
            }
            let store::ReadItem { path, bytes } = item;
            if self.replica.get(&path).is_some() {
                continue;
            }
            if self.replica.len() >= ITEMS_MAX {
                return Err(LoadError::TooMany { max: ITEMS_MAX });
            }
            if let Err(error) = bytes.and_then(|bytes| self.add_item(index, &path, &bytes)) {
                self.skip(error);
            }
        }
        Ok(())
    }

    fn add_item(&mut self, pool: usize, path: &ItemPath, bytes: &[u8]) -> Result<(), StoreError> {
        let record = Record::decode(path, bytes)?;
        let Some(change) = Change::from_record(path, &record)? else { return Ok(()) };
        if change.is_collectable(record.version, self.wall_micros) {
            return Ok(());
        }
        self.replica.record(path, KnownItem { version: record.version, pool });
        match change {
            Change::Put(_) => self.report.items += 1,
            Change::Delete(_) => self.report.deleted += 1,
        }
        change.apply(&mut self.snapshot);
        Ok(())
    }

    fn skip(&mut self, error: StoreError) {
        if self.report.skipped.len() < SKIPPED_REPORTED_MAX {
            tracing::error!(target: "iam", %error, "damaged item skipped");
            self.report.skipped.push(error);
        }
        self.report.skipped_total += 1;
    }

    fn finish(self) -> Loaded {
        Loaded { snapshot: self.snapshot.build(), replica: self.replica, report: self.report }
    }
}
