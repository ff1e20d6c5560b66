//! All connections of one server, and the handlers that serve them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::auth::Auth;
use crate::buggify::{FaultInjector, FaultPoint};
use crate::connection::Connection;
use crate::env::Env;
use crate::error::{BuildError, HandlerError, RegisterError};
use crate::handler::{Handler, RegisteredFn, Registry, RequestContext, StreamFuture};
use crate::limits::{LOG_REPEAT_AFTER, Limits, SERVERS_MAX, SUPERSEDING_MAX};
use crate::log_limit::LogLimiter;
use crate::name::Name;
use crate::net::accept::{GridService, serve_socket};
use crate::net::manager_state::{AcceptedConnection, ManagerPhase, ManagerState, RemoteEntry};
use crate::net::remote_task::RemoteTask;
use crate::net::transport::{Socket, TcpTransport, Transport};
use crate::proto::handshake::{Dialer, InstanceId};
use crate::remote_handle::{ManagerGuard, RemoteHandle};
use crate::route::Route;
use crate::shared::{ClockHandle, Shared, SharedRef};
use crate::stats::ConnectionStats;
use crate::stream::{StreamOutput, StreamReceiver};
use crate::sync::Mutex;
use crate::trace::{Subscriber, Tracer};

/// The path of a cluster's grid ([P1]).
///
/// [P1]: crate::protocol#p1
pub const GRID_PATH: &str = "/minio/grid/v1";

/// The path of the separate grid for lock traffic ([P1]).
///
/// [P1]: crate::protocol#p1
pub const LOCK_GRID_PATH: &str = "/minio/grid/lock/v1";

/// Configures and builds a [`Manager`].
pub struct ManagerBuilder {
    local: String,
    servers: Vec<String>,
    path: String,
    limits: Limits,
    auth: Option<Auth>,
    env: Option<Env>,
    transport: Box<dyn Transport>,
    fault_injector: FaultInjector,
}

impl ManagerBuilder {
    fn new(local: &str) -> Self {
        Self {
            local: local.to_owned(),
            servers: Vec::new(),
            path: GRID_PATH.to_owned(),
            limits: Limits::default(),
            auth: None,
            env: None,
            transport: Box::new(TcpTransport),
            fault_injector: FaultInjector::disabled(),
        }
    }

    /// Adds the base URLs of all servers of the cluster, the local one included ([B01]).
    ///
    /// [B01]: crate::rules#b01
    #[must_use]
    pub fn servers<I>(mut self, servers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.servers.extend(servers.into_iter().map(Into::into));
        self
    }

    /// Sets how servers authenticate to each other. Has no default.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Replaces the default path [`GRID_PATH`].
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Replaces the default transport [`TcpTransport`].
    #[must_use]
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Box::new(transport);
        self
    }

    /// Replaces the default environment [`Env::system`]: the clock, and the randomness that the
    /// manager's instance id and the jitter of its reconnects are drawn from.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Lets `buggify` decide which faults are injected. By default none are.
    #[cfg(feature = "buggify")]
    #[must_use]
    pub fn buggify(mut self, buggify: impl crate::buggify::Buggify) -> Self {
        self.fault_injector = FaultInjector::new(buggify);
        self
    }

    /// Builds the manager. It opens no connection before [`Manager::start`], so that handlers can
    /// be registered first.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the invalid address, path or limit.
    pub fn build(self) -> Result<Manager, BuildError> {
        self.limits.check()?;
        check_path(&self.path)?;
        let (local, remotes) = check_servers(&self.local, &self.servers)?;
        let auth = self.auth.ok_or(BuildError::NoAuth)?;
        let env = self.env.unwrap_or_default();
        let clock = ClockHandle(Arc::clone(env.clock()));
        let instance = InstanceId::from_bytes(env.unique_id().to_le_bytes());
        let mut unstarted = Vec::new();
        let mut entries = BTreeMap::new();
        for remote in remotes {
            let shared = SharedRef::new(Shared::new(
                local.clone(),
                remote.clone(),
                limits_for_remote(&self.limits, &self.fault_injector),
                clock.clone(),
            ));
            let (sender, accepted) = mpsc::channel(SUPERSEDING_MAX);
            let seed = env.seed();
            unstarted.push(UnstartedRemote { shared: SharedRef::clone(&shared), accepted, seed });
            let next_dial_seq = AtomicU64::new(0);
            entries.insert(remote, RemoteEntry { shared, accepted: sender, next_dial_seq });
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
            log_limiter: Mutex::new(LogLimiter::new(LOG_REPEAT_AFTER)),
            fault_injector: self.fault_injector,
            remotes: entries,
            unauthenticated_sockets: AtomicUsize::new(0),
            phase: AtomicU8::new(ManagerPhase::Built as u8),
            shutdown: watch::Sender::new(false),
            live_remote_tasks: watch::Sender::new(0),
        });
        let unstarted = Mutex::new(unstarted);
        Ok(Manager { inner: Arc::new(TerminateOnDrop { state, unstarted }) })
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

