//! All connections of one server, and the handlers that serve them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::auth::Auth;
use crate::buggify::{Point, Rare};
use crate::connection::{Alive, Connection, Link};
use crate::manager_state::{ManagerState, Phase, Remote};
use crate::error::{BuildError, HandlerError, RegisterError};
use crate::handler::{Handler, Registry, RequestContext, Route, Serves, StreamFuture};
use crate::limits::{Limits, SERVERS_MAX, SUPERSEDING_MAX};
use crate::name::Name;
use crate::net::accept::{GridService, serve_socket};
use crate::net::clock::SystemClock;
use crate::net::log_throttle::LogThrottle;
use crate::net::remote_task::{AcceptedConnection, RemoteTask};
use crate::net::transport::{Socket, TcpTransport, Transport};
use crate::proto::handshake::{Dialler, InstanceId};
use crate::shared::{ClockHandle, Shared, SharedRef};
use crate::stats::ConnectionStats;
use crate::stream::{StreamOutput, StreamReceiver};
use crate::time::Clock;
use crate::trace::{Subscriber, Tracer};

/// The path of a cluster's grid (P1).
pub const GRID_PATH: &str = "/minio/grid/v1";

/// The path of the second grid, for lock traffic (P1).
pub const LOCK_GRID_PATH: &str = "/minio/grid/lock/v1";

/// Puts a [`Manager`] together.
pub struct ManagerBuilder {
    local: String,
    servers: Vec<String>,
    path: String,
    limits: Limits,
    auth: Option<Auth>,
    clock: Option<Arc<dyn Clock>>,
    transport: Box<dyn Transport>,
    rng: Option<Box<dyn Rng + Send>>,
    rare: Rare,
}

impl ManagerBuilder {
    fn new(local: &str) -> Self {
        Self {
            local: local.to_owned(),
            servers: Vec::new(),
            path: GRID_PATH.to_owned(),
            limits: Limits::default(),
            auth: None,
            clock: None,
            transport: Box::new(TcpTransport),
            rng: None,
            rare: Rare::never(),
        }
    }

    /// The base URLs of all servers of the cluster, the local one included (B01).
    #[must_use]
    pub fn servers<I>(mut self, servers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.servers.extend(servers.into_iter().map(Into::into));
        self
    }

    /// How servers prove that they belong together. Has no default.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Another path than [`GRID_PATH`].
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Other limits than the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Another way to reach remotes than [`TcpTransport`].
    #[must_use]
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Box::new(transport);
        self
    }

    /// Another clock than [`SystemClock`].
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Another source of randomness than the operating system's: for the manager's instance id and
    /// the jitter of its reconnects.
    #[must_use]
    pub fn rng(mut self, rng: impl Rng + Send + 'static) -> Self {
        self.rng = Some(Box::new(rng));
        self
    }

    /// Lets `buggify` decide what rare things happen, instead of nothing.
    #[cfg(feature = "buggify")]
    #[must_use]
    pub fn buggify(mut self, buggify: impl crate::buggify::Buggify) -> Self {
        self.rare = Rare::new(buggify);
        self
    }

    /// Builds the manager. It does nothing before [`Manager::start`], so that handlers can be
    /// registered first.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the address or limit that is wrong.
    pub fn build(self) -> Result<Manager, BuildError> {
        self.limits.check()?;
        check_path(&self.path)?;
        let (local, remotes) = check_servers(&self.local, &self.servers)?;
        let auth = self.auth.ok_or(BuildError::NoAuth)?;
        let clock = ClockHandle(self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())));
        let mut rng = self.rng.unwrap_or_else(os_rng);
        let instance = InstanceId::from_bytes(rng.random());
        let mut waiting = Vec::new();
        let mut connected = BTreeMap::new();
        for remote in remotes {
            let shared = SharedRef::new(Shared::new(
                local.clone(),
                remote.clone(),
                limits_of_one(&self.limits, &self.rare),
                clock.clone(),
            ));
            let (sender, accepted) = mpsc::channel(SUPERSEDING_MAX);
            let seed = rng.next_u64();
            waiting.push(Waiting { shared: SharedRef::clone(&shared), accepted, seed });
            let next_order = AtomicU64::new(0);
            connected.insert(remote, Remote { shared, accepted: sender, next_order });
        }
        let state = Arc::new(ManagerState {
            local,
            path: self.path,
            instance,
            limits: self.limits,
            clock,
            auth,
            transport: self.transport,
            registry: Arc::new(Registry::default()),
            tracer: Arc::new(Tracer::default()),
            log_throttle: LogThrottle::default(),
            rare: self.rare,
            remotes: connected,
            unauthenticated: AtomicUsize::new(0),
            phase: AtomicU8::new(Phase::Built as u8),
            shutdown: watch::Sender::new(false),
            live_peers: watch::Sender::new(0),
        });
        let waiting = Mutex::new(waiting);
        Ok(Manager { last: Arc::new(LastHandle { state, waiting }) })
    }
}

