//! Pairs the events of a trace: the two ends of a message, a call, a state, a fault.
//!
//! Everything refers to events by their index in the trace, so that the page can show all fields of
//! an item's events.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{
    CallId, CallKind, Event, EventKind, HandlerEnd, LockEnd, LockFailure, MessageSummary, Outcome,
    SocketId,
};
use crate::fault::Effect;
use crate::plan::{Node, Plan};

use super::fault_spans::{self, FaultSpan};
use super::{EventIndex, is_violation};

/// The items to draw.
#[derive(Debug, Serialize)]
pub(super) struct Diagram {
    pub(super) nodes: usize,
    pub(super) messages: Vec<Arrow>,
    pub(super) bars: Vec<Bar>,
    pub(super) states: Vec<StateSpan>,
    pub(super) faults: Vec<FaultSpan>,
    pub(super) violations: Vec<EventIndex>,
    /// The call of each event.
    pub(super) calls: Vec<Option<CallId>>,
}

/// A message in flight.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Arrow {
    pub(super) sent: EventIndex,
    /// None if it never arrived.
    pub(super) received: Option<EventIndex>,
    pub(super) from: Node,
    /// None if the socket's other end is unknown.
    pub(super) to: Option<Node>,
}

/// A call at one of its ends.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Bar {
    pub(super) call: CallId,
    pub(super) node: Node,
    pub(super) side: BarSide,
    pub(super) start: EventIndex,
    /// None if its end is not in the trace.
    pub(super) end: Option<EventIndex>,
    pub(super) stream: bool,
    pub(super) tone: Tone,
}

/// The end of a call that a bar shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BarSide {
    /// The node that made the call.
    Caller,
    /// The node that served it.
    Callee,
}

/// How a call ended, as a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tone {
    /// Successfully.
    Success,
    /// With an error of the callee.
    Failed,
    /// With a violation of the protocol.
    Wrong,
    /// With the loss of the connection or of a process.
    Lost,
    /// At its deadline.
    Expired,
    /// With its caller's cancellation.
    Cancelled,
    /// Before it was sent.
    Refused,
    /// Still open at the end of the trace.
    Open,
}

/// A period in which a connection has one state, as one of its nodes sees it.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct StateSpan {
    pub(super) node: Node,
    pub(super) remote: Node,
    /// The event that began it and names the state.
    pub(super) start: EventIndex,
    /// The event that ended it; none if it lasts until the end of the trace.
    pub(super) end: Option<EventIndex>,
}

impl Diagram {
    pub(super) fn of(plan: &Plan, events: &[Event]) -> Self {
        let messages = arrows(events);
        let calls = calls(events, &messages);
        Self {
            nodes: count_nodes(plan, events),
            bars: bars(events),
            states: state_spans(events),
            faults: fault_spans::fault_spans(plan, events),
            violations: indices(events, is_violation),
            calls,
            messages,
        }
    }
}

fn indices(events: &[Event], is_one: impl Fn(&Event) -> bool) -> Vec<EventIndex> {
    (0..events.len()).filter(|index| is_one(&events[*index])).collect()
}

/// Returns the number of the plan's nodes, and of any others that the trace names.
fn count_nodes(plan: &Plan, events: &[Event]) -> usize {
    let named = events.iter().filter_map(|event| event.node).map(|node| node.index() + 1);
    named.max().unwrap_or(0).max(usize::from(plan.cluster.nodes))
}

/// Returns every message sent, with its arrival.
fn arrows(events: &[Event]) -> Vec<Arrow> {
    let ends = socket_ends(events);
    let mut arrows: Vec<Arrow> = Vec::new();
    let mut in_flight: BTreeMap<(SocketId, Node, u64), usize> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        let Some(node) = event.node else { continue };
        match event.kind {
            EventKind::MessageSent { socket, index, .. } => {
                in_flight.insert((socket, node, index), arrows.len());
                let to = other_end(&ends, socket, node);
                arrows.push(Arrow { sent: at, received: None, from: node, to });
            }
            EventKind::MessageReceived { socket, index } => {
                let from = other_end(&ends, socket, node);
                let sent = from.and_then(|from| in_flight.remove(&(socket, from, index)));
                if let Some(sent) = sent {
                    arrows[sent].received = Some(at);
                }
            }
            _ => {}
        }
    }
    arrows
}

