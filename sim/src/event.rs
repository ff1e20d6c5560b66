//! What happened in a run: one flat, serialisable line for each thing that means something.
//!
//! The trace of a run is a `Vec<Event>`. Invariants and coverage read it while it grows, the report
//! draws it, snapshots pin it, and two runs are the same when theirs are. So nothing is in it that
//! may differ between two runs of one seed: no bytes (mask keys are random), no addresses, no real
//! time.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plan::{Fault, Node};

mod iam;
mod lock;
mod metrics;

pub use iam::{IamEvent, Kept, RecordVersion};
pub use lock::{LockEnd, LockFailure, Notice, StoreOp, StoreResult};
pub use metrics::{Metrics, Reported, ScrapeId, Told};

/// Number of a call or stream: its place in the load of the run.
pub type CallId = u32;

/// Number of a simulated TCP connection. Both of its ends bear the same.
pub type SocketId = u32;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in simulated milliseconds since the start of the run: the beginning of its tick.
    pub at_ms: u64,
    /// On which node; none for what happens to the network or to the run as a whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<Node>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The run caused trouble, or ended some.
    Fault {
        /// Which.
        fault: Fault,
    },
    /// All trouble is over: from here on everything must recover.
    Healed,
    /// Everything has recovered: connected, drained and idle.
    Quiet,
    /// A node's process began; the first time or after a crash.
    Started {
        /// How often it has begun.
        incarnation: u32,
    },
    /// A node's connection to another changed its state.
    State {
        /// The other one.
        remote: Node,
        /// Its new state.
        state: LinkState,
        /// Why it is not connected, where that is known.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        cause: Option<String>,
    },
    /// One end of a TCP connection came to be.
    SocketOpened {
        /// Which connection.
        socket: SocketId,
        /// The node at its other end.
        remote: Node,
        /// Whether this end dialled.
        dialled: bool,
    },
    /// One end of a TCP connection was dropped.
    SocketClosed {
        /// Which connection.
        socket: SocketId,
    },
    /// A grid message was written to a socket.
    MessageSent {
        /// On which connection.
        socket: SocketId,
        /// Its place among those of this connection and direction.
        index: u64,
        /// What it says.
        message: Meaning,
    },
    /// A grid message was read from a socket.
    MessageReceived {
        /// On which connection.
        socket: SocketId,
        /// Its place among those of this connection and direction.
        index: u64,
    },
    /// A call was made, or a stream opened.
    CallMade {
        /// Which.
        call: CallId,
        /// Whom it asks.
        to: Node,
        /// What kind.
        kind: CallKind,
        /// Its deadline in milliseconds from now, if it has one of its own.
        timeout_ms: Option<u32>,
    },
    /// A stream is open: the other side has taken it.
    StreamOpened {
        /// Which.
        call: CallId,
    },
    /// A message was handed to a stream: the send resolved.
    Sent {
        /// Which stream.
        call: CallId,
        /// From which of its ends.
        end: StreamSide,
        /// Its place in this direction.
        number: u32,
    },
    /// A message has to wait before it is handed to a stream: for credit, or for room.
    SendWaits {
        /// Which stream.
        call: CallId,
        /// At which of its ends.
        end: StreamSide,
        /// Its place in this direction.
        number: u32,
    },
    /// A message was received from a stream.
    Taken {
        /// Which stream.
        call: CallId,
        /// At which of its ends.
        end: StreamSide,
        /// The place that its content says it has.
        number: u32,
    },
    /// One end saw the last of the other's messages, and that it was the last.
    InputOver {
        /// Which stream.
        call: CallId,
        /// At which of its ends.
        end: StreamSide,
        /// Whether the other end finished in good order.
        well: bool,
    },
    /// A call or stream is over for whoever made it.
    CallEnded {
        /// Which.
        call: CallId,
        /// How.
        outcome: Outcome,
    },
    /// A handler began to serve a call.
    HandlerStarted {
        /// Which.
        call: CallId,
        /// Who called, as the context says.
        from: Node,
    },
    /// A handler is over.
    HandlerEnded {
        /// Which.
        call: CallId,
        /// How.
        how: HandlerEnd,
    },
    /// A handler was given something that its caller did not send.
    WrongInput {
        /// By which call.
        call: CallId,
        /// What it was.
        text: String,
    },
    /// A lock is asked for.
    LockAsked {
        /// By which call.
        call: CallId,
        /// What is to be locked.
        resources: Vec<u8>,
        /// Whether nobody else may hold it meanwhile.
        write: bool,
        /// How long it is waited for, in milliseconds.
        timeout_ms: u32,
    },
    /// A lock was granted, and whoever asked knows.
    LockGranted {
        /// To which call.
        call: CallId,
        /// What is locked.
        resources: Vec<u8>,
        /// Whether nobody else may hold it meanwhile.
        write: bool,
        /// Its fencing token.
        token: u64,
        /// For how long it is certain to be held, by the clock of its holder, in milliseconds.
        valid_ms: u64,
    },
    /// A lock was not granted.
    LockFailed {
        /// To which call.
        call: CallId,
        /// Why not.
        failure: LockFailure,
    },
    /// A holder noticed that its lock is lost.
    LockLost {
        /// Of which call.
        call: CallId,
        /// How it noticed.
        notice: Notice,
    },
    /// A lock is over for its holder, who does nothing under it any more.
    LockEnded {
        /// Of which call.
        call: CallId,
        /// How.
        how: LockEnd,
    },
    /// An operator has forced locks open.
    LockForced {
        /// By which call.
        call: CallId,
        /// Of which resource.
        resource: u8,
        /// How many lockers had any.
        lockers: usize,
    },
    /// A holder wants something of the protected store.
    StoreAsked {
        /// Under the lock of which call.
        call: CallId,
        /// Of which register.
        resource: u8,
        /// What.
        op: StoreOp,
    },
    /// Something that a holder sent reached the protected store.
    StoreReached {
        /// Under the lock of which call.
        call: CallId,
        /// Which register.
        resource: u8,
        /// The token that came with it.
        token: u64,
        /// Whether it came from a writer, of which the store takes note.
        writer: bool,
        /// The value to write; none if it reads.
        value: Option<u64>,
        /// Whether the store did it.
        accepted: bool,
        /// Whether its holder believed just then that it held the lock.
        believed: bool,
    },
    /// What a holder wanted of the protected store is over.
    StoreAnswered {
        /// Under the lock of which call.
        call: CallId,
        /// Of which register.
        resource: u8,
        /// What came of it.
        result: StoreResult,
    },
    /// Something happened to users, policies and mappings.
    Iam(IamEvent),
    /// A node samples itself, or is asked for what all have to say.
    Metrics(Metrics),
    /// A rare-event point of the code was struck.
    Rare {
        /// Its name.
        point: String,
        /// How long it lasts, in milliseconds.
        lasts_ms: u64,
    },
    /// An invariant does not hold.
    Violated {
        /// Which.
        invariant: String,
        /// What was seen.
        text: String,
    },
}

