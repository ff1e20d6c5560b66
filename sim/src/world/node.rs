//! One node of a cluster: the software inside its simulated host.

use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grid::env::Env;
use grid::net::transport::{ConnectFuture, Socket, Transport};
use grid::sync::{Mutex, MutexGuard};
use grid::{Auth, Limits, Manager, Name};
use iam_bootstrap::store::MemoryStore;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use turmoil::net::{TcpListener, TcpStream};

use super::fault_points::FaultPoints;
use super::links::host;
use super::tap::TappedSocket;
use crate::clock::NodeClock;
use crate::event::{CallId, ConnectionState, EventKind};
use crate::gate::Gate;
use crate::host::{Host, Software};
use crate::iam;
use crate::load::{self, LoadTable};
use crate::lock::{LockSlot, Protected};
use crate::node::{PORT, node_of, url};
use crate::plan::{Load, Node};
use crate::recorder::{NodeRecorder, Recorder};

/// A command to a node, from outside of the simulation.
pub(super) enum Command {
    /// Performs an operation of the load.
    Submit(CallId, Load),
    /// Runs a task of the scenario.
    Run(Task),
    /// Shuts down cleanly, and starts again.
    Bounce { grace: Duration },
    /// Shuts down cleanly.
    Stop { grace: Duration },
}

/// A task that a scenario runs on a node.
pub(super) type Task = Box<dyn FnOnce(Host) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// State that the world and the node's host share, over all incarnations of the node.
pub(super) struct NodeShared {
    pub(super) node: Node,
    pub(super) nodes: u8,
    pub(super) seed: u64,
    pub(super) limits: Limits,
    pub(super) clock: NodeClock,
    /// Closed while the process is paused.
    pub(super) gate: Gate,
    pub(super) recorder: Recorder,
    pub(super) table: LoadTable,
    software: Arc<dyn Software>,
    fault_points: Vec<(String, u16)>,
    /// Whether fault points are disabled.
    is_healed: Arc<AtomicBool>,
    /// Open once all faults are healed.
    healed: Gate,
    pub(super) protected: Protected,
    pub(super) pools: Vec<MemoryStore>,
    state: Mutex<NodeState>,
}

#[derive(Debug, Default)]
struct NodeState {
    /// Number of incarnations so far.
    incarnations: u32,
    secret: &'static str,
    running: Option<Incarnation>,
}

/// A running incarnation, as the world sees it.
#[derive(Debug, Clone)]
pub(super) struct Incarnation {
    pub(super) recorder: NodeRecorder,
    /// When it started, in simulated milliseconds.
    pub(super) started_ms: u64,
    pub(super) runtime: Handle,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// The manager; none once the shutdown has begun.
    pub(super) manager: Option<Manager>,
    /// The lock client; none once the shutdown has begun.
    pub(super) locks: Option<LockSlot>,
    /// The IAM replica; none once the shutdown has begun.
    pub(super) iam: Option<iam::IamSlot>,
}

impl NodeShared {
    pub(super) fn new(
        node: Node,
        plan: &crate::plan::Plan,
        limits: Limits,
        recorder: Recorder,
        table: LoadTable,
        software: Arc<dyn Software>,
        protected: Protected,
    ) -> Self {
        let cluster = &plan.cluster;
        let secret = if cluster.wrong_secret_nodes.contains(&node) { WRONG_SECRET } else { SECRET };
        Self {
            node,
            nodes: cluster.nodes,
            seed: plan.seed,
            limits,
            clock: NodeClock::default(),
            gate: Gate::default(),
            recorder,
            table,
            software,
            fault_points: cluster.fault_points.clone(),
            is_healed: Arc::new(AtomicBool::new(false)),
            healed: Gate::closed(),
            protected,
            pools: iam::pools(plan),
            state: Mutex::new(NodeState { incarnations: 0, secret, running: None }),
        }
    }