type Ends = BTreeMap<SocketId, Vec<Node>>;

/// Returns the nodes at the ends of each socket, from all events about it.
fn socket_ends(events: &[Event]) -> Ends {
    let mut ends = Ends::new();
    let mut add_end = |socket: SocketId, node: Node| {
        let nodes = ends.entry(socket).or_default();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    };
    for event in events {
        let Some(node) = event.node else { continue };
        match event.kind {
            EventKind::SocketOpened { socket, remote, .. } => {
                add_end(socket, node);
                add_end(socket, remote);
            }
            EventKind::SocketClosed { socket }
            | EventKind::MessageSent { socket, .. }
            | EventKind::MessageReceived { socket, .. } => add_end(socket, node),
            _ => {}
        }
    }
    ends
}

fn other_end(ends: &Ends, socket: SocketId, node: Node) -> Option<Node> {
    ends.get(&socket)?.iter().copied().find(|end| *end != node)
}

/// Returns the call of each event: the event names it, or it is a message with the mux id of a
/// message that names it.
fn calls(events: &[Event], arrows: &[Arrow]) -> Vec<Option<CallId>> {
    let mut calls: Vec<Option<CallId>> = events.iter().map(call_of).collect();
    let mut known: BTreeMap<(SocketId, Node, u64), CallId> = BTreeMap::new();
    for arrow in arrows {
        if let (Some(key), Some(call)) = (mux_key(events, arrow), calls[arrow.sent]) {
            known.insert(key, call);
        }
    }
    for arrow in arrows {
        let from_mux = || mux_key(events, arrow).and_then(|key| known.get(&key).copied());
        let call = calls[arrow.sent].or_else(from_mux);
        calls[arrow.sent] = call;
        if let Some(received) = arrow.received {
            calls[received] = call;
        }
    }
    calls
}

fn call_of(event: &Event) -> Option<CallId> {
    match &event.kind {
        EventKind::CallMade { call, .. }
        | EventKind::StreamOpened { call }
        | EventKind::Sent { call, .. }
        | EventKind::Received { call, .. }
        | EventKind::InputEnded { call, .. }
        | EventKind::CallEnded { call, .. }
        | EventKind::HandlerStarted { call, .. }
        | EventKind::HandlerEnded { call, .. }
        | EventKind::LockRequested { call, .. }
        | EventKind::LockGranted { call, .. }
        | EventKind::LockFailed { call, .. }
        | EventKind::LockLost { call, .. }
        | EventKind::LockEnded { call, .. }
        | EventKind::LockForced { call, .. }
        | EventKind::StoreRequested { call, .. }
        | EventKind::StoreReached { call, .. }
        | EventKind::StoreCompleted { call, .. } => Some(*call),
        EventKind::MessageSent { message, .. } => message.call,
        _ => None,
    }
}

/// Returns the key of a call on the wire. Both ends of a connection assign mux ids, so the caller
/// is part of the key (P9).
fn mux_key(events: &[Event], arrow: &Arrow) -> Option<(SocketId, Node, u64)> {
    let EventKind::MessageSent { socket, message, .. } = &events[arrow.sent].kind else {
        return None;
    };
    let caller = if is_from_caller(message) { Some(arrow.from) } else { arrow.to };
    (message.mux_id != 0).then_some((*socket, caller?, message.mux_id))
}

fn is_from_caller(message: &MessageSummary) -> bool {
    const CALLERS: [&str; 6] =
        ["Request", "ConnectMux", "MuxClientMsg", "DisconnectServerMux", "UnblockSrvMux", "Ping"];
    CALLERS.contains(&message.op.as_str())
}

/// Returns a bar for each end of each call, and for each lock while it is waited for and held.
fn bars(events: &[Event]) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let mut open: BTreeMap<(Node, CallId, BarSide), usize> = BTreeMap::new();
    let mut streams: BTreeMap<CallId, bool> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        let Some(node) = event.node else { continue };
        if let EventKind::CallMade { call, kind, .. } = &event.kind {
            streams.insert(*call, *kind == CallKind::Stream);
        }
        if let Some((call, side, tone)) = ended_by(&event.kind)
            && let Some(bar) = open.remove(&(node, call, side))
        {
            bars[bar].end = Some(index);
            bars[bar].tone = tone;
        }
        if let Some((call, side)) = started_by(&event.kind) {
            open.insert((node, call, side), bars.len());
            let stream = streams.get(&call).copied().unwrap_or(false);
            let (start, tone) = (index, Tone::Open);
            bars.push(Bar { call, node, side, start, end: None, stream, tone });
        }
    }
    bars
}

