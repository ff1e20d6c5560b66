//! A node as the software on it sees it.

use std::sync::Arc;
use std::time::Duration;

use grid::Manager;
use grid::env::Env;
use iam_bootstrap::store::MemoryStore;

use crate::clock::NodeClock;
use crate::event::CallId;
use crate::gate::Gate;
use crate::iam::IamSlot;
use crate::lock::{LockSlot, Protected};
use crate::node::Node;
use crate::recorder::NodeRecorder;

/// A node from inside: everything that software on it may use.
#[derive(Debug, Clone)]
pub struct Host {
    /// The node.
    pub node: Node,
    /// Number of nodes in the cluster.
    pub nodes: u8,
    /// The node's manager.
    pub manager: Manager,
    /// What its software takes from its surroundings: the node's clocks and its source of
    /// randomness, which the manager shares.
    pub env: Env,
    /// The node's clocks, with the skew and drift that the run sets.
    pub clock: NodeClock,
    /// The recorder of this incarnation.
    pub recorder: NodeRecorder,
    /// Seed for everything random on this node; it differs for each incarnation.
    pub seed: u64,
    /// Closed while the process is paused: applications wait here before each step.
    pub gate: Gate,
    /// Open once the process shuts down.
    pub ending: Gate,
    /// Open once all faults are healed.
    pub healed: Gate,
    /// Slot for the lock client that the load uses.
    pub locks: LockSlot,
    /// Slot for the replica of users, policies and mappings that the load changes.
    pub iam: IamSlot,
    /// The pools of this node, which its successive processes share.
    pub pools: Vec<MemoryStore>,
    pub(crate) protected: Protected,
}

impl Host {
    /// Returns whether the holder of a lock sees `is_held()` now.
    pub(crate) fn sees_held(&self, call: CallId) -> bool {
        let now = Duration::from_millis(self.recorder.now_ms());
        self.protected.holds.is_held(call, now)
    }
}

/// Software that nodes run besides the load: that of a storage server.
pub trait Software: Send + Sync {
    /// Installs the software on a new incarnation of a node, before its manager starts: registers
    /// handlers, spawns tasks.
    ///
    /// # Errors
    ///
    /// The error that keeps the node from starting; it fails the run.
    fn install(&self, host: &Host) -> Result<(), Box<dyn std::error::Error>>;
}

/// No software besides the load.
impl Software for () {
    fn install(&self, _host: &Host) -> Result<(), Box<dyn std::error::Error>> {
        Ok(())
    }
}

/// Several pieces of software, installed in order.
impl Software for Vec<Arc<dyn Software>> {
    fn install(&self, host: &Host) -> Result<(), Box<dyn std::error::Error>> {
        self.iter().try_for_each(|software| software.install(host))
    }
}
