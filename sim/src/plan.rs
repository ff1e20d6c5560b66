//! A run as data: the cluster, what it is asked to do, and what is done to it.
//!
//! A [`Plan`] is all that a run depends on. It is drawn from a seed (by [`crate::swarm`] or a
//! scenario), printed with a failure, kept in the corpus, and replayed and shrunk without the seed.

use std::fmt;

use serde::{Deserialize, Serialize};

mod iam;
mod locks;
mod metrics;

pub use iam::{ChangePlan, ITEMS_MAX, IamPlan, ItemChange, Outage};
pub use locks::{ForcePlan, LockEnding, LockPlan, LocksPlan, RESOURCES_MAX, resource_name};
pub use metrics::MetricsPlan;

/// A node of the cluster, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Node(pub u8);

impl Node {
    /// As an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("node-{}", self.0))
    }
}

/// All that a run depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The scenario that it belongs to: which expectations are checked besides the invariants.
    pub scenario: String,
    /// What everything random below the plan is drawn from: latencies, jitter, rare events.
    pub seed: u64,
    /// The nodes and the network.
    pub cluster: Cluster,
    /// For how long trouble is made before everything must recover, in milliseconds.
    pub duration_ms: u64,
    /// What is done to the cluster, in the order of its time.
    pub faults: Vec<(u64, Fault)>,
    /// What the cluster is asked to do, in the order of its time. A call's number is its place
    /// here.
    pub load: Vec<(u64, Load)>,
}

/// The nodes and the network between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// How many nodes.
    pub nodes: u8,
    /// Simulated time between two looks at the network, in milliseconds. 1 or 5: others drift.
    pub tick_ms: u64,
    /// Shortest time that a segment travels, in milliseconds.
    pub latency_min_ms: u64,
    /// Longest time, likewise.
    pub latency_max_ms: u64,
    /// Segments that a socket takes before it is full.
    pub socket_segments: u32,
    /// The limits that all managers run with, where they are not the defaults.
    pub limits: LimitsPlan,
    /// How often, in 10,000, a rare event happens where the code offers one; by its name.
    pub rare: Vec<(String, u16)>,
    /// Nodes that start later than the run, and when, in milliseconds.
    pub late: Vec<(Node, u64)>,
    /// Nodes that have another secret than the others, until everything is healed.
    pub strangers: Vec<Node>,
    /// What the cluster locks with, if it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locks: Option<LocksPlan>,
    /// What its users, policies and mappings are kept in, if it has any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iam: Option<IamPlan>,
    /// What the nodes tell about themselves, if they do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metrics: Option<MetricsPlan>,
}

/// What differs from grid's default limits. Absent is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsPlan {
    /// Largest message, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<u32>,
    /// What may wait to be written, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_bytes_max: Option<u32>,
    /// When a frame takes no further message, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_bytes_target: Option<u32>,
    /// Calls under way to one remote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_made_max: Option<u32>,
    /// Calls served at once for one remote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_served_max: Option<u32>,
    /// Time between pings of a connection, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_interval_ms: Option<u32>,
    /// Time between pings of a stream, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_ping_interval_ms: Option<u32>,
    /// Deadline of calls that have none of their own, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_default_ms: Option<u32>,
    /// Longest wait before another attempt to connect, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_max_ms: Option<u32>,
}

/// What can be done to a cluster. Each lasts until something says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Nothing gets through between two nodes. What was under way is lost, and a TCP connection
    /// that lost something is wedged for ever: nobody transmits it again.
    Cut {
        /// One.
        a: Node,
        /// The other.
        b: Node,
    },
    /// Nothing gets through from one node to another; the way back is open.
    CutOneWay {
        /// What it sends is lost.
        from: Node,
        /// On the way to this one.
        to: Node,
    },
    /// What travels between two nodes waits, and nothing is lost: a congested network.
    Hold {
        /// One.
        a: Node,
        /// The other.
        b: Node,
    },
    /// The link between two nodes is whole again, and what was held arrives.
    Mend {
        /// One.
        a: Node,
        /// The other.
        b: Node,
    },
    /// All that travels between two nodes takes this long from now on.
    Slow {
        /// One.
        a: Node,
        /// The other.
        b: Node,
        /// Milliseconds.
        ms: u32,
    },
    /// A node loses its power: its process is gone, and nobody is told.
    PowerLoss {
        /// Which.
        node: Node,
    },
    /// A node that lost its power starts again.
    Restart {
        /// Which.
        node: Node,
    },
    /// A node's wall clock is off by this much.
    Skew {
        /// Whose.
        node: Node,
        /// Milliseconds; ahead if positive.
        ms: i64,
    },
    /// A node's clocks run at another rate.
    Drift {
        /// Whose.
        node: Node,
        /// Parts in a million; fast if positive.
        ppm: i32,
    },
    /// A node's process ends in good order and begins again.
    Bounce {
        /// Which.
        node: Node,
        /// How long calls under way may take to finish, in milliseconds.
        grace_ms: u32,
    },
    /// A node's process stops where it is: it sees nothing, does nothing, and sees no time pass.
    Pause {
        /// Which.
        node: Node,
    },
    /// A process that was stopped goes on, and what was sent to it and by it arrives.
    Wake {
        /// Which.
        node: Node,
        /// What its clocks did meanwhile.
        clock: Meanwhile,
    },
    /// A pool of a node cannot be used, for this reason. It keeps what it holds.
    PoolDown {
        /// Whose.
        node: Node,
        /// Which of its pools.
        pool: u8,
        /// Why.
        why: Outage,
    },
    /// A pool of a node can be used.
    PoolUp {
        /// Whose.
        node: Node,
        /// Which of its pools.
        pool: u8,
    },
}

