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
//!
//! The clock also advances while this machine is suspended: a pong that was received before, and is
//! read after, counts from its ping. No pong extends a validity whose deadline has passed, because
//! the watchdog may have ended the command.

use std::collections::VecDeque;
use std::time::Duration;

use super::deadlines::{Deadlines, SharedClock};

/// Maximum number of pings without a pong; further ones are not sent. They fit into the stream's
/// buffers, so that sending one never waits.
pub(super) const PINGS_MAX: usize = 8;

/// Percentage of a reported validity that is used: two clocks may differ in rate by the rest.
const VALID_PERCENT: u32 = 99;

/// The validity, and the outstanding pings.
#[derive(Debug, Default)]
pub(super) struct Validity {
    /// `None` before the first pong.
    until: Option<SharedClock>,
    /// The longest validity of any pong: about that of a lock that was just refreshed.
    longest: Duration,
    /// Number of the next ping.
    next: u64,
    /// Numbers and times of the pings without a pong, in order.
    sent: VecDeque<(u64, SharedClock)>,
}

impl Validity {
    /// Returns the number of a ping to send now; `None` if too many have no pong.
    #[must_use]
    pub(super) fn ping(&mut self, now: SharedClock) -> Option<u64> {
        if self.sent.len() >= PINGS_MAX {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.sent.push_back((number, now));
        Some(number)
    }

    /// Handles a pong. Pongs arrive in the order of their pings, so earlier pings get none. A pong
    /// that is not expected changes nothing, nor does one that is handled too late.
    pub(super) fn handle_pong(&mut self, number: u64, valid_for: Duration, now: SharedClock) {
        if self.until.is_some() && !self.is_valid(now) {
            return;
        }
        while let Some((sent, at)) = self.sent.pop_front_if(|(sent, _)| *sent <= number) {
            if sent == number {
                // The latest pong wins, even if it shortens the validity.
                let validity = valid_for * VALID_PERCENT / 100;
                self.until = Some(at.after(validity));
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
    pub(super) fn is_valid(&self, now: SharedClock) -> bool {
        self.deadlines().is_some_and(|deadlines| now < deadlines.terminate_at)
    }

    #[cfg(test)]
    fn until(&self) -> Option<SharedClock> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lock_is_not_valid_before_the_first_pong() {
        let now = SharedClock::now();
        let mut validity = Validity::default();
        assert!(!validity.is_valid(now));
        assert_eq!(validity.ping(now), Some(0));
        assert!(!validity.is_valid(now), "a sent ping proves nothing");
        validity.handle_pong(1, 60 * SECOND, now);
        assert!(!validity.is_valid(now), "that ping was not sent");
    }

    #[test]
    fn validity_starts_at_the_ping_and_is_reduced_by_one_percent() {
        let sent = SharedClock::now();
        let mut validity = Validity::default();
        assert_eq!(validity.ping(sent), Some(0));
        validity.handle_pong(0, 50 * SECOND, sent.after(SECOND));
        let end = sent.after(Duration::from_millis(49_500));
        assert_eq!(validity.until(), Some(end));
        let terminate_at = validity.deadlines().expect("it is confirmed").terminate_at;
        assert_eq!(end.since(terminate_at), Duration::from_millis(5_500));
        assert!(validity.is_valid(terminate_at.before(Duration::from_nanos(1))));
        assert!(!validity.is_valid(terminate_at), "the end is exclusive");
    }

    #[test]
    fn pong_counts_for_its_own_ping_and_only_once() {
        let sent = SharedClock::now();
        let mut validity = Validity::default();
        for seconds in 0..3 {
            assert_eq!(validity.ping(sent.after(seconds * SECOND)), Some(u64::from(seconds)));
        }
        let now = sent.after(3 * SECOND);
        validity.handle_pong(1, 100 * SECOND, now);
        let end = Some(sent.after(100 * SECOND));
        assert_eq!(validity.until(), end, "1 s + 99 s");
        for stale in [0, 1] {
            validity.handle_pong(stale, 1_000 * SECOND, now);
            assert_eq!(validity.until(), end, "stale pong {stale}");
        }
        validity.handle_pong(2, Duration::ZERO, now);
        let end = Some(sent.after(2 * SECOND));
        assert_eq!(validity.until(), end, "a pong may shorten the validity");
    }

    #[test]
    fn pong_that_is_read_after_a_suspend_counts_from_its_ping() {
        let sent = SharedClock::now();
        let mut validity = Validity::default();
        assert_eq!((validity.ping(sent), validity.ping(sent.after(SECOND))), (Some(0), Some(1)));
        // The machine is suspended after the server has sent the first pong, for 50 s.
        let resumed = sent.after(51 * SECOND);
        validity.handle_pong(0, 60 * SECOND, resumed);
        assert_eq!(validity.until(), Some(sent.after(Duration::from_millis(59_400))));
        assert!(validity.is_valid(resumed), "it has 8.4 s left");
        // It is suspended again, until long after the server has released the lock.
        let resumed = sent.after(600 * SECOND);
        assert!(!validity.is_valid(resumed));
        validity.handle_pong(1, 60 * SECOND, resumed);
        assert!(!validity.is_valid(resumed));
    }

    #[test]
    fn deadline_that_has_passed_is_final() {
        let sent = SharedClock::now();
        let mut validity = Validity::default();
        assert_eq!(validity.ping(sent), Some(0));
        validity.handle_pong(0, 60 * SECOND, sent);
        let deadlines = validity.deadlines().expect("it is confirmed");
        let before = deadlines.terminate_at.before(SECOND);
        assert_eq!(validity.ping(before), Some(1));
        validity.handle_pong(1, 60 * SECOND, deadlines.terminate_at);
        assert_eq!(
            validity.deadlines(),
            Some(deadlines),
            "the watchdog may have ended the command"
        );
    }

    #[test]
    fn command_has_the_same_time_to_end_when_the_validity_shrinks() {
        let now = SharedClock::now();
        let mut validity = Validity::default();
        for (number, seconds) in [(0, 60), (1, 30), (2, 6)] {
            assert_eq!(validity.ping(now), Some(number));
            validity.handle_pong(number, seconds * SECOND, now);
            let deadlines = validity.deadlines().expect("it is confirmed");
            let grace = deadlines.kill_at.since(deadlines.terminate_at);
            assert_eq!(grace, 5 * SECOND, "{seconds} s");
        }
        assert!(validity.is_valid(now), "0.44 s are left");
        assert_eq!(validity.ping(now), Some(3));
        validity.handle_pong(3, 5 * SECOND, now);
        assert!(!validity.is_valid(now), "the time to end has begun");
    }

    #[test]
    fn pings_without_pongs_are_limited() {
        let now = SharedClock::now();
        let mut validity = Validity::default();
        let sent = std::iter::from_fn(|| validity.ping(now)).take(2 * PINGS_MAX).count();
        assert_eq!(sent, PINGS_MAX);
        validity.handle_pong(3, SECOND, now);
        let sent = std::iter::from_fn(|| validity.ping(now)).take(2 * PINGS_MAX).count();
        assert_eq!(sent, 4, "one for each pong or skipped ping");
    }
}
