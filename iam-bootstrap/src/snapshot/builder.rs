//! Construction of snapshots: item by item, or from another snapshot.

use std::collections::BTreeSet;
use std::hash::Hash;

use super::name_entries::PruneWhenEmpty;
use super::{HashedItem, Item, ItemKey, Map, Snapshot, Totals, UserEntry};
use crate::model::{Group, PolicyMapping, UserName};

/// A snapshot under construction. It cannot be queried before it is complete.
#[derive(Debug)]
pub struct SnapshotBuilder {
    snapshot: Snapshot,
}

impl SnapshotBuilder {
    /// Starts with nothing but the root account.
    pub fn new(root: UserName) -> Self {
        Self { snapshot: Snapshot::empty(root) }
    }

    /// Inserts or replaces an item. Returns whether an item with its key was replaced.
    pub fn put(&mut self, item: Item) -> bool {
        self.snapshot.put(item)
    }

    /// Removes an item. Returns whether it existed.
    pub fn remove(&mut self, key: &ItemKey) -> bool {
        self.snapshot.remove(key)
    }

    /// Inserts or replaces an item.
    #[must_use]
    pub fn with(mut self, item: Item) -> Self {
        self.put(item);
        self
    }

    /// Returns whether there is an item with this key.
    pub fn contains(&self, key: &ItemKey) -> bool {
        self.snapshot.contains(key)
    }

    /// Returns the snapshot. A reference to a missing item is no error: the item may not have
    /// arrived yet, and [`Snapshot::findings`] reports it.
    pub fn build(self) -> Snapshot {
        self.snapshot.check_after_change();
        self.snapshot
    }
}

impl Snapshot {
    /// Returns a copy with one item inserted or replaced. Unchanged parts are shared.
    #[must_use]
    pub fn with(&self, item: Item) -> Self {
        let mut changed = self.clone();
        changed.put(item);
        changed.check_after_change();
        changed
    }

    /// Returns a copy without one item. Unchanged parts are shared.
    #[must_use]
    pub fn without(&self, key: &ItemKey) -> Self {
        let mut changed = self.clone();
        changed.remove(key);
        changed.check_after_change();
        changed
    }

    /// Returns a builder that starts from this snapshot: for several changes that must become
    /// visible together.
    pub fn to_builder(&self) -> SnapshotBuilder {
        SnapshotBuilder { snapshot: self.clone() }
    }

    /// Returns whether there is an item with this key.
    pub fn contains(&self, key: &ItemKey) -> bool {
        match key {
            ItemKey::User(name) => self.user(name).is_some(),
            ItemKey::Group(name) => self.group(name).is_some(),
            ItemKey::ServiceAccount(key) => self.service_accounts.contains_key(key),
            ItemKey::Temporary(key) => self.temporary.contains_key(key),
            ItemKey::Policy(name) => self.policies.contains_key(name),
            ItemKey::UserPolicies(name) => self.user_policies(name).is_some(),
            ItemKey::GroupPolicies(name) => self.group_policies(name).is_some(),
        }
    }

    fn put(&mut self, item: Item) -> bool {
        self.checks.record();
        let key = item.key();
        match item {
            Item::User(user) => {
                let name = user.name.clone();
                let user = Some(HashedItem::new(&key, user.into()));
                let (user_entries, totals) = (&mut self.user_entries, &mut self.totals);
                update_entry(user_entries, &name, |user_entry| {
                    totals.replace(&mut user_entry.user, user)
                })
            }
            Item::Group(group) => {
                let name = group.name().clone();
                let group = HashedItem::new(&key, group.into());
                let before =
                    self.group_entries.get(&name).and_then(|group_entry| group_entry.group.clone());
                let items = (before.as_ref().map(|group| &*group.item), Some(&*group.item));
                update_memberships(&mut self.user_entries, items);
                let (group_entries, totals) = (&mut self.group_entries, &mut self.totals);
                update_entry(group_entries, &name, |group_entry| {
                    totals.replace(&mut group_entry.group, Some(group))
                })
            }
            Item::ServiceAccount(account) => {
                let access_key = account.access_key.clone();
                let account = HashedItem::new(&key, account.into());
                put(&mut self.service_accounts, access_key, account, &mut self.totals)
            }
            Item::Temporary(credential) => {
                let access_key = credential.access_key.clone();
                let credential = HashedItem::new(&key, credential.into());
                put(&mut self.temporary, access_key, credential, &mut self.totals)
            }
            Item::Policy(name, policy) => {
                put(&mut self.policies, name, HashedItem::new(&key, policy), &mut self.totals)
            }
            Item::UserPolicies(name, mapping) => {
                let mapping = Some(HashedItem::new(&key, self.with_shared_names(mapping).into()));
                let (user_entries, totals) = (&mut self.user_entries, &mut self.totals);
                update_entry(user_entries, &name, |user_entry| {
                    totals.replace(&mut user_entry.policies, mapping)
                })
            }
            Item::GroupPolicies(name, mapping) => {
                let mapping = Some(HashedItem::new(&key, self.with_shared_names(mapping).into()));
                let (group_entries, totals) = (&mut self.group_entries, &mut self.totals);
                update_entry(group_entries, &name, |group_entry| {
                    totals.replace(&mut group_entry.policies, mapping)
                })
            }
        }
    }

