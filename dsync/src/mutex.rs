//! The distributed mutex that applications lock with.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::dsync::Dsync;
use crate::error::{LockError, ResourcesError};
use crate::guard::Guard;
use crate::limits::{LOCK_TIMEOUT, TEXT_BYTES_MAX};
use crate::live_locks::LockOrder;
use crate::proto::hold::{AttemptLimit, EndReason, Hold, Status};
use crate::proto::quorum::LockKind;
use crate::proto::resources::Resources;

/// A read-write lock of one or several resources, named alike on all servers of the cluster. Cheap
/// to create and to clone: no RPC is sent before it is locked.
///
/// Several resources are acquired atomically. No attempt holds some of them while it waits for
/// others, so overlapping sets cannot deadlock.
///
/// ```
/// # use dsync::{Dsync, DRWMutex, LockError, LockOptions};
/// # use std::time::Duration;
/// async fn move_object(dsync: &Dsync) -> Result<(), LockError> {
///     let mutex = DRWMutex::new(dsync, ["photos/a.jpg", "photos/b.jpg"]);
///     let guard = mutex.lock(LockOptions::default().timeout(Duration::from_secs(10))).await?;
///     // Everything that is written carries `guard.token()`.
///     guard.unlock();
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct DRWMutex {
    dsync: Dsync,
    resources: Result<Resources, ResourcesError>,
}

/// Options of one acquisition.
#[derive(Debug, Clone)]
pub struct LockOptions {
    attempt_limit: AttemptLimit,
    source: Arc<str>,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self { attempt_limit: AttemptLimit::Timeout(LOCK_TIMEOUT), source: Arc::from("") }
    }
}

impl LockOptions {
    /// Sets the timeout of the acquisition; [`LOCK_TIMEOUT`] by default. Zero means
    /// [`try_once`](Self::try_once).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.attempt_limit = match timeout {
            Duration::ZERO => AttemptLimit::Once,
            timeout => AttemptLimit::Timeout(timeout),
        };
        self
    }

    /// Tries once: each locker is asked once. The acquisition fails with [`LockError::NotAcquired`] as
    /// soon as their responses exclude a quorum, at the latest after
    /// [`ATTEMPT_TIMEOUT`](crate::limits::ATTEMPT_TIMEOUT). It is never queued.
    #[must_use]
    pub fn try_once(mut self) -> Self {
        self.attempt_limit = AttemptLimit::Once;
        self
    }

    /// Acquires without a timeout, until the future is dropped.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.attempt_limit = AttemptLimit::Unlimited;
        self
    }

    /// Sets the call site or the purpose of the lock, for operators who list locks.
    #[must_use]
    pub fn source(mut self, source: &str) -> Self {
        self.source = source.into();
        self
    }
}

impl DRWMutex {
    /// Returns a lock of these resources, in any order. Invalid names are reported when it is
    /// locked.
    pub fn new<I>(dsync: &Dsync, resources: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self { dsync: dsync.clone(), resources: Resources::new(resources) }
    }

    /// Locks it for writing, exclusively.
    ///
    /// # Errors
    ///
    /// [`LockError`]; nothing is held then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the attempt. Grants, including late ones, are released in the
    /// background.
    pub async fn lock(&self, options: LockOptions) -> Result<Guard, LockError> {
        self.acquire(LockKind::Write, options).await
    }

    /// Locks it for reading, shared with other readers.
    ///
    /// # Errors
    ///
    /// [`LockError`]; nothing is held then.
    ///
    /// # Cancel safety
    ///
    /// As [`lock`](Self::lock).
    pub async fn read_lock(&self, options: LockOptions) -> Result<Guard, LockError> {
        self.acquire(LockKind::Read, options).await
    }

    /// Locks it for writing, runs `work`, and releases it. `work` is dropped, at its next await, if
    /// the lock is lost.
    ///
    /// ```
    /// # use dsync::{Dsync, DRWMutex, LockError, LockOptions, Token};
    /// # async fn write(_: Option<Token>) {}
    /// async fn rewrite(dsync: &Dsync) -> Result<(), LockError> {
    ///     let mutex = DRWMutex::new(dsync, ["photos/a.jpg"]);
    ///     mutex.lock_with(LockOptions::default(), async |guard| write(guard.token()).await).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LockError::Lost`] if the lock was lost before `work` was done; others if it was not
    /// acquired.
    pub async fn lock_with<T>(
        &self,
        options: LockOptions,
        work: impl AsyncFnOnce(&Guard) -> T,
    ) -> Result<T, LockError> {
        self.work_with(LockKind::Write, options, work).await
    }

    /// Locks it for reading, runs `work`, and releases it, as [`lock_with`](Self::lock_with).
    ///
    /// # Errors
    ///
    /// As [`lock_with`](Self::lock_with).
    pub async fn read_lock_with<T>(
        &self,
        options: LockOptions,
        work: impl AsyncFnOnce(&Guard) -> T,
    ) -> Result<T, LockError> {
        self.work_with(LockKind::Read, options, work).await
    }

    async fn work_with<T>(
        &self,
        kind: LockKind,
        options: LockOptions,
        work: impl AsyncFnOnce(&Guard) -> T,
    ) -> Result<T, LockError> {
        let guard = self.acquire(kind, options).await?;
        let done = tokio::select! {
            biased;
            lost = guard.lost() => Err(LockError::Lost(lost)),
            result = work(&guard) => Ok(result),
        };
        // The lock may have ended together with the work, and its timer fire later.
        if done.is_ok() && !guard.is_held() {
            return Err(LockError::Lost(guard.lost().await));
        }
        done
    }

    async fn acquire(&self, kind: LockKind, options: LockOptions) -> Result<Guard, LockError> {
        let resources = self.resources.clone()?;
        let LockOptions { attempt_limit, source } = options;
        if source.len() > TEXT_BYTES_MAX {
            return Err(LockError::SourceTooLong { bytes: source.len(), max: TEXT_BYTES_MAX });
        }
        let runtime = Handle::try_current().map_err(|_| LockError::NoRuntime)?;
        let Dsync { env, locks, tasks, counters, admission, .. } = &self.dsync;
        let began = env.now();
        let attempt_limit = admission.wait(attempt_limit).await?;
        let lock = locks.begin(LockOrder { resources, kind, source, attempt_limit })?;
        let status = tasks.acquisition(Arc::clone(&lock), runtime).acquire().await;
        let now = env.now();
        let (waited, stats) = (now.since(began), lock.inspect(Hold::stats));
        counters.record_attempt(status, waited, stats);
        match status {
            Status::Held { token, .. } => {
                token.into_iter().for_each(|token| locks.observe_token(token));
                Ok(Guard::new(lock, env.clone(), Arc::clone(counters), token))
            }
            Status::Ended(EndReason::TimedOut) => Err(LockError::TimedOut { waited, stats }),
            Status::Ended(EndReason::NotAcquired) => Err(LockError::NotAcquired { stats }),
            Status::Ended(EndReason::PlainLockers) => Err(LockError::PlainLockers {
                plain: u32::try_from(lock.inspect(Hold::plain_lockers)).unwrap_or(u32::MAX),
                lockers: stats.lockers,
                reason: lock.last_error().unwrap_or_else(|| "no reason given".into()),
            }),
            Status::Ended(_) | Status::Acquiring => Err(match admission.exclusion_reason() {
                Some(reason) => LockError::NotReady { reason },
                None => LockError::ShuttingDown,
            }),
        }
    }
}