/// Returns the limits of one remote, which a fault point may tighten.
fn limits_for_remote(limits: &Limits, fault_injector: &FaultInjector) -> Limits {
    let mut limits = limits.clone();
    if fault_injector.inject(FaultPoint::TinyQueue).is_some() {
        limits.queue_bytes_max = limits.queue_bytes_min();
    }
    limits
}

fn check_path(path: &str) -> Result<(), BuildError> {
    let is_plain = path.starts_with('/')
        && path.parse::<http::Uri>().is_ok_and(|uri| uri.path() == path && uri.query().is_none());
    if is_plain { Ok(()) } else { Err(BuildError::Path { path: path.to_owned() }) }
}

/// Parses the local name and those of all remotes, and checks that each is listed once (B01).
fn check_servers(local: &str, servers: &[String]) -> Result<(Name, BTreeSet<Name>), BuildError> {
    if servers.len() > SERVERS_MAX {
        return Err(BuildError::TooManyServers { count: servers.len(), max: SERVERS_MAX });
    }
    let local: Name = local.parse()?;
    let mut names = BTreeSet::new();
    let mut endpoints = BTreeSet::new();
    for server in servers {
        let name: Name = server.parse()?;
        let (host, port) = name.host_port();
        // One endpoint under two names, such as with and without the default port, is one server.
        if !endpoints.insert((host.to_owned(), port)) {
            return Err(BuildError::Duplicate { name });
        }
        names.insert(name);
    }
    if !names.remove(&local) {
        return Err(BuildError::LocalMissing { local });
    }
    Ok((local, names))
}

/// All connections of one server ([B01]). Cheap to clone.
///
/// Dropping the last handle, be it a manager or a [`Connection`] of it, ends all connections at
/// once; [`shutdown`](Self::shutdown) does so gracefully. A handler that holds a handle keeps its
/// manager alive until `shutdown`.
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
///         .auth(Auth::shared_secret(b"the cluster's secret")?)
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
///
/// [B01]: crate::rules#b01
#[derive(Debug, Clone)]
pub struct Manager {
    inner: Arc<TerminateOnDrop>,
}

/// Shared by all handles; ends all connections when the last handle is dropped.
#[derive(Debug)]
struct TerminateOnDrop {
    state: Arc<ManagerState>,
    /// Remotes whose task is not started.
    unstarted: Mutex<Vec<UnstartedRemote>>,
}

impl Drop for TerminateOnDrop {
    fn drop(&mut self) {
        self.state.terminate();
    }
}

impl ManagerGuard for TerminateOnDrop {}

/// A remote whose task is not started.
#[derive(Debug)]
struct UnstartedRemote {
    shared: SharedRef,
    accepted: mpsc::Receiver<AcceptedConnection>,
    seed: u64,
}

