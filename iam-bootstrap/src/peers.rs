//! The servers that replicate with this one.

use std::fmt;
use std::sync::Arc;

use grid::{Connection, Manager, Name};

/// Returns an error with the reason if a peer is not admitted to replication.
pub(crate) type Admission = Arc<dyn Fn(&Name) -> Result<(), String> + Send + Sync>;

/// The other servers of the cluster, and the filter on them.
pub(crate) struct Peers {
    manager: Manager,
    /// Servers that replicate with each other; `None` for all that the manager knows.
    servers: Option<Vec<String>>,
    admission: Admission,
}

impl Peers {
    /// Creates the peers of the server of `manager`.
    pub(crate) fn new(
        manager: Manager,
        servers: Option<Vec<String>>,
        admission: Admission,
    ) -> Self {
        Self { manager, servers, admission }
    }

    /// Returns the connections to the other servers that replicate with this one.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        let mut peers = self.manager.connections();
        if let Some(servers) = &self.servers {
            peers.retain(|peer| servers.iter().any(|server| server == peer.remote().as_str()));
        }
        peers
    }

    /// Checks whether this server replicates with `peer`.
    pub(crate) fn admit(&self, peer: &Name) -> Result<(), String> {
        if let Some(servers) = &self.servers
            && !servers.iter().any(|server| server == peer.as_str())
        {
            return Err(format!("{peer} is none of the servers that keep the same"));
        }
        (self.admission)(peer)
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("servers", &self.servers).finish_non_exhaustive()
    }
}
