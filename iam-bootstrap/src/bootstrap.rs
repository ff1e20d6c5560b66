//! The start of a server, from "process started" to "ready", in the one order that is safe
//! ([B65](crate::rules#b65)):
//!
//! ```text
//!   register ─► connect ─► Verifying ─► Agreeing ─► locks open ─► Iam: loading, catching up ─► Ready
//!                                          │                       │
//!                                          └───────────────────────┴──► Failed: waiting does not help
//! ```
//!
//! Each step waits without limit for peers and disks; steps without a part are skipped. Locks open
//! only after the peers are verified and the deployment is known: a server that does not belong to
//! the cluster neither grants nor takes locks. They close again if most servers turn out to belong to
//! another deployment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grid::env::Env;
use grid::sync::Mutex;
use grid::{Connection, Manager, Name, RegisterError};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::deployment::{Conflict, Deployment, DeploymentBuilder, DeploymentId, StartError};
use crate::iam::{BuildError, Iam, IamBuilder, Phase as IamPhase};
use crate::system::SystemConfig;
use crate::verify::{self, VerifyOptions, VerifyProgress};

/// The locks of this server, such as those of dsync.
pub trait ClusterLocks: Send + Sync + 'static {
    /// Admits this server: it belongs to the cluster. May be called again after a close.
    fn open(&self);

    /// Excludes this server: it does not belong to the cluster, for this reason.
    fn close(&self, reason: &str);
}

/// No locks.
impl ClusterLocks for () {
    fn open(&self) {}

    fn close(&self, _reason: &str) {}
}

/// Why a start cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// A handler cannot be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The deployment cannot be started.
    #[error(transparent)]
    Deployment(#[from] StartError),
    /// IAM cannot be built.
    #[error(transparent)]
    Iam(#[from] BuildError),
}

/// The current step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Too few peers have reported a configuration that fits; the text has the results so far.
    Verifying(String),
    /// Agreeing on the deployment id.
    Agreeing,
    /// Loading or catching up: [`Iam`] has the details.
    Iam,
    Ready,
    Failed(String),
}

/// The state of a start, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapStatus {
    /// `verifying`, `agreeing`, `loading`, `catching up`, `ready` or `failed`.
    pub phase: &'static str,
    /// What the phase waits for; `None` when ready.
    pub waiting: Option<String>,
    /// Differences of peers that run with another build or environment. They gate nothing.
    pub variations: Vec<String>,
}

/// Builds a [`Bootstrap`].
pub struct BootstrapBuilder {
    manager: Manager,
    system: SystemConfig,
    peers: Option<Vec<Connection>>,
    deployment: Option<DeploymentBuilder>,
    iam: Option<IamBuilder>,
    locks: Arc<dyn ClusterLocks>,
    env: Env,
}

impl fmt::Debug for BootstrapBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapBuilder")
            .field("local", self.manager.local())
            .finish_non_exhaustive()
    }
}

