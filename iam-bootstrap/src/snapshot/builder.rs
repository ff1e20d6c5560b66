//! How a snapshot comes to be: item by item, or from another one.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

use serde::Serialize;

use super::{ContentHash, Entry, Item, ItemHash, ItemKey, Map, Snapshot};
use crate::model::{Group, GroupName, UserName};

/// A snapshot that is being put together. Nobody can ask it before it is complete.
#[derive(Debug)]
pub struct SnapshotBuilder {
    snapshot: Snapshot,
}

impl SnapshotBuilder {
    /// Nothing but the root account.
    pub fn new(root: UserName) -> Self {
        Self { snapshot: Snapshot::empty(root) }
    }

    /// Puts an item into it. Returns whether there was one with its key, which it replaces.
    pub fn put(&mut self, item: Item) -> bool {
        self.snapshot.put(item)
    }

    /// Takes an item out of it. Returns whether there was one.
    pub fn remove(&mut self, key: &ItemKey) -> bool {
        self.snapshot.remove(key)
    }

    /// The same with one item more.
    #[must_use]
    pub fn with(mut self, item: Item) -> Self {
        self.put(item);
        self
    }

    /// Whether an item with this key is in it.
    pub fn contains(&self, key: &ItemKey) -> bool {
        self.snapshot.contains(key)
    }

    /// The snapshot. That items refer to others which do not exist is no error: they may not have
    /// arrived yet, and [`Snapshot::findings`] tells which.
    pub fn build(self) -> Snapshot {
        self.snapshot
    }
}

impl Snapshot {
    /// The same with one item put, or replaced. What did not change is shared.
    #[must_use]
    pub fn with(&self, item: Item) -> Self {
        let mut changed = self.clone();
        changed.put(item);
        changed
    }

    /// The same without one item. What did not change is shared.
    #[must_use]
    pub fn without(&self, key: &ItemKey) -> Self {
        let mut changed = self.clone();
        changed.remove(key);
        changed
    }

    /// The same, to be changed further: for several changes that must be seen together.
    pub fn to_builder(&self) -> SnapshotBuilder {
        SnapshotBuilder { snapshot: self.clone() }
    }

    /// Whether there is an item with this key.
    pub fn contains(&self, key: &ItemKey) -> bool {
        match key {
            ItemKey::User(name) => self.users.contains_key(name),
            ItemKey::Group(name) => self.groups.contains_key(name),
            ItemKey::ServiceAccount(key) => self.service_accounts.contains_key(key),
            ItemKey::Temporary(key) => self.temporary.contains_key(key),
            ItemKey::Policy(name) => self.policies.contains_key(name),
            ItemKey::UserPolicies(name) => self.user_policies.contains_key(name),
            ItemKey::GroupPolicies(name) => self.group_policies.contains_key(name),
        }
    }

    fn put(&mut self, item: Item) -> bool {
        let (key, sum) = (item.key(), &mut self.content_hash);
        match item {
            Item::User(user) => put(&mut self.users, user.name.clone(), user.into(), &key, sum),
            Item::Group(group) => {
                let name = group.name().clone();
                let before = self.groups.get(&name).map(|entry| entry.item.clone());
                change_members(&mut self.memberships, before.as_deref(), Some(&group));
                put(&mut self.groups, name, group.into(), &key, sum)
            }
            Item::ServiceAccount(account) => {
                let access_key = account.access_key.clone();
                put(&mut self.service_accounts, access_key, account.into(), &key, sum)
            }
            Item::Temporary(credential) => {
                let access_key = credential.access_key.clone();
                put(&mut self.temporary, access_key, credential.into(), &key, sum)
            }
            Item::Policy(name, policy) => put(&mut self.policies, name, policy, &key, sum),
            Item::UserPolicies(user, mapping) => {
                put(&mut self.user_policies, user, mapping.into(), &key, sum)
            }
            Item::GroupPolicies(group, mapping) => {
                put(&mut self.group_policies, group, mapping.into(), &key, sum)
            }
        }
    }

    fn remove(&mut self, key: &ItemKey) -> bool {
        let sum = &mut self.content_hash;
        match key {
            ItemKey::User(name) => remove(&mut self.users, name, sum),
            ItemKey::Group(name) => {
                let before = self.groups.get(name).map(|entry| entry.item.clone());
                change_members(&mut self.memberships, before.as_deref(), None);
                remove(&mut self.groups, name, sum)
            }
            ItemKey::ServiceAccount(key) => remove(&mut self.service_accounts, key, sum),
            ItemKey::Temporary(key) => remove(&mut self.temporary, key, sum),
            ItemKey::Policy(name) => remove(&mut self.policies, name, sum),
            ItemKey::UserPolicies(name) => remove(&mut self.user_policies, name, sum),
            ItemKey::GroupPolicies(name) => remove(&mut self.group_policies, name, sum),
        }
    }
}

fn put<K: Eq + Hash, V: Serialize>(
    map: &mut Map<K, Entry<V>>,
    name: K,
    item: Arc<V>,
    key: &ItemKey,
    sum: &mut ContentHash,
) -> bool {
    let replaced = remove(map, &name, sum);
    let hash = ItemHash::of(key.kind(), key.name(), &*item);
    sum.add(hash);
    map.insert_mut(name, Entry { item, hash });
    replaced
}

fn remove<K: Eq + Hash, V>(map: &mut Map<K, Entry<V>>, name: &K, sum: &mut ContentHash) -> bool {
    let Some(entry) = map.get(name) else { return false };
    sum.subtract(entry.hash);
    map.remove_mut(name)
}

/// Keeps what is known of users' groups in step with a group that comes, changes or goes.
fn change_members(
    memberships: &mut Map<UserName, Arc<BTreeSet<GroupName>>>,
    before: Option<&Group>,
    after: Option<&Group>,
) {
    let Some(name) = after.or(before).map(Group::name) else { return };
    let none = BTreeSet::new();
    let was = before.map_or(&none, Group::members);
    let is = after.map_or(&none, Group::members);
    for member in is.difference(was) {
        let mut groups = memberships.get(member).map_or_else(Arc::default, Arc::clone);
        Arc::make_mut(&mut groups).insert(name.clone());
        memberships.insert_mut(member.clone(), groups);
    }
    for member in was.difference(is) {
        let Some(groups) = memberships.get(member) else { continue };
        let mut groups = Arc::clone(groups);
        Arc::make_mut(&mut groups).remove(name);
        match groups.is_empty() {
            true => memberships.remove_mut(member),
            false => {
                memberships.insert_mut(member.clone(), groups);
                true
            }
        };
    }
}
