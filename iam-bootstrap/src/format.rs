//! Storage format of all items: checked before anything is loaded, written once.
//!
//! A server of an older version must not misread a newer format, and two versions must not
//! initialise one cluster with different formats. So the first server to write the format holds a
//! cluster-wide lock ([`FormatLock`]; the server binary provides one with dsync).

use std::future::Future;
use std::pin::Pin;

use grid::env::Env;
use serde::{Deserialize, Serialize};

use crate::load::{LoadError, Progress};
use crate::retry::RetryState;
use crate::store::{IamStore, ItemPath, StoreError, with_store_timeout};

/// Format that this version writes.
pub(crate) const FORMAT: u32 = 1;

/// Guard of the lock that protects writing the format. Dropping it releases the lock.
pub type FormatLockGuard = Box<dyn Send>;

/// A lock that at most one server of the cluster holds at a time.
pub trait FormatLock: Send + Sync + 'static {
    /// Acquires the lock. A failure is logged with its reason and retried.
    fn acquire(&self)
    -> Pin<Box<dyn Future<Output = Result<FormatLockGuard, String>> + Send + '_>>;
}

/// No lock: for a single server, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFormatLock;

impl FormatLock for NoFormatLock {
    fn acquire(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<FormatLockGuard, String>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(Box::new(()) as FormatLockGuard)))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u32,
}

/// Error of one attempt to read or write the format.
#[derive(Debug, thiserror::Error)]
enum FormatError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot acquire the cluster-wide lock for writing the format: {0}")]
    Lock(String),
}

/// Waits until the format of the pool is known, and writes it if there is none. Calls
/// `on_wait` with the reason before each wait.
pub(crate) async fn check(
    pool: &dyn IamStore,
    format_lock: &dyn FormatLock,
    env: &Env,
    on_wait: impl Fn(Progress),
) -> Result<(), LoadError> {
    let (mut retry, mut rng) = (RetryState::new(), env.fork());
    loop {
        let cause = match read_or_write_format(pool, format_lock).await {
            Ok(FORMAT) => return Ok(()),
            Ok(found) => return Err(LoadError::Format { found, max: FORMAT }),
            Err(FormatError::Store(error)) if !error.is_transient() => {
                return Err(LoadError::Pool { pool: pool.name().to_owned(), error });
            }
            Err(error) => error.to_string(),
        };
        let decision = retry.failed(&cause, env.now(), &mut rng);
        if decision.log.is_log() {
            let pool = pool.name();
            tracing::info!(target: "iam", pool, cause, "IAM load is waiting for a pool");
        }
        let mut progress = Progress::default();
        progress.waiting.insert(pool.name().to_owned(), cause);
        on_wait(progress);
        tokio::time::sleep(decision.after).await;
    }
}

async fn read_or_write_format(
    pool: &dyn IamStore,
    format_lock: &dyn FormatLock,
) -> Result<u32, FormatError> {
    if let Some(found) = read_format(pool).await? {
        return Ok(found);
    }
    let guard = format_lock.acquire().await.map_err(FormatError::Lock)?;
    // The previous lock holder may have written it.
    let found = match read_format(pool).await? {
        Some(found) => found,
        None => {
            let path = ItemPath::format();
            let bytes = format!("{{\"format\":{FORMAT}}}").into_bytes();
            with_store_timeout(pool, pool.write(&path, bytes)).await?;
            tracing::info!(
                target: "iam", pool = pool.name(), format = FORMAT,
                "pool format written"
            );
            FORMAT
        }
    };
    drop(guard);
    Ok(found)
}

async fn read_format(pool: &dyn IamStore) -> Result<Option<u32>, StoreError> {
    let path = ItemPath::format();
    let bytes = match with_store_timeout(pool, pool.read(&path)).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice::<Format>(&bytes) {
        Ok(Format { format }) => Ok(Some(format)),
        Err(error) => Err(StoreError::Corrupt { path, cause: error.to_string().into() }),
    }
}