impl Manager {
    /// Starts to configure a manager for the server whose base URL is `local`.
    pub fn builder(local: &str) -> ManagerBuilder {
        ManagerBuilder::new(local)
    }

    /// Serves `route` with `handler` from now on. A caller need not register the handlers that it
    /// calls on other servers ([B12]).
    ///
    /// # Errors
    ///
    /// [`RegisterError::Duplicate`] if the route is taken.
    ///
    /// [B12]: crate::rules#b12
    pub fn register(&self, route: Route, handler: impl Handler) -> Result<(), RegisterError> {
        self.inner.state.registry.register(route, RegisteredFn::Requests(Box::new(handler)))
    }

    /// Serves `route` with a stream handler from now on. Requests and streams share the ids: a
    /// route serves either single requests or streams.
    ///
    /// The handler receives the call's context, the initial payload of the stream (`Some` also if
    /// it is empty), its input and its output. The stream ends when the handler returns; a returned
    /// error or a panic ends it with an error ([B13]). If the caller cancels the stream, its deadline
    /// passes or its connection ends, the handler's future is dropped at its next await ([B25]).
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
    ///
    /// [B13]: crate::rules#b13
    /// [B25]: crate::rules#b25
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
        self.inner.state.registry.register(route, RegisteredFn::Streams(Box::new(handler)))
    }

    /// Begins to connect to all remotes. Further calls have no effect.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoRuntime`] outside of a tokio runtime.
    pub fn start(&self) -> Result<(), BuildError> {
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let state = &self.inner.state;
        let unstarted = std::mem::take(&mut *self.inner.unstarted.lock());
        for UnstartedRemote { shared, accepted, seed } in unstarted {
            let dialer = Dialer::between(&state.local, shared.remote());
            let task_count = RemoteTaskCount::increment(state);
            let state = Arc::clone(state);
            let task = RemoteTask { state, shared, dialer, accepted, seed, newest_seq: None };
            runtime.spawn(async move {
                task.run().await;
                drop(task_count);
            });
        }
        state.advance_to(ManagerPhase::Started);
        Ok(())
    }

    /// Returns the name of this server.
    pub fn local(&self) -> &Name {
        &self.inner.state.local
    }

    /// Returns the path that the grid is mounted at.
    pub fn path(&self) -> &str {
        &self.inner.state.path
    }

    /// Returns the connection to a remote, `None` if there is no such remote.
    pub fn connection(&self, remote: &str) -> Option<Connection> {
        let name = self.inner.state.find_remote(remote)?;
        self.inner.state.remotes.get(&name).map(|remote| self.handle(remote))
    }

    /// Returns the connections to all remotes, in the order of their names.
    pub fn connections(&self) -> Vec<Connection> {
        self.inner.state.remotes.values().map(|remote| self.handle(remote)).collect()
    }

    fn handle(&self, remote: &RemoteEntry) -> Connection {
        let handle = RemoteHandle {
            shared: SharedRef::clone(&remote.shared),
            tracer: Arc::clone(&self.inner.state.tracer),
            _manager_guard: Arc::clone(&self.inner) as Arc<dyn ManagerGuard>,
        };
        Connection { handle: Arc::new(handle) }
    }

    /// Returns statistics of all remotes, in the order of their names ([B08]).
    ///
    /// [B08]: crate::rules#b08
    pub fn stats(&self) -> Vec<ConnectionStats> {
        self.inner.state.remotes.values().map(|remote| remote.shared.stats()).collect()
    }

    /// Returns the number of incoming sockets that have not completed the handshake.
    pub fn unauthenticated_sockets(&self) -> usize {
        self.inner.state.unauthenticated_sockets.load(Ordering::Relaxed)
    }

    /// Passes every call that ends from now on to `subscriber` ([B42]).
    ///
    /// [B42]: crate::rules#b42
    pub fn trace(&self, subscriber: Subscriber) {
        self.inner.state.tracer.subscribe(subscriber);
    }

    /// Removes a subscriber that was added with [`trace`](Self::trace).
    pub fn untrace(&self, subscriber: &Subscriber) {
        self.inner.state.tracer.unsubscribe(subscriber);
    }

    /// Returns the HTTP service that accepts the upgrade requests of other servers, to be mounted
    /// at [`path`](Self::path) beside the application's own routes. Does not keep the manager
    /// alive.
    pub fn service(&self) -> GridService {
        GridService::new(Arc::clone(&self.inner.state))
    }

    /// Serves the grid, and no other route, on a raw incoming socket. Returns when the handshake
    /// succeeds or fails; the manager then owns the connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes a socket whose handshake is not complete.
    pub async fn accept(&self, socket: impl Socket + 'static) {
        serve_socket(Arc::clone(&self.inner.state), Box::new(socket)).await;
    }

    /// Accepts sockets from `listener` until the manager shuts down. Does not keep the manager
    /// alive.
    ///
    /// An application with routes of its own mounts [`service`](Self::service) instead.
    pub async fn serve(self, listener: TcpListener) {
        let state = Arc::clone(&self.inner.state);
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
                        tracing::debug!(
                            target: "grid", %error, "set_nodelay on incoming socket failed"
                        );
                        continue;
                    }
                    tokio::spawn(serve_socket(Arc::clone(&state), Box::new(socket)));
                }
                Err(error) => on_accept_error(&state, &error).await,
            }
        }
    }

    /// Shuts down gracefully ([B09]): refuses new calls in both directions, lets outstanding calls
    /// finish within `grace`, then closes all connections. Returns when no connection is left, nor
    /// any handler that ends when it is cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the manager refusing new calls; call `shutdown` again to complete
    /// it. Several tasks may await it concurrently.
    ///
    /// [B09]: crate::rules#b09
    pub async fn shutdown(&self, grace: Duration) {
        let state = &self.inner.state;
        state.drain();
        // A timeout is no error: calls that are still outstanding after `grace` are ended below.
        let _ = tokio::time::timeout(grace, async {
            for remote in state.remotes.values() {
                std::future::poll_fn(|cx| remote.shared.poll_idle(cx.waker())).await;
            }
        })
        .await;
        state.terminate();
        self.inner.unstarted.lock().clear();
        // Closing handshakes have a timeout of their own. `wait_for` cannot fail: `state` holds the
        // sender.
        let _ = state.live_remote_tasks.subscribe().wait_for(|live| *live == 0).await;
        // Cancelled handlers end at their next await. One that never awaits cannot be waited for.
        let _ = tokio::time::timeout(state.limits.close_timeout, async {
            for remote in state.remotes.values() {
                std::future::poll_fn(|cx| remote.shared.poll_no_handler_tasks(cx.waker())).await;
            }
        })
        .await;
    }
}

/// Counts a remote's task in `live_remote_tasks` until it is dropped.
struct RemoteTaskCount(Arc<ManagerState>);

impl RemoteTaskCount {
    fn increment(state: &Arc<ManagerState>) -> Self {
        state.live_remote_tasks.send_modify(|live| *live += 1);
        Self(Arc::clone(state))
    }
}

impl Drop for RemoteTaskCount {
    fn drop(&mut self) {
        self.0.live_remote_tasks.send_modify(|live| {
            debug_assert!(*live > 0, "live_remote_tasks is {live} while a task ends");
            *live -= 1;
        });
    }
}

/// Logs the error and pauses, so that running out of file descriptors is no busy loop.
async fn on_accept_error(state: &ManagerState, error: &io::Error) {
    if state.log_decision("accept").is_log() {
        let retry_in = state.limits.backoff_min;
        tracing::warn!(target: "grid", %error, ?retry_in, "accept failed, retrying");
    }
    tokio::time::sleep(state.limits.backoff_min).await;
}
