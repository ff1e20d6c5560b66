//! What all tasks of one manager share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{mpsc, watch};

use crate::auth::Auth;
use crate::buggify::Rare;
use crate::handler::Registry;
use crate::limits::Limits;
use crate::name::Name;
use crate::net::log_throttle::LogThrottle;
use crate::net::remote_task::AcceptedConnection;
use crate::net::transport::Transport;
use crate::proto::handshake::InstanceId;
use crate::shared::{ClockHandle, SharedRef};
use crate::trace::Tracer;

/// Everything but the handles, so that the last handle can end it.
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
    pub(crate) log_throttle: LogThrottle,
    /// Whether something rare is to happen; never, in a server.
    pub(crate) rare: Rare,
    pub(crate) remotes: BTreeMap<Name, Remote>,
    pub(crate) unauthenticated: AtomicUsize,
    pub(crate) phase: AtomicU8,
    /// Whether everything must end.
    pub(crate) shutdown: watch::Sender<bool>,
    /// Remotes whose task runs.
    pub(crate) live_peers: watch::Sender<usize>,
}

/// What a manager is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Not started: nobody would drive a connection.
    Built,
    Started,
    /// Takes no new calls and no new connections.
    Ending,
}

/// One remote, as accepting ends and handles see it.
pub(crate) struct Remote {
    pub(crate) shared: SharedRef,
    /// To the remote's task.
    pub(crate) accepted: mpsc::Sender<AcceptedConnection>,
    pub(crate) next_order: AtomicU64,
}

impl ManagerState {
    pub(crate) fn find_remote(&self, host: &str) -> Option<Name> {
        self.remotes.keys().find(|name| name.as_str() == host).cloned()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Built as u8 => Phase::Built,
            phase if phase == Phase::Started as u8 => Phase::Started,
            _ => Phase::Ending,
        }
    }

    /// Goes on to `phase`, unless a later one is reached already.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Takes no new calls, finishes those under way (B09).
    pub(crate) fn drain(&self) {
        self.enter(Phase::Ending);
        for remote in self.remotes.values() {
            remote.shared.drain();
        }
    }

    /// Ends everything now.
    pub(crate) fn end(&self) {
        self.enter(Phase::Ending);
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