/// What the clocks of a process did while it was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meanwhile {
    /// They ran on, as under SIGSTOP: the process can see at once how long it was away.
    Ran,
    /// They stood, as in a virtual machine that is suspended: nothing tells that time has passed.
    Stood,
}

impl Fault {
    /// Whether it happens to this node, or to a link of it.
    pub fn concerns(&self, which: Node) -> bool {
        match *self {
            Self::Cut { a, b }
            | Self::Hold { a, b }
            | Self::Mend { a, b }
            | Self::Slow { a, b, .. }
            | Self::CutOneWay { from: a, to: b } => a == which || b == which,
            Self::PowerLoss { node }
            | Self::Restart { node }
            | Self::Skew { node, .. }
            | Self::Drift { node, .. }
            | Self::Bounce { node, .. }
            | Self::Pause { node }
            | Self::PoolDown { node, .. }
            | Self::PoolUp { node, .. }
            | Self::Wake { node, .. } => node == which,
        }
    }

    /// The name of its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Cut { .. } => "cut",
            Self::CutOneWay { .. } => "cut_one_way",
            Self::Hold { .. } => "hold",
            Self::Mend { .. } => "mend",
            Self::Slow { .. } => "slow",
            Self::PowerLoss { .. } => "power_loss",
            Self::Restart { .. } => "restart",
            Self::Skew { .. } => "skew",
            Self::Drift { .. } => "drift",
            Self::Bounce { .. } => "bounce",
            Self::Pause { .. } => "pause",
            Self::Wake { .. } => "wake",
            Self::PoolDown { .. } => "pool_down",
            Self::PoolUp { .. } => "pool_up",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { a, b } => write!(f, "cut {a} | {b}"),
            Self::CutOneWay { from, to } => write!(f, "cut {from} -> {to}"),
            Self::Hold { a, b } => write!(f, "hold {a} | {b}"),
            Self::Mend { a, b } => write!(f, "mend {a} | {b}"),
            Self::Slow { a, b, ms } => write!(f, "slow {a} | {b}: {ms} ms"),
            Self::PowerLoss { node } => write!(f, "power loss of {node}"),
            Self::Restart { node } => write!(f, "restart of {node}"),
            Self::Skew { node, ms } => write!(f, "wall clock of {node} off by {ms} ms"),
            Self::Drift { node, ppm } => write!(f, "clocks of {node} off by {ppm} ppm"),
            Self::Bounce { node, grace_ms } => write!(f, "bounce of {node}, grace {grace_ms} ms"),
            Self::Pause { node } => write!(f, "{node} is stopped"),
            Self::Wake { node, clock: Meanwhile::Ran } => write!(f, "{node} goes on"),
            Self::Wake { node, clock: Meanwhile::Stood } => {
                write!(f, "{node} goes on, and its clocks stood meanwhile")
            }
            Self::PoolDown { node, pool, why } => write!(f, "pool {pool} of {node} is {why}"),
            Self::PoolUp { node, pool } => write!(f, "pool {pool} of {node} is online"),
        }
    }
}

/// One thing that a node is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "load", rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// A single request.
    Request(RequestPlan),
    /// A stream.
    Stream(StreamPlan),
    /// A lock.
    Lock(LockPlan),
    /// An operator forces the locks of a resource open.
    Force(ForcePlan),
    /// A change of a user, a policy or a mapping.
    Change(ChangePlan),
}

