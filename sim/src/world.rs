//! A cluster of nodes built from the crates that ship, on a simulated network and simulated time.
//!
//! A [`World`] is driven from outside, tick by tick: its verbs start, cut, hold, crash and restart,
//! ask nodes for calls, and let time pass. Everything that happens is written to one [`Recorder`].
//! What must hold is not decided here (see [`crate::invariants`]).
//!
//! ```
//! use std::time::Duration;
//! use sim::plan::{Fault, Node, Plan};
//! use sim::world::World;
//!
//! let mut world = World::new(&Plan::quiet(3)); world.wait_until(Duration::from_secs(10),
//! World::is_connected).expect("a whole network"); world.fault(Fault::Cut { a: Node(0), b: Node(1)
//! }); world.run_for(Duration::from_secs(90)); assert!(!world.is_connected()); world.heal();
//! world.wait_until(Duration::from_secs(60), World::is_connected).expect("the network is whole
//! again");
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use grid::{ConnectionState, ConnectionStats, Limits, Name};
use iam_bootstrap::store::memory::Health;
use turmoil::Sim;

use crate::event::{CallId, IamEvent, What};
use crate::guard::Guard;
use crate::iam;
use crate::load::LoadTable;
use crate::lock::{Belief, LocksView, Protected};
use crate::plan::{Cluster, Fault, LimitsPlan, Load, Meanwhile, Node, Outage, Plan};
use crate::recorder::Recorder;

mod clock;
mod gate;
mod links;
mod node;
mod rare;
mod tap;

pub use clock::{EPOCH_SECONDS, NodeClock};
pub use gate::Gate;
use links::{Links, host, usual_latency};
use node::{Command, Shared};
pub use node::{Host, Software};

/// The base URL of a node.
pub fn url(node: Node) -> String {
    format!("http://{node}:{}", node::PORT)
}

/// The node whose base URL this is.
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
    nodes: Vec<Arc<Shared>>,
    links: Links,
    slow: Vec<(Node, Node)>,
    recorder: Recorder,
    table: LoadTable,
    protected: Protected,
    /// Nodes that have not begun yet, and when they do.
    late: Vec<(Node, u64)>,
    /// Last: it sees what goes wrong while the others are dropped.
    guard: Guard,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now_ms", &self.recorder.now_ms()).finish_non_exhaustive()
    }
}

/// What one node looks like from outside.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Which.
    pub node: Node,
    /// Whether its process runs.
    pub is_running: bool,
    /// Its connections, in the order of their names.
    pub connections: Vec<ConnectionStats>,
    /// Incoming sockets that have not proved who they are.
    pub unauthenticated: usize,
    /// Tasks of its runtime.
    pub tasks: usize,
    /// Ends of TCP connections that are open.
    pub sockets: usize,
    /// Its locks.
    pub locks: LocksView,
}

impl World {
    /// The cluster of `plan`, at the start of its time. The plan's faults and load are not applied:
    /// that is [`crate::run`]'s business.
    pub fn new(plan: &Plan) -> Self {
        Self::with_software(plan, &(Arc::new(()) as Arc<dyn Software>))
    }