/// Returns the call that begins with this event, and at which end. A waiter for a lock counts as
/// its caller, drawn above the wire; a holder is drawn below it.
fn started_by(kind: &EventKind) -> Option<(CallId, BarSide)> {
    match kind {
        EventKind::CallMade { call, .. } | EventKind::LockRequested { call, .. } => {
            Some((*call, BarSide::Caller))
        }
        EventKind::HandlerStarted { call, .. } | EventKind::LockGranted { call, .. } => {
            Some((*call, BarSide::Callee))
        }
        _ => None,
    }
}

/// Returns the call that ends with this event, at which end, and how.
fn ended_by(kind: &EventKind) -> Option<(CallId, BarSide, Tone)> {
    match kind {
        EventKind::CallEnded { call, outcome } => Some((*call, BarSide::Caller, Tone::of(outcome))),
        EventKind::LockGranted { call, .. } => Some((*call, BarSide::Caller, Tone::Success)),
        EventKind::LockFailed { call, failure } => {
            Some((*call, BarSide::Caller, Tone::of_failure(failure)))
        }
        EventKind::HandlerEnded { call, how } => {
            Some((*call, BarSide::Callee, Tone::of_handler(*how)))
        }
        EventKind::LockEnded { call, how } => Some((*call, BarSide::Callee, Tone::of_lock(*how))),
        _ => None,
    }
}

impl Tone {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Success,
            Outcome::WrongResponse { .. } => Self::Wrong,
            Outcome::RemoteError { .. }
            | Outcome::UnknownHandler
            | Outcome::StreamFailed { .. } => Self::Failed,
            Outcome::Refused { .. } | Outcome::NotConnected | Outcome::NotMade { .. } => {
                Self::Refused
            }
            Outcome::Disconnected | Outcome::Crashed => Self::Lost,
            Outcome::Deadline => Self::Expired,
            Outcome::Cancelled => Self::Cancelled,
        }
    }

    fn of_failure(failure: &LockFailure) -> Self {
        match failure {
            LockFailure::TimedOut => Self::Expired,
            LockFailure::Cancelled => Self::Cancelled,
            LockFailure::ShuttingDown | LockFailure::NotAttempted { .. } => Self::Refused,
            LockFailure::Lost | LockFailure::Crashed => Self::Lost,
        }
    }

    fn of_lock(how: LockEnd) -> Self {
        match how {
            LockEnd::Unlocked => Self::Success,
            LockEnd::Dropped => Self::Cancelled,
            LockEnd::Lost | LockEnd::Crashed => Self::Lost,
        }
    }

    fn of_handler(how: HandlerEnd) -> Self {
        match how {
            HandlerEnd::Returned => Self::Success,
            HandlerEnd::Failed | HandlerEnd::Panicked => Self::Failed,
            HandlerEnd::Cancelled => Self::Cancelled,
            HandlerEnd::Crashed => Self::Lost,
        }
    }
}

/// Returns every state of every connection. A stopped process has none, nor has a starting one.
fn state_spans(events: &[Event]) -> Vec<StateSpan> {
    let mut state_spans: Vec<StateSpan> = Vec::new();
    let mut current: BTreeMap<(Node, Node), usize> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        if let (&EventKind::State { remote, .. }, Some(node)) = (&event.kind, event.node) {
            let before = current.insert((node, remote), state_spans.len());
            if let Some(before) = before {
                state_spans[before].end = Some(index);
            }
            state_spans.push(StateSpan { node, remote, start: index, end: None });
        } else if let Some(node) = replaced_process(event) {
            let gone = current.extract_if(.., |(at, _), _| *at == node);
            gone.for_each(|(_, span)| state_spans[span].end = Some(index));
        }
    }
    state_spans
}

/// Returns the node whose process starts or fails with this event.
fn replaced_process(event: &Event) -> Option<Node> {
    match &event.kind {
        EventKind::Started { .. } => event.node,
        EventKind::Fault { fault } => match fault.effect() {
            Effect::NodeFails { node } => Some(node),
            _ => None,
        },
        _ => None,
    }
}
