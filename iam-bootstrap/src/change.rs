//! What a change of an item returns to its caller.

use std::collections::BTreeMap;

use grid::Name;

use crate::record::Version;
use crate::snapshot::ItemKey;
use crate::store::StoreError;

/// Error of [`Iam::put`](crate::Iam::put) and [`Iam::delete`](crate::Iam::delete).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Nothing is loaded yet. Nothing was changed.
    #[error("IAM cannot be changed yet: this server is {phase}")]
    NotReady {
        /// The current phase.
        phase: String,
    },
    /// The item to delete does not exist.
    #[error("there is no {key}")]
    NotFound {
        /// Key of the item to delete.
        key: ItemKey,
    },
    /// Too many changes are queued. Nothing was changed.
    #[error("{max} changes are queued already: try again later")]
    Overloaded {
        /// [`CHANGES_QUEUED_MAX`](crate::limits::CHANGES_QUEUED_MAX).
        max: usize,
    },
    /// There are too many items. Nothing was changed.
    #[error("there are {max} items already, deleted ones of the last months included")]
    Full {
        /// [`ITEMS_MAX`](crate::limits::ITEMS_MAX).
        max: usize,
    },
    /// The pool refused the write. After [`StoreError::Unavailable`] the outcome is unknown: the
    /// change may take effect when this server is restarted.
    #[error("not changed: {0}")]
    Store(#[from] StoreError),
    /// The server is shutting down.
    #[error("not changed: the server is shutting down")]
    ShuttingDown,
}

/// Outcome of a change that is durable on this server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeOutcome {
    /// Version of the change.
    pub version: Version,
    /// Result of the broadcast to each peer. A peer that failed fetches the change when it
    /// reconnects, or at the next reconciliation.
    pub peers: BTreeMap<Name, Result<(), String>>,
}
