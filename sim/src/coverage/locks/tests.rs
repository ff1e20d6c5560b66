use super::super::Coverage;
use super::*;
use crate::fault::{Pause, PowerLoss, Resume};
use crate::lock::{LockerView, LocksView};
use crate::plan::{ClockWhilePaused, Plan};
use crate::world::World;

const A: Node = Node(0);
const B: Node = Node(1);

/// Time, node and event.
type Step = (u64, Node, EventKind);

fn requested(call: CallId, resources: &[u8], write: bool) -> EventKind {
    EventKind::LockRequested { call, resources: resources.to_vec(), write, timeout_ms: 1_000 }
}

fn granted(call: CallId) -> EventKind {
    EventKind::LockGranted { call, resources: vec![0], write: true, token: 1, valid_ms: 1_000 }
}

/// Requests and obtains a lock of the first resource.
fn holds(call: CallId, node: Node, write: bool) -> [Step; 2] {
    [(1, node, requested(call, &[0], write)), (2, node, granted(call))]
}

fn ended(call: CallId, how: LockEnd) -> EventKind {
    EventKind::LockEnded { call, how }
}

fn failed_with(failure: LockFailure) -> Vec<Step> {
    vec![(1, A, requested(0, &[0], true)), (2, A, EventKind::LockFailed { call: 0, failure })]
}

fn fault(fault: Fault) -> Step {
    (3, A, EventKind::Fault { fault })
}

fn refused() -> Vec<Step> {
    let (call, resource, token, writer) = (0, 0, 1, true);
    let (value, accepted, held) = (None, false, true);
    vec![(9, A, EventKind::StoreReached { call, resource, token, writer, value, accepted, held })]
}

fn lost(notice: LossNotice) -> Step {
    (9, A, EventKind::LockLost { call: 0, notice })
}

/// Returns the events that reach a point.
fn reaching(point: &str) -> Vec<Step> {
    let held = || holds(0, A, true).to_vec();
    let and = |mut steps: Vec<Step>, more: Vec<Step>| {
        steps.extend(more);
        steps
    };
    let forced = || (8, B, EventKind::LockForced { call: 9, resource: 0, lockers: 2 });
    let after = |how| and(held(), vec![(3, A, ended(0, how)), (4, B, requested(1, &[0], true))]);
    let over = |how| vec![(9, A, ended(0, how))];
    match point {
        "lock_dropped" => and(held(), over(LockEnd::Dropped)),
        "lock_force_unlocked" => vec![forced()],
        "lock_cancelled" => failed_with(LockFailure::Cancelled),
        "lock_granted_after_holder_crashed" => {
            and(after(LockEnd::Crashed), vec![(5, B, granted(1))])
        }
        "lock_granted_after_holder_lost_it" => and(after(LockEnd::Lost), vec![(5, B, granted(1))]),
        "lock_granted_to_waiter" => {
            let waits = vec![(2, B, requested(1, &[0], true)), (3, A, ended(0, LockEnd::Unlocked))];
            and(and(held(), waits), vec![(4, B, granted(1))])
        }
        "lock_granted_while_another_holder_is_paused" => and(
            and(held(), vec![fault(Fault::Pause(Pause { node: A }))]),
            holds(1, B, true).to_vec(),
        ),
        "lock_kept_while_majority_of_lockers_crashed" => {
            let crashes =
                [Node(1), Node(2)].map(|node| fault(Fault::PowerLoss(PowerLoss { node })));
            and(and(held(), crashes.to_vec()), over(LockEnd::Unlocked))
        }
        "lock_kept_while_minority_of_lockers_crashed" => and(
            and(held(), vec![fault(Fault::PowerLoss(PowerLoss { node: B }))]),
            over(LockEnd::Dropped),
        ),
        "lock_loss_found_by_check" => and(held(), vec![lost(LossNotice::Checked)]),
        "lock_loss_notified" => and(held(), vec![lost(LossNotice::Notified)]),
        "lock_loss_by_force_unlock" => and(held(), vec![forced(), lost(LossNotice::Notified)]),
        "lock_of_several_resources" => {
            vec![(1, A, requested(0, &[0, 1], true)), (2, A, granted(0))]
        }
        "lock_timed_out" => failed_with(LockFailure::TimedOut),
        "lock_unlocked" => and(held(), over(LockEnd::Unlocked)),
        "lock_waiter_process_ended" => failed_with(LockFailure::Crashed),
        "concurrent_readers" => and(holds(0, A, false).to_vec(), holds(1, B, false).to_vec()),
        "store_rejected_holder" => refused(),
        _ => Vec::new(),
    }
}

