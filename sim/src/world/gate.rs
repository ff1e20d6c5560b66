//! Where the tasks of a node wait: while its process is stopped, or until something has come about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Lets through while it is open. Cheap to clone.
///
/// Whoever waits goes on in the order of coming: tokio's own watch channel wakes in an order that
/// is drawn from the system.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_closed: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// One that is closed to begin with.
    pub(crate) fn closed() -> Self {
        let gate = Self::default();
        gate.close();
        gate
    }

    pub(crate) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn open(&self) {
        self.0.is_closed.store(false, Ordering::Relaxed);
        self.0.opened.notify_waiters();
    }

    /// Returns once it is open. To be awaited before each thing that an application does on a node:
    /// a process that is stopped does nothing.
    pub async fn pass(&self) {
        loop {
            // What comes between the look and the wait is not missed: it counts from here.
            let opened = self.0.opened.notified();
            if !self.0.is_closed.load(Ordering::Relaxed) {
                return;
            }
            opened.await;
        }
    }

    /// Returns when it is opened the next time.
    pub async fn opened(&self) {
        self.0.opened.notified().await;
    }
}
