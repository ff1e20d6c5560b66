//! Temporary credentials: keys that expire.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AccessKey, Secret, UserName, UtcMillis};
use crate::policy::Policy;

/// Keys with which a client acts for a user for a limited time: until it expires, a credential has
/// the permissions of a [`ServiceAccount`](super::ServiceAccount) of that user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TemporaryCredential {
    /// Access key with which requests are signed.
    pub access_key: AccessKey,
    /// Secret with which requests are signed.
    pub secret: Secret,
    /// Token that each request must carry.
    pub session_token: Secret,
    /// The user that the client acts for.
    pub parent: UserName,
    /// Restriction of the parent's permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_policy: Option<Arc<Policy>>,
    /// Time of expiry: from then on, all requests are denied.
    pub expires_at: UtcMillis,
}

impl TemporaryCredential {
    /// Creates a credential with the permissions of its parent until it expires.
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