impl What {
    /// The call that it happens to, if it is one.
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::CallMade { call, .. }
            | Self::StreamOpened { call }
            | Self::Sent { call, .. }
            | Self::SendWaits { call, .. }
            | Self::Taken { call, .. }
            | Self::InputOver { call, .. }
            | Self::CallEnded { call, .. }
            | Self::HandlerStarted { call, .. }
            | Self::HandlerEnded { call, .. }
            | Self::WrongInput { call, .. }
            | Self::LockAsked { call, .. }
            | Self::LockGranted { call, .. }
            | Self::LockFailed { call, .. }
            | Self::LockLost { call, .. }
            | Self::LockEnded { call, .. }
            | Self::LockForced { call, .. }
            | Self::StoreAsked { call, .. }
            | Self::StoreReached { call, .. }
            | Self::StoreAnswered { call, .. } => Some(*call),
            Self::MessageSent { message, .. } => message.call,
            Self::Iam(event) => event.call(),
            Self::Fault { .. }
            | Self::Healed
            | Self::Quiet
            | Self::Started { .. }
            | Self::State { .. }
            | Self::SocketOpened { .. }
            | Self::SocketClosed { .. }
            | Self::MessageReceived { .. }
            | Self::Metrics(_)
            | Self::Rare { .. }
            | Self::Violated { .. } => None,
        }
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Dialling or waiting to be dialled.
    Connecting,
    /// Open.
    Connected,
    /// Waiting before the next attempt.
    Backoff,
    /// Over for good.
    Shutdown,
}

