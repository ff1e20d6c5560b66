//! Each scenario passes, and each detects that the situation that it shows did not occur.
//!
//! The second half validates the first: a plan is run with its faults removed or changed, and
//! checked as if it had been run unchanged. The expectation must fail.
#![allow(clippy::expect_used, clippy::panic)]

use sim::fault::{Bounce, Cut, CutOneWay, Hold, PowerLoss, Repair, Resume, Skew, Slow};
use sim::plan::{
    ClockWhilePaused, Fault, Load, LockPlan, Node, Plan, PlannedHandlerEnd, PlannedLockEnd,
    RequestPlan, StreamPlan,
};
use sim::scenarios;

use scenario_assertions::{assert_passes, assert_violates};

mod scenario_assertions;

fn remove_faults(plan: &mut Plan, is_selected: impl Fn(&Fault) -> bool) {
    plan.faults.retain(|(_, fault)| !is_selected(fault));
}

fn is_repair(fault: &Fault) -> bool {
    matches!(fault, Fault::Repair(_))
}

fn requests(plan: &mut Plan) -> impl Iterator<Item = &mut RequestPlan> {
    plan.load.iter_mut().filter_map(|(_, load)| match load {
        Load::Request(request) => Some(request),
        Load::Stream(_) | Load::Lock(_) | Load::Force(_) | Load::Change(_) => None,
    })
}

fn streams(plan: &mut Plan) -> impl Iterator<Item = &mut StreamPlan> {
    plan.load.iter_mut().filter_map(|(_, load)| match load {
        Load::Stream(stream) => Some(stream),
        Load::Request(_) | Load::Lock(_) | Load::Force(_) | Load::Change(_) => None,
    })
}

fn lock_plans(plan: &mut Plan) -> impl Iterator<Item = &mut LockPlan> {
    plan.load.iter_mut().filter_map(|(_, load)| match load {
        Load::Lock(lock) => Some(lock),
        Load::Request(_) | Load::Stream(_) | Load::Force(_) | Load::Change(_) => None,
    })
}

#[test]
fn scenarios_are_sorted_by_name_and_swarm_is_last() {
    let names: Vec<_> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
    let (last, others) = names.split_last().expect("there are scenarios");
    assert_eq!(*last, "swarm");
    assert!(others.is_sorted(), "{others:?}");
    assert!(scenarios::ALL.iter().all(|scenario| scenario.about.len() < 100));
}

#[test]
fn big_and_small_passes() {
    assert_passes("big_and_small");
}

#[test]
fn cancel_storm_passes() {
    assert_passes("cancel_storm");
}

#[test]
fn clock_skew_passes() {
    assert_passes("clock_skew");
}

#[test]
fn flapping_link_passes() {
    assert_passes("flapping_link");
}

#[test]
fn full_queue_then_cancel_passes() {
    assert_passes("full_queue_then_cancel");
}

#[test]
fn full_queue_then_cancel_detects_violations() {
    assert_violates("full_queue_then_cancel", "no message waits", |plan| {
        streams(plan).for_each(|stream| stream.up = 1);
    });
    assert_violates("full_queue_then_cancel", "must be cancelled by", |plan| {
        // The link is repaired later than planned.
        plan.faults
            .iter_mut()
            .filter(|(_, fault)| is_repair(fault))
            .for_each(|(at, _)| *at += 2_000);
    });
}

#[test]
fn full_queue_then_disconnect_passes() {
    assert_passes("full_queue_then_disconnect");
}

#[test]
fn half_open_peer_passes() {
    assert_passes("half_open_peer");
}

#[test]
fn late_node_passes() {
    assert_passes("late_node");
}

#[test]
fn locks_passes() {
    assert_passes("locks");
}

#[test]
fn locks_contention_passes() {
    assert_passes("locks_contention");
}

#[test]
fn locks_cut_off_holder_passes() {
    assert_passes("locks_cut_off_holder");
}

#[test]
fn locks_dead_holder_passes() {
    assert_passes("locks_dead_holder");
}

