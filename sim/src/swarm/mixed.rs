//! Draws a plan of MinIO servers among ours from a seed.
//!
//! Exclusion from MinIO holders does not survive the restart of a locker or a long partition, which
//! no peer can change. So links are slow or cut for moments only, and processes keep running.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{FAULT_PHASE_MS, locks::lock_cluster};
use crate::draw::pick;
use crate::fault::{Drawing, cut, slow};
use crate::plan::{Fault, Load, LockPlan, LocksPlan, Node, Plan, PlannedLockEnd};

/// Draws the plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let nodes = rng.random_range(3..=6);
    let lease_ms = pick(&mut rng, &[6_000, 12_000]);
    let lockers = rng.random_range(3..=nodes);
    let mut minio: Vec<_> = (0..nodes).filter(|_| rng.random_bool(0.4)).map(Node).collect();
    if minio.is_empty() {
        minio.push(Node(rng.random_range(0..nodes)));
    }
    let list = (0..lockers).map(Node).collect();
    let locks = LocksPlan { minio, ..LocksPlan::new(lease_ms, lease_ms / 6, list) };
    let cluster = lock_cluster(&mut rng, nodes, locks);
    let faults = faults(&mut rng, nodes, u64::from(lease_ms));
    let load = load(&mut rng, nodes, lease_ms);
    Plan { scenario: "mixed".to_owned(), seed, cluster, duration_ms: FAULT_PHASE_MS, faults, load }
}

fn faults(rng: &mut SmallRng, nodes: u8, lease_ms: u64) -> Vec<(u64, Fault)> {
    let mut drawing = Drawing::new(rng, nodes, FAULT_PHASE_MS);
    for class in [cut::CUT, slow::SLOW] {
        if drawing.rng.random_bool(0.3) {
            drawing.from = drawing.rng.random_range(3_000..FAULT_PHASE_MS - 5_000);
            drawing.to = drawing.from + drawing.pick(&[100, lease_ms / 10]);
            (class.draw)(&mut drawing);
        }
    }
    drawing.finish()
}

fn load(rng: &mut impl Rng, nodes: u8, lease_ms: u32) -> Vec<(u64, Load)> {
    let resources = pick(rng, &[1, 1, 2]);
    let readers = pick(rng, &[0.0, 0.3, 0.7]);
    let mut load = Vec::new();
    for _ in 0..pick(rng, &[20, 40, 60]) {
        let plan = LockPlan {
            on: Node(rng.random_range(0..nodes)),
            // A read lock of several resources is refused by MinIO.
            resources: vec![rng.random_range(0..resources)],
            write: !rng.random_bool(readers),
            timeout_ms: pick(rng, &[2_000, 8_000, 15_000]),
            hold_ms: pick(rng, &[0, 20, 200, 1_000, lease_ms / 2]),
            // Its store compares tokens, which MinIO holders do not have.
            pace_ms: 0,
            store_ms: 0,
            ending: PlannedLockEnd::Unlock,
            cancel_after_ms: pick(rng, &[None, None, None, Some(200)]),
        };
        load.push((rng.random_range(1_000..FAULT_PHASE_MS), Load::Lock(plan)));
    }
    load.sort_by_key(|(at, _)| *at);
    load
}
