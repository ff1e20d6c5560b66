//! Whether the other end of a connection still lives (P12, B07).
//!
//! A ping leaves every interval whether or not anything else moves, and only a pong counts as life:
//! bytes that merely arrive do not show that ours arrive there.

use std::time::Duration;

use super::payload::{PingPayload, PongPayload};
use crate::limits::Limits;
use crate::time::{Instant, Timestamp};

/// ```text
///            interval: send            interval, missed < max: send
///   Quiet ──────────────────► Asked ◄────────┐
///     ▲                         │ ├──────────┘
///     └───────── pong ──────────┘ └── interval, missed = max ──► Dead
/// ```
#[derive(Debug)]
pub(super) struct Pinger {
    interval: Duration,
    missed_max: u32,
    next_at: Instant,
    /// Pings sent since the last pong.
    unanswered: u32,
    last_sent: Option<(Timestamp, Instant)>,
    round_trip: Option<Duration>,
}

/// What an interval that passed asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Send { payload: PingPayload, interval_ms: u32 },
    Dead { missed: u32 },
}

impl Pinger {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            interval: limits.ping_interval,
            missed_max: limits.pings_missed_max,
            next_at: now + limits.ping_interval,
            unanswered: 0,
            last_sent: None,
            round_trip: None,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Time from the last answered ping to its pong.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, wall: Timestamp) -> Due {
        if now < self.next_at {
            return Due::Nothing;
        }
        self.next_at = now + self.interval;
        if self.unanswered >= self.missed_max {
            return Due::Dead { missed: self.unanswered };
        }
        self.unanswered += 1;
        self.last_sent = Some((wall, now));
        let interval_ms = u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX);
        Due::Send { payload: PingPayload { t: wall }, interval_ms }
    }

    pub(super) fn handle_pong(&mut self, pong: &PongPayload, now: Instant) {
        self.unanswered = 0;
        if let Some((wall, sent_at)) = self.last_sent
            && wall == pong.t
        {
            self.round_trip = Some(now.since(sent_at));
            self.last_sent = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    fn wall(s: u64) -> Timestamp {
        Timestamp::new(1_000 + s as i64, 0)
    }

    #[test]
    fn b07_a_ping_leaves_every_ten_seconds_and_two_missed_are_death() {
        let mut pinger = Pinger::new(&Limits::default(), second(0));
        assert_eq!(pinger.handle_timeout(second(9), wall(9)), Due::Nothing);
        for at in [10, 20] {
            let due = pinger.handle_timeout(second(at), wall(at));
            assert_eq!(
                due,
                Due::Send { payload: PingPayload { t: wall(at) }, interval_ms: 10_000 }
            );
        }
        assert_eq!(pinger.handle_timeout(second(30), wall(30)), Due::Dead { missed: 2 });
    }

    #[test]
    fn b07_a_pong_is_life_and_tells_the_round_trip() {
        let mut pinger = Pinger::new(&Limits::default(), second(0));
        for round in 1..100 {
            let at = round * 10;
            assert!(matches!(pinger.handle_timeout(second(at), wall(at)), Due::Send { .. }));
            let pong = PongPayload { not_found: false, error: None, t: wall(at) };
            pinger.handle_pong(&pong, second(at + 1));
        }
        assert_eq!(pinger.round_trip(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_late_pong_does_not_tell_a_wrong_round_trip() {
        let mut pinger = Pinger::new(&Limits::default(), second(0));
        pinger.handle_timeout(second(10), wall(10));
        pinger.handle_timeout(second(20), wall(20));
        let late = PongPayload { not_found: false, error: None, t: wall(10) };
        pinger.handle_pong(&late, second(21));
        assert_eq!(pinger.round_trip(), None);
    }
}
