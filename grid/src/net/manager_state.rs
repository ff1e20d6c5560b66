//! The state that all tasks of one manager share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{mpsc, watch};

use super::transport::Transport;
use super::websocket::WebSocket;
use crate::auth::Auth;
use crate::buggify::FaultInjector;
use crate::handler::Registry;
use crate::limits::Limits;
use crate::log_limit::{LogDecision, LogLimiter};
use crate::name::Name;
use crate::proto::handshake::InstanceId;
use crate::shared::{ClockHandle, SharedRef};
use crate::sync::Mutex;
use crate::trace::Tracer;

/// A manager without its handles: tasks hold this, so that dropping the last handle can end them.
pub(crate) struct ManagerState {
    pub(crate) local: Name,
    pub(crate) path: String,
    pub(crate) instance: InstanceId,
    pub(crate) limits: Limits,
    pub(crate) clock: ClockHandle,
    pub(crate) auth: Auth,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) log_limiter: Mutex<LogLimiter>,
    /// Disabled in a server.
    pub(crate) fault_injector: FaultInjector,
    pub(crate) remotes: BTreeMap<Name, RemoteEntry>,
    /// Incoming sockets that have not completed a handshake.
    pub(crate) unauthenticated_sockets: AtomicUsize,
    /// A [`ManagerPhase`].
    pub(crate) phase: AtomicU8,
    /// Set to true when all connections must end.
    pub(crate) shutdown: watch::Sender<bool>,
    /// Number of running [`RemoteTask`](super::remote_task::RemoteTask)s.
    pub(crate) live_remote_tasks: watch::Sender<usize>,
}

/// Life cycle of a manager. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ManagerPhase {
    /// Not started: no task drives connections yet.
    Built,
    Started,
    /// Accepts no new calls and no new connections.
    ShuttingDown,
}

/// One remote, as acceptors and handles use it.
pub(crate) struct RemoteEntry {
    pub(crate) shared: SharedRef,
    /// Hands accepted connections to the remote's task.
    pub(crate) accepted: mpsc::Sender<AcceptedConnection>,
    /// Sequence number of the next incoming dial.
    pub(crate) next_dial_seq: AtomicU64,
}

/// A connection whose handshake the acceptor has completed.
pub(crate) struct AcceptedConnection {
    pub(crate) socket: WebSocket,
    pub(crate) instance: InstanceId,
    /// Sequence number among the dials of this remote. A connection that arrives after one with a
    /// higher number is stale.
    pub(crate) dial_seq: u64,
}

impl ManagerState {
    /// Decides whether to log an event of `key` now: at most one per [`LOG_REPEAT_AFTER`] (B41).
    ///
    /// [`LOG_REPEAT_AFTER`]: crate::limits::LOG_REPEAT_AFTER
    pub(crate) fn log_decision(&self, key: &str) -> LogDecision {
        self.log_limiter.lock().record(key, self.clock.0.now())
    }

    pub(crate) fn find_remote(&self, host: &str) -> Option<Name> {
        self.remotes.keys().find(|name| name.as_str() == host).cloned()
    }

    pub(crate) fn phase(&self) -> ManagerPhase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == ManagerPhase::Built as u8 => ManagerPhase::Built,
            phase if phase == ManagerPhase::Started as u8 => ManagerPhase::Started,
            _ => ManagerPhase::ShuttingDown,
        }
    }

    /// Advances to `phase`, unless a later phase is already reached.
    pub(crate) fn advance_to(&self, phase: ManagerPhase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Refuses new calls; outstanding calls may finish (B09).
    pub(crate) fn drain(&self) {
        self.advance_to(ManagerPhase::ShuttingDown);
        for remote in self.remotes.values() {
            remote.shared.drain();
        }
    }

    /// Ends all connections now.
    pub(crate) fn terminate(&self) {
        self.advance_to(ManagerPhase::ShuttingDown);
        self.shutdown.send_replace(true);
        for remote in self.remotes.values() {
            remote.shared.shutdown();
        }
    }
}

impl fmt::Debug for ManagerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerState")
            .field("local", &self.local)
            .field("remotes", &self.remotes.keys())
            .finish_non_exhaustive()
    }
}
