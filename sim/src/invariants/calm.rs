//! Since when two nodes have had no trouble: what must happen "within a bound" is counted from then.

use std::collections::{BTreeMap, BTreeSet};

use grid::buggify::Point;

use crate::event::{Event, What};
use crate::plan::{Fault, Node, Plan};

/// Trouble that lasts until something ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Link(Node, Node),
    Slow(Node, Node),
    Down(Node),
    Skewed(Node),
    Stranger(Node),
}

/// Keeps account of all trouble.
#[derive(Debug, Default)]
pub struct Calm {
    lasting: BTreeSet<Trouble>,
    last_by_link: BTreeMap<(Node, Node), u64>,
    last_by_node: BTreeMap<Node, u64>,
    skew_max_ms: u64,
}

fn pair(a: Node, b: Node) -> (Node, Node) {
    (a.min(b), a.max(b))
}

impl Calm {
    /// Before anything has happened.
    pub fn new(plan: &Plan, skew_max_ms: u64) -> Self {
        let late = plan.cluster.late.iter().map(|(node, _)| Trouble::Down(*node));
        let strangers = plan.cluster.strangers.iter().map(|node| Trouble::Stranger(*node));
        Self { lasting: late.chain(strangers).collect(), skew_max_ms, ..Self::default() }
    }

    /// Something happened.
    pub fn see(&mut self, event: &Event) {
        let at = event.at_ms;
        match (&event.what, event.node) {
            (What::Fault { fault }, _) => self.see_fault(fault, at),
            (What::Started { .. }, Some(node)) => {
                self.lasting.remove(&Trouble::Down(node));
                self.last_by_node.insert(node, at);
            }
            // Those that end a connection; the others only delay a little.
            (What::Rare { point, lasts_ms }, Some(node))
                if point == Point::Supersede.name() || point == Point::EarlyTimeout.name() =>
            {
                let last = self.last_by_node.entry(node).or_default();
                *last = (*last).max(at + lasts_ms);
            }
            (What::Healed, _) => {
                for trouble in std::mem::take(&mut self.lasting) {
                    match trouble {
                        Trouble::Link(a, b) | Trouble::Slow(a, b) => self.touch(a, b, at),
                        // It starts in a moment, and that will end it.
                        Trouble::Down(_) => drop(self.lasting.insert(trouble)),
                        Trouble::Skewed(node) | Trouble::Stranger(node) => {
                            self.last_by_node.insert(node, at);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn touch(&mut self, a: Node, b: Node, at: u64) {
        self.last_by_link.insert(pair(a, b), at);
    }

    fn see_fault(&mut self, fault: &Fault, at: u64) {
        match *fault {
            Fault::Cut { a, b } | Fault::Hold { a, b } => {
                let (a, b) = pair(a, b);
                self.lasting.insert(Trouble::Link(a, b));
            }
            Fault::CutOneWay { from, to } => {
                let (a, b) = pair(from, to);
                self.lasting.insert(Trouble::Link(a, b));
            }
            Fault::Slow { a, b, .. } => {
                let (a, b) = pair(a, b);
                self.lasting.insert(Trouble::Slow(a, b));
            }
            Fault::Mend { a, b } => {
                let (a, b) = pair(a, b);
                self.lasting.remove(&Trouble::Link(a, b));
                self.lasting.remove(&Trouble::Slow(a, b));
                self.touch(a, b, at);
            }
            Fault::PowerLoss { node } => drop(self.lasting.insert(Trouble::Down(node))),
            Fault::Skew { node, ms } => {
                // Two clocks that are each a little off may be too far apart together.
                if ms.unsigned_abs() > self.skew_max_ms / 2 {
                    self.lasting.insert(Trouble::Skewed(node));
                } else if self.lasting.remove(&Trouble::Skewed(node)) {
                    self.last_by_node.insert(node, at);
                }
            }
            Fault::Bounce { node, .. } => drop(self.lasting.insert(Trouble::Down(node))),
            // What follows a restart is its node's start.
            Fault::Restart { .. } | Fault::Drift { .. } => {}
        }
    }

    /// Since when there was no trouble between two nodes, in simulated milliseconds; `None` if there
    /// is.
    pub fn since(&self, a: Node, b: Node) -> Option<u64> {
        let (a, b) = pair(a, b);
        let concerns = |trouble: &Trouble| match *trouble {
            Trouble::Link(c, d) | Trouble::Slow(c, d) => (a, b) == (c, d),
            Trouble::Down(node) | Trouble::Skewed(node) | Trouble::Stranger(node) => {
                node == a || node == b
            }
        };
        if self.lasting.iter().any(concerns) {
            return None;
        }
        let link = self.last_by_link.get(&(a, b)).copied().unwrap_or(0);
        let node = |node| self.last_by_node.get(&node).copied().unwrap_or(0);
        Some(link.max(node(a)).max(node(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_is_counted_from_the_last_trouble_of_a_pair_or_its_nodes() {
        let plan = Plan::quiet(3);
        let mut calm = Calm::new(&plan, 300_000);
        let (a, b, c) = (Node(0), Node(1), Node(2));
        let see = |calm: &mut Calm, at_ms, node, what| calm.see(&Event { at_ms, node, what });
        assert_eq!(calm.since(a, b), Some(0));
        see(&mut calm, 10, None, What::Fault { fault: Fault::Cut { a: b, b: a } });
        assert_eq!(calm.since(a, b), None);
        assert_eq!(calm.since(a, c), Some(0));
        see(&mut calm, 20, None, What::Fault { fault: Fault::Mend { a, b } });
        assert_eq!(calm.since(b, a), Some(20));
        see(&mut calm, 30, None, What::Fault { fault: Fault::PowerLoss { node: c } });
        assert_eq!(calm.since(a, c), None);
        see(&mut calm, 35, None, What::Healed);
        assert_eq!(calm.since(a, c), None, "it has not started yet");
        see(&mut calm, 40, Some(c), What::Started { incarnation: 2 });
        assert_eq!(calm.since(a, c), Some(40));
        assert_eq!(calm.since(a, b), Some(20));
    }
}