impl BootstrapBuilder {
    /// Sets the peers to verify; all remotes of the manager by default. Clients are no peers.
    #[must_use]
    pub fn peers(mut self, peers: Vec<Connection>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Sets the deployment to agree on.
    #[must_use]
    pub fn deployment(mut self, deployment: DeploymentBuilder) -> Self {
        self.deployment = Some(deployment);
        self
    }

    /// Sets the IAM replica to load. It admits only peers of this server's deployment.
    #[must_use]
    pub fn iam(mut self, iam: IamBuilder) -> Self {
        self.iam = Some(iam);
        self
    }

    /// Sets the locks to open once the deployment is known.
    #[must_use]
    pub fn locks(mut self, locks: impl ClusterLocks) -> Self {
        self.locks = Arc::new(locks);
        self
    }

    /// Sets the clock and the randomness of the verification. Default: [`Env::system`].
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Registers all handlers. Must be called inside a tokio runtime, before the manager is started.
    ///
    /// # Errors
    ///
    /// [`BootstrapError`].
    pub fn register(self) -> Result<Bootstrap, BootstrapError> {
        let Self { manager, system, peers, deployment, iam, locks, env } = self;
        let system = Arc::new(system);
        verify::serve(&manager, &system)?;
        let deployment = deployment.map(DeploymentBuilder::start).transpose()?.map(Arc::new);
        let iam = iam.map(|iam| admit_deployment(iam, deployment.as_ref()).build()).transpose()?;
        let peers = peers.unwrap_or_else(|| manager.connections());
        let step = watch::Sender::new(Step::Verifying("no peer has responded yet".to_owned()));
        let (variations, tasks) = (Mutex::default(), Mutex::default());
        let inner = Inner { env, system, peers, deployment, iam, locks, step, variations, tasks };
        Ok(Bootstrap { inner: Arc::new(inner) })
    }
}

/// Excludes peers of other deployments from the replication.
fn admit_deployment(iam: IamBuilder, deployment: Option<&Arc<Deployment>>) -> IamBuilder {
    let Some(deployment) = deployment.map(Arc::downgrade) else { return iam };
    iam.admission(move |peer| {
        let checked = deployment.upgrade().map(|deployment| deployment.check(peer.as_str()));
        checked.transpose().map(drop).map_err(|conflict| conflict.to_string())
    })
}

/// The start of one server. Cheap to clone.
#[derive(Clone)]
pub struct Bootstrap {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    system: Arc<SystemConfig>,
    peers: Vec<Connection>,
    deployment: Option<Arc<Deployment>>,
    iam: Option<Iam>,
    locks: Arc<dyn ClusterLocks>,
    step: watch::Sender<Step>,
    variations: Mutex<Vec<String>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap")
            .field("step", &*self.inner.step.borrow())
            .finish_non_exhaustive()
    }
}

impl Bootstrap {
    /// Returns a builder for the server of `manager`, which runs with this configuration.
    pub fn builder(manager: &Manager, system: SystemConfig) -> BootstrapBuilder {
        BootstrapBuilder {
            manager: manager.clone(),
            system,
            peers: None,
            deployment: None,
            iam: None,
            locks: Arc::new(()),
            env: Env::system(),
        }
    }

    /// Connects, then runs the other steps in the background until [`stop`](Self::stop). Must be
    /// called once, inside a tokio runtime. `connect` starts the managers of this server.
    ///
    /// # Errors
    ///
    /// That of `connect`; no other step has begun then.
    pub fn start<E>(&self, connect: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        connect()?;
        let bootstrap = self.clone();
        let running = tokio::spawn(async move {
            let start = bootstrap.inner.env.now();
            if let Err(reason) = bootstrap.run().await {
                tracing::error!(target: "bootstrap", error = %reason, "startup failed");
                bootstrap.inner.step.send_replace(Step::Failed(reason));
                return;
            }
            let took = bootstrap.inner.env.now().since(start);
            bootstrap.inner.step.send_replace(Step::Ready);
            tracing::info!(target: "bootstrap", ?took, "ready");
        });
        self.inner.tasks.lock().push(running.abort_handle());
        Ok(())
    }

    /// Stops the start and IAM, so that peers which leave during the shutdown are neither retried nor
    /// logged.
    pub fn stop(&self) {
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        if let Some(iam) = &self.inner.iam {
            iam.shutdown();
        }
    }

    async fn run(&self) -> Result<(), String> {
        let Inner { deployment, iam, locks, step, tasks, .. } = &*self.inner;
        self.verify().await;
        if let Some(deployment) = deployment {
            step.send_replace(Step::Agreeing);
            let agreed = deployment.agree().await;
            let id = agreed.map_err(|error| error.to_string())?;
            tracing::info!(target: "bootstrap", deployment = %id, "deployment agreed");
            let mut guard = ConflictGuard::new(Arc::clone(deployment), Arc::clone(locks));
            guard.update();
            tasks.lock().push(tokio::spawn(guard.run()).abort_handle());
        } else {
            locks.open();
        }
        step.send_replace(Step::Iam);
        match iam {
            Some(iam) => {
                iam.start();
                iam.ready().await.map_err(|error| error.to_string())
            }
            None => Ok(()),
        }
    }

