//! Each scenario holds, and each would fail if what it shows did not happen.
//!
//! The second half is what gives the first its worth: a plan is run with its trouble left out or
//! changed, and judged as if it had been run as it was. The expectation must see that.
#![allow(clippy::expect_used, clippy::panic)]

use sim::plan::{
    ClockWhilePaused, Fault, HandlerEnding, Load, LockEnding, LockPlan, Node, Plan, RequestPlan,
    StreamPlan,
};
use sim::scenarios;

use judge::{bites, holds};

mod judge;

fn leave_out(plan: &mut Plan, is_meant: impl Fn(&Fault) -> bool) {
    plan.faults.retain(|(_, fault)| !is_meant(fault));
}

fn is_repair(fault: &Fault) -> bool {
    matches!(fault, Fault::Repair { .. })
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
fn scenarios_are_in_the_order_of_their_names_and_swarm_is_last() {
    let names: Vec<_> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
    let (last, others) = names.split_last().expect("there are scenarios");
    assert_eq!(*last, "swarm");
    assert!(others.is_sorted(), "{others:?}");
    assert!(scenarios::ALL.iter().all(|scenario| scenario.about.len() < 100));
}

#[test]
fn big_and_small_holds() {
    holds("big_and_small");
}

#[test]
fn cancel_storm_holds() {
    holds("cancel_storm");
}

#[test]
fn clock_skew_holds() {
    holds("clock_skew");
}

#[test]
fn flapping_link_holds() {
    holds("flapping_link");
}

#[test]
fn full_queue_then_cancel_holds() {
    holds("full_queue_then_cancel");
}

#[test]
fn full_queue_then_cancel_bites() {
    bites("full_queue_then_cancel", "no message waits", |plan| {
        streams(plan).for_each(|stream| stream.up = 1);
    });
    bites("full_queue_then_cancel", "must be cancelled by", |plan| {
        // The link goes on later than it should.
        plan.faults
            .iter_mut()
            .filter(|(_, fault)| is_repair(fault))
            .for_each(|(at, _)| *at += 2_000);
    });
}

#[test]
fn full_queue_then_disconnect_holds() {
    holds("full_queue_then_disconnect");
}

#[test]
fn half_open_peer_holds() {
    holds("half_open_peer");
}

#[test]
fn late_node_holds() {
    holds("late_node");
}

#[test]
fn locks_holds() {
    holds("locks");
}

#[test]
fn locks_contention_holds() {
    holds("locks_contention");
}

#[test]
fn locks_cut_off_holder_holds() {
    holds("locks_cut_off_holder");
}

#[test]
fn locks_dead_holder_holds() {
    holds("locks_dead_holder");
}

#[test]
fn locks_force_unlock_holds() {
    holds("locks_force_unlock");
}

#[test]
fn locks_locker_restarts_holds() {
    holds("locks_locker_restarts");
}

#[test]
fn locks_slow_locker_holds() {
    holds("locks_slow_locker");
}

#[test]
fn locks_stopped_holder_holds() {
    holds("locks_stopped_holder");
}

#[test]
fn locks_suspended_holder_holds() {
    holds("locks_suspended_holder");
}

#[test]
fn locks_wrong_clocks_holds() {
    holds("locks_wrong_clocks");
}

#[test]
fn one_way_cut_holds() {
    holds("one_way_cut");
}

#[test]
fn partition_heals_holds() {
    holds("partition_heals");
}

#[test]
fn reconnect_storm_holds() {
    holds("reconnect_storm");
}

#[test]
fn rolling_restart_holds() {
    holds("rolling_restart");
}

#[test]
fn slow_reader_holds() {
    holds("slow_reader");
}

#[test]
fn swarm_holds() {
    holds("swarm");
}

#[test]
fn wrong_token_holds() {
    holds("wrong_token");
}

#[test]
fn big_and_small_bites() {
    bites("big_and_small", "must be answered within", |plan| {
        requests(plan).filter(|request| request.bytes == 100).for_each(|small| small.work_ms = 200);
    });
    bites("big_and_small", "0 big messages were written", |plan| {
        requests(plan).for_each(|request| (request.bytes, request.response_bytes) = (100, 100));
    });
}

#[test]
fn cancel_storm_bites() {
    bites("cancel_storm", "must be given up", |plan| {
        requests(plan).for_each(|request| {
            request.cancel_after_ms = None;
            request.ending = HandlerEnding::Success;
        });
    });
    bites("cancel_storm", "must be answered", |plan| {
        let mut kept = requests(plan).filter(|request| request.cancel_after_ms.is_none());
        kept.next().expect("there are others").ending = HandlerEnding::Error;
    });
}

#[test]
fn clock_skew_bites() {
    let is_wrong = |fault: &Fault| matches!(fault, Fault::Skew { ms, .. } if ms.abs() > 300_000);
    bites("clock_skew", "must not be connected", |plan| leave_out(plan, is_wrong));
    bites("clock_skew", "must be connected to", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::Skew { ms: 0, .. }));
    });
    bites("clock_skew", "must be connected to", |plan| {
        // Now the imprecise clock is wrong as well.
        for (_, fault) in &mut plan.faults {
            if let Fault::Skew { ms, .. } = fault
                && *ms != 0
                && ms.abs() < 300_000
            {
                *ms = -2_000_000;
            }
        }
    });
    bites("clock_skew", "times to connect to", |plan| {
        plan.cluster.limits.backoff_max_ms = Some(200);
    });
}

