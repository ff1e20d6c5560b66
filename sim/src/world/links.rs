//! The intended state of each link between two nodes, applied to turmoil.
//!
//! turmoil can cut, hold and repair a link, but does not remember the previous state. That state is
//! needed: a power loss isolates a node for a moment, and must leave its links as they were.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turmoil::Sim;

use crate::plan::{Cluster, Node};

/// The links of a cluster.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Faults of links; an absent link is open.
    links: BTreeMap<(Node, Node), LinkFault>,
    /// Nodes whose process is paused. Segments to and from them are held, whatever the state of
    /// their links.
    paused: BTreeSet<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkFault {
    /// All segments are lost.
    Cut,
    /// Segments from the first node to the second are lost.
    CutOneWay(Node, Node),
    /// Segments are held, and none is lost.
    Held,
}

fn pair(a: Node, b: Node) -> (Node, Node) {
    (a.min(b), a.max(b))
}

fn others(node: Node, nodes: u8) -> impl Iterator<Item = Node> {
    (0..nodes).map(Node).filter(move |other| *other != node)
}

/// Returns the name of a node in turmoil.
pub(super) fn host(node: Node) -> String {
    node.to_string()
}

impl Links {
    pub(super) fn cut(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        self.links.insert(pair(a, b), LinkFault::Cut);
        sim.partition(host(a), host(b));
    }

    pub(super) fn cut_one_way(&mut self, sim: &Sim<'_>, from: Node, to: Node) {
        let is_paused = self.is_paused(from, to);
        let link = match self.links.get(&pair(from, to)) {
            Some(LinkFault::Cut) => return,
            Some(LinkFault::CutOneWay(earlier, _)) if *earlier != from => LinkFault::Cut,
            // turmoil cannot hold one direction and cut the other.
            Some(LinkFault::Held) if !is_paused => {
                sim.release(host(from), host(to));
                LinkFault::CutOneWay(from, to)
            }
            Some(LinkFault::Held | LinkFault::CutOneWay(..)) | None => {
                LinkFault::CutOneWay(from, to)
            }
        };
        self.links.insert(pair(from, to), link);
        if is_paused {
            sim.partition(host(from), host(to));
        } else {
            sim.partition_oneway(host(from), host(to));
        }
    }

    /// Holds a link. A link that is cut stays cut.
    pub(super) fn hold(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        if let Entry::Vacant(open) = self.links.entry(pair(a, b)) {
            open.insert(LinkFault::Held);
            sim.hold(host(a), host(b));
        }
    }

    pub(super) fn repair(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        let is_paused = self.is_paused(a, b);
        match self.links.remove(&pair(a, b)) {
            Some(LinkFault::Held) if !is_paused => sim.release(host(a), host(b)),
            Some(LinkFault::Cut | LinkFault::CutOneWay(..)) if is_paused => {
                sim.hold(host(a), host(b));
            }
            Some(LinkFault::Cut | LinkFault::CutOneWay(..)) => sim.repair(host(a), host(b)),
            Some(LinkFault::Held) | None => {}
        }
    }

    /// Holds all segments to and from a node, without a change to the intended state of its links.
    /// turmoil cannot hold one direction and cut the other: a link cut one way is cut both ways.
    pub(super) fn pause(&mut self, sim: &Sim<'_>, node: Node, nodes: u8) {
        self.paused.insert(node);
        for other in others(node, nodes) {
            match self.links.get(&pair(node, other)) {
                Some(LinkFault::CutOneWay(..)) => sim.partition(host(node), host(other)),
                Some(LinkFault::Held) | None => sim.hold(host(node), host(other)),
                Some(LinkFault::Cut) => {}
            }
        }
    }

    /// Undoes [`pause`](Self::pause).
    pub(super) fn resume(&mut self, sim: &Sim<'_>, node: Node, nodes: u8) {
        if !self.paused.remove(&node) {
            return;
        }
        for other in others(node, nodes).filter(|other| !self.paused.contains(other)) {
            match self.links.get(&pair(node, other)) {
                Some(LinkFault::CutOneWay(from, to)) => {
                    sim.repair(host(*from), host(*to));
                    sim.partition_oneway(host(*from), host(*to));
                }
                None => sim.release(host(node), host(other)),
                Some(LinkFault::Cut | LinkFault::Held) => {}
            }
        }
    }

    /// Forgets that `node` was paused, before its links are restored: its process has ended.
    pub(super) fn forget_pause(&mut self, node: Node) {
        self.paused.remove(&node);
    }

    /// Returns the nodes whose process is paused.
    pub(super) fn paused(&self) -> Vec<Node> {
        self.paused.iter().copied().collect()
    }

    fn is_paused(&self, a: Node, b: Node) -> bool {
        self.paused.contains(&a) || self.paused.contains(&b)
    }

    /// Isolates a node from all others, without a change to the intended state of its links.
    pub(super) fn isolate(&self, sim: &Sim<'_>, node: Node, nodes: u8) {
        for other in others(node, nodes) {
            sim.partition(host(node), host(other));
        }
    }

    /// Undoes [`isolate`](Self::isolate).
    pub(super) fn restore(&self, sim: &Sim<'_>, node: Node, nodes: u8) {
        for other in others(node, nodes) {
            let (a, b) = (host(node), host(other));
            match self.links.get(&pair(node, other)) {
                Some(LinkFault::Cut) => {}
                Some(LinkFault::CutOneWay(..)) if self.is_paused(node, other) => {}
                Some(LinkFault::CutOneWay(from, to)) => {
                    sim.repair(a, b);
                    sim.partition_oneway(host(*from), host(*to));
                }
                Some(LinkFault::Held) => sim.hold(a, b),
                None if self.is_paused(node, other) => sim.hold(a, b),
                None => sim.repair(a, b),
            }
        }
    }

    /// Returns all pairs whose link is not open.
    pub(super) fn faulty(&self) -> Vec<(Node, Node)> {
        self.links.keys().copied().collect()
    }
}

/// Restores the usual latency of a link.
pub(super) fn usual_latency(sim: &Sim<'_>, cluster: &Cluster, a: Node, b: Node) {
    sim.set_link_latency(host(a), host(b), Duration::from_millis(cluster.latency_min_ms));
    let max = Duration::from_millis(cluster.latency_max_ms);
    sim.set_link_max_message_latency(host(a), host(b), max);
}
