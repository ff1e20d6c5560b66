//! Configuration of a [`Deployment`].

use std::collections::BTreeSet;
use std::sync::Arc;

use grid::env::Env;
use grid::name::NameError;
use grid::{Manager, Name, RegisterError};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::acceptor_task::AcceptorHandle;
use super::agree::Deployment;
use super::announce::Announcer;
use super::cell::DeploymentCell;
use super::conflict::Conflicts;
use super::proto::proposer::Timing;
use super::serve::{self, DeploymentInner};
use super::store::DeploymentStore;
use super::wire;

/// Error of [`DeploymentBuilder::start`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A server's address is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A server is not among those that the manager knows.
    #[error("server {name} must be one of those that the manager knows")]
    Unknown {
        /// Name of the unknown server.
        name: Name,
    },
    /// This server is not in the list.
    #[error("this server, {local}, must be among the servers of the deployment")]
    LocalMissing {
        /// Name of this server.
        local: Name,
    },
    /// A time is out of range.
    #[error("{name} must be {must}")]
    Timing {
        /// Field of [`Timing`].
        name: &'static str,
        /// Requirement on the field.
        must: &'static str,
    },
    /// The manager already has this handler: another `Deployment` was started on it.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// There is no current tokio runtime.
    #[error("a deployment must be started inside a tokio runtime")]
    NoRuntime,
}

/// Builds a [`Deployment`].
pub struct DeploymentBuilder {
    manager: Manager,
    store: Arc<dyn DeploymentStore>,
    servers: Option<Vec<String>>,
    timing: Timing,
    env: Option<Env>,
}

impl Deployment {
    /// Returns a builder for the server of `manager`, which persists its promises in `store`.
    pub fn builder(manager: &Manager, store: impl DeploymentStore) -> DeploymentBuilder {
        DeploymentBuilder {
            manager: manager.clone(),
            store: Arc::new(store),
            servers: None,
            timing: Timing::default(),
            env: None,
        }
    }
}

impl DeploymentBuilder {
    /// Sets the servers among which a majority decides, this one included. Default: all servers
    /// that the manager knows; clients must not be among them. Must be the same on every server.
    #[must_use]
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.servers = Some(servers.into_iter().map(Into::into).collect());
        self
    }

    /// Sets timeouts and retry waits. Default: [`Timing::default`].
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Sets the source of randomness, above all for the deployment id. Default:
    /// [`Env::system`].
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Starts loading the stored state, serving other servers, and announcing the id once it is
    /// known. Must be called before the manager is started, so that no early caller gets an
    /// unknown-handler error.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(self) -> Result<Deployment, StartError> {
        check(&self.timing)?;
        let servers = self.check_servers()?;
        if Handle::try_current().is_err() {
            return Err(StartError::NoRuntime);
        }
        let Self { manager, store, timing, env, .. } = self;
        let env = env.unwrap_or_default();
        let cell = Arc::new(DeploymentCell::new());
        let acceptor =
            AcceptorHandle::start(manager.local().as_str().into(), store, Arc::clone(&cell));
        let members = wire::members(servers.iter().map(Name::as_str));
        let conflicts = Conflicts::default();
        let inner = Arc::new(DeploymentInner { cell, acceptor, conflicts, servers, members });
        serve::register(&manager, &inner)?;
        let mut announcers = JoinSet::new();
        let connections: Vec<_> =
            inner.servers.iter().map(|name| manager.connection(name.as_str())).collect();
        for connection in connections.iter().flatten().cloned() {
            let (inner, timing) = (Arc::clone(&inner), timing.clone());
            let rng = env.fork();
            announcers.spawn(Announcer { connection, inner, timing, rng }.run());
        }
        let local_index =
            inner.servers.iter().position(|name| name == manager.local()).unwrap_or_default();
        Ok(Deployment { inner, local_index, connections, timing, env, _announcers: announcers })
    }

    fn check_servers(&self) -> Result<BTreeSet<Name>, StartError> {
        let local = self.manager.local();
        let known = self.manager.connections();
        let known: BTreeSet<_> = known
            .iter()
            .map(|connection| connection.remote().clone())
            .chain([local.clone()])
            .collect();
        let Some(servers) = &self.servers else { return Ok(known) };
        let servers: BTreeSet<Name> =
            servers.iter().map(|server| server.parse()).collect::<Result<_, _>>()?;
        if let Some(name) = servers.difference(&known).next() {
            return Err(StartError::Unknown { name: name.clone() });
        }
        if !servers.contains(local) {
            return Err(StartError::LocalMissing { local: local.clone() });
        }
        Ok(servers)
    }
}

fn check(timing: &Timing) -> Result<(), StartError> {
    let invalid = |name, must| Err(StartError::Timing { name, must });
    if timing.attempt_timeout.is_zero() {
        return invalid("attempt_timeout", "more than zero");
    }
    if timing.retry_first.is_zero() || timing.retry_max < timing.retry_first {
        return invalid("retry_first", "more than zero and at most retry_max");
    }
    Ok(())
}

impl std::fmt::Debug for DeploymentBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeploymentBuilder")
            .field("local", self.manager.local())
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}
