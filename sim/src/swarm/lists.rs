//! Draws a plan of servers that restart with different lists of lockers from a seed.
//!
//! Each node begins with one of two or three lists, and changes it at restarts: by a clean one, or
//! by a power loss. Links fail meanwhile. Locks are requested all the time, everywhere.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{FAULT_PHASE_MS, draw_class, locks::lock_cluster};
use crate::draw::pick;
use crate::fault::{
    Bounce, Drawing, FaultClass, PowerLoss, Restart, cut, cut_one_way, drift, pause, slow,
};
use crate::plan::{Fault, FlagsPlan, Load, LockPlan, LocksPlan, Node, Plan, PlannedLockEnd};

/// Draws the plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let nodes = rng.random_range(3..=6);
    let lease_ms = pick(&mut rng, &[4_000, 6_000]);
    let lists: Vec<_> = (0..rng.random_range(2..=3)).map(|_| list(&mut rng, nodes)).collect();
    let (flags, restarts) = flags(&mut rng, nodes, &lists);
    let final_list = lists[rng.random_range(0..lists.len())].clone();
    let locks = LocksPlan { flags, ..LocksPlan::new(lease_ms, lease_ms / 6, final_list) };
    let cluster = lock_cluster(&mut rng, nodes, locks);
    let mut faults = faults(&mut rng, nodes, lease_ms);
    faults.extend(restarts);
    faults.sort_by_key(|(at, _)| *at);
    let load = load(&mut rng, nodes, lease_ms);
    Plan { scenario: "lists".to_owned(), seed, cluster, duration_ms: FAULT_PHASE_MS, faults, load }
}

fn list(rng: &mut impl Rng, nodes: u8) -> Vec<Node> {
    let some: Vec<_> = (0..nodes).filter(|_| rng.random_bool(0.6)).map(Node).collect();
    if some.is_empty() { vec![Node(rng.random_range(0..nodes))] } else { some }
}

/// Draws the flags of all processes, and the restarts with which they change.
fn flags(
    rng: &mut impl Rng,
    nodes: u8,
    lists: &[Vec<Node>],
) -> (Vec<FlagsPlan>, Vec<(u64, Fault)>) {
    let (mut flags, mut restarts) = (Vec::new(), Vec::new());
    // Most begin with one list, so that there is something to change.
    let usual = pick(rng, &[0.6, 0.9, 1.0]);
    flags.extend((0..nodes).map(|node| choose(rng, lists, (Node(node), 0), usual)));
    let is_rolling = rng.random_bool(0.5);
    for node in (0..nodes).map(Node) {
        if !is_rolling && rng.random_bool(0.5) {
            continue;
        }
        let at = rng.random_range(4_000..FAULT_PHASE_MS - 4_000);
        flags.push(choose(rng, lists, (node, at), 0.1));
        if rng.random_bool(0.6) {
            restarts.push((at, Bounce { node, grace_ms: pick(rng, &[0, 200]) }.into()));
        } else {
            restarts.push((at, PowerLoss { node }.into()));
            restarts.push((at + pick(rng, &[50, 500, 3_000]), Restart { node }.into()));
        }
    }
    flags.sort_by_key(|flags| flags.from_ms);
    (flags, restarts)
}

/// Draws the flags of a node's processes from a time on: with probability `usual` the first list.
fn choose(
    rng: &mut impl Rng,
    lists: &[Vec<Node>],
    (node, from_ms): (Node, u64),
    usual: f64,
) -> FlagsPlan {
    let other = rng.random_range(0..lists.len());
    let index = if rng.random_bool(usual) { 0 } else { other };
    let build = pick(rng, &[0, 0, 1]);
    let root_user = pick(rng, &[0, 0, 0, 0, 0, 1]);
    FlagsPlan { node, from_ms, lockers: lists[index].clone(), build, root_user }
}

const FAULTS: [FaultClass; 6] =
    [cut::CUT, cut_one_way::CUT_ONE_WAY, slow::SLOW, cut::CUT_OFF, drift::DRIFT, pause::PAUSE];

fn faults(rng: &mut SmallRng, nodes: u8, lease_ms: u32) -> Vec<(u64, Fault)> {
    let mut drawing = Drawing::new(rng, nodes, FAULT_PHASE_MS);
    drawing.lease_ms = u64::from(lease_ms);
    for class in FAULTS {
        if drawing.rng.random_bool(0.25) {
            draw_class(&mut drawing, class, 1, 3_000);
        }
    }
    drawing.finish()
}

fn load(rng: &mut impl Rng, nodes: u8, lease_ms: u32) -> Vec<(u64, Load)> {
    let mut load = Vec::new();
    for _ in 0..pick(rng, &[40, 80]) {
        let plan = LockPlan {
            on: Node(rng.random_range(0..nodes)),
            resources: vec![0],
            write: rng.random_bool(0.6),
            timeout_ms: pick(rng, &[1_000, 4_000, 10_000]),
            hold_ms: pick(rng, &[50, 500, 2_000, lease_ms]),
            pace_ms: pick(rng, &[0, 100]),
            store_ms: 1,
            ending: pick(rng, &[PlannedLockEnd::Unlock, PlannedLockEnd::HoldUntilLost]),
            cancel_after_ms: None,
        };
        let is_forever = plan.ending == PlannedLockEnd::HoldUntilLost && rng.random_bool(0.7);
        let ending = if is_forever { PlannedLockEnd::Unlock } else { plan.ending };
        load.push((rng.random_range(500..FAULT_PHASE_MS), Load::Lock(LockPlan { ending, ..plan })));
    }
    load.sort_by_key(|(at, _)| *at);
    load
}
