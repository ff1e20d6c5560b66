//! The two grids of a server: the main grid, and the lock grid with the locks on it.
//!
//! The lock grid carries lock traffic only, so that a lock is refreshed in time whatever the load
//! of the main grid ([P1]). Clients connect to the main grid only. They come and go, so no count of
//! servers includes them.
//!
//! [P1]: grid::protocol#p1

use std::collections::BTreeSet;
use std::time::Duration;

use dsync::{Dsync, LeaseClock, Limits};
use grid::{Auth, ConnectionStats, Env, LOCK_GRID_PATH, Manager, Name};

/// The names in a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Members<'a> {
    /// This server.
    pub(crate) local: &'a Name,
    /// All other servers.
    pub(crate) peers: &'a BTreeSet<Name>,
    /// Names for clients.
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

/// Both grids, and the locks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Grids {
    /// The clock and the randomness of everything in this server.
    pub(crate) env: Env,
    pub(crate) main: Manager,
    pub(crate) locks: Manager,
    pub(crate) dsync: Dsync,
}

impl Grids {
    /// Builds the grids in this environment. They do nothing before [`start`](Self::start).
    pub(crate) fn build(
        members: Members<'_>,
        auth: &Auth,
        lock_lease: Duration,
        env: Env,
    ) -> Result<Self, GridsError> {
        let Members { local, peers, clients, lockers } = members;
        let names = |names: &BTreeSet<Name>| -> Vec<String> {
            names.iter().map(ToString::to_string).collect()
        };
        let builder = || {
            let servers = names(peers).into_iter().chain([local.to_string()]);
            Manager::builder(local.as_str()).auth(auth.clone()).env(env.clone()).servers(servers)
        };
        let main = builder().servers(names(clients)).build()?;
        let locks = builder().path(LOCK_GRID_PATH).build()?;
        // Leases expire while a host is suspended.
        let lease_env = env.clone().with_clock(LeaseClock::new());
        let dsync = Dsync::builder(&locks)
            .env(lease_env)
            .lockers(names(lockers))
            .limits(Limits::with_lease(lock_lease))
            .build()?;
        Ok(Self { env, main, locks, dsync })
    }

    /// Starts to connect, to compare the lists of lockers, and to recover which locks are held. Locks
    /// open later, when the startup has verified the cluster.
    pub(crate) fn start(&self) -> Result<(), GridsError> {
        self.locks.start()?;
        self.dsync.start();
        Ok(self.main.start()?)
    }

    /// Returns statistics of all peers on the main grid, ordered by name.
    pub(crate) fn peer_stats(&self) -> Vec<ConnectionStats> {
        // Clients are unknown to the lock grid.
        let is_peer =
            |stats: &ConnectionStats| self.locks.connection(stats.remote.as_str()).is_some();
        self.main.stats().into_iter().filter(is_peer).collect()
    }

    /// Shuts down the main grid, the locks, and the lock grid, in this order: calls on the main
    /// grid may hold locks, and releasing them needs the lock grid.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        self.main.shutdown(grace).await;
        self.dsync.shutdown(grace).await;
        self.locks.shutdown(grace).await;
    }
}
