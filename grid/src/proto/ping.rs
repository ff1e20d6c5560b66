//! Liveness of the other end of a connection ([P12], [B07]).
//!
//! A ping is sent every interval, with or without other traffic. Only a pong counts as a sign of
//! life: arriving bytes do not show that bytes sent from here arrive there.
//!
//! [B07]: crate::rules#b07
//! [P12]: crate::protocol#p12

use std::time::Duration;

use super::payload::{PingPayload, PongPayload};
use crate::limits::Limits;
use crate::time::{Instant, Timestamp};

/// Sends the pings of a connection and counts those without a pong.
///
/// ```text
///            interval: send            interval, missed < max: send
///   Idle ───────────────► AwaitingPong ◄──────┐
///     ▲                         │ ├───────────┘
///     └───────── pong ──────────┘ └── interval, missed = max ──► Dead
/// ```
#[derive(Debug)]
pub(super) struct Pinger {
    interval: Duration,
    missed_max: u32,
    next_at: Instant,
    /// Pings sent since the last pong.
    pings_without_pong: u32,
    last_sent: Option<(Timestamp, Instant)>,
    round_trip: Option<Duration>,
}

/// The action due at the end of an interval.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum PingAction {
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
            pings_without_pong: 0,
            last_sent: None,
            round_trip: None,
        }
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) has work to do.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Returns the time from the last ping with a matching pong to that pong.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, wall: Timestamp) -> PingAction {
        if now < self.next_at {
            return PingAction::Nothing;
        }
        self.next_at = now + self.interval;
        if self.pings_without_pong >= self.missed_max {
            return PingAction::Dead { missed: self.pings_without_pong };
        }
        self.pings_without_pong += 1;
        self.last_sent = Some((wall, now));
        let interval_ms = u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX);
        PingAction::Send { payload: PingPayload { t: wall }, interval_ms }
    }

    /// Checks what must hold between two operations.
    pub(super) fn check_invariants(&self) {
        let Self { pings_without_pong, missed_max, .. } = self;
        assert!(
            pings_without_pong <= missed_max,
            "pinger.pings_without_pong = {pings_without_pong} exceeds the limit of {missed_max}"
        );
    }

    pub(super) fn handle_pong(&mut self, pong: &PongPayload, now: Instant) {
        self.pings_without_pong = 0;
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
    fn b07_a_ping_is_sent_every_ten_seconds_and_two_missed_end_the_connection() {
        let mut pinger = Pinger::new(&Limits::default(), second(0));
        assert_eq!(pinger.handle_timeout(second(9), wall(9)), PingAction::Nothing);
        for at in [10, 20] {
            let action = pinger.handle_timeout(second(at), wall(at));
            assert_eq!(
                action,
                PingAction::Send { payload: PingPayload { t: wall(at) }, interval_ms: 10_000 }
            );
        }
        assert_eq!(pinger.handle_timeout(second(30), wall(30)), PingAction::Dead { missed: 2 });
    }

    #[test]
    fn b07_a_pong_resets_the_count_and_gives_the_round_trip() {
        let mut pinger = Pinger::new(&Limits::default(), second(0));
        for round in 1..100 {
            let at = round * 10;
            assert!(matches!(pinger.handle_timeout(second(at), wall(at)), PingAction::Send { .. }));
            let pong = PongPayload { not_found: false, error: None, t: wall(at) };
            pinger.handle_pong(&pong, second(at + 1));
        }
        assert_eq!(pinger.round_trip(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_late_pong_gives_no_round_trip() {
        let mut pinger = Pinger::new(&Limits::default(), second(0));
        let action = pinger.handle_timeout(second(10), wall(10));
        assert!(matches!(action, PingAction::Send { .. }));
        let action = pinger.handle_timeout(second(20), wall(20));
        assert!(matches!(action, PingAction::Send { .. }));
        let late = PongPayload { not_found: false, error: None, t: wall(10) };
        pinger.handle_pong(&late, second(21));
        assert_eq!(pinger.round_trip(), None);
    }
}