    /// Likewise, with software of the scenario's own on every node.
    pub fn with_software(plan: &Plan, software: &Arc<dyn Software>) -> Self {
        let guard = Guard::begin();
        let cluster = plan.cluster.clone();
        let tick = Duration::from_millis(cluster.tick_ms.max(1));
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            // Else node-0 would be the first in every tick.
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
                    Shared::new(Node(node), plan, limits, recorder, table, software, protected);
                Arc::new(shared)
            })
            .collect();
        for shared in &nodes {
            let name = host(shared.node);
            let shared = Arc::clone(shared);
            sim.host(name, move || node::live(Arc::clone(&shared)));
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

    /// How much simulated time has passed, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One tick passes.
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
            self.look_at_copies();
        }
    }

    /// Writes down what readers see from now on, and what was logged of it.
    fn look_at_copies(&self) {
        for (node, retries) in self.guard.take_loaded() {
            if let Some(life) = self.nodes.get(node.index()).and_then(|shared| shared.life()) {
                life.pen.record(What::Iam(IamEvent::LoadLogged { retries }));
            }
        }
        for life in self.nodes.iter().filter_map(|shared| shared.life()) {
            if let Some(seen) = life.iam.as_ref().and_then(iam::Seat::look) {
                life.pen.record(What::Iam(seen));
            }
        }
    }

    /// So much time passes.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.sim.elapsed() + duration;
        while self.sim.elapsed() < until {
            self.step();
        }
    }

    /// Lets time pass until `is_reached`.
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

    /// Asks a node for a call. `None` if its process does not run.
    pub fn make(&mut self, load: Load) -> Option<CallId> {
        let (from, _) = load.ends();
        let call = self.table.add(load.clone());
        let life = self.nodes.get(from.index())?.life()?;
        life.commands.send(Command::Make(call, load)).ok().map(|()| call)
    }

    /// Runs something on a node, as a task of its process. Returns whether the process runs.
    ///
    /// What becomes of it is for the scenario to see: by the pen of the host, or by a channel.
    pub fn spawn<F, Fut>(&self, node: Node, task: F) -> bool
    where
        F: FnOnce(Host) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let task = Command::Run(Box::new(move |host| Box::pin(task(host))));
        let life = self.nodes.get(node.index()).and_then(|shared| shared.life());
        life.is_some_and(|life| life.commands.send(task).is_ok())
    }

    // ---- trouble ----

    /// Makes trouble, or ends some.
    pub fn fault(&mut self, fault: Fault) {
        self.recorder.set_now_ms(self.now_ms());
        self.recorder.record(What::Fault { fault });
        let Self { sim, links, .. } = self;
        match fault {
            Fault::Cut { a, b } => links.cut(sim, a, b),
            Fault::CutOneWay { from, to } => links.cut_one_way(sim, from, to),
            Fault::Hold { a, b } => links.hold(sim, a, b),
            Fault::Mend { a, b } => {
                links.mend(sim, a, b);
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
                self.tell(node, Command::Bounce { grace });
            }
            Fault::Pause { node } => self.pause(node),
            Fault::Wake { node, clock } => self.wake(node, clock),
            Fault::PoolDown { node, pool, why } => {
                let health = match why {
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

    fn tell(&self, node: Node, command: Command) {
        if let Some(life) = self.nodes[node.index()].life() {
            // A node that is ending takes no more commands.
            let _ = life.commands.send(command);
        }
    }

    /// The process is gone and nobody is told: no end of a stream, no reset leaves the node.
    fn power_loss(&mut self, node: Node) {
        let shared = &self.nodes[node.index()];
        let Some(life) = shared.take_life() else { return };
        life.pen.mute();
        self.links.isolate(&self.sim, node, self.cluster.nodes);
        shared.clock.end();
        self.sim.crash(host(node));
        drop(life);
        self.links.forget_stop(node);
        shared.clock.go_on(self.sim.elapsed(), Meanwhile::Ran);
        shared.gate.open();
        self.links.restore(&self.sim, node, self.cluster.nodes);
        self.recorder.crashed(node);
        self.protected.holds.crashed(node);
    }

    /// The process stops where it is. Its runtime is still polled, as turmoil polls all: but
    /// nothing reaches it, nothing leaves it, its clock stands, and its application waits at the
    /// gate.
    fn pause(&mut self, node: Node) {
        let shared = &self.nodes[node.index()];
        if shared.life().is_some() {
            shared.gate.close();
            shared.clock.stop(self.sim.elapsed());
            self.links.stop(&self.sim, node, self.cluster.nodes);
        }
    }

    fn wake(&mut self, node: Node, clock: Meanwhile) {
        let shared = &self.nodes[node.index()];
        shared.clock.go_on(self.sim.elapsed(), clock);
        self.links.go_on(&self.sim, node, self.cluster.nodes);
        shared.gate.open();
    }

    fn restart(&mut self, node: Node) {
        let has_begun = !self.late.iter().any(|(late, _)| *late == node);
        if has_begun && self.nodes[node.index()].life().is_none() {
            self.sim.bounce(host(node));
        }
    }

    /// Ends all trouble: links are whole and as fast as usual, clocks right, nodes running. Whoever
    /// is stopped goes on, with clocks that ran meanwhile.
    pub fn heal(&mut self) {
        self.recorder.set_now_ms(self.now_ms());
        for node in self.links.stopped() {
            self.wake(node, Meanwhile::Ran);
        }
        for (a, b) in self.links.in_trouble() {
            self.links.mend(&self.sim, a, b);
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
            shared.clock.set_right();
            shared.clock.set_drift(0, self.sim.elapsed());
            if shared.is_stranger() {
                shared.learn_secret();
                self.tell(shared.node, Command::Bounce { grace: Duration::ZERO });
            }
            self.restart(shared.node);
        }
        self.recorder.record(What::Healed);
    }

    /// Ends all nodes in good order, with so much time for what is under way.
    pub fn stop(&mut self, grace: Duration) {
        for shared in &self.nodes {
            self.tell(shared.node, Command::Stop { grace });
        }
    }

    // ---- what can be seen ----

    /// Panics of any task and every [`grid::bug!`] since this was last asked: turmoil swallows the
    /// former, and grid goes on after the latter. [`crate::run`] fails a run for any; a scenario of
    /// your own asks at its end. A thread can have one world at a time.
    pub fn surprises(&self) -> Vec<String> {
        self.guard.take()
    }

    /// Ends the world: drops everything in it, and returns the surprises of that and those before.
    pub fn end(self) -> Vec<String> {
        let Self { sim, nodes, guard, .. } = self;
        drop(sim);
        drop(nodes);
        guard.take()
    }

    /// Everything that happens is written down here.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// All calls that were asked for.
    pub fn table(&self) -> &LoadTable {
        &self.table
    }

    /// Who has which lock, and whether it believes so, all at this instant.
    pub fn beliefs(&self) -> Vec<Belief> {
        self.protected.holds.beliefs(self.sim.elapsed())
    }

    /// The nodes, as they look from outside.
    pub fn views(&self) -> Vec<NodeView> {
        self.nodes.iter().map(|shared| view(shared, &self.recorder)).collect()
    }

    /// Whether every node runs and is connected to every other.
    pub fn is_connected(&self) -> bool {
        self.nodes.iter().all(|shared| {
            let manager = shared.life().and_then(|life| life.manager);
            manager.is_some_and(|manager| {
                let connections = manager.connections();
                connections
                    .iter()
                    .all(|connection| connection.state() == ConnectionState::Connected)
            })
        })
    }

    /// Whether users, policies and mappings are loaded on every node, and are the same.
    pub fn is_same(&self) -> bool {
        let hash = |shared: &Arc<Shared>| {
            let iam = shared.life()?.iam?.iam()?;
            Some(iam.snapshot()?.content_hash())
        };
        let mut hashes = self.nodes.iter().map(hash);
        let first = hashes.next().flatten();
        first.is_some() && hashes.all(|hash| hash == first)
    }

    /// Whether nothing is under way anywhere, and nothing waits to be written.
    pub fn is_idle(&self) -> bool {
        self.recorder.live() == (0, 0)
            && self.views().iter().all(|view| {
                view.unauthenticated == 0
                    && view.connections.iter().all(ConnectionStats::is_quiescent)
            })
    }
}

fn view(shared: &Shared, recorder: &Recorder) -> NodeView {
    let life = shared.life();
    let manager = life.as_ref().and_then(|life| life.manager.as_ref());
    let client = life.as_ref().and_then(|life| life.locks.as_ref()?.client());
    NodeView {
        node: shared.node,
        is_running: life.is_some(),
        connections: manager.map(grid::Manager::stats).unwrap_or_default(),
        unauthenticated: manager.map_or(0, grid::Manager::unauthenticated),
        tasks: life.as_ref().map_or(0, |life| life.runtime.metrics().num_alive_tasks()),
        sockets: recorder.open_sockets(shared.node),
        locks: client.map(|client| client.look()).unwrap_or_default(),
    }
}

/// The limits that managers run with.
pub fn limits_of(plan: &LimitsPlan) -> Limits {
    let mut limits = Limits::default();
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    let set = |to: &mut usize, from: Option<u32>| *to = from.map_or(*to, |value| value as usize);
    let wait = |to: &mut Duration, from: Option<u32>| *to = from.map_or(*to, millis);
    set(&mut limits.message_bytes_max, plan.message_bytes_max);
    set(&mut limits.queue_bytes_max, plan.queue_bytes_max);
    set(&mut limits.frame_bytes_target, plan.frame_bytes_target);
    set(&mut limits.calls_made_max, plan.calls_made_max);
    set(&mut limits.calls_served_max, plan.calls_served_max);
    wait(&mut limits.ping_interval, plan.ping_interval_ms);
    wait(&mut limits.stream_ping_interval, plan.stream_ping_interval_ms);
    wait(&mut limits.deadline_default, plan.deadline_default_ms);
    wait(&mut limits.backoff_max, plan.backoff_max_ms);
    limits
}
