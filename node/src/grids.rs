//! The two grids of a server, and the locks on the second: that one carries the traffic of locks alone,
//! so that a lock is refreshed in time whatever else the servers have to say to each other (P1).
//!
//! Clients are known to the first only. They come and go, so nothing that is counted counts them.

use std::collections::BTreeSet;
use std::time::Duration;

use dsync::{Dsync, Limits};
use grid::{Auth, ConnectionStats, LOCK_GRID_PATH, Manager, Name};

/// Who is in the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members<'a> {
    /// The server whose grids these are.
    pub(crate) local: &'a Name,
    /// All other servers.
    pub(crate) peers: &'a BTreeSet<Name>,
    /// Names that tools may take.
    pub(crate) clients: &'a BTreeSet<Name>,
    /// The servers that grant locks.
    pub(crate) lockers: &'a BTreeSet<Name>,
}

/// Why the grids could not be built or started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GridsError {
    #[error(transparent)]
    Grid(#[from] grid::BuildError),
    #[error(transparent)]
    Locks(#[from] dsync::BuildError),
}

/// Both, and the locks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Grids {
    pub(crate) main: Manager,
    pub(crate) locks: Manager,
    pub(crate) dsync: Dsync,
}

impl Grids {
    /// Builds all; nothing is done before [`start`](Self::start).
    pub(crate) fn build(
        members: Members<'_>,
        auth: &Auth,
        lock_lease: Duration,
    ) -> Result<Self, GridsError> {
        let Members { local, peers, clients, lockers } = members;
        let names = |names: &BTreeSet<Name>| -> Vec<String> {
            names.iter().map(ToString::to_string).collect()
        };
        let builder = || {
            let servers = names(peers).into_iter().chain([local.to_string()]);
            Manager::builder(local.as_str()).auth(auth.clone()).servers(servers)
        };
        let main = builder().servers(names(clients)).build()?;
        let locks = builder().path(LOCK_GRID_PATH).build()?;
        let dsync = Dsync::builder(&locks)
            .lockers(names(lockers))
            .limits(Limits::with_lease(lock_lease))
            .build()?;
        Ok(Self { main, locks, dsync })
    }

    /// Begins to connect, and to find out which locks there are.
    pub(crate) fn start(&self) -> Result<(), GridsError> {
        self.locks.start()?;
        self.dsync.start();
        Ok(self.main.start()?)
    }

    /// What can be seen of all peers on the main grid now, in the order of their names.
    pub(crate) fn peer_stats(&self) -> Vec<ConnectionStats> {
        // Clients are what the grid of the locks does not know.
        let is_peer =
            |stats: &ConnectionStats| self.locks.connection(stats.remote.as_str()).is_some();
        self.main.stats().into_iter().filter(is_peer).collect()
    }

    /// Ends the main grid, the locks, and their grid: what the first still serves may hold locks, and
    /// releasing them takes the last.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        self.main.shutdown(grace).await;
        self.dsync.shutdown(grace).await;
        self.locks.shutdown(grace).await;
    }
}
