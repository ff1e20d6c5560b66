//! The servers of the demo. Each has its own listener on loopback and its own runtime, so that it
//! can be killed like a process: without notifying the others.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::time::{Duration, Instant};

use dsync::Dsync;
use grid::name::NameError;
use grid::{Auth, Connection, ConnectionState, ConnectionStats, Env, Name, RegisterError};
use iam_bootstrap::deployment::DeploymentId;
use iam_bootstrap::model::{NameError as IamNameError, UserName};
use iam_bootstrap::{HashKey, SystemConfig};
use rand::Rng;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};

use super::{POLL_INTERVAL, SHUTDOWN_GRACE, calls};
use crate::grids::{Grids, GridsError, Members};
use crate::handlers;
use crate::http::{self, Routes};
use crate::listen::{self, ListenError};
use crate::secret::SecretBytes;
use crate::startup::{Startup, StartupError, StartupParts};

/// Longest wait of a restarted server for its port.
const REBIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Lock lease of the demo: short enough that the locks of the killed server expire during the demo.
const LOCK_LEASE: Duration = Duration::from_secs(2);

/// Why a server of the demo could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Grids(#[from] GridsError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Startup(#[from] StartupError),
    #[error("invalid name of the root account: {0}")]
    RootUser(#[from] IamNameError),
    #[error("cannot create a secret: {0}")]
    Auth(#[from] grid::auth::AuthError),
    #[error("cannot start a server: {0}")]
    Start(#[from] io::Error),
    #[error("the start task of a server failed: {0}")]
    ServerTask(#[from] tokio::task::JoinError),
}

/// All servers. Numbered from 0 here, from 1 where displayed.
pub(super) struct Cluster {
    auth: Auth,
    secret: SecretBytes,
    names: Vec<Name>,
    addresses: Vec<SocketAddr>,
    /// `None` while a server is killed.
    servers: Vec<Option<Server>>,
}

/// Statistics of one end of a connection.
pub(super) struct ConnectionEnd {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) stats: ConnectionStats,
}

impl Cluster {
    /// Starts `count` servers, which then connect to each other.
    pub(super) async fn start(count: usize) -> Result<Self, ClusterError> {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let mut listeners = Vec::new();
        let mut cluster = Self {
            auth: Auth::shared_secret(&secret)?,
            secret: SecretBytes::new(&secret),
            names: Vec::new(),
            addresses: Vec::new(),
            servers: Vec::new(),
        };
        for _ in 0..count {
            let listener = listen::bind((Ipv4Addr::LOCALHOST, 0).into())?;
            let address = listener.local_addr()?;
            cluster.names.push(format!("http://{address}").parse()?);
            cluster.addresses.push(address);
            listeners.push(listener.into_std()?);
        }
        for (node, listener) in listeners.into_iter().enumerate() {
            let server = Server::start(&cluster, node, listener).await?;
            cluster.servers.push(Some(server));
        }
        Ok(cluster)
    }

    /// Registers a startup. All servers run in this process, and keep IAM in memory.
    fn startup(&self, grids: &Grids) -> Result<Startup, ClusterError> {
        let hash_key = HashKey::from_shared_secret(self.secret.expose());
        let endpoints = self.names.iter().map(ToString::to_string);
        Ok(Startup::register(StartupParts {
            grids,
            servers: self.names.iter().collect(),
            system: SystemConfig::collect(&hash_key).endpoints(endpoints).finish(),
            root_user: UserName::new("root")?,
            root_secret: self.secret.clone(),
            pools: Vec::new(),
        })?)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn names(&self) -> &[Name] {
        &self.names
    }

    /// For each server, whether it runs. A killed one does not.
    pub(super) fn are_running(&self) -> Vec<bool> {
        self.servers.iter().map(Option::is_some).collect()
    }

    /// Kills one server: its sockets close and its tasks are dropped. Returns its last statistics.
    pub(super) fn kill(&mut self, node: usize) -> Vec<ConnectionEnd> {
        let last_stats = self.ends_at(node);
        self.servers[node] = None;
        last_stats
    }

    /// Restarts a killed server under the same name and address.
    pub(super) async fn restart(&mut self, node: usize) -> Result<(), ClusterError> {
        let listener = rebind(self.addresses[node]).await?;
        let server = Server::start(self, node, listener.into_std()?).await?;
        self.servers[node] = Some(server);
        Ok(())
    }

    /// The runtime of this server.
    pub(super) fn runtime(&self, node: usize) -> Option<&Handle> {
        self.servers[node].as_ref()?.runtime.as_ref().map(Runtime::handle)
    }

    pub(super) fn connection(&self, from: usize, to: usize) -> Option<Connection> {
        self.servers[from].as_ref()?.grids.main.connection(self.names[to].as_str())
    }

    pub(super) fn dsync(&self, node: usize) -> Option<&Dsync> {
        self.servers[node].as_ref().map(|server| &server.grids.dsync)
    }

    /// Current statistics of both ends of all connections, except those at killed servers.
    pub(super) fn ends(&self) -> Vec<ConnectionEnd> {
        (0..self.len()).flat_map(|node| self.ends_at(node)).collect()
    }

    fn ends_at(&self, from: usize) -> Vec<ConnectionEnd> {
        let stats = self.servers[from].as_ref().map(|server| server.grids.main.stats());
        let end = |stats: ConnectionStats| {
            let to = self.names.iter().position(|name| *name == stats.remote)?;
            Some(ConnectionEnd { from, to, stats })
        };
        stats.unwrap_or_default().into_iter().filter_map(end).collect()
    }

    /// Number of connection ends that are connected.
    pub(super) fn connected(&self) -> usize {
        let is_up = |end: &ConnectionEnd| end.stats.state == ConnectionState::Connected;
        self.ends().iter().filter(|end| is_up(end)).count()
    }

    /// Number of connection ends in a fully connected cluster.
    pub(super) fn expected(&self) -> usize {
        self.len() * (self.len() - 1)
    }

    /// Pairs of servers, the lower number first, that are not connected at both ends.
    pub(super) fn pairs_down(&self) -> Vec<(usize, usize)> {
        let is_up = |end: &ConnectionEnd| end.stats.state == ConnectionState::Connected;
        let ends = self.ends().into_iter().filter(is_up);
        let up: BTreeSet<_> = ends.map(|end| (end.from, end.to)).collect();
        let pairs = (0..self.len()).flat_map(|a| (a + 1..self.len()).map(move |b| (a, b)));
        pairs.filter(|(a, b)| !up.contains(&(*a, *b)) || !up.contains(&(*b, *a))).collect()
    }

    /// Waits until all connection ends are connected. Returns false on timeout.
    pub(super) async fn wait_connected(&self, timeout: Duration) -> bool {
        wait_until(timeout, || self.connected() == self.expected()).await
    }

    /// Waits until all ends are connected and all lockers are open. Returns false on timeout.
    pub(super) async fn wait_ready(&self, timeout: Duration) -> bool {
        let are_open = || self.running().all(|server| server.grids.dsync.is_open());
        wait_until(timeout, || self.connected() == self.expected() && are_open()).await
    }

    /// Waits until all servers are ready. Returns the deployment that they agreed on; `None`
    /// on timeout.
    pub(super) async fn wait_started(&self, timeout: Duration) -> Option<DeploymentId> {
        let deadline = Instant::now() + timeout;
        for server in self.running() {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if !server.startup.wait_ready(remaining).await {
                return None;
            }
        }
        let mut ids = self.running().map(|server| server.startup.deployment());
        let first = ids.next()?;
        ids.all(|id| id == first).then_some(first)?
    }

    /// Number of locks, on all servers, that are held, waited for or being released, and of grants.
    pub(super) fn locks_left(&self) -> usize {
        let left = |server: &Server| {
            let stats = server.grids.dsync.stats();
            stats.live + stats.locker.map_or(0, |locker| locker.grants)
        };
        self.running().map(left).sum()
    }

    fn running(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().flatten()
    }

    /// Waits until nothing is in flight on any server. Returns false on timeout.
    pub(super) async fn wait_quiescent(&self, timeout: Duration) -> bool {
        let is_quiescent = || self.ends().iter().all(|end| end.stats.is_quiescent());
        wait_until(timeout, || is_quiescent() && self.locks_left() == 0).await
    }

    /// Shuts all servers down gracefully.
    pub(super) async fn shutdown(&mut self) {
        for server in self.servers.iter_mut().filter_map(Option::take) {
            server.startup.stop();
            server.grids.shutdown(SHUTDOWN_GRACE).await;
        }
    }
}

async fn wait_until(timeout: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Binds the address again. The old listener is closed by a runtime that ends in the background, so
/// the port may stay in use for a moment.
async fn rebind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let deadline = Instant::now() + REBIND_TIMEOUT;
    loop {
        match listen::bind(address) {
            Err(error) if error.is_in_use() && Instant::now() < deadline => {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            bound => return bound,
        }
    }
}

/// One server. Dropping it kills it.
struct Server {
    /// Taken on drop.
    runtime: Option<Runtime>,
    grids: Grids,
    startup: Startup,
}

impl Server {
    async fn start(
        cluster: &Cluster,
        node: usize,
        listener: StdListener,
    ) -> Result<Self, ClusterError> {
        let local = &cluster.names[node];
        let peers = cluster.names.iter().filter(|name| *name != local).cloned().collect();
        let lockers = cluster.names.iter().cloned().collect();
        let clients = BTreeSet::new();
        let members = Members { local, peers: &peers, clients: &clients, lockers: &lockers };
        let grids = Grids::build(members, &cluster.auth, LOCK_LEASE, Env::system())?;
        handlers::register(&grids.main)?;
        calls::register(&grids.main)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("gridwire-{}", node + 1))
            .enable_all()
            .build()?;
        let startup = {
            let _inside = runtime.enter();
            cluster.startup(&grids)?
        };
        let server = Self { runtime: Some(runtime), grids: grids.clone(), startup };
        let Some(runtime) = &server.runtime else { return Ok(server) };
        let startup = server.startup.clone();
        let started = runtime.spawn(async move {
            startup.start(|| grids.start())?;
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(http::accept(listener, Routes::new(grids, startup)));
            Ok::<(), ClusterError>(())
        });
        started.await??;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
