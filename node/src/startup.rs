//! What a server does between "process started" and "serving": it makes sure that the others run with
//! the same configuration, learns which deployment it belongs to, loads users and their rights, and is
//! ready.
//!
//! ```text
//!   Verifying ──► Identity ──► Iam: loading ──► catching up ──► Ready
//!                    │          │
//!                    └──────────┴──► Failed    what waiting does not mend
//! ```
//!
//! Everything is waited for without end: peers and disks come when they come. Whoever asks is told the
//! phase and what is waited for. `guard`, `identity` and `system` connect what `iam-bootstrap` needs
//! with what there is here.

mod guard;
mod identity;
mod pools;
pub(crate) mod system;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use grid::net::clock::SystemClock;
use grid::{Connection, Name, RegisterError};
use iam_bootstrap::deployment::{Conflict, Deployment, DeploymentId, StartError};
use iam_bootstrap::model::UserName;
use iam_bootstrap::store::sealed::{Keys, SecretError};
use iam_bootstrap::verify::{self, Options};
use iam_bootstrap::{
    BuildError, Iam, IamBuilder, IamStore, MemoryStore, Phase as IamPhase, SystemConfig,
};
use rand::RngExt;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::guard::DsyncGuard;
use self::identity::InPool;
use crate::grids::Grids;
use crate::secret::SecretBytes;

pub(crate) use self::pools::{PoolError, directories};

/// Why a server cannot even begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartupError {
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Deployment(#[from] StartError),
    #[error(transparent)]
    Iam(#[from] BuildError),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// How far a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Before enough peers have told their configuration; what is known of them.
    Verifying(String),
    Identity,
    /// As far as [`Iam`] says.
    Iam,
    Ready,
    Failed(String),
}

/// What is shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) phase: &'static str,
    /// What is waited for, unless it is ready.
    pub(crate) waiting: Option<String>,
}

/// What a startup is made of.
pub(crate) struct Parts<'a> {
    pub(crate) grids: &'a Grids,
    /// All servers, this one included.
    pub(crate) servers: Vec<&'a Name>,
    pub(crate) system: SystemConfig,
    pub(crate) root_user: UserName,
    pub(crate) root_secret: SecretBytes,
    /// Where things are kept; in memory, if there is none.
    pub(crate) pools: Vec<Arc<dyn IamStore>>,
}

/// One server's way to readiness. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Startup {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    system: Arc<SystemConfig>,
    peers: Vec<Connection>,
    deployment: Arc<Deployment>,
    iam: Iam,
    root_secret: SecretBytes,
    phase: watch::Sender<Phase>,
    /// What keeping the deployment's id fails with now.
    trouble: Arc<watch::Sender<Option<String>>>,
    /// What goes on by itself, once it has begun.
    running: OnceLock<AbortHandle>,
}