    async fn verify(&self) {
        let inner = Arc::clone(&self.inner);
        let report = move |progress: VerifyProgress| {
            *inner.variations.lock() = progress.variations;
            let Some(waiting) = progress.waiting else { return };
            // Responses after the quorum was reached change nothing.
            inner.step.send_if_modified(|step| match step {
                Step::Verifying(reason) => {
                    *reason = waiting.to_string();
                    true
                }
                Step::Agreeing | Step::Iam | Step::Ready | Step::Failed(_) => false,
            });
        };
        let options = VerifyOptions { env: self.inner.env.clone(), limit: None };
        let peers = self.inner.peers.clone();
        match verify::verify_among(peers, &self.inner.system, options, report).await {
            Ok(verified) => self.inner.tasks.lock().push(verified.background),
            Err(error) => {
                // Unreachable without a limit. If it were reached, continuing would be wrong.
                self.inner.step.send_replace(Step::Verifying(error.to_string()));
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the current step and what it waits for.
    pub fn status(&self) -> BootstrapStatus {
        let step = self.inner.step.borrow().clone();
        let (phase, waiting) = match step {
            Step::Verifying(reason) => ("verifying", Some(reason)),
            Step::Agreeing => {
                let text = "a majority of the servers must store the deployment id";
                ("agreeing", Some(text.to_owned()))
            }
            Step::Iam => match self.inner.iam.as_ref().map(Iam::phase) {
                Some(phase @ IamPhase::Loading(_)) => ("loading", Some(phase.to_string())),
                Some(phase) => ("catching up", Some(phase.to_string())),
                None => ("loading", None),
            },
            Step::Ready => ("ready", None),
            Step::Failed(reason) => ("failed", Some(reason)),
        };
        BootstrapStatus { phase, waiting, variations: self.inner.variations.lock().clone() }
    }

    /// Returns whether the start is complete.
    pub fn is_ready(&self) -> bool {
        *self.inner.step.borrow() == Step::Ready
    }

    /// Waits until the start is complete. Returns false on timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn wait_ready(&self, timeout: Duration) -> bool {
        let mut steps = self.inner.step.subscribe();
        let ready = steps.wait_for(|step| *step == Step::Ready);
        matches!(tokio::time::timeout(timeout, ready).await, Ok(Ok(_)))
    }

    /// Returns the id of the deployment, once it is known.
    pub fn deployment(&self) -> Option<DeploymentId> {
        self.inner.deployment.as_ref()?.cell().get()
    }

    /// Returns the servers that belong to other deployments.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.inner.deployment.as_ref().map(|deployment| deployment.conflicts()).unwrap_or_default()
    }

    /// Returns the IAM replica, if there is one.
    pub fn iam(&self) -> Option<&Iam> {
        self.inner.iam.as_ref()
    }
}

/// Closes the locks for as long as this server's deployment is not that of a majority. One server of
/// another deployment stops no other.
struct ConflictGuard {
    deployment: Arc<Deployment>,
    locks: Arc<dyn ClusterLocks>,
    changes: watch::Receiver<BTreeMap<Name, Conflict>>,
    is_open: Option<bool>,
}

impl ConflictGuard {
    fn new(deployment: Arc<Deployment>, locks: Arc<dyn ClusterLocks>) -> Self {
        let changes = deployment.conflict_changes();
        Self { deployment, locks, changes, is_open: None }
    }

    /// Opens or closes the locks, if that has changed.
    fn update(&mut self) {
        let servers = self.deployment.servers();
        let conflict = {
            let conflicts = self.changes.borrow_and_update();
            let is_minority = 2 * servers.saturating_sub(conflicts.len()) <= servers;
            conflicts.values().next().filter(|_| is_minority).map(Conflict::to_string)
        };
        if self.is_open.replace(conflict.is_none()) == Some(conflict.is_none()) {
            return;
        }
        match conflict {
            None => self.locks.open(),
            Some(conflict) => self.locks.close(&conflict),
        }
    }

    async fn run(mut self) {
        while self.changes.changed().await.is_ok() {
            self.update();
        }
    }
}
