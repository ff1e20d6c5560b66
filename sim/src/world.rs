//! A cluster of nodes built from the crates that ship, on a simulated network and simulated time.
//!
//! A [`World`] is driven from outside, tick by tick: its methods start, cut, hold, crash and
//! restart nodes, submit calls, and let time pass. All events are written to one [`Recorder`].
//! Invariants are not checked here (see [`crate::invariants`]).
//!
//! ```
//! use std::time::Duration;
//! use sim::fault::Cut;
//! use sim::plan::{Node, Plan};
//! use sim::world::World;
//!
//! let mut world = World::new(&Plan::quiet(3));
//! world.wait_until(Duration::from_secs(10), World::is_connected).expect("connected");
//! world.inject(Cut { a: Node(0), b: Node(1) });
//! world.run_for(Duration::from_secs(90));
//! assert!(!world.is_connected());
//! world.heal();
//! world.wait_until(Duration::from_secs(60), World::is_connected).expect("connected again");
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use grid::{ConnectionState, ConnectionStats};
use turmoil::Sim;

use crate::event::{CallId, EventKind, IamEvent};
use crate::guard::Guard;
use crate::iam;
use crate::load::LoadTable;
use crate::lock::{HoldView, LocksView, Protected};
use crate::plan::{Cluster, Fault, Load, Node, Plan};
use crate::recorder::Recorder;

mod fault_points;
mod faults;
mod links;
mod node;
mod tap;

pub use crate::clock::{EPOCH_SECONDS, NodeClock};
pub use crate::gate::Gate;
pub use crate::host::{Host, Software};
pub use crate::node::url;
use links::{Links, host};
use node::{Command, NodeShared};

/// A condition was not reached in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not reached within {0:?} of simulated time")]
pub struct NotReached(pub Duration);

/// A cluster, and the network between its nodes.
pub struct World {
    sim: Sim<'static>,
    cluster: Cluster,
    nodes: Vec<Arc<NodeShared>>,
    links: Links,
    slow: Vec<(Node, Node)>,
    recorder: Recorder,
    table: LoadTable,
    protected: Protected,
    /// Nodes that have not started yet, and their start times.
    late: Vec<(Node, u64)>,
    /// The last field, because it captures panics while the others are dropped.
    guard: Guard,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now_ms", &self.recorder.now_ms()).finish_non_exhaustive()
    }
}

/// The state of one node, as seen from outside.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The node.
    pub node: Node,
    /// Whether its process runs.
    pub is_running: bool,
    /// Its connections, in the order of their names.
    pub connections: Vec<ConnectionStats>,
    /// Number of accepted sockets that are not authenticated yet.
    pub unauthenticated: usize,
    /// Number of tasks of its runtime.
    pub tasks: usize,
    /// Number of open ends of TCP connections.
    pub sockets: usize,
    /// Its locks.
    pub locks: LocksView,
}

impl World {
    /// Creates the cluster of `plan`, at time zero. The plan's faults and load are not applied:
    /// [`crate::run`] does that.
    pub fn new(plan: &Plan) -> Self {
        Self::with_software(plan, &(Arc::new(()) as Arc<dyn Software>))
    }

