//! Test doubles: a locker and a holder that behave like those of an unmodified MinIO server.
//!
//! They are written from what is known about MinIO's wire and behaviour, not from this crate's own
//! messages, so that tests of mixed clusters do not compare this crate with itself. What matters to
//! a peer:
//!
//! - Each request runs concurrently with every other one, whatever their order on the wire, and
//!   runs to its end even if its caller has cancelled it.
//! - A locker has no tombstones, tickets, tokens or leases: a grant that is not refreshed is swept
//!   away one to two minutes after its last refresh.
//! - A holder keeps one UID over all its attempts.
//! - No message has an extension field, and a nil array cannot be decoded.
//!
//! Not modelled: the refusal of callers that wait too long for the table's mutex.
//!
//! All time is tokio's, and all randomness comes from a seed: they run in simulations too.

mod minio_holder;
mod minio_locker;
mod minio_table;
mod minio_wire;

use std::time::Duration;

use tokio::time::Instant;

pub use self::minio_holder::{MinioHolder, MinioLock, MinioMutex};
pub use self::minio_locker::MinioLocker;
pub use self::minio_table::MinioTable;
pub use self::minio_wire::{MinioArgs, MinioOperation, MinioResponse};

/// Reads the clock of the runtime, which simulations and tests control.
#[allow(clippy::disallowed_methods, reason = "what is modelled is software of another origin")]
fn now() -> Instant {
    Instant::now()
}

/// The timing of MinIO servers, which may be scaled down for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinioTiming {
    /// Timeout of one attempt to reach a quorum. The requests themselves go on.
    pub attempt: Duration,
    /// Longest pause after the first failed attempt.
    pub retry_first: Duration,
    /// Increment of each further pause.
    pub retry_step: Duration,
    /// Longest pause.
    pub retry_max: Duration,
    /// Time between two refreshes.
    pub refresh: Duration,
    /// Timeout of one refresh.
    pub refresh_call: Duration,
    /// Timeout of one release, and of all attempts to release.
    pub release: Duration,
    /// Longest pause between two attempts to release.
    pub release_retry: Duration,
    /// Age since the last refresh at which a sweep removes a grant, and the time between two sweeps.
    pub expiry: Duration,
    /// Longest delay between the arrival of a request and its execution, in any order.
    pub dispatch: Duration,
}

impl Default for MinioTiming {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(1),
            retry_first: Duration::from_millis(350),
            retry_step: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
            refresh: Duration::from_secs(10),
            refresh_call: Duration::from_secs(5),
            release: Duration::from_secs(30),
            release_retry: Duration::from_millis(250),
            expiry: Duration::from_secs(60),
            dispatch: Duration::from_millis(2),
        }
    }
}

impl MinioTiming {
    /// Returns the timing divided by `divisor`, except for the dispatch of requests.
    pub fn scaled(divisor: u32) -> Self {
        let Self { dispatch, .. } = Self::default();
        let scale = |duration: Duration| duration / divisor;
        let default = Self::default();
        Self {
            attempt: scale(default.attempt),
            retry_first: scale(default.retry_first),
            retry_step: scale(default.retry_step),
            retry_max: scale(default.retry_max),
            refresh: scale(default.refresh),
            refresh_call: scale(default.refresh_call),
            release: scale(default.release),
            release_retry: scale(default.release_retry),
            expiry: scale(default.expiry),
            dispatch,
        }
    }
}
