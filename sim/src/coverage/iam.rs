//! Coverage points of users, policies and mappings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use iam_bootstrap::limits::{BROADCAST_TIMEOUT, RECONCILE_SPACING};

use crate::event::{ConnectionState, Event, EventKind, IamEvent, ItemRecord, RecordVersion};
use crate::fault::Effect;
use crate::plan::{Fault, Node};

/// State of the replicas of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Iam {
    nodes: BTreeMap<Node, NodeReplica>,
    /// When each record was stored for the first time: by the node that made the change.
    committed: BTreeMap<(u8, RecordVersion), u64>,
    /// The last change of each item by each node: when, and whether it was a put.
    changed: BTreeMap<(u8, Node), (u64, bool)>,
    /// Since when the first node has lost its connection to the second.
    disconnected_since: BTreeMap<(Node, Node), u64>,
    /// When the first node began its last reconciliation with the second.
    reconciled: BTreeMap<(Node, Node), u64>,
}

/// State of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct NodeReplica {
    /// Whether its process runs, and how often it has started.
    is_running: bool,
    starts: u32,
    /// When its previous process ended, and when this one started.
    down_interval_ms: (u64, u64),
    /// Whether its readers see a replica.
    is_visible: bool,
    pools_down: BTreeSet<u8>,
    /// Whether a pool came online after the process started and before it had loaded.
    waited_for_pool: bool,
    /// Whether it has fetched records from a peer.
    has_fetched: bool,
    /// Items that it ever had.
    had: BTreeSet<u8>,
}

/// Points that a set of swarm runs with users, policies and mappings must reach.
pub const IAM_POINTS: &[&str] = &[
    "buggify_delay-flush",
    "buggify_early-timeout",
    "buggify_full-socket",
    "buggify_spurious-wake",
    "buggify_supersede",
    "buggify_tiny-queue",
    "change_committed",
    "change_committed_while_peer_is_cut_off",
    "change_missed_by_peer_with_offline_pool",
    "change_missed_by_unloaded_peer",
    "change_missed_by_unreachable_peer",
    "change_of_missing_item",
    "change_rejected_before_load",
    "change_rejected_by_pool",
    "change_requested_of_crashed_process",
    "fault_bounce",
    "fault_cut",
    "fault_cut_one_way",
    "fault_drift",
    "fault_hold",
    "fault_pool_down",
    "fault_pool_up",
    "fault_power_loss",
    "fault_repair",
    "fault_restart",
    "fault_skew",
    "fault_slow",
    "item_changed_on_both_sides_of_partition",
    "item_put_and_deleted_across_partition",
    "late_node_fetched_earlier_change",
    "load_interrupted_by_crash",
    "pool_came_online_late",
    "pool_read_was_retried",
    "reconciliation_found_missed_change",
    "reconciliation_repaired_change",
    "reconciliation_repaired_deletion",
    "reconciliation_with_unloaded_peer",
    "reconnected_before_next_reconciliation",
    "restarted_node_fetched_missed_change",
    "tombstone_stored_without_item",
];

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Iam {
    /// Handles an event. Returns the points that it reached.
    pub(super) fn on_event(&mut self, event: &Event) -> Vec<&'static str> {
        let at_ms = event.at_ms;
        match (&event.kind, event.node) {
            (EventKind::Fault { fault }, _) => self.on_fault(*fault, at_ms),
            (EventKind::Healed, _) => {
                self.nodes.values_mut().for_each(NodeReplica::all_pools_came_up);
                Vec::new()
            }
            (EventKind::Started { .. }, Some(node)) => {
                self.disconnected_since.retain(|(of, _), _| *of != node);
                self.reconciled.retain(|(of, _), _| *of != node);
                self.nodes.entry(node).or_default().start(at_ms);
                Vec::new()
            }
            (EventKind::State { remote, state, .. }, Some(node)) => {
                self.on_state((node, *remote), *state, at_ms)
            }
            (EventKind::Iam(iam), Some(node)) => self.on_iam(iam, node, at_ms),
            _ => Vec::new(),
        }
    }

    fn on_fault(&mut self, fault: Fault, at_ms: u64) -> Vec<&'static str> {
        match fault.effect() {
            Effect::PoolFails { node, pool } => {
                self.nodes.entry(node).or_default().pools_down.insert(pool);
            }
            Effect::PoolRecovers { node, pool } => {
                self.nodes.entry(node).or_default().pool_came_up(pool);
            }
            Effect::NodeFails { node } => {
                let replica = self.nodes.entry(node).or_default();
                if replica.is_running {
                    replica.is_running = false;
                    replica.down_interval_ms.0 = at_ms;
                    return if replica.is_visible {
                        Vec::new()
                    } else {
                        vec!["load_interrupted_by_crash"]
                    };
                }
            }
            _ => {}
        }
        Vec::new()
    }

    fn on_state(
        &mut self,
        ends: (Node, Node),
        state: ConnectionState,
        at_ms: u64,
    ) -> Vec<&'static str> {
        if state != ConnectionState::Connected {
            self.disconnected_since.entry(ends).or_insert(at_ms);
            return Vec::new();
        }
        let was_apart = self.disconnected_since.remove(&ends).is_some();
        let reconciled = self.reconciled.get(&ends).filter(|_| was_apart);
        match reconciled.is_some_and(|before| at_ms - before < ms(RECONCILE_SPACING)) {
            true => vec!["reconnected_before_next_reconciliation"],
            false => Vec::new(),
        }
    }

    fn on_iam(&mut self, event: &IamEvent, node: Node, at_ms: u64) -> Vec<&'static str> {
        match event {
            IamEvent::Persisted { record, .. } => self.on_persisted(*record, node, at_ms),
            IamEvent::Changed { peer_errors, .. } => {
                let mut points = vec!["change_committed"];
                if self.disconnected_since.keys().any(|(of, _)| *of == node) {
                    points.push("change_committed_while_peer_is_cut_off");
                }
                points.extend(peer_errors.iter().filter_map(|cause| missed(cause)));
                points
            }
            IamEvent::Refused { text, .. } => Vec::from_iter(refused(text)),
            IamEvent::SnapshotChanged { items: Some(items) } => {
                let replica = self.nodes.entry(node).or_default();
                replica.had.extend(items.iter().map(|(item, _)| *item));
                let is_first = !std::mem::replace(&mut replica.is_visible, true);
                match is_first && replica.waited_for_pool {
                    true => vec!["pool_came_online_late"],
                    false => Vec::new(),
                }
            }
            IamEvent::LoadLogged { retries: 1.. } => vec!["pool_read_was_retried"],
            IamEvent::Reconciles { with } => {
                self.reconciled.insert((node, *with), at_ms);
                match self.nodes.get(with).is_some_and(|replica| replica.is_visible) {
                    true => Vec::new(),
                    false => vec!["reconciliation_with_unloaded_peer"],
                }
            }
            IamEvent::Fetches { .. } => {
                self.nodes.entry(node).or_default().has_fetched = true;
                vec!["reconciliation_found_missed_change"]
            }
            IamEvent::Requested { .. }
            | IamEvent::Removed { .. }
            | IamEvent::SnapshotChanged { items: None }
            | IamEvent::LoadLogged { retries: 0 } => Vec::new(),
        }
    }

    fn on_persisted(&mut self, record: ItemRecord, node: Node, at_ms: u64) -> Vec<&'static str> {
        let is_put = record.value.is_some();
        let replica = self.nodes.entry(node).or_default();
        let had = replica.had.contains(&record.item);
        if is_put {
            replica.had.insert(record.item);
        }
        let Some(committed_ms) = self.committed.get(&(record.item, record.version)).copied() else {
            self.committed.insert((record.item, record.version), at_ms);
            let points = self.on_both_sides(record.item, node, is_put);
            self.changed.insert((record.item, node), (at_ms, is_put));
            return points;
        };
        let mut points = Vec::new();
        if !is_put && !had {
            points.push("tombstone_stored_without_item");
        }
        // No broadcast of a change takes so long.
        if replica.has_fetched && at_ms - committed_ms > ms(BROADCAST_TIMEOUT) {
            points.push(match is_put {
                true => "reconciliation_repaired_change",
                false => "reconciliation_repaired_deletion",
            });
        }
        let (ended_ms, begun_ms) = replica.down_interval_ms;
        if (ended_ms..begun_ms).contains(&committed_ms) {
            points.push(match replica.starts {
                1 => "late_node_fetched_earlier_change",
                _ => "restarted_node_fetched_missed_change",
            });
        }
        points
    }

    /// Returns the points for a change of an item that a disconnected node has changed as well
    /// since.
    fn on_both_sides(&self, item: u8, node: Node, is_put: bool) -> Vec<&'static str> {
        let mut points = Vec::new();
        let disconnected_since = self.disconnected_since.iter().filter(|((of, _), _)| *of == node);
        for ((_, other), since_ms) in disconnected_since {
            match self.changed.get(&(item, *other)) {
                Some((at_ms, was_put)) if at_ms >= since_ms => {
                    points.push("item_changed_on_both_sides_of_partition");
                    if *was_put != is_put {
                        points.push("item_put_and_deleted_across_partition");
                    }
                }
                _ => {}
            }
        }
        points
    }
}

