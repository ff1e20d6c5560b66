//! The events of a run: one flat, serialisable line for each.
//!
//! The trace of a run is a `Vec<Event>`. Invariants and coverage read it while it grows, the report
//! draws it, snapshots pin it, and two runs are equal when their traces are. So a trace holds
//! nothing that may differ between two runs of one seed: no bytes (mask keys are random), no
//! addresses, no real time.

use serde::{Deserialize, Serialize};

use crate::plan::{Fault, Node};

mod iam;
mod lock;
mod metrics;
mod text;

pub use iam::{IamEvent, ItemRecord, RecordVersion};
pub use lock::{LockEnd, LockFailure, LossNotice, StoreOp, StoreResult};
pub use metrics::{MetricsEvent, ReportedValues, ScrapeId, ServerReport};

/// Number of a call or stream: its index in the load of the run.
pub type CallId = u32;

/// Number of a simulated TCP connection, the same at both of its ends.
pub type SocketId = u32;

/// One event of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Simulated milliseconds since the start of the run, at the start of its tick.
    pub at_ms: u64,
    /// Node on which it happened; none for an event of the network or of the whole run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<Node>,
    /// The event itself.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The run injected a fault, or ended one.
    Fault {
        /// The fault.
        fault: Fault,
    },
    /// All faults have ended: from here on everything must recover.
    Healed,
    /// Everything has recovered: connected, drained and idle.
    Quiet,
    /// A node's process started, for the first time or again.
    Started {
        /// How often it has started.
        incarnation: u32,
    },
    /// A node's connection to another node changed state.
    State {
        /// The other node.
        remote: Node,
        /// Its new state.
        state: ConnectionState,
        /// Reason why it is not connected, if known.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cause: Option<String>,
    },
    /// One end of a TCP connection was opened.
    SocketOpened {
        /// Number of the connection.
        socket: SocketId,
        /// The node at its other end.
        remote: Node,
        /// Whether this end dialed.
        dialed: bool,
    },
    /// One end of a TCP connection was dropped.
    SocketClosed {
        /// Number of the connection.
        socket: SocketId,
    },
    /// A grid message was written to a socket.
    MessageSent {
        /// Number of the connection.
        socket: SocketId,
        /// Index among the messages of this connection and direction.
        index: u64,
        /// Its header, in short.
        message: MessageSummary,
    },
    /// A grid message was read from a socket.
    MessageReceived {
        /// Number of the connection.
        socket: SocketId,
        /// Index among the messages of this connection and direction.
        index: u64,
    },
    /// A request was made, or the opening of a stream began.
    CallMade {
        /// Number of the call.
        call: CallId,
        /// The callee.
        to: Node,
        /// Request or stream.
        kind: CallKind,
        /// Deadline in milliseconds from now, if the call has one of its own.
        timeout_ms: Option<u32>,
    },
    /// A stream is open: the callee has accepted it.
    StreamOpened {
        /// Number of the stream.
        call: CallId,
    },
    /// A message was accepted by a stream: the send resolved.
    Sent {
        /// Number of the stream.
        call: CallId,
        /// The sending end.
        end: StreamSide,
        /// Number of the message in this direction.
        number: u32,
    },
    /// A send is blocked: it waits for credit, or for queue space.
    SendBlocked {
        /// Number of the stream.
        call: CallId,
        /// The sending end.
        end: StreamSide,
        /// Number of the message in this direction.
        number: u32,
    },
    /// A message was received from a stream.
    Received {
        /// Number of the stream.
        call: CallId,
        /// The receiving end.
        end: StreamSide,
        /// Number of the message, as its content states it.
        number: u32,
    },
    /// One end of a stream saw the end of its input.
    InputEnded {
        /// Number of the stream.
        call: CallId,
        /// The receiving end.
        end: StreamSide,
        /// Whether the other end finished cleanly.
        clean: bool,
    },
    /// A call or stream ended for its caller.
    CallEnded {
        /// Number of the call.
        call: CallId,
        /// How it ended.
        outcome: Outcome,
    },
    /// A handler started to serve a call.
    HandlerStarted {
        /// Number of the call.
        call: CallId,
        /// The caller that the request context names.
        from: Node,
    },
    /// A handler ended.
    HandlerEnded {
        /// Number of the call.
        call: CallId,
        /// How it ended.
        how: HandlerEnd,
    },
    /// A handler got input that its caller did not send.
    WrongInput {
        /// Number of the call.
        call: CallId,
        /// Description of the input.
        text: String,
    },
    /// A node's process has this list of lockers.
    LockersConfigured {
        /// The lockers.
        lockers: Vec<Node>,
    },
    /// A node's process has verified its peers, and uses locks from now on.
    PeersVerified,
    /// A node requested a lock.
    LockRequested {
        /// Number of the call.
        call: CallId,
        /// The resources to lock.
        resources: Vec<u8>,
        /// Whether the lock is exclusive.
        write: bool,
        /// How long to wait for the lock, in milliseconds.
        timeout_ms: u32,
    },
    /// A lock was granted, and the grant has reached its holder.
    LockGranted {
        /// Number of the call.
        call: CallId,
        /// The locked resources.
        resources: Vec<u8>,
        /// Whether the lock is exclusive.
        write: bool,
        /// Its fencing token.
        token: u64,
        /// How long it is certain to be held, by the clock of its holder, in milliseconds.
        valid_ms: u64,
    },
    /// A lock was not granted.
    LockFailed {
        /// Number of the call.
        call: CallId,
        /// The reason.
        failure: LockFailure,
    },
    /// A holder noticed that its lock is lost.
    LockLost {
        /// Number of the call.
        call: CallId,
        /// How the holder noticed.
        notice: LossNotice,
    },
    /// A lock ended for its holder, which does not use the store from here on.
    LockEnded {
        /// Number of the call.
        call: CallId,
        /// How it ended.
        how: LockEnd,
    },
    /// An operator has forced the locks of a resource open.
    LockForced {
        /// Number of the call.
        call: CallId,
        /// The resource.
        resource: u8,
        /// Number of lockers that had granted such a lock.
        lockers: usize,
    },
    /// A holder started an operation on the protected store.
    StoreRequested {
        /// Call of the lock.
        call: CallId,
        /// The register.
        resource: u8,
        /// The operation.
        op: StoreOp,
    },
    /// A read or write of a holder reached the protected store.
    StoreReached {
        /// Call of the lock.
        call: CallId,
        /// The register.
        resource: u8,
        /// The fencing token that came with it.
        token: u64,
        /// Whether it came from a writer, whose token the store remembers.
        writer: bool,
        /// The value to write; none for a read.
        value: Option<u64>,
        /// Whether the store accepted it.
        accepted: bool,
        /// Whether its holder saw `is_held()` at this instant.
        held: bool,
    },
    /// An operation on the protected store ended for its holder.
    StoreCompleted {
        /// Call of the lock.
        call: CallId,
        /// The register.
        resource: u8,
        /// The result.
        result: StoreResult,
    },
    /// An event of users, policies and mappings.
    Iam(IamEvent),
    /// An event of resource metrics.
    Metrics(MetricsEvent),
    /// A fault point of the code fired.
    FaultPoint {
        /// Name of the point.
        point: String,
        /// How long the injected fault lasts, in milliseconds.
        lasts_ms: u64,
    },
    /// An invariant does not hold.
    Violated {
        /// Name of the invariant.
        invariant: String,
        /// Description of the violation.
        text: String,
    },
}

