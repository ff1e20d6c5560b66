//! The servers of the demo: each with its own listener on loopback and its own runtime, so that
//! one can be killed as a process would be, without a word to the others.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::time::{Duration, Instant};

use dsync::Dsync;
use grid::name::NameError;
use grid::{Auth, Connection, ConnectionState, ConnectionStats, Name, RegisterError};
use iam_bootstrap::deployment::DeploymentId;
use iam_bootstrap::model::{NameError as NameProblem, UserName};
use iam_bootstrap::{Salt, SystemConfig};
use rand::Rng;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};

use super::{LOOK_EVERY, SHUTDOWN_GRACE, load};
use crate::grids::{Grids, GridsError, Members};
use crate::handlers;
use crate::http::{self, Routes};
use crate::listen::{self, ListenError};
use crate::secret::SecretBytes;
use crate::startup::{Parts, Startup, StartupError};

/// Longest time that a restarted server tries to get its port back.
const REBIND_WITHIN: Duration = Duration::from_secs(5);

/// How long the locks of a killed server last: short enough for others to get them while the demo
/// lasts.
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
    #[error("the account that may do everything cannot be named: {0}")]
    RootUser(#[from] NameProblem),
    #[error("cannot make a secret: {0}")]
    Auth(#[from] grid::auth::AuthError),
    #[error("cannot start a server: {0}")]
    Start(#[from] io::Error),
    #[error("a server died at its start: {0}")]
    Died(#[from] tokio::task::JoinError),
}

/// All servers. They are numbered from 0 here, and from 1 where they are shown.
pub(super) struct Cluster {
    auth: Auth,
    secret: SecretBytes,
    names: Vec<Name>,
    addresses: Vec<SocketAddr>,
    /// `None` while a server is killed.
    servers: Vec<Option<Server>>,
}

/// What can be seen at one end of a connection.
pub(super) struct End {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) stats: ConnectionStats,
}

impl Cluster {
    /// Starts `count` servers, which then begin to connect.
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

    /// All servers are this process: they are the same, and keep what they know in memory.
    fn startup(&self, grids: &Grids) -> Result<Startup, ClusterError> {
        let salt = Salt::of_secret(self.secret.expose());
        let endpoints = self.names.iter().map(ToString::to_string);
        Ok(Startup::register(Parts {
            grids,
            servers: self.names.iter().collect(),
            system: SystemConfig::collect(&salt).endpoints(endpoints).finish(),
            root_user: UserName::new("root")?,
            root_secret: self.secret.clone(),
            pools: Vec::new(),
        })?)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Ends one server at once: its sockets close, its tasks are gone. Returns what it had seen.
    pub(super) fn kill(&mut self, node: usize) -> Vec<End> {
        let seen = self.ends_at(node);
        self.servers[node] = None;
        seen
    }

    /// Starts a killed server again, under its name and at its address.
    pub(super) async fn restart(&mut self, node: usize) -> Result<(), ClusterError> {
        let listener = rebind(self.addresses[node]).await?;
        let server = Server::start(self, node, listener.into_std()?).await?;
        self.servers[node] = Some(server);
        Ok(())
    }

    /// Where tasks of this server run.
    pub(super) fn runtime(&self, node: usize) -> Option<&Handle> {
        self.servers[node].as_ref()?.runtime.as_ref().map(Runtime::handle)
    }

    pub(super) fn connection(&self, from: usize, to: usize) -> Option<Connection> {
        self.servers[from].as_ref()?.grids.main.connection(self.names[to].as_str())
    }

    pub(super) fn dsync(&self, node: usize) -> Option<&Dsync> {
        self.servers[node].as_ref().map(|server| &server.grids.dsync)
    }

    /// Both ends of all connections, now; without those at killed servers.
    pub(super) fn ends(&self) -> Vec<End> {
        (0..self.len()).flat_map(|node| self.ends_at(node)).collect()
    }

    fn ends_at(&self, from: usize) -> Vec<End> {
        let stats = self.servers[from].as_ref().map(|server| server.grids.main.stats());
        let end = |stats: ConnectionStats| {
            let to = self.names.iter().position(|name| *name == stats.remote)?;
            Some(End { from, to, stats })
        };
        stats.unwrap_or_default().into_iter().filter_map(end).collect()
    }

    /// How many ends of connections are up.
    pub(super) fn connected(&self) -> usize {
        let is_up = |end: &End| end.stats.state == ConnectionState::Connected;
        self.ends().iter().filter(|end| is_up(end)).count()
    }

    /// How many ends of connections there are when all is well.
    pub(super) fn expected(&self) -> usize {
        self.len() * (self.len() - 1)
    }

    /// Waits until all are connected. Whether they are, in time.
    pub(super) async fn wait_connected(&self, within: Duration) -> bool {
        wait_until(within, || self.connected() == self.expected()).await
    }

    /// Likewise, and until all grant locks.
    pub(super) async fn wait_ready(&self, within: Duration) -> bool {
        let grant = || self.living().all(|server| server.grids.dsync.is_open());
        wait_until(within, || self.connected() == self.expected() && grant()).await
    }

    /// Waits until all have verified each other, know their deployment, and know their users. Which
    /// deployment it is, if that came in time.
    pub(super) async fn wait_started(&self, within: Duration) -> Option<DeploymentId> {
        let until = Instant::now() + within;
        for server in self.living() {
            let left = until.saturating_duration_since(Instant::now());
            if !server.startup.wait_ready(left).await {
                return None;
            }
        }
        let mut ids = self.living().map(|server| server.startup.deployment());
        let first = ids.next()?;
        ids.all(|id| id == first).then_some(first)?
    }

    /// Locks that a server holds, tries for or releases, or that it has granted: of all servers.
    pub(super) fn locks_left(&self) -> usize {
        let left = |server: &Server| {
            let stats = server.grids.dsync.stats();
            stats.live + stats.locker.map_or(0, |locker| locker.grants)
        };
        self.living().map(left).sum()
    }

    fn living(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().flatten()
    }

    /// Waits until nothing is under way anywhere. Whether that came, in time.
    pub(super) async fn wait_calm(&self, within: Duration) -> bool {
        let is_calm = || self.ends().iter().all(|end| end.stats.is_quiescent());
        wait_until(within, || is_calm() && self.locks_left() == 0).await
    }

    /// Ends all servers in good order.
    pub(super) async fn shutdown(&mut self) {
        for server in self.servers.iter_mut().filter_map(Option::take) {
            server.startup.stop();
            server.grids.shutdown(SHUTDOWN_GRACE).await;
        }
    }
}

async fn wait_until(within: Duration, condition: impl Fn() -> bool) -> bool {
    let until = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The old listener is closed by a runtime that ends in the background: the port may be taken for a
/// moment longer.
async fn rebind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let until = Instant::now() + REBIND_WITHIN;
    loop {
        match listen::bind(address) {
            Err(error) if error.is_in_use() && Instant::now() < until => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            bound => return bound,
        }
    }
}

/// One server. Dropping it is killing it.
struct Server {
    /// Taken when it is dropped.
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
        let grids = Grids::build(members, &cluster.auth, LOCK_LEASE)?;
        handlers::register(&grids.main)?;
        load::register(&grids.main)?;
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
            grids.start()?;
            startup.start();
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
