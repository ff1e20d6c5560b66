//! Coverage points: rare situations that a set of runs must reach, because it does not test them
//! otherwise.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{
    CallId, CallKind, ConnectionState, Event, EventKind, HandlerEnd, Outcome, SocketId, StreamSide,
};
use crate::fault::Effect;
use crate::plan::{Fault, Load, Node};
use crate::world::NodeView;

mod iam;
mod locks;

pub use iam::IAM_POINTS;
pub use locks::LOCK_POINTS;

/// Number of hits of each coverage point. The points that a set of runs must reach are in
/// [`POINTS`], [`LOCK_POINTS`] and [`IAM_POINTS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<String, u64>,
    open: BTreeMap<CallId, OpenCall>,
    /// When a node last lost its connection to another.
    lost: BTreeMap<(Node, Node), u64>,
    /// When a call from a node to another last succeeded.
    last_success: BTreeMap<(Node, Node), u64>,
    /// Nodes that are in a graceful restart.
    restarting: BTreeSet<Node>,
    /// The node at the other end of each end of a TCP connection.
    remotes: BTreeMap<(Node, SocketId), Node>,
    /// The TCP connection that a node uses to another, since it last had none.
    used: BTreeMap<(Node, Node), SocketId>,
    locks: locks::Locks,
    iam: iam::Iam,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OpenCall {
    kind: Option<CallKind>,
    cancelled_at: Option<u64>,
    returned_at: Option<u64>,
    is_handler_running: bool,
    /// The ends that have a blocked message.
    waiting: BTreeSet<StreamSide>,
    has_all_input: bool,
    has_no_input: bool,
    to: Option<Node>,
}

/// Points that a set of swarm runs must reach.
pub const POINTS: &[&str] = &[
    "buggify_delay-flush",
    "buggify_early-timeout",
    "buggify_full-socket",
    "buggify_spurious-wake",
    "buggify_supersede",
    "buggify_tiny-queue",
    "call_cancelled_before_handler_started",
    "call_cancelled_while_handler_runs",
    "call_disconnected_while_handler_runs",
    "call_not_connected",
    "call_succeeded",
    "call_to_unknown_handler",
    "connection_closed_by_missed_pings",
    "connection_superseded",
    "crash_with_calls_in_flight",
    "deadline_exceeded",
    "dial_timed_out",
    "fault_bounce",
    "fault_cut",
    "fault_cut_one_way",
    "fault_drift",
    "fault_hold",
    "fault_power_loss",
    "fault_repair",
    "fault_restart",
    "fault_skew",
    "fault_slow",
    "graceful_restart",
    "handler_failed",
    "handler_panicked",
    "message_waited_for_queue_space",
    "rejected_for_auth_token",
    "rejected_for_clock_skew",
    "response_arrived_as_connection_died",
    "send_blocked_and_cancelled",
    "stream_cancelled_with_full_buffer",
    "stream_ended_in_tick_of_cancel",
    "stream_half_closed",
    "stream_succeeded",
    "stream_without_request_side",
];

/// Returns the points that runs of these scenarios must reach together: those of the swarm, of
/// locks, or of users, policies and mappings, as the scenarios require.
pub fn points_of<'a>(scenarios: impl IntoIterator<Item = &'a str>) -> Vec<&'static str> {
    let list_of = |name: &str| match name {
        _ if name.starts_with("locks") => LOCK_POINTS,
        _ if name.starts_with("iam") => IAM_POINTS,
        _ => POINTS,
    };
    let points = scenarios.into_iter().flat_map(list_of);
    BTreeSet::from_iter(points.copied()).into_iter().collect()
}

