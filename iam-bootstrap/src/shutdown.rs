//! Shutdown signal for a server's tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Wakes tasks in the order in which they started to wait. A `watch` would wake them in an order
/// that tokio draws anew in each process, and two runs of one simulation would differ.
#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    has_begun: AtomicBool,
    started: Notify,
}

impl Shutdown {
    /// Signals all waiting tasks.
    pub(crate) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.started.notify_waiters();
    }

    /// Resolves when the shutdown has begun.
    pub(crate) async fn wait(&self) {
        let started = self.started.notified();
        tokio::pin!(started);
        // Enabled before the check: a shutdown that begins in between is not missed.
        started.as_mut().enable();
        if !self.has_begun.load(Ordering::Acquire) {
            started.await;
        }
    }
}
