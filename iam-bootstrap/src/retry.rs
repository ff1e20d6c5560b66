//! When something that failed is tried again, and when it is worth a line in the log.
//!
//! Pure: time and chance are handed in. Waits grow from [`RETRY_FIRST`] to [`RETRY_MAX`], each scaled by
//! chance, so that servers which failed together do not come back together. A cause is told at once
//! when it is new, and then every [`TELL_EVERY`] (B61).

use std::time::Duration;

use grid::time::Instant;

use crate::limits::{RETRY_FIRST, RETRY_MAX, TELL_EVERY};

/// The tries of one thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retry {
    failures: u32,
    told: Option<(Instant, String)>,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Again {
    /// How long to wait.
    pub(crate) after: Duration,
    /// Whether to log it.
    pub(crate) tell: bool,
}

impl Retry {
    /// It failed for this reason. `chance` is from 0 to 1.
    pub(crate) fn failed(&mut self, cause: &str, now: Instant, chance: f64) -> Again {
        let doubled = RETRY_FIRST.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let scale = 0.5 + chance.clamp(0.0, 1.0) / 2.0;
        let tell = match &self.told {
            None => true,
            Some((at, _)) if now.since(*at) >= TELL_EVERY => true,
            // Two causes that alternate are not told at each turn.
            Some((at, before)) => before != cause && now.since(*at) >= TELL_EVERY / 5,
        };
        if tell {
            self.told = Some((now, cause.to_owned()));
        }
        Again { after: doubled.min(RETRY_MAX).mul_f64(scale), tell }
    }

    /// How often it has failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b61_waits_grow_to_a_limit_and_are_scaled_by_chance() {
        let mut retry = Retry::default();
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
    fn b61_a_cause_is_told_at_once_and_then_every_few_seconds() {
        let mut retry = Retry::default();
        let at = |millis| Instant::default() + Duration::from_millis(millis);
        let told: Vec<u64> = (0..=120)
            .map(|tenth| tenth * 100)
            .filter(|millis| retry.failed("offline", at(*millis), 0.5).tell)
            .collect();
        assert_eq!(told, [0, 5_000, 10_000]);
        assert!(retry.failed("not initialised", at(12_000), 0.5).tell, "another cause is news");
        assert!(!retry.failed("offline", at(12_100), 0.5).tell, "not at each turn");
    }
}
