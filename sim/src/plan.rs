//! A run as data: the cluster, its load, and the faults that are injected.
//!
//! A [`Plan`] is all that a run depends on. It is drawn from a seed (by a swarm or a scenario),
//! printed with a failure, kept in the corpus, and replayed and shrunk without the seed.

use std::time::Duration;

use grid::Limits;
use serde::{Deserialize, Serialize};

pub use crate::fault::{ClockWhilePaused, DRIFT_PPM_MAX, Fault, Outage};
pub use crate::node::Node;

mod iam;
mod locks;
mod metrics;

pub use iam::{ChangePlan, ITEMS_MAX, IamPlan, ItemChange};
pub use locks::{
    FlagsPlan, ForcePlan, LockPlan, LocksPlan, PlannedLockEnd, RESOURCES_MAX, resource_name,
};
pub use metrics::MetricsPlan;

/// All that a run depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The scenario whose expectations are checked besides the invariants.
    pub scenario: String,
    /// Seed of everything random below the plan: latencies, jitter, fault points.
    pub seed: u64,
    /// The nodes and the network.
    pub cluster: Cluster,
    /// Duration of the phase in which faults are injected, in milliseconds. Then all are healed.
    pub duration_ms: u64,
    /// Faults and their times, in order of time.
    pub faults: Vec<(u64, Fault)>,
    /// Calls and their times, in order of time. A call's number is its index here.
    pub load: Vec<(u64, Load)>,
}

/// The nodes and the network between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Number of nodes.
    pub nodes: u8,
    /// Length of a simulation tick, in milliseconds. 1 or 5: with others, clocks drift.
    pub tick_ms: u64,
    /// Shortest latency of a segment, in milliseconds.
    pub latency_min_ms: u64,
    /// Longest latency of a segment, in milliseconds.
    pub latency_max_ms: u64,
    /// Segments that a socket buffers before it is full.
    pub socket_segments: u32,
    /// The limits that all managers run with, where they are not the defaults.
    pub limits: LimitsPlan,
    /// Probability of each fault point, in ten-thousandths, by its name.
    pub fault_points: Vec<(String, u16)>,
    /// Nodes that start later than the run, and their start times in milliseconds.
    pub late: Vec<(Node, u64)>,
    /// Nodes that have another secret than the others, until all faults are healed.
    pub wrong_secret_nodes: Vec<Node>,
    /// The lock service, if the cluster has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locks: Option<LocksPlan>,
    /// The store of users, policies and mappings, if the cluster has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub iam: Option<IamPlan>,
    /// Resource metrics, if the nodes collect any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metrics: Option<MetricsPlan>,
}

/// Differences from grid's default limits. Absent is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsPlan {
    /// Largest message, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<u32>,
    /// Bytes that may be queued for writing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_bytes_max: Option<u32>,
    /// Size of a frame to which no further message is added, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_bytes_target: Option<u32>,
    /// Outstanding calls to one remote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_calls_max: Option<u32>,
    /// Maximum number of concurrent inbound calls of one remote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_calls_max: Option<u32>,
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

/// One operation of the workload.
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

/// A single request, and the behaviour of its handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestPlan {
    /// The caller.
    pub from: Node,
    /// The callee.
    pub to: Node,
    /// Bytes of the request payload.
    pub bytes: u32,
    /// Bytes of the response payload.
    pub response_bytes: u32,
    /// How long the handler works, in milliseconds. With 0 it responds without waiting.
    pub work_ms: u32,
    /// How the handler ends.
    pub ending: PlannedHandlerEnd,
    /// Deadline in milliseconds; absent is the manager's default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u32>,
    /// Time after which the caller cancels it, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cancel_after_ms: Option<u32>,
}

/// How a handler ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedHandlerEnd {
    /// With the requested response or messages.
    Success,
    /// With an error.
    Error,
    /// With a panic.
    Panic,
    /// Never, until it is cancelled.
    Never,
    /// No such handler is registered.
    Unknown,
}

/// A stream, and the behaviour of its two ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPlan {
    /// The caller.
    pub from: Node,
    /// The callee.
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
    /// Time that the handler spends on each message, sent or received, in milliseconds.
    pub down_pace_ms: u32,
    /// Time that the caller spends on each message that it receives, in milliseconds; absent if it
    /// never receives.
    pub receive_pace_ms: Option<u32>,
    /// How the handler ends.
    pub ending: PlannedHandlerEnd,
    /// Deadline of the stream, in milliseconds; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u32>,
    /// Time after which the caller drops it, in milliseconds. Needed if nothing else ends it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cancel_after_ms: Option<u32>,
}

