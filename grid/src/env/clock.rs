//! The real clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{Clock, Instant, Timestamp};

/// Reads tokio's clock, which a paused or simulated runtime controls, and the system's wall clock.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only reader of the real clocks; all other code is injected with a `Clock`"
)]
impl SystemClock {
    /// Creates a clock that starts at zero now.
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    fn elapsed_nanos(&self) -> u64 {
        let elapsed = tokio::time::Instant::now().duration_since(self.start);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    fn unix() -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp::new(
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                since.subsec_nanos(),
            ),
            Err(_) => Timestamp::default(), // before 1970: every peer refuses it
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.elapsed_nanos())
    }

    fn wall(&self) -> Timestamp {
        Self::unix()
    }
}
