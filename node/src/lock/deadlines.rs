//! When a command must end so that it does not overlap with the next holder of the lock.
//!
//! ```text
//!                    terminate_at         kill_at   until
//!   ─────────┼────────────┼──────────────────┼────────┼──────────► time
//!   confirmed│            │ SIGTERM          │ SIGKILL│ the server may grant the lock to another
//! ```
//!
//! The watchdog is another process, and gets both deadlines as readings of a clock that all
//! processes of a machine share. On Linux this clock also advances while the machine is suspended.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

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
    pub(super) terminate_at: Instant,
    pub(super) kill_at: Instant,
}

impl Deadlines {
    /// Returns the deadlines for a lock that is valid until then, and `longest` when it has just been
    /// refreshed.
    pub(super) fn new(until: Instant, longest: Duration) -> Self {
        let kill_at = earlier(until, KILL_MARGIN.min(longest / KILL_DIVISOR));
        let grace = TERMINATE_TIMEOUT.min(longest / TERMINATE_DIVISOR);
        Self { terminate_at: earlier(kill_at, grace), kill_at }
    }

    /// Returns the deadlines on the clock that all processes share.
    pub(super) fn shared(self) -> SharedDeadlines {
        // Read first: if this process is stopped in between, the deadlines are early, not late.
        let clock = SharedClock::now();
        let now = Instant::now();
        let shared = |at: Instant| clock.after(at.saturating_duration_since(now));
        SharedDeadlines { terminate_at: shared(self.terminate_at), kill_at: shared(self.kill_at) }
    }
}

fn earlier(at: Instant, by: Duration) -> Instant {
    at.checked_sub(by).unwrap_or(at)
}

/// [`Deadlines`] for another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SharedDeadlines {
    pub(super) terminate_at: SharedClock,
    pub(super) kill_at: SharedClock,
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
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before_end(validity: Duration) -> (Duration, Duration) {
        let until = Instant::now() + validity;
        let Deadlines { terminate_at, kill_at } = Deadlines::new(until, validity);
        (until - terminate_at, until - kill_at)
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

    #[tokio::test(start_paused = true)]
    async fn shared_deadlines_are_never_later() {
        let deadlines =
            Deadlines::new(Instant::now() + Duration::from_secs(60), Duration::from_secs(60));
        let shared = deadlines.shared();
        let (terminate, kill) = (Duration::from_millis(54_500), Duration::from_millis(59_500));
        assert!(shared.terminate_at <= SharedClock::now().after(terminate));
        assert!(shared.kill_at <= SharedClock::now().after(kill));
        assert_eq!(shared.kill_at.since(shared.terminate_at), Duration::from_secs(5));
        assert_eq!(shared.terminate_at.since(shared.kill_at), Duration::ZERO);
    }
}
