//! Draws a plan with locks from a seed: lock requests, their holders, and faults.
//!
//! Besides the faults of any swarm, processes are paused, with or without their clocks. Lockers
//! lose their state: a minority, a majority, or all at once. Wall clocks differ by less than a
//! lease, as tokens require ([B54]).
//!
//! [B54]: crate::rules#b54

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{FAULT_CLASSES, FAULT_PHASE_MS, FaultMix, draw_class, fault_points};
use crate::draw::pick;
use crate::fault::{Drawing, Effect, FaultClass, cut, cut_one_way, pause, power_loss, skew};
use crate::plan::{
    ClockWhilePaused, Cluster, Fault, ForcePlan, LimitsPlan, Load, LockPlan, LocksPlan, Node, Plan,
    PlannedLockEnd,
};

/// Draws the plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let cluster = cluster(&mut rng);
    let lease_ms = cluster.locks.as_ref().map_or(0, |locks| locks.lease_ms);
    let faults = faults(&mut rng, &cluster, u64::from(lease_ms));
    let mut load = load(&mut rng, cluster.nodes, lease_ms);
    add_outlived_lease(&mut rng, (cluster.nodes, lease_ms), &faults, &mut load);
    Plan { scenario: "locks".to_owned(), seed, cluster, duration_ms: FAULT_PHASE_MS, faults, load }
}

fn cluster(rng: &mut SmallRng) -> Cluster {
    let nodes = rng.random_range(2..=7);
    let latency_min_ms = pick(rng, &[0, 1, 2, 10]);
    let lease_ms = pick(rng, &[4_000, 8_000, 12_000]);
    let late = rng.random_bool(0.1).then(|| (Node(rng.random_range(0..nodes)), 8_000));
    Cluster {
        nodes,
        tick_ms: pick(rng, &[1, 5, 5, 5]),
        latency_min_ms,
        latency_max_ms: latency_min_ms + pick(rng, &[0, 1, 5, 40]),
        // Segments to a paused process are buffered here.
        socket_segments: 1_024,
        limits: LimitsPlan {
            ping_interval_ms: Some(pick(rng, &[1_000, 2_000])),
            backoff_max_ms: Some(1_000),
            ..LimitsPlan::default()
        },
        fault_points: fault_points(rng, FaultMix::Drawn),
        late: late.into_iter().collect(),
        wrong_secret_nodes: Vec::new(),
        iam: None,
        locks: Some(LocksPlan::new(lease_ms, lease_ms / pick(rng, &[4, 6]), lockers(rng, nodes))),
        metrics: None,
    }
}

/// Draws a cluster with locks on a network without fault points.
pub(super) fn lock_cluster(rng: &mut impl Rng, nodes: u8, locks: LocksPlan) -> Cluster {
    let latency_min_ms = pick(rng, &[0, 1, 2, 10]);
    Cluster {
        nodes,
        tick_ms: 5,
        latency_min_ms,
        latency_max_ms: latency_min_ms + pick(rng, &[0, 1, 5, 40]),
        socket_segments: 1_024,
        limits: LimitsPlan {
            ping_interval_ms: Some(pick(rng, &[1_000, 2_000])),
            backoff_max_ms: Some(1_000),
            ..LimitsPlan::default()
        },
        fault_points: Vec::new(),
        late: Vec::new(),
        wrong_secret_nodes: Vec::new(),
        iam: None,
        locks: Some(locks),
        metrics: None,
    }
}

/// Draws the lockers: all nodes, or some.
fn lockers(rng: &mut impl Rng, nodes: u8) -> Vec<Node> {
    let all = (0..nodes).map(Node);
    if rng.random_bool(0.7) {
        return all.collect();
    }
    let some: Vec<_> = all.filter(|_| rng.random_bool(0.6)).collect();
    if some.is_empty() { vec![Node(0)] } else { some }
}

/// The classes of faults of plans with locks, besides those of all swarms.
pub(super) const LOCK_FAULTS: [FaultClass; 6] = [
    cut::CUT_OFF,
    pause::PAUSE,
    pause::SUSPEND,
    power_loss::BLACKOUT,
    skew::SKEW_BELOW_LEASE,
    cut_one_way::ONE_WAY_NODE,
];

fn faults(rng: &mut SmallRng, cluster: &Cluster, lease_ms: u64) -> Vec<(u64, Fault)> {
    let is_quiet = rng.random_bool(0.1);
    let mut drawing = Drawing::new(rng, cluster.nodes, FAULT_PHASE_MS);
    drawing.lease_ms = lease_ms;
    // Skews here are below a lease.
    for class in FAULT_CLASSES.into_iter().filter(|class| class.name != skew::SKEW.name) {
        if !is_quiet && drawing.rng.random_bool(0.25) {
            let times = drawing.pick(&[1, 1, 2, 3]);
            draw_class(&mut drawing, class, times, 500);
        }
    }
    for class in LOCK_FAULTS {
        if is_quiet || !drawing.rng.random_bool(0.3) {
            continue;
        }
        for _ in 0..drawing.pick(&[1, 1, 2, 3]) {
            drawing.from = drawing.rng.random_range(500..FAULT_PHASE_MS - 2_000);
            drawing.to = drawing.from + drawing.pick(&[300, 2_000, lease_ms + 1_500, 15_000]);
            (class.draw)(&mut drawing);
        }
    }
    drawing.finish()
}

