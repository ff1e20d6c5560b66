//! An instant that all nodes and the stored data agree on.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 in UTC, without leap seconds: when a credential expires, and the time at
/// which a request is judged. It is handed in, never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UtcMillis(i64);

impl UtcMillis {
    /// So many milliseconds after the beginning of 1970; before it, if negative.
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn get(self) -> i64 {
        self.0
    }
}