/// Returns the views of three nodes, all of which are lockers.
fn views() -> Vec<NodeView> {
    let mut views = World::new(&Plan::quiet(3)).views();
    for view in &mut views {
        view.locks.locker = Some(LockerView { is_open: true, ..LockerView::default() });
    }
    views
}

fn reached(steps: &[Step]) -> Coverage {
    let mut coverage = Coverage::default();
    coverage.on_view(&views());
    for (at_ms, node, kind) in steps {
        coverage.on_event(&Event { at_ms: *at_ms, node: Some(*node), kind: kind.clone() }, None);
    }
    coverage
}

/// Returns whether a point is reached by events of locks, as opposed to views, faults and fault
/// points.
fn has_event_sequence(point: &str) -> bool {
    let elsewhere = ["token_took", "waiter_was", "locker_expired", "fault_", "buggify_"];
    !elsewhere.iter().any(|prefix| point.starts_with(prefix))
}

#[test]
fn each_point_is_reached_by_the_last_event_of_its_sequence() {
    for point in LOCK_POINTS.iter().filter(|point| has_event_sequence(point)) {
        let steps = reaching(point);
        let (last, before) = steps.split_last().unwrap_or_else(|| panic!("no events for {point}"));
        assert!(!reached(before).counts().contains_key(*point), "{point} before {last:?}");
        assert!(reached(&steps).counts().contains_key(*point), "{point}");
    }
}

#[test]
fn views_of_the_nodes_reach_points() {
    type Change = fn(&mut LocksView);
    let changes: [(&str, Change); 3] = [
        ("token_took_a_second_round", |locks| locks.second_rounds = 1),
        ("waiter_was_notified", |locks| locks.notifications = 1),
        ("locker_expired_unrefreshed_grant", |locks| {
            locks.locker = Some(LockerView { expired: 1, ..LockerView::default() });
        }),
    ];
    for (point, change) in changes {
        let (mut views, mut coverage) = (views(), Coverage::default());
        coverage.on_view(&views);
        assert!(coverage.missing(LOCK_POINTS).contains(&point));
        change(&mut views[0].locks);
        coverage.on_view(&views);
        assert!(!coverage.missing(LOCK_POINTS).contains(&point), "{point}");
    }
}

#[test]
fn similar_events_do_not_reach_a_point() {
    let node = A;
    let mut resumed = holds(0, A, true).to_vec();
    resumed.push(fault(Fault::Pause(Pause { node })));
    resumed.push(fault(Fault::Resume(Resume { node, clock: ClockWhilePaused::Ran })));
    resumed.extend(holds(1, B, true));
    let counts = reached(&resumed).counts().clone();
    assert!(!counts.contains_key("lock_granted_while_another_holder_is_paused"), "{counts:?}");
    let mut of_another = vec![(1, A, requested(0, &[1], false)), (2, A, granted(0))];
    of_another.extend(holds(1, B, false));
    assert!(!reached(&of_another).counts().contains_key("concurrent_readers"));
    let none = EventKind::LockForced { call: 9, resource: 0, lockers: 0 };
    assert!(!reached(&[(1, A, none)]).counts().contains_key("lock_force_unlocked"));
}