/// A grid message by its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    /// Its op, as the protocol names it.
    pub op: String,
    /// Which call of the connection it belongs to; 0 is the connection itself.
    pub mux_id: u64,
    /// Its place in that call.
    pub sequence: u32,
    /// Its flags.
    pub flags: u8,
    /// Bytes of its payload.
    pub bytes: u32,
    /// The call or stream, where the payload says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call: Option<CallId>,
}

/// Two kinds of call.
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
    /// Who opened it.
    Caller,
    /// Who serves it.
    Handler,
}

impl StreamSide {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Caller => Self::Handler,
            Self::Handler => Self::Caller,
        }
    }
}

/// How a call or stream ended for whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Outcome {
    /// With its own answer; a stream with all of the handler's messages.
    Answered,
    /// With an answer that is not its own, or is damaged.
    WrongAnswer {
        /// What was wrong.
        text: String,
    },
    /// The handler failed or panicked.
    RemoteError {
        /// Its text.
        text: String,
    },
    /// There is no such handler.
    UnknownHandler,
    /// The other side refused it.
    Refused {
        /// Why.
        text: String,
    },
    /// It was not made: there is no connection.
    NotConnected,
    /// The connection ended.
    Disconnected,
    /// Its deadline passed.
    Deadline,
    /// Its maker gave it up.
    GaveUp,
    /// It was not made: too large, too many, or shutting down.
    NotMade {
        /// Why.
        text: String,
    },
    /// Its stream ended in another way.
    StreamFailed {
        /// How.
        text: String,
    },
    /// The process of its maker crashed.
    Crashed,
}

/// How a handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandlerEnd {
    /// It returned well.
    Returned,
    /// It returned an error.
    Failed,
    /// It panicked.
    Panicked,
    /// It was dropped before it returned: cancelled.
    Cancelled,
    /// Its process crashed.
    Crashed,
}

