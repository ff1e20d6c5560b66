//! How long the tool may consider its lock held, by its own clock.
//!
//! ```text
//!     ping sent            pong: "valid for V from now"
//!   ──────┼─────────────────────┼──────────────────────────────────► time
//!         ├─────── 0.99 V ───────────────────────┤ considered held until here
//!                               ├────────────── V ──────────────┤ held until here
//! ```
//!
//! The validity starts when the ping was *sent*, however long the pong took. One percent is
//! subtracted for clocks that run at different rates. Only a pong extends the validity. The command
//! must have ended when it ends: `deadlines` says how long before that it gets its signals.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::deadlines::Deadlines;

/// Maximum number of pings without a pong; further ones are not sent. They fit into the stream's
/// buffers, so that sending one never waits.
pub(super) const PINGS_MAX: usize = 8;

/// Percentage of a reported validity that is used: two clocks may differ in rate by the rest.
const VALID_PERCENT: u32 = 99;

/// The validity, and the outstanding pings.
#[derive(Debug, Default)]
pub(super) struct Validity {
    /// `None` before the first pong.
    until: Option<Instant>,
    /// The longest validity of any pong: about that of a lock that was just refreshed.
    longest: Duration,
    /// Number of the next ping.
    next: u64,
    /// Numbers and times of the pings without a pong, in order.
    sent: VecDeque<(u64, Instant)>,
}

impl Validity {
    /// Returns the number of a ping to send now; `None` if too many have no pong.
    #[must_use]
    pub(super) fn ping(&mut self, now: Instant) -> Option<u64> {
        if self.sent.len() >= PINGS_MAX {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.sent.push_back((number, now));
        Some(number)
    }

    /// Handles a pong. Pongs arrive in the order of their pings, so earlier pings get none. A pong
    /// that is not expected changes nothing.
    pub(super) fn handle_pong(&mut self, number: u64, valid_for: Duration) {
        while let Some((sent, at)) = self.sent.pop_front_if(|(sent, _)| *sent <= number) {
            if sent == number {
                // The latest pong wins, even if it shortens the validity.
                let validity = valid_for * VALID_PERCENT / 100;
                self.until = Some(at + validity);
                self.longest = self.longest.max(validity);
            }
        }
    }

    /// When the command must end; `None` if the lock was never confirmed.
    pub(super) fn deadlines(&self) -> Option<Deadlines> {
        // Pongs of a lock that is no longer refreshed report ever shorter validities. The command
        // has the same time to end nevertheless.
        self.until.map(|until| Deadlines::new(until, self.longest))
    }

    /// Whether a command may run now.
    pub(super) fn is_valid(&self, now: Instant) -> bool {
        self.deadlines().is_some_and(|deadlines| now < deadlines.terminate_at)
    }

    #[cfg(test)]
    fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lock_is_not_valid_before_the_first_pong() {
        let now = Instant::now();
        let mut validity = Validity::default();
        assert!(!validity.is_valid(now));
        assert_eq!(validity.ping(now), Some(0));
        assert!(!validity.is_valid(now), "a sent ping proves nothing");
        validity.handle_pong(1, 60 * SECOND);
        assert!(!validity.is_valid(now), "that ping was not sent");
    }

    #[test]
    fn validity_starts_at_the_ping_and_is_reduced_by_one_percent() {
        let sent = Instant::now();
        let mut validity = Validity::default();
        assert_eq!(validity.ping(sent), Some(0));
        validity.handle_pong(0, 50 * SECOND);
        let end = sent + Duration::from_millis(49_500);
        assert_eq!(validity.until(), Some(end));
        let terminate_at = validity.deadlines().expect("it is confirmed").terminate_at;
        assert_eq!(end - terminate_at, Duration::from_millis(5_500));
        assert!(validity.is_valid(terminate_at - Duration::from_nanos(1)));
        assert!(!validity.is_valid(terminate_at), "the end is exclusive");
    }

    #[test]
    fn pong_counts_for_its_own_ping_and_only_once() {
        let sent = Instant::now();
        let mut validity = Validity::default();
        for seconds in 0..3 {
            assert_eq!(validity.ping(sent + seconds * SECOND), Some(u64::from(seconds)));
        }
        validity.handle_pong(1, 100 * SECOND);
        assert_eq!(validity.until(), Some(sent + 100 * SECOND), "1 s + 99 s");
        for stale in [0, 1] {
            validity.handle_pong(stale, 1_000 * SECOND);
            assert_eq!(validity.until(), Some(sent + 100 * SECOND), "stale pong {stale}");
        }
        validity.handle_pong(2, Duration::ZERO);
        assert_eq!(validity.until(), Some(sent + 2 * SECOND), "a pong may shorten the validity");
    }

    #[test]
    fn command_has_the_same_time_to_end_when_the_validity_shrinks() {
        let now = Instant::now();
        let mut validity = Validity::default();
        for (number, seconds) in [(0, 60), (1, 30), (2, 6)] {
            assert_eq!(validity.ping(now), Some(number));
            validity.handle_pong(number, seconds * SECOND);
            let deadlines = validity.deadlines().expect("it is confirmed");
            assert_eq!(deadlines.kill_at - deadlines.terminate_at, 5 * SECOND, "{seconds} s");
        }
        assert!(validity.is_valid(now), "0.44 s are left");
        assert_eq!(validity.ping(now), Some(3));
        validity.handle_pong(3, 5 * SECOND);
        assert!(!validity.is_valid(now), "the time to end has begun");
    }

    #[test]
    fn pings_without_pongs_are_limited() {
        let now = Instant::now();
        let mut validity = Validity::default();
        let sent = std::iter::from_fn(|| validity.ping(now)).take(2 * PINGS_MAX).count();
        assert_eq!(sent, PINGS_MAX);
        validity.handle_pong(3, SECOND);
        let sent = std::iter::from_fn(|| validity.ping(now)).take(2 * PINGS_MAX).count();
        assert_eq!(sent, 4, "one for each pong or skipped ping");
    }
}
