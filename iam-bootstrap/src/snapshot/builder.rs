//! How a snapshot comes to be: item by item, or from another one.

use std::collections::BTreeSet;
use std::hash::Hash;

use super::people::Parts;
use super::{Entry, Item, ItemKey, Map, Person, Snapshot, Sum};
use crate::model::{Group, PolicyMapping, UserName};

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
        let key = item.key();
        match item {
            Item::User(user) => {
                let name = user.name.clone();
                let user = Some(Entry::new(&key, user.into()));
                let (people, sum) = (&mut self.people, &mut self.sum);
                change(people, &name, |person| sum.exchange(&mut person.user, user))
            }
            Item::Group(group) => {
                let name = group.name().clone();
                let group = Entry::new(&key, group.into());
                let before = self.teams.get(&name).and_then(|team| team.group.clone());
                let items = (before.as_ref().map(|group| &*group.item), Some(&*group.item));
                change_members(&mut self.people, items);
                let (teams, sum) = (&mut self.teams, &mut self.sum);
                change(teams, &name, |team| sum.exchange(&mut team.group, Some(group)))
            }
            Item::ServiceAccount(account) => {
                let access_key = account.access_key.clone();
                let account = Entry::new(&key, account.into());
                put(&mut self.service_accounts, access_key, account, &mut self.sum)
            }
            Item::Temporary(credential) => {
                let access_key = credential.access_key.clone();
                let credential = Entry::new(&key, credential.into());
                put(&mut self.temporary, access_key, credential, &mut self.sum)
            }
            Item::Policy(name, policy) => {
                put(&mut self.policies, name, Entry::new(&key, policy), &mut self.sum)
            }
            Item::UserPolicies(name, mapping) => {
                let mapping = Some(Entry::new(&key, self.with_shared_names(mapping).into()));
                let (people, sum) = (&mut self.people, &mut self.sum);
                change(people, &name, |person| sum.exchange(&mut person.policies, mapping))
            }
            Item::GroupPolicies(name, mapping) => {
                let mapping = Some(Entry::new(&key, self.with_shared_names(mapping).into()));
                let (teams, sum) = (&mut self.teams, &mut self.sum);
                change(teams, &name, |team| sum.exchange(&mut team.policies, mapping))
            }
        }
    }

    fn remove(&mut self, key: &ItemKey) -> bool {
        let (people, teams, sum) = (&mut self.people, &mut self.teams, &mut self.sum);
        match key {
            ItemKey::User(name) => {
                change(people, name, |person| sum.exchange(&mut person.user, None))
            }
            ItemKey::Group(name) => {
                let before = teams.get(name).and_then(|team| team.group.clone());
                change_members(people, (before.as_ref().map(|group| &*group.item), None));
                change(teams, name, |team| sum.exchange(&mut team.group, None))
            }
            ItemKey::ServiceAccount(key) => remove(&mut self.service_accounts, key, sum),
            ItemKey::Temporary(key) => remove(&mut self.temporary, key, sum),
            ItemKey::Policy(name) => remove(&mut self.policies, name, sum),
            ItemKey::UserPolicies(name) => {
                change(people, name, |person| sum.exchange(&mut person.policies, None))
            }
            ItemKey::GroupPolicies(name) => {
                change(teams, name, |team| sum.exchange(&mut team.policies, None))
            }
        }
    }

    /// The same mapping, with the names of policies that are there taken from them. A decision reads
    /// them: one text for all mappings is in the cache, one for each is not.
    fn with_shared_names(&self, mapping: PolicyMapping) -> PolicyMapping {
        mapping.map_names(|name| match self.policies.get_key_value(&name) {
            Some((shared, _)) => shared.clone(),
            None => name,
        })
    }
}

fn put<K: Eq + Hash, T>(
    map: &mut Map<K, Entry<T>>,
    name: K,
    item: Entry<T>,
    sum: &mut Sum,
) -> bool {
    let is_replaced = sum.subtract(map.get(&name));
    sum.add(&item);
    map.insert_mut(name, item);
    is_replaced
}

fn remove<K: Eq + Hash, T>(map: &mut Map<K, Entry<T>>, name: &K, sum: &mut Sum) -> bool {
    sum.subtract(map.get(name)) && map.remove_mut(name)
}

/// Changes what is known under a name.
fn change<K: Eq + Hash + Clone, P: Parts, T>(
    map: &mut Map<K, P>,
    name: &K,
    change: impl FnOnce(&mut P) -> T,
) -> T {
    let mut parts = map.get(name).cloned().unwrap_or_default();
    let done = change(&mut parts);
    match parts.is_empty() {
        true => drop(map.remove_mut(name)),
        false => map.insert_mut(name.clone(), parts),
    }
    done
}

/// Keeps what is known of users' groups in step with a group that comes, changes or goes.
fn change_members(
    people: &mut Map<UserName, Person>,
    (before, after): (Option<&Group>, Option<&Group>),
) {
    let Some(name) = after.or(before).map(Group::name) else { return };
    let none = BTreeSet::new();
    let was = before.map_or(&none, Group::members);
    let is = after.map_or(&none, Group::members);
    for member in is.difference(was) {
        change(people, member, |person| person.join(name));
    }
    for member in was.difference(is) {
        change(people, member, |person| person.part_from(name));
    }
}
