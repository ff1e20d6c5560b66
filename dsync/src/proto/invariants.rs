//! When a machine checks its invariants: after each change while it is small, and then so often
//! that the cost of a change does not depend on its size.

/// Items up to which each change is followed by a walk over all of them.
const SMALL: usize = 64;

/// Schedule of one machine's walks.
#[derive(Debug, Default)]
pub(super) struct CheckSchedule {
    changes: usize,
}

/// Whether to check now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Check {
    Due,
    Deferred,
}

impl CheckSchedule {
    /// Counts a change of a machine that has `items`. One walk is due per as many changes.
    pub(super) fn record_change(&mut self, items: usize) -> Check {
        if !cfg!(debug_assertions) {
            return Check::Deferred;
        }
        self.changes += 1;
        if items > SMALL && self.changes < items {
            return Check::Deferred;
        }
        self.changes = 0;
        Check::Due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_is_checked_each_time_and_a_large_one_once_per_as_many_changes() {
        let mut schedule = CheckSchedule::default();
        let mut due =
            |items| (0..1_000).filter(|_| schedule.record_change(items) == Check::Due).count();
        assert_eq!(due(SMALL), 1_000);
        assert_eq!((due(100), due(500)), (10, 2));
    }
}
