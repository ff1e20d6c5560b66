//! The one path for what should never happen (B40).
//!
//! A storage server must not stop because one of our assumptions was wrong, but nobody should have
//! to find out by chance either. [`bug!`](crate::bug!) logs under its own target, counts, and lets
//! the caller go on in the safe direction. Tests and simulated runs fail when the count has grown.

use std::sync::atomic::{AtomicU64, Ordering};

#[doc(hidden)]
pub use tracing;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// How many bugs were met in this process. Zero, or something must be reported to us.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Counts one. Called by [`bug!`](crate::bug!).
#[doc(hidden)]
pub fn record() {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Reports that something happened which this crate holds to be impossible.
///
/// Takes what `format!` takes.
#[macro_export]
macro_rules! bug {
    ($($message:tt)+) => {{
        $crate::bug::record();
        $crate::bug::tracing::error!(target: "grid::bug", $($message)+);
    }};
}
