//! When a structure is checked as a whole: seldom enough for the checks to cost no more than the
//! operations.

#[cfg(debug_assertions)]
use std::sync::Arc;
#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Largest structure that is checked after each operation.
#[cfg(debug_assertions)]
const SMALL_MAX: usize = 64;

/// Counts the operations on a structure, and decides when all of it is checked: a small one after
/// each operation, a large one once per as many operations as it has items. Never in a release
/// build, where it has no size.
///
/// Clones share the count: the snapshots that are derived from one another are one structure.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckSchedule {
    #[cfg(debug_assertions)]
    operations: Arc<AtomicUsize>,
}

#[cfg(debug_assertions)]
impl CheckSchedule {
    /// Records an operation.
    pub(crate) fn record(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether a structure with so many items is to be checked now.
    #[must_use]
    pub(crate) fn is_due(&self, items: usize) -> bool {
        if items > SMALL_MAX && self.operations.load(Ordering::Relaxed) < items {
            return false;
        }
        self.operations.store(0, Ordering::Relaxed);
        true
    }
}

#[cfg(not(debug_assertions))]
impl CheckSchedule {
    pub(crate) fn record(&self) {}

    #[must_use]
    pub(crate) fn is_due(&self, _items: usize) -> bool {
        false
    }
}

#[cfg(debug_assertions)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_structure_is_checked_each_time_and_a_large_one_once_per_walk() {
        let schedule = CheckSchedule::default();
        let due = |items: usize| {
            let checked = (0..1_000).filter(|_| {
                schedule.record();
                schedule.is_due(items)
            });
            checked.count()
        };
        assert_eq!([due(0), due(SMALL_MAX), due(100), due(1_000)], [1_000, 1_000, 10, 1]);
    }
}