#[test]
fn locks_force_unlock_passes() {
    assert_passes("locks_force_unlock");
}

#[test]
fn locks_locker_restarts_passes() {
    assert_passes("locks_locker_restarts");
}

#[test]
fn locks_slow_locker_passes() {
    assert_passes("locks_slow_locker");
}

#[test]
fn locks_stopped_holder_passes() {
    assert_passes("locks_stopped_holder");
}

#[test]
fn locks_suspended_holder_passes() {
    assert_passes("locks_suspended_holder");
}

#[test]
fn locks_wrong_clocks_passes() {
    assert_passes("locks_wrong_clocks");
}

#[test]
fn one_way_cut_passes() {
    assert_passes("one_way_cut");
}

#[test]
fn partition_heals_passes() {
    assert_passes("partition_heals");
}

#[test]
fn reconnect_storm_passes() {
    assert_passes("reconnect_storm");
}

#[test]
fn rolling_restart_passes() {
    assert_passes("rolling_restart");
}

#[test]
fn slow_reader_passes() {
    assert_passes("slow_reader");
}

#[test]
fn swarm_passes() {
    assert_passes("swarm");
}

#[test]
fn wrong_token_passes() {
    assert_passes("wrong_token");
}

#[test]
fn big_and_small_detects_violations() {
    assert_violates("big_and_small", "must complete within", |plan| {
        requests(plan).filter(|request| request.bytes == 100).for_each(|small| small.work_ms = 200);
    });
    assert_violates("big_and_small", "0 large messages were written", |plan| {
        requests(plan).for_each(|request| (request.bytes, request.response_bytes) = (100, 100));
    });
}

#[test]
fn cancel_storm_detects_violations() {
    assert_violates("cancel_storm", "must be cancelled", |plan| {
        requests(plan).for_each(|request| {
            request.cancel_after_ms = None;
            request.ending = PlannedHandlerEnd::Success;
        });
    });
    assert_violates("cancel_storm", "must complete", |plan| {
        let mut kept = requests(plan).filter(|request| request.cancel_after_ms.is_none());
        kept.next().expect("there are others").ending = PlannedHandlerEnd::Error;
    });
}

#[test]
fn clock_skew_detects_violations() {
    let is_wrong =
        |fault: &Fault| matches!(fault, Fault::Skew(Skew { ms, .. }) if ms.abs() > 300_000);
    assert_violates("clock_skew", "must not be connected", |plan| remove_faults(plan, is_wrong));
    assert_violates("clock_skew", "must be connected to", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::Skew(Skew { ms: 0, .. })));
    });
    assert_violates("clock_skew", "must be connected to", |plan| {
        // Now the imprecise clock is wrong as well.
        for (_, fault) in &mut plan.faults {
            if let Fault::Skew(Skew { ms, .. }) = fault
                && *ms != 0
                && ms.abs() < 300_000
            {
                *ms = -2_000_000;
            }
        }
    });
    assert_violates("clock_skew", "times to connect to", |plan| {
        plan.cluster.limits.backoff_max_ms = Some(200);
    });
}

#[test]
fn flapping_link_detects_violations() {
    assert_violates("flapping_link", "must lose", |plan| plan.faults.truncate(2));
    assert_violates("flapping_link", "must be connected to", |plan| {
        plan.faults.truncate(plan.faults.len() - 1);
    });
    assert_violates("flapping_link", "times to connect to", |plan| {
        plan.cluster.limits.backoff_max_ms = Some(200);
    });
}

#[test]
fn full_queue_then_disconnect_detects_violations() {
    assert_violates("full_queue_then_disconnect", "no message of Caller waits", |plan| {
        plan.cluster.limits.queue_bytes_max = None;
    });
    assert_violates("full_queue_then_disconnect", "must detect that", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::Cut(_)));
    });
    assert_violates("full_queue_then_disconnect", "must be connected to", |plan| {
        remove_faults(plan, is_repair);
    });
}

