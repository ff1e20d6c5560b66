//! Immutable view of all users and their permissions at one moment.
//!
//! A [`Snapshot`] never changes, so repeated reads are consistent. A changed one is derived from it
//! ([`Snapshot::with`], [`Snapshot::without`]) and shares all unchanged parts: the cost depends on
//! the item, not on the number of items. The loader creates snapshots and decides which one readers
//! see.

mod builder;
mod decision;
mod entry;
mod evaluate;
mod findings;
mod hash;
mod invariants;
mod item;
mod name_entries;

pub use builder::SnapshotBuilder;
pub use decision::{AllowReason, AttachedStatement, Decision, DenyReason, Layer};
pub use findings::{Finding, Findings};
pub use hash::ContentHash;
pub use item::{Item, ItemKey};

use std::fmt;
use std::hash::Hash;

use rpds::HashTrieMapSync;
use rustc_hash::FxBuildHasher;

use crate::model::{
    AccessKey, Group, GroupName, PolicyMapping, PolicyName, Secret, ServiceAccount,
    TemporaryCredential, User, UserName,
};
use crate::policy::Policy;
use entry::{HashedItem, Totals};
use grid::check_schedule::CheckSchedule;
use name_entries::{GroupEntry, UserEntry};

/// A persistent map: a changed copy shares the unchanged parts. The hasher is fixed, because
/// replays need it. (Hash flooding is no threat: operators choose the names.)
type Map<K, V> = HashTrieMapSync<K, V, FxBuildHasher>;

fn map<K: Eq + Hash, V>() -> Map<K, V> {
    Map::new_with_hasher_and_ptr_kind(FxBuildHasher)
}

/// All users, groups, accounts, policies and mappings at one moment. Cheap to clone.
///
/// ```
/// use iam_bootstrap::model::{PolicyMapping, PolicyName, Secret, User, UserName, UtcMillis};
/// use iam_bootstrap::policy::{Context, Policy};
/// use iam_bootstrap::snapshot::{Item, SnapshotBuilder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (alice, readonly) = (UserName::new("alice")?, PolicyName::new("readonly")?);
/// let policy = Policy::parse(
///     br#"{"Statement": {"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::*"}}"#,
/// )?;
/// let snapshot = SnapshotBuilder::new(UserName::new("root")?)
///     .with(Item::User(User::new(alice.clone(), Secret::new("correct horse")?)))
///     .with(Item::Policy(readonly.clone(), policy.into()))
///     .with(Item::UserPolicies(alice, PolicyMapping::new([readonly])?))
///     .build();
///
/// let context = Context::new(UtcMillis::new(1_763_000_000_000));
/// let may = |action| snapshot.is_allowed("alice", action, "arn:aws:s3:::photos/a.jpg", &context);
/// assert_eq!(
///     may("s3:GetObject").to_string(),
///     "allowed by statement 1 of policy readonly, attached to user alice",
/// );
/// assert_eq!(may("s3:PutObject").to_string(), "denied: no statement of user alice allows it");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    /// The account with all permissions. It is not stored.
    root: UserName,
    user_entries: Map<UserName, UserEntry>,
    group_entries: Map<GroupName, GroupEntry>,
    service_accounts: Map<AccessKey, HashedItem<ServiceAccount>>,
    temporary: Map<AccessKey, HashedItem<TemporaryCredential>>,
    policies: Map<PolicyName, HashedItem<Policy>>,
    totals: Totals,
    checks: CheckSchedule,
}

