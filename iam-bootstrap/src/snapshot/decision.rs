//! Access decisions with their reason, so that an operator can see why a request was denied.

use std::fmt;

use crate::model::{GroupName, PolicyName};
use crate::policy::{Policy, Statement};

/// Whether an action is allowed, and the reason.
///
/// It borrows from the snapshot: nothing is allocated unless the text is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decision<'s> {
    /// The action is allowed.
    Allowed(AllowReason<'s>),
    /// The action is denied.
    Denied(DenyReason<'s>),
}

/// Reason why an action is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllowReason<'s> {
    /// The root account has all permissions, and so do accounts that act for it without a session
    /// policy.
    Root,
    /// The first statement that allows it. For an account with a session policy, the statement of
    /// that policy, which is the narrower one.
    Statement(AttachedStatement<'s>),
}

/// Reason why an action is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DenyReason<'s> {
    /// The access key is unknown.
    UnknownAccessKey,
    /// The user, or the parent of the account, is disabled.
    UserDisabled {
        /// The disabled user.
        user: &'s str,
    },
    /// The service account is disabled.
    AccountDisabled,
    /// The account's keys have expired.
    Expired,
    /// The parent of the account does not exist, or no longer exists.
    NoParent {
        /// Name of the missing user.
        user: &'s str,
    },
    /// A statement denies it.
    Statement(AttachedStatement<'s>),
    /// No statement allows it.
    NoStatement {
        /// Layer without an allowing statement.
        layer: Layer<'s>,
    },
}

/// Origin of statements. Each layer that applies has to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer<'s> {
    /// The policies of a user and the user's groups.
    User(&'s str),
    /// The session policy of a service account or temporary credential.
    SessionPolicy,
}

/// A statement, and how it is attached to the principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedStatement<'s> {
    pub(super) source: Source<'s>,
    pub(super) policy: &'s Policy,
    pub(super) index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source<'s> {
    User(&'s str, &'s PolicyName),
    Group(&'s GroupName, &'s PolicyName),
    SessionPolicy,
}

impl Decision<'_> {
    /// Returns whether the action is allowed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl<'s> AttachedStatement<'s> {
    /// Returns the policy's name; `None` for a session policy.
    pub fn policy_name(&self) -> Option<&'s PolicyName> {
        match self.source {
            Source::User(_, name) | Source::Group(_, name) => Some(name),
            Source::SessionPolicy => None,
        }
    }

    /// Returns the index of the statement, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the statement.
    pub fn statement(&self) -> Option<&'s Statement> {
        self.policy.statements().get(self.index)
    }

    /// Returns the group to which the policy is attached; `None` for the user's own and session
    /// policies.
    pub fn group(&self) -> Option<&'s GroupName> {
        match self.source {
            Source::Group(group, _) => Some(group),
            Source::User(..) | Source::SessionPolicy => None,
        }
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(AllowReason::Root) => f.write_str("allowed: the root account"),
            Self::Allowed(AllowReason::Statement(statement)) => write!(f, "allowed by {statement}"),
            Self::Denied(DenyReason::Statement(statement)) => write!(f, "denied by {statement}"),
            Self::Denied(refusal) => write!(f, "denied: {refusal}"),
        }
    }
}

impl fmt::Display for DenyReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAccessKey => f.write_str("unknown access key"),
            Self::UserDisabled { user } => write!(f, "user {user} is disabled"),
            Self::AccountDisabled => f.write_str("the service account is disabled"),
            Self::Expired => f.write_str("the keys have expired"),
            Self::NoParent { user } => {
                write!(f, "user {user}, the parent of the account, does not exist")
            }
            Self::Statement(statement) => statement.fmt(f),
            Self::NoStatement { layer } => write!(f, "no statement of {layer} allows it"),
        }
    }
}

impl fmt::Display for Layer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::SessionPolicy => f.write_str("the session policy"),
        }
    }
}

impl fmt::Display for AttachedStatement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement {}", self.index + 1)?;
        if let Some(sid) = self.statement().and_then(Statement::sid) {
            write!(f, " ({sid:?})")?;
        }
        match self.source {
            Source::User(user, policy) => write!(f, " of policy {policy}, attached to user {user}"),
            Source::Group(group, policy) => {
                write!(f, " of policy {policy}, attached to group {group}")
            }
            Source::SessionPolicy => f.write_str(" of the session policy"),
        }
    }
}
