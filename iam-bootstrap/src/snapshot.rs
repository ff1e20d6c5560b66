//! All that is known of users and their rights at one moment.
//!
//! A [`Snapshot`] never changes, so that who asks it twice gets answers that fit together. One with a
//! change is derived from it ([`Snapshot::with`], [`Snapshot::without`]) and shares with it all that
//! did not change: the cost is that of the item, not of how many there are. Where snapshots come from
//! and who sees which is the loader's business.

mod builder;
mod decision;
mod entry;
mod evaluate;
mod findings;
mod hash;
mod item;
mod people;

pub use builder::SnapshotBuilder;
pub use decision::{Attached, Decision, Ground, Layer, Refusal};
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
use entry::{Entry, Sum};
use people::{Person, Team};

/// A map of which a changed copy shares what did not change. Its hasher is fixed: replays need it.
/// (Names are chosen by operators, who have simpler ways to be slow than colliding hashes.)
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
    /// The account that may do everything, and is kept in no store.
    root: UserName,
    people: Map<UserName, Person>,
    teams: Map<GroupName, Team>,
    service_accounts: Map<AccessKey, Entry<ServiceAccount>>,
    temporary: Map<AccessKey, Entry<TemporaryCredential>>,
    policies: Map<PolicyName, Entry<Policy>>,
    sum: Sum,
}

/// Whose keys an access key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder<'s> {
    /// The root account, whose secret is not kept here.
    Root,
    /// A user.
    User(&'s User),
    /// A service account.
    ServiceAccount(&'s ServiceAccount),
    /// A temporary credential. Its session token must be checked as well.
    Temporary(&'s TemporaryCredential),
}

impl<'s> Holder<'s> {
    /// What requests are signed with. The root account's is not known here.
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
    /// Nothing but the root account.
    pub fn empty(root: UserName) -> Self {
        Self {
            root,
            people: map(),
            teams: map(),
            service_accounts: map(),
            temporary: map(),
            policies: map(),
            sum: Sum::default(),
        }
    }

    /// Whose keys these are: the root account's, a user's, a service account's, or temporary ones, in
    /// this order. (That two have the same is a [`Finding`].)
    pub fn holder(&self, access_key: &str) -> Option<Holder<'_>> {
        if access_key == &*self.root {
            return Some(Holder::Root);
        }
        let user = || self.user(access_key).map(Holder::User);
        let account = || self.service_account(access_key).map(Holder::ServiceAccount);
        let temporary = || self.temporary(access_key).map(Holder::Temporary);
        user().or_else(account).or_else(temporary)
    }

    /// The name of the account that may do everything.
    pub fn root(&self) -> &UserName {
        &self.root
    }

    /// The user with this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        Some(&*self.people.get(name)?.user.as_ref()?.item)
    }

    /// The group with this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        Some(&*self.teams.get(name)?.group.as_ref()?.item)
    }

    /// The service account with this access key.
    pub fn service_account(&self, access_key: &str) -> Option<&ServiceAccount> {
        self.service_accounts.get(access_key).map(|entry| &*entry.item)
    }

    /// The temporary credential with this access key, expired or not.
    pub fn temporary(&self, access_key: &str) -> Option<&TemporaryCredential> {
        self.temporary.get(access_key).map(|entry| &*entry.item)
    }

    /// The policy with this name.
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name).map(|entry| &*entry.item)
    }

    /// The policies that are attached to this user.
    pub fn user_policies(&self, user: &str) -> Option<&PolicyMapping> {
        Some(&*self.people.get(user)?.policies.as_ref()?.item)
    }

    /// The policies that are attached to this group.
    pub fn group_policies(&self, group: &str) -> Option<&PolicyMapping> {
        Some(&*self.teams.get(group)?.policies.as_ref()?.item)
    }

    /// The groups that this user is a member of, in order.
    pub fn groups_of(&self, user: &str) -> impl Iterator<Item = &GroupName> {
        self.people
            .get(user)
            .into_iter()
            .flat_map(|person| person.groups.iter().flat_map(|all| all.iter()))
    }

    /// All users, in no order.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.people.values().filter_map(|person| Some(&*person.user.as_ref()?.item))
    }

    /// All groups, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.teams.values().filter_map(|team| Some(&*team.group.as_ref()?.item))
    }

    /// All service accounts, in no order.
    pub fn service_accounts(&self) -> impl Iterator<Item = &ServiceAccount> {
        self.service_accounts.values().map(|entry| &*entry.item)
    }

    /// All temporary credentials, expired or not, in no order.
    pub fn temporaries(&self) -> impl Iterator<Item = &TemporaryCredential> {
        self.temporary.values().map(|entry| &*entry.item)
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl Iterator<Item = (&PolicyName, &Policy)> {
        self.policies.iter().map(|(name, entry)| (name, &*entry.item))
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.sum.items
    }

    /// Whether there is nothing but the root account.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of all items: the same on two nodes that know the same, whatever the order in which
    /// they learned it.
    pub fn content_hash(&self) -> ContentHash {
        self.sum.hash
    }
}

/// Not the items: there may be very many.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("items", &self.sum.items)
            .field("content_hash", &self.sum.hash)
            .finish_non_exhaustive()
    }
}
