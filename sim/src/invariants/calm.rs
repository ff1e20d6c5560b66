//! Since when two nodes have had no trouble: what must happen "within a bound" is counted from then.

use std::collections::{BTreeMap, BTreeSet};

use grid::buggify::Point;

use crate::bounds::Bounds;
use crate::event::{Event, EventKind, LinkState};
use crate::plan::{Fault, Node, Plan};

/// Trouble that lasts until something ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Link(Node, Node),
    Slow(Node, Node),
    Down(Node),
    Stopped(Node),
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
    /// When a node was last connected to another, by what it says.
    connected: BTreeMap<(Node, Node), u64>,
    /// Since when a pair has had a connection that was made after its last trouble.
    fresh: BTreeMap<(Node, Node), u64>,
}

fn pair(a: Node, b: Node) -> (Node, Node) {
    (a.min(b), a.max(b))
}

impl Calm {
    /// Before anything has happened.
    pub fn new(plan: &Plan, skew_max_ms: u64) -> Self {
        let late = plan.cluster.late.iter().map(|(node, _)| Trouble::Down(*node));
        let wrong_secret_nodes =
            plan.cluster.wrong_secret_nodes.iter().map(|node| Trouble::Stranger(*node));
        Self { lasting: late.chain(wrong_secret_nodes).collect(), skew_max_ms, ..Self::default() }
    }

    /// Something happened.
    pub fn see(&mut self, event: &Event) {
        let at = event.at_ms;
        match (&event.kind, event.node) {
            (EventKind::Fault { fault }, _) => self.see_fault(fault, at),
            (EventKind::Started { .. }, Some(node)) => {
                self.lasting.remove(&Trouble::Down(node));
                self.last_by_node.insert(node, at);
            }
            // Those that end a connection; the others only delay a little.
            (EventKind::FaultPoint { point, lasts_ms }, Some(node))
                if point == Point::Supersede.name() || point == Point::EarlyTimeout.name() =>
            {
                let last = self.last_by_node.entry(node).or_default();
                *last = (*last).max(at + lasts_ms);
            }
            (EventKind::Healed, _) => {
                for trouble in std::mem::take(&mut self.lasting) {
                    match trouble {
                        Trouble::Link(a, b) | Trouble::Slow(a, b) => self.touch(a, b, at),
                        // It starts in a moment, and that will end it.
                        Trouble::Down(_) => drop(self.lasting.insert(trouble)),
                        Trouble::Skewed(node)
                        | Trouble::Stranger(node)
                        | Trouble::Stopped(node) => {
                            self.last_by_node.insert(node, at);
                        }
                    }
                }
            }
            (EventKind::State { remote, state: LinkState::Connected, .. }, Some(node)) => {
                self.connected.insert((node, *remote), at);
                self.see_connected(node, *remote);
            }
            _ => {}
        }
    }

    /// A pair whose two ends have connected after its last trouble has a connection that lost nothing.
    /// That it is lost again without trouble must not be an excuse for what fails with it.
    fn see_connected(&mut self, a: Node, b: Node) {
        let Some(since) = self.since(a, b) else { return };
        let ends = [(a, b), (b, a)].map(|ends| self.connected.get(&ends).copied());
        if let [Some(one), Some(other)] = ends
            && one.min(other) >= since
        {
            let fresh = self.fresh.entry(pair(a, b)).or_default();
            if *fresh < since || *fresh == 0 {
                *fresh = one.max(other);
            }
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
            Fault::Repair { a, b } => {
                let (a, b) = pair(a, b);
                self.lasting.remove(&Trouble::Link(a, b));
                self.lasting.remove(&Trouble::Slow(a, b));
                self.touch(a, b, at);
            }
            Fault::PowerLoss { node } => {
                self.lasting.insert(Trouble::Down(node));
                self.lasting.remove(&Trouble::Stopped(node));
            }
            Fault::Pause { node } => drop(self.lasting.insert(Trouble::Stopped(node))),
            Fault::Resume { node, .. } => {
                if self.lasting.remove(&Trouble::Stopped(node)) {
                    self.last_by_node.insert(node, at);
                }
            }
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
            Fault::Restart { .. }
            | Fault::Drift { .. }
            | Fault::PoolDown { .. }
            | Fault::PoolUp { .. } => {}
        }
    }

    /// Since when nothing can be wrong between two nodes, in simulated milliseconds; `None` if something
    /// is. From the connection that they have made since their last trouble, or once any that died in
    /// it must have been found and replaced.
    pub fn whole_since(&self, a: Node, b: Node, bounds: &Bounds) -> Option<u64> {
        let since = self.since(a, b)?;
        let replaced = since + bounds.reconnect_ms;
        let fresh = self.fresh.get(&pair(a, b)).copied();
        Some(fresh.filter(|fresh| *fresh > 0 && *fresh >= since).unwrap_or(replaced).min(replaced))
    }

