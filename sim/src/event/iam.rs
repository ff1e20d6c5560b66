//! Words for what happens to users, policies and mappings.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::CallId;
use crate::plan::{ItemChange, Node};

/// Something that happened to them on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "iam", rename_all = "snake_case")]
pub enum IamEvent {
    /// A change is asked for.
    Asked {
        /// By which call.
        call: CallId,
        /// Of which item.
        item: u8,
        /// Which.
        change: ItemChange,
    },
    /// A record is in a pool of the node: of its own change, or of a peer's.
    Kept {
        /// Which pool.
        pool: u8,
        /// The record.
        #[serde(flatten)]
        kept: Kept,
    },
    /// A record was taken out of a pool of the node.
    Forgotten {
        /// Of which item.
        item: u8,
    },
    /// A change is made: whoever asked for it knows.
    Changed {
        /// Which call's.
        call: CallId,
        /// The record of it.
        #[serde(flatten)]
        kept: Kept,
        /// Why peers did not take it, of each that did not.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        untold: Vec<String>,
    },
    /// A change is not made, or nobody knows.
    Refused {
        /// Which call's.
        call: CallId,
        /// Why.
        text: String,
    },
    /// What readers of this node see from now on: all items that there are, and their values.
    Seen {
        /// None before anything is loaded.
        items: Option<Vec<(u8, u32)>>,
    },
    /// It was logged that everything is loaded.
    LoadLogged {
        /// How often a pool had to be tried again, as the line says.
        retries: u32,
    },
    /// The node asks another what it has: the beginning of a comparison.
    Compares {
        /// Which one.
        with: Node,
    },
    /// The node asks another for records that are newer there: what a comparison found.
    Fetches {
        /// Whom.
        from: Node,
    },
}

/// A record of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Of which item.
    pub item: u8,
    /// Its version.
    pub version: RecordVersion,
    /// Its value; none if it says that the item is deleted.
    pub value: Option<u32>,
}

/// The version of a record: later ones are greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordVersion {
    /// Microseconds since 1970.
    pub micros: u64,
    /// The server, by its hash.
    pub server: u64,
}

impl IamEvent {
    /// The call that it happens to, if it is one.
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::Asked { call, .. } | Self::Changed { call, .. } | Self::Refused { call, .. } => {
                Some(*call)
            }
            Self::Kept { .. }
            | Self::Forgotten { .. }
            | Self::Seen { .. }
            | Self::LoadLogged { .. }
            | Self::Compares { .. }
            | Self::Fetches { .. } => None,
        }
    }
}

impl fmt::Display for IamEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked { call, item, change } => {
                let what = match change {
                    ItemChange::Put => "put",
                    ItemChange::Delete => "delete",
                };
                write!(f, "call {call}: {what} item {item}")
            }
            Self::Kept { pool, kept } => write!(f, "pool {pool} keeps {kept}"),
            Self::Forgotten { item } => write!(f, "nothing is kept of item {item}"),
            Self::Changed { call, kept, untold } => {
                write!(f, "call {call}: changed, {kept}")?;
                untold.iter().try_for_each(|cause| write!(f, "; {cause}"))
            }
            Self::Refused { call, text } => write!(f, "call {call}: not changed, {text}"),
            Self::Seen { items: None } => f.write_str("readers see nothing"),
            Self::Seen { items: Some(items) } => {
                write!(f, "readers see")?;
                items.iter().try_for_each(|(item, value)| write!(f, " {item}={value}"))
            }
            Self::LoadLogged { retries } => {
                write!(f, "logs that IAM is loaded, after {retries} retries")
            }
            Self::Compares { with } => write!(f, "compares with {with}"),
            Self::Fetches { from } => write!(f, "takes from {from} what is newer there"),
        }
    }
}

impl fmt::Display for Kept {
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
