//! Tombstones of the latest released grants.
//!
//! A request can be overtaken by its own release, when the connection that it was sent on has been
//! replaced. If it were granted then, no holder would refresh or release it until its lease ends.

use std::collections::VecDeque;
use std::sync::Arc;

use super::keyed::{Key, KeyedMap};

#[derive(Debug)]
pub(super) struct Tombstones {
    order: VecDeque<Arc<str>>,
    uids: KeyedMap<Arc<str>, ()>,
    capacity: usize,
}

impl Tombstones {
    pub(super) fn new(capacity: usize, key: Key) -> Self {
        Self { order: VecDeque::new(), uids: KeyedMap::with_hasher(key), capacity }
    }

    pub(super) fn insert(&mut self, uid: Arc<str>) {
        if self.uids.insert(Arc::clone(&uid), ()).is_some() {
            return;
        }
        self.order.push_back(uid);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.uids.len()
    }

    /// Checks that both collections have the same ids.
    pub(super) fn check_invariants(&self) {
        let (ordered, uids, capacity) = (self.order.len(), self.uids.len(), self.capacity);
        assert_eq!(ordered, uids, "Tombstones.order, uids");
        assert!(uids <= capacity, "Tombstones.uids {uids}, capacity {capacity}");
        for uid in &self.order {
            assert!(self.uids.contains_key(uid), "Tombstones.uids lacks {uid}");
        }
    }

    pub(super) fn contains(&self, uid: &str) -> bool {
        self.uids.contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_tombstones_are_kept() {
        let mut tombstones = Tombstones::new(2, Key::new(1));
        for uid in ["a", "b", "b", "c"] {
            tombstones.insert(uid.into());
        }
        assert!(!tombstones.contains("a") && tombstones.contains("b") && tombstones.contains("c"));
        assert_eq!((tombstones.order.len(), tombstones.uids.len()), (2, 2));
    }
}
