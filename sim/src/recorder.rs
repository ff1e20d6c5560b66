//! Where all nodes of a run write down what happens, in one order.
//!
//! A run has one thread, so the order in which events are written is that of the simulation. When a
//! node loses its power its tasks are dropped in an order that depends on the process (tokio's task
//! ids), so it is muted before, and what died with it is written down here, in the order of its
//! numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::{
    CallId, Event, HandlerEnd, IamEvent, LockEnd, LockFailure, Outcome, SocketId, StoreResult, What,
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
    live: BTreeMap<Node, Live>,
    sockets: Sockets,
}

/// What is under way on a node.
#[derive(Debug, Default)]
struct Live {
    calls: BTreeSet<CallId>,
    handlers: BTreeSet<CallId>,
    sockets: BTreeSet<SocketId>,
    locks: BTreeMap<CallId, Lock>,
    changes: BTreeSet<CallId>,
}

/// How far a lock has come.
#[derive(Debug)]
enum Lock {
    Asked,
    Granted {
        /// The register on which an operation is under way.
        at_store: Option<u8>,
    },
}

impl Live {
    fn see(&mut self, what: &What) {
        match what {
            What::CallMade { call, .. } => drop(self.calls.insert(*call)),
            What::CallEnded { call, .. } => drop(self.calls.remove(call)),
            What::HandlerStarted { call, .. } => drop(self.handlers.insert(*call)),
            What::HandlerEnded { call, .. } => drop(self.handlers.remove(call)),
            What::SocketOpened { socket, .. } => drop(self.sockets.insert(*socket)),
            What::SocketClosed { socket } => drop(self.sockets.remove(socket)),
            What::LockAsked { call, .. } => drop(self.locks.insert(*call, Lock::Asked)),
            What::LockGranted { call, .. } | What::StoreAnswered { call, .. } => {
                self.locks.insert(*call, Lock::Granted { at_store: None });
            }
            What::StoreAsked { call, resource, .. } => {
                self.locks.insert(*call, Lock::Granted { at_store: Some(*resource) });
            }
            What::LockFailed { call, .. } | What::LockEnded { call, .. } => {
                self.locks.remove(call);
            }
            What::Iam(IamEvent::Asked { call, .. }) => drop(self.changes.insert(*call)),
            What::Iam(IamEvent::Changed { call, .. } | IamEvent::Refused { call, .. }) => {
                self.changes.remove(call);
            }
            _ => {}
        }
    }
}

impl Lock {
    /// What its process's crash does to it.
    fn crashed(self, call: CallId) -> Vec<What> {
        match self {
            Self::Asked => vec![What::LockFailed { call, failure: LockFailure::Crashed }],
            Self::Granted { at_store } => {
                let result = StoreResult::Unknown;
                let asked = at_store.map(|resource| What::StoreAnswered { call, resource, result });
                let ended = What::LockEnded { call, how: LockEnd::Crashed };
                asked.into_iter().chain([ended]).collect()
            }
        }
    }
}

/// Numbers of TCP connections, which both ends find by the dialler's address.
#[derive(Debug, Default)]
struct Sockets {
    next: SocketId,
    by_dialler: BTreeMap<std::net::SocketAddr, SocketId>,
}

impl Recorder {
    /// The simulated time, in milliseconds: the beginning of the current tick.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what happens to the network, or to all.
    pub fn record(&self, what: What) {
        let at_ms = self.now_ms();
        self.log().events.push(Event { at_ms, node: None, what });
    }

    /// All events, leaving none.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.log().events)
    }

    /// Calls, streams and locks that are under way, for whoever made them and whoever serves them.
    pub fn live(&self) -> (usize, usize) {
        let log = self.log();
        let sum = |count: fn(&Live) -> usize| log.live.values().map(count).sum();
        (
            sum(|live| live.calls.len() + live.locks.len() + live.changes.len()),
            sum(|live| live.handlers.len()),
        )
    }

    /// Ends of TCP connections that are open on `node`.
    pub fn open_sockets(&self, node: Node) -> usize {
        self.log().live.get(&node).map_or(0, |live| live.sockets.len())
    }

    /// The pen of one incarnation of `node`.
    pub(crate) fn pen(&self, node: Node) -> Pen {
        Pen { recorder: self.clone(), node, is_alive: Arc::new(AtomicBool::new(true)) }
    }

    /// `node` has lost its power: everything on it is over.
    pub(crate) fn crashed(&self, node: Node) {
        let at_ms = self.now_ms();
        let mut log = self.log();
        let live = log.live.remove(&node).unwrap_or_default();
        let Live { calls, handlers, sockets, locks, changes } = live;
        let handlers =
            handlers.into_iter().map(|call| What::HandlerEnded { call, how: HandlerEnd::Crashed });
        let calls =
            calls.into_iter().map(|call| What::CallEnded { call, outcome: Outcome::Crashed });
        let sockets = sockets.into_iter().map(|socket| What::SocketClosed { socket });
        let locks = locks.into_iter().flat_map(|(call, lock)| lock.crashed(call));
        let changes = changes.into_iter().map(|call| {
            What::Iam(IamEvent::Refused { call, text: "its process crashed".to_owned() })
        });
        let events = handlers.chain(calls).chain(sockets).chain(locks).chain(changes);
        log.events.extend(events.map(|what| Event { at_ms, node: Some(node), what }));
    }
}

/// Writes down what one incarnation of a node does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pen {
    recorder: Recorder,
    node: Node,
    is_alive: Arc<AtomicBool>,
}

impl Pen {
    /// The node.
    pub fn node(&self) -> Node {
        self.node
    }

    /// The simulated time, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.recorder.now_ms()
    }

    /// Nothing that this incarnation does counts from here on.
    pub(crate) fn mute(&self) {
        self.is_alive.store(false, Ordering::Relaxed);
    }

    /// Writes down what happens on this node.
    pub fn record(&self, what: What) {
        if !self.is_alive.load(Ordering::Relaxed) {
            return;
        }
        let at_ms = self.recorder.now_ms();
        let mut log = self.recorder.log();
        log.live.entry(self.node).or_default().see(&what);
        log.events.push(Event { at_ms, node: Some(self.node), what });
    }

    /// Opens one end of a TCP connection; `dialler` is the address of its dialling end.
    pub(crate) fn open_socket(
        &self,
        dialler: std::net::SocketAddr,
        remote: Node,
        dialled: bool,
    ) -> SocketId {
        let socket = {
            // Either end may be the first to know of the connection; the second takes its number.
            let sockets = &mut self.recorder.log().sockets;
            sockets.by_dialler.remove(&dialler).unwrap_or_else(|| {
                sockets.next += 1;
                sockets.by_dialler.insert(dialler, sockets.next);
                sockets.next
            })
        };
        self.record(What::SocketOpened { socket, remote, dialled });
        socket
    }
}
