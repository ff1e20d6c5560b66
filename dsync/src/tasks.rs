//! The tasks of one instance: the timers and the recovery of its locker, the drivers of its locks,
//! and their shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::admission::Admission;
use crate::driver::{Acquisition, Driver, DriverParts};
use crate::list_queries;
use crate::lock::Lock;
use crate::operation::HolderParts;
use crate::recovery;

/// Starts and ends the tasks of one instance.
pub(crate) struct Tasks {
    parts: DriverParts,
    admission: Arc<Admission>,
    is_started: AtomicBool,
}

impl Tasks {
    pub(crate) fn new(parts: DriverParts, admission: Arc<Admission>) -> Self {
        Self { parts, admission, is_started: AtomicBool::new(false) }
    }

    /// Starts the queries of other servers' lists, and the timers and the recovery of this server's
    /// locker, once.
    pub(crate) fn start(&self, holder: &HolderParts) {
        let DriverParts { env, peers, locks, .. } = &self.parts;
        if self.is_started.swap(true, Ordering::AcqRel) {
            return;
        }
        list_queries::start(peers, &self.admission, locks, env);
        if let Some(local_locker) = peers.local_locker() {
            tokio::spawn(local_locker.clone().run_timers());
            recovery::start(local_locker, peers, holder, env);
        }
    }

    /// Returns the driver of a lock that is being acquired. A task on `runtime` then continues to
    /// drive it.
    pub(crate) fn acquisition(&self, lock: Arc<Lock>, runtime: Handle) -> Acquisition {
        Acquisition::new(Driver::new(lock, self.parts.clone()), runtime)
    }

    /// Releases all locks, and waits at most `grace` until their drivers have ended.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        let DriverParts { env, locks, .. } = &self.parts;
        let unfinished = locks.close();
        self.admission.shut_down();
        let now = env.now();
        for lock in unfinished {
            lock.release(now);
        }
        let _ = tokio::time::timeout(grace, locks.wait_empty()).await;
    }
}
