//! Limits repeated log events to one per key and period ([B04], [B41]).
//!
//! [B04]: crate::rules#b04
//! [B41]: crate::rules#b41

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::limits::{LOG_REPEAT_AFTER, LOG_SUBJECTS_MAX};
use crate::time::Instant;

/// Keeps the time of the last log event of each key.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    last: Mutex<FxHashMap<String, Instant>>,
}

impl LogThrottle {
    /// Returns whether to log an event of `key` now, and counts it as logged if so.
    pub(crate) fn allows(&self, key: &str, now: Instant) -> bool {
        self.allows_each(key, LOG_REPEAT_AFTER, now)
    }

    fn allows_each(&self, key: &str, period: Duration, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.get(key).is_some_and(|at| now.since(*at) < period) {
            return false;
        }
        if last.len() >= LOG_SUBJECTS_MAX && !last.contains_key(key) {
            return false;
        }
        last.insert(key.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b04_first_event_is_logged_and_then_one_per_hour_and_remote() {
        let throttle = LogThrottle::default();
        let second = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        assert!(throttle.allows("a", second(0)));
        assert!(throttle.allows("b", second(1)));
        assert!(!throttle.allows("a", second(3_599)));
        assert!(throttle.allows("a", second(3_600)));
        assert!(!throttle.allows("a", second(3_601)));
    }

    #[test]
    fn b41_number_of_keys_is_bounded() {
        let throttle = LogThrottle::default();
        let logged = (0..2 * LOG_SUBJECTS_MAX)
            .filter(|key| throttle.allows(&key.to_string(), Instant::default()))
            .count();
        assert_eq!(logged, LOG_SUBJECTS_MAX);
    }
}