#[test]
fn flapping_link_bites() {
    bites("flapping_link", "must lose", |plan| plan.faults.truncate(2));
    bites("flapping_link", "must be connected to", |plan| {
        plan.faults.truncate(plan.faults.len() - 1);
    });
    bites("flapping_link", "times to connect to", |plan| {
        plan.cluster.limits.backoff_max_ms = Some(200);
    });
}

#[test]
fn full_queue_then_disconnect_bites() {
    bites("full_queue_then_disconnect", "no message of Caller waits", |plan| {
        plan.cluster.limits.queue_bytes_max = None;
    });
    bites("full_queue_then_disconnect", "must find that", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::Cut { .. }));
    });
    bites("full_queue_then_disconnect", "must be connected to", |plan| leave_out(plan, is_repair));
}

#[test]
fn half_open_peer_bites() {
    bites("half_open_peer", "must find the dead connection", |plan| {
        // Held and released: all arrives, late.
        for (_, fault) in &mut plan.faults {
            if let Fault::Cut { a, b } = *fault {
                *fault = Fault::Hold { a, b };
            }
        }
    });
    bites("half_open_peer", "must find the dead connection", |plan| {
        plan.cluster.limits.ping_interval_ms = Some(5_000);
    });
    bites("half_open_peer", "must be connected to", |plan| leave_out(plan, is_repair));
}

#[test]
fn late_node_bites() {
    bites("late_node", "must start once, after", |plan| plan.cluster.late.clear());
    bites("late_node", "must be answered", |plan| {
        let late = plan.cluster.late[0].0;
        let request = requests(plan).filter(|request| request.to == late).last();
        request.expect("it is asked").ending = HandlerEnding::Error;
    });
    bites("late_node", "must be connected to", |plan| {
        let (late, at_ms) = plan.cluster.late[0];
        let other = Node(u8::from(late == Node(0)));
        plan.faults.push((at_ms - 1_000, Fault::Cut { a: late, b: other }));
    });
}

#[test]
fn locks_contention_bites() {
    bites("locks_contention", "must not be granted on the smaller side", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::Cut { .. }));
    });
    bites("locks_contention", "must be granted", |plan| {
        // They stay apart.
        plan.faults.retain(|(at, fault)| *at > 30_000 || !is_repair(fault));
    });
    bites("locks_contention", "are too few", |plan| plan.load.truncate(40));
}

#[test]
fn locks_cut_off_holder_bites() {
    let is_cut = |fault: &Fault| matches!(fault, Fault::Cut { .. } | Fault::CutOneWay { .. });
    bites("locks_cut_off_holder", "must be lost, and its holder know", |plan| {
        leave_out(plan, is_cut);
    });
    bites("locks_cut_off_holder", "must be lost, and its holder know", |plan| {
        // Long before its lease is over it is heard again.
        plan.faults
            .iter_mut()
            .filter(|(_, fault)| is_repair(fault))
            .for_each(|(at, _)| *at = 12_000);
        plan.faults.sort_by_key(|(at, _)| *at);
    });
    bites("locks_cut_off_holder", "in time", |plan| {
        plan.faults.iter_mut().filter(|(_, fault)| is_cut(fault)).for_each(|(at, _)| *at += 8_000);
        plan.faults.sort_by_key(|(at, _)| *at);
    });
    bites("locks_cut_off_holder", "must be granted", |plan| {
        lock_plans(plan).for_each(|lock| lock.timeout_ms = 3_000);
    });
}

