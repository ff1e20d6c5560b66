//! Tombstones: ids of ended attempts, and of cancelled tickets, that a late request may still
//! mention.
//!
//! A request can be overtaken by its own release, when the connection that it was sent on has been
//! replaced. If it were granted then, no holder would refresh or release it until its lease ends.
//! Likewise a ticket that is queued again after its end would block others until it expires.
//!
//! A message is not delayed for longer than a connection lives without traffic, so a tombstone ends
//! by time. More than [`TOMBSTONE_BYTES_MAX`] are not kept: the oldest ends early.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;

use super::keyed::{Key, KeyedMap};
use crate::limits::{TOMBSTONE_BYTES, TOMBSTONE_BYTES_MAX};

#[derive(Debug)]
pub(super) struct Tombstones {
    order: VecDeque<(Instant, Arc<str>)>,
    ids: KeyedMap<Arc<str>, ()>,
    bytes: usize,
    lifetime: Duration,
}

fn bytes_of(id: &str) -> usize {
    TOMBSTONE_BYTES + id.len()
}

impl Tombstones {
    pub(super) fn new(lifetime: Duration, key: Key) -> Self {
        Self { order: VecDeque::new(), ids: KeyedMap::with_hasher(key), bytes: 0, lifetime }
    }

    pub(super) fn insert(&mut self, id: Arc<str>, now: Instant) {
        if self.ids.insert(Arc::clone(&id), ()).is_some() {
            return;
        }
        self.bytes += bytes_of(&id);
        self.order.push_back((now + self.lifetime, id));
        while self.bytes > TOMBSTONE_BYTES_MAX {
            self.remove_oldest();
        }
    }

    /// Removes those whose time has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(end, _)| *end <= now) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        let Some((_, id)) = self.order.pop_front() else { return };
        self.ids.remove(&id);
        debug_assert!(self.bytes >= bytes_of(&id), "Tombstones.bytes {}, of {id}", self.bytes);
        self.bytes -= bytes_of(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Checks that both collections have the same ids, in the order of their ends.
    pub(super) fn check_invariants(&self) {
        let (ordered, ids) = (self.order.len(), self.ids.len());
        assert_eq!(ordered, ids, "Tombstones.order, ids");
        let mut bytes = 0;
        for (_, id) in &self.order {
            assert!(self.ids.contains_key(id), "Tombstones.ids lacks {id}");
            bytes += bytes_of(id);
        }
        assert_eq!(self.bytes, bytes, "Tombstones.bytes, bytes of the ids");
        assert!(bytes <= TOMBSTONE_BYTES_MAX, "Tombstones.bytes {bytes}");
        let is_sorted = self.order.iter().is_sorted_by_key(|(end, _)| *end);
        assert!(is_sorted, "Tombstones.order is not sorted");
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(0);
    const LIFETIME: Duration = Duration::from_secs(120);

    #[test]
    fn b59_a_tombstone_ends_by_time_and_not_by_count() {
        let mut tombstones = Tombstones::new(LIFETIME, Key::new(1));
        tombstones.insert("first".into(), START);
        let later = START + Duration::from_secs(1);
        for n in 0..100_000 {
            tombstones.insert(n.to_string().into(), later);
        }
        tombstones.insert("first".into(), later);
        tombstones.expire(START + (LIFETIME - Duration::from_nanos(1)));
        assert!(tombstones.contains("first"), "100,000 later ones do not end it");
        tombstones.expire(START + LIFETIME);
        assert!(!tombstones.contains("first") && tombstones.contains("0"));
        tombstones.expire(later + LIFETIME);
        assert_eq!((tombstones.order.len(), tombstones.ids.len(), tombstones.bytes), (0, 0, 0));
    }

    #[test]
    fn b59_tombstones_are_bounded_in_bytes_and_the_oldest_end_first() {
        let mut tombstones = Tombstones::new(LIFETIME, Key::new(1));
        let id = |n: usize| Arc::from(format!("{n:01000}"));
        let fit = TOMBSTONE_BYTES_MAX / bytes_of(&id(0));
        for n in 0..=fit {
            tombstones.insert(id(n), START);
        }
        assert_eq!(tombstones.len(), fit);
        assert!(!tombstones.contains(&id(0)) && tombstones.contains(&id(1)));
        tombstones.check_invariants();
    }
}
