//! The startup of a server: the parts of this program for [`Bootstrap`], which runs them in order.
//!
//! `/health/ready` reports the phase and what it waits for. `cluster_locks`, `deployment_store`,
//! `format_lock` and `system` adapt this server to the interfaces of `iam-bootstrap`.

mod cluster_locks;
mod deployment_store;
mod format_lock;
mod pools;
pub(crate) mod system;

use std::sync::Arc;
use std::time::Duration;

use grid::{Connection, Name};
use iam_bootstrap::bootstrap::BootstrapError;
use iam_bootstrap::deployment::{Conflict, Deployment, DeploymentId};
use iam_bootstrap::model::UserName;
use iam_bootstrap::store::sealed::{Keys, RootSecretError};
use iam_bootstrap::{
    Bootstrap, BootstrapStatus, BuildError, Iam, IamBuilder, IamStore, MemoryStore, SystemConfig,
};
use tokio::sync::watch;

use self::cluster_locks::DsyncLocks;
use self::deployment_store::PoolDeploymentStore;
use self::format_lock::DsyncFormatLock;
use crate::grids::Grids;
use crate::secret::SecretBytes;

pub(crate) use self::pools::{PoolError, directories};

/// Why the startup cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartupError {
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Iam(#[from] BuildError),
    #[error(transparent)]
    Secret(#[from] RootSecretError),
}

/// What a startup is built from.
pub(crate) struct StartupParts<'a> {
    pub(crate) grids: &'a Grids,
    /// All servers, this one included.
    pub(crate) servers: Vec<&'a Name>,
    pub(crate) system: SystemConfig,
    pub(crate) root_user: UserName,
    pub(crate) root_secret: SecretBytes,
    /// Stores of IAM and the deployment id; in memory if empty.
    pub(crate) pools: Vec<Arc<dyn IamStore>>,
}

/// The startup of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Startup {
    bootstrap: Bootstrap,
    iam: Iam,
    root_secret: SecretBytes,
    /// The last error of the store of the deployment id; `None` after a success.
    store_error: Arc<watch::Sender<Option<String>>>,
}

impl Startup {
    /// Registers all handlers. Must be called before the grids are started, inside a runtime.
    pub(crate) fn register(parts: StartupParts<'_>) -> Result<Self, StartupError> {
        let StartupParts { grids, servers, system, root_user, root_secret, mut pools } = parts;
        let is_persistent = !pools.is_empty();
        if !is_persistent {
            pools.push(Arc::new(MemoryStore::new("memory")));
        }
        let servers: Vec<String> = servers.into_iter().map(ToString::to_string).collect();
        let keys = Keys::new(root_secret.expose())?;
        // Never empty: there is at least the memory store.
        let first = pools.first().cloned().ok_or(BuildError::NoPool)?;
        let store_error = Arc::new(watch::Sender::new(None));
        let store = PoolDeploymentStore::new(first, Arc::clone(&store_error));
        let deployment = Deployment::builder(&grids.main, store).env(grids.env.clone());
        let iam = Iam::builder(&grids.main, root_user, keys).env(grids.env.clone());
        let mut iam = iam.servers(servers.clone());
        if is_persistent {
            iam = iam.format_lock(DsyncFormatLock::new(grids.dsync.clone()));
        }
        // Clients are known to the main grid only, and are not peers.
        let known = |peer: &Connection| grids.locks.connection(peer.remote().as_str()).is_some();
        let bootstrap = Bootstrap::builder(&grids.main, system)
            .env(grids.env.clone())
            .peers(grids.main.connections().into_iter().filter(known).collect())
            .deployment(deployment.servers(servers))
            .iam(pools.into_iter().fold(iam, IamBuilder::pool))
            .locks(DsyncLocks::new(grids.dsync.clone()))
            .register()?;
        let iam = bootstrap.iam().cloned().ok_or(BuildError::NoPool)?;
        Ok(Self { bootstrap, iam, root_secret, store_error })
    }

    /// Connects, and starts the startup task, which runs until [`Startup::stop`]. Must be called
    /// once.
    pub(crate) fn start<E>(&self, connect: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.bootstrap.start(connect)
    }

    /// Stops the startup and IAM; see [`Bootstrap::stop`].
    pub(crate) fn stop(&self) {
        self.bootstrap.stop();
    }

    /// Returns the current phase and what it waits for.
    pub(crate) fn status(&self) -> BootstrapStatus {
        let mut status = self.bootstrap.status();
        if status.phase == "agreeing"
            && let Some(error) = self.store_error.borrow().clone()
        {
            status.waiting = Some(error);
        }
        status
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.bootstrap.is_ready()
    }

    /// Waits until the server is ready. Returns false on timeout.
    pub(crate) async fn wait_ready(&self, timeout: Duration) -> bool {
        self.bootstrap.wait_ready(timeout).await
    }

    pub(crate) fn deployment(&self) -> Option<DeploymentId> {
        self.bootstrap.deployment()
    }

    /// Servers that belong to other deployments.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        self.bootstrap.conflicts()
    }

    pub(crate) fn iam(&self) -> &Iam {
        &self.iam
    }

    pub(crate) fn root_secret(&self) -> &SecretBytes {
        &self.root_secret
    }
}
