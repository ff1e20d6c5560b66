//! An item in its place, and what all items amount to.

use std::sync::Arc;

use serde::Serialize;

use super::hash::{ContentHash, ItemHash};
use super::item::ItemKey;

/// An item, and its part of the content hash.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    pub(super) item: Arc<T>,
    hash: ItemHash,
}

impl<T: Serialize> Entry<T> {
    pub(super) fn new(key: &ItemKey, item: Arc<T>) -> Self {
        let hash = ItemHash::of(key.kind(), key.name(), &*item);
        Self { item, hash }
    }
}

/// How many items there are, and the hash of all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) items: usize,
    pub(super) hash: ContentHash,
}

impl Sum {
    /// Puts an item where another or none is, or none. Returns whether there was one.
    pub(super) fn exchange<T>(
        &mut self,
        place: &mut Option<Entry<T>>,
        item: Option<Entry<T>>,
    ) -> bool {
        let before = std::mem::replace(place, item);
        if let Some(item) = place {
            self.items += 1;
            self.hash.add(item.hash);
        }
        self.subtract(before.as_ref())
    }

    /// An item is in no place any more. Returns whether there was one.
    pub(super) fn subtract<T>(&mut self, item: Option<&Entry<T>>) -> bool {
        let Some(item) = item else { return false };
        self.items -= 1;
        self.hash.subtract(item.hash);
        true
    }

    /// An item is in a place that was empty.
    pub(super) fn add<T>(&mut self, item: &Entry<T>) {
        self.items += 1;
        self.hash.add(item.hash);
    }
}
