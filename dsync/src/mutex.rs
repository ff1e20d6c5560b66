//! What an application locks with.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::driver::{Driver, Trying};
use crate::dsync::Dsync;
use crate::error::{LockError, NamesError};
use crate::guard::Guard;
use crate::limits::{LOCK_TIMEOUT, TEXT_BYTES_MAX};
use crate::proto::hold::{End, Hold, Status};
use crate::proto::names::Names;
use crate::proto::quorum::Kind;

/// A read-write lock of one or several resources, which all servers of the cluster know by their
/// names. Cheap to make and to clone: nothing is asked before it is locked.
///
/// Several resources are taken all or none. As no attempt keeps what it has got while it waits for the
/// rest, sets that overlap cannot block each other for ever.
///
/// ```
/// # use dsync::{Dsync, DRWMutex, LockError, LockOptions};
/// # use std::time::Duration;
/// async fn move_object(dsync: &Dsync) -> Result<(), LockError> {
///     let mutex = DRWMutex::new(dsync, ["photos/a.jpg", "photos/b.jpg"]);
///     let guard = mutex.lock(LockOptions::default().timeout(Duration::from_secs(10))).await?;
///     // Everything that is written carries `guard.token()`.
///     guard.unlock().await;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct DRWMutex {
    dsync: Dsync,
    names: Result<Names, NamesError>,
}

/// How to lock.
#[derive(Debug, Clone)]
pub struct LockOptions {
    timeout: Option<Duration>,
    source: Arc<str>,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self { timeout: Some(LOCK_TIMEOUT), source: Arc::from("") }
    }
}

impl LockOptions {
    /// For how long to try at most; [`LOCK_TIMEOUT`] unless told.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// To try until the future is dropped.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// Where in the code, or for what: for operators who look at the list of locks.
    #[must_use]
    pub fn source(mut self, source: &str) -> Self {
        self.source = source.into();
        self
    }
}

impl DRWMutex {
    /// A lock of these resources. The order does not matter. What is wrong with the names is told when
    /// it is locked.
    pub fn new<I>(dsync: &Dsync, resources: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self { dsync: dsync.clone(), names: Names::new(resources) }
    }

    /// Locks it for writing: for nobody else.
    ///
    /// # Errors
    ///
    /// [`LockError`]. Nothing is held then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up. What has been granted, or is granted late, is released in the
    /// background.
    pub async fn lock(&self, options: LockOptions) -> Result<Guard, LockError> {
        self.acquire(Kind::Write, options).await
    }

    /// Locks it for reading: with other readers.
    ///
    /// # Errors
    ///
    /// [`LockError`]. Nothing is held then.
    ///
    /// # Cancel safety
    ///
    /// As [`lock`](Self::lock).
    pub async fn read_lock(&self, options: LockOptions) -> Result<Guard, LockError> {
        self.acquire(Kind::Read, options).await
    }

    /// Locks it for writing, runs `work`, and releases it. `work` is dropped, at its next await, if
    /// the lock is lost.
    ///
    /// ```
    /// # use dsync::{Dsync, DRWMutex, LockError, LockOptions, Token};
    /// # async fn write(_: Token) {}
    /// async fn rewrite(dsync: &Dsync) -> Result<(), LockError> {
    ///     let mutex = DRWMutex::new(dsync, ["photos/a.jpg"]);
    ///     mutex.lock_with(LockOptions::default(), async |guard| write(guard.token()).await).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LockError::Lost`] if the lock was lost before `work` was done; others if it was not got.
    pub async fn lock_with<T>(
        &self,
        options: LockOptions,
        work: impl AsyncFnOnce(&Guard) -> T,
    ) -> Result<T, LockError> {
        self.work_with(Kind::Write, options, work).await
    }

    /// Likewise, for reading.
    ///
    /// # Errors
    ///
    /// As [`lock_with`](Self::lock_with).
    pub async fn read_lock_with<T>(
        &self,
        options: LockOptions,
        work: impl AsyncFnOnce(&Guard) -> T,
    ) -> Result<T, LockError> {
        self.work_with(Kind::Read, options, work).await
    }

    async fn work_with<T>(
        &self,
        kind: Kind,
        options: LockOptions,
        work: impl AsyncFnOnce(&Guard) -> T,
    ) -> Result<T, LockError> {
        let guard = self.acquire(kind, options).await?;
        let done = tokio::select! {
            biased;
            lost = guard.lost() => Err(LockError::Lost(lost)),
            result = work(&guard) => Ok(result),
        };
        // Its end may have come together with that of the work, and its timer later.
        if done.is_ok() && !guard.is_held() {
            return Err(LockError::Lost(guard.lost().await));
        }
        done
    }

    async fn acquire(&self, kind: Kind, options: LockOptions) -> Result<Guard, LockError> {
        let names = self.names.clone()?;
        let LockOptions { timeout, source } = options;
        if source.len() > TEXT_BYTES_MAX {
            return Err(LockError::SourceTooLong { bytes: source.len(), max: TEXT_BYTES_MAX });
        }
        let runtime = Handle::try_current().map_err(|_| LockError::NoRuntime)?;
        let inner = &self.dsync.inner;
        let began = inner.clock.now();
        let lock = inner.begin(names, kind, source, timeout)?;
        let trying = Trying::new(Driver::new(Arc::clone(&lock), Arc::clone(inner)), runtime);
        let status = trying.acquire().await;
        let now = inner.clock.now();
        let (waited, tries) = (now.since(began), lock.look(Hold::tries));
        inner.meter.tried(status, waited, tries);
        match status {
            Status::Held { token, .. } => {
                inner.observe_token(token);
                Ok(Guard::new(lock, Arc::clone(inner), token))
            }
            Status::Ended(End::TimedOut) => Err(LockError::TimedOut { waited, tries }),
            Status::Ended(_) | Status::Trying => Err(LockError::ShuttingDown),
        }
    }
}
