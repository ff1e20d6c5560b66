//! End of a lock's validity, written by its driver and read by its guard, without a mutex.
//!
//! ```text
//!   never held ── publish ──► valid until t ── publish ──► until t' …
//!                                    │
//!                                    │ revoke, or a reader saw that t has passed
//!                                    ▼
//!                                  ended: forever
//! ```
//!
//! A holder that has once seen its lock lost must never see it held again, even if a refresh that
//! was confirmed in time is processed later: the first reader that sees the end makes it final.

use std::sync::atomic::{AtomicU64, Ordering};

use grid::time::Instant;

const NEVER_HELD: u64 = 0;
const ENDED: u64 = 1;

/// Shared end of validity. The first two nanoseconds of a clock are used as markers.
#[derive(Debug, Default)]
pub(crate) struct Validity(AtomicU64);

/// Whether a validity could be extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Published {
    Extended,
    /// A holder has seen the end: it is final.
    HasEnded,
}

impl Validity {
    /// Extends the validity until `until`, unless it has ended.
    pub(crate) fn publish(&self, until: Instant) -> Published {
        let until = until.as_nanos().max(ENDED + 1);
        let publish = |seen| (seen != ENDED).then_some(until);
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, publish) {
            Ok(_) => Published::Extended,
            Err(_) => Published::HasEnded,
        }
    }

    /// Ends the validity.
    pub(crate) fn revoke(&self) {
        self.0.store(ENDED, Ordering::Release);
    }

    /// Returns whether it is valid at `now`. Once a holder has seen false, it stays false.
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        let end = |until| (until != NEVER_HELD && until <= now.as_nanos()).then_some(ENDED);
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, end) {
            Ok(_) => false,
            Err(until) => until != NEVER_HELD,
        }
    }

    /// Returns the end of the validity; the clock's zero if it is not held.
    pub(crate) fn until(&self) -> Instant {
        match self.0.load(Ordering::Acquire) {
            NEVER_HELD | ENDED => Instant::default(),
            until => Instant::from_nanos(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn b52_an_end_that_was_seen_is_final() {
        let validity = Validity::default();
        assert!(!validity.is_valid(at(5)), "not yet");
        assert_eq!(validity.publish(at(10)), Published::Extended);
        assert!(validity.is_valid(at(9)));
        assert_eq!(
            validity.publish(at(20)),
            Published::Extended,
            "extendable while no reader saw the end"
        );
        assert!(validity.is_valid(at(15)));
        assert!(!validity.is_valid(at(20)));
        assert_eq!(validity.publish(at(30)), Published::HasEnded, "a reader saw the end");
        assert!(!validity.is_valid(at(15)) && validity.until() == Instant::default());
    }

    #[test]
    fn revoking_ends_the_validity_at_once() {
        let validity = Validity::default();
        assert_eq!(validity.publish(at(10)), Published::Extended);
        validity.revoke();
        assert!(!validity.is_valid(at(2)));
        assert_eq!(validity.publish(at(50)), Published::HasEnded);
    }
}
