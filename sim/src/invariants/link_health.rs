//! Tracks since when two nodes are free of faults: all bounds are counted from then.

use std::collections::{BTreeMap, BTreeSet};

use grid::buggify::FaultPoint;

use crate::bounds::Bounds;
use crate::event::{ConnectionState, Event, EventKind};
use crate::fault::Effect;
use crate::plan::{Node, Plan};

/// A fault that lasts until an event ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LastingFault {
    Link(Node, Node),
    Slow(Node, Node),
    Down(Node),
    Paused(Node),
    Skewed(Node),
    WrongSecret(Node),
}

/// Tracks all faults of links and nodes.
#[derive(Debug, Default)]
pub struct LinkHealth {
    lasting: BTreeSet<LastingFault>,
    last_fault_by_link: BTreeMap<(Node, Node), u64>,
    last_fault_by_node: BTreeMap<Node, u64>,
    skew_max_ms: u64,
    /// Nodes with flags of their own, which may restart when all faults are healed.
    reconfigured: Vec<Node>,
    /// When each node last reported a connection to another.
    connected: BTreeMap<(Node, Node), u64>,
    /// Since when a pair has had a connection made after its last fault.
    connected_after_fault: BTreeMap<(Node, Node), u64>,
}

fn pair(a: Node, b: Node) -> (Node, Node) {
    (a.min(b), a.max(b))
}

impl LinkHealth {
    /// Creates the state at the start of a run.
    pub fn new(plan: &Plan, skew_max_ms: u64) -> Self {
        let late = plan.cluster.late.iter().map(|(node, _)| LastingFault::Down(*node));
        let wrong_secret =
            plan.cluster.wrong_secret_nodes.iter().map(|node| LastingFault::WrongSecret(*node));
        let flags = plan.cluster.locks.iter().flat_map(|locks| &locks.flags);
        Self {
            lasting: late.chain(wrong_secret).collect(),
            skew_max_ms,
            reconfigured: flags.map(|flags| flags.node).collect(),
            ..Self::default()
        }
    }

    /// Handles an event.
    pub fn on_event(&mut self, event: &Event) {
        let at = event.at_ms;
        match (&event.kind, event.node) {
            (EventKind::Fault { fault }, _) => self.on_effect(fault.effect(), at),
            (EventKind::Started { .. }, Some(node)) => {
                self.lasting.remove(&LastingFault::Down(node));
                self.last_fault_by_node.insert(node, at);
            }
            // Those that end a connection; the others only delay a little.
            (EventKind::FaultPoint { point, lasts_ms }, Some(node))
                if point == FaultPoint::Supersede.name()
                    || point == FaultPoint::EarlyTimeout.name() =>
            {
                let last = self.last_fault_by_node.entry(node).or_default();
                *last = (*last).max(at + lasts_ms);
            }
            (EventKind::Healed, _) => {
                for node in &self.reconfigured {
                    self.last_fault_by_node.insert(*node, at);
                }
                for fault in std::mem::take(&mut self.lasting) {
                    match fault {
                        LastingFault::Link(a, b) | LastingFault::Slow(a, b) => {
                            self.link_repaired(a, b, at);
                        }
                        // The node is about to start, which ends the fault.
                        LastingFault::Down(_) => drop(self.lasting.insert(fault)),
                        LastingFault::Skewed(node)
                        | LastingFault::WrongSecret(node)
                        | LastingFault::Paused(node) => {
                            self.last_fault_by_node.insert(node, at);
                        }
                    }
                }
            }
            (EventKind::State { remote, state: ConnectionState::Connected, .. }, Some(node)) => {
                self.connected.insert((node, *remote), at);
                self.on_connected(node, *remote);
            }
            _ => {}
        }
    }

    /// Records that a pair has connected at both ends after its last fault: its connection lost
    /// nothing. A later loss without a fault must not excuse the failures that it causes.
    fn on_connected(&mut self, a: Node, b: Node) {
        let Some(since) = self.fault_free_since(a, b) else { return };
        let ends = [(a, b), (b, a)].map(|ends| self.connected.get(&ends).copied());
        if let [Some(one), Some(other)] = ends
            && one.min(other) >= since
        {
            let fresh = self.connected_after_fault.entry(pair(a, b)).or_default();
            if *fresh < since || *fresh == 0 {
                *fresh = one.max(other);
            }
        }
    }

