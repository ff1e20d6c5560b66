//! One node of a cluster: what runs inside its simulated host.

use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid::net::transport::{Dialling, Socket, Transport};
use grid::{Auth, ConnectionState, Limits, Manager, Name};
use iam_bootstrap::store::MemoryStore;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use turmoil::net::{TcpListener, TcpStream};

use super::clock::NodeClock;
use super::gate::Gate;
use super::links::host;
use super::rare::Rare;
use super::tap::Tapped;
use super::{node_of, url};
use crate::event::{CallId, LinkState, What};
use crate::iam;
use crate::load::{self, LoadTable};
use crate::lock::{Locks, Protected};
use crate::plan::{Load, Node};
use crate::recorder::{Pen, Recorder};

/// Where all nodes listen.
pub(super) const PORT: u16 = 9000;

/// What a node is told to do, from outside of the simulation.
pub(super) enum Command {
    /// Make a call.
    Make(CallId, Load),
    /// Run something of the scenario's own.
    Run(Task),
    /// End in good order, and begin again.
    Bounce { grace: Duration },
    /// End in good order.
    Stop { grace: Duration },
}

/// Something that a scenario runs on a node.
pub(super) type Task = Box<dyn FnOnce(Host) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A node from inside: what software that runs on it may use.
#[derive(Debug, Clone)]
pub struct Host {
    /// Which node it is.
    pub node: Node,
    /// How many there are.
    pub nodes: u8,
    /// Its manager.
    pub manager: Manager,
    /// Its clocks, as wrong as the run wants them.
    pub clock: NodeClock,
    /// Where it writes down what happens.
    pub pen: Pen,
    /// What everything random on it is to be drawn from: another one for each incarnation.
    pub seed: u64,
    /// Closed while the process is stopped: what an application does on it waits there before each
    /// step.
    pub gate: Gate,
    /// Open once the process is told to end in good order.
    pub ending: Gate,
    /// Open once all trouble is over.
    pub healed: Gate,
    /// Where software leaves what the load asks for locks.
    pub locks: Locks,
    /// Where software leaves the copy of users, policies and mappings that the load changes.
    pub iam: iam::Seat,
    /// The pools of this node, which its processes share, one after the other.
    pub pools: Vec<MemoryStore>,
    pub(crate) protected: Protected,
}

impl Host {
    /// Whether the holder of a lock believes now that it holds it.
    pub(crate) fn believes(&self, call: CallId) -> bool {
        let now = Duration::from_millis(self.pen.now_ms());
        self.protected.holds.is_believed(call, now)
    }
}

/// Software that nodes run besides the load: a storage server's own.
pub trait Software: Send + Sync {
    /// An incarnation of a node begins: register handlers, spawn tasks. Before its manager starts.
    ///
    /// # Errors
    ///
    /// Whatever keeps the node from starting; it fails the run.
    fn install(&self, host: &Host) -> Result<(), Box<dyn std::error::Error>>;
}

/// Nodes without any.
impl Software for () {
    fn install(&self, _host: &Host) -> Result<(), Box<dyn std::error::Error>> {
        Ok(())
    }
}

/// Several, one after the other.
impl Software for Vec<Arc<dyn Software>> {
    fn install(&self, host: &Host) -> Result<(), Box<dyn std::error::Error>> {
        self.iter().try_for_each(|software| software.install(host))
    }
}

/// What the world and the node's host share, over all of its incarnations.
pub(super) struct Shared {
    pub(super) node: Node,
    pub(super) nodes: u8,
    pub(super) seed: u64,
    pub(super) limits: Limits,
    pub(super) clock: NodeClock,
    /// Closed while the process is stopped.
    pub(super) gate: Gate,
    pub(super) recorder: Recorder,
    pub(super) table: LoadTable,
    software: Arc<dyn Software>,
    rare: Vec<(String, u16)>,
    /// Whether rare events are over.
    is_healed: Arc<AtomicBool>,
    /// Open once they are, for whoever waits for it.
    healed: Gate,
    pub(super) protected: Protected,
    pub(super) pools: Vec<MemoryStore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    incarnation: u32,
    secret: &'static str,
    life: Option<Life>,
}

