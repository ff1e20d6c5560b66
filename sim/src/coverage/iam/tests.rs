//! Each point is reached by the last event of its sequence, and by nothing before.

use super::super::Coverage;
use super::*;
use crate::event::CallId;
use crate::fault::{PoolDown, PoolUp, PowerLoss};
use crate::plan::{ItemChange, Outage};

const A: Node = Node(0);
const B: Node = Node(1);
const ITEM: u8 = 5;

/// Time, node and event.
type Step = (u64, Node, EventKind);

fn started(at_ms: u64, node: Node) -> Step {
    (at_ms, node, EventKind::Started { incarnation: 1 })
}

fn fault(at_ms: u64, fault: Fault) -> Step {
    (at_ms, A, EventKind::Fault { fault })
}

fn pool(at_ms: u64, is_there: bool) -> Step {
    let (node, pool, reason) = (A, 0, Outage::NotInitialised);
    let up = Fault::PoolUp(PoolUp { node, pool });
    fault(at_ms, if is_there { up } else { Fault::PoolDown(PoolDown { node, pool, reason }) })
}

fn state(at_ms: u64, node: Node, remote: Node, state: ConnectionState) -> Step {
    (at_ms, node, EventKind::State { remote, state, cause: None })
}

/// A stored record of a change made in this microsecond: the first node that stores it made it.
fn persisted(at_ms: u64, node: Node, micros: u64, value: Option<u32>) -> Step {
    let version = RecordVersion { micros, server: 1 };
    let record = ItemRecord { item: ITEM, version, value };
    (at_ms, node, EventKind::Iam(IamEvent::Persisted { pool: 0, record }))
}

fn visible(at_ms: u64, node: Node, items: &[(u8, u32)]) -> Step {
    (at_ms, node, EventKind::Iam(IamEvent::SnapshotChanged { items: Some(items.to_vec()) }))
}

const CALL: CallId = 0;

fn requested() -> Step {
    let (item, change) = (ITEM, ItemChange::Put);
    (1, A, EventKind::Iam(IamEvent::Requested { call: CALL, item, change }))
}

fn changed(peer_errors: &[&str]) -> Vec<Step> {
    let record = ItemRecord { item: ITEM, version: RecordVersion::default(), value: None };
    let peer_errors = peer_errors.iter().map(|cause| (*cause).to_owned()).collect();
    vec![requested(), (9, A, EventKind::Iam(IamEvent::Changed { call: CALL, record, peer_errors }))]
}

fn refused(text: &str) -> Vec<Step> {
    let text = text.to_owned();
    vec![requested(), (9, A, EventKind::Iam(IamEvent::Refused { call: CALL, text }))]
}

fn reconciles(at_ms: u64, with: Node) -> Step {
    (at_ms, A, EventKind::Iam(IamEvent::Reconciles { with }))
}

fn fetches(at_ms: u64) -> Step {
    (at_ms, A, EventKind::Iam(IamEvent::Fetches { from: B }))
}

/// A reconciliation fetches a change that was made long before.
fn repaired(value: Option<u32>) -> Vec<Step> {
    vec![
        visible(1, A, &[(ITEM, 1)]),
        persisted(2, B, 1, value),
        fetches(6_000),
        persisted(8_000, A, 1, value),
    ]
}

/// Two disconnected nodes change one item.
fn on_both_sides(there: Option<u32>, here: Option<u32>) -> Vec<Step> {
    let lost = ConnectionState::Backoff;
    vec![state(1, A, B, lost), persisted(2, B, 1, there), persisted(3, A, 2, here)]
}

