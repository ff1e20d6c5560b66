//! A group of users.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{GroupName, Status, UserName};
use crate::limits::GROUP_MEMBERS_MAX;

/// Users who have the group's policies besides their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Group {
    name: GroupName,
    members: BTreeSet<UserName>,
    status: Status,
}

/// Why a group cannot be so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// It would have too many members.
    #[error("group {name} may have {GROUP_MEMBERS_MAX} members, not {count}")]
    TooManyMembers {
        /// The group.
        name: GroupName,
        /// How many there would be.
        count: usize,
    },
}

#[derive(Deserialize)]
struct Unchecked {
    name: GroupName,
    members: BTreeSet<UserName>,
    status: Status,
}

impl Group {
    /// An enabled group with these members.
    ///
    /// # Errors
    ///
    /// There are too many of them.
    pub fn new(
        name: GroupName,
        members: impl IntoIterator<Item = UserName>,
    ) -> Result<Self, GroupError> {
        Self { name, members: members.into_iter().collect(), status: Status::Enabled }.checked()
    }

    /// The same group, enabled or disabled.
    #[must_use]
    pub fn with_status(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// The group's name.
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    /// Who is in it, in order. Some may not exist, or not any more.
    pub fn members(&self) -> &BTreeSet<UserName> {
        &self.members
    }

    /// Whether its policies count for its members.
    pub fn status(&self) -> Status {
        self.status
    }

    fn checked(self) -> Result<Self, GroupError> {
        if self.members.len() > GROUP_MEMBERS_MAX {
            return Err(GroupError::TooManyMembers { count: self.members.len(), name: self.name });
        }
        Ok(self)
    }
}

impl TryFrom<Unchecked> for Group {
    type Error = GroupError;

    fn try_from(read: Unchecked) -> Result<Self, GroupError> {
        Self { name: read.name, members: read.members, status: read.status }.checked()
    }
}
