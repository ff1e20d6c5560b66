//! Servers known to belong to other deployments.

use std::collections::BTreeMap;

use grid::Name;
use tokio::sync::watch;

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
pub(crate) struct Conflicts(watch::Sender<BTreeMap<Name, Conflict>>);

impl Conflicts {
    /// Records that a server belongs to another deployment. Logs it once, until the server reports
    /// another id.
    pub(crate) fn record_conflict(&self, conflict: &Conflict) {
        let is_new = self.0.send_if_modified(|conflicts| {
            let earlier = conflicts.insert(conflict.peer.clone(), conflict.clone());
            earlier.as_ref() != Some(conflict)
        });
        if is_new {
            tracing::error!(
                target: "bootstrap", peer = %conflict.peer, error = %conflict,
                "deployment conflict"
            );
        }
    }

    /// Records that a server belongs to this deployment.
    pub(crate) fn resolve(&self, peer: &Name) {
        let mut earlier = None;
        self.0.send_if_modified(|conflicts| {
            earlier = conflicts.remove(peer);
            earlier.is_some()
        });
        if let Some(Conflict { ours, .. }) = earlier {
            tracing::info!(
                target: "bootstrap", %peer, deployment = %ours,
                "deployment conflict resolved"
            );
        }
    }

    /// Returns the conflict with a server.
    pub(crate) fn of(&self, peer: &str) -> Option<Conflict> {
        let conflicts = self.0.borrow();
        conflicts.values().find(|conflict| conflict.peer.as_str() == peer).cloned()
    }

    /// Returns all conflicts, in the order of the servers' names.
    pub(crate) fn all(&self) -> Vec<Conflict> {
        self.0.borrow().values().cloned().collect()
    }

    /// Subscribes to changes.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<Name, Conflict>> {
        self.0.subscribe()
    }
}
