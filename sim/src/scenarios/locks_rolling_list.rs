//! The list of lockers changes, one server after the other: from three of five to another three, or
//! from four to five. Meanwhile all nodes request one lock, as writers and readers.
//!
//! A quorum of the first list and one of the second need not share a locker. At no instant are
//! locks held under both ([B65]). Before the change and after it, locks are granted in time; in
//! between they may have to wait.
//!
//! [B65]: crate::rules#b65

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use super::lock_history::{lock, locks, new_locks_plan, turn_limit_ms};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::Bounce;
use crate::invariants::CheckResult;
use crate::plan::{Fault, FlagsPlan, Load, LockPlan, LocksPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_rolling_list",
    about: "servers restart with another list of lockers, one by one: no two lists are in use",
    plan,
    expect,
};

const NODES: u8 = 5;
const LEASE_MS: u32 = 5_000;
const DURATION_MS: u64 = 62_000;
/// Period of the restarts.
const CHANGE_MS: (u64, u64) = (8_000, 28_000);
/// The time by which all nodes have agreed on the second list: the last one has recovered, and
/// every lease of the first list is over.
const AGREED_MS: u64 = CHANGE_MS.1 + 2 * LEASE_MS as u64 + 6_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_locks_plan("locks_rolling_list", seed, NODES, DURATION_MS, LEASE_MS);
    let list = |range: std::ops::Range<u8>| range.map(Node).collect::<Vec<_>>();
    let (from, to) = match seed % 2 {
        0 => (list(0..3), list(2..5)),
        _ => (list(0..4), list(0..5)),
    };
    let mut order = list(0..NODES);
    order.shuffle(&mut rng);
    let every_ms = (CHANGE_MS.1 - CHANGE_MS.0) / u64::from(NODES);
    let restarts = order.into_iter().zip(0..).map(|(node, place)| {
        (CHANGE_MS.0 + place * every_ms + rng.random_range(0..every_ms / 2), node)
    });
    let restarts: Vec<_> = restarts.collect();
    for (at, node) in &restarts {
        plan.faults.push((*at, Fault::Bounce(Bounce { node: *node, grace_ms: 200 })));
    }
    if let Some(locks) = &mut plan.cluster.locks {
        configure(locks, (&from, &to), &restarts);
    }
    add_load(&mut plan, &mut rng);
    sort(&mut plan);
    plan
}

/// Gives all nodes the first list, and from its restart on each of them the second.
fn configure(locks: &mut LocksPlan, (from, to): (&[Node], &[Node]), restarts: &[(u64, Node)]) {
    let flags = |from_ms, node, lockers: &[Node]| FlagsPlan {
        node,
        from_ms,
        lockers: lockers.to_vec(),
        build: 0,
        root_user: 0,
    };
    let before = (0..NODES).map(|node| flags(0, Node(node), from));
    let after = restarts.iter().map(|(at, node)| flags(*at, *node, to));
    locks.flags = before.chain(after).collect();
    locks.lockers = to.to_vec();
}

fn add_load(plan: &mut Plan, rng: &mut SmallRng) {
    let mut at = 2_000;
    let mut turn = 0;
    while at < DURATION_MS - 8_000 {
        let is_quiet = at < CHANGE_MS.0 || at > AGREED_MS;
        let request = LockPlan {
            hold_ms: if is_quiet { 200 } else { rng.random_range(500..4_000) },
            timeout_ms: if is_quiet { 8_000 } else { 3_000 },
            write: rng.random_bool(0.5),
            ..lock(Node(turn % NODES))
        };
        plan.load.push((at, Load::Lock(request)));
        turn += 1;
        at += if is_quiet { 1_200 } else { rng.random_range(100..500) };
    }
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let bounds = Bounds::of(plan);
    let restarts =
        plan.faults.iter().filter(|(_, fault)| matches!(fault, Fault::Bounce(_))).count();
    if restarts < usize::from(NODES) {
        return Err("the plan lacks a restart".to_owned());
    }
    let (mut before, mut after) = (0, 0);
    for lock in locks(plan, events) {
        let Some(requested) = lock.requested_ms else { continue };
        let is_before = requested + 2_000 < CHANGE_MS.0;
        if is_before || requested > AGREED_MS {
            lock.must_be_granted_within(turn_limit_ms(&bounds))?;
            *(if is_before { &mut before } else { &mut after }) += 1;
        }
    }
    if before < 3 || after < 5 {
        return Err(format!("{before} locks before the change and {after} after it are too few"));
    }
    Ok(())
}
