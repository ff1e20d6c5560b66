//! The text of events: a line for each, for a person.

use std::fmt;

use super::{Event, EventKind, MessageSummary, Outcome};
use crate::plan::Node;

impl fmt::Display for Event {
    /// Writes a line for a person: time, node, event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}s ", self.at_ms as f64 / 1000.0)?;
        match self.node {
            Some(node) => write!(f, "{node:<7} ")?,
            None => f.write_str("-       ")?,
        }
        self.kind.fmt(f)
    }
}

impl fmt::Display for EventKind {
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
            Self::SocketOpened { socket, remote, dialed } => {
                let how = if *dialed { "dialed" } else { "accepted" };
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
            Self::SendBlocked { call, end, number } => {
                write!(f, "call {call}: {end:?} waits to send {number}")
            }
            Self::Received { call, end, number } => {
                write!(f, "call {call}: {end:?} received {number}")
            }
            Self::InputEnded { call, end, clean } => {
                let how = if *clean { "cleanly" } else { "with an error" };
                write!(f, "call {call}: {end:?} input ended {how}")
            }
            Self::CallEnded { call, outcome } => write!(f, "call {call}: ended, {outcome}"),
            Self::HandlerStarted { call, from } => write!(f, "call {call}: served for {from}"),
            Self::HandlerEnded { call, how } => write!(f, "call {call}: handler {how:?}"),
            Self::WrongInput { call, text } => write!(f, "call {call}: WRONG INPUT: {text}"),
            Self::LockersConfigured { .. }
            | Self::PeersVerified
            | Self::LockRequested { .. }
            | Self::LockGranted { .. }
            | Self::LockFailed { .. }
            | Self::LockLost { .. }
            | Self::LockEnded { .. }
            | Self::LockForced { .. }
            | Self::StoreRequested { .. }
            | Self::StoreReached { .. }
            | Self::StoreCompleted { .. } => self.fmt_lock_event(f),
            Self::Iam(event) => event.fmt(f),
            Self::Metrics(metrics) => metrics.fmt(f),
            Self::FaultPoint { point, lasts_ms } => {
                write!(f, "fault point: {point} for {lasts_ms} ms")
            }
            Self::Violated { invariant, text } => write!(f, "VIOLATED {invariant}: {text}"),
        }
    }
}

impl EventKind {
    /// Writes an event of locks or of the protected store.
    fn fmt_lock_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockersConfigured { lockers } => {
                let names: Vec<_> = lockers.iter().map(Node::to_string).collect();
                write!(f, "lockers are {}", names.join(", "))
            }
            Self::PeersVerified => f.write_str("peers verified"),
            Self::LockRequested { call, resources, write, timeout_ms } => {
                let lock = LockText { resources, write: *write };
                write!(f, "call {call}: requests {lock} within {timeout_ms} ms")
            }
            Self::LockGranted { call, resources, write, token, valid_ms } => {
                let lock = LockText { resources, write: *write };
                write!(f, "call {call}: granted {lock}, token {token}, valid for {valid_ms} ms")
            }
            Self::LockFailed { call, failure } => write!(f, "call {call}: lock failed, {failure}"),
            Self::LockLost { call, notice } => write!(f, "call {call}: lock LOST, {notice:?}"),
            Self::LockEnded { call, how } => write!(f, "call {call}: lock {how}"),
            Self::LockForced { call, resource, lockers } => {
                write!(f, "call {call}: r{resource} forced open at {lockers} lockers")
            }
            Self::StoreRequested { call, resource, op } => {
                write!(f, "call {call}: r{resource}, {op}")
            }
            Self::StoreReached { call, resource, token, value, accepted, held, .. } => {
                write!(f, "call {call}: r{resource} reached with token {token}")?;
                value.map_or(Ok(()), |value| write!(f, ", value {value}"))?;
                f.write_str(if *accepted { "" } else { ", REFUSED" })?;
                f.write_str(if *held { "" } else { ", no longer held" })
            }
            Self::StoreCompleted { call, resource, result } => {
                write!(f, "call {call}: r{resource}, {result}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// Text of a lock.
struct LockText<'a> {
    resources: &'a [u8],
    write: bool,
}

impl fmt::Display for LockText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.write { "write lock of" } else { "read lock of" })?;
        self.resources.iter().try_for_each(|resource| write!(f, " r{resource}"))
    }
}

impl fmt::Display for MessageSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, mux_id, sequence, flags, bytes, call } = self;
        write!(f, "{op} mux {mux_id} seq {sequence} flags {flags} {bytes} B")?;
        call.map_or(Ok(()), |call| write!(f, " (call {call})"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::WrongResponse { text } => write!(f, "WRONG RESPONSE: {text}"),
            Self::RemoteError { text } => write!(f, "remote error: {text}"),
            Self::UnknownHandler => f.write_str("unknown handler"),
            Self::Refused { text } => write!(f, "refused: {text}"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::Deadline => f.write_str("deadline"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::NotMade { text } => write!(f, "not made: {text}"),
            Self::StreamFailed { text } => write!(f, "stream failed: {text}"),
            Self::Crashed => f.write_str("its process crashed"),
        }
    }
}
