//! What should happen to users, policies and mappings sometimes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use iam_bootstrap::limits::{COMPARE_SPACING, TELL_TIMEOUT};

use crate::event::{Event, EventKind, IamEvent, ItemRecord, LinkState, RecordVersion};
use crate::plan::{Fault, Node};

/// What is known of the copies of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Iam {
    nodes: BTreeMap<Node, Copy>,
    /// When each record was kept for the first time: by who made the change.
    made: BTreeMap<(u8, RecordVersion), u64>,
    /// The last change that each node made of each item: when, and whether it put something.
    changed: BTreeMap<(u8, Node), (u64, bool)>,
    /// Since when the first of two has lost its connection to the other.
    apart: BTreeMap<(Node, Node), u64>,
    /// When the first of two began its last comparison with the other.
    compared: BTreeMap<(Node, Node), u64>,
}

/// One node's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Copy {
    /// Whether its process runs, and how often it has begun.
    is_running: bool,
    starts: u32,
    /// When its last process ended, and when this one began.
    away_ms: (u64, u64),
    /// Whether its readers see anything.
    is_seen: bool,
    pools_away: BTreeSet<u8>,
    /// A pool came online after its process began and before all was loaded.
    has_waited: bool,
    /// It asked somebody for records.
    has_fetched: bool,
    /// Items that it ever had.
    had: BTreeSet<u8>,
}

/// Every point that a set of runs of the swarm of users, policies and mappings must reach at least once.
pub const IAM_POINTS: &[&str] = &[
    "change_asked_of_a_process_that_crashed",
    "change_made",
    "change_made_while_a_peer_is_cut_off",
    "change_missed_by_who_cannot_be_reached",
    "change_missed_by_who_has_not_loaded",
    "change_missed_by_whose_pool_is_away",
    "change_of_what_is_not_there",
    "change_refused_before_all_is_loaded",
    "change_refused_by_its_pool",
    "comparison_found_what_was_missed",
    "comparison_repaired_a_change",
    "comparison_repaired_a_deletion",
    "comparison_with_who_has_not_loaded",
    "connected_anew_before_it_may_compare",
    "deletion_kept_where_the_item_never_was",
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
    "item_changed_on_both_sides_of_a_cut",
    "item_put_on_one_side_of_a_cut_and_deleted_on_the_other",
    "late_node_took_what_came_before_it",
    "load_cut_short_by_a_crash",
    "pool_came_late",
    "pool_was_tried_again",
    "rare_delay-flush",
    "rare_early-timeout",
    "rare_full-socket",
    "rare_spurious-wake",
    "rare_supersede",
    "rare_tiny-queue",
    "restarted_node_took_what_it_missed",
];

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Iam {
    /// Something happened. Returns the points that it reached.
    pub(super) fn see(&mut self, event: &Event) -> Vec<&'static str> {
        let at_ms = event.at_ms;
        match (&event.kind, event.node) {
            (EventKind::Fault { fault }, _) => self.see_fault(*fault, at_ms),
            (EventKind::Healed, _) => {
                self.nodes.values_mut().for_each(Copy::all_pools_are_there);
                Vec::new()
            }
            (EventKind::Started { .. }, Some(node)) => {
                self.apart.retain(|(of, _), _| *of != node);
                self.compared.retain(|(of, _), _| *of != node);
                self.nodes.entry(node).or_default().begin(at_ms);
                Vec::new()
            }
            (EventKind::State { remote, state, .. }, Some(node)) => {
                self.see_state((node, *remote), *state, at_ms)
            }
            (EventKind::Iam(iam), Some(node)) => self.see_iam(iam, node, at_ms),
            _ => Vec::new(),
        }
    }

    fn see_fault(&mut self, fault: Fault, at_ms: u64) -> Vec<&'static str> {
        match fault {
            Fault::PoolDown { node, pool, .. } => {
                self.nodes.entry(node).or_default().pools_away.insert(pool);
            }
            Fault::PoolUp { node, pool } => {
                self.nodes.entry(node).or_default().pool_is_there(pool);
            }
            Fault::PowerLoss { node } => {
                let copy = self.nodes.entry(node).or_default();
                if copy.is_running {
                    copy.is_running = false;
                    copy.away_ms.0 = at_ms;
                    return if copy.is_seen {
                        Vec::new()
                    } else {
                        vec!["load_cut_short_by_a_crash"]
                    };
                }
            }
            _ => {}
        }
        Vec::new()
    }

    fn see_state(&mut self, ends: (Node, Node), state: LinkState, at_ms: u64) -> Vec<&'static str> {
        if state != LinkState::Connected {
            self.apart.entry(ends).or_insert(at_ms);
            return Vec::new();
        }
        let was_apart = self.apart.remove(&ends).is_some();
        let compared = self.compared.get(&ends).filter(|_| was_apart);
        match compared.is_some_and(|before| at_ms - before < ms(COMPARE_SPACING)) {
            true => vec!["connected_anew_before_it_may_compare"],
            false => Vec::new(),
        }
    }

    fn see_iam(&mut self, event: &IamEvent, node: Node, at_ms: u64) -> Vec<&'static str> {
        match event {
            IamEvent::Persisted { record: kept, .. } => self.see_kept(*kept, node, at_ms),
            IamEvent::Changed { peer_errors, .. } => {
                let mut points = vec!["change_made"];
                if self.apart.keys().any(|(of, _)| *of == node) {
                    points.push("change_made_while_a_peer_is_cut_off");
                }
                points.extend(peer_errors.iter().filter_map(|cause| missed(cause)));
                points
            }
            IamEvent::Refused { text, .. } => Vec::from_iter(refused(text)),
            IamEvent::SnapshotChanged { items: Some(items) } => {
                let copy = self.nodes.entry(node).or_default();
                copy.had.extend(items.iter().map(|(item, _)| *item));
                let is_first = !std::mem::replace(&mut copy.is_seen, true);
                match is_first && copy.has_waited {
                    true => vec!["pool_came_late"],
                    false => Vec::new(),
                }
            }
            IamEvent::LoadLogged { retries: 1.. } => vec!["pool_was_tried_again"],
            IamEvent::Reconciles { with } => {
                self.compared.insert((node, *with), at_ms);
                match self.nodes.get(with).is_some_and(|copy| copy.is_seen) {
                    true => Vec::new(),
                    false => vec!["comparison_with_who_has_not_loaded"],
                }
            }
            IamEvent::Fetches { .. } => {
                self.nodes.entry(node).or_default().has_fetched = true;
                vec!["comparison_found_what_was_missed"]
            }
            IamEvent::Requested { .. }
            | IamEvent::Removed { .. }
            | IamEvent::SnapshotChanged { items: None }
            | IamEvent::LoadLogged { retries: 0 } => Vec::new(),
        }
    }

    fn see_kept(&mut self, kept: ItemRecord, node: Node, at_ms: u64) -> Vec<&'static str> {
        let is_put = kept.value.is_some();
        let copy = self.nodes.entry(node).or_default();
        let had = copy.had.contains(&kept.item);
        if is_put {
            copy.had.insert(kept.item);
        }
        let Some(made_ms) = self.made.get(&(kept.item, kept.version)).copied() else {
            self.made.insert((kept.item, kept.version), at_ms);
            let points = self.on_both_sides(kept.item, node, is_put);
            self.changed.insert((kept.item, node), (at_ms, is_put));
            return points;
        };
        let mut points = Vec::new();
        if !is_put && !had {
            points.push("deletion_kept_where_the_item_never_was");
        }
        // Nobody tells of a change for so long.
        if copy.has_fetched && at_ms - made_ms > ms(TELL_TIMEOUT) {
            points.push(match is_put {
                true => "comparison_repaired_a_change",
                false => "comparison_repaired_a_deletion",
            });
        }
        let (ended_ms, begun_ms) = copy.away_ms;
        if (ended_ms..begun_ms).contains(&made_ms) {
            points.push(match copy.starts {
                1 => "late_node_took_what_came_before_it",
                _ => "restarted_node_took_what_it_missed",
            });
        }
        points
    }

    /// A node changes an item; who is cut off from it may have changed it as well since then.
    fn on_both_sides(&self, item: u8, node: Node, is_put: bool) -> Vec<&'static str> {
        let mut points = Vec::new();
        let apart = self.apart.iter().filter(|((of, _), _)| *of == node);
        for ((_, other), since_ms) in apart {
            match self.changed.get(&(item, *other)) {
                Some((at_ms, was_put)) if at_ms >= since_ms => {
                    points.push("item_changed_on_both_sides_of_a_cut");
                    if *was_put != is_put {
                        points.push("item_put_on_one_side_of_a_cut_and_deleted_on_the_other");
                    }
                }
                _ => {}
            }
        }
        points
    }
}

