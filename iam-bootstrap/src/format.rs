//! The format of all that is kept: looked at before anything is loaded, written once.
//!
//! A server of an older version must not read what it would misunderstand, nor two versions begin at
//! once with different formats; so the first to write it holds a lock of the cluster's
//! ([`FormatGuard`]; `node` gives one of dsync's).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::iam::{Inner, Phase};
use crate::load::{LoadError, Progress, Source, within};
use crate::retry::Retry;
use crate::store::{IamStore, ItemPath, StoreError};

/// The format that this version writes.
pub(crate) const FORMAT: u32 = 1;

/// Held while the format is written for the first time. Dropping it lets go.
pub type Held = Box<dyn Send>;

/// Takes a lock that only one server of the cluster holds at a time.
pub trait FormatGuard: Send + Sync + 'static {
    /// Takes it. Why it could not be taken is logged, and it is tried again.
    fn hold(&self) -> Pin<Box<dyn Future<Output = Result<Held, String>> + Send + '_>>;
}

/// No lock: for one server, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unguarded;

impl FormatGuard for Unguarded {
    fn hold(&self) -> Pin<Box<dyn Future<Output = Result<Held, String>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(Box::new(()) as Held)))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u32,
}

/// Why the format is not known yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the format is written under a lock of the cluster's, which cannot be had: {0}")]
    Guard(String),
}

/// Waits until the format of the first pool is known, and writes it if there is none.
pub(crate) async fn check(inner: &Arc<Inner>, source: &Source) -> Result<(), LoadError> {
    let Some(pool) = inner.pools.first() else { return Ok(()) };
    let mut retry = Retry::default();
    let mut rng = SmallRng::seed_from_u64(source.seed.wrapping_mul(3));
    loop {
        let cause = match find_or_write(inner, &**pool).await {
            Ok(FORMAT) => return Ok(()),
            Ok(found) => return Err(LoadError::Format { found, max: FORMAT }),
            Err(NotYet::Store(error)) if !error.is_transient() => {
                return Err(LoadError::Pool { pool: pool.name().to_owned(), error });
            }
            Err(error) => error.to_string(),
        };
        let again = retry.failed(&cause, source.clock.now(), rng.random());
        if again.tell {
            let pool = pool.name();
            tracing::info!(target: "iam", pool, cause, "IAM is not loaded yet: waiting for a pool");
        }
        let mut progress = Progress::default();
        progress.waiting.insert(pool.name().to_owned(), cause);
        inner.set_phase(Phase::Loading(progress));
        tokio::time::sleep(again.after).await;
    }
}

async fn find_or_write(inner: &Inner, pool: &dyn IamStore) -> Result<u32, NotYet> {
    if let Some(found) = find(pool).await? {
        return Ok(found);
    }
    let held = inner.guard.hold().await.map_err(NotYet::Guard)?;
    // Who held it before us may have written it.
    let found = match find(pool).await? {
        Some(found) => found,
        None => {
            let path = ItemPath::format();
            let bytes = format!("{{\"format\":{FORMAT}}}").into_bytes();
            within(pool, pool.write(&path, bytes)).await?;
            tracing::info!(target: "iam", pool = pool.name(), format = FORMAT, "a new pool");
            FORMAT
        }
    };
    drop(held);
    Ok(found)
}

async fn find(pool: &dyn IamStore) -> Result<Option<u32>, StoreError> {
    let path = ItemPath::format();
    let bytes = match within(pool, pool.read(&path)).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice::<Format>(&bytes) {
        Ok(Format { format }) => Ok(Some(format)),
        Err(error) => Err(StoreError::Corrupt { path, why: error.to_string().into() }),
    }
}
