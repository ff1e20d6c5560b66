//! A count of live values, above all of handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts guards that were made and not dropped, such as those of running handlers.
#[derive(Clone, Default)]
pub struct LiveCount(Arc<AtomicUsize>);

pub struct LiveGuard(LiveCount);

impl LiveCount {
    pub fn guard(&self) -> LiveGuard {
        self.0.fetch_add(1, Ordering::SeqCst);
        LiveGuard(self.clone())
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
