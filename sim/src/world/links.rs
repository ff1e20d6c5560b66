//! What each link between two nodes should be like, and turmoil made to follow.
//!
//! turmoil knows how to cut, hold and repair; not what was asked for before. It is needed: a power
//! loss cuts a node off for a moment, and must leave its links as they were.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turmoil::Sim;

use crate::plan::{Cluster, Node};

/// The links of a cluster.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Absent is open.
    links: BTreeMap<(Node, Node), Link>,
    /// Nodes whose process is stopped. What travels to and from them waits, whatever their links
    /// are like otherwise.
    stopped: BTreeSet<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Nothing travels.
    Cut,
    /// Nothing travels from the first to the second.
    CutOneWay(Node, Node),
    /// Nothing arrives, and nothing is lost.
    Held,
}

fn pair(a: Node, b: Node) -> (Node, Node) {
    (a.min(b), a.max(b))
}

fn others(node: Node, nodes: u8) -> impl Iterator<Item = Node> {
    (0..nodes).map(Node).filter(move |other| *other != node)
}

/// The name of a node in turmoil.
pub(super) fn host(node: Node) -> String {
    node.to_string()
}

impl Links {
    pub(super) fn cut(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        self.links.insert(pair(a, b), Link::Cut);
        sim.partition(host(a), host(b));
    }

    pub(super) fn cut_one_way(&mut self, sim: &Sim<'_>, from: Node, to: Node) {
        let is_stopped = self.is_stopped(from, to);
        let link = match self.links.get(&pair(from, to)) {
            Some(Link::Cut) => return,
            Some(Link::CutOneWay(earlier, _)) if *earlier != from => Link::Cut,
            // turmoil cannot hold one direction and cut the other.
            Some(Link::Held) if !is_stopped => {
                sim.release(host(from), host(to));
                Link::CutOneWay(from, to)
            }
            Some(Link::Held | Link::CutOneWay(..)) | None => Link::CutOneWay(from, to),
        };
        self.links.insert(pair(from, to), link);
        if is_stopped {
            sim.partition(host(from), host(to));
        } else {
            sim.partition_oneway(host(from), host(to));
        }
    }

    /// Holds what travels. A link that is cut stays as it is.
    pub(super) fn hold(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        if let Entry::Vacant(open) = self.links.entry(pair(a, b)) {
            open.insert(Link::Held);
            sim.hold(host(a), host(b));
        }
    }

    pub(super) fn mend(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        let is_stopped = self.is_stopped(a, b);
        match self.links.remove(&pair(a, b)) {
            Some(Link::Held) if !is_stopped => sim.release(host(a), host(b)),
            Some(Link::Cut | Link::CutOneWay(..)) if is_stopped => sim.hold(host(a), host(b)),
            Some(Link::Cut | Link::CutOneWay(..)) => sim.repair(host(a), host(b)),
            Some(Link::Held) | None => {}
        }
    }

    /// Holds all that travels to and from a node, without a change to what its links should be
    /// like. turmoil cannot hold a direction and cut the other: what is cut one way is cut both
    /// ways.
    pub(super) fn stop(&mut self, sim: &Sim<'_>, node: Node, nodes: u8) {
        self.stopped.insert(node);
        for other in others(node, nodes) {
            match self.links.get(&pair(node, other)) {
                Some(Link::CutOneWay(..)) => sim.partition(host(node), host(other)),
                Some(Link::Held) | None => sim.hold(host(node), host(other)),
                Some(Link::Cut) => {}
            }
        }
    }

    /// Undoes [`stop`](Self::stop).
    pub(super) fn go_on(&mut self, sim: &Sim<'_>, node: Node, nodes: u8) {
        if !self.stopped.remove(&node) {
            return;
        }
        for other in others(node, nodes).filter(|other| !self.stopped.contains(other)) {
            match self.links.get(&pair(node, other)) {
                Some(Link::CutOneWay(from, to)) => {
                    sim.repair(host(*from), host(*to));
                    sim.partition_oneway(host(*from), host(*to));
                }
                None => sim.release(host(node), host(other)),
                Some(Link::Cut | Link::Held) => {}
            }
        }
    }

    /// The process of `node` is gone, and nobody is stopped any more: before its links are
    /// restored.
    pub(super) fn forget_stop(&mut self, node: Node) {
        self.stopped.remove(&node);
    }

    /// Nodes whose process is stopped.
    pub(super) fn stopped(&self) -> Vec<Node> {
        self.stopped.iter().copied().collect()
    }

    fn is_stopped(&self, a: Node, b: Node) -> bool {
        self.stopped.contains(&a) || self.stopped.contains(&b)
    }

    /// Cuts a node off from all others, without a change to what its links should be like.
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
                Some(Link::Cut) => {}
                Some(Link::CutOneWay(..)) if self.is_stopped(node, other) => {}
                Some(Link::CutOneWay(from, to)) => {
                    sim.repair(a, b);
                    sim.partition_oneway(host(*from), host(*to));
                }
                Some(Link::Held) => sim.hold(a, b),
                None if self.is_stopped(node, other) => sim.hold(a, b),
                None => sim.repair(a, b),
            }
        }
    }

    /// All pairs that are not open.
    pub(super) fn in_trouble(&self) -> Vec<(Node, Node)> {
        self.links.keys().copied().collect()
    }
}

/// Gives a link its usual latency back.
pub(super) fn usual_latency(sim: &Sim<'_>, cluster: &Cluster, a: Node, b: Node) {
    sim.set_link_latency(host(a), host(b), Duration::from_millis(cluster.latency_min_ms));
    let max = Duration::from_millis(cluster.latency_max_ms);
    sim.set_link_max_message_latency(host(a), host(b), max);
}