/// A running incarnation, as the world sees it.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) pen: Pen,
    pub(super) runtime: Handle,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// Until it is told to end.
    pub(super) manager: Option<Manager>,
    /// Likewise.
    pub(super) locks: Option<Locks>,
    /// Likewise.
    pub(super) iam: Option<iam::Seat>,
}

impl Shared {
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
        let secret = if cluster.strangers.contains(&node) { WRONG_SECRET } else { SECRET };
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
            rare: cluster.rare.clone(),
            is_healed: Arc::new(AtomicBool::new(false)),
            healed: Gate::closed(),
            protected,
            pools: iam::pools(plan),
            state: Mutex::new(State { incarnation: 0, secret, life: None }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn life(&self) -> Option<Life> {
        self.state().life.clone()
    }

    /// Takes the running incarnation away. What is in it is dropped by the caller.
    pub(super) fn take_life(&self) -> Option<Life> {
        self.state().life.take()
    }

    /// All trouble is over: no rare events from here on.
    pub(super) fn heal(&self) {
        self.is_healed.store(true, Ordering::Relaxed);
        self.healed.open();
    }

    /// From its next incarnation on the node knows the cluster's secret.
    pub(super) fn learn_secret(&self) {
        self.state().secret = SECRET;
    }

    pub(super) fn is_stranger(&self) -> bool {
        self.state().secret == WRONG_SECRET
    }
}

const SECRET: &str = "what all nodes of the simulation know";
const WRONG_SECRET: &str = "what a stranger holds to be the secret";

/// The life of a host: one incarnation after the other.
pub(super) async fn live(shared: Arc<Shared>) -> turmoil::Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    shared.clock.begin(Duration::from_millis(shared.recorder.now_ms()));
    while incarnate(&shared, &listener).await? == Next::Again {}
    // A host whose software has returned is dropped by turmoil; what it left behind must be seen.
    std::future::pending().await
}

/// What follows an incarnation that ended in good order.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Again,
    Nothing,
}

async fn incarnate(shared: &Arc<Shared>, listener: &TcpListener) -> turmoil::Result<Next> {
    let pen = shared.recorder.pen(shared.node);
    shared.clock.correct();
    let (commands, mut inbox) = mpsc::unbounded_channel();
    let host = start(shared, &pen)?;
    let manager = host.manager.clone();
    let (incarnation, ended) = {
        let mut state = shared.state();
        state.incarnation += 1;
        let (pen, manager, locks) = (pen.clone(), Some(manager.clone()), Some(host.locks.clone()));
        let iam = Some(host.iam.clone());
        let life = Life { pen, runtime: Handle::current(), commands, manager, locks, iam };
        (state.incarnation, state.life.replace(life))
    };
    drop(ended);
    pen.record(What::Started { incarnation });
    for connection in manager.connections() {
        tokio::spawn(watch(connection, pen.clone()));
    }
    loop {
        tokio::select! {
            biased;
            command = inbox.recv() => match command {
                Some(Command::Make(call, load)) => {
                    tokio::spawn(load::make(call, load, host.clone()));
                }
                Some(Command::Run(task)) => drop(tokio::spawn(task(host.clone()))),
                Some(Command::Bounce { grace }) => {
                    // A process that is stopped ends once it goes on.
                    host.gate.pass().await;
                    drop(manager);
                    end(shared, host, grace).await;
                    return Ok(Next::Again);
                }
                Some(Command::Stop { grace }) => {
                    drop(manager);
                    end(shared, host, grace).await;
                    return Ok(Next::Nothing);
                }
                None => return Ok(Next::Nothing),
            },
            accepted = listener.accept() => {
                let (stream, dialler) = accepted?;
                let remote = node_at(dialler.ip(), shared.nodes);
                let socket = pen.open_socket(dialler, remote, false);
                let tapped = Tapped::new(stream, pen.clone(), socket, remote);
                let manager = manager.clone();
                tokio::spawn(async move { manager.accept(tapped).await });
            }
        }
    }
}