#[test]
fn half_open_peer_detects_violations() {
    assert_violates("half_open_peer", "must detect the dead connection", |plan| {
        // Held and released: all messages arrive, late.
        for (_, fault) in &mut plan.faults {
            if let Fault::Cut(Cut { a, b }) = *fault {
                *fault = Fault::Hold(Hold { a, b });
            }
        }
    });
    assert_violates("half_open_peer", "must detect the dead connection", |plan| {
        plan.cluster.limits.ping_interval_ms = Some(5_000);
    });
    assert_violates("half_open_peer", "must be connected to", |plan| {
        remove_faults(plan, is_repair);
    });
}

#[test]
fn late_node_detects_violations() {
    assert_violates("late_node", "must start once, after", |plan| plan.cluster.late.clear());
    assert_violates("late_node", "must complete", |plan| {
        let late = plan.cluster.late[0].0;
        let request = requests(plan).filter(|request| request.to == late).last();
        request.expect("a request to it").ending = PlannedHandlerEnd::Error;
    });
    assert_violates("late_node", "must be connected to", |plan| {
        let (late, at_ms) = plan.cluster.late[0];
        let other = Node(u8::from(late == Node(0)));
        plan.faults.push((at_ms - 1_000, Fault::Cut(Cut { a: late, b: other })));
    });
}

#[test]
fn locks_contention_detects_violations() {
    assert_violates("locks_contention", "must not be granted on the smaller side", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::Cut(_)));
    });
    assert_violates("locks_contention", "must be granted", |plan| {
        // The partition is never repaired.
        plan.faults.retain(|(at, fault)| *at > 30_000 || !is_repair(fault));
    });
    assert_violates("locks_contention", "are too few", |plan| plan.load.truncate(40));
}

#[test]
fn locks_cut_off_holder_detects_violations() {
    let is_cut = |fault: &Fault| matches!(fault, Fault::Cut(_) | Fault::CutOneWay(_));
    assert_violates("locks_cut_off_holder", "must be lost, and its holder must notice", |plan| {
        remove_faults(plan, is_cut);
    });
    assert_violates("locks_cut_off_holder", "must be lost, and its holder must notice", |plan| {
        // The holder is reachable again long before its lease expires.
        plan.faults
            .iter_mut()
            .filter(|(_, fault)| is_repair(fault))
            .for_each(|(at, _)| *at = 12_000);
        plan.faults.sort_by_key(|(at, _)| *at);
    });
    assert_violates("locks_cut_off_holder", "in time", |plan| {
        plan.faults.iter_mut().filter(|(_, fault)| is_cut(fault)).for_each(|(at, _)| *at += 8_000);
        plan.faults.sort_by_key(|(at, _)| *at);
    });
    assert_violates("locks_cut_off_holder", "must be granted", |plan| {
        lock_plans(plan).for_each(|lock| lock.timeout_ms = 3_000);
    });
}

#[test]
fn locks_dead_holder_detects_violations() {
    assert_violates("locks_dead_holder", "must be held until its process dies", |plan| {
        plan.faults.clear();
    });
    assert_violates("locks_dead_holder", "must not be granted before the lease expires", |plan| {
        // As if its last refresh had been long ago, for the lockers only.
        plan.cluster.locks.as_mut().expect("it has locks").lease_ms = 4_000;
        plan.cluster.locks.as_mut().expect("it has locks").refresh_ms = 500;
    });
    assert_violates("locks_dead_holder", "must be granted", |plan| {
        // The next holder never releases the lock.
        lock_plans(plan).for_each(|lock| lock.ending = PlannedLockEnd::HoldUntilLost);
    });
}