/// A single request, and what its handler does with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestPlan {
    /// Who makes it.
    pub from: Node,
    /// Who serves it.
    pub to: Node,
    /// Bytes of its payload.
    pub bytes: u32,
    /// Bytes of its answer.
    pub answer_bytes: u32,
    /// How long the handler takes, in milliseconds. 0 answers in place.
    pub work_ms: u32,
    /// How the handler ends.
    pub ending: Ending,
    /// Its deadline in milliseconds; absent is the manager's default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u32>,
    /// When its maker gives it up, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub give_up_ms: Option<u32>,
}

/// How a handler ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With what it was asked for.
    Well,
    /// With an error.
    Error,
    /// With a panic.
    Panic,
    /// Never, until it is cancelled.
    Never,
    /// It does not exist.
    Unknown,
}

/// A stream, and what its two ends do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPlan {
    /// Who opens it.
    pub from: Node,
    /// Who serves it.
    pub to: Node,
    /// Index into [`CAPACITIES`].
    pub capacities: u8,
    /// Messages that the caller sends. None if the input capacity is 0.
    pub up: u32,
    /// Messages that the handler sends.
    pub down: u32,
    /// Bytes of each message.
    pub bytes: u32,
    /// Time between two messages that the caller sends, in milliseconds.
    pub up_pace_ms: u32,
    /// Time that the handler takes over each message, sent or taken, in milliseconds.
    pub down_pace_ms: u32,
    /// Time that the caller takes over each message that it receives, in milliseconds; absent if it
    /// never takes any.
    pub take_ms: Option<u32>,
    /// How the handler ends.
    pub ending: Ending,
    /// Deadline of the stream, in milliseconds; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u32>,
    /// When its maker drops it, in milliseconds. Needed where nothing else would end it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub give_up_ms: Option<u32>,
}

/// Input and output capacities of the stream handlers that every node has.
pub const CAPACITIES: [(u32, u32); 5] = [(0, 1), (1, 1), (2, 3), (8, 8), (64, 64)];

impl Plan {
    /// A cluster on a fast and whole network, of which nothing is asked.
    pub fn quiet(nodes: u8) -> Self {
        let cluster = Cluster {
            nodes,
            tick_ms: 1,
            latency_min_ms: 1,
            latency_max_ms: 3,
            socket_segments: 256,
            limits: LimitsPlan::default(),
            rare: Vec::new(),
            late: Vec::new(),
            strangers: Vec::new(),
            locks: None,
            iam: None,
            metrics: None,
        };
        Self {
            scenario: String::new(),
            seed: 0,
            cluster,
            duration_ms: 0,
            faults: Vec::new(),
            load: Vec::new(),
        }
    }

    /// Whether the plan can be run: for plans that come from files.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        if !self.scenario.is_empty() && crate::scenarios::find(&self.scenario).is_none() {
            return Err(format!("there is no scenario {}: it may be empty", self.scenario));
        }
        if self.duration_ms > DURATION_MS_MAX {
            return Err(format!("duration_ms must be at most {DURATION_MS_MAX}"));
        }
        self.cluster.check()?;
        for (_, fault) in &self.faults {
            fault.check(self.cluster.nodes)?;
        }
        for (call, (_, load)) in self.load.iter().enumerate() {
            load.check(self.cluster.nodes).map_err(|problem| format!("call {call}: {problem}"))?;
        }
        let is_in_order = self.faults.is_sorted_by_key(|(at, _)| *at)
            && self.load.is_sorted_by_key(|(at, _)| *at);
        is_in_order.then_some(()).ok_or_else(|| "faults and load must be in order of time".into())
    }
}

impl Cluster {
    fn check(&self) -> Result<(), String> {
        let Self {
            nodes, tick_ms, socket_segments, rare, late, strangers, limits, locks, iam, ..
        } = self;
        if !(2..=NODES_MAX).contains(nodes) {
            return Err(format!("nodes must be 2 to {NODES_MAX}, not {nodes}"));
        }
        if !TICKS_MS.contains(tick_ms) {
            return Err(format!("tick_ms must be one of {TICKS_MS:?}, not {tick_ms}"));
        }
        if !(16..=65_536).contains(socket_segments) {
            return Err(format!("socket_segments must be 16 to 65536, not {socket_segments}"));
        }
        if self.latency_max_ms > LATENCY_MS_MAX {
            return Err(format!("latency_max_ms must be at most {LATENCY_MS_MAX}"));
        }
        let known = |name: &str| grid::buggify::Point::ALL.iter().any(|point| point.name() == name);
        if let Some((point, _)) = rare.iter().find(|(name, _)| !known(name)) {
            return Err(format!("there is no rare event {point}"));
        }
        if let Some((point, _)) = rare.iter().find(|(_, often)| *often > 10_000) {
            return Err(format!("rare event {point} cannot happen more often than 10000 in 10000"));
        }
        let mut named = late.iter().map(|(node, _)| node).chain(strangers);
        if let Some(node) = named.find(|node| node.0 >= *nodes) {
            return Err(format!("there is no {node}"));
        }
        if let Some(locks) = locks {
            locks.check(*nodes)?;
        }
        if let Some(iam) = iam {
            iam.check()?;
        }
        if let Some(metrics) = &self.metrics {
            metrics.check(*nodes)?;
        }
        limits.check()
    }
}

