//! Decides when a failed operation is retried, and whether the failure is logged.
//!
//! Pure: time and randomness are passed in. Waits grow from [`RETRY_FIRST`] to [`RETRY_MAX`]. A new
//! cause is logged at once, and then every [`LOG_INTERVAL`] ([B61]).
//!
//! [B61]: crate::rules#b61

use std::time::Duration;

use grid::backoff::Backoff;
use grid::log_limit::{LogDecision, LogLimiter};
use grid::time::Instant;
use rand::Rng;

use crate::limits::{LOG_INTERVAL, RETRY_FIRST, RETRY_MAX};

/// Retry state of one operation.
#[derive(Debug, Clone)]
pub(crate) struct RetryState {
    failures: u32,
    backoff: Backoff,
    log: LogLimiter,
}

/// Reaction to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct RetryDecision {
    /// Time until the next attempt.
    pub(crate) after: Duration,
    /// Whether to log the failure.
    pub(crate) log: LogDecision,
}

impl RetryState {
    /// Creates the state of an operation that has not failed yet.
    pub(crate) fn new() -> Self {
        // Two causes that alternate are not logged on every attempt.
        let log = LogLimiter::new(LOG_INTERVAL).gap(LOG_INTERVAL / 5);
        Self { failures: 0, backoff: Backoff::new(RETRY_FIRST, RETRY_MAX), log }
    }

    /// Records a failure with this cause.
    pub(crate) fn failed(&mut self, cause: &str, now: Instant, rng: &mut dyn Rng) -> RetryDecision {
        self.failures = self.failures.saturating_add(1);
        RetryDecision { after: self.backoff.next_wait(rng), log: self.log.record(cause, now) }
    }

    /// Returns the number of failures.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn b61_retry_waits_grow_to_a_limit_and_are_jittered() {
        let (mut retry, mut rng) = (RetryState::new(), SmallRng::seed_from_u64(1));
        let mut ceiling = RETRY_FIRST;
        for failures in 1..=12 {
            let wait = retry.failed("offline", Instant::default(), &mut rng).after;
            assert!((ceiling / 2..=ceiling).contains(&wait), "{wait:?} of {ceiling:?}");
            assert_eq!(retry.failures(), failures);
            ceiling = (2 * ceiling).min(RETRY_MAX);
        }
        assert_eq!(ceiling, RETRY_MAX);
    }

    #[test]
    fn b61_cause_is_logged_at_once_and_then_at_intervals() {
        let (mut retry, mut rng) = (RetryState::new(), SmallRng::seed_from_u64(1));
        let mut is_logged = |cause, millis| {
            let at = Instant::default() + Duration::from_millis(millis);
            retry.failed(cause, at, &mut rng).log.is_log()
        };
        let tenths = (0..=120).map(|tenth| tenth * 100);
        let logged_at: Vec<u64> = tenths.filter(|millis| is_logged("offline", *millis)).collect();
        assert_eq!(logged_at, [0, 5_000, 10_000]);
        assert!(is_logged("not initialised", 12_000), "new cause is logged");
        assert!(!is_logged("offline", 12_100), "not on every attempt");
    }
}
