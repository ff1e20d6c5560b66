//! Until when a lock is certain, as its driver writes it and its holder reads it, without a lock.
//!
//! ```text
//!   never held ── publish ──► certain until t ── publish ──► until t' …
//!                                    │
//!                                    │ revoke, or somebody saw that t has passed
//!                                    ▼
//!                                   over: for ever
//! ```
//!
//! A holder that has once seen its lock gone must never see it back, though a refresh that was
//! confirmed in time is taken in after that: whoever sees the end makes it final.

use std::sync::atomic::{AtomicU64, Ordering};

use grid::time::Instant;

const NEVER_HELD: u64 = 0;
const OVER: u64 = 1;

/// See the module. The first two nanoseconds of a clock are not told apart from other states.
#[derive(Debug, Default)]
pub(crate) struct Validity(AtomicU64);

impl Validity {
    /// The lock is certain until `until`. Returns whether it is not over.
    pub(crate) fn publish(&self, until: Instant) -> bool {
        let until = until.as_nanos().max(OVER + 1);
        let publish = |seen| (seen != OVER).then_some(until);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, publish).is_ok()
    }

    /// The lock is over.
    pub(crate) fn revoke(&self) {
        self.0.store(OVER, Ordering::Release);
    }

    /// Whether it is certain at `now`. Once this has said no to who held it, it does for ever.
    pub(crate) fn is_certain(&self, now: Instant) -> bool {
        let end = |until| (until != NEVER_HELD && until <= now.as_nanos()).then_some(OVER);
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, end) {
            Ok(_) => false,
            Err(until) => until != NEVER_HELD,
        }
    }

    /// Until when; the clock's beginning if it is not held.
    pub(crate) fn until(&self) -> Instant {
        match self.0.load(Ordering::Acquire) {
            NEVER_HELD | OVER => Instant::default(),
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
    fn b52_what_was_seen_to_be_over_does_not_come_back() {
        let validity = Validity::default();
        assert!(!validity.is_certain(at(5)), "not yet");
        assert!(validity.publish(at(10)));
        assert!(validity.is_certain(at(9)));
        assert!(validity.publish(at(20)), "it can be extended while nobody saw it end");
        assert!(validity.is_certain(at(15)));
        assert!(!validity.is_certain(at(20)));
        assert!(!validity.publish(at(30)), "somebody saw it end");
        assert!(!validity.is_certain(at(15)) && validity.until() == Instant::default());
    }

    #[test]
    fn what_is_revoked_is_over_at_once() {
        let validity = Validity::default();
        validity.publish(at(10));
        validity.revoke();
        assert!(!validity.is_certain(at(2)) && !validity.publish(at(50)));
    }
}
