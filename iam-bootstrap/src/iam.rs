//! One server's replica of all users, groups, policies and accounts, as an application uses it.
//!
//! Readers take the current snapshot, without a lock. All changes go through one task (`writer`),
//! which writes to the pool first. `broadcast` sends a change to the peers, `reconcile` finds and
//! applies changes that this server missed, and `serve` handles the same requests from peers.
//! `startup` loads the pools and starts these tasks. This file only passes calls on.

mod builder;

use std::fmt;
use std::sync::Arc;

use grid::sync::Mutex;

use crate::codec::Change;
use crate::load::LoadError;
use crate::serve::PeerHandlers;
use crate::snapshot::{Item, ItemKey, Snapshot};
use crate::startup::Startup;
use crate::state::IamState;
use crate::tasks::Tasks;
use crate::writer::WriterHandle;

pub use crate::change::{ChangeError, ChangeOutcome};
pub use crate::state::Phase;
pub use builder::{BuildError, IamBuilder};

/// Error of [`Iam::ready`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// Loading failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server shuts down before the replica is ready.
    #[error("IAM is not loaded: the server is shutting down")]
    ShuttingDown,
}

/// One server's replica of all IAM items. Cheap to clone.
#[derive(Clone)]
pub struct Iam {
    state: Arc<IamState>,
    writer: WriterHandle,
    tasks: Tasks,
    /// Taken by the first [`Iam::start`].
    startup: Arc<Mutex<Option<Startup>>>,
    /// The manager's handlers do not keep these alive themselves.
    _handlers: Arc<PeerHandlers>,
}

impl fmt::Debug for Iam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iam").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Iam {
    /// Starts loading in the background, until [`Iam::shutdown`]. Must be called inside a tokio
    /// runtime; further calls do nothing.
    pub fn start(&self) {
        let startup = self.startup.lock().take();
        if let Some(startup) = startup {
            self.tasks.spawn(startup.run());
        }
    }

    /// Stops all background tasks. Snapshots can still be read; no further change is made. A
    /// pending change returns [`ChangeError::ShuttingDown`]: it may have been made. A pending
    /// [`Iam::ready`] returns [`ReadyError::ShuttingDown`].
    pub fn shutdown(&self) {
        self.tasks.shut_down();
    }

    /// Returns the current snapshot; `None` until everything is loaded, never a part of it ([B61]).
    /// Takes no lock.
    ///
    /// [B61]: crate::rules#b61
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.state.snapshot()
    }

    /// Returns the current phase.
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// Waits until the replica is ready.
    ///
    /// # Errors
    ///
    /// [`ReadyError`] if it never will be.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn ready(&self) -> Result<(), ReadyError> {
        let mut phases = self.state.phases();
        let settled = phases.wait_for(|phase| matches!(phase, Phase::Ready | Phase::Failed(_)));
        tokio::select! {
            biased;
            phase = settled => match phase.as_deref() {
                Ok(Phase::Failed(error)) => Err(error.clone().into()),
                _ => Ok(()), // The sender lives as long as `self`.
            },
            () = self.tasks.wait_shut_down() => Err(ReadyError::ShuttingDown),
        }
    }

    /// Inserts or replaces an item: first in the pool, then in the local snapshot, then on all
    /// peers.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]. A peer that did not apply the change is not an error.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the change is made and broadcast even if this future is dropped.
    pub async fn put(&self, item: Item) -> Result<ChangeOutcome, ChangeError> {
        self.writer.change(Change::Put(item)).await
    }

    /// Deletes an item, in the same way. A peer that missed the deletion does not bring the item
    /// back.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    ///
    /// # Cancel safety
    ///
    /// As [`Iam::put`].
    pub async fn delete(&self, key: ItemKey) -> Result<ChangeOutcome, ChangeError> {
        self.writer.change(Change::Delete(key)).await
    }
}
