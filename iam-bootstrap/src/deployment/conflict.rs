//! Which servers belong to other deployments, as far as this one has found out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use grid::Name;

use super::id::DeploymentId;

/// A server belongs to another deployment than this one. Neither takes anything from the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{peer} belongs to deployment {theirs}, this server to {ours}: take one of them out of the other's list of servers, or empty the store of the one that joins"
)]
pub struct Conflict {
    /// The deployment of this server.
    pub ours: DeploymentId,
    /// That of the other one.
    pub theirs: DeploymentId,
    /// The other server.
    pub peer: Name,
}

/// What was found out last about each server.
#[derive(Debug, Default)]
pub(crate) struct Conflicts(Mutex<BTreeMap<Name, Conflict>>);

impl Conflicts {
    /// A server has said that it belongs to another deployment. Logged once, until it says something else.
    pub(crate) fn found(&self, conflict: &Conflict) {
        let earlier = self.lock().insert(conflict.peer.clone(), conflict.clone());
        if earlier.as_ref() != Some(conflict) {
            tracing::error!(target: "bootstrap", peer = %conflict.peer, "{conflict}");
        }
    }

    /// A server belongs to this deployment.
    pub(crate) fn settled(&self, peer: &Name) {
        let earlier = self.lock().remove(peer);
        if let Some(Conflict { ours, .. }) = earlier {
            tracing::info!(target: "bootstrap", %peer, "{peer} belongs to deployment {ours} now, as this server");
        }
    }

    /// What is known of one server.
    pub(crate) fn of(&self, peer: &str) -> Option<Conflict> {
        let conflicts = self.lock();
        conflicts.values().find(|conflict| conflict.peer.as_str() == peer).cloned()
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Conflict> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Conflict>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