    fn state(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock()
    }

    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.state().running.clone()
    }

    /// Takes the running incarnation, for the caller to drop.
    pub(super) fn take_incarnation(&self) -> Option<Incarnation> {
        self.state().running.take()
    }

    /// Disables fault points and opens the gate of healed faults.
    pub(super) fn heal(&self) {
        self.is_healed.store(true, Ordering::Relaxed);
        self.healed.open();
    }

    /// Gives the next incarnation the cluster's secret.
    pub(super) fn set_right_secret(&self) {
        self.state().secret = SECRET;
    }

    pub(super) fn has_wrong_secret(&self) -> bool {
        self.state().secret == WRONG_SECRET
    }
}

const SECRET: &str = "what all nodes of the simulation know";
const WRONG_SECRET: &str = "a secret that no other node knows";

/// Runs the incarnations of a host, one after the other.
pub(super) async fn run_host(shared: Arc<NodeShared>) -> turmoil::Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    shared.clock.start(Duration::from_millis(shared.recorder.now_ms()));
    while run_incarnation(&shared, &listener).await? == AfterShutdown::Restart {}
    // turmoil drops a host whose software has returned; leftovers must stay visible.
    std::future::pending().await
}

/// The step after a clean shutdown of an incarnation.
#[derive(Debug, PartialEq, Eq)]
enum AfterShutdown {
    Restart,
    Stop,
}

async fn run_incarnation(
    shared: &Arc<NodeShared>,
    listener: &TcpListener,
) -> turmoil::Result<AfterShutdown> {
    let recorder = shared.recorder.for_node(shared.node);
    shared.clock.catch_up_after_freeze();
    let (commands, mut inbox) = mpsc::unbounded_channel();
    let host = start(shared, &recorder)?;
    let manager = host.manager.clone();
    let (incarnation, ended) = {
        let mut state = shared.state();
        state.incarnations += 1;
        let (recorder, manager, locks) =
            (recorder.clone(), Some(manager.clone()), Some(host.locks.clone()));
        let (iam, started_ms) = (Some(host.iam.clone()), shared.recorder.now_ms());
        let runtime = Handle::current();
        let running = Incarnation { recorder, started_ms, runtime, commands, manager, locks, iam };
        (state.incarnations, state.running.replace(running))
    };
    drop(ended);
    recorder.record(EventKind::Started { incarnation });
    for connection in manager.connections() {
        tokio::spawn(watch(connection, recorder.clone()));
    }
    loop {
        tokio::select! {
            biased;
            command = inbox.recv() => match command {
                Some(Command::Submit(call, load)) => {
                    tokio::spawn(load::perform(call, load, host.clone()));
                }
                Some(Command::Run(task)) => drop(tokio::spawn(task(host.clone()))),
                Some(Command::Bounce { grace }) => {
                    // A paused process shuts down once it resumes.
                    host.gate.pass().await;
                    drop(manager);
                    shut_down(shared, host, grace).await;
                    return Ok(AfterShutdown::Restart);
                }
                Some(Command::Stop { grace }) => {
                    drop(manager);
                    shut_down(shared, host, grace).await;
                    return Ok(AfterShutdown::Stop);
                }
                None => return Ok(AfterShutdown::Stop),
            },
            accepted = listener.accept() => {
                let (stream, dialer) = accepted?;
                let remote = node_at(dialer.ip(), shared.nodes);
                let socket = recorder.open_socket(dialer, remote, false);
                let tapped = TappedSocket::new(stream, recorder.clone(), socket, remote);
                let manager = manager.clone();
                tokio::spawn(async move { manager.accept(tapped).await });
            }
        }
    }
}

