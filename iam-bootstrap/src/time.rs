//! Time as stored and compared on all servers.

use grid::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch in UTC, without leap seconds: the expiry of a credential, and
/// the time of a request. It is passed in, never read from a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UtcMillis(i64);

impl UtcMillis {
    /// Creates a time from milliseconds since the Unix epoch; negative ones are before it.
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Returns a reading of the wall clock in microseconds since the Unix epoch.
pub(crate) fn unix_micros(wall: Timestamp) -> u64 {
    u64::try_from(wall.unix_nanos() / 1_000).unwrap_or(0)
}
