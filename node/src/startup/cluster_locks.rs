//! The locks that open once this server is known to belong to the cluster.

use dsync::Dsync;
use iam_bootstrap::ClusterLocks;

/// Opens and closes dsync.
#[derive(Debug)]
pub(super) struct DsyncLocks(Dsync);

impl DsyncLocks {
    pub(super) const fn new(dsync: Dsync) -> Self {
        Self(dsync)
    }
}

impl ClusterLocks for DsyncLocks {
    fn open(&self) {
        self.0.open();
    }

    fn close(&self, reason: &str) {
        self.0.close(reason);
    }
}
