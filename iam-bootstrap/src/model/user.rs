//! A user.

use serde::{Deserialize, Serialize};

use super::{Secret, Status, UserName};

/// Somebody or something that signs requests with a name and a secret key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// The name, which is also the access key.
    pub name: UserName,
    /// What requests are signed with.
    pub secret: Secret,
    /// Whether the user may do anything at all. Holds for the user's accounts as well.
    pub status: Status,
}

impl User {
    /// An enabled user.
    pub fn new(name: UserName, secret: Secret) -> Self {
        Self { name, secret, status: Status::Enabled }
    }
}