/// Owner of an access key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyOwner<'s> {
    /// The root account, whose secret is not stored.
    Root,
    /// A user.
    User(&'s User),
    /// A service account.
    ServiceAccount(&'s ServiceAccount),
    /// A temporary credential. Its session token must be checked as well.
    Temporary(&'s TemporaryCredential),
}

impl<'s> KeyOwner<'s> {
    /// Returns the secret that requests are signed with; `None` for the root account.
    pub fn secret(&self) -> Option<&'s Secret> {
        match self {
            Self::Root => None,
            Self::User(user) => Some(&user.secret),
            Self::ServiceAccount(account) => Some(&account.secret),
            Self::Temporary(credential) => Some(&credential.secret),
        }
    }
}

impl Snapshot {
    /// Creates a snapshot with nothing but the root account.
    pub fn empty(root: UserName) -> Self {
        Self {
            root,
            user_entries: map(),
            group_entries: map(),
            service_accounts: map(),
            temporary: map(),
            policies: map(),
            totals: Totals::default(),
            checks: CheckSchedule::default(),
        }
    }

    /// Returns the owner of an access key: the root account, a user, a service account or a
    /// temporary credential, in this order of precedence. (A key with two owners is a [`Finding`].)
    pub fn key_owner(&self, access_key: &str) -> Option<KeyOwner<'_>> {
        if access_key == &*self.root {
            return Some(KeyOwner::Root);
        }
        let user = || self.user(access_key).map(KeyOwner::User);
        let account = || self.service_account(access_key).map(KeyOwner::ServiceAccount);
        let temporary = || self.temporary(access_key).map(KeyOwner::Temporary);
        user().or_else(account).or_else(temporary)
    }

    /// Returns the name of the root account.
    pub fn root(&self) -> &UserName {
        &self.root
    }

    /// Returns the user with this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        Some(&*self.user_entries.get(name)?.user.as_ref()?.item)
    }

    /// Returns the group with this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        Some(&*self.group_entries.get(name)?.group.as_ref()?.item)
    }

    /// Returns the service account with this access key.
    pub fn service_account(&self, access_key: &str) -> Option<&ServiceAccount> {
        self.service_accounts.get(access_key).map(|entry| &*entry.item)
    }

    /// Returns the temporary credential with this access key, expired or not.
    pub fn temporary(&self, access_key: &str) -> Option<&TemporaryCredential> {
        self.temporary.get(access_key).map(|entry| &*entry.item)
    }

    /// Returns the policy with this name.
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name).map(|entry| &*entry.item)
    }

    /// Returns the policies that are attached to this user.
    pub fn user_policies(&self, user: &str) -> Option<&PolicyMapping> {
        Some(&*self.user_entries.get(user)?.policies.as_ref()?.item)
    }

    /// Returns the policies that are attached to this group.
    pub fn group_policies(&self, group: &str) -> Option<&PolicyMapping> {
        Some(&*self.group_entries.get(group)?.policies.as_ref()?.item)
    }

    /// Returns the groups that this user is a member of, in order.
    pub fn groups_of(&self, user: &str) -> impl Iterator<Item = &GroupName> {
        self.user_entries
            .get(user)
            .into_iter()
            .flat_map(|user_entry| user_entry.groups.iter().flat_map(|all| all.iter()))
    }

    /// Returns all users, in unspecified order.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.user_entries.values().filter_map(|user_entry| Some(&*user_entry.user.as_ref()?.item))
    }

    /// Returns all groups, in unspecified order.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.group_entries
            .values()
            .filter_map(|group_entry| Some(&*group_entry.group.as_ref()?.item))
    }

    /// Returns all service accounts, in unspecified order.
    pub fn service_accounts(&self) -> impl Iterator<Item = &ServiceAccount> {
        self.service_accounts.values().map(|entry| &*entry.item)
    }

    /// Returns all temporary credentials, expired or not, in unspecified order.
    pub fn temporaries(&self) -> impl Iterator<Item = &TemporaryCredential> {
        self.temporary.values().map(|entry| &*entry.item)
    }

    /// Returns all policies, in unspecified order.
    pub fn policies(&self) -> impl Iterator<Item = (&PolicyName, &Policy)> {
        self.policies.iter().map(|(name, entry)| (name, &*entry.item))
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.totals.items
    }

    /// Returns whether there is nothing but the root account.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the hash of all items. It is equal on two servers with the same items, whatever the
    /// order in which they arrived.
    pub fn content_hash(&self) -> ContentHash {
        self.totals.hash
    }
}

/// Omits the items: there may be very many.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("items", &self.totals.items)
            .field("content_hash", &self.totals.hash)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