    fn link_repaired(&mut self, a: Node, b: Node, at: u64) {
        self.last_fault_by_link.insert(pair(a, b), at);
    }

    fn on_effect(&mut self, effect: Effect, at: u64) {
        match effect {
            Effect::LinkFails { from, to } => {
                let (a, b) = pair(from, to);
                self.lasting.insert(LastingFault::Link(a, b));
            }
            Effect::LinkSlows { a, b } => {
                let (a, b) = pair(a, b);
                self.lasting.insert(LastingFault::Slow(a, b));
            }
            Effect::LinkRecovers { a, b } => {
                let (a, b) = pair(a, b);
                self.lasting.remove(&LastingFault::Link(a, b));
                self.lasting.remove(&LastingFault::Slow(a, b));
                self.link_repaired(a, b, at);
            }
            Effect::NodeFails { node } => {
                self.lasting.insert(LastingFault::Down(node));
                self.lasting.remove(&LastingFault::Paused(node));
            }
            Effect::NodeRestarts { node } => drop(self.lasting.insert(LastingFault::Down(node))),
            Effect::ProcessPauses { node } => drop(self.lasting.insert(LastingFault::Paused(node))),
            Effect::ProcessResumes { node, .. } => {
                if self.lasting.remove(&LastingFault::Paused(node)) {
                    self.last_fault_by_node.insert(node, at);
                }
            }
            Effect::WallClockChanges { node, ms } => {
                // Two clocks that are each a little off may differ too much together.
                if ms.unsigned_abs() > self.skew_max_ms / 2 {
                    self.lasting.insert(LastingFault::Skewed(node));
                } else if self.lasting.remove(&LastingFault::Skewed(node)) {
                    self.last_fault_by_node.insert(node, at);
                }
            }
            // The event of the start ends the outage. A drift is in all bounds, and connections do
            // not need pools.
            Effect::NodeStarts { .. }
            | Effect::ClockRateChanges { .. }
            | Effect::PoolFails { .. }
            | Effect::PoolRecovers { .. } => {}
        }
    }

    /// Returns since when two nodes are healthy, in simulated milliseconds; `None` if there is a
    /// fault. A pair is healthy once it has reconnected after its last fault, or when a dead
    /// connection must have been detected and replaced.
    pub fn healthy_since(&self, a: Node, b: Node, bounds: &Bounds) -> Option<u64> {
        let since = self.fault_free_since(a, b)?;
        let replaced = since + bounds.reconnect_ms;
        let fresh = self.connected_after_fault.get(&pair(a, b)).copied();
        Some(fresh.filter(|fresh| *fresh > 0 && *fresh >= since).unwrap_or(replaced).min(replaced))
    }

