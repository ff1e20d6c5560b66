//! Decides when a failed operation is retried, and whether the failure is logged.
//!
//! Pure: time and jitter are passed in. Waits grow from [`RETRY_FIRST`] to [`RETRY_MAX`], each
//! scaled by the jitter, so that servers which failed together do not retry together. A new cause
//! is logged at once, and then every [`LOG_INTERVAL`] ([B61]).
//!
//! [B61]: crate::rules#b61

use std::time::Duration;

use grid::time::Instant;

use crate::limits::{LOG_INTERVAL, RETRY_FIRST, RETRY_MAX};

/// Retry state of one operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryState {
    failures: u32,
    last_logged: Option<(Instant, String)>,
}

/// Reaction to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryDecision {
    /// Time until the next attempt.
    pub(crate) after: Duration,
    /// Whether to log the failure.
    pub(crate) should_log: bool,
}

impl RetryState {
    /// Records a failure with this cause. `jitter` is from 0 to 1.
    pub(crate) fn failed(&mut self, cause: &str, now: Instant, jitter: f64) -> RetryDecision {
        let doubled = RETRY_FIRST.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let scale = 0.5 + jitter.clamp(0.0, 1.0) / 2.0;
        let should_log = match &self.last_logged {
            None => true,
            Some((at, _)) if now.since(*at) >= LOG_INTERVAL => true,
            // Two causes that alternate are not logged on every attempt.
            Some((at, before)) => before != cause && now.since(*at) >= LOG_INTERVAL / 5,
        };
        if should_log {
            self.last_logged = Some((now, cause.to_owned()));
        }
        RetryDecision { after: doubled.min(RETRY_MAX).mul_f64(scale), should_log }
    }

    /// Returns the number of failures.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b61_retry_waits_grow_to_a_limit_and_are_jittered() {
        let mut retry = RetryState::default();
        let now = Instant::default();
        let waits: Vec<_> = (0..12).map(|_| retry.failed("offline", now, 1.0).after).collect();
        assert_eq!(waits[0], RETRY_FIRST);
        assert_eq!(waits[1], RETRY_FIRST * 2);
        assert_eq!(waits[11], RETRY_MAX);
        assert!(waits.is_sorted());
        assert_eq!(retry.failed("offline", now, 0.0).after, RETRY_MAX / 2);
        assert_eq!(retry.failures(), 13);
    }

    #[test]
    fn b61_cause_is_logged_at_once_and_then_at_intervals() {
        let mut retry = RetryState::default();
        let at = |millis| Instant::default() + Duration::from_millis(millis);
        let logged_at: Vec<u64> = (0..=120)
            .map(|tenth| tenth * 100)
            .filter(|millis| retry.failed("offline", at(*millis), 0.5).should_log)
            .collect();
        assert_eq!(logged_at, [0, 5_000, 10_000]);
        assert!(retry.failed("not initialised", at(12_000), 0.5).should_log, "new cause is logged");
        assert!(!retry.failed("offline", at(12_100), 0.5).should_log, "not on every attempt");
    }
}
