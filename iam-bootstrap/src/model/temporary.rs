//! Keys that end by themselves.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AccessKey, Secret, UserName, UtcMillis};
use crate::policy::Policy;

/// Keys with which somebody acts for a user for a while. They may do what a
/// [`ServiceAccount`](super::ServiceAccount) of that user may, and nothing from their end on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TemporaryCredential {
    /// What requests are signed as.
    pub access_key: AccessKey,
    /// What they are signed with.
    pub secret: Secret,
    /// What each request has to bring along.
    pub session_token: Secret,
    /// The user for whom they act.
    pub parent: UserName,
    /// What they are held to, besides what the parent may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_policy: Option<Arc<Policy>>,
    /// From when on they may do nothing.
    pub expires_at: UtcMillis,
}

impl TemporaryCredential {
    /// Keys that may do what the parent may, until they expire.
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
