//! A group of users.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{GroupName, Status, UserName};
use crate::limits::GROUP_MEMBERS_MAX;

/// Users who have the group's policies in addition to their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedGroup")]
pub struct Group {
    name: GroupName,
    members: BTreeSet<UserName>,
    status: Status,
}

/// Error of creating a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The group would have too many members.
    #[error("group {name} may have {GROUP_MEMBERS_MAX} members, not {count}")]
    TooManyMembers {
        /// Name of the group.
        name: GroupName,
        /// Number of members.
        count: usize,
    },
}

#[derive(Deserialize)]
struct UncheckedGroup {
    name: GroupName,
    members: BTreeSet<UserName>,
    status: Status,
}

impl Group {
    /// Creates an enabled group with these members.
    ///
    /// # Errors
    ///
    /// There are too many members.
    pub fn new(
        name: GroupName,
        members: impl IntoIterator<Item = UserName>,
    ) -> Result<Self, GroupError> {
        Self { name, members: members.into_iter().collect(), status: Status::Enabled }.checked()
    }

    /// Returns the group, enabled or disabled.
    #[must_use]
    pub fn with_status(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// Returns the group's name.
    pub fn name(&self) -> &GroupName {
        &self.name
    }

    /// Returns the members, in order. Some may not exist, or no longer exist.
    pub fn members(&self) -> &BTreeSet<UserName> {
        &self.members
    }

    /// Returns whether its policies apply to its members.
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

impl TryFrom<UncheckedGroup> for Group {
    type Error = GroupError;

    fn try_from(read: UncheckedGroup) -> Result<Self, GroupError> {
        Self { name: read.name, members: read.members, status: read.status }.checked()
    }
}
