//! When each call of a connection ends by itself: one sorted queue, no timer per call.
//!
//! Nearly every call is over long before its deadline, so ending one does not search the queue. Its
//! entry stays behind until it is due or until more than half of the queue is such entries, and
//! then they are swept out together. Both cost a constant per call.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Instant;

/// Below this many entries a sweep is not worth its walk.
const SWEEP_MIN: usize = 64;

/// Deadlines of things named by `K`.
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord + Copy> Deadlines<K> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Adds a deadline. `live` is how many live entries there can be, and `is_live` whether one still is:
    /// they decide whether to sweep.
    pub(super) fn push(&mut self, at: Instant, key: K, live: usize, is_live: impl Fn(K) -> bool) {
        if self.heap.len() >= SWEEP_MIN && self.heap.len() > 2 * live {
            self.heap.retain(|Reverse((_, key))| is_live(*key));
        }
        self.heap.push(Reverse((at, key)));
    }

    /// The earliest entry. May be of something that is over: then waking for it finds nothing.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the earliest entry that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let Reverse((at, key)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(key)
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_in_order_of_time_when_due() {
        let mut deadlines = Deadlines::new();
        for (at, key) in [(30, 3), (10, 1), (20, 2)] {
            deadlines.push(Instant::from_nanos(at), key, 3, |_| true);
        }
        let mut due = |now| deadlines.pop_due(Instant::from_nanos(now));
        assert_eq!(due(9), None);
        assert_eq!(due(25), Some(1));
        assert_eq!(due(25), Some(2));
        assert_eq!(due(25), None);
        assert_eq!(due(30), Some(3));
    }

    #[test]
    fn entries_of_what_is_over_do_not_pile_up() {
        let mut deadlines = Deadlines::new();
        // One call at a time, each over before the next: only the newest is live.
        for key in 0..100_000_u64 {
            deadlines.push(Instant::from_nanos(key), key, 1, |k| k == key);
            assert!(deadlines.len() <= SWEEP_MIN + 1);
        }
    }
}