impl EventKind {
    /// Returns the call that the event belongs to, if there is one.
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::CallMade { call, .. }
            | Self::StreamOpened { call }
            | Self::Sent { call, .. }
            | Self::SendBlocked { call, .. }
            | Self::Received { call, .. }
            | Self::InputEnded { call, .. }
            | Self::CallEnded { call, .. }
            | Self::HandlerStarted { call, .. }
            | Self::HandlerEnded { call, .. }
            | Self::WrongInput { call, .. }
            | Self::LockRequested { call, .. }
            | Self::LockGranted { call, .. }
            | Self::LockFailed { call, .. }
            | Self::LockLost { call, .. }
            | Self::LockEnded { call, .. }
            | Self::LockForced { call, .. }
            | Self::StoreRequested { call, .. }
            | Self::StoreReached { call, .. }
            | Self::StoreCompleted { call, .. } => Some(*call),
            Self::MessageSent { message, .. } => message.call,
            Self::Iam(event) => event.call(),
            Self::Fault { .. }
            | Self::Healed
            | Self::Quiet
            | Self::Started { .. }
            | Self::LockersConfigured { .. }
            | Self::PeersVerified
            | Self::State { .. }
            | Self::SocketOpened { .. }
            | Self::SocketClosed { .. }
            | Self::MessageReceived { .. }
            | Self::Metrics(_)
            | Self::FaultPoint { .. }
            | Self::Violated { .. } => None,
        }
    }
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Dialing, or waiting to be dialed.
    Connecting,
    /// Open.
    Connected,
    /// Waiting before the next attempt.
    Backoff,
    /// Closed permanently.
    Shutdown,
}

/// The header of a grid message, and the call that its payload names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSummary {
    /// The op, as the protocol names it.
    pub op: String,
    /// The call of the connection that it belongs to; 0 is the connection itself.
    pub mux_id: u64,
    /// Sequence number in that call.
    pub sequence: u32,
    /// The flags.
    pub flags: u8,
    /// Bytes of the payload.
    pub bytes: u32,
    /// The call or stream, where the payload names one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call: Option<CallId>,
}

/// The kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    /// A single request.
    Request,
    /// A stream.
    Stream,
}

/// The two ends of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamSide {
    /// The end that opened the stream.
    Caller,
    /// The end whose handler serves the stream.
    Callee,
}

impl StreamSide {
    /// Returns the other end.
    pub fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// How a call or stream ended for its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Outcome {
    /// With its own response; a stream with all of the handler's messages.
    Completed,
    /// With a response that belongs to another call, or is damaged.
    WrongResponse {
        /// Description of the difference.
        text: String,
    },
    /// The handler failed or panicked.
    RemoteError {
        /// The error text.
        text: String,
    },
    /// The callee has no such handler.
    UnknownHandler,
    /// The callee refused it.
    Refused {
        /// The reason.
        text: String,
    },
    /// It was not made: there is no connection.
    NotConnected,
    /// The connection ended.
    Disconnected,
    /// Its deadline passed.
    Deadline,
    /// The caller cancelled it.
    Cancelled,
    /// It was not made: too large, too many, or shutting down.
    NotMade {
        /// The reason.
        text: String,
    },
    /// The stream failed in another way.
    StreamFailed {
        /// The error text.
        text: String,
    },
    /// The process of its caller crashed.
    Crashed,
}

/// How a handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandlerEnd {
    /// It returned success.
    Returned,
    /// It returned an error.
    Failed,
    /// It panicked.
    Panicked,
    /// It was cancelled: dropped before it returned.
    Cancelled,
    /// Its process crashed.
    Crashed,
}
