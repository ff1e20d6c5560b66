//! What holds of every snapshot, whatever was put and removed, in whatever order.

use std::fmt;
use std::hash::Hash;

use serde::Serialize;

use super::entry::{HashedItem, Totals};
use super::item::ItemKey;
use super::name_entries::{GroupEntry, PruneWhenEmpty, UserEntry};
use super::{Map, Snapshot};
use crate::model::{GroupName, UserName};

impl Snapshot {
    /// Checks that the lookups agree with each other and with the totals: an item is found under
    /// its own name, a user is in the groups that list it and in no other, each access key has an
    /// owner, the content hash is that of the items. Visits all items; debug builds call it
    /// themselves.
    ///
    /// # Panics
    ///
    /// If one of these does not hold. The message names the field and both values.
    pub fn check_invariants(&self) {
        let mut totals = Totals::default();
        for (name, user_entry) in self.user_entries.iter() {
            self.check_user(name, user_entry, &mut totals);
        }
        for (name, group_entry) in self.group_entries.iter() {
            self.check_group(name, group_entry, &mut totals);
        }
        let service_account = ItemKey::ServiceAccount;
        check_items(&self.service_accounts, service_account, |item| &item.access_key, &mut totals);
        check_items(&self.temporary, ItemKey::Temporary, |item| &item.access_key, &mut totals);
        for access_key in self.service_accounts.keys().chain(self.temporary.keys()) {
            assert!(self.key_owner(access_key).is_some(), "key_owner of {access_key} is None");
        }
        for (name, policy) in self.policies.iter() {
            check_item(&ItemKey::Policy(name.clone()), policy, &mut totals);
        }
        let (own, counted) = (&self.totals, &totals);
        assert_eq!(own.items, counted.items, "totals.items, and the items in the maps");
        assert_eq!(own.hash, counted.hash, "totals.hash, and the hash of the items in the maps");
    }

    /// Checks after a change that it left the snapshot consistent, as often as the schedule says.
    pub(super) fn check_after_change(&self) {
        // Members of groups have entries: without them, one group may be most of the work.
        let entries = self.user_entries.size() + self.group_entries.size();
        if self.checks.is_due(self.totals.items.max(entries)) {
            self.check_invariants();
        }
    }

    fn check_user(&self, name: &UserName, entry: &UserEntry, totals: &mut Totals) {
        assert!(!entry.is_empty(), "user_entries[{name}] is empty, and was not removed");
        if let Some(user) = &entry.user {
            assert_eq!(user.item.name, *name, "user_entries: name of the user, and its key");
            check_item(&ItemKey::User(name.clone()), user, totals);
        }
        if let Some(mapping) = &entry.policies {
            check_item(&ItemKey::UserPolicies(name.clone()), mapping, totals);
        }
        let Some(groups) = &entry.groups else { return };
        assert!(!groups.is_empty(), "user_entries[{name}].groups is Some of no group");
        for group in groups.iter() {
            let is_member = self.group(group).is_some_and(|group| group.members().contains(name));
            assert!(is_member, "user_entries[{name}].groups has {group}, which has no such member");
        }
    }

    fn check_group(&self, name: &GroupName, entry: &GroupEntry, totals: &mut Totals) {
        assert!(!entry.is_empty(), "group_entries[{name}] is empty, and was not removed");
        if let Some(mapping) = &entry.policies {
            check_item(&ItemKey::GroupPolicies(name.clone()), mapping, totals);
        }
        let Some(group) = &entry.group else { return };
        assert_eq!(group.item.name(), name, "group_entries: name of the group, and its key");
        check_item(&ItemKey::Group(name.clone()), group, totals);
        for member in group.item.members() {
            let groups = self.user_entries.get(member).and_then(|entry| entry.groups.as_ref());
            let is_listed = groups.is_some_and(|groups| groups.contains(name));
            assert!(is_listed, "{name} has member {member}, whose user_entries.groups lacks it");
        }
    }
}

fn check_items<K, T>(
    map: &Map<K, HashedItem<T>>,
    key: impl Fn(K) -> ItemKey,
    own_name: impl Fn(&T) -> &K,
    totals: &mut Totals,
) where
    K: Eq + Hash + Clone + fmt::Debug,
    T: Serialize,
{
    for (name, item) in map.iter() {
        assert_eq!(own_name(&item.item), name, "name of an item, and the key of its map");
        check_item(&key(name.clone()), item, totals);
    }
}

/// Checks the hash of an item, and adds it to the totals.
fn check_item<T: Serialize>(key: &ItemKey, item: &HashedItem<T>, totals: &mut Totals) {
    let recomputed = HashedItem::new(key, item.item.clone());
    assert_eq!(item.hash, recomputed.hash, "hash of {key}, and the one computed now");
    totals.add(item);
}
