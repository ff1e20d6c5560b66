//! What was decided, and why: for who asks "why can she not …".

use std::fmt;

use crate::model::{GroupName, PolicyName};
use crate::policy::{Policy, Statement};

/// Whether something is allowed, and what made it so.
///
/// It borrows from the snapshot that decided: nothing is allocated unless somebody asks for the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decision<'s> {
    /// It may be done.
    Allowed(Ground<'s>),
    /// It must not be done.
    Denied(Refusal<'s>),
}

/// What allows something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ground<'s> {
    /// The root account may do everything, and so may accounts that act for it without a session
    /// policy.
    Root,
    /// A statement allows it: the first of those that do. Of an account with a session policy it is
    /// the session policy's, which is the narrower one.
    Statement(Attached<'s>),
}

/// What denies something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal<'s> {
    /// Nobody has this access key.
    UnknownAccessKey,
    /// The user is disabled: whoever asks, or its parent.
    UserDisabled {
        /// The user.
        user: &'s str,
    },
    /// The service account is disabled.
    AccountDisabled,
    /// The account's keys have expired.
    Expired,
    /// The user for whom the account acts does not exist, or not any more.
    NoParent {
        /// The user.
        user: &'s str,
    },
    /// A statement denies it.
    Statement(Attached<'s>),
    /// No statement allows it.
    NoStatement {
        /// Where one would have to be.
        layer: Layer<'s>,
    },
}

/// Where a statement may come from. Each layer that there is has to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layer<'s> {
    /// The policies of a user and the user's groups.
    User(&'s str),
    /// The session policy of a service account or temporary credential.
    SessionPolicy,
}

/// A statement, and how it comes to matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached<'s> {
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
    /// Whether it may be done.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl<'s> Attached<'s> {
    /// The policy's name; a session policy has none.
    pub fn policy_name(&self) -> Option<&'s PolicyName> {
        match self.source {
            Source::User(_, name) | Source::Group(_, name) => Some(name),
            Source::SessionPolicy => None,
        }
    }

    /// Which statement it is, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The statement itself.
    pub fn statement(&self) -> Option<&'s Statement> {
        self.policy.statements().get(self.index)
    }

    /// The group by whose membership the policy matters, if it is not the user's own.
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
            Self::Allowed(Ground::Root) => f.write_str("allowed: the root account"),
            Self::Allowed(Ground::Statement(statement)) => write!(f, "allowed by {statement}"),
            Self::Denied(Refusal::Statement(statement)) => write!(f, "denied by {statement}"),
            Self::Denied(refusal) => write!(f, "denied: {refusal}"),
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAccessKey => f.write_str("nobody has this access key"),
            Self::UserDisabled { user } => write!(f, "user {user} is disabled"),
            Self::AccountDisabled => f.write_str("the service account is disabled"),
            Self::Expired => f.write_str("the keys have expired"),
            Self::NoParent { user } => {
                write!(f, "user {user}, for whom the account acts, does not exist")
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

impl fmt::Display for Attached<'_> {
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
