//! Items with their hashes, and the totals of a snapshot.

use std::sync::Arc;

use serde::Serialize;

use super::hash::{ContentHash, ItemHash};
use super::item::ItemKey;

/// An item, and its contribution to the content hash.
#[derive(Debug, Clone)]
pub(super) struct HashedItem<T> {
    pub(super) item: Arc<T>,
    pub(super) hash: ItemHash,
}

impl<T: Serialize> HashedItem<T> {
    pub(super) fn new(key: &ItemKey, item: Arc<T>) -> Self {
        let hash = ItemHash::of(key.kind(), key.name(), &*item);
        Self { item, hash }
    }
}

/// Number of items, and the hash of all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) items: usize,
    pub(super) hash: ContentHash,
}

impl Totals {
    /// Replaces the item in a slot; both the old and the new one may be absent. Returns whether
    /// there was one.
    pub(super) fn replace<T>(
        &mut self,
        slot: &mut Option<HashedItem<T>>,
        item: Option<HashedItem<T>>,
    ) -> bool {
        let before = std::mem::replace(slot, item);
        if let Some(item) = slot {
            self.items += 1;
            self.hash.add(item.hash);
        }
        self.subtract(before.as_ref())
    }

    /// Subtracts a removed item. Returns whether there was one.
    pub(super) fn subtract<T>(&mut self, item: Option<&HashedItem<T>>) -> bool {
        let Some(item) = item else { return false };
        debug_assert!(self.items > 0, "totals.items is 0, and an item is removed");
        self.items -= 1;
        self.hash.subtract(item.hash);
        true
    }

    /// Adds an item that was inserted into an empty slot.
    pub(super) fn add<T>(&mut self, item: &HashedItem<T>) {
        self.items += 1;
        self.hash.add(item.hash);
    }
}
