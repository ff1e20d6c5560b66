//! The two grids of a server: one for everything, and one for the traffic of locks alone, so that a
//! lock is refreshed in time whatever else the servers have to say to each other (P1).
//!
//! Guests are known to the first only. They come and go, so nothing that is counted counts them.

use std::collections::BTreeSet;
use std::time::Duration;

use grid::{Auth, BuildError, ConnectionStats, LOCK_GRID_PATH, Manager, Name};

/// Who is in the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members<'a> {
    /// The server whose grids these are.
    pub(crate) local: &'a Name,
    /// All other servers.
    pub(crate) peers: &'a BTreeSet<Name>,
    /// Names that tools may take.
    pub(crate) guests: &'a BTreeSet<Name>,
}

/// Both. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Grids {
    pub(crate) main: Manager,
    pub(crate) locks: Manager,
}

impl Grids {
    /// Builds both; neither does anything before [`start`](Self::start).
    pub(crate) fn build(members: Members<'_>, auth: &Auth) -> Result<Self, BuildError> {
        let Members { local, peers, guests } = members;
        let servers = || peers.iter().chain([local]).map(ToString::to_string);
        let builder = || Manager::builder(local.as_str()).auth(auth.clone()).servers(servers());
        let main = builder().servers(guests.iter().map(ToString::to_string)).build()?;
        let locks = builder().path(LOCK_GRID_PATH).build()?;
        Ok(Self { main, locks })
    }

    /// Begins to connect.
    pub(crate) fn start(&self) -> Result<(), BuildError> {
        self.locks.start()?;
        self.main.start()
    }

    /// What can be seen of all peers on the main grid now, in the order of their names.
    pub(crate) fn peer_stats(&self) -> Vec<ConnectionStats> {
        // Guests are what the grid of the locks does not know.
        let is_peer =
            |stats: &ConnectionStats| self.locks.connection(stats.remote.as_str()).is_some();
        self.main.stats().into_iter().filter(is_peer).collect()
    }

    /// Ends the main grid and then the other: what the first still serves may hold locks.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        self.main.shutdown(grace).await;
        self.locks.shutdown(grace).await;
    }
}