    /// Since when there was no trouble between two nodes, in simulated milliseconds; `None` if there
    /// is.
    pub fn since(&self, a: Node, b: Node) -> Option<u64> {
        let (a, b) = pair(a, b);
        let concerns = |trouble: &Trouble| match *trouble {
            Trouble::Link(c, d) | Trouble::Slow(c, d) => (a, b) == (c, d),
            Trouble::Down(node)
            | Trouble::Stopped(node)
            | Trouble::Skewed(node)
            | Trouble::Stranger(node) => node == a || node == b,
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
    use crate::plan::ClockWhilePaused;

    #[test]
    fn calm_is_counted_from_the_last_trouble_of_a_pair_or_its_nodes() {
        let plan = Plan::quiet(3);
        let mut calm = Calm::new(&plan, 300_000);
        let (a, b, c) = (Node(0), Node(1), Node(2));
        let see = |calm: &mut Calm, at_ms, node, kind| calm.see(&Event { at_ms, node, kind });
        assert_eq!(calm.since(a, b), Some(0));
        see(&mut calm, 10, None, EventKind::Fault { fault: Fault::Cut { a: b, b: a } });
        assert_eq!(calm.since(a, b), None);
        assert_eq!(calm.since(a, c), Some(0));
        see(&mut calm, 20, None, EventKind::Fault { fault: Fault::Repair { a, b } });
        assert_eq!(calm.since(b, a), Some(20));
        see(&mut calm, 30, None, EventKind::Fault { fault: Fault::PowerLoss { node: c } });
        assert_eq!(calm.since(a, c), None);
        see(&mut calm, 35, None, EventKind::Healed);
        assert_eq!(calm.since(a, c), None, "it has not started yet");
        see(&mut calm, 40, Some(c), EventKind::Started { incarnation: 2 });
        assert_eq!(calm.since(a, c), Some(40));
        assert_eq!(calm.since(a, b), Some(20));
    }

    #[test]
    fn a_process_that_is_stopped_is_trouble_until_it_goes_on() {
        let mut calm = Calm::new(&Plan::quiet(3), 300_000);
        let (a, b, node) = (Node(0), Node(1), Node(1));
        let fault = |at_ms, fault, calm: &mut Calm| {
            calm.see(&Event { at_ms, node: None, kind: EventKind::Fault { fault } });
        };
        fault(10, Fault::Pause { node }, &mut calm);
        assert_eq!((calm.since(a, b), calm.since(a, Node(2))), (None, Some(0)));
        fault(20, Fault::Resume { node, clock: ClockWhilePaused::Frozen }, &mut calm);
        assert_eq!(calm.since(a, b), Some(20));
        fault(30, Fault::Pause { node }, &mut calm);
        calm.see(&Event { at_ms: 40, node: None, kind: EventKind::Healed });
        assert_eq!(calm.since(a, b), Some(40));
        fault(50, Fault::Pause { node }, &mut calm);
        fault(60, Fault::PowerLoss { node }, &mut calm);
        calm.see(&Event {
            at_ms: 70,
            node: Some(node),
            kind: EventKind::Started { incarnation: 2 },
        });
        assert_eq!(calm.since(a, b), Some(70), "what begins anew is not stopped");
    }

    #[test]
    fn a_pair_is_whole_once_it_has_connected_after_its_trouble() {
        let plan = Plan::quiet(2);
        let (bounds, mut calm) = (Bounds::of(&plan), Calm::new(&plan, 300_000));
        let (a, b) = (Node(0), Node(1));
        let see = |calm: &mut Calm, at_ms, node, kind| calm.see(&Event { at_ms, node, kind });
        let connected =
            |remote| EventKind::State { remote, state: LinkState::Connected, cause: None };
        assert_eq!(calm.whole_since(a, b, &bounds), Some(bounds.reconnect_ms));
        see(&mut calm, 3, Some(a), connected(b));
        assert_eq!(calm.whole_since(a, b, &bounds), Some(bounds.reconnect_ms), "one end only");
        see(&mut calm, 5, Some(b), connected(a));
        assert_eq!(calm.whole_since(a, b, &bounds), Some(5));
        see(&mut calm, 7, Some(a), connected(b));
        assert_eq!(calm.whole_since(b, a, &bounds), Some(5), "lost for no reason: no excuse");
        see(&mut calm, 9, None, EventKind::Fault { fault: Fault::Cut { a, b } });
        assert_eq!(calm.whole_since(a, b, &bounds), None);
        see(&mut calm, 11, None, EventKind::Fault { fault: Fault::Repair { a, b } });
        assert_eq!(calm.whole_since(a, b, &bounds), Some(11 + bounds.reconnect_ms));
        see(&mut calm, 12, Some(a), connected(b));
        see(&mut calm, 13, Some(b), connected(a));
        assert_eq!(calm.whole_since(a, b, &bounds), Some(13));
    }
}