    fn remove(&mut self, key: &ItemKey) -> bool {
        self.checks.record();
        let (user_entries, group_entries, totals) =
            (&mut self.user_entries, &mut self.group_entries, &mut self.totals);
        match key {
            ItemKey::User(name) => update_entry(user_entries, name, |user_entry| {
                totals.replace(&mut user_entry.user, None)
            }),
            ItemKey::Group(name) => {
                let before =
                    group_entries.get(name).and_then(|group_entry| group_entry.group.clone());
                update_memberships(user_entries, (before.as_ref().map(|group| &*group.item), None));
                update_entry(group_entries, name, |group_entry| {
                    totals.replace(&mut group_entry.group, None)
                })
            }
            ItemKey::ServiceAccount(key) => remove(&mut self.service_accounts, key, totals),
            ItemKey::Temporary(key) => remove(&mut self.temporary, key, totals),
            ItemKey::Policy(name) => remove(&mut self.policies, name, totals),
            ItemKey::UserPolicies(name) => update_entry(user_entries, name, |user_entry| {
                totals.replace(&mut user_entry.policies, None)
            }),
            ItemKey::GroupPolicies(name) => update_entry(group_entries, name, |group_entry| {
                totals.replace(&mut group_entry.policies, None)
            }),
        }
    }

    /// Replaces the names in a mapping by the shared names of existing policies. A decision reads
    /// them: one text for all mappings stays in the CPU cache, one per mapping does not.
    fn with_shared_names(&self, mapping: PolicyMapping) -> PolicyMapping {
        mapping.map_names(|name| match self.policies.get_key_value(&name) {
            Some((shared, _)) => shared.clone(),
            None => name,
        })
    }
}

fn put<K: Eq + Hash, T>(
    map: &mut Map<K, HashedItem<T>>,
    name: K,
    item: HashedItem<T>,
    totals: &mut Totals,
) -> bool {
    let is_replaced = totals.subtract(map.get(&name));
    totals.add(&item);
    map.insert_mut(name, item);
    is_replaced
}

fn remove<K: Eq + Hash, T>(map: &mut Map<K, HashedItem<T>>, name: &K, totals: &mut Totals) -> bool {
    totals.subtract(map.get(name)) && map.remove_mut(name)
}

/// Updates the entry of a name; removes it if it becomes empty.
fn update_entry<K: Eq + Hash + Clone, P: PruneWhenEmpty, T>(
    map: &mut Map<K, P>,
    name: &K,
    update_entry: impl FnOnce(&mut P) -> T,
) -> T {
    let mut entry = map.get(name).cloned().unwrap_or_default();
    let done = update_entry(&mut entry);
    match entry.is_empty() {
        true => drop(map.remove_mut(name)),
        false => map.insert_mut(name.clone(), entry),
    }
    done
}

/// Updates the groups of users after a change of a group's members.
fn update_memberships(
    user_entries: &mut Map<UserName, UserEntry>,
    (before, after): (Option<&Group>, Option<&Group>),
) {
    let Some(name) = after.or(before).map(Group::name) else { return };
    let none = BTreeSet::new();
    let was = before.map_or(&none, Group::members);
    let is = after.map_or(&none, Group::members);
    for member in is.difference(was) {
        update_entry(user_entries, member, |user_entry| user_entry.join(name));
    }
    for member in was.difference(is) {
        update_entry(user_entries, member, |user_entry| user_entry.leave(name));
    }
}
