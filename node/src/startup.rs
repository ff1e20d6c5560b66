//! The startup of a server, from "process started" to "ready": verifies that its peers run the same
//! configuration, agrees on the deployment, and loads IAM.
//!
//! ```text
//!   Verifying ──► Agreeing ──► Iam: loading ──► catching up ──► Ready
//!                    │          │
//!                    └──────────┴──► Failed: an error that waiting does not fix
//! ```
//!
//! Each step waits without limit for peers and disks. `/health/ready` reports the phase and what it
//! waits for. `deployment_store`, `format_lock` and `system` adapt this server to the interfaces of
//! `iam-bootstrap`.

mod deployment_store;
mod format_lock;
mod pools;
pub(crate) mod system;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use grid::{Connection, Env, Name, RegisterError};
use iam_bootstrap::deployment::{Conflict, Deployment, DeploymentId, StartError};
use iam_bootstrap::model::UserName;
use iam_bootstrap::store::sealed::{Keys, RootSecretError};
use iam_bootstrap::verify::{self, VerifyOptions};
use iam_bootstrap::{
    BuildError, Iam, IamBuilder, IamStore, MemoryStore, Phase as IamPhase, SystemConfig,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::deployment_store::PoolDeploymentStore;
use self::format_lock::DsyncFormatLock;
use crate::grids::Grids;
use crate::secret::SecretBytes;

pub(crate) use self::pools::{PoolError, directories};

/// Why the startup cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartupError {
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Deployment(#[from] StartError),
    #[error(transparent)]
    Iam(#[from] BuildError),
    #[error(transparent)]
    Secret(#[from] RootSecretError),
}

/// The current step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Too few peers have reported the same configuration; the text has the results so far.
    Verifying(String),
    /// Agreeing on the deployment id.
    Agreeing,
    /// Loading or catching up: [`Iam`] has the details.
    Iam,
    Ready,
    Failed(String),
}

/// The startup's state as shown by `/health/ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartupStatus {
    pub(crate) phase: &'static str,
    /// What the phase waits for; `None` when ready.
    pub(crate) waiting: Option<String>,
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
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    env: Env,
    system: Arc<SystemConfig>,
    peers: Vec<Connection>,
    deployment: Arc<Deployment>,
    iam: Iam,
    root_secret: SecretBytes,
    phase: watch::Sender<Phase>,
    /// The last error of the store of the deployment id; `None` after a success.
    store_error: Arc<watch::Sender<Option<String>>>,
    /// The startup task, once started.
    running: OnceLock<AbortHandle>,
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
        let system = Arc::new(system);
        verify::serve(&grids.main, &system)?;
        let keys = Keys::new(root_secret.expose())?;
        // Never empty: there is at least the memory store.
        let first = pools.first().cloned().ok_or(BuildError::NoPool)?;
        let store_error = Arc::new(watch::Sender::new(None));
        let store = PoolDeploymentStore::new(first, Arc::clone(&store_error));
        let deployment = Deployment::builder(&grids.main, store).env(grids.env.clone());
        let deployment = Arc::new(deployment.servers(servers.clone()).start()?);
        let of_servers = Arc::downgrade(&deployment);
        let iam = Iam::builder(&grids.main, root_user, keys).env(grids.env.clone());
        let mut iam = iam.servers(servers).admission(move |peer| {
            let checked = of_servers.upgrade().map(|deployment| deployment.check(peer.as_str()));
            checked.transpose().map(drop).map_err(|conflict| conflict.to_string())
        });
        if is_persistent {
            iam = iam.format_lock(DsyncFormatLock::new(grids.dsync.clone()));
        }
        let iam = pools.into_iter().fold(iam, IamBuilder::pool).build()?;
        // Clients are known to the main grid only, and are not peers.
        let known = |peer: &Connection| grids.locks.connection(peer.remote().as_str()).is_some();
        let peers = grids.main.connections().into_iter().filter(known).collect();
        let phase = watch::Sender::new(Phase::Verifying("no peer has responded yet".to_owned()));
        let running = OnceLock::new();
        let env = grids.env.clone();
        let inner =
            Inner { env, system, peers, deployment, iam, root_secret, phase, store_error, running };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts the startup task, which runs until [`Startup::stop`]. Must be called once.
    pub(crate) fn start(&self) {
        let startup = self.clone();
        let running = tokio::spawn(async move {
            let start = startup.inner.env.now();
            if let Err(reason) = startup.run().await {
                tracing::error!(target: "gridwire", error = %reason, "startup failed");
                startup.inner.phase.send_replace(Phase::Failed(reason));
                return;
            }
            let took = startup.inner.env.now().since(start);
            startup.inner.phase.send_replace(Phase::Ready);
            tracing::info!(target: "gridwire", ?took, "ready");
        });
        // Fails only on a second start.
        let _ = self.inner.running.set(running.abort_handle());
    }

    /// Stops the startup and IAM, so that peers which leave during the shutdown are neither retried
    /// nor logged.
    pub(crate) fn stop(&self) {
        if let Some(running) = self.inner.running.get() {
            running.abort();
        }
        self.inner.iam.shutdown();
    }

    async fn run(&self) -> Result<(), String> {
        self.verify().await;
        self.inner.phase.send_replace(Phase::Agreeing);
        let agreed = self.inner.deployment.agree().await;
        let deployment = agreed.map_err(|error| error.to_string())?;
        tracing::info!(target: "gridwire", %deployment, "deployment agreed");
        self.inner.phase.send_replace(Phase::Iam);
        self.inner.iam.start();
        self.inner.iam.ready().await.map_err(|error| error.to_string())
    }

    async fn verify(&self) {
        let inner = Arc::clone(&self.inner);
        let report = move |waiting: verify::VerifyError| {
            // Responses after the quorum was reached change nothing.
            inner.phase.send_if_modified(|phase| match phase {
                Phase::Verifying(reason) => {
                    *reason = waiting.to_string();
                    true
                }
                _ => false,
            });
        };
        let options = VerifyOptions { env: self.inner.env.clone(), limit: None };
        let peers = self.inner.peers.clone();
        if let Err(error) = verify::verify_among(peers, &self.inner.system, options, report).await {
            // Unreachable without a limit. If it were reached, continuing would be wrong.
            self.inner.phase.send_replace(Phase::Verifying(error.to_string()));
            std::future::pending::<()>().await;
        }
    }

    /// Returns the current phase and what it waits for.
    pub(crate) fn status(&self) -> StartupStatus {
        let phase = self.inner.phase.borrow().clone();
        let waiting = |phase, reason: String| StartupStatus { phase, waiting: Some(reason) };
        match phase {
            Phase::Verifying(reason) => waiting("verifying", reason),
            Phase::Agreeing => {
                let store_error = self.inner.store_error.borrow().clone();
                let majority =
                    || "a majority of the servers must store the deployment id".to_owned();
                waiting("agreeing", store_error.unwrap_or_else(majority))
            }
            Phase::Iam => match self.inner.iam.phase() {
                phase @ IamPhase::Loading(_) => waiting("loading", phase.to_string()),
                phase => waiting("catching up", phase.to_string()),
            },
            Phase::Ready => StartupStatus { phase: "ready", waiting: None },
            Phase::Failed(reason) => waiting("failed", reason),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.inner.phase.borrow() == Phase::Ready
    }

    /// Waits until the server is ready. Returns false on timeout.
    pub(crate) async fn wait_ready(&self, timeout: Duration) -> bool {
        let mut phases = self.inner.phase.subscribe();
        let ready = phases.wait_for(|phase| *phase == Phase::Ready);
        matches!(tokio::time::timeout(timeout, ready).await, Ok(Ok(_)))
    }

    pub(crate) fn deployment(&self) -> Option<DeploymentId> {
        self.inner.deployment.cell().get()
    }

    /// Servers that belong to other deployments.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        self.inner.deployment.conflicts()
    }

    pub(crate) fn iam(&self) -> &Iam {
        &self.inner.iam
    }

    pub(crate) fn root_secret(&self) -> &SecretBytes {
        &self.inner.root_secret
    }
}
