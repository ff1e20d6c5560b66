//! A cluster of nodes built from the crates that ship, on a simulated network and simulated time.
//!
//! A [`World`] is driven from outside, tick by tick: its methods start, cut, hold, crash and
//! restart nodes, submit calls, and let time pass. All events are written to one [`Recorder`].
//! Invariants are not checked here (see [`crate::invariants`]).
//!
//! ```
//! use std::time::Duration;
//! use sim::plan::{Fault, Node, Plan};
//! use sim::world::World;
//!
//! let mut world = World::new(&Plan::quiet(3));
//! world.wait_until(Duration::from_secs(10), World::is_connected).expect("connected");
//! world.inject(Fault::Cut { a: Node(0), b: Node(1) });
//! world.run_for(Duration::from_secs(90));
//! assert!(!world.is_connected());
//! world.heal();
//! world.wait_until(Duration::from_secs(60), World::is_connected).expect("connected again");
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use grid::{ConnectionState, ConnectionStats, Limits, Name};
use iam_bootstrap::store::memory::Health;
use turmoil::Sim;

use crate::event::{CallId, EventKind, IamEvent};
use crate::guard::Guard;
use crate::iam;
use crate::load::LoadTable;
use crate::lock::{HoldView, LocksView, Protected};
use crate::plan::{ClockWhilePaused, Cluster, Fault, LimitsPlan, Load, Node, Outage, Plan};
use crate::recorder::Recorder;

mod clock;
mod fault_points;
mod gate;
mod links;
mod node;
mod tap;

pub use clock::{EPOCH_SECONDS, NodeClock};
pub use gate::Gate;
use links::{Links, host, usual_latency};
use node::{Command, NodeShared};
pub use node::{Host, Software};

/// Returns the base URL of a node.
pub fn url(node: Node) -> String {
    format!("http://{node}:{}", node::PORT)
}

