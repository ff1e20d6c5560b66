//! Users, groups, accounts and policy attachments of a cluster, as plain data.
//!
//! Each item is valid by construction, and has one JSON form: the same item gives the same bytes on
//! each server. An unknown field is ignored, so that a newer server can add fields; a missing or
//! invalid field makes the item corrupt. References between items are handled in
//! [`snapshot`](crate::snapshot).

mod group;
mod mapping;
mod names;
mod secret;
mod service_account;
mod temporary;
mod user;

pub use group::{Group, GroupError};
pub use mapping::{MappingError, PolicyMapping};
pub use names::{AccessKey, GroupName, NameError, NameProblem, PolicyName, UserName};
pub use secret::{Secret, SecretError};
pub use service_account::{Description, DescriptionError, ServiceAccount};
pub use temporary::TemporaryCredential;
pub use user::User;

pub use crate::time::UtcMillis;

use serde::{Deserialize, Serialize};

/// Status of an account or a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The account or group is in effect.
    Enabled,
    /// The account or group is kept but has no effect: a user may do nothing, a group grants
    /// nothing to its members.
    Disabled,
}

impl Status {
    /// Returns whether it is [`Status::Enabled`].
    pub fn is_enabled(self) -> bool {
        self == Self::Enabled
    }
}