impl fmt::Display for Event {
    /// A line for a person: time, node, what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}s ", self.at_ms as f64 / 1000.0)?;
        match self.node {
            Some(node) => write!(f, "{node:<7} ")?,
            None => f.write_str("-       ")?,
        }
        self.what.fmt(f)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { fault } => write!(f, "fault: {fault}"),
            Self::Healed => f.write_str("all faults are healed"),
            Self::Quiet => f.write_str("everything is connected, drained and idle"),
            Self::Started { incarnation } => write!(f, "started ({incarnation})"),
            Self::State { remote, state, cause } => {
                write!(f, "{remote}: {state:?}")?;
                cause.as_ref().map_or(Ok(()), |cause| write!(f, ", {cause}"))
            }
            Self::SocketOpened { socket, remote, dialled } => {
                let how = if *dialled { "dialled" } else { "accepted" };
                write!(f, "socket {socket} {how}, {remote}")
            }
            Self::SocketClosed { socket } => write!(f, "socket {socket} closed"),
            Self::MessageSent { socket, index, message } => {
                write!(f, "socket {socket} > {index}: {message}")
            }
            Self::MessageReceived { socket, index } => write!(f, "socket {socket} < {index}"),
            Self::CallMade { call, to, kind, timeout_ms } => {
                write!(f, "call {call}: {kind:?} to {to}")?;
                timeout_ms.map_or(Ok(()), |ms| write!(f, " within {ms} ms"))
            }
            Self::StreamOpened { call } => write!(f, "call {call}: open"),
            Self::Sent { call, end, number } => write!(f, "call {call}: {end:?} sent {number}"),
            Self::SendWaits { call, end, number } => {
                write!(f, "call {call}: {end:?} waits to send {number}")
            }
            Self::Taken { call, end, number } => write!(f, "call {call}: {end:?} took {number}"),
            Self::InputOver { call, end, well } => {
                let how = if *well { "well" } else { "not well" };
                write!(f, "call {call}: {end:?} saw the other's end, {how}")
            }
            Self::CallEnded { call, outcome } => write!(f, "call {call}: ended, {outcome}"),
            Self::HandlerStarted { call, from } => write!(f, "call {call}: served for {from}"),
            Self::HandlerEnded { call, how } => write!(f, "call {call}: handler {how:?}"),
            Self::WrongInput { call, text } => write!(f, "call {call}: WRONG INPUT: {text}"),
            Self::LockAsked { call, resources, write, timeout_ms } => {
                let what = Locked { resources, write: *write };
                write!(f, "call {call}: {what} within {timeout_ms} ms")
            }
            Self::LockGranted { call, resources, write, token, valid_ms } => {
                let what = Locked { resources, write: *write };
                write!(f, "call {call}: has {what}, token {token}, certain for {valid_ms} ms")
            }
            Self::LockFailed { call, failure } => write!(f, "call {call}: no lock, {failure}"),
            Self::LockLost { call, notice } => write!(f, "call {call}: lock LOST, {notice:?}"),
            Self::LockEnded { call, how } => write!(f, "call {call}: lock {how}"),
            Self::LockForced { call, resource, lockers } => {
                write!(f, "call {call}: r{resource} forced open at {lockers} lockers")
            }
            Self::StoreAsked { call, resource, op } => {
                write!(f, "call {call}: r{resource}, {op}")
            }
            Self::StoreReached { call, resource, token, value, accepted, believed, .. } => {
                write!(f, "call {call}: r{resource} reached with token {token}")?;
                value.map_or(Ok(()), |value| write!(f, ", value {value}"))?;
                f.write_str(if *accepted { "" } else { ", REFUSED" })?;
                f.write_str(if *believed { "" } else { ", by a holder no more" })
            }
            Self::StoreAnswered { call, resource, result } => {
                write!(f, "call {call}: r{resource}, {result}")
            }
            Self::Iam(event) => event.fmt(f),
            Self::Metrics(metrics) => metrics.fmt(f),
            Self::Rare { point, lasts_ms } => write!(f, "rare event: {point} for {lasts_ms} ms"),
            Self::Violated { invariant, text } => write!(f, "VIOLATED {invariant}: {text}"),
        }
    }
}

/// A lock in words.
struct Locked<'a> {
    resources: &'a [u8],
    write: bool,
}

impl fmt::Display for Locked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.write { "write lock of" } else { "read lock of" })?;
        self.resources.iter().try_for_each(|resource| write!(f, " r{resource}"))
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, mux_id, sequence, flags, bytes, call } = self;
        write!(f, "{op} mux {mux_id} seq {sequence} flags {flags} {bytes} B")?;
        call.map_or(Ok(()), |call| write!(f, " (call {call})"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("answered"),
            Self::WrongAnswer { text } => write!(f, "WRONG ANSWER: {text}"),
            Self::RemoteError { text } => write!(f, "remote error: {text}"),
            Self::UnknownHandler => f.write_str("unknown handler"),
            Self::Refused { text } => write!(f, "refused: {text}"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::Deadline => f.write_str("deadline"),
            Self::GaveUp => f.write_str("given up"),
            Self::NotMade { text } => write!(f, "not made: {text}"),
            Self::StreamFailed { text } => write!(f, "stream failed: {text}"),
            Self::Crashed => f.write_str("its process crashed"),
        }
    }
}
