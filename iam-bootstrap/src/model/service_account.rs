//! Keys that a user gives to a program.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AccessKey, Secret, Status, UserName, UtcMillis};
use crate::limits::DESCRIPTION_BYTES_MAX;
use crate::policy::Policy;

/// Keys of their own for what acts for a user. It may do what its parent may and, if it has a
/// session policy, of that only what the session policy allows as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceAccount {
    /// What it signs requests as.
    pub access_key: AccessKey,
    /// What it signs them with.
    pub secret: Secret,
    /// The user for whom it acts.
    pub parent: UserName,
    /// Whether it may do anything at all.
    pub status: Status,
    /// What it is held to, besides what its parent may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_policy: Option<Arc<Policy>>,
    /// From when on it may do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UtcMillis>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Description::is_empty")]
    pub description: Description,
}

impl ServiceAccount {
    /// An enabled account that may do what its parent may, until it is deleted.
    pub fn new(access_key: AccessKey, secret: Secret, parent: UserName) -> Self {
        Self {
            access_key,
            secret,
            parent,
            status: Status::Enabled,
            session_policy: None,
            expires_at: None,
            description: Description::default(),
        }
    }
}

/// What an operator says of an account: free text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Description(Box<str>);

/// Why a text is no description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// There is too much of it.
    #[error("a description may have {DESCRIPTION_BYTES_MAX} bytes, not {bytes}")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
}

impl Description {
    /// This text.
    ///
    /// # Errors
    ///
    /// It is too long.
    pub fn new(text: &str) -> Result<Self, DescriptionError> {
        if text.len() > DESCRIPTION_BYTES_MAX {
            return Err(DescriptionError::TooLong { bytes: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<String> for Description {
    type Error = DescriptionError;

    fn try_from(text: String) -> Result<Self, DescriptionError> {
        Self::new(&text)
    }
}

impl From<Description> for String {
    fn from(description: Description) -> Self {
        description.0.into()
    }
}
