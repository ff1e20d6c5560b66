//! What faults are applied to: the operations on a cluster from which faults are made.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::ClockWhilePaused;

/// A cluster, as faults see it. `World` implements it.
pub(crate) trait Target {
    /// Cuts the link between two nodes.
    fn cut(&mut self, a: Node, b: Node);

    /// Cuts one direction of a link.
    fn cut_one_way(&mut self, from: Node, to: Node);

    /// Holds all segments between two nodes. A link that is cut stays cut.
    fn hold(&mut self, a: Node, b: Node);

    /// Sets the latency of the link between two nodes.
    fn set_latency(&mut self, a: Node, b: Node, latency: Duration);

    /// Repairs the link between two nodes: held segments arrive, and latency is as usual.
    fn repair(&mut self, a: Node, b: Node);

    /// Repairs all links that are cut or held.
    fn repair_all(&mut self);

    /// Restores the usual latency of all links.
    fn restore_latencies(&mut self);

    /// Ends the process of a node without notice to its peers.
    fn power_off(&mut self, node: Node);

    /// Starts a node that is off.
    fn power_on(&mut self, node: Node);

    /// Starts all nodes that are off.
    fn power_on_all(&mut self);

    /// Shuts the process of a node down cleanly, and starts it again.
    fn bounce(&mut self, node: Node, grace: Duration);

    /// Pauses the process of a node.
    fn pause(&mut self, node: Node);

    /// Resumes the process of a node.
    fn resume(&mut self, node: Node, clock: ClockWhilePaused);

    /// Resumes all paused processes; their clocks ran during the pause.
    fn resume_all(&mut self);

    /// Sets the offset of a node's wall clock, in milliseconds.
    fn set_skew(&mut self, node: Node, ms: i64);

    /// Corrects the wall clocks of all nodes.
    fn correct_wall_clocks(&mut self);

    /// Sets the rate of a node's clocks, as a deviation in parts per million.
    fn set_drift(&mut self, node: Node, ppm: i32);

    /// Makes the clocks of all nodes run at the right rate.
    fn correct_drifts(&mut self);

    /// Makes a pool of a node unusable, or usable again.
    fn set_outage(&mut self, node: Node, pool: u8, outage: Option<Outage>);

    /// Makes the pools of all nodes usable.
    fn restore_pools(&mut self);
}

/// Why a pool is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// It reports that it is not initialised yet.
    NotInitialised,
    /// It reports that it is offline.
    Unavailable,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotInitialised => "not initialised",
            Self::Unavailable => "unavailable",
        })
    }
}
