//! Items of a snapshot, and their keys.

use std::fmt;
use std::sync::Arc;

use crate::model::{
    AccessKey, Group, GroupName, PolicyMapping, PolicyName, ServiceAccount, TemporaryCredential,
    User, UserName,
};
use crate::policy::Policy;

/// One item of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// A user.
    User(User),
    /// A group.
    Group(Group),
    /// A service account.
    ServiceAccount(ServiceAccount),
    /// A temporary credential.
    Temporary(TemporaryCredential),
    /// A policy and its name.
    Policy(PolicyName, Arc<Policy>),
    /// The policies attached to a user.
    UserPolicies(UserName, PolicyMapping),
    /// The policies attached to a group.
    GroupPolicies(GroupName, PolicyMapping),
}

/// Key of an item: its kind and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ItemKey {
    /// The user with this name.
    User(UserName),
    /// The group with this name.
    Group(GroupName),
    /// The service account with this access key.
    ServiceAccount(AccessKey),
    /// The temporary credential with this access key.
    Temporary(AccessKey),
    /// The policy with this name.
    Policy(PolicyName),
    /// The policies attached to this user.
    UserPolicies(UserName),
    /// The policies attached to this group.
    GroupPolicies(GroupName),
}

impl Item {
    /// Returns the key.
    pub fn key(&self) -> ItemKey {
        match self {
            Self::User(user) => ItemKey::User(user.name.clone()),
            Self::Group(group) => ItemKey::Group(group.name().clone()),
            Self::ServiceAccount(account) => ItemKey::ServiceAccount(account.access_key.clone()),
            Self::Temporary(credential) => ItemKey::Temporary(credential.access_key.clone()),
            Self::Policy(name, _) => ItemKey::Policy(name.clone()),
            Self::UserPolicies(user, _) => ItemKey::UserPolicies(user.clone()),
            Self::GroupPolicies(group, _) => ItemKey::GroupPolicies(group.clone()),
        }
    }
}

impl ItemKey {
    /// Returns the kind, in the words of operators.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Group(_) => "group",
            Self::ServiceAccount(_) => "service account",
            Self::Temporary(_) => "temporary credential",
            Self::Policy(_) => "policy",
            Self::UserPolicies(_) => "policies of user",
            Self::GroupPolicies(_) => "policies of group",
        }
    }

    /// Returns the name within the kind.
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::UserPolicies(name) => name,
            Self::Group(name) | Self::GroupPolicies(name) => name,
            Self::ServiceAccount(access_key) | Self::Temporary(access_key) => access_key,
            Self::Policy(name) => name,
        }
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}
