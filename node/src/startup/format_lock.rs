//! The cluster-wide lock under which IAM's format is first written.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use dsync::{DRWMutex, Dsync, LockOptions};
use iam_bootstrap::format::{FormatLock, FormatLockGuard};

/// The resource that is locked.
const RESOURCE: &str = "iam/format";

/// Longest wait for the lock before the attempt fails; the caller retries.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Acquires the lock through dsync.
#[derive(Debug)]
pub(super) struct DsyncFormatLock(Dsync);

impl DsyncFormatLock {
    pub(super) const fn new(dsync: Dsync) -> Self {
        Self(dsync)
    }
}

impl FormatLock for DsyncFormatLock {
    fn acquire(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<FormatLockGuard, String>> + Send + '_>> {
        Box::pin(async {
            let options = LockOptions::default().timeout(LOCK_TIMEOUT).source("IAM format");
            let guard = DRWMutex::new(&self.0, [RESOURCE]).lock(options).await;
            guard.map(|guard| Box::new(guard) as FormatLockGuard).map_err(|error| error.to_string())
        })
    }
}