impl std::fmt::Debug for ManagerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManagerBuilder")
            .field("local", &self.local)
            .field("servers", &self.servers)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "the default, where the application gave no other")]
fn os_rng() -> Box<dyn Rng + Send> {
    Box::new(SmallRng::from_rng(&mut rand::rng()))
}

/// The limits of one remote.
fn limits_of_one(limits: &Limits, rare: &Rare) -> Limits {
    let mut limits = limits.clone();
    if rare.strike(Point::TinyQueue).is_some() {
        limits.queue_bytes_max = limits.queue_bytes_min();
    }
    limits
}

fn check_path(path: &str) -> Result<(), BuildError> {
    let is_plain = path.starts_with('/')
        && path.parse::<http::Uri>().is_ok_and(|uri| uri.path() == path && uri.query().is_none());
    if is_plain { Ok(()) } else { Err(BuildError::Path { path: path.to_owned() }) }
}

/// The local name and those of all others (B01).
fn check_servers(local: &str, servers: &[String]) -> Result<(Name, BTreeSet<Name>), BuildError> {
    if servers.len() > SERVERS_MAX {
        return Err(BuildError::TooManyServers { count: servers.len(), max: SERVERS_MAX });
    }
    let local: Name = local.parse()?;
    let mut names = BTreeSet::new();
    let mut places = BTreeSet::new();
    for server in servers {
        let name: Name = server.parse()?;
        let (host, port) = name.host_port();
        // The same place under two names, such as with and without the default port, is one server.
        if !places.insert((host.to_owned(), port)) {
            return Err(BuildError::Duplicate { name });
        }
        names.insert(name);
    }
    if !names.remove(&local) {
        return Err(BuildError::LocalMissing { local });
    }
    Ok((local, names))
}

/// All connections of one server (B01). Cheap to clone.
///
/// Dropping the last handle, be it a manager or a [`Connection`] of it, ends everything at once;
/// [`shutdown`](Self::shutdown) does so with grace. A handler that holds a handle keeps its manager
/// alive until `shutdown`.
///
/// ```no_run
/// use grid::{Auth, HandlerId, Manager, Route};
/// use tokio::net::TcpListener;
///
/// const ECHO: HandlerId = HandlerId::new(200);
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let manager = Manager::builder("http://10.0.0.1:9000")
///         .servers(["http://10.0.0.1:9000", "http://10.0.0.2:9000"])
///         .auth(Auth::shared_secret(b"what all servers know")?)
///         .build()?;
///     manager.register(Route::new(ECHO).name("Echo"), |_context, payload| async { Ok(payload) })?;
///     manager.start()?;
///     tokio::spawn(manager.clone().serve(TcpListener::bind("10.0.0.1:9000").await?));
///
///     let other = manager.connection("http://10.0.0.2:9000").ok_or("not a server")?;
///     other.wait_connected().await?;
///     println!("{:?}", other.request(ECHO, "hello").await?);
///     manager.shutdown(std::time::Duration::from_secs(5)).await;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Manager {
    last: Arc<LastHandle>,
}

