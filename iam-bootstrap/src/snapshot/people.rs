//! All that is known under one name of a user or a group, in one place: a decision wants all of it, and
//! among very many each place costs misses of the cache.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::hash::{ContentHash, ItemHash};
use super::item::ItemKey;
use crate::model::{Group, GroupName, PolicyMapping, User};

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

/// What is known under the name of a user. Some of it may have arrived before the rest, or have stayed.
#[derive(Debug, Clone, Default)]
pub(super) struct Person {
    pub(super) user: Option<Entry<User>>,
    pub(super) policies: Option<Entry<PolicyMapping>>,
    /// The groups that say that they have this member; nothing if there is none.
    pub(super) groups: Option<Arc<BTreeSet<GroupName>>>,
}

/// What is known under the name of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct Team {
    pub(super) group: Option<Entry<Group>>,
    pub(super) policies: Option<Entry<PolicyMapping>>,
}

/// What is left out when there is nothing in it.
pub(super) trait Parts: Clone + Default {
    fn is_empty(&self) -> bool;
}

impl Parts for Person {
    fn is_empty(&self) -> bool {
        self.user.is_none() && self.policies.is_none() && self.groups.is_none()
    }
}

impl Parts for Team {
    fn is_empty(&self) -> bool {
        self.group.is_none() && self.policies.is_none()
    }
}

impl Person {
    pub(super) fn join(&mut self, group: &GroupName) {
        let groups = self.groups.get_or_insert_default();
        Arc::make_mut(groups).insert(group.clone());
    }

    pub(super) fn part_from(&mut self, group: &GroupName) {
        let Some(groups) = &mut self.groups else { return };
        Arc::make_mut(groups).remove(group);
        if groups.is_empty() {
            self.groups = None;
        }
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
