//! Draws a plan with users, policies and mappings from a seed: the changes and their nodes, and the
//! faults of nodes and pools.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{FAULT_CLASSES, FAULT_PHASE_MS, FaultMix, draw_class, fault_points};
use crate::draw::pick;
use crate::fault::{Drawing, FaultClass, cut, pool_down};
use crate::plan::{ChangePlan, Cluster, Fault, IamPlan, ItemChange, LimitsPlan, Load, Node, Plan};

/// Draws the plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let nodes = rng.random_range(2..=6);
    let iam = IamPlan {
        pools: rng.random_range(1..=3),
        seeded: pick(&mut rng, &[0, 3, 12, 30]),
        refresh_ms: pick(&mut rng, &[3_000, 10_000, 30_000]),
        store_ms: pick(&mut rng, &[0, 0, 2, 20, 100]),
    };
    let faults = faults(&mut rng, nodes, iam.pools);
    let cluster = cluster(&mut rng, nodes, iam);
    let load = load(&mut rng, nodes);
    Plan { scenario: "iam".to_owned(), seed, cluster, duration_ms: FAULT_PHASE_MS, faults, load }
}

fn cluster(rng: &mut SmallRng, nodes: u8, iam: IamPlan) -> Cluster {
    let latency_min_ms = pick(rng, &[0, 1, 2, 10]);
    let late = rng
        .random_bool(0.25)
        .then(|| (Node(rng.random_range(0..nodes)), pick(rng, &[3_000, 12_000, 25_000])));
    Cluster {
        nodes,
        tick_ms: pick(rng, &[1, 5, 5, 5]),
        latency_min_ms,
        latency_max_ms: latency_min_ms + pick(rng, &[0, 1, 5, 40]),
        socket_segments: 1_024,
        limits: LimitsPlan {
            ping_interval_ms: Some(pick(rng, &[1_000, 2_000])),
            backoff_max_ms: Some(1_000),
            ..LimitsPlan::default()
        },
        fault_points: fault_points(rng, FaultMix::Drawn),
        late: late.into_iter().collect(),
        wrong_secret_nodes: Vec::new(),
        locks: None,
        iam: Some(iam),
        metrics: None,
    }
}

/// The classes of faults of plans with users, policies and mappings, besides those of all swarms.
pub(super) const IAM_FAULTS: [FaultClass; 3] =
    [pool_down::LATE_POOLS, pool_down::OUTAGE, cut::STORM];

fn faults(rng: &mut SmallRng, nodes: u8, pools: u8) -> Vec<(u64, Fault)> {
    let [late_pools, outage, storm] = IAM_FAULTS;
    let is_quiet = rng.random_bool(0.1);
    let mut drawing = Drawing::new(rng, nodes, FAULT_PHASE_MS);
    drawing.pools = pools;
    for class in FAULT_CLASSES {
        if !is_quiet && drawing.rng.random_bool(0.3) {
            let times = drawing.pick(&[1, 1, 2, 4]);
            draw_class(&mut drawing, class, times, 100);
        }
    }
    if !is_quiet && drawing.rng.random_bool(0.4) {
        (late_pools.draw)(&mut drawing);
    }
    for _ in 0..drawing.pick(&[0, 0, 1, 3]) {
        drawing.from = drawing.rng.random_range(100..FAULT_PHASE_MS - 2_000);
        (outage.draw)(&mut drawing);
    }
    if !is_quiet && drawing.rng.random_bool(0.2) {
        (storm.draw)(&mut drawing);
    }
    drawing.finish()
}

fn load(rng: &mut impl Rng, nodes: u8) -> Vec<(u64, Load)> {
    let items = pick(rng, &[1, 3, 6, 40]);
    let deletions = pick(rng, &[0.1, 0.4, 0.6]);
    let mut load = Vec::new();
    for _ in 0..pick(rng, &[5, 30, 80]) {
        let change = if rng.random_bool(deletions) { ItemChange::Delete } else { ItemChange::Put };
        let (on, item) = (Node(rng.random_range(0..nodes)), rng.random_range(0..items));
        let at = rng.random_range(50..FAULT_PHASE_MS);
        load.push((at, Load::Change(ChangePlan { on, item, change })));
    }
    load.sort_by_key(|(at, _)| *at);
    load
}
