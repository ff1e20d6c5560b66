//! Timers of a connection: one priority queue instead of one timer per call.
//!
//! Nearly every call ends long before its deadline, so ending one does not search the queue. Its
//! entry stays behind until it expires or until more than half of the queue is stale, and then all
//! stale entries are removed together. Both cost a constant per call.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Instant;

/// Number of entries below which a sweep is not worth its cost.
pub(super) const SWEEP_MIN: usize = 64;

/// Deadlines with keys `K`, ordered by time.
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord + Copy> Deadlines<K> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Adds a deadline. `live` is an upper bound of the live entries, and `is_live` tests one key:
    /// they decide when to sweep and what to keep.
    pub(super) fn push(&mut self, at: Instant, key: K, live: usize, is_live: impl Fn(K) -> bool) {
        if self.heap.len() >= SWEEP_MIN && self.heap.len() > 2 * live {
            self.heap.retain(|Reverse((_, key))| is_live(*key));
        }
        self.heap.push(Reverse((at, key)));
    }

    /// Returns the time of the earliest entry. It may be stale: a wake-up for it then finds no
    /// work.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes and returns the earliest entry if it has expired at `now`.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<K> {
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

    /// Returns all entries, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Instant, K)> {
        self.heap.iter().map(|Reverse(entry)| *entry)
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire_in_order_of_time() {
        let mut deadlines = Deadlines::new();
        for (at, key) in [(30, 3), (10, 1), (20, 2)] {
            deadlines.push(Instant::from_nanos(at), key, 3, |_| true);
        }
        let mut expired = |now| deadlines.pop_expired(Instant::from_nanos(now));
        assert_eq!(expired(9), None);
        assert_eq!(expired(25), Some(1));
        assert_eq!(expired(25), Some(2));
        assert_eq!(expired(25), None);
        assert_eq!(expired(30), Some(3));
    }

    #[test]
    fn stale_entries_do_not_accumulate() {
        let mut deadlines = Deadlines::new();
        // One call at a time, each ended before the next: only the newest is live.
        for key in 0..100_000_u64 {
            deadlines.push(Instant::from_nanos(key), key, 1, |k| k == key);
            assert!(deadlines.len() <= SWEEP_MIN + 1);
        }
    }
}