#[test]
fn locks_dead_holder_bites() {
    bites("locks_dead_holder", "must be held until its process dies", |plan| plan.faults.clear());
    bites("locks_dead_holder", "must not be granted before the lease is over", |plan| {
        // As if its last refresh had been long ago, for the lockers alone.
        plan.cluster.locks.as_mut().expect("it has locks").lease_ms = 4_000;
        plan.cluster.locks.as_mut().expect("it has locks").refresh_ms = 500;
    });
    bites("locks_dead_holder", "must be granted", |plan| {
        // Whoever is next never lets go.
        lock_plans(plan).for_each(|lock| lock.ending = LockEnding::HoldUntilLost);
    });
}

#[test]
fn locks_force_unlock_bites() {
    bites("locks_force_unlock", "no locker had anything", |plan| {
        plan.load.retain(|(_, load)| !matches!(load, Load::Force(_)));
    });
    bites("locks_force_unlock", "must be lost between", |plan| {
        plan.faults.clear();
        for (at, load) in &mut plan.load {
            *at += if matches!(load, Load::Force(_)) { 20_000 } else { 0 };
        }
    });
    bites("locks_force_unlock", "must be granted", |plan| {
        lock_plans(plan).for_each(|lock| lock.timeout_ms = 1_000);
    });
}

#[test]
fn locks_locker_restarts_bites() {
    let holder = Node(5);
    bites("locks_locker_restarts", "must be kept", |plan| {
        for b in (0..5).map(Node) {
            plan.faults.insert(0, (9_000, Fault::Cut { a: holder, b }));
        }
    });
    bites("locks_locker_restarts", "must not be granted while another holds it", |plan| {
        lock_plans(plan).for_each(|lock| lock.ending = LockEnding::Unlock);
    });
    bites("locks_locker_restarts", "must be granted", |plan| {
        for b in (0..5).map(Node) {
            plan.faults.push((12_200, Fault::Hold { a: Node(6), b }));
            plan.faults.push((36_000, Fault::Repair { a: Node(6), b }));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
    });
}

#[test]
fn locks_slow_locker_bites() {
    bites("locks_slow_locker", "must be granted", |plan| {
        for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
            plan.faults.push((4_000, Fault::Slow { a: Node(a), b: Node(b), ms: 1_000 }));
        }
    });
    bites("locks_slow_locker", "locks took longer than", |plan| {
        lock_plans(plan).for_each(|lock| lock.hold_ms = 600);
    });
}

#[test]
fn locks_stopped_holder_bites() {
    let is_resume = |fault: &Fault| matches!(fault, Fault::Resume { .. });
    bites("locks_stopped_holder", "must be seen to be lost", |plan| {
        plan.faults.iter_mut().filter(|(_, f)| is_resume(f)).for_each(|(at, _)| *at += 3_000);
    });
    bites("locks_stopped_holder", "must be lost, and its holder know", |plan| {
        // It cannot see how long that was.
        for (_, fault) in &mut plan.faults {
            if let Fault::Resume { clock, .. } = fault {
                *clock = ClockWhilePaused::Frozen;
            }
        }
    });
    bites("locks_stopped_holder", "must be lost, and its holder know", |plan| {
        plan.faults.iter_mut().filter(|(_, f)| is_resume(f)).for_each(|(at, _)| *at -= 80_000);
    });
    bites("locks_stopped_holder", "must be granted", |plan| {
        lock_plans(plan).for_each(|lock| lock.timeout_ms = 30_000);
    });
}