impl Coverage {
    fn hit(&mut self, point: &str) {
        match self.counts.get_mut(point) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(point.to_owned(), 1)),
        }
    }

    /// Returns the number of hits of each point.
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// Adds the hits of another run.
    pub fn add(&mut self, other: &Self) {
        for (point, count) in &other.counts {
            *self.counts.entry(point.clone()).or_default() += count;
        }
    }

    /// Returns the points that were never reached.
    pub fn missing(&self, points: &[&'static str]) -> Vec<&'static str> {
        points.iter().copied().filter(|point| !self.counts.contains_key(*point)).collect()
    }

    /// Handles an event, with the plan of its call, if it has one.
    pub fn on_event(&mut self, event: &Event, load: Option<&Load>) {
        for point in self.locks.on_event(event).into_iter().chain(self.iam.on_event(event)) {
            self.hit(point);
        }
        match &event.kind {
            EventKind::Fault { fault } => self.on_fault(*fault),
            EventKind::FaultPoint { point, .. } => self.hit(&format!("buggify_{point}")),
            EventKind::State { state, cause, remote } => {
                if let Some(node) = event.node {
                    self.on_state((node, *remote), *state, cause.as_deref(), event.at_ms);
                }
            }
            EventKind::SocketOpened { socket, remote, .. } => {
                self.remotes.extend(event.node.map(|node| ((node, *socket), *remote)));
            }
            EventKind::MessageSent { socket, message, .. } => {
                if let Some(node) = event.node.filter(|_| !is_handshake(&message.op)) {
                    self.on_use(node, *socket);
                }
            }
            EventKind::CallMade { call, kind, to, .. } => {
                let has_no_input = matches!(load, Some(Load::Stream(plan)) if plan.capacities == 0);
                let (kind, to) = (Some(*kind), Some(*to));
                self.open.insert(*call, OpenCall { kind, to, has_no_input, ..OpenCall::default() });
            }
            _ => self.on_call(event),
        }
    }

    fn on_fault(&mut self, fault: Fault) {
        self.hit(&format!("fault_{}", fault.kind()));
        match fault.effect() {
            Effect::NodeRestarts { node } => drop(self.restarting.insert(node)),
            Effect::NodeFails { node } => drop(self.restarting.remove(&node)),
            _ => {}
        }
    }

    /// Handles a change of the state of the connection from the first of `ends` to the second.
    fn on_state(
        &mut self,
        ends: (Node, Node),
        state: ConnectionState,
        cause: Option<&str>,
        at: u64,
    ) {
        if state == ConnectionState::Connected {
            return;
        }
        // After a loss, the acceptor waits for the dialer, and the dialer backs off; a watcher may
        // see only the last of several changes.
        self.used.remove(&ends);
        self.lost.insert(ends, at);
        if self.last_success.get(&ends) == Some(&at) {
            self.hit("response_arrived_as_connection_died");
        }
        match state {
            ConnectionState::Backoff => self.on_cause(cause.unwrap_or_default()),
            // At the end of the run, all connections shut down; that proves nothing.
            ConnectionState::Shutdown if self.restarting.remove(&ends.0) => {
                self.hit("graceful_restart");
            }
            ConnectionState::Shutdown
            | ConnectionState::Connecting
            | ConnectionState::Connected => {}
        }
    }

    /// Handles the use of a connection. It supersedes another if that was not lost in between: no
    /// change of state is visible then.
    fn on_use(&mut self, node: Node, socket: SocketId) {
        let Some(remote) = self.remotes.get(&(node, socket)) else { return };
        let before = self.used.insert((node, *remote), socket);
        if before.is_some_and(|before| before != socket) {
            self.hit("connection_superseded");
        }
    }

    fn on_cause(&mut self, cause: &str) {
        let points = [
            ("pings in a row", "connection_closed_by_missed_pings"),
            ("no response within", "dial_timed_out"),
            ("time difference", "rejected_for_clock_skew"),
            ("auth token", "rejected_for_auth_token"),
        ];
        for (text, point) in points {
            if cause.contains(text) {
                self.hit(point);
            }
        }
    }

    fn on_call(&mut self, event: &Event) {
        let at = event.at_ms;
        let mut points = Vec::new();
        match &event.kind {
            EventKind::SendBlocked { call, end, .. } => {
                self.open.entry(*call).or_default().waiting.insert(*end);
            }
            EventKind::Sent { call, end, .. } => {
                let open = self.open.entry(*call).or_default();
                open.waiting.remove(end);
                if *end == StreamSide::Callee && open.has_all_input {
                    points.push("stream_half_closed");
                }
            }
            EventKind::InputEnded { call, end: StreamSide::Callee, clean: true } => {
                self.open.entry(*call).or_default().has_all_input = true;
            }
            EventKind::HandlerStarted { call, .. } => {
                self.open.entry(*call).or_default().is_handler_running = true;
            }
            EventKind::HandlerEnded { call, how } => {
                let open = self.open.entry(*call).or_default();
                open.is_handler_running = false;
                if *how == HandlerEnd::Returned {
                    open.returned_at = Some(at);
                    if open.cancelled_at == Some(at) && open.kind == Some(CallKind::Stream) {
                        points.push("stream_ended_in_tick_of_cancel");
                    }
                }
                match how {
                    HandlerEnd::Failed => points.push("handler_failed"),
                    HandlerEnd::Panicked => points.push("handler_panicked"),
                    HandlerEnd::Returned | HandlerEnd::Cancelled | HandlerEnd::Crashed => {}
                }
            }
            EventKind::CallEnded { call, outcome } => {
                if let Some(open) = self.open.get_mut(call) {
                    points = open.ended(outcome, at);
                    let ends = event.node.zip(open.to);
                    let lost = ends.and_then(|ends| self.lost.get(&ends));
                    if *outcome == Outcome::Completed {
                        if lost == Some(&at) {
                            points.push("response_arrived_as_connection_died");
                        }
                        self.last_success.extend(ends.map(|ends| (ends, at)));
                    }
                }
            }
            _ => {}
        }
        for point in points {
            self.hit(point);
        }
    }

    /// Handles the present state of the nodes.
    pub fn on_view(&mut self, views: &[NodeView]) {
        for point in self.locks.on_view(views) {
            self.hit(point);
        }
        let waits = |view: &NodeView| view.connections.iter().any(|c| c.blocked_messages > 0);
        if views.iter().any(waits) {
            self.hit("message_waited_for_queue_space");
        }
    }
}

/// Returns whether a message belongs to the handshake, which several connections may have at once.
fn is_handshake(op: &str) -> bool {
    matches!(op, "Connect" | "ConnectResponse")
}

impl OpenCall {
    fn ended(&mut self, outcome: &Outcome, at: u64) -> Vec<&'static str> {
        let mut points = Vec::new();
        let is_stream = self.kind == Some(CallKind::Stream);
        match outcome {
            Outcome::Completed if is_stream => {
                points.push("stream_succeeded");
                if self.has_no_input {
                    points.push("stream_without_request_side");
                }
            }
            Outcome::Completed => points.push("call_succeeded"),
            Outcome::UnknownHandler => points.push("call_to_unknown_handler"),
            Outcome::NotConnected => points.push("call_not_connected"),
            Outcome::Deadline => points.push("deadline_exceeded"),
            Outcome::Disconnected if self.is_handler_running => {
                points.push("call_disconnected_while_handler_runs");
            }
            Outcome::Crashed => points.push("crash_with_calls_in_flight"),
            Outcome::Cancelled => {
                self.cancelled_at = Some(at);
                points.push(if self.is_handler_running {
                    "call_cancelled_while_handler_runs"
                } else {
                    "call_cancelled_before_handler_started"
                });
                if self.waiting.contains(&StreamSide::Caller) {
                    points.push("send_blocked_and_cancelled");
                }
                if self.waiting.contains(&StreamSide::Callee) {
                    points.push("stream_cancelled_with_full_buffer");
                }
                if self.returned_at == Some(at) && is_stream {
                    points.push("stream_ended_in_tick_of_cancel");
                }
            }
            _ => {}
        }
        points
    }
}

#[cfg(test)]
mod tests;