    /// Returns since when there was no fault between two nodes, in simulated milliseconds; `None`
    /// if there is one.
    pub fn fault_free_since(&self, a: Node, b: Node) -> Option<u64> {
        let (a, b) = pair(a, b);
        let concerns = |fault: &LastingFault| match *fault {
            LastingFault::Link(c, d) | LastingFault::Slow(c, d) => (a, b) == (c, d),
            LastingFault::Down(node)
            | LastingFault::Paused(node)
            | LastingFault::Skewed(node)
            | LastingFault::WrongSecret(node) => node == a || node == b,
        };
        if self.lasting.iter().any(concerns) {
            return None;
        }
        let link = self.last_fault_by_link.get(&(a, b)).copied().unwrap_or(0);
        let node = |node| self.last_fault_by_node.get(&node).copied().unwrap_or(0);
        Some(link.max(node(a)).max(node(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Cut, Pause, PowerLoss, Repair, Resume};
    use crate::plan::{ClockWhilePaused, Fault};

    #[test]
    fn fault_free_time_begins_with_the_last_fault_of_a_pair_or_its_nodes() {
        let plan = Plan::quiet(3);
        let mut health = LinkHealth::new(&plan, 300_000);
        let (a, b, c) = (Node(0), Node(1), Node(2));
        let on_event = |health: &mut LinkHealth, at_ms, node, kind| {
            health.on_event(&Event { at_ms, node, kind });
        };
        assert_eq!(health.fault_free_since(a, b), Some(0));
        on_event(&mut health, 10, None, EventKind::Fault { fault: Fault::Cut(Cut { a: b, b: a }) });
        assert_eq!(health.fault_free_since(a, b), None);
        assert_eq!(health.fault_free_since(a, c), Some(0));
        on_event(&mut health, 20, None, EventKind::Fault { fault: Fault::Repair(Repair { a, b }) });
        assert_eq!(health.fault_free_since(b, a), Some(20));
        on_event(
            &mut health,
            30,
            None,
            EventKind::Fault { fault: Fault::PowerLoss(PowerLoss { node: c }) },
        );
        assert_eq!(health.fault_free_since(a, c), None);
        on_event(&mut health, 35, None, EventKind::Healed);
        assert_eq!(health.fault_free_since(a, c), None, "it has not started yet");
        on_event(&mut health, 40, Some(c), EventKind::Started { incarnation: 2 });
        assert_eq!(health.fault_free_since(a, c), Some(40));
        assert_eq!(health.fault_free_since(a, b), Some(20));
    }

    #[test]
    fn pause_is_a_fault_until_the_process_resumes() {
        let mut health = LinkHealth::new(&Plan::quiet(3), 300_000);
        let (a, b, node) = (Node(0), Node(1), Node(1));
        let fault = |at_ms, fault, health: &mut LinkHealth| {
            health.on_event(&Event { at_ms, node: None, kind: EventKind::Fault { fault } });
        };
        fault(10, Fault::Pause(Pause { node }), &mut health);
        assert_eq!(
            (health.fault_free_since(a, b), health.fault_free_since(a, Node(2))),
            (None, Some(0))
        );
        fault(20, Fault::Resume(Resume { node, clock: ClockWhilePaused::Frozen }), &mut health);
        assert_eq!(health.fault_free_since(a, b), Some(20));
        fault(30, Fault::Pause(Pause { node }), &mut health);
        health.on_event(&Event { at_ms: 40, node: None, kind: EventKind::Healed });
        assert_eq!(health.fault_free_since(a, b), Some(40));
        fault(50, Fault::Pause(Pause { node }), &mut health);
        fault(60, Fault::PowerLoss(PowerLoss { node }), &mut health);
        health.on_event(&Event {
            at_ms: 70,
            node: Some(node),
            kind: EventKind::Started { incarnation: 2 },
        });
        assert_eq!(health.fault_free_since(a, b), Some(70), "a restarted process is not paused");
    }

    #[test]
    fn pair_is_healthy_once_it_has_connected_after_its_fault() {
        let plan = Plan::quiet(2);
        let (bounds, mut health) = (Bounds::of(&plan), LinkHealth::new(&plan, 300_000));
        let (a, b) = (Node(0), Node(1));
        let on_event = |health: &mut LinkHealth, at_ms, node, kind| {
            health.on_event(&Event { at_ms, node, kind });
        };
        let connected =
            |remote| EventKind::State { remote, state: ConnectionState::Connected, cause: None };
        assert_eq!(health.healthy_since(a, b, &bounds), Some(bounds.reconnect_ms));
        on_event(&mut health, 3, Some(a), connected(b));
        assert_eq!(health.healthy_since(a, b, &bounds), Some(bounds.reconnect_ms), "one end only");
        on_event(&mut health, 5, Some(b), connected(a));
        assert_eq!(health.healthy_since(a, b, &bounds), Some(5));
        on_event(&mut health, 7, Some(a), connected(b));
        assert_eq!(
            health.healthy_since(b, a, &bounds),
            Some(5),
            "a loss without a fault is no excuse"
        );
        on_event(&mut health, 9, None, EventKind::Fault { fault: Fault::Cut(Cut { a, b }) });
        assert_eq!(health.healthy_since(a, b, &bounds), None);
        on_event(&mut health, 11, None, EventKind::Fault { fault: Fault::Repair(Repair { a, b }) });
        assert_eq!(health.healthy_since(a, b, &bounds), Some(11 + bounds.reconnect_ms));
        on_event(&mut health, 12, Some(a), connected(b));
        on_event(&mut health, 13, Some(b), connected(a));
        assert_eq!(health.healthy_since(a, b, &bounds), Some(13));
    }
}
