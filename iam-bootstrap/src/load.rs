//! Everything that the pools hold becomes one snapshot (B61).
//!
//! All pools are read at once; one that is not initialised yet or unavailable is tried again until it
//! is there, and every other failure of a whole pool ends the loading. What is wrong with one item is
//! reported, and the rest is loaded. Of several pools that have an item the first one's counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Clock;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use crate::body::Change;
use crate::limits::{ITEMS_MAX, ITEMS_PER_READ, PARSED_PER_TURN, SKIPPED_TOLD_MAX, STORE_TIMEOUT};
use crate::model::UserName;
use crate::record::Record;
use crate::replica::{Known, Replica};
use crate::retry::Retry;
use crate::snapshot::{Snapshot, SnapshotBuilder};
use crate::store::{self, IamStore, ItemPath, Kind, Pending, StoreError};
use crate::wall_micros;

/// Why nothing was loaded. Trying again does not help; the operator has to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A pool cannot be read as a whole, and waiting does not help.
    #[error("cannot load IAM from {pool}: {error}")]
    Pool {
        /// The pool's name.
        pool: String,
        /// What is wrong with it.
        error: StoreError,
    },
    /// The pools hold more than a server keeps.
    #[error("cannot load IAM: there are more than {max} items, deleted ones included")]
    TooMany {
        /// [`ITEMS_MAX`].
        max: usize,
    },
    /// A newer version wrote what is kept.
    #[error(
        "cannot load IAM: it is kept in format {found}, and this version knows up to {max}: upgrade"
    )]
    Format {
        /// The format that it is in.
        found: u32,
        /// The newest that is known.
        max: u32,
    },
}

/// How far the loading is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Items that were read so far.
    pub items: usize,
    /// Items that were listed so far.
    pub listed: usize,
    /// What each pool that cannot be read is waited for, by its name.
    pub waiting: BTreeMap<String, String>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} items", self.items, self.listed)?;
        self.waiting.values().try_for_each(|cause| write!(f, "; {cause}"))
    }
}

/// What was loaded, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Items that count.
    pub items: usize,
    /// Marks of deleted ones.
    pub deleted: usize,
    /// Items that are not what was written, the first few.
    pub skipped: Vec<StoreError>,
    /// How many such there are.
    pub skipped_total: usize,
    /// Names in pools that are no items', the first few.
    pub strangers: Vec<String>,
    /// Pools that were read.
    pub pools: usize,
    /// How often a pool had to be tried again.
    pub retries: u32,
    /// How long it took.
    pub took: Duration,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    pub(crate) replica: Replica,
    pub(crate) report: LoadReport,
}

/// Where time and chance come from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: u64,
}

/// Loads everything. Waits for pools for ever.
///
/// # Cancel safety
///
/// Nothing is changed by loading.
pub(crate) async fn load(
    pools: &[Arc<dyn IamStore>],
    root: &UserName,
    source: &Source,
    progress: &watch::Sender<Progress>,
) -> Result<Loaded, LoadError> {
    let started = source.clock.now();
    let read = pools.iter().enumerate().map(|(index, pool)| {
        let rng = SmallRng::seed_from_u64(source.seed.wrapping_add(index as u64));
        Reader { pool: &**pool, clock: &*source.clock, rng, retry: Retry::default(), progress }
            .read_all()
    });
    let mut merged = Merged::new(root, wall_micros(&*source.clock));
    for (index, pool) in futures_util::future::join_all(read).await.into_iter().enumerate() {
        merged.add(index, pool?).await?;
    }
    let mut loaded = merged.finish();
    loaded.report.pools = pools.len();
    loaded.report.took = source.clock.now().since(started);
    Ok(loaded)
}

/// What one pool holds.
#[derive(Debug, Default)]
struct Pool {
    items: Vec<store::Item>,
    strangers: Vec<String>,
    retries: u32,
}

/// Reads one pool, however often it takes.
struct Reader<'a> {
    pool: &'a dyn IamStore,
    clock: &'a dyn Clock,
    rng: SmallRng,
    retry: Retry,
    progress: &'a watch::Sender<Progress>,
}

impl Reader<'_> {
    async fn read_all(mut self) -> Result<Pool, LoadError> {
        let mut read = Pool::default();
        for kind in Kind::ALL {
            let listing = loop {
                match within(self.pool, self.pool.list(kind)).await {
                    Ok(listing) => break listing,
                    Err(error) => self.wait(error).await?,
                }
            };
            read.strangers.extend(listing.strangers);
            self.progress.send_modify(|progress| progress.listed += listing.paths.len());
            for part in listing.paths.chunks(ITEMS_PER_READ) {
                let mut items = loop {
                    match within(self.pool, self.pool.read_many(part)).await {
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

    /// Waits before the next try; or says that there is none.
    async fn wait(&mut self, error: StoreError) -> Result<(), LoadError> {
        let pool = self.pool.name();
        if !error.is_transient() {
            return Err(LoadError::Pool { pool: pool.to_owned(), error });
        }
        let cause = error.to_string();
        let again = self.retry.failed(&cause, self.clock.now(), self.rng.random());
        if again.tell {
            tracing::info!(target: "iam", pool, cause, "IAM is not loaded yet: waiting for a pool");
        }
        self.progress.send_modify(|progress| {
            progress.waiting.insert(pool.to_owned(), cause);
        });
        tokio::time::sleep(again.after).await;
        Ok(())
    }
}

/// A store that does not answer is unavailable, not waited for without end.
pub(crate) async fn within<T>(
    pool: &dyn IamStore,
    pending: Pending<'_, T>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(STORE_TIMEOUT, pending).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable {
            store: pool.name().into(),
            cause: format!("no answer within {STORE_TIMEOUT:?}").into(),
        }),
    }
}

/// What the pools hold together.
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

    /// Adds what none of the pools before has.
    async fn add(&mut self, index: usize, pool: Pool) -> Result<(), LoadError> {
        self.report.retries += pool.retries;
        let room = SKIPPED_TOLD_MAX.saturating_sub(self.report.strangers.len());
        self.report.strangers.extend(pool.strangers.into_iter().take(room));
        for (number, item) in pool.items.into_iter().enumerate() {
            if number % PARSED_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            let store::Item { path, bytes } = item;
            if self.replica.get(&path).is_some() {
                continue;
            }
            if self.replica.len() >= ITEMS_MAX {
                return Err(LoadError::TooMany { max: ITEMS_MAX });
            }
            if let Err(error) = bytes.and_then(|bytes| self.take(index, &path, &bytes)) {
                self.skip(error);
            }
        }
        Ok(())
    }

    fn take(&mut self, pool: usize, path: &ItemPath, bytes: &[u8]) -> Result<(), StoreError> {
        let record = Record::decode(path, bytes)?;
        let Some(change) = Change::of(path, &record)? else { return Ok(()) };
        if change.is_over(record.version, self.wall_micros) {
            return Ok(());
        }
        self.replica.learn(path, Known { version: record.version, pool });
        match change {
            Change::Put(_) => self.report.items += 1,
            Change::Delete(_) => self.report.deleted += 1,
        }
        change.apply(&mut self.snapshot);
        Ok(())
    }

    fn skip(&mut self, error: StoreError) {
        if self.report.skipped.len() < SKIPPED_TOLD_MAX {
            tracing::error!(target: "iam", %error, "an item is not loaded");
            self.report.skipped.push(error);
        }
        self.report.skipped_total += 1;
    }

    fn finish(self) -> Loaded {
        Loaded { snapshot: self.snapshot.build(), replica: self.replica, report: self.report }
    }
}
