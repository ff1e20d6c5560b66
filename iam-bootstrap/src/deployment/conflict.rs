//! Servers known to belong to other deployments.

use std::collections::BTreeMap;

use grid::Name;
use grid::sync::Mutex;

use super::id::DeploymentId;

/// A server belongs to another deployment than this one. Neither accepts data from the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{peer} belongs to deployment {theirs}, this server to {ours}: remove one of them from the other's list of servers, or empty the store of the one that joins"
)]
pub struct Conflict {
    /// Deployment of this server.
    pub ours: DeploymentId,
    /// Deployment of the other server.
    pub theirs: DeploymentId,
    /// The other server.
    pub peer: Name,
}

/// Latest conflict with each server.
#[derive(Debug, Default)]
pub(crate) struct Conflicts(Mutex<BTreeMap<Name, Conflict>>);

impl Conflicts {
    /// Records that a server belongs to another deployment. Logs it once, until the server reports
    /// another id.
    pub(crate) fn record_conflict(&self, conflict: &Conflict) {
        let earlier = self.0.lock().insert(conflict.peer.clone(), conflict.clone());
        if earlier.as_ref() != Some(conflict) {
            tracing::error!(
                target: "bootstrap", peer = %conflict.peer, error = %conflict,
                "deployment conflict"
            );
        }
    }

    /// Records that a server belongs to this deployment.
    pub(crate) fn resolve(&self, peer: &Name) {
        let earlier = self.0.lock().remove(peer);
        if let Some(Conflict { ours, .. }) = earlier {
            tracing::info!(
                target: "bootstrap", %peer, deployment = %ours,
                "deployment conflict resolved"
            );
        }
    }

    /// Returns the conflict with a server.
    pub(crate) fn of(&self, peer: &str) -> Option<Conflict> {
        let conflicts = self.0.lock();
        conflicts.values().find(|conflict| conflict.peer.as_str() == peer).cloned()
    }

    /// Returns all conflicts, in the order of the servers' names.
    pub(crate) fn all(&self) -> Vec<Conflict> {
        self.0.lock().values().cloned().collect()
    }
}