impl NodeReplica {
    fn start(&mut self, at_ms: u64) {
        if std::mem::replace(&mut self.is_running, true) {
            // It shut down gracefully, and restarts at the same moment.
            self.down_interval_ms.0 = at_ms;
        }
        self.down_interval_ms.1 = at_ms;
        self.starts += 1;
        (self.is_visible, self.waited_for_pool, self.has_fetched) = (false, false, false);
    }

    fn pool_came_up(&mut self, pool: u8) {
        self.waited_for_pool |=
            self.pools_down.remove(&pool) && self.is_running && !self.is_visible;
    }

    fn all_pools_came_up(&mut self) {
        for pool in std::mem::take(&mut self.pools_down) {
            self.pools_down.insert(pool);
            self.pool_came_up(pool);
        }
    }
}

/// Returns the point for the reason why a peer missed a change.
fn missed(cause: &str) -> Option<&'static str> {
    let points = [
        ("has not loaded IAM yet", "change_missed_by_unloaded_peer"),
        ("is unavailable", "change_missed_by_peer_with_offline_pool"),
        ("is not initialised", "change_missed_by_peer_with_offline_pool"),
        ("not connected to", "change_missed_by_unreachable_peer"),
        ("disconnected from", "change_missed_by_unreachable_peer"),
        ("deadline exceeded", "change_missed_by_unreachable_peer"),
    ];
    points.into_iter().find(|(text, _)| cause.contains(text)).map(|(_, point)| point)
}

fn refused(text: &str) -> Option<&'static str> {
    let points = [
        ("cannot be changed yet", "change_rejected_before_load"),
        ("there is no ", "change_of_missing_item"),
        ("is unavailable", "change_rejected_by_pool"),
        ("is not initialised", "change_rejected_by_pool"),
        ("its process crashed", "change_requested_of_crashed_process"),
    ];
    points.into_iter().find(|(part, _)| text.contains(part)).map(|(_, point)| point)
}

#[cfg(test)]
mod tests;