/// Input and output capacities of the stream handlers that every node has.
pub const CAPACITIES: [(u32, u32); 5] = [(0, 1), (1, 1), (2, 3), (8, 8), (64, 64)];

impl Plan {
    /// Creates a plan of a cluster on a fast and intact network, without load or faults.
    pub fn quiet(nodes: u8) -> Self {
        let cluster = Cluster {
            nodes,
            tick_ms: 1,
            latency_min_ms: 1,
            latency_max_ms: 3,
            socket_segments: 256,
            limits: LimitsPlan::default(),
            fault_points: Vec::new(),
            late: Vec::new(),
            wrong_secret_nodes: Vec::new(),
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

    /// Checks that the plan can be run, whatever its scenario: for plans that come from files.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be run.
    pub fn check(&self) -> Result<(), String> {
        if self.duration_ms > DURATION_MS_MAX {
            return Err(format!("duration_ms must be at most {DURATION_MS_MAX}"));
        }
        self.cluster.check()?;
        for (_, fault) in &self.faults {
            fault.check(self.cluster.nodes)?;
        }
        for (call, (_, load)) in self.load.iter().enumerate() {
            load.check(self.cluster.nodes).map_err(|error| format!("call {call}: {error}"))?;
        }
        let is_in_order = self.faults.is_sorted_by_key(|(at, _)| *at)
            && self.load.is_sorted_by_key(|(at, _)| *at);
        is_in_order.then_some(()).ok_or_else(|| "faults and load must be in order of time".into())
    }
}

impl Cluster {
    fn check(&self) -> Result<(), String> {
        let Self {
            nodes, tick_ms, socket_segments, fault_points, late, limits, locks, iam, ..
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
        let known =
            |name: &str| grid::buggify::FaultPoint::ALL.iter().any(|point| point.name() == name);
        if let Some((point, _)) = fault_points.iter().find(|(name, _)| !known(name)) {
            return Err(format!("there is no fault point {point}"));
        }
        if let Some((point, _)) = fault_points.iter().find(|(_, rate)| *rate > 10_000) {
            return Err(format!(
                "fault point {point} cannot happen more often than 10000 in 10000"
            ));
        }
        let mut named = late.iter().map(|(node, _)| node).chain(&self.wrong_secret_nodes);
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
        self.limits().check().map_err(|error| error.to_string())
    }

    /// Returns the limits that managers run with.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        let set =
            |to: &mut usize, from: Option<u32>| *to = from.map_or(*to, |value| value as usize);
        let wait = |to: &mut Duration, from: Option<u32>| *to = from.map_or(*to, millis);
        set(&mut limits.message_bytes_max, self.message_bytes_max);
        set(&mut limits.queue_bytes_max, self.queue_bytes_max);
        set(&mut limits.frame_bytes_target, self.frame_bytes_target);
        set(&mut limits.outbound_calls_max, self.outbound_calls_max);
        set(&mut limits.inbound_calls_max, self.inbound_calls_max);
        wait(&mut limits.ping_interval, self.ping_interval_ms);
        wait(&mut limits.stream_ping_interval, self.stream_ping_interval_ms);
        wait(&mut limits.deadline_default, self.deadline_default_ms);
        wait(&mut limits.backoff_max, self.backoff_max_ms);
        limits
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
            return Err(format!("{from} cannot call {to}"));
        }
        let bytes = match self {
            Self::Request(plan) => plan.bytes.max(plan.response_bytes),
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

/// Maximum number of nodes of a cluster.
pub const NODES_MAX: u8 = 32;

/// The longest latency of a segment, in milliseconds: a request and its response must fit into the
/// handshake timeout.
pub const LATENCY_MS_MAX: u64 = 500;

/// The longest duration that a plan's limits may have, in milliseconds.
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
        if self.cancel_after_ms.is_none() && self.timeout_ms.is_none() {
            return Err(
                "nothing would end the stream: it needs cancel_after_ms or timeout_ms".to_owned()
            );
        }
        Ok(())
    }
}

impl Load {
    /// Returns the operation's node and its callee; without a single callee, its node twice.
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
