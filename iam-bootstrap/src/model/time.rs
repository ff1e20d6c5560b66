//! Time as stored and compared on all servers.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 in UTC, without leap seconds: the expiry of a credential, and the time
/// of a request. It is passed in, never read from a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UtcMillis(i64);

impl UtcMillis {
    /// Creates a time so many milliseconds after the beginning of 1970; before it, if negative.
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since 1970.
    pub const fn get(self) -> i64 {
        self.0
    }
}
