//! What faults disturb, as the rest of the simulation accounts for it.

use serde::{Deserialize, Serialize};

use crate::node::Node;

/// What a fault changes in the cluster.
///
/// `LinkHealth`, from which the bounds of the invariants count, matches all effects: a new one does
/// not compile there until it is decided what it excuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Messages between two nodes are lost or held, at least from the first to the second: their
    /// connection is not expected to work. The swarm floods such links.
    LinkFails {
        /// A node whose messages do not arrive.
        from: Node,
        /// The node at which they do not arrive.
        to: Node,
    },
    /// Messages between two nodes are late: their connection is not expected to work.
    LinkSlows {
        /// One end of the link.
        a: Node,
        /// The other end.
        b: Node,
    },
    /// The link between two nodes works again.
    LinkRecovers {
        /// One end of the link.
        a: Node,
        /// The other end.
        b: Node,
    },
    /// A node's process ends without notice: everything that was outstanding on it is lost.
    NodeFails {
        /// The node.
        node: Node,
    },
    /// A node's process shuts down cleanly and starts again.
    NodeRestarts {
        /// The node.
        node: Node,
    },
    /// A node that is off is about to start. Its start is an event of its own, and ends the outage.
    NodeStarts {
        /// The node.
        node: Node,
    },
    /// A node's process stands still.
    ProcessPauses {
        /// The node.
        node: Node,
    },
    /// A paused process continues. If its clocks were frozen, its locks are exempt from mutual
    /// exclusion.
    ProcessResumes {
        /// The node.
        node: Node,
        /// Behaviour of its clocks during the pause.
        clock: ClockWhilePaused,
    },
    /// A node's wall clock changes. If it is off by more than grid accepts, the node's connections
    /// are not expected to work.
    WallClockChanges {
        /// The node.
        node: Node,
        /// Offset in milliseconds; ahead if positive.
        ms: i64,
    },
    /// A node's clocks run at another rate: all time bounds of the run include the difference.
    ClockRateChanges {
        /// The node.
        node: Node,
        /// Deviation in parts per million; fast if positive.
        ppm: i32,
    },
    /// A pool of a node becomes unusable.
    PoolFails {
        /// The node.
        node: Node,
        /// Index of the pool.
        pool: u8,
    },
    /// A pool of a node becomes usable.
    PoolRecovers {
        /// The node.
        node: Node,
        /// Index of the pool.
        pool: u8,
    },
}

/// Which periods begin and end with a fault in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanChange {
    /// None: the fault is instantaneous, and drawn as an event only.
    None,
    /// A period in which a link is faulty begins, in the lanes of both nodes.
    LinkFails(Node, Node),
    /// All periods in which the link is faulty end.
    LinkRecovers(Node, Node),
    /// A period in which a node is off begins. Its process is not paused any more.
    NodeStops(Node),
    /// The period in which a node is off ends.
    NodeStarts(Node),
    /// A period in which a process is paused begins.
    ProcessPauses(Node),
    /// The period in which a process is paused ends.
    ProcessResumes(Node),
}

/// Behaviour of a process's clocks while it is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockWhilePaused {
    /// They ran, as under SIGSTOP: the process can read at once how long it was paused.
    Ran,
    /// They were frozen, as in a suspended virtual machine: no clock shows that time has passed.
    Frozen,
}
