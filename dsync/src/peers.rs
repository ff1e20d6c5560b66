//! The other servers of one instance, and the lockers among all servers.

use std::collections::BTreeMap;
use std::sync::Arc;

use grid::{Connection, Env};

use crate::batcher::RefreshBatcher;
use crate::local::LocalLocker;
use crate::locker::Locker;

/// Lockers, in the order of their votes, and connections.
pub(crate) struct Peers {
    lockers: Vec<Arc<dyn Locker>>,
    batchers: Vec<Arc<RefreshBatcher>>,
    local_locker: Option<LocalLocker>,
    /// Connections to every other server, by its name.
    connections: BTreeMap<String, Connection>,
}

impl Peers {
    pub(crate) fn new(
        lockers: Vec<Arc<dyn Locker>>,
        local_locker: Option<LocalLocker>,
        connections: Vec<Connection>,
        env: &Env,
    ) -> Self {
        let by_name = |remote: Connection| (remote.remote().to_string(), remote);
        let batcher = |locker: &Arc<dyn Locker>| {
            Arc::new(RefreshBatcher::new(Arc::clone(locker), env.clone()))
        };
        Self {
            batchers: lockers.iter().map(batcher).collect(),
            lockers,
            local_locker,
            connections: connections.into_iter().map(by_name).collect(),
        }
    }

    /// Returns all lockers.
    pub(crate) fn lockers(&self) -> &[Arc<dyn Locker>] {
        &self.lockers
    }

    /// Returns what batches the refreshes of a locker.
    pub(crate) fn batcher(&self, locker: usize) -> Option<&Arc<RefreshBatcher>> {
        self.batchers.get(locker)
    }

    /// Returns this server's locker, if the server is a locker.
    pub(crate) fn local_locker(&self) -> Option<&LocalLocker> {
        self.local_locker.as_ref()
    }

    /// Returns the connection to a server.
    pub(crate) fn connection(&self, name: &str) -> Option<&Connection> {
        self.connections.get(name)
    }

    /// Returns the connections to all other servers.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }
}
