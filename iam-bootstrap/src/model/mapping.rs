//! Policies attached to a user or a group.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::PolicyName;
use crate::limits::ATTACHED_POLICIES_MAX;

/// The policies that are attached to one user or one group. The path or key of the mapping says to
/// which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedMapping")]
pub struct PolicyMapping {
    policies: BTreeSet<PolicyName>,
}

/// Error of attaching policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// There are too many for one user or group.
    #[error("a user or group may have {ATTACHED_POLICIES_MAX} policies, not {count}")]
    TooMany {
        /// Number of policies.
        count: usize,
    },
}

#[derive(Deserialize)]
struct UncheckedMapping {
    policies: BTreeSet<PolicyName>,
}

impl PolicyMapping {
    /// Creates a mapping. The order does not matter, and duplicates count once.
    ///
    /// # Errors
    ///
    /// There are too many policies.
    pub fn new(policies: impl IntoIterator<Item = PolicyName>) -> Result<Self, MappingError> {
        let policies: BTreeSet<_> = policies.into_iter().collect();
        if policies.len() > ATTACHED_POLICIES_MAX {
            return Err(MappingError::TooMany { count: policies.len() });
        }
        Ok(Self { policies })
    }

    /// Returns the same mapping with other copies of the names.
    pub(crate) fn map_names(self, copy: impl FnMut(PolicyName) -> PolicyName) -> Self {
        Self { policies: self.policies.into_iter().map(copy).collect() }
    }

    /// Returns the names of the policies, in order. Some may not exist, or no longer exist.
    pub fn policies(&self) -> &BTreeSet<PolicyName> {
        &self.policies
    }
}

impl TryFrom<UncheckedMapping> for PolicyMapping {
    type Error = MappingError;

    fn try_from(read: UncheckedMapping) -> Result<Self, MappingError> {
        Self::new(read.policies)
    }
}
