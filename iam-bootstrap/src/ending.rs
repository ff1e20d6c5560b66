//! How a server's tasks are told to end.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Ends tasks in the order in which they began. A `watch` would wake them in an order that tokio draws anew
/// in each process, and two runs of one simulation would differ.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    has_begun: AtomicBool,
    told: Notify,
}

impl Ending {
    /// Tells all.
    pub(crate) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Resolves when it has begun.
    pub(crate) async fn wait(&self) {
        let told = self.told.notified();
        tokio::pin!(told);
        // Before the look: an end that begins in between is not missed.
        told.as_mut().enable();
        if !self.has_begun.load(Ordering::Acquire) {
            told.await;
        }
    }
}
