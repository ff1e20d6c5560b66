//! Says the same thing about the same remote once a period, not once an attempt (B04, B41).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::limits::{LOG_REPEAT_AFTER, LOG_SUBJECTS_MAX};
use crate::time::Instant;

/// Remembers what was logged, and when.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    last: Mutex<FxHashMap<String, Instant>>,
}

impl LogThrottle {
    /// Whether to log something about `subject` now. Asking counts as logging.
    pub(crate) fn allows(&self, subject: &str, now: Instant) -> bool {
        self.allows_each(subject, LOG_REPEAT_AFTER, now)
    }

    fn allows_each(&self, subject: &str, period: Duration, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.get(subject).is_some_and(|at| now.since(*at) < period) {
            return false;
        }
        if last.len() >= LOG_SUBJECTS_MAX && !last.contains_key(subject) {
            return false;
        }
        last.insert(subject.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b04_the_first_is_logged_and_then_one_an_hour_and_remote() {
        let filter = LogThrottle::default();
        let second = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        assert!(filter.allows("a", second(0)));
        assert!(filter.allows("b", second(1)));
        assert!(!filter.allows("a", second(3_599)));
        assert!(filter.allows("a", second(3_600)));
        assert!(!filter.allows("a", second(3_601)));
    }

    #[test]
    fn its_memory_is_bounded() {
        let filter = LogThrottle::default();
        let logged = (0..2 * LOG_SUBJECTS_MAX)
            .filter(|subject| filter.allows(&subject.to_string(), Instant::default()))
            .count();
        assert_eq!(logged, LOG_SUBJECTS_MAX);
    }
}
