//! How long the tool may believe that its lock is held, by its own clock.
//!
//! ```text
//!     ping sent            answered: "certain for V from now"
//!   ──────┼─────────────────────┼──────────────────────────────────► time
//!         ├─────── 0.99 V ───────────────────────┤ believed until here
//!                               ├────────────── V ──────────────┤ true until here
//! ```
//!
//! Counted from when the ping was *sent*, whatever the way back took. The hundredth is for clocks that
//! run at different rates. Nothing that is not answered makes the belief last longer.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Pings without an answer at once. A server that answers none of these gets no more until it does:
/// they fit into the stream's buffers, so that sending one never waits.
pub(super) const PINGS_MAX: usize = 8;

/// What is believed of what the server says, in percent: two clocks may differ by as much in rate.
const BELIEVED_PERCENT: u32 = 99;

/// The belief, and the pings that may make it last longer.
#[derive(Debug, Default)]
pub(super) struct Certainty {
    /// `None` before the first answer.
    until: Option<Instant>,
    /// Of the next ping.
    next: u64,
    /// Numbers and times of the unanswered pings, in order.
    sent: VecDeque<(u64, Instant)>,
}

impl Certainty {
    /// The number of a ping that is sent now; `None` if too many have no answer.
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

    /// A ping was answered. Answers come in the order of their pings: those before it have none. One
    /// that nobody waits for changes nothing.
    pub(super) fn answered(&mut self, number: u64, valid_for: Duration) {
        while let Some((sent, at)) = self.sent.pop_front_if(|(sent, _)| *sent <= number) {
            if sent == number {
                // The newest word counts, also when it is that less time is left.
                self.until = Some(at + valid_for * BELIEVED_PERCENT / 100);
            }
        }
    }

    /// Until when the lock is certain; `None` if it never was.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the lock is certain now.
    pub(super) fn is_certain(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_certain_before_an_answer() {
        let now = Instant::now();
        let mut certainty = Certainty::default();
        assert!(!certainty.is_certain(now));
        assert_eq!(certainty.ping(now), Some(0));
        assert!(!certainty.is_certain(now), "sent is not answered");
        certainty.answered(1, 60 * SECOND);
        assert!(!certainty.is_certain(now), "nobody has sent that ping");
    }

    #[test]
    fn certainty_counts_from_when_the_ping_was_sent_less_a_hundredth() {
        let sent = Instant::now();
        let mut certainty = Certainty::default();
        assert_eq!(certainty.ping(sent), Some(0));
        certainty.answered(0, 50 * SECOND);
        let end = sent + Duration::from_millis(49_500);
        assert_eq!(certainty.until(), Some(end));
        assert!(certainty.is_certain(end - Duration::from_nanos(1)));
        assert!(!certainty.is_certain(end), "the end is not within");
    }

    #[test]
    fn an_answer_counts_for_its_own_ping_and_only_once() {
        let sent = Instant::now();
        let mut certainty = Certainty::default();
        for seconds in 0..3 {
            assert_eq!(certainty.ping(sent + seconds * SECOND), Some(u64::from(seconds)));
        }
        certainty.answered(1, 100 * SECOND);
        assert_eq!(certainty.until(), Some(sent + 100 * SECOND), "1 s + 99 s");
        for stale in [0, 1] {
            certainty.answered(stale, 1_000 * SECOND);
            assert_eq!(certainty.until(), Some(sent + 100 * SECOND), "ping {stale} is over");
        }
        certainty.answered(2, Duration::ZERO);
        assert_eq!(certainty.until(), Some(sent + 2 * SECOND), "less time is news too");
    }

    #[test]
    fn a_silent_server_is_pinged_a_few_times_and_again_when_it_speaks() {
        let now = Instant::now();
        let mut certainty = Certainty::default();
        let sent = std::iter::from_fn(|| certainty.ping(now)).take(2 * PINGS_MAX).count();
        assert_eq!(sent, PINGS_MAX);
        certainty.answered(3, SECOND);
        let sent = std::iter::from_fn(|| certainty.ping(now)).take(2 * PINGS_MAX).count();
        assert_eq!(sent, 4, "as many as were answered");
    }
}