#[test]
fn locks_force_unlock_detects_violations() {
    assert_violates("locks_force_unlock", "no locker had a grant", |plan| {
        plan.load.retain(|(_, load)| !matches!(load, Load::Force(_)));
    });
    assert_violates("locks_force_unlock", "must be lost between", |plan| {
        plan.faults.clear();
        for (at, load) in &mut plan.load {
            *at += if matches!(load, Load::Force(_)) { 20_000 } else { 0 };
        }
    });
    assert_violates("locks_force_unlock", "must be granted", |plan| {
        lock_plans(plan).for_each(|lock| lock.timeout_ms = 1_000);
    });
}

#[test]
fn locks_locker_restarts_detects_violations() {
    let holder = Node(5);
    assert_violates("locks_locker_restarts", "must be kept", |plan| {
        for b in (0..5).map(Node) {
            plan.faults.insert(0, (9_000, Fault::Cut(Cut { a: holder, b })));
        }
    });
    assert_violates(
        "locks_locker_restarts",
        "must not be granted while another holds it",
        |plan| {
            lock_plans(plan).for_each(|lock| lock.ending = PlannedLockEnd::Unlock);
        },
    );
    assert_violates("locks_locker_restarts", "must be granted", |plan| {
        for b in (0..5).map(Node) {
            plan.faults.push((12_200, Fault::Hold(Hold { a: Node(6), b })));
            plan.faults.push((36_000, Fault::Repair(Repair { a: Node(6), b })));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
    });
}

#[test]
fn locks_slow_locker_detects_violations() {
    assert_violates("locks_slow_locker", "must be granted", |plan| {
        for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
            plan.faults.push((4_000, Fault::Slow(Slow { a: Node(a), b: Node(b), ms: 1_000 })));
        }
    });
    assert_violates("locks_slow_locker", "locks took longer than", |plan| {
        lock_plans(plan).for_each(|lock| lock.hold_ms = 600);
    });
}

#[test]
fn locks_stopped_holder_detects_violations() {
    let is_resume = |fault: &Fault| matches!(fault, Fault::Resume(_));
    assert_violates("locks_stopped_holder", "must be noticed as lost", |plan| {
        plan.faults.iter_mut().filter(|(_, f)| is_resume(f)).for_each(|(at, _)| *at += 3_000);
    });
    assert_violates("locks_stopped_holder", "must be lost, and its holder must notice", |plan| {
        // The holder cannot measure the pause.
        for (_, fault) in &mut plan.faults {
            if let Fault::Resume(Resume { clock, .. }) = fault {
                *clock = ClockWhilePaused::Frozen;
            }
        }
    });
    assert_violates("locks_stopped_holder", "must be lost, and its holder must notice", |plan| {
        plan.faults.iter_mut().filter(|(_, f)| is_resume(f)).for_each(|(at, _)| *at -= 80_000);
    });
    assert_violates("locks_stopped_holder", "must be granted", |plan| {
        lock_plans(plan).for_each(|lock| lock.timeout_ms = 30_000);
    });
}