/// Returns the node with this base URL.
pub(crate) fn node_of(name: &Name) -> Node {
    let (host, _) = name.host_port();
    let number = host.strip_prefix("node-").and_then(|number| number.parse().ok());
    Node(number.unwrap_or(u8::MAX))
}

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
        let limits = limits_of(&cluster.limits);
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
    pub fn submit(&mut self, load: Load) -> Option<CallId> {
        let (from, _) = load.ends();
        let call = self.table.add(load.clone());
        let incarnation = self.nodes.get(from.index())?.incarnation()?;
        incarnation.commands.send(Command::Submit(call, load)).ok().map(|()| call)
    }

    /// Spawns a task in a node's process. Returns whether the process runs.
    ///
    /// The task reports its results through the recorder of the host, or through a channel.
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
    pub fn inject(&mut self, fault: Fault) {
        self.recorder.set_now_ms(self.now_ms());
        self.recorder.record(EventKind::Fault { fault });
        let Self { sim, links, .. } = self;
        match fault {
            Fault::Cut { a, b } => links.cut(sim, a, b),
            Fault::CutOneWay { from, to } => links.cut_one_way(sim, from, to),
            Fault::Hold { a, b } => links.hold(sim, a, b),
            Fault::Repair { a, b } => {
                links.repair(sim, a, b);
                usual_latency(sim, &self.cluster, a, b);
            }
            Fault::Slow { a, b, ms } => {
                sim.set_link_latency(host(a), host(b), Duration::from_millis(u64::from(ms)));
                self.slow.push((a, b));
            }
            Fault::PowerLoss { node } => self.power_loss(node),
            Fault::Restart { node } => self.restart(node),
            Fault::Skew { node, ms } => self.nodes[node.index()].clock.set_skew(ms),
            Fault::Drift { node, ppm } => {
                self.nodes[node.index()].clock.set_drift(ppm, self.sim.elapsed());
            }
            Fault::Bounce { node, grace_ms } => {
                let grace = Duration::from_millis(u64::from(grace_ms));
                self.send(node, Command::Bounce { grace });
            }
            Fault::Pause { node } => self.pause(node),
            Fault::Resume { node, clock } => self.resume(node, clock),
            Fault::PoolDown { node, pool, reason } => {
                let health = match reason {
                    Outage::NotInitialised => Health::NotInitialised,
                    Outage::Unavailable => Health::Offline("the run says so".into()),
                };
                self.set_health(node, pool, health);
            }
            Fault::PoolUp { node, pool } => self.set_health(node, pool, Health::Online),
        }
    }

    fn set_health(&self, node: Node, pool: u8, health: Health) {
        if let Some(store) = self.nodes[node.index()].pools.get(usize::from(pool)) {
            store.set_health(health);
        }
    }

    fn send(&self, node: Node, command: Command) {
        if let Some(incarnation) = self.nodes[node.index()].incarnation() {
            // A node that is shutting down accepts no more commands.
            let _ = incarnation.commands.send(command);
        }
    }

    /// Removes the process without notice to its peers: no FIN and no RST leaves the node.
    fn power_loss(&mut self, node: Node) {
        let shared = &self.nodes[node.index()];
        let Some(incarnation) = shared.take_incarnation() else { return };
        incarnation.recorder.mute();
        self.links.isolate(&self.sim, node, self.cluster.nodes);
        shared.clock.end();
        self.sim.crash(host(node));
        drop(incarnation);
        self.links.forget_pause(node);
        shared.clock.resume(self.sim.elapsed(), ClockWhilePaused::Ran);
        shared.gate.open();
        self.links.restore(&self.sim, node, self.cluster.nodes);
        self.recorder.crashed(node);
        self.protected.holds.remove_node(node);
    }

    /// Pauses the process. turmoil still polls its runtime, but no segment reaches or leaves it,
    /// its clock is frozen, and its application waits at the gate.
    fn pause(&mut self, node: Node) {
        let shared = &self.nodes[node.index()];
        if shared.incarnation().is_some() {
            shared.gate.close();
            shared.clock.pause(self.sim.elapsed());
            self.links.pause(&self.sim, node, self.cluster.nodes);
        }
    }

    fn resume(&mut self, node: Node, clock: ClockWhilePaused) {
        let shared = &self.nodes[node.index()];
        shared.clock.resume(self.sim.elapsed(), clock);
        self.links.resume(&self.sim, node, self.cluster.nodes);
        shared.gate.open();
    }

    fn restart(&mut self, node: Node) {
        let has_started = !self.late.iter().any(|(late, _)| *late == node);
        if has_started && self.nodes[node.index()].incarnation().is_none() {
            self.sim.bounce(host(node));
        }
    }

    /// Heals all faults: links are intact and as fast as usual, clocks are correct, nodes run. A
    /// paused process resumes, with clocks that ran during the pause.
    pub fn heal(&mut self) {
        self.recorder.set_now_ms(self.now_ms());
        for node in self.links.paused() {
            self.resume(node, ClockWhilePaused::Ran);
        }
        for (a, b) in self.links.faulty() {
            self.links.repair(&self.sim, a, b);
        }
        for (a, b) in std::mem::take(&mut self.slow) {
            usual_latency(&self.sim, &self.cluster, a, b);
        }
        for (node, _) in std::mem::take(&mut self.late) {
            self.sim.bounce(host(node));
        }
        for index in 0..self.nodes.len() {
            let shared = Arc::clone(&self.nodes[index]);
            shared.heal();
            for pool in &shared.pools {
                pool.set_health(Health::Online);
            }
            shared.clock.correct_wall_clock();
            shared.clock.set_drift(0, self.sim.elapsed());
            if shared.has_wrong_secret() {
                shared.set_right_secret();
                self.send(shared.node, Command::Bounce { grace: Duration::ZERO });
            }
            self.restart(shared.node);
        }
        self.recorder.record(EventKind::Healed);
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
    pub fn internal_errors(&self) -> Vec<String> {
        self.guard.take_failures()
    }

    /// Drops all nodes, and returns the panics and bugs of that and those since the last call of
    /// [`internal_errors`](Self::internal_errors).
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

/// Returns the limits that managers run with.
pub fn limits_of(plan: &LimitsPlan) -> Limits {
    let mut limits = Limits::default();
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    let set = |to: &mut usize, from: Option<u32>| *to = from.map_or(*to, |value| value as usize);
    let wait = |to: &mut Duration, from: Option<u32>| *to = from.map_or(*to, millis);
    set(&mut limits.message_bytes_max, plan.message_bytes_max);
    set(&mut limits.queue_bytes_max, plan.queue_bytes_max);
    set(&mut limits.frame_bytes_target, plan.frame_bytes_target);
    set(&mut limits.outbound_calls_max, plan.outbound_calls_max);
    set(&mut limits.inbound_calls_max, plan.inbound_calls_max);
    wait(&mut limits.ping_interval, plan.ping_interval_ms);
    wait(&mut limits.stream_ping_interval, plan.stream_ping_interval_ms);
    wait(&mut limits.deadline_default, plan.deadline_default_ms);
    wait(&mut limits.backoff_max, plan.backoff_max_ms);
    limits
}