impl LimitsPlan {
    fn check(&self) -> Result<(), String> {
        let waits = [
            self.ping_interval_ms,
            self.stream_ping_interval_ms,
            self.deadline_default_ms,
            self.backoff_max_ms,
        ];
        if waits.into_iter().flatten().any(|ms| ms > WAIT_MS_MAX) {
            return Err(format!("no time in limits may be longer than {WAIT_MS_MAX} ms"));
        }
        crate::world::limits_of(self).check().map_err(|error| error.to_string())
    }
}

impl Fault {
    fn check(&self, nodes: u8) -> Result<(), String> {
        if let Self::Drift { ppm, .. } = self
            && ppm.unsigned_abs() > DRIFT_PPM_MAX
        {
            return Err(format!("a clock may drift by at most {DRIFT_PPM_MAX} ppm"));
        }
        match (nodes..=u8::MAX).map(Node).find(|absent| self.concerns(*absent)) {
            Some(absent) => Err(format!("a fault concerns {absent}, which does not exist")),
            None => Ok(()),
        }
    }
}

impl Load {
    fn check(&self, nodes: u8) -> Result<(), String> {
        match self {
            Self::Lock(plan) => return plan.check(nodes),
            Self::Force(plan) => return plan.check(nodes),
            Self::Change(plan) => return plan.check(nodes),
            Self::Request(_) | Self::Stream(_) => {}
        }
        let (from, to) = self.ends();
        if from == to || from.0 >= nodes || to.0 >= nodes {
            return Err(format!("{from} cannot ask {to}"));
        }
        let bytes = match self {
            Self::Request(plan) => plan.bytes.max(plan.answer_bytes),
            Self::Stream(plan) => plan.bytes,
            Self::Lock(_) | Self::Force(_) | Self::Change(_) => 0,
        };
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(format!("payloads are {PAYLOAD_BYTES_MAX} bytes at most"));
        }
        match self {
            Self::Request(_) | Self::Lock(_) | Self::Force(_) | Self::Change(_) => Ok(()),
            Self::Stream(plan) => plan.check(),
        }
    }
}

/// Nodes of a cluster, at most.
pub const NODES_MAX: u8 = 32;

/// The longest time that a segment may travel, in milliseconds: a call and its answer must fit into
/// the handshake's time.
pub const LATENCY_MS_MAX: u64 = 500;

/// How much a clock may drift: bounds are computed for clocks that are off by no more.
pub const DRIFT_PPM_MAX: u32 = 10_000;

/// The longest wait that a plan's limits may have, in milliseconds.
pub const WAIT_MS_MAX: u32 = 600_000;

/// The largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Ticks at which turmoil's clock and tokio's agree.
pub const TICKS_MS: [u64; 2] = [1, 5];

/// The longest run, in simulated milliseconds.
pub const DURATION_MS_MAX: u64 = 24 * 3_600_000;

impl StreamPlan {
    fn check(&self) -> Result<(), String> {
        let Some((input, _)) = CAPACITIES.get(usize::from(self.capacities)) else {
            return Err(format!("capacities must be below {}", CAPACITIES.len()));
        };
        if *input == 0 && self.up > 0 {
            return Err("the stream has no request side, and messages for it".to_owned());
        }
        if self.give_up_ms.is_none() && self.timeout_ms.is_none() {
            return Err(
                "nothing would end the stream: it needs give_up_ms or timeout_ms".to_owned()
            );
        }
        Ok(())
    }
}

impl Load {
    /// Who is asked, and whom it asks. What is asked of all lockers has one end,
    /// twice.
    pub fn ends(&self) -> (Node, Node) {
        match self {
            Self::Request(request) => (request.from, request.to),
            Self::Stream(stream) => (stream.from, stream.to),
            Self::Lock(lock) => (lock.on, lock.on),
            Self::Force(force) => (force.on, force.on),
            Self::Change(change) => (change.on, change.on),
        }
    }
}