fn load(rng: &mut impl Rng, nodes: u8, lease_ms: u32) -> Vec<(u64, Load)> {
    let resources = pick(rng, &[1, 1, 2, 3]);
    let readers = pick(rng, &[0.0, 0.4, 0.7]);
    let mut load = Vec::new();
    for _ in 0..pick(rng, &[15, 40, 80]) {
        let at = rng.random_range(50..FAULT_PHASE_MS);
        let is_reader = rng.random_bool(readers);
        let plan = lock(rng, (nodes, resources), is_reader, lease_ms);
        load.push((at, Load::Lock(plan)));
    }
    if rng.random_bool(0.15) {
        let force = ForcePlan { on: Node(rng.random_range(0..nodes)), resource: 0 };
        load.push((rng.random_range(2_000..FAULT_PHASE_MS), Load::Force(force)));
    }
    load.sort_by_key(|(at, _)| *at);
    load
}

/// Adds two requests for a resource of their own. The first holder's process is suspended for
/// longer than its lease; the second holds the lock by the time the first resumes. Random load
/// reaches this in one run of a thousand.
fn add_outlived_lease(
    rng: &mut impl Rng,
    (nodes, lease_ms): (u8, u32),
    faults: &[(u64, Fault)],
    load: &mut Vec<(u64, Load)>,
) {
    let wakes = faults.iter().filter_map(|(at, fault)| match fault.effect() {
        Effect::ProcessResumes { node, clock: ClockWhilePaused::Frozen } => Some((*at, node)),
        _ => None,
    });
    let suspensions = wakes.filter_map(|(to, node)| {
        let is_its_pause = |(at, fault): &&(u64, Fault)| {
            *at < to && fault.effect() == Effect::ProcessPauses { node }
        };
        faults.iter().rfind(is_its_pause).map(|(from, _)| (node, *from, to))
    });
    let is_long = |(_, from, to): &(Node, u64, u64)| {
        *from > SUSPENDED_AFTER_MS && to - from > u64::from(lease_ms) + 1_000
    };
    let long = suspensions.rev().find(is_long);
    let Some((on, from, _)) = long.filter(|_| nodes > 2 && rng.random_bool(0.5)) else { return };
    let holder = LockPlan {
        on,
        resources: vec![OWN_RESOURCE],
        write: true,
        timeout_ms: 2_000,
        hold_ms: 0,
        // So short that it reaches the store before it is notified.
        pace_ms: 1,
        store_ms: 0,
        ending: PlannedLockEnd::HoldUntilLost,
        cancel_after_ms: None,
    };
    let other = Node((on.0 + rng.random_range(1..nodes)) % nodes);
    let waiter = LockPlan {
        on: other,
        timeout_ms: lease_ms + 3_000,
        hold_ms: lease_ms,
        pace_ms: 200,
        ending: PlannedLockEnd::Unlock,
        ..holder.clone()
    };
    load.push((from - rng.random_range(300..2_000), Load::Lock(holder)));
    load.push((from + rng.random_range(100..1_000), Load::Lock(waiter)));
    load.sort_by_key(|(at, _)| *at);
}

/// A resource that no other request names.
const OWN_RESOURCE: u8 = 9;

/// Before that, few nodes are connected.
const SUSPENDED_AFTER_MS: u64 = 4_000;

fn lock(
    rng: &mut impl Rng,
    (nodes, resources): (u8, u8),
    is_reader: bool,
    lease_ms: u32,
) -> LockPlan {
    let mut drawn: Vec<u8> = (0..resources).filter(|_| rng.random_bool(0.5)).collect();
    if drawn.is_empty() {
        drawn.push(rng.random_range(0..resources));
    }
    LockPlan {
        on: Node(rng.random_range(0..nodes)),
        resources: drawn,
        write: !is_reader,
        timeout_ms: pick(rng, &[500, 3_000, 10_000]),
        hold_ms: pick(rng, &[0, 20, 200, 1_000, 1_000, lease_ms]),
        pace_ms: pick(rng, &[0, 20, 100, 500]),
        store_ms: pick(rng, &[0, 2, 20]),
        ending: match rng.random_range(0..20) {
            0 => PlannedLockEnd::HoldUntilLost,
            1..5 => PlannedLockEnd::Drop,
            _ => PlannedLockEnd::Unlock,
        },
        cancel_after_ms: pick(rng, &[None, None, None, None, Some(1), Some(30), Some(600)]),
    }
}