impl Copy {
    fn begin(&mut self, at_ms: u64) {
        if std::mem::replace(&mut self.is_running, true) {
            // It ended in good order, and begins in the same moment.
            self.away_ms.0 = at_ms;
        }
        self.away_ms.1 = at_ms;
        self.starts += 1;
        (self.is_seen, self.has_waited, self.has_fetched) = (false, false, false);
    }

    fn pool_is_there(&mut self, pool: u8) {
        self.has_waited |= self.pools_away.remove(&pool) && self.is_running && !self.is_seen;
    }

    fn all_pools_are_there(&mut self) {
        for pool in std::mem::take(&mut self.pools_away) {
            self.pools_away.insert(pool);
            self.pool_is_there(pool);
        }
    }
}

/// Why a peer was not told of a change.
fn missed(cause: &str) -> Option<&'static str> {
    let points = [
        ("has not loaded IAM yet", "change_missed_by_who_has_not_loaded"),
        ("is unavailable", "change_missed_by_whose_pool_is_away"),
        ("is not initialised", "change_missed_by_whose_pool_is_away"),
        ("not connected to", "change_missed_by_who_cannot_be_reached"),
        ("disconnected from", "change_missed_by_who_cannot_be_reached"),
        ("deadline exceeded", "change_missed_by_who_cannot_be_reached"),
    ];
    points.into_iter().find(|(text, _)| cause.contains(text)).map(|(_, point)| point)
}

fn refused(text: &str) -> Option<&'static str> {
    let points = [
        ("cannot be changed yet", "change_refused_before_all_is_loaded"),
        ("there is no ", "change_of_what_is_not_there"),
        ("is unavailable", "change_refused_by_its_pool"),
        ("is not initialised", "change_refused_by_its_pool"),
        ("its process crashed", "change_asked_of_a_process_that_crashed"),
    ];
    points.into_iter().find(|(part, _)| text.contains(part)).map(|(_, point)| point)
}

#[cfg(test)]
mod tests;
