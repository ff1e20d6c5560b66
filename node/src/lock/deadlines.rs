//! When a command must end so that it does not overlap with the next holder of the lock.
//!
//! ```text
//!                    terminate_at         kill_at   until
//!   ─────────┼────────────┼──────────────────┼────────┼──────────► time
//!   confirmed│            │ SIGTERM          │ SIGKILL│ the server may grant the lock to another
//! ```
//!
//! All times are readings of a clock that the processes of a machine share, because the watchdog is
//! another process. On Linux this clock also advances while the machine is suspended, as that of the
//! server does. That of a sleep does not.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

/// Longest sleep. The clock of the deadlines advances while the machine is suspended, that of a
/// sleep does not.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// Longest time between SIGTERM and SIGKILL.
pub(super) const TERMINATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Part of the validity that is reserved for the command to handle SIGTERM, as a divisor.
const TERMINATE_DIVISOR: u32 = 4;

/// Longest time between SIGKILL and the end of the validity. A killed process ends within
/// milliseconds, on a busy machine too.
const KILL_MARGIN: Duration = Duration::from_millis(500);

/// Part of the validity that is reserved for the end of a killed command, as a divisor.
const KILL_DIVISOR: u32 = 50;

/// The times of SIGTERM and SIGKILL, unless the lock is confirmed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadlines {
    pub(super) terminate_at: SharedClock,
    pub(super) kill_at: SharedClock,
}

impl Deadlines {
    /// Returns the deadlines for a lock that is valid until then, and `longest` when it has just been
    /// refreshed.
    pub(super) fn new(until: SharedClock, longest: Duration) -> Self {
        let kill_at = until.before(KILL_MARGIN.min(longest / KILL_DIVISOR));
        let grace = TERMINATE_TIMEOUT.min(longest / TERMINATE_DIVISOR);
        Self { terminate_at: kill_at.before(grace), kill_at }
    }
}

/// A reading of the clock that all processes of this machine share, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SharedClock(pub(super) u64);

impl SharedClock {
    pub(super) fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = ClockId::Monotonic;
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    pub(super) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    pub(super) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Sleeps until the clock has this reading.
    pub(super) async fn sleep_until(self) {
        loop {
            let left = self.since(Self::now());
            if left.is_zero() {
                return;
            }
            sleep(left.min(TICK)).await;
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before_end(validity: Duration) -> (Duration, Duration) {
        let until = SharedClock::now().after(validity);
        let Deadlines { terminate_at, kill_at } = Deadlines::new(until, validity);
        (until.since(terminate_at), until.since(kill_at))
    }

    #[test]
    fn command_gets_five_seconds_to_end_before_the_lock_does() {
        let millis = Duration::from_millis;
        assert_eq!(before_end(millis(60_000)), (millis(5_500), millis(500)));
        assert_eq!(
            before_end(millis(4_000)),
            (millis(1_080), millis(80)),
            "a short lease: a quarter"
        );
        assert_eq!(before_end(Duration::ZERO), (Duration::ZERO, Duration::ZERO));
    }

    #[tokio::test]
    async fn sleep_ends_at_the_reading_and_not_before() {
        let at = SharedClock::now().after(Duration::from_millis(20));
        at.sleep_until().await;
        assert!(SharedClock::now() >= at);
        at.sleep_until().await;
    }
}
