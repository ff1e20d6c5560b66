//! Reporting of broken internal assumptions ([B40]).
//!
//! A storage server must not stop because one assumption of this crate is wrong, and the error must
//! not stay hidden either. [`bug!`](crate::bug!) logs under its own target, counts, and lets the
//! caller continue in the safe direction. Tests and simulated runs fail when the count has grown.
//!
//! [B40]: crate::rules#b40

use std::sync::atomic::{AtomicU64, Ordering};

#[doc(hidden)]
pub use tracing;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Returns the number of bugs met in this process. Any value above zero is worth a report.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Counts one bug. Called by [`bug!`](crate::bug!).
#[doc(hidden)]
pub fn record() {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Logs and counts an event that this crate holds to be impossible.
///
/// Takes the arguments of `format!`.
#[macro_export]
macro_rules! bug {
    ($($message:tt)+) => {{
        $crate::bug::record();
        $crate::bug::tracing::error!(target: "grid::bug", $($message)+);
    }};
}
