//! Limits repeated log events: one per key and period, and a count of those in between ([B41]).
//!
//! Pure: time is passed in. What a key is, its owner decides: a server, a kind of problem, the text
//! of a cause.
//!
//! [B41]: crate::rules#b41

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::limits::LOG_SUBJECTS_MAX;
use crate::time::Instant;

/// Decides which events of a repeated kind are logged. The number of keys is bounded by
/// [`LOG_SUBJECTS_MAX`].
#[derive(Debug, Clone)]
pub struct LogLimiter {
    period: Duration,
    /// Minimum time between two events of any key.
    gap: Duration,
    last_of_any: Option<Instant>,
    last: FxHashMap<String, Logged>,
}

#[derive(Debug, Clone, Copy)]
struct Logged {
    at: Instant,
    suppressed: u64,
}

/// Whether to log an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum LogDecision {
    /// It is to be logged.
    Log {
        /// Number of events of its key since the last one that was logged.
        suppressed: u64,
    },
    /// It is not to be logged.
    Suppress,
}

impl LogDecision {
    /// Returns whether the event is to be logged.
    #[must_use]
    pub fn is_log(self) -> bool {
        matches!(self, Self::Log { .. })
    }
}

impl LogLimiter {
    /// Creates a limiter that lets one event per key and `period` pass.
    pub fn new(period: Duration) -> Self {
        Self { period, gap: Duration::ZERO, last_of_any: None, last: FxHashMap::default() }
    }

    /// Sets the minimum time between two logged events of any key. For keys that an event decides,
    /// such as the text of a cause: causes that alternate are then not logged each time.
    #[must_use]
    pub fn gap(mut self, gap: Duration) -> Self {
        self.gap = gap;
        self
    }

    /// Records an event of `key`, and decides whether it is to be logged.
    pub fn record(&mut self, key: &str, now: Instant) -> LogDecision {
        let is_early = self.last_of_any.is_some_and(|at| now.since(at) < self.gap);
        if let Some(logged) = self.last.get_mut(key) {
            if is_early || now.since(logged.at) < self.period {
                logged.suppressed = logged.suppressed.saturating_add(1);
                return LogDecision::Suppress;
            }
            let suppressed = std::mem::take(&mut logged.suppressed);
            logged.at = now;
            self.last_of_any = Some(now);
            return LogDecision::Log { suppressed };
        }
        if is_early || !self.has_room(now) {
            return LogDecision::Suppress;
        }
        self.last.insert(key.to_owned(), Logged { at: now, suppressed: 0 });
        self.last_of_any = Some(now);
        LogDecision::Log { suppressed: 0 }
    }

    /// Makes room for another key by forgetting those whose period is over.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.last.len() >= LOG_SUBJECTS_MAX {
            let period = self.period;
            self.last.retain(|_, logged| now.since(logged.at) < period);
        }
        self.last.len() < LOG_SUBJECTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn second(second: u64) -> Instant {
        Instant::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn b04_first_event_is_logged_and_then_one_per_period_and_key() {
        let mut limiter = LogLimiter::new(HOUR);
        assert_eq!(limiter.record("a", second(0)), LogDecision::Log { suppressed: 0 });
        assert!(limiter.record("b", second(1)).is_log());
        assert_eq!(limiter.record("a", second(3_599)), LogDecision::Suppress);
        assert_eq!(limiter.record("a", second(3_600)), LogDecision::Log { suppressed: 1 });
        assert_eq!(limiter.record("a", second(3_601)), LogDecision::Suppress);
    }

    #[test]
    fn b41_number_of_keys_is_bounded_and_old_ones_make_room() {
        let mut limiter = LogLimiter::new(HOUR);
        let mut logged_at = |at| {
            let keys = 0..2 * LOG_SUBJECTS_MAX;
            keys.filter(|key| limiter.record(&format!("{at:?} {key}"), at).is_log()).count()
        };
        assert_eq!(logged_at(second(0)), LOG_SUBJECTS_MAX);
        assert_eq!(logged_at(second(1)), 0);
        assert_eq!(logged_at(second(3_600)), LOG_SUBJECTS_MAX);
    }

    #[test]
    fn b61_alternating_keys_are_logged_once_per_gap() {
        let mut limiter = LogLimiter::new(Duration::from_secs(5)).gap(Duration::from_secs(1));
        let logged_at: Vec<u64> = (0..=100)
            .filter(|tenth| {
                let key = if tenth % 2 == 0 { "offline" } else { "slow" };
                limiter.record(key, Instant::from_nanos(tenth * 100_000_000)).is_log()
            })
            .collect();
        assert_eq!(logged_at, [0, 11, 50, 61, 100]);
    }
}