#[test]
fn locks_suspended_holder_bites() {
    bites("locks_suspended_holder", "must come to the store", |plan| {
        // With a clock that runs on it knows.
        for (_, fault) in &mut plan.faults {
            if let Fault::Resume { clock, .. } = fault {
                *clock = ClockWhilePaused::Ran;
            }
        }
    });
    bites("locks_suspended_holder", "must be granted", |plan| {
        let is_resume = |fault: &Fault| matches!(fault, Fault::Resume { .. });
        plan.faults.iter_mut().filter(|(_, f)| is_resume(f)).for_each(|(at, _)| *at -= 20_000);
        plan.faults.sort_by_key(|(at, _)| *at);
    });
    bites("locks_suspended_holder", "must be kept", |plan| {
        let other = lock_plans(plan).last().expect("it has two").on;
        for b in (0..4).map(Node).filter(|b| *b != other) {
            plan.faults.push((31_000, Fault::Cut { a: other, b }));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
    });
}

#[test]
fn locks_wrong_clocks_bites() {
    bites("locks_wrong_clocks", "has a token that is 0 ms ahead", |plan| {
        leave_out(plan, |fault| matches!(fault, Fault::Skew { .. }));
    });
    bites("locks_wrong_clocks", "must be granted", |plan| {
        plan.faults.push((16_000, Fault::Cut { a: Node(1), b: Node(2) }));
    });
}

#[test]
fn one_way_cut_bites() {
    bites("one_way_cut", "must find that", |plan| plan.faults.clear());
    bites("one_way_cut", "must find that", |plan| {
        plan.cluster.limits.ping_interval_ms = Some(5_000);
    });
    bites("one_way_cut", "must be connected to", |plan| leave_out(plan, is_repair));
    bites("one_way_cut", "must stay connected", |plan| {
        // Another pair is touched.
        let Fault::CutOneWay { from, to } = plan.faults[0].1 else { panic!("it begins so") };
        let other = (0..4).map(Node).find(|node| ![from, to].contains(node)).expect("of four");
        plan.faults.insert(0, (4_000, Fault::PowerLoss { node: other }));
    });
}

#[test]
fn partition_heals_bites() {
    bites("partition_heals", "ended: not connected", |plan| leave_out(plan, is_repair));
}

#[test]
fn reconnect_storm_bites() {
    bites("reconnect_storm", "all must return by", |plan| {
        plan.faults.truncate(plan.faults.len() - 1);
    });
    bites("reconnect_storm", "must begin twice", |plan| {
        leave_out(plan, |fault| *fault == Fault::PowerLoss { node: Node(4) });
    });
    bites("reconnect_storm", "must be connected to", |plan| {
        plan.faults.insert(0, (1_000, Fault::Cut { a: Node(2), b: Node(5) }));
    });
}

#[test]
fn rolling_restart_bites() {
    bites("rolling_restart", "must be answered", |plan| {
        for (_, fault) in &mut plan.faults {
            if let Fault::Bounce { grace_ms, .. } = fault {
                *grace_ms = 0;
            }
        }
    });
    bites("rolling_restart", "must begin twice", |plan| {
        plan.faults.truncate(plan.faults.len() - 1);
    });
    bites("rolling_restart", "must stay connected", |plan| {
        // Two nodes lose each other while others restart.
        let (a, b) = (Node(0), Node(1));
        plan.faults.push((16_000, Fault::Cut { a, b }));
        plan.faults.push((30_000, Fault::Repair { a, b }));
        plan.faults.sort_by_key(|(at_ms, _)| *at_ms);
    });
}

#[test]
fn slow_reader_bites() {
    bites("slow_reader", "has credit for", |plan| {
        streams(plan).for_each(|stream| stream.receive_pace_ms = Some(0));
    });
    bites("slow_reader", "must be answered within", |plan| {
        let (a, b) = (Node(0), Node(1));
        plan.faults.push((10_000, Fault::Hold { a, b }));
        plan.faults.push((10_300, Fault::Repair { a, b }));
    });
    bites("slow_reader", "has a handler that must be cancelled", |plan| {
        streams(plan).filter(|stream| stream.receive_pace_ms.is_none()).for_each(|stream| {
            stream.timeout_ms = Some(5_000);
        });
    });
}

#[test]
fn wrong_token_bites() {
    bites("wrong_token", "must be refused at once", |plan| plan.cluster.wrong_secret_nodes.clear());
    bites("wrong_token", "must be connected to", |plan| {
        let other = Node(u8::from(plan.cluster.wrong_secret_nodes[0] == Node(0)));
        plan.cluster.wrong_secret_nodes.push(other);
    });
    bites("wrong_token", "times to connect to", |plan| {
        plan.cluster.limits.backoff_max_ms = Some(200);
    });
}
