//! A gate at which tasks of a node wait: while its process is paused, or until a condition holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A gate that can be closed and opened. Cheap to clone.
///
/// Waiters resume in the order of their arrival: tokio's watch channel wakes in an order that is
/// drawn from the system.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    is_closed: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// Creates a closed gate.
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

    /// Returns whether the gate is open.
    pub(crate) fn is_open(&self) -> bool {
        !self.0.is_closed.load(Ordering::Relaxed)
    }

    /// Waits until the gate is open. Applications await it before each step on a node: a paused
    /// process does nothing.
    pub async fn pass(&self) {
        loop {
            // Registered before the check, so that an opening between check and wait is not missed.
            let opened = self.0.opened.notified();
            if self.is_open() {
                return;
            }
            opened.await;
        }
    }

    /// Waits until the gate is opened the next time.
    pub async fn opened(&self) {
        self.0.opened.notified().await;
    }
}
