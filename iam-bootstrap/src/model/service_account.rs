//! Service accounts: keys that a user gives to a program.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AccessKey, Secret, Status, UserName, UtcMillis};
use crate::limits::DESCRIPTION_BYTES_MAX;
use crate::policy::Policy;

/// Separate keys for a program that acts for a user. The account may do what its parent may and,
/// with a session policy, only what that policy allows as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceAccount {
    /// Access key that signs the requests.
    pub access_key: AccessKey,
    /// Secret that signs the requests.
    pub secret: Secret,
    /// The user that the account acts for.
    pub parent: UserName,
    /// Whether the account is enabled.
    pub status: Status,
    /// Restriction of the parent's permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_policy: Option<Arc<Policy>>,
    /// Time of expiry: from then on, all requests are denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UtcMillis>,
    /// Purpose of the account.
    #[serde(default, skip_serializing_if = "Description::is_empty")]
    pub description: Description,
}

impl ServiceAccount {
    /// Creates an enabled account that may do what its parent may, until it is deleted.
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

/// An operator's free-text description of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Description(Box<str>);

/// Error of an invalid description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// The text is too long.
    #[error("a description may have {DESCRIPTION_BYTES_MAX} bytes, not {bytes}")]
    TooLong {
        /// Length of the text in bytes.
        bytes: usize,
    },
}

impl Description {
    /// Creates a description.
    ///
    /// # Errors
    ///
    /// The text is too long.
    pub fn new(text: &str) -> Result<Self, DescriptionError> {
        if text.len() > DESCRIPTION_BYTES_MAX {
            return Err(DescriptionError::TooLong { bytes: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the text is empty.
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