/// The world's own handle must go first, or the manager would outlive its end.
async fn end(shared: &Shared, host: Host, grace: Duration) {
    if let Some(life) = &mut shared.state().life {
        (life.manager, life.locks, life.iam) = (None, None, None);
    }
    host.ending.open();
    let Host { manager, locks, iam, .. } = host;
    if let Some(copy) = iam.iam() {
        copy.shutdown();
    }
    drop(iam);
    if let Some(client) = locks.client() {
        client.shutdown(grace).await;
    }
    drop(locks);
    manager.shutdown(grace).await;
}

fn start(shared: &Arc<Shared>, pen: &Pen) -> turmoil::Result<Host> {
    let (secret, incarnation) = {
        let state = shared.state();
        (state.secret, state.incarnation)
    };
    let seed = shared.seed ^ (u64::from(shared.node.0) << 56) ^ (u64::from(incarnation) << 40);
    let is_healed = Arc::clone(&shared.is_healed);
    let rare = Rare::new(shared.rare.clone(), !seed, pen.clone(), is_healed);
    let transport = SimTransport { pen: pen.clone() };
    let manager = Manager::builder(&url(shared.node))
        .servers((0..shared.nodes).map(|node| url(Node(node))))
        .auth(Auth::shared_secret(secret.as_bytes())?)
        .limits(shared.limits.clone())
        .transport(transport)
        .clock(shared.clock.clone())
        .rng(SmallRng::seed_from_u64(seed))
        .buggify(rare)
        .build()?;
    load::register(&manager, &shared.table, pen)?;
    let (node, nodes, clock, pen) = (shared.node, shared.nodes, shared.clock.clone(), pen.clone());
    let host = Host {
        node,
        nodes,
        manager,
        clock,
        pen,
        seed: seed.rotate_left(1),
        gate: shared.gate.clone(),
        ending: Gate::closed(),
        healed: shared.healed.clone(),
        locks: Locks::default(),
        iam: iam::Seat::default(),
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

/// Writes down what becomes of one connection.
async fn watch(connection: grid::Connection, pen: Pen) {
    let remote = node_of(connection.remote());
    let mut watch = connection.watch();
    let mut last = watch.state();
    loop {
        let now = watch.changed().await;
        let state = match now {
            ConnectionState::Connecting => LinkState::Connecting,
            ConnectionState::Connected => LinkState::Connected,
            ConnectionState::Backoff => LinkState::Backoff,
            ConnectionState::Shutdown => LinkState::Shutdown,
        };
        let failure = connection.stats().last_failure;
        // A connection that takes another's place leaves no time to see the state in between.
        let is_lost = now != ConnectionState::Connected || last == ConnectionState::Connected;
        let cause = failure.filter(|_| is_lost).map(|failure| failure.cause.to_string());
        pen.record(What::State { remote, state, cause });
        if now == ConnectionState::Shutdown {
            return;
        }
        last = now;
    }
}

/// Dials through the simulated network.
struct SimTransport {
    pen: Pen,
}

impl Transport for SimTransport {
    fn connect(&self, remote: &Name) -> Dialling {
        let pen = self.pen.clone();
        let node = node_of(remote);
        Box::pin(async move {
            let stream = TcpStream::connect((host(node), PORT)).await?;
            let socket = pen.open_socket(stream.local_addr()?, node, true);
            Ok(Box::new(Tapped::new(stream, pen, socket, node)) as Box<dyn Socket>)
        })
    }
}
