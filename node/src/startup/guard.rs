//! A lock of the cluster's, for the first writing of the format.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use dsync::{DRWMutex, Dsync, LockOptions};
use iam_bootstrap::format::{FormatGuard, Held};

/// What is locked.
const RESOURCE: &str = "iam/format";

/// Longest wait for the lock before it is said that there is none; then it is tried again.
const WAIT: Duration = Duration::from_secs(10);

/// Takes the lock with dsync.
#[derive(Debug)]
pub(super) struct DsyncGuard(Dsync);

impl DsyncGuard {
    pub(super) const fn new(dsync: Dsync) -> Self {
        Self(dsync)
    }
}

impl FormatGuard for DsyncGuard {
    fn hold(&self) -> Pin<Box<dyn Future<Output = Result<Held, String>> + Send + '_>> {
        Box::pin(async {
            let options = LockOptions::default().timeout(WAIT).source("the format of IAM");
            let guard = DRWMutex::new(&self.0, [RESOURCE]).lock(options).await;
            guard.map(|guard| Box::new(guard) as Held).map_err(|error| error.to_string())
        })
    }
}