/// Dropped with the last handle: then nobody is left who could use the connections.
#[derive(Debug)]
struct LastHandle {
    state: Arc<ManagerState>,
    /// Remotes whose task has not been started.
    waiting: Mutex<Vec<Waiting>>,
}

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.state.end();
    }
}

impl Alive for LastHandle {}

/// A remote whose task has not been started.
#[derive(Debug)]
struct Waiting {
    shared: SharedRef,
    accepted: mpsc::Receiver<AcceptedConnection>,
    seed: u64,
}

impl Manager {
    /// A manager for the server whose base URL is `local`.
    pub fn builder(local: &str) -> ManagerBuilder {
        ManagerBuilder::new(local)
    }

    /// Serves `route` with `handler`, from now on. A handler need not be registered to be called on
    /// others (B12).
    ///
    /// # Errors
    ///
    /// [`RegisterError::Duplicate`] if the route is taken.
    pub fn register(&self, route: Route, handler: impl Handler) -> Result<(), RegisterError> {
        self.last.state.registry.register(route, Serves::Requests(Box::new(handler)))
    }

    /// Serves `route` with a handler of streams, from now on. Ids are one space: a route serves
    /// either single requests or streams.
    ///
    /// The handler gets what it is told of the call, the payload that the stream was opened with (an
    /// empty one is not none), its input and its output. Returning ends the stream, an error ends it
    /// with that error, a panic with one that says so (B13). A stream whose caller gave up, whose
    /// deadline passed or whose connection ended is cancelled by dropping the handler's future at
    /// its next await (B25).
    ///
    /// ```
    /// # use grid::{HandlerId, Manager, RegisterError, Route};
    /// # fn example(manager: &Manager) -> Result<(), RegisterError> {
    /// let route = Route::new(HandlerId::new(201)).name("Shout");
    /// manager.register_stream(route, |_context, _payload, mut input, mut output| async move {
    ///     while let Some(message) = input.next().await {
    ///         output.send(message?.to_ascii_uppercase()).await?;
    ///     }
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RegisterError::Duplicate`] if the route is taken, [`RegisterError::Capacity`] if its
    /// capacities are out of bounds.
    pub fn register_stream<F, Fut>(&self, route: Route, handler: F) -> Result<(), RegisterError>
    where
        F: Fn(RequestContext, Option<Bytes>, StreamReceiver, StreamOutput) -> Fut
            + Send
            + Sync
            + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let handler = move |context, payload, input, output| -> StreamFuture {
            Box::pin(handler(context, payload, input, output))
        };
        self.last.state.registry.register(route, Serves::Streams(Box::new(handler)))
    }

    /// Begins to connect. Further calls do nothing.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoRuntime`] outside of a tokio runtime.
    pub fn start(&self) -> Result<(), BuildError> {
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let state = &self.last.state;
        let waiting =
            std::mem::take(&mut *self.last.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for Waiting { shared, accepted, seed } in waiting {
            let dialler = Dialler::between(&state.local, shared.remote());
            let counted = LivePeer::counted(state);
            let peer =
                RemoteTask { state: Arc::clone(state), shared, dialler, accepted, seed, newest: None };
            runtime.spawn(async move {
                peer.live().await;
                drop(counted);
            });
        }
        state.enter(Phase::Started);
        Ok(())
    }

    /// This server.
    pub fn local(&self) -> &Name {
        &self.last.state.local
    }

    /// Where the grid is mounted.
    pub fn path(&self) -> &str {
        &self.last.state.path
    }

    /// The connection to a remote, `None` if there is no such remote.
    pub fn connection(&self, remote: &str) -> Option<Connection> {
        let name = self.last.state.find_remote(remote)?;
        self.last.state.remotes.get(&name).map(|remote| self.handle(remote))
    }

    /// The connections to all remotes, in the order of their names.
    pub fn connections(&self) -> Vec<Connection> {
        self.last.state.remotes.values().map(|remote| self.handle(remote)).collect()
    }

    fn handle(&self, remote: &Remote) -> Connection {
        let link = Link {
            shared: SharedRef::clone(&remote.shared),
            tracer: Arc::clone(&self.last.state.tracer),
            _alive: Arc::clone(&self.last) as Arc<dyn Alive>,
        };
        Connection { link: Arc::new(link) }
    }

    /// What can be seen of all remotes now, in the order of their names (B08).
    pub fn stats(&self) -> Vec<ConnectionStats> {
        self.last.state.remotes.values().map(|remote| remote.shared.stats()).collect()
    }

    /// Incoming sockets that have not proved who they are, now.
    pub fn unauthenticated_sockets(&self) -> usize {
        self.last.state.unauthenticated.load(Ordering::Relaxed)
    }

    /// Lets `subscriber` see every call from now on (B42).
    pub fn trace(&self, subscriber: Subscriber) {
        self.last.state.tracer.subscribe(subscriber);
    }

    /// Stops that.
    pub fn untrace(&self, subscriber: &Subscriber) {
        self.last.state.tracer.unsubscribe(subscriber);
    }

    /// What answers the upgrade requests of other servers, to be mounted at [`path`](Self::path)
    /// beside the application's own routes. Does not keep the manager alive.
    pub fn service(&self) -> GridService {
        GridService::new(Arc::clone(&self.last.state))
    }

    /// Takes a raw incoming socket, and serves nothing but the grid on it. Returns when its
    /// handshake is over, well or not; the connection then lives with the manager.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes a socket whose handshake is not over.
    pub async fn accept(&self, socket: impl Socket + 'static) {
        serve_socket(Arc::clone(&self.last.state), Box::new(socket)).await;
    }

    /// Accepts sockets from `listener` until the manager ends. Does not keep the manager alive.
    ///
    /// An application with routes of its own mounts [`service`](Self::service) instead.
    pub async fn serve(self, listener: TcpListener) {
        let state = Arc::clone(&self.last.state);
        drop(self);
        let mut shutdown = state.shutdown.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.wait_for(|ended| *ended) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(target: "grid", %error, "an incoming socket failed");
                        continue;
                    }
                    tokio::spawn(serve_socket(Arc::clone(&state), Box::new(socket)));
                }
                Err(error) => accept_failed(&state, &error).await,
            }
        }
    }

    /// Ends everything in good order (B09): no new calls are taken in either direction, those under
    /// way get `grace` to finish, then all connections are closed. Returns when no connection is left,
    /// nor any handler that ends when it is cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the manager without new calls; call it again to end it. Several
    /// may wait for it.
    pub async fn shutdown(&self, grace: Duration) {
        let state = &self.last.state;
        state.drain();
        // The grace is over when it is over: what has not finished then is ended below.
        let _ = tokio::time::timeout(grace, async {
            for remote in state.remotes.values() {
                std::future::poll_fn(|cx| remote.shared.poll_idle(cx.waker())).await;
            }
        })
        .await;
        state.end();
        self.last.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Those that close in good order have a limit of their own; an error cannot be, since the
        // sender is ours.
        let _ = state.live_peers.subscribe().wait_for(|live| *live == 0).await;
        // Handlers that are not wanted end at their next await. One that never awaits is not ours.
        let _ = tokio::time::timeout(state.limits.close_timeout, async {
            for remote in state.remotes.values() {
                std::future::poll_fn(|cx| remote.shared.poll_handlers_gone(cx.waker())).await;
            }
        })
        .await;
    }
}

/// A remote's task; counted until it is dropped.
struct LivePeer(Arc<ManagerState>);

impl LivePeer {
    fn counted(state: &Arc<ManagerState>) -> Self {
        state.live_peers.send_modify(|live| *live += 1);
        Self(Arc::clone(state))
    }
}

impl Drop for LivePeer {
    fn drop(&mut self) {
        self.0.live_peers.send_modify(|live| *live -= 1);
    }
}

/// Running out of file descriptors must not become a busy loop.
async fn accept_failed(state: &ManagerState, error: &io::Error) {
    if state.log_throttle.allows("accept", state.clock.0.now()) {
        tracing::warn!(target: "grid", %error, "cannot accept connections; trying again");
    }
    tokio::time::sleep(state.limits.backoff_min).await;
}
