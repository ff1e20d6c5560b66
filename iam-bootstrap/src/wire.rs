//! Messages between servers about users, groups, policies and accounts: msgpack maps.
//!
//! A change is sent as a record with its path, sealed with the key that all servers derive from
//! their root secret. The change handlers have the ids of existing clusters, by the item that they
//! load or delete; the reconcile handlers are this project's own (PROTOCOL.md, "IAM").

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::store::ItemKind;

/// Handler that receives changes.
pub type ChangeHandler = SingleHandler<ChangeArgs, ChangeResponse>;

/// Deletes a policy.
pub const DELETE_POLICY: ChangeHandler = ChangeHandler::new(HandlerId::new(31), "DeletePolicy");
/// Inserts or replaces a policy.
pub const LOAD_POLICY: ChangeHandler = ChangeHandler::new(HandlerId::new(32), "LoadPolicy");
/// Changes the policies attached to a user or group.
pub const LOAD_POLICY_MAPPING: ChangeHandler =
    ChangeHandler::new(HandlerId::new(33), "LoadPolicyMapping");
/// Deletes a service account.
pub const DELETE_SERVICE_ACCOUNT: ChangeHandler =
    ChangeHandler::new(HandlerId::new(34), "DeleteServiceAccount");
/// Inserts or replaces a service account.
pub const LOAD_SERVICE_ACCOUNT: ChangeHandler =
    ChangeHandler::new(HandlerId::new(35), "LoadServiceAccount");
/// Deletes a user or a temporary credential.
pub const DELETE_USER: ChangeHandler = ChangeHandler::new(HandlerId::new(36), "DeleteUser");
/// Inserts or replaces a user or a temporary credential.
pub const LOAD_USER: ChangeHandler = ChangeHandler::new(HandlerId::new(37), "LoadUser");
/// Changes or deletes a group.
pub const LOAD_GROUP: ChangeHandler = ChangeHandler::new(HandlerId::new(38), "LoadGroup");

/// All change handlers, and the kinds of items that each accepts.
pub(crate) const CHANGE_HANDLERS: [(ChangeHandler, &[ItemKind]); 8] = [
    (DELETE_POLICY, &[ItemKind::Policy]),
    (LOAD_POLICY, &[ItemKind::Policy]),
    (LOAD_POLICY_MAPPING, &[ItemKind::UserPolicy, ItemKind::GroupPolicy]),
    (DELETE_SERVICE_ACCOUNT, &[ItemKind::ServiceAccount]),
    (LOAD_SERVICE_ACCOUNT, &[ItemKind::ServiceAccount]),
    (DELETE_USER, &[ItemKind::User, ItemKind::Temporary]),
    (LOAD_USER, &[ItemKind::User, ItemKind::Temporary]),
    (LOAD_GROUP, &[ItemKind::Group]),
];

/// Returns the handler for a change of an item of this kind.
pub(crate) const fn change_handler(kind: ItemKind, is_deletion: bool) -> ChangeHandler {
    match (kind, is_deletion) {
        (ItemKind::Policy, true) => DELETE_POLICY,
        (ItemKind::Policy, false) => LOAD_POLICY,
        (ItemKind::UserPolicy | ItemKind::GroupPolicy, _) => LOAD_POLICY_MAPPING,
        (ItemKind::ServiceAccount, true) => DELETE_SERVICE_ACCOUNT,
        (ItemKind::ServiceAccount, false) => LOAD_SERVICE_ACCOUNT,
        (ItemKind::User | ItemKind::Temporary, true) => DELETE_USER,
        (ItemKind::User | ItemKind::Temporary, false) => LOAD_USER,
        (ItemKind::Group, _) => LOAD_GROUP,
    }
}

/// Requests the digest of a replica.
pub const DIGEST: SingleHandler<DigestArgs, DigestResponse> =
    SingleHandler::new(HandlerId::new(140), "IamDigest");
/// Requests versions of items.
pub const VERSIONS: SingleHandler<VersionsArgs, VersionsResponse> =
    SingleHandler::new(HandlerId::new(141), "IamVersions");
/// Requests records of items.
pub const RECORDS: SingleHandler<RecordsArgs, RecordsResponse> =
    SingleHandler::new(HandlerId::new(142), "IamRecords");

/// A change of an item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeArgs {
    /// Path of the item.
    #[serde(rename = "Path")]
    pub path: String,
    /// Sealed record.
    #[serde(rename = "Record")]
    pub record: ByteBuf,
}

/// Result of a change. A change that was not applied is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeResponse {
    /// Whether the change was newer than the known version.
    #[serde(rename = "News")]
    pub is_newer: bool,
}

/// Request for a digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DigestArgs {}

/// Digest of a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DigestResponse {
    /// Whether the server has loaded its replica. If not, there is no digest.
    #[serde(rename = "Loaded")]
    pub is_loaded: bool,
    /// 256 numbers of 16 bytes.
    #[serde(rename = "Digest")]
    pub digest: ByteBuf,
}

/// Request for versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionsArgs {
    /// Buckets of the items.
    #[serde(rename = "Parts")]
    pub buckets: ByteBuf,
    /// Path to continue after; empty for the first request.
    #[serde(rename = "After")]
    pub after: String,
}

/// Versions of items, in the order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionsResponse {
    /// Path, microseconds, hash of the server's name.
    #[serde(rename = "Versions")]
    pub versions: Vec<(String, u64, u64)>,
    /// Path to continue after; empty at the end.
    #[serde(rename = "Next")]
    pub next: String,
}

/// Request for records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordsArgs {
    /// Paths of the items.
    #[serde(rename = "Paths")]
    pub paths: Vec<String>,
}

/// Records of the requested items, as many as fit, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordsResponse {
    /// Sealed records, as in a change.
    #[serde(rename = "Records")]
    pub records: Vec<ChangeArgs>,
    /// Number of paths examined: a further request continues with the paths after them.
    #[serde(rename = "Looked")]
    pub examined: u64,
}
