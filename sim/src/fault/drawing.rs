//! How faults are drawn from a seed.
//!
//! The order of draws is part of what a seed means: another order makes other plans of all seeds.

use std::fmt;

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::draw::{pick, two_nodes};
use crate::node::Node;

use super::Fault;

/// A class of faults that a swarm draws: a fault and its end, or a pattern of several.
#[derive(Clone, Copy)]
pub(crate) struct FaultClass {
    /// Its name.
    pub(crate) name: &'static str,
    /// Draws a member of the class, and adds its faults.
    pub(crate) draw: fn(&mut Drawing<'_>),
}

impl fmt::Debug for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultClass").field(&self.name).finish()
    }
}

/// The faults of a plan while they are drawn.
pub(crate) struct Drawing<'a> {
    pub(crate) rng: &'a mut SmallRng,
    /// Number of nodes in the cluster.
    pub(crate) nodes: u8,
    /// Number of pools of each node.
    pub(crate) pools: u8,
    /// Duration of a lease, in milliseconds.
    pub(crate) lease_ms: u64,
    /// How long the run injects faults, in milliseconds.
    pub(crate) phase_ms: u64,
    /// When the next fault begins, in milliseconds.
    pub(crate) from: u64,
    /// When it ends, in milliseconds.
    pub(crate) to: u64,
    faults: Vec<(u64, Fault)>,
}

impl<'a> Drawing<'a> {
    /// Begins the faults of a cluster of `nodes` nodes, without pools and locks.
    pub(crate) fn new(rng: &'a mut SmallRng, nodes: u8, phase_ms: u64) -> Self {
        let faults = Vec::new();
        Self { rng, nodes, pools: 0, lease_ms: 0, phase_ms, from: 0, to: 0, faults }
    }

    /// Draws one of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        pick(self.rng, choices)
    }

    /// Draws a node.
    pub(crate) fn node(&mut self) -> Node {
        Node(self.rng.random_range(0..self.nodes))
    }

    /// Draws two different nodes. Classes that need only one use the first: all classes of the
    /// general swarm have drawn two since its first seeds.
    pub(crate) fn link(&mut self) -> (Node, Node) {
        two_nodes(self.rng, self.nodes)
    }

    /// Returns all nodes.
    pub(crate) fn all(&self) -> impl Iterator<Item = Node> + use<> {
        (0..self.nodes).map(Node)
    }

    /// Returns all nodes but one.
    pub(crate) fn others(&self, node: Node) -> impl Iterator<Item = Node> + use<> {
        self.all().filter(move |other| *other != node)
    }

    /// Adds a fault at a time in milliseconds.
    pub(crate) fn add(&mut self, at_ms: u64, fault: impl Into<Fault>) {
        self.faults.push((at_ms, fault.into()));
    }

    /// Adds a fault that begins and ends as drawn.
    pub(crate) fn add_lasting(&mut self, begin: impl Into<Fault>, end: impl Into<Fault>) {
        self.add(self.from, begin);
        self.add(self.to, end);
    }

    /// Returns the faults of the phase, in order of time.
    pub(crate) fn finish(mut self) -> Vec<(u64, Fault)> {
        self.faults.retain(|(at, _)| *at < self.phase_ms);
        self.faults.sort_by_key(|(at, _)| *at);
        self.faults
    }
}
