//! Draws a plan of contended locks from a seed: more requests than the locks can serve, readers and
//! writers with short and long holds, and a few faults.
//!
//! Waiters are promised an order only where messages arrive in time, so there are neither fault
//! points that stall sockets nor wrong clocks. The swarm of locks has those.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{FAULT_PHASE_MS, draw_class, locks::lock_cluster};
use crate::draw::pick;
use crate::fault::{Drawing, FaultClass, bounce, cut, cut_one_way, power_loss, slow};
use crate::plan::{Fault, Load, LockPlan, LocksPlan, Node, Plan, PlannedLockEnd};

/// Draws the plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let nodes = rng.random_range(2..=6);
    let lease_ms = pick(&mut rng, &[6_000, 12_000]);
    let first = rng.random_range(0..nodes);
    let all = pick(&mut rng, &[true, true, false]);
    let lockers = (0..nodes).filter(|node| all || *node != first || nodes == 2).map(Node);
    let locks = LocksPlan::new(lease_ms, lease_ms / 6, lockers.collect());
    let cluster = lock_cluster(&mut rng, nodes, locks);
    let faults = faults(&mut rng, nodes, lease_ms);
    let load = load(&mut rng, nodes, lease_ms);
    Plan { scenario: "fair".to_owned(), seed, cluster, duration_ms: FAULT_PHASE_MS, faults, load }
}

const FAULTS: [FaultClass; 6] = [
    cut::CUT,
    cut_one_way::CUT_ONE_WAY,
    slow::SLOW,
    power_loss::POWER_LOSS,
    bounce::BOUNCE,
    cut::CUT_OFF,
];

fn faults(rng: &mut SmallRng, nodes: u8, lease_ms: u32) -> Vec<(u64, Fault)> {
    let is_quiet = rng.random_bool(0.4);
    let mut drawing = Drawing::new(rng, nodes, FAULT_PHASE_MS);
    drawing.lease_ms = u64::from(lease_ms);
    for class in FAULTS {
        if !is_quiet && drawing.rng.random_bool(0.2) {
            draw_class(&mut drawing, class, 1, 3_000);
        }
    }
    drawing.finish()
}

fn load(rng: &mut impl Rng, nodes: u8, lease_ms: u32) -> Vec<(u64, Load)> {
    let resources = pick(rng, &[1, 1, 2, 3]);
    let readers = pick(rng, &[0.0, 0.5, 0.9]);
    let holds = pick(rng, &[[20, 100, 300], [100, 1_000, 3_000], [500, 2_000, lease_ms / 2]]);
    let mut load = Vec::new();
    for _ in 0..pick(rng, &[30, 60, 120]) {
        let at = rng.random_range(1_000..FAULT_PHASE_MS);
        let first = rng.random_range(0..resources);
        let others = (0..resources).filter(|other| *other != first && rng.random_bool(0.2));
        let mut wanted: Vec<u8> = others.chain([first]).collect();
        wanted.sort_unstable();
        let plan = LockPlan {
            on: Node(rng.random_range(0..nodes)),
            resources: wanted,
            write: !rng.random_bool(readers),
            timeout_ms: pick(rng, &[3_000, 10_000, 30_000]),
            hold_ms: pick(rng, &holds),
            pace_ms: pick(rng, &[0, 100]),
            store_ms: 1,
            ending: pick(rng, &[PlannedLockEnd::Unlock, PlannedLockEnd::Drop]),
            cancel_after_ms: pick(rng, &[None, None, None, None, None, Some(700)]),
        };
        load.push((at, Load::Lock(plan)));
    }
    load.sort_by_key(|(at, _)| *at);
    load
}
