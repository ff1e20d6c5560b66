//! What servers tell and ask each other about users, groups, policies and accounts: msgpack maps.
//!
//! A change travels as a record that is sealed with the key which all servers make of their root
//! secret, and names its path. The handlers have the numbers of existing clusters, by what they load or
//! delete; those that compare copies are ours (PROTOCOL.md, "IAM").

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::store::Kind;

/// A handler that is told of a change.
pub type Tell = SingleHandler<ChangeArgs, ChangeAnswer>;

/// A policy was deleted.
pub const DELETE_POLICY: Tell = Tell::new(HandlerId::new(31), "DeletePolicy");
/// A policy was put.
pub const LOAD_POLICY: Tell = Tell::new(HandlerId::new(32), "LoadPolicy");
/// What is attached to a user or a group was put or deleted.
pub const LOAD_POLICY_MAPPING: Tell = Tell::new(HandlerId::new(33), "LoadPolicyMapping");
/// A service account was deleted.
pub const DELETE_SERVICE_ACCOUNT: Tell = Tell::new(HandlerId::new(34), "DeleteServiceAccount");
/// A service account was put.
pub const LOAD_SERVICE_ACCOUNT: Tell = Tell::new(HandlerId::new(35), "LoadServiceAccount");
/// A user or a temporary credential was deleted.
pub const DELETE_USER: Tell = Tell::new(HandlerId::new(36), "DeleteUser");
/// A user or a temporary credential was put.
pub const LOAD_USER: Tell = Tell::new(HandlerId::new(37), "LoadUser");
/// A group was put or deleted.
pub const LOAD_GROUP: Tell = Tell::new(HandlerId::new(38), "LoadGroup");

/// All of them, and of which kinds of items each is told.
pub(crate) const TELLS: [(Tell, &[Kind]); 8] = [
    (DELETE_POLICY, &[Kind::Policy]),
    (LOAD_POLICY, &[Kind::Policy]),
    (LOAD_POLICY_MAPPING, &[Kind::UserPolicy, Kind::GroupPolicy]),
    (DELETE_SERVICE_ACCOUNT, &[Kind::ServiceAccount]),
    (LOAD_SERVICE_ACCOUNT, &[Kind::ServiceAccount]),
    (DELETE_USER, &[Kind::User, Kind::Temporary]),
    (LOAD_USER, &[Kind::User, Kind::Temporary]),
    (LOAD_GROUP, &[Kind::Group]),
];

/// Which handler is told that an item of this kind was put, or deleted.
pub(crate) const fn tell_of(kind: Kind, is_deletion: bool) -> Tell {
    match (kind, is_deletion) {
        (Kind::Policy, true) => DELETE_POLICY,
        (Kind::Policy, false) => LOAD_POLICY,
        (Kind::UserPolicy | Kind::GroupPolicy, _) => LOAD_POLICY_MAPPING,
        (Kind::ServiceAccount, true) => DELETE_SERVICE_ACCOUNT,
        (Kind::ServiceAccount, false) => LOAD_SERVICE_ACCOUNT,
        (Kind::User | Kind::Temporary, true) => DELETE_USER,
        (Kind::User | Kind::Temporary, false) => LOAD_USER,
        (Kind::Group, _) => LOAD_GROUP,
    }
}

/// Asks for one number for each part of a copy.
pub const DIGEST: SingleHandler<DigestArgs, DigestAnswer> =
    SingleHandler::new(HandlerId::new(140), "IamDigest");
/// Asks for versions.
pub const VERSIONS: SingleHandler<VersionsArgs, VersionsAnswer> =
    SingleHandler::new(HandlerId::new(141), "IamVersions");
/// Asks for records.
pub const RECORDS: SingleHandler<RecordsArgs, RecordsAnswer> =
    SingleHandler::new(HandlerId::new(142), "IamRecords");

/// An item was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeArgs {
    /// Its path.
    #[serde(rename = "Path")]
    pub path: String,
    /// The record, sealed.
    #[serde(rename = "Record")]
    pub record: ByteBuf,
}

/// What came of it. (That it was not taken is an error.)
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeAnswer {
    /// Whether it was news.
    #[serde(rename = "News")]
    pub is_news: bool,
}

/// Asks for a digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DigestArgs {}

/// The digest of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DigestAnswer {
    /// Whether the server has loaded its copy. If not, there is no digest.
    #[serde(rename = "Loaded")]
    pub is_loaded: bool,
    /// 256 numbers of 16 bytes.
    #[serde(rename = "Digest")]
    pub digest: ByteBuf,
}

/// Asks for versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionsArgs {
    /// Of items in these parts.
    #[serde(rename = "Parts")]
    pub parts: ByteBuf,
    /// Whose paths come after this.
    #[serde(rename = "After")]
    pub after: String,
}

/// Versions of items, in the order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionsAnswer {
    /// Path, microseconds, server.
    #[serde(rename = "Versions")]
    pub versions: Vec<(String, u64, u64)>,
    /// Where to go on; empty if this is all.
    #[serde(rename = "Next")]
    pub next: String,
}

/// Asks for the records of these items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordsArgs {
    /// Their paths.
    #[serde(rename = "Paths")]
    pub paths: Vec<String>,
}

/// As many of them as fit, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordsAnswer {
    /// Records, as they are told of.
    #[serde(rename = "Records")]
    pub records: Vec<ChangeArgs>,
    /// How many paths were looked at: whoever wants more asks for those after them.
    #[serde(rename = "Looked")]
    pub looked: u64,
}
