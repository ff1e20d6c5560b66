//! Events of users, policies and mappings.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::CallId;
use crate::plan::{ItemChange, Node};

/// An event of users, policies and mappings on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "iam", rename_all = "snake_case")]
pub enum IamEvent {
    /// A change of an item was requested.
    Requested {
        /// Number of the call.
        call: CallId,
        /// The item.
        item: u8,
        /// The change.
        change: ItemChange,
    },
    /// A pool of the node has persisted a record: of the node's own change, or of a peer's.
    Persisted {
        /// Index of the pool.
        pool: u8,
        /// The record.
        #[serde(flatten)]
        record: ItemRecord,
    },
    /// The record of an item was removed from a pool of the node.
    Removed {
        /// The item.
        item: u8,
    },
    /// A change succeeded, and its caller has the result.
    Changed {
        /// Number of the call.
        call: CallId,
        /// The record of the change.
        #[serde(flatten)]
        record: ItemRecord,
        /// Errors of the peers that did not apply it.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        peer_errors: Vec<String>,
    },
    /// A change failed, or its result is unknown.
    Refused {
        /// Number of the call.
        call: CallId,
        /// The reason.
        text: String,
    },
    /// The snapshot that readers of this node see has changed.
    SnapshotChanged {
        /// All items and their values; none before anything is loaded.
        items: Option<Vec<(u8, u32)>>,
    },
    /// The node logged that everything is loaded.
    LoadLogged {
        /// Number of retries of pools that the log line reports.
        retries: u32,
    },
    /// The node requests the digest of a peer: the start of a reconciliation.
    Reconciles {
        /// The peer.
        with: Node,
    },
    /// The node fetches records that a reconciliation found to be newer at a peer.
    Fetches {
        /// The peer.
        from: Node,
    },
}

/// A record of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// The item.
    pub item: u8,
    /// The version.
    pub version: RecordVersion,
    /// The value; none for a tombstone.
    pub value: Option<u32>,
}

/// The version of a record: later ones are greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordVersion {
    /// Microseconds since the Unix epoch.
    pub micros: u64,
    /// Hash of the server's name.
    pub server: u64,
}

impl IamEvent {
    /// Returns the call that the event belongs to, if there is one.
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::Requested { call, .. }
            | Self::Changed { call, .. }
            | Self::Refused { call, .. } => Some(*call),
            Self::Persisted { .. }
            | Self::Removed { .. }
            | Self::SnapshotChanged { .. }
            | Self::LoadLogged { .. }
            | Self::Reconciles { .. }
            | Self::Fetches { .. } => None,
        }
    }
}

impl fmt::Display for IamEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested { call, item, change } => {
                let kind = match change {
                    ItemChange::Put => "put",
                    ItemChange::Delete => "delete",
                };
                write!(f, "call {call}: {kind} item {item}")
            }
            Self::Persisted { pool, record } => write!(f, "pool {pool} persisted {record}"),
            Self::Removed { item } => write!(f, "item {item} removed"),
            Self::Changed { call, record, peer_errors } => {
                write!(f, "call {call}: changed, {record}")?;
                peer_errors.iter().try_for_each(|cause| write!(f, "; {cause}"))
            }
            Self::Refused { call, text } => write!(f, "call {call}: not changed, {text}"),
            Self::SnapshotChanged { items: None } => f.write_str("readers see nothing"),
            Self::SnapshotChanged { items: Some(items) } => {
                write!(f, "readers see")?;
                items.iter().try_for_each(|(item, value)| write!(f, " {item}={value}"))
            }
            Self::LoadLogged { retries } => {
                write!(f, "logs that IAM is loaded, after {retries} retries")
            }
            Self::Reconciles { with } => write!(f, "reconciles with {with}"),
            Self::Fetches { from } => write!(f, "fetches newer records from {from}"),
        }
    }
}

impl fmt::Display for ItemRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { item, version, value } = self;
        match value {
            Some(value) => write!(f, "item {item} = {value} of {version}"),
            None => write!(f, "item {item} deleted at {version}"),
        }
    }
}

impl fmt::Display for RecordVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:04x}", self.micros, self.server & 0xffff)
    }
}
