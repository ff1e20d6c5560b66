//! Temporary credentials: keys that expire.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AccessKey, Secret, UserName, UtcMillis};
use crate::policy::Policy;

/// Keys with which a client acts for a user for a limited time. They may do what a
/// [`ServiceAccount`](super::ServiceAccount) of that user may, and nothing once they have expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TemporaryCredential {
    /// Access key with which requests are signed.
    pub access_key: AccessKey,
    /// Secret with which requests are signed.
    pub secret: Secret,
    /// Token that each request must carry.
    pub session_token: Secret,
    /// The user that they act for.
    pub parent: UserName,
    /// Restriction of the parent's rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_policy: Option<Arc<Policy>>,
    /// Time from which on they may do nothing.
    pub expires_at: UtcMillis,
}

impl TemporaryCredential {
    /// Creates keys that may do what the parent may, until they expire.
    pub fn new(
        access_key: AccessKey,
        secret: Secret,
        session_token: Secret,
        parent: UserName,
        expires_at: UtcMillis,
    ) -> Self {
        Self { access_key, secret, session_token, parent, session_policy: None, expires_at }
    }
}
