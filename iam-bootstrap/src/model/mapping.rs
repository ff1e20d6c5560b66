//! Which policies a user or a group has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::PolicyName;
use crate::limits::ATTACHED_POLICIES_MAX;

/// The policies that are attached to one user or one group. Whose they are is said by where the
/// mapping is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct PolicyMapping {
    policies: BTreeSet<PolicyName>,
}

/// Why policies cannot be attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// There are too many for one user or group.
    #[error("a user or group may have {ATTACHED_POLICIES_MAX} policies, not {count}")]
    TooMany {
        /// How many there would be.
        count: usize,
    },
}

#[derive(Deserialize)]
struct Unchecked {
    policies: BTreeSet<PolicyName>,
}

impl PolicyMapping {
    /// These policies. The order does not matter, and doubles count once.
    ///
    /// # Errors
    ///
    /// There are too many of them.
    pub fn new(policies: impl IntoIterator<Item = PolicyName>) -> Result<Self, MappingError> {
        let policies: BTreeSet<_> = policies.into_iter().collect();
        if policies.len() > ATTACHED_POLICIES_MAX {
            return Err(MappingError::TooMany { count: policies.len() });
        }
        Ok(Self { policies })
    }

    /// The same policies, by other copies of their names.
    pub(crate) fn map_names(self, copy: impl FnMut(PolicyName) -> PolicyName) -> Self {
        Self { policies: self.policies.into_iter().map(copy).collect() }
    }

    /// Their names, in order. Some may not exist, or not any more.
    pub fn policies(&self) -> &BTreeSet<PolicyName> {
        &self.policies
    }
}

impl TryFrom<Unchecked> for PolicyMapping {
    type Error = MappingError;

    fn try_from(read: Unchecked) -> Result<Self, MappingError> {
        Self::new(read.policies)
    }
}