impl Startup {
    /// Registers all handlers. To be called before the grids are started, inside a runtime.
    pub(crate) fn register(parts: Parts<'_>) -> Result<Self, StartupError> {
        let Parts { grids, servers, system, root_user, root_secret, mut pools } = parts;
        let is_kept = !pools.is_empty();
        if !is_kept {
            pools.push(Arc::new(MemoryStore::new("memory")));
        }
        let servers: Vec<String> = servers.into_iter().map(ToString::to_string).collect();
        let system = Arc::new(system);
        verify::serve(&grids.main, &system)?;
        let keys = Keys::new(root_secret.expose())?;
        // There is one: memory, if nothing else.
        let first = pools.first().cloned().ok_or(BuildError::NoPool)?;
        let trouble = Arc::new(watch::Sender::new(None));
        let store = InPool::new(first, Arc::clone(&trouble));
        let deployment = Deployment::builder(&grids.main, store);
        let deployment = Arc::new(deployment.servers(servers.clone()).start()?);
        let of_servers = Arc::downgrade(&deployment);
        let mut iam =
            Iam::builder(&grids.main, root_user, keys).servers(servers).admission(move |peer| {
                let checked =
                    of_servers.upgrade().map(|deployment| deployment.check(peer.as_str()));
                checked.transpose().map(drop).map_err(|conflict| conflict.to_string())
            });
        if is_kept {
            iam = iam.format_guard(DsyncGuard::new(grids.dsync.clone()));
        }
        let iam = pools.into_iter().fold(iam, IamBuilder::pool).build()?;
        // Clients are known to the first grid only, and are no peers.
        let known = |peer: &Connection| grids.locks.connection(peer.remote().as_str()).is_some();
        let peers = grids.main.connections().into_iter().filter(known).collect();
        let phase = watch::Sender::new(Phase::Verifying("nobody was asked yet".to_owned()));
        let running = OnceLock::new();
        let inner = Inner { system, peers, deployment, iam, root_secret, phase, trouble, running };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Begins, and goes on by itself until [`Startup::stop`]. To be called once.
    pub(crate) fn start(&self) {
        let startup = self.clone();
        let running = tokio::spawn(async move {
            let begun = Instant::now();
            if let Err(why) = startup.run().await {
                tracing::error!(target: "gridwire", %why, "this server will not be ready");
                startup.inner.phase.send_replace(Phase::Failed(why));
                return;
            }
            let took = begun.elapsed();
            startup.inner.phase.send_replace(Phase::Ready);
            tracing::info!(target: "gridwire", ?took, "ready");
        });
        // Only a second start finds one, and there is none.
        let _ = self.inner.running.set(running.abort_handle());
    }

    /// Waits for nothing any more, and changes nothing any more: peers that go away while this server
    /// ends are nothing to try again, or to be logged.
    pub(crate) fn stop(&self) {
        if let Some(running) = self.inner.running.get() {
            running.abort();
        }
        self.inner.iam.shutdown();
    }

    async fn run(&self) -> Result<(), String> {
        self.verify().await;
        self.inner.phase.send_replace(Phase::Identity);
        let agreed = self.inner.deployment.agree().await;
        let deployment = agreed.map_err(|error| error.to_string())?;
        tracing::info!(target: "gridwire", %deployment, "the deployment is known");
        self.inner.phase.send_replace(Phase::Iam);
        self.inner.iam.start();
        self.inner.iam.ready().await.map_err(|error| error.to_string())
    }

    async fn verify(&self) {
        let inner = Arc::clone(&self.inner);
        let tell = move |waiting: verify::VerifyError| {
            // Those that are asked after enough have agreed change nothing any more.
            inner.phase.send_if_modified(|phase| match phase {
                Phase::Verifying(why) => {
                    *why = waiting.to_string();
                    true
                }
                _ => false,
            });
        };
        let options = Options {
            clock: Arc::new(SystemClock::new()),
            seed: rand::rng().random(),
            limit: None,
        };
        let peers = self.inner.peers.clone();
        if let Err(error) = verify::verify_among(peers, &self.inner.system, options, tell).await {
            // There is no limit, so this is never reached; if it were, going on would be wrong.
            self.inner.phase.send_replace(Phase::Verifying(error.to_string()));
            std::future::pending::<()>().await;
        }
    }

    /// How far it is.
    pub(crate) fn status(&self) -> Status {
        let phase = self.inner.phase.borrow().clone();
        let waiting = |phase, why: String| Status { phase, waiting: Some(why) };
        match phase {
            Phase::Verifying(why) => waiting("verifying", why),
            Phase::Identity => {
                let trouble = self.inner.trouble.borrow().clone();
                let majority =
                    || "a majority of the servers must keep the deployment's id".to_owned();
                waiting("agreeing", trouble.unwrap_or_else(majority))
            }
            Phase::Iam => match self.inner.iam.phase() {
                phase @ IamPhase::Loading(_) => waiting("loading", phase.to_string()),
                phase => waiting("catching up", phase.to_string()),
            },
            Phase::Ready => Status { phase: "ready", waiting: None },
            Phase::Failed(why) => waiting("failed", why),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.inner.phase.borrow() == Phase::Ready
    }

    /// Waits until it is ready. Whether that came, in time.
    pub(crate) async fn wait_ready(&self, within: Duration) -> bool {
        let mut phases = self.inner.phase.subscribe();
        let ready = phases.wait_for(|phase| *phase == Phase::Ready);
        matches!(tokio::time::timeout(within, ready).await, Ok(Ok(_)))
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
