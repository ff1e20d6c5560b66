//! A user.

use serde::{Deserialize, Serialize};

use super::{Secret, Status, UserName};

/// A person or program that signs requests with a name and a secret key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// Name, which is also the access key.
    pub name: UserName,
    /// Secret with which requests are signed.
    pub secret: Secret,
    /// Whether the user is enabled. Applies to the user's accounts as well.
    pub status: Status,
}

impl User {
    /// Creates an enabled user.
    pub fn new(name: UserName, secret: Secret) -> Self {
        Self { name, secret, status: Status::Enabled }
    }
}
