//! What a cluster knows of its users, as plain data: users, groups, accounts, and who has which
//! policies.
//!
//! Each item is valid by construction, and has one JSON form: the same item gives the same bytes on
//! each node. A field that this version does not know is ignored, so that a newer node can add some;
//! one that is missing or wrong makes the item corrupt. How items refer to each other is
//! [`snapshot`](crate::snapshot)'s business.

mod group;
mod mapping;
mod names;
mod secret;
mod service_account;
mod temporary;
mod time;
mod user;

pub use group::{Group, GroupError};
pub use mapping::{MappingError, PolicyMapping};
pub use names::{AccessKey, GroupName, NameError, NameProblem, PolicyName, UserName};
pub use secret::{Secret, SecretError};
pub use service_account::{Description, DescriptionError, ServiceAccount};
pub use temporary::TemporaryCredential;
pub use time::UtcMillis;
pub use user::User;

use serde::{Deserialize, Serialize};

/// Whether an account or a group counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    Enabled,
    /// It is kept, and refused: a user may do nothing, a group gives its members nothing.
    Disabled,
}

impl Status {
    /// Whether it is [`Status::Enabled`].
    pub fn is_enabled(self) -> bool {
        self == Self::Enabled
    }
}
