//! Draws a plan with users, policies and mappings from a seed: the changes and their nodes, and the
//! faults of nodes and pools.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{FAULT_CLASSES, FAULT_PHASE_MS, FaultMix, add_fault, fault_points, pick};
use crate::plan::{
    ChangePlan, Cluster, Fault, IamPlan, ItemChange, LimitsPlan, Load, Node, Outage, Plan,
};

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

fn faults(rng: &mut impl Rng, nodes: u8, pools: u8) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let is_quiet = rng.random_bool(0.1);
    for class in FAULT_CLASSES {
        if is_quiet || !rng.random_bool(0.3) {
            continue;
        }
        for _ in 0..pick(rng, &[1, 1, 2, 4]) {
            let from = rng.random_range(100..FAULT_PHASE_MS - 2_000);
            let to = from + pick(rng, &[100, 1_000, 5_000, 15_000]);
            add_fault(rng, class, nodes, (from, to), &mut faults);
        }
    }
    if !is_quiet && rng.random_bool(0.4) {
        late_pools(rng, nodes, pools, &mut faults);
    }
    for _ in 0..pick(rng, &[0, 0, 1, 3]) {
        let from = rng.random_range(100..FAULT_PHASE_MS - 2_000);
        let (node, pool) = (Node(rng.random_range(0..nodes)), rng.random_range(0..pools));
        outage(rng, (node, pool), from, &mut faults);
    }
    if !is_quiet && rng.random_bool(0.2) {
        storm(rng, nodes, &mut faults);
    }
    faults.retain(|(at, _)| *at < FAULT_PHASE_MS);
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// Adds pools that are unusable when their node starts, and become usable in any order.
fn late_pools(rng: &mut impl Rng, nodes: u8, pools: u8, faults: &mut Vec<(u64, Fault)>) {
    for node in (0..nodes).map(Node) {
        for pool in (0..pools).filter(|_| rng.random_bool(0.5)).collect::<Vec<_>>() {
            outage(rng, (node, pool), 0, faults);
        }
    }
}

fn outage(rng: &mut impl Rng, (node, pool): (Node, u8), from: u64, faults: &mut Vec<(u64, Fault)>) {
    let reason = pick(rng, &[Outage::NotInitialised, Outage::Unavailable]);
    let to = from + pick(rng, &[200, 2_000, 8_000, 20_000]);
    faults.push((from, Fault::PoolDown { node, pool, reason }));
    faults.push((to, Fault::PoolUp { node, pool }));
}

/// Adds repeated short isolations of one node.
fn storm(rng: &mut impl Rng, nodes: u8, faults: &mut Vec<(u64, Fault)>) {
    let a = Node(rng.random_range(0..nodes));
    let mut at = rng.random_range(2_000..FAULT_PHASE_MS / 2);
    for _ in 0..rng.random_range(3..12) {
        for b in (0..nodes).map(Node).filter(|b| *b != a) {
            faults.push((at, Fault::Cut { a, b }));
            faults.push((at + 300, Fault::Repair { a, b }));
        }
        at += pick(rng, &[600, 1_200, 3_000]);
    }
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
