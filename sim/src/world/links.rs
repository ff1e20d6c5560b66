//! What each link between two nodes should be like, and turmoil made to follow.
//!
//! turmoil knows how to cut, hold and repair; not what was asked for before. It is needed: a power
//! loss cuts a node off for a moment, and must leave its links as they were.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use turmoil::Sim;

use crate::plan::{Cluster, Node};

/// The links of a cluster. Absent is open.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<(Node, Node), Link>);

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

/// The name of a node in turmoil.
pub(super) fn host(node: Node) -> String {
    node.to_string()
}

impl Links {
    pub(super) fn cut(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        self.0.insert(pair(a, b), Link::Cut);
        sim.partition(host(a), host(b));
    }

    pub(super) fn cut_one_way(&mut self, sim: &Sim<'_>, from: Node, to: Node) {
        let link = match self.0.get(&pair(from, to)) {
            Some(Link::Cut) => return,
            Some(Link::CutOneWay(earlier, _)) if *earlier != from => Link::Cut,
            // turmoil cannot hold one direction and cut the other.
            Some(Link::Held) => {
                sim.release(host(from), host(to));
                Link::CutOneWay(from, to)
            }
            Some(Link::CutOneWay(..)) | None => Link::CutOneWay(from, to),
        };
        self.0.insert(pair(from, to), link);
        sim.partition_oneway(host(from), host(to));
    }

    /// Holds what travels. A link that is cut stays as it is.
    pub(super) fn hold(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        if let Entry::Vacant(open) = self.0.entry(pair(a, b)) {
            open.insert(Link::Held);
            sim.hold(host(a), host(b));
        }
    }

    pub(super) fn mend(&mut self, sim: &Sim<'_>, a: Node, b: Node) {
        match self.0.remove(&pair(a, b)) {
            Some(Link::Held) => sim.release(host(a), host(b)),
            Some(Link::Cut | Link::CutOneWay(..)) => sim.repair(host(a), host(b)),
            None => {}
        }
    }

    /// Cuts a node off from all others, without a change to what its links should be like.
    pub(super) fn isolate(&self, sim: &Sim<'_>, node: Node, nodes: u8) {
        for other in (0..nodes).map(Node).filter(|other| *other != node) {
            sim.partition(host(node), host(other));
        }
    }

    /// Undoes [`isolate`](Self::isolate).
    pub(super) fn restore(&self, sim: &Sim<'_>, node: Node, nodes: u8) {
        for other in (0..nodes).map(Node).filter(|other| *other != node) {
            let (a, b) = (host(node), host(other));
            match self.0.get(&pair(node, other)) {
                Some(Link::Cut) => {}
                Some(Link::CutOneWay(from, to)) => {
                    sim.repair(a, b);
                    sim.partition_oneway(host(*from), host(*to));
                }
                Some(Link::Held) => sim.hold(a, b),
                None => sim.repair(a, b),
            }
        }
    }

    /// All pairs that are not open.
    pub(super) fn in_trouble(&self) -> Vec<(Node, Node)> {
        self.0.keys().copied().collect()
    }
}

/// Gives a link its usual latency back.
pub(super) fn usual_latency(sim: &Sim<'_>, cluster: &Cluster, a: Node, b: Node) {
    sim.set_link_latency(host(a), host(b), Duration::from_millis(cluster.latency_min_ms));
    let max = Duration::from_millis(cluster.latency_max_ms);
    sim.set_link_max_message_latency(host(a), host(b), max);
}