    /// Creates the cluster of `plan`, with additional software on every node.
    pub fn with_software(plan: &Plan, software: &Arc<dyn Software>) -> Self {
        let guard = Guard::begin();
        let cluster = plan.cluster.clone();
        let tick = Duration::from_millis(cluster.tick_ms.max(1));
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            // Otherwise node-0 would be the first in every tick.
            .enable_random_order()
            .tick_duration(tick)
            .epoch(UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS))
            .simulation_duration(Duration::MAX)
            .min_message_latency(Duration::from_millis(cluster.latency_min_ms))
            .max_message_latency(Duration::from_millis(
                cluster.latency_max_ms.max(cluster.latency_min_ms),
            ))
            .tcp_capacity(cluster.socket_segments as usize)
            .build();
        let (recorder, table) = (Recorder::default(), LoadTable::default());
        let protected = Protected::default();
        let limits = cluster.limits.limits();
        let nodes: Vec<_> = (0..cluster.nodes)
            .map(|node| {
                let (limits, recorder) = (limits.clone(), recorder.clone());
                let (table, software) = (table.clone(), Arc::clone(software));
                let protected = protected.clone();
                let shared =
                    NodeShared::new(Node(node), plan, limits, recorder, table, software, protected);
                Arc::new(shared)
            })
            .collect();
        for shared in &nodes {
            let name = host(shared.node);
            let shared = Arc::clone(shared);
            sim.host(name, move || node::run_host(Arc::clone(&shared)));
        }
        for (node, _) in &cluster.late {
            sim.crash(host(*node));
        }
        let late = cluster.late.clone();
        let links = Links::default();
        let slow = Vec::new();
        Self { sim, cluster, nodes, links, slow, recorder, table, protected, late, guard }
    }

    // ---- time ----

    /// Returns the simulated time that has passed, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Advances the simulation by one tick.
    pub fn step(&mut self) {
        let now_ms = self.now_ms();
        self.recorder.set_now_ms(now_ms);
        while let Some(at) = self.late.iter().position(|(_, at_ms)| *at_ms <= now_ms) {
            let (node, _) = self.late.remove(at);
            self.sim.bounce(host(node));
        }
        if let Err(error) = self.sim.step() {
            grid::bug!("a node's software failed: {error}");
        }
        self.recorder.set_now_ms(self.now_ms());
        if self.cluster.iam.is_some() {
            self.record_snapshots();
        }
    }

    /// Records the snapshots that readers see, and log lines about loading.
    fn record_snapshots(&self) {
        for (node, retries) in self.guard.take_loaded() {
            if let Some(incarnation) =
                self.nodes.get(node.index()).and_then(|shared| shared.incarnation())
            {
                incarnation.recorder.record(EventKind::Iam(IamEvent::LoadLogged { retries }));
            }
        }
        for incarnation in self.nodes.iter().filter_map(|shared| shared.incarnation()) {
            if let Some(event) = incarnation.iam.as_ref().and_then(iam::IamSlot::poll_snapshot) {
                incarnation.recorder.record(EventKind::Iam(event));
            }
        }
    }

    /// Advances the simulation by `duration`.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.sim.elapsed() + duration;
        while self.sim.elapsed() < until {
            self.step();
        }
    }

    /// Advances the simulation until `is_reached` returns true.
    ///
    /// # Errors
    ///
    /// [`NotReached`] if that took longer than `limit`.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        is_reached: impl Fn(&Self) -> bool,
    ) -> Result<(), NotReached> {
        let until = self.sim.elapsed() + limit;
        while !is_reached(self) {
            if self.sim.elapsed() >= until {
                return Err(NotReached(limit));
            }
            self.step();
        }
        Ok(())
    }

    // ---- load ----

    /// Submits an operation to its node. Returns `None` if the node's process does not run.
    #[must_use = "a node that does not run performs no operation"]
    pub fn submit(&mut self, load: Load) -> Option<CallId> {
        let (from, _) = load.ends();
        let call = self.table.add(load.clone());
        let incarnation = self.nodes.get(from.index())?.incarnation()?;
        incarnation.commands.send(Command::Submit(call, load)).ok().map(|()| call)
    }

    /// Spawns a task in a node's process. Returns whether the process runs.
    ///
    /// The task reports its results through the recorder of the host, or through a channel.
    #[must_use = "a node that does not run performs no task"]
    pub fn spawn<F, Fut>(&self, node: Node, task: F) -> bool
    where
        F: FnOnce(Host) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let task = Command::Run(Box::new(move |host| Box::pin(task(host))));
        let incarnation = self.nodes.get(node.index()).and_then(|shared| shared.incarnation());
        incarnation.is_some_and(|incarnation| incarnation.commands.send(task).is_ok())
    }

    // ---- faults ----

    /// Injects a fault, or ends one.
    pub fn inject(&mut self, fault: impl Into<Fault>) {
        let fault = fault.into();
        self.recorder.set_now_ms(self.now_ms());
        self.recorder.record(EventKind::Fault { fault });
        fault.apply(self);
    }

    fn send(&self, node: Node, command: Command) {
        if let Some(incarnation) = self.nodes[node.index()].incarnation() {
            // A node that is shutting down accepts no more commands.
            let _ = incarnation.commands.send(command);
        }
    }

    /// Heals all faults: links are intact and as fast as usual, clocks are correct, nodes run. A
    /// paused process resumes, with clocks that ran during the pause.
    pub fn heal(&mut self) {
        self.recorder.set_now_ms(self.now_ms());
        for (node, _) in std::mem::take(&mut self.late) {
            self.sim.bounce(host(node));
        }
        Fault::heal_all(self);
        for shared in &self.nodes {
            shared.heal();
            if shared.has_wrong_secret() {
                shared.set_right_secret();
                self.send(shared.node, Command::Bounce { grace: Duration::ZERO });
            } else if self.has_other_flags(shared) {
                self.send(shared.node, Command::Bounce { grace: Duration::ZERO });
            }
        }
        self.recorder.record(EventKind::Healed);
    }

    /// Returns whether a node's process has flags that keep the cluster from recovering.
    fn has_other_flags(&self, shared: &NodeShared) -> bool {
        let incarnation = shared.incarnation();
        self.cluster.locks.as_ref().zip(incarnation).is_some_and(|(locks, incarnation)| {
            locks.has_other_flags(shared.node, incarnation.started_ms)
        })
    }

    /// Shuts all nodes down cleanly, with a grace period for outstanding calls.
    pub fn stop(&mut self, grace: Duration) {
        for shared in &self.nodes {
            self.send(shared.node, Command::Stop { grace });
        }
    }

    // ---- observations ----

    /// Returns the panics of all tasks and every [`grid::bug!`] since the last call: turmoil
    /// swallows the former, and grid continues after the latter. [`crate::run`] fails a run for any
    /// of them; a custom scenario calls this at its end. A thread can have one world at a time.
    #[must_use = "any of them fails a run"]
    pub fn internal_errors(&self) -> Vec<String> {
        self.guard.take_failures()
    }

    /// Drops all nodes, and returns the panics and bugs of that and those since the last call of
    /// [`internal_errors`](Self::internal_errors).
    #[must_use = "any of them fails a run"]
    pub fn end(self) -> Vec<String> {
        let Self { sim, nodes, guard, .. } = self;
        drop(sim);
        drop(nodes);
        guard.take_failures()
    }

    /// Returns the event log.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Returns the table of all submitted operations.
    pub fn table(&self) -> &LoadTable {
        &self.table
    }

    /// Returns all granted locks, with whether each holder sees `is_held()` at this instant.
    pub fn hold_views(&self) -> Vec<HoldView> {
        self.protected.holds.views(self.sim.elapsed())
    }

    /// Returns the state of each node, as seen from outside.
    pub fn views(&self) -> Vec<NodeView> {
        self.nodes.iter().map(|shared| view(shared, &self.recorder)).collect()
    }

    /// Returns whether every node runs and is connected to every other.
    pub fn is_connected(&self) -> bool {
        self.nodes.iter().all(|shared| {
            let manager = shared.incarnation().and_then(|incarnation| incarnation.manager);
            manager.is_some_and(|manager| {
                let connections = manager.connections();
                connections
                    .iter()
                    .all(|connection| connection.state() == ConnectionState::Connected)
            })
        })
    }

    /// Returns whether users, policies and mappings are loaded and equal on every node.
    pub fn is_converged(&self) -> bool {
        let hash = |shared: &Arc<NodeShared>| {
            let iam = shared.incarnation()?.iam?.iam()?;
            Some(iam.snapshot()?.content_hash())
        };
        let mut hashes = self.nodes.iter().map(hash);
        let first = hashes.next().flatten();
        first.is_some() && hashes.all(|hash| hash == first)
    }

    /// Returns whether no call is outstanding, and no bytes are queued for writing.
    pub fn is_idle(&self) -> bool {
        self.recorder.outstanding() == (0, 0)
            && self.views().iter().all(|view| {
                view.unauthenticated == 0
                    && view.connections.iter().all(ConnectionStats::is_quiescent)
            })
    }
}

fn view(shared: &NodeShared, recorder: &Recorder) -> NodeView {
    let incarnation = shared.incarnation();
    let manager = incarnation.as_ref().and_then(|incarnation| incarnation.manager.as_ref());
    let client = incarnation.as_ref().and_then(|incarnation| incarnation.locks.as_ref()?.client());
    NodeView {
        node: shared.node,
        is_running: incarnation.is_some(),
        connections: manager.map(grid::Manager::stats).unwrap_or_default(),
        unauthenticated: manager.map_or(0, grid::Manager::unauthenticated_sockets),
        tasks: incarnation
            .as_ref()
            .map_or(0, |incarnation| incarnation.runtime.metrics().num_alive_tasks()),
        sockets: recorder.open_sockets(shared.node),
        locks: client.map(|client| client.view()).unwrap_or_default(),
    }
}