/// Shuts an incarnation down. The world's own handle is dropped first, or the manager would outlive
/// its shutdown.
async fn shut_down(shared: &NodeShared, host: Host, grace: Duration) {
    if let Some(running) = &mut shared.state().running {
        (running.manager, running.locks, running.iam) = (None, None, None);
    }
    host.ending.open();
    let Host { manager, locks, iam, .. } = host;
    if let Some(replica) = iam.iam() {
        replica.shutdown();
    }
    drop(iam);
    if let Some(client) = locks.client() {
        client.shutdown(grace).await;
    }
    drop(locks);
    manager.shutdown(grace).await;
}

fn start(shared: &Arc<NodeShared>, recorder: &NodeRecorder) -> turmoil::Result<Host> {
    let (secret, incarnation) = {
        let state = shared.state();
        (state.secret, state.incarnations)
    };
    let seed = shared.seed ^ (u64::from(shared.node.0) << 56) ^ (u64::from(incarnation) << 40);
    let is_healed = Arc::clone(&shared.is_healed);
    let fault_points =
        FaultPoints::new(shared.fault_points.clone(), !seed, recorder.clone(), is_healed);
    let env = Env::new(shared.clock.clone(), &mut SmallRng::seed_from_u64(seed));
    let transport = SimTransport { recorder: recorder.clone() };
    let manager = Manager::builder(&url(shared.node))
        .servers((0..shared.nodes).map(|node| url(Node(node))))
        .auth(Auth::shared_secret(secret.as_bytes())?)
        .limits(shared.limits.clone())
        .transport(transport)
        .env(env.clone())
        .buggify(fault_points)
        .build()?;
    load::register(&manager, &shared.table, recorder)?;
    let (node, nodes, clock, recorder) =
        (shared.node, shared.nodes, shared.clock.clone(), recorder.clone());
    let host = Host {
        node,
        nodes,
        manager,
        env,
        clock,
        recorder,
        seed: seed.rotate_left(1),
        gate: shared.gate.clone(),
        ending: Gate::closed(),
        healed: shared.healed.clone(),
        locks: LockSlot::default(),
        iam: iam::IamSlot::default(),
        pools: shared.pools.clone(),
        protected: shared.protected.clone(),
    };
    shared.software.install(&host)?;
    host.manager.start()?;
    Ok(host)
}

fn node_at(ip: std::net::IpAddr, nodes: u8) -> Node {
    let found = (0..nodes).map(Node).find(|node| turmoil::lookup(host(*node)) == ip);
    found.unwrap_or(Node(u8::MAX))
}

/// Records the states of one connection.
async fn watch(connection: grid::Connection, recorder: NodeRecorder) {
    let remote = node_of(connection.remote());
    let mut watch = connection.watch();
    let mut last = watch.state();
    loop {
        let now = watch.changed().await;
        let state = match now {
            grid::ConnectionState::Connecting => ConnectionState::Connecting,
            grid::ConnectionState::Connected => ConnectionState::Connected,
            grid::ConnectionState::Backoff => ConnectionState::Backoff,
            grid::ConnectionState::Shutdown => ConnectionState::Shutdown,
        };
        let failure = connection.stats().last_failure;
        // A connection that supersedes another leaves no time to observe the state in between.
        let is_lost =
            now != grid::ConnectionState::Connected || last == grid::ConnectionState::Connected;
        let cause = failure.filter(|_| is_lost).map(|failure| failure.cause.to_string());
        recorder.record(EventKind::State { remote, state, cause });
        if now == grid::ConnectionState::Shutdown {
            return;
        }
        last = now;
    }
}

/// Dials through the simulated network.
struct SimTransport {
    recorder: NodeRecorder,
}

impl Transport for SimTransport {
    fn connect(&self, remote: &Name) -> ConnectFuture {
        let recorder = self.recorder.clone();
        let node = node_of(remote);
        Box::pin(async move {
            let stream = TcpStream::connect((host(node), PORT)).await?;
            let socket = recorder.open_socket(stream.local_addr()?, node, true);
            Ok(Box::new(TappedSocket::new(stream, recorder, socket, node)) as Box<dyn Socket>)
        })
    }
}
