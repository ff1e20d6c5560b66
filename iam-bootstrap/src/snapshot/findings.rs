//! Dangling references and shadowed accounts of a snapshot: reported to operators, but no reason to
//! reject the snapshot.

use std::collections::BTreeSet;
use std::fmt;

use super::{ItemKey, Snapshot};
use crate::limits::FINDINGS_MAX;
use crate::model::UserName;

/// One inconsistency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Finding {
    /// An item refers to one that does not exist. The reference has no effect.
    Dangling {
        /// The referring item.
        from: ItemKey,
        /// The missing item.
        to: ItemKey,
    },
    /// An account cannot be used: another one has the same access key.
    Shadowed {
        /// The shadowed account.
        account: ItemKey,
        /// The owner of the access key; `None` for the root account.
        by: Option<ItemKey>,
    },
}

/// Inconsistencies of a snapshot, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first findings, at most [`FINDINGS_MAX`].
    pub listed: Vec<Finding>,
    /// Number of all findings.
    pub count: usize,
}

impl Snapshot {
    /// Returns all inconsistencies. Visits all items.
    pub fn findings(&self) -> Findings {
        let mut listed = BTreeSet::new();
        let mut count = 0;
        for finding in self.dangling().chain(self.shadowed()) {
            count += 1;
            listed.insert(finding);
            if listed.len() > FINDINGS_MAX {
                listed.pop_last();
            }
        }
        Findings { listed: listed.into_iter().collect(), count }
    }

    fn dangling(&self) -> impl Iterator<Item = Finding> {
        let members = self.groups().flat_map(|group| {
            let from = ItemKey::Group(group.name().clone());
            group.members().iter().map(move |member| (from.clone(), ItemKey::User(member.clone())))
        });
        let accounts = self.service_accounts().map(|account| {
            let from = ItemKey::ServiceAccount(account.access_key.clone());
            (from, ItemKey::User(account.parent.clone()))
        });
        let temporaries = self.temporaries().map(|credential| {
            let from = ItemKey::Temporary(credential.access_key.clone());
            (from, ItemKey::User(credential.parent.clone()))
        });
        let user_entries = self
            .user_entries
            .iter()
            .filter_map(|(name, user_entry)| Some((name, user_entry.policies.as_ref()?)));
        let users = user_entries.flat_map(|(user, entry)| {
            let from = ItemKey::UserPolicies(user.clone());
            let policies = entry.item.policies().iter().cloned().map(ItemKey::Policy);
            policies.chain([ItemKey::User(user.clone())]).map(move |to| (from.clone(), to))
        });
        let group_entries = self
            .group_entries
            .iter()
            .filter_map(|(name, group_entry)| Some((name, group_entry.policies.as_ref()?)));
        let groups = group_entries.flat_map(|(group, entry)| {
            let from = ItemKey::GroupPolicies(group.clone());
            let policies = entry.item.policies().iter().cloned().map(ItemKey::Policy);
            policies.chain([ItemKey::Group(group.clone())]).map(move |to| (from.clone(), to))
        });
        let references = members.chain(accounts).chain(temporaries).chain(users).chain(groups);
        let missing = references.filter(|(_, to)| !self.target_exists(to));
        missing.map(|(from, to)| Finding::Dangling { from, to })
    }

    fn target_exists(&self, key: &ItemKey) -> bool {
        matches!(key, ItemKey::User(name) if *name == self.root) || self.contains(key)
    }

    fn shadowed(&self) -> impl Iterator<Item = Finding> {
        let users = self.users().map(|user| ItemKey::User(user.name.clone()));
        let accounts = self.service_accounts.keys().cloned().map(ItemKey::ServiceAccount);
        let temporaries = self.temporary.keys().cloned().map(ItemKey::Temporary);
        users.chain(accounts).chain(temporaries).filter_map(|account| {
            let by = self.shadowed_by(&account)?;
            Some(Finding::Shadowed { account, by })
        })
    }

    /// Returns the owner of the account's access key that takes precedence over the account.
    fn shadowed_by(&self, account: &ItemKey) -> Option<Option<ItemKey>> {
        let access_key = account.name();
        if access_key == &*self.root {
            return Some(None);
        }
        let user = || self.user(access_key).map(|user| user.name.clone());
        let earlier =
            || self.service_accounts.get_key_value(access_key).map(|(key, _)| key.clone());
        match account {
            ItemKey::ServiceAccount(_) => user().map(|name: UserName| Some(ItemKey::User(name))),
            ItemKey::Temporary(_) => user()
                .map(ItemKey::User)
                .or_else(|| earlier().map(ItemKey::ServiceAccount))
                .map(Some),
            _ => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dangling { from, to } => write!(f, "{from} refers to {to}, which does not exist"),
            Self::Shadowed { account, by: Some(by) } => {
                write!(f, "{account} cannot be used: its access key is that of {by}")
            }
            Self::Shadowed { account, by: None } => {
                write!(f, "{account} cannot be used: its access key is that of the root account")
            }
        }
    }
}
