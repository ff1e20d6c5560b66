//! When a structure checks its invariants: seldom enough for the checks to cost no more than the
//! operations.

#[cfg(debug_assertions)]
use std::sync::Arc;
#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Largest structure that is checked after each operation.
#[cfg(debug_assertions)]
const SMALL_MAX: usize = 64;

/// Counts the operations on a structure, and decides when all of it is checked: a small one after
/// each operation, a large one once per as many operations as it has items. Never without debug
/// assertions: it then has no size.
///
/// Clones share the count, for structures that are derived from one another.
#[derive(Debug, Clone, Default)]
pub struct CheckSchedule {
    // Not loom's: a count that decides nothing but when to check is no part of the model.
    #[cfg(debug_assertions)]
    operations: Arc<AtomicUsize>,
}

#[cfg(debug_assertions)]
impl CheckSchedule {
    /// Records an operation.
    pub fn record(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether a structure with so many items is to be checked now.
    #[must_use]
    pub fn is_due(&self, items: usize) -> bool {
        let is_early = items > SMALL_MAX && self.operations.load(Ordering::Relaxed) < items;
        if is_early || std::thread::panicking() {
            return false;
        }
        self.operations.store(0, Ordering::Relaxed);
        true
    }
}

#[cfg(not(debug_assertions))]
impl CheckSchedule {
    /// Records an operation.
    pub fn record(&self) {}

    /// Returns whether a structure with so many items is to be checked now.
    #[must_use]
    pub fn is_due(&self, _items: usize) -> bool {
        false
    }
}

impl CheckSchedule {
    /// Records an operation, and returns whether a structure with so many items is to be checked
    /// after it.
    #[must_use]
    pub fn is_due_after_operation(&self, items: usize) -> bool {
        self.record();
        self.is_due(items)
    }
}

#[cfg(debug_assertions)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_structure_is_checked_each_time_and_a_large_one_once_per_as_many_operations() {
        let schedule = CheckSchedule::default();
        let due = |items| (0..1_000).filter(|_| schedule.is_due_after_operation(items)).count();
        assert_eq!([due(0), due(SMALL_MAX), due(100), due(500)], [1_000, 1_000, 10, 2]);
    }

    #[test]
    fn nothing_is_checked_while_the_thread_unwinds() {
        struct Checked(CheckSchedule);

        impl Drop for Checked {
            fn drop(&mut self) {
                assert!(!self.0.is_due_after_operation(1), "a second panic would abort");
            }
        }

        let panics = std::panic::catch_unwind(|| {
            let _checked = Checked(CheckSchedule::default());
            panic!("the first panic");
        });
        let payload = panics.expect_err("it panics");
        assert_eq!(payload.downcast_ref(), Some(&"the first panic"));
    }
}