#[test]
fn locks_suspended_holder_detects_violations() {
    assert_violates("locks_suspended_holder", "must reach the store", |plan| {
        // With a running clock the holder detects the loss.
        for (_, fault) in &mut plan.faults {
            if let Fault::Resume(Resume { clock, .. }) = fault {
                *clock = ClockWhilePaused::Ran;
            }
        }
    });
    assert_violates("locks_suspended_holder", "must be granted", |plan| {
        let is_resume = |fault: &Fault| matches!(fault, Fault::Resume(_));
        plan.faults.iter_mut().filter(|(_, f)| is_resume(f)).for_each(|(at, _)| *at -= 20_000);
        plan.faults.sort_by_key(|(at, _)| *at);
    });
    assert_violates("locks_suspended_holder", "must be kept", |plan| {
        let other = lock_plans(plan).last().expect("it has two").on;
        for b in (0..4).map(Node).filter(|b| *b != other) {
            plan.faults.push((31_000, Fault::Cut(Cut { a: other, b })));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
    });
}

#[test]
fn locks_wrong_clocks_detects_violations() {
    assert_violates("locks_wrong_clocks", "has a token that is 0 ms ahead", |plan| {
        remove_faults(plan, |fault| matches!(fault, Fault::Skew(_)));
    });
    assert_violates("locks_wrong_clocks", "must be granted", |plan| {
        plan.faults.push((16_000, Fault::Cut(Cut { a: Node(1), b: Node(2) })));
    });
}

#[test]
fn one_way_cut_detects_violations() {
    assert_violates("one_way_cut", "must detect that", |plan| plan.faults.clear());
    assert_violates("one_way_cut", "must detect that", |plan| {
        plan.cluster.limits.ping_interval_ms = Some(5_000);
    });
    assert_violates("one_way_cut", "must be connected to", |plan| remove_faults(plan, is_repair));
    assert_violates("one_way_cut", "must stay connected", |plan| {
        // Another pair has a fault too.
        let Fault::CutOneWay(CutOneWay { from, to }) = plan.faults[0].1 else {
            panic!("it begins so")
        };
        let other = (0..4).map(Node).find(|node| ![from, to].contains(node)).expect("of four");
        plan.faults.insert(0, (4_000, Fault::PowerLoss(PowerLoss { node: other })));
    });
}

#[test]
fn partition_heals_detects_violations() {
    assert_violates("partition_heals", "ended: not connected", |plan| {
        remove_faults(plan, is_repair);
    });
}

#[test]
fn reconnect_storm_detects_violations() {
    assert_violates("reconnect_storm", "all must return by", |plan| {
        plan.faults.truncate(plan.faults.len() - 1);
    });
    assert_violates("reconnect_storm", "must start twice", |plan| {
        remove_faults(plan, |fault| *fault == Fault::PowerLoss(PowerLoss { node: Node(4) }));
    });
    assert_violates("reconnect_storm", "must be connected to", |plan| {
        plan.faults.insert(0, (1_000, Fault::Cut(Cut { a: Node(2), b: Node(5) })));
    });
}

#[test]
fn rolling_restart_detects_violations() {
    assert_violates("rolling_restart", "must complete", |plan| {
        for (_, fault) in &mut plan.faults {
            if let Fault::Bounce(Bounce { grace_ms, .. }) = fault {
                *grace_ms = 0;
            }
        }
    });
    assert_violates("rolling_restart", "must start twice", |plan| {
        plan.faults.truncate(plan.faults.len() - 1);
    });
    assert_violates("rolling_restart", "must stay connected", |plan| {
        // Two nodes lose each other while others restart.
        let (a, b) = (Node(0), Node(1));
        plan.faults.push((16_000, Fault::Cut(Cut { a, b })));
        plan.faults.push((30_000, Fault::Repair(Repair { a, b })));
        plan.faults.sort_by_key(|(at_ms, _)| *at_ms);
    });
}

#[test]
fn slow_reader_detects_violations() {
    assert_violates("slow_reader", "has credit for", |plan| {
        streams(plan).for_each(|stream| stream.receive_pace_ms = Some(0));
    });
    assert_violates("slow_reader", "must complete within", |plan| {
        let (a, b) = (Node(0), Node(1));
        plan.faults.push((10_000, Fault::Hold(Hold { a, b })));
        plan.faults.push((10_300, Fault::Repair(Repair { a, b })));
    });
    assert_violates("slow_reader", "has a handler that must be cancelled", |plan| {
        streams(plan).filter(|stream| stream.receive_pace_ms.is_none()).for_each(|stream| {
            stream.timeout_ms = Some(5_000);
        });
    });
}

#[test]
fn wrong_token_detects_violations() {
    assert_violates("wrong_token", "must be refused at once", |plan| {
        plan.cluster.wrong_secret_nodes.clear();
    });
    assert_violates("wrong_token", "must be connected to", |plan| {
        let other = Node(u8::from(plan.cluster.wrong_secret_nodes[0] == Node(0)));
        plan.cluster.wrong_secret_nodes.push(other);
    });
    assert_violates("wrong_token", "times to connect to", |plan| {
        plan.cluster.limits.backoff_max_ms = Some(200);
    });
}
