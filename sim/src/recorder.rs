//! The event log that all nodes of a run write to, in one order.
//!
//! A run has one thread, so the order in which events are recorded is that of the simulation. When
//! a node loses power, its tasks are dropped in an order that depends on the process (tokio's task
//! ids). The node is therefore muted first, and the ends of its calls, handlers and sockets are
//! recorded here, in the order of their numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use grid::sync::{Mutex, MutexGuard};

use crate::event::{
    CallId, Event, EventKind, HandlerEnd, IamEvent, LockEnd, LockFailure, Outcome, SocketId,
    StoreResult,
};
use crate::plan::Node;

/// The log of a run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    now_ms: Arc<AtomicU64>,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<Event>,
    outstanding: BTreeMap<Node, Outstanding>,
    sockets: Sockets,
}

/// Calls, handlers, sockets, locks and changes that are outstanding on a node.
#[derive(Debug, Default)]
struct Outstanding {
    calls: BTreeSet<CallId>,
    handlers: BTreeSet<CallId>,
    sockets: BTreeSet<SocketId>,
    locks: BTreeMap<CallId, LockPhase>,
    changes: BTreeSet<CallId>,
}

/// The phase of an outstanding lock.
#[derive(Debug)]
enum LockPhase {
    Requested,
    Granted {
        /// The register that an operation in flight uses.
        at_store: Option<u8>,
    },
}

impl Outstanding {
    fn apply(&mut self, kind: &EventKind) {
        match kind {
            EventKind::CallMade { call, .. } => drop(self.calls.insert(*call)),
            EventKind::CallEnded { call, .. } => drop(self.calls.remove(call)),
            EventKind::HandlerStarted { call, .. } => drop(self.handlers.insert(*call)),
            EventKind::HandlerEnded { call, .. } => drop(self.handlers.remove(call)),
            EventKind::SocketOpened { socket, .. } => drop(self.sockets.insert(*socket)),
            EventKind::SocketClosed { socket } => drop(self.sockets.remove(socket)),
            EventKind::LockRequested { call, .. } => {
                self.locks.insert(*call, LockPhase::Requested);
            }
            EventKind::LockGranted { call, .. } | EventKind::StoreCompleted { call, .. } => {
                self.locks.insert(*call, LockPhase::Granted { at_store: None });
            }
            EventKind::StoreRequested { call, resource, .. } => {
                self.locks.insert(*call, LockPhase::Granted { at_store: Some(*resource) });
            }
            EventKind::LockFailed { call, .. } | EventKind::LockEnded { call, .. } => {
                self.locks.remove(call);
            }
            EventKind::Iam(IamEvent::Requested { call, .. }) => drop(self.changes.insert(*call)),
            EventKind::Iam(IamEvent::Changed { call, .. } | IamEvent::Refused { call, .. }) => {
                self.changes.remove(call);
            }
            _ => {}
        }
    }
}

impl LockPhase {
    /// Returns the events that a crash of its process causes.
    fn crashed(self, call: CallId) -> Vec<EventKind> {
        match self {
            Self::Requested => vec![EventKind::LockFailed { call, failure: LockFailure::Crashed }],
            Self::Granted { at_store } => {
                let result = StoreResult::Unknown;
                let interrupted =
                    at_store.map(|resource| EventKind::StoreCompleted { call, resource, result });
                let ended = EventKind::LockEnded { call, how: LockEnd::Crashed };
                interrupted.into_iter().chain([ended]).collect()
            }
        }
    }
}

/// Numbers of TCP connections, which both ends find by the dialer's address.
#[derive(Debug, Default)]
struct Sockets {
    next: SocketId,
    by_dialer: BTreeMap<std::net::SocketAddr, SocketId>,
}

impl Recorder {
    /// Returns the simulated time at the start of the current tick, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock()
    }

    /// Records an event of the network or of the whole run.
    pub fn record(&self, kind: EventKind) {
        let at_ms = self.now_ms();
        self.log().events.push(Event { at_ms, node: None, kind });
    }

    /// Takes all events recorded so far.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.log().events)
    }

    /// Returns how many calls, streams, locks and changes are outstanding at their callers, and how
    /// many handlers run.
    pub fn outstanding(&self) -> (usize, usize) {
        let log = self.log();
        let sum = |count: fn(&Outstanding) -> usize| log.outstanding.values().map(count).sum();
        (
            sum(|node| node.calls.len() + node.locks.len() + node.changes.len()),
            sum(|node| node.handlers.len()),
        )
    }

    /// Returns how many ends of TCP connections are open on `node`.
    pub fn open_sockets(&self, node: Node) -> usize {
        self.log().outstanding.get(&node).map_or(0, |outstanding| outstanding.sockets.len())
    }

    /// Creates the recorder of one incarnation of `node`.
    pub(crate) fn for_node(&self, node: Node) -> NodeRecorder {
        NodeRecorder { recorder: self.clone(), node, is_alive: Arc::new(AtomicBool::new(true)) }
    }

    /// Records the end of everything that was outstanding on `node`, which has lost power.
    pub(crate) fn crashed(&self, node: Node) {
        let at_ms = self.now_ms();
        let mut log = self.log();
        let outstanding = log.outstanding.remove(&node).unwrap_or_default();
        let Outstanding { calls, handlers, sockets, locks, changes } = outstanding;
        let handlers = handlers
            .into_iter()
            .map(|call| EventKind::HandlerEnded { call, how: HandlerEnd::Crashed });
        let calls =
            calls.into_iter().map(|call| EventKind::CallEnded { call, outcome: Outcome::Crashed });
        let sockets = sockets.into_iter().map(|socket| EventKind::SocketClosed { socket });
        let locks = locks.into_iter().flat_map(|(call, phase)| phase.crashed(call));
        let changes = changes.into_iter().map(|call| {
            EventKind::Iam(IamEvent::Refused { call, text: "its process crashed".to_owned() })
        });
        let events = handlers.chain(calls).chain(sockets).chain(locks).chain(changes);
        log.events.extend(events.map(|kind| Event { at_ms, node: Some(node), kind }));
    }
}

/// Records the events of one incarnation of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeRecorder {
    recorder: Recorder,
    node: Node,
    is_alive: Arc<AtomicBool>,
}

impl NodeRecorder {
    /// Returns the node.
    pub fn node(&self) -> Node {
        self.node
    }

    /// Returns the simulated time, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.recorder.now_ms()
    }

    /// Discards everything that this incarnation records from here on.
    pub(crate) fn mute(&self) {
        self.is_alive.store(false, Ordering::Relaxed);
    }

    /// Records an event of this node.
    pub fn record(&self, kind: EventKind) {
        if !self.is_alive.load(Ordering::Relaxed) {
            return;
        }
        let at_ms = self.recorder.now_ms();
        let mut log = self.recorder.log();
        log.outstanding.entry(self.node).or_default().apply(&kind);
        log.events.push(Event { at_ms, node: Some(self.node), kind });
    }

    /// Records that one end of a TCP connection is open; `dialer` is the address of its dialing
    /// end.
    pub(crate) fn open_socket(
        &self,
        dialer: std::net::SocketAddr,
        remote: Node,
        dialed: bool,
    ) -> SocketId {
        let socket = {
            // Either end may be the first to open; the second one takes the number of the first.
            let sockets = &mut self.recorder.log().sockets;
            sockets.by_dialer.remove(&dialer).unwrap_or_else(|| {
                sockets.next += 1;
                sockets.by_dialer.insert(dialer, sockets.next);
                sockets.next
            })
        };
        self.record(EventKind::SocketOpened { socket, remote, dialed });
        socket
    }
}