/// Returns the events that reach a point.
fn reaching(point: &str) -> Vec<Step> {
    let (put, gone) = (Some(1), None);
    match point {
        "change_requested_of_crashed_process" => refused("its process crashed"),
        "change_committed" => changed(&[]),
        "change_committed_while_peer_is_cut_off" => {
            let mut steps = vec![state(1, A, B, ConnectionState::Backoff)];
            steps.extend(changed(&[]));
            steps
        }
        "change_missed_by_unreachable_peer" => changed(&["disconnected from node-1"]),
        "change_missed_by_unloaded_peer" => {
            changed(&["node-1 returned an error: this server has not loaded IAM yet, and will ask"])
        }
        "change_missed_by_peer_with_offline_pool" => {
            changed(&["node-1 returned an error: pool-0 is unavailable: by plan"])
        }
        "change_of_missing_item" => refused("there is no user item-0"),
        "change_rejected_before_load" => refused("IAM cannot be changed yet: this server"),
        "change_rejected_by_pool" => refused("not changed: pool-0 is not initialised: wait"),
        "reconciliation_found_missed_change" => vec![fetches(1)],
        "reconciliation_repaired_change" => repaired(put),
        "reconciliation_repaired_deletion" => repaired(gone),
        "reconciliation_with_unloaded_peer" => vec![started(0, B), reconciles(1, B)],
        "reconnected_before_next_reconciliation" => vec![
            reconciles(1, B),
            state(2, A, B, ConnectionState::Backoff),
            state(999, A, B, ConnectionState::Connected),
        ],
        "tombstone_stored_without_item" => vec![persisted(1, B, 1, gone), persisted(2, A, 1, gone)],
        "item_changed_on_both_sides_of_partition" => on_both_sides(put, put),
        "item_put_and_deleted_across_partition" => on_both_sides(put, gone),
        "late_node_fetched_earlier_change" => {
            vec![persisted(1, B, 1, put), started(5, A), persisted(6, A, 1, put)]
        }
        "load_interrupted_by_crash" => {
            vec![started(1, A), fault(2, Fault::PowerLoss(PowerLoss { node: A }))]
        }
        "pool_came_online_late" => {
            vec![pool(0, false), started(1, A), pool(2, true), visible(3, A, &[])]
        }
        "pool_read_was_retried" => {
            vec![(1, A, EventKind::Iam(IamEvent::LoadLogged { retries: 1 }))]
        }
        "restarted_node_fetched_missed_change" => vec![
            started(0, A),
            fault(1, Fault::PowerLoss(PowerLoss { node: A })),
            persisted(2, B, 1, put),
            started(3, A),
            persisted(4, A, 1, put),
        ],
        _ => Vec::new(),
    }
}

fn reached(steps: &[Step]) -> Coverage {
    let mut coverage = Coverage::default();
    for (at_ms, node, kind) in steps {
        coverage.on_event(&Event { at_ms: *at_ms, node: Some(*node), kind: kind.clone() }, None);
    }
    coverage
}

#[test]
fn each_point_is_reached_by_the_last_event_of_its_sequence() {
    // Faults and fault points are counted as in any swarm.
    let is_own = |point: &&&str| !point.starts_with("fault_") && !point.starts_with("buggify_");
    for point in IAM_POINTS.iter().filter(is_own) {
        let steps = reaching(point);
        let (last, before) = steps.split_last().unwrap_or_else(|| panic!("no events for {point}"));
        assert!(!reached(before).counts().contains_key(*point), "{point} before {last:?}");
        assert!(reached(&steps).counts().contains_key(*point), "{point}");
    }
}

#[test]
fn points_are_sorted_by_name() {
    assert!(IAM_POINTS.is_sorted_by(|one, next| one < next));
}

#[test]
fn similar_events_do_not_reach_a_point() {
    let never = |point: &str, steps: Vec<Step>| {
        let reached = reached(&steps);
        assert!(!reached.counts().contains_key(point), "{point}: {:?}", reached.counts());
    };
    let (put, gone) = (Some(1), None);
    // Broadcast at once; and late, but without a fetch.
    let broadcast = vec![fetches(1), persisted(2, B, 1, put), persisted(3, A, 1, put)];
    never("reconciliation_repaired_change", broadcast);
    never(
        "reconciliation_repaired_change",
        vec![persisted(2, B, 1, put), persisted(9_000, A, 1, put)],
    );
    let had = vec![visible(1, A, &[(ITEM, 1)]), persisted(2, B, 1, gone), persisted(3, A, 1, gone)];
    never("tombstone_stored_without_item", had);
    let mut before = on_both_sides(put, put);
    before.swap(0, 1);
    before[0].0 = 0;
    never("item_changed_on_both_sides_of_partition", before);
    never("item_put_and_deleted_across_partition", on_both_sides(put, put));
    let loaded =
        vec![started(1, A), visible(2, A, &[]), fault(3, Fault::PowerLoss(PowerLoss { node: A }))];
    never("load_interrupted_by_crash", loaded);
    let not_running = vec![pool(0, false), pool(1, true), started(2, A), visible(3, A, &[])];
    never("pool_came_online_late", not_running);
    let never_lost = vec![reconciles(1, B), state(2, A, B, ConnectionState::Connected)];
    never("reconnected_before_next_reconciliation", never_lost);
    let there = vec![started(0, B), visible(1, B, &[]), reconciles(2, B)];
    never("reconciliation_with_unloaded_peer", there);
}
