//! Draws a plan with locks from a seed: who asks for which, for how long, and what is done
//! meanwhile.
//!
//! Besides what any swarm has, processes are stopped, with their clocks or without, and lockers
//! lose what they know by the minority, by the majority and all at once. Wall clocks stay closer
//! together than a lease: tokens count on that, and say so (B54).

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{KINDS, Kind, Mix, TROUBLE_MS, make_trouble, pick, rare};
use crate::plan::{
    Cluster, Fault, ForcePlan, LimitsPlan, Load, LockEnding, LockPlan, LocksPlan, Meanwhile, Node,
    Plan,
};

/// The plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let cluster = cluster(&mut rng);
    let lease_ms = cluster.locks.as_ref().map_or(0, |locks| locks.lease_ms);
    let faults = faults(&mut rng, &cluster, u64::from(lease_ms));
    let mut load = load(&mut rng, cluster.nodes, lease_ms);
    outlive(&mut rng, (cluster.nodes, lease_ms), &faults, &mut load);
    Plan { scenario: "locks".to_owned(), seed, cluster, duration_ms: TROUBLE_MS, faults, load }
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
        // What is sent to a process that is stopped waits here.
        socket_segments: 1_024,
        limits: LimitsPlan {
            ping_interval_ms: Some(pick(rng, &[1_000, 2_000])),
            backoff_max_ms: Some(1_000),
            ..LimitsPlan::default()
        },
        rare: rare(rng, Mix::Some),
        late: late.into_iter().collect(),
        strangers: Vec::new(),
        iam: None,
        locks: Some(LocksPlan {
            lease_ms,
            refresh_ms: lease_ms / pick(rng, &[4, 6]),
            lockers: lockers(rng, nodes),
        }),
        metrics: None,
    }
}

/// All nodes, or some.
fn lockers(rng: &mut impl Rng, nodes: u8) -> Vec<Node> {
    let all = (0..nodes).map(Node);
    if rng.random_bool(0.7) {
        return all.collect();
    }
    let some: Vec<_> = all.filter(|_| rng.random_bool(0.6)).collect();
    if some.is_empty() { vec![Node(0)] } else { some }
}

/// Trouble that only locks know.
#[derive(Debug, Clone, Copy)]
enum LockTrouble {
    /// A node is cut off from all others.
    CutOff,
    /// A process is stopped, and its clocks run on.
    Stop,
    /// A process is suspended together with its clocks.
    Suspend,
    /// Several lose their power in the same moment, and come back one after the other.
    Blackout,
    /// Wall clocks are off by less than a lease.
    Skew,
    /// One process can send and not hear, or hear and not send.
    Deaf,
}

const LOCK_TROUBLE: [LockTrouble; 6] = [
    LockTrouble::CutOff,
    LockTrouble::Stop,
    LockTrouble::Suspend,
    LockTrouble::Blackout,
    LockTrouble::Skew,
    LockTrouble::Deaf,
];

fn faults(rng: &mut impl Rng, cluster: &Cluster, lease_ms: u64) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let is_quiet = rng.random_bool(0.1);
    for kind in KINDS.into_iter().filter(|kind| !matches!(kind, Kind::Skew)) {
        if is_quiet || !rng.random_bool(0.25) {
            continue;
        }
        for _ in 0..pick(rng, &[1, 1, 2, 3]) {
            let from = rng.random_range(500..TROUBLE_MS - 2_000);
            let to = from + pick(rng, &[100, 1_000, 5_000, 15_000]);
            make_trouble(rng, kind, cluster.nodes, (from, to), &mut faults);
        }
    }
    for trouble in LOCK_TROUBLE {
        if is_quiet || !rng.random_bool(0.3) {
            continue;
        }
        for _ in 0..pick(rng, &[1, 1, 2, 3]) {
            let from = rng.random_range(500..TROUBLE_MS - 2_000);
            let to = from + pick(rng, &[300, 2_000, lease_ms + 1_500, 15_000]);
            make_lock_trouble(rng, trouble, cluster.nodes, lease_ms, (from, to), &mut faults);
        }
    }
    faults.retain(|(at, _)| *at < TROUBLE_MS);
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn make_lock_trouble(
    rng: &mut impl Rng,
    trouble: LockTrouble,
    nodes: u8,
    lease_ms: u64,
    (from, to): (u64, u64),
    faults: &mut Vec<(u64, Fault)>,
) {
    let node = Node(rng.random_range(0..nodes));
    let others = (0..nodes).map(Node).filter(|other| *other != node);
    match trouble {
        LockTrouble::CutOff => {
            for b in others {
                faults.push((from, Fault::Cut { a: node, b }));
                faults.push((to, Fault::Mend { a: node, b }));
            }
        }
        LockTrouble::Deaf => {
            let hears = rng.random_bool(0.5);
            for other in others {
                let (a, b) = if hears { (node, other) } else { (other, node) };
                faults.push((from, Fault::CutOneWay { from: a, to: b }));
                faults.push((to, Fault::Mend { a, b }));
            }
        }
        LockTrouble::Stop | LockTrouble::Suspend => {
            let is_suspended = matches!(trouble, LockTrouble::Suspend);
            let clock = if is_suspended { Meanwhile::Stood } else { Meanwhile::Ran };
            faults.push((from, Fault::Pause { node }));
            faults.push((to, Fault::Wake { node, clock }));
        }
        LockTrouble::Blackout => {
            let share = pick(rng, &[0.4, 0.7, 1.0]);
            for node in (0..nodes).map(Node) {
                if rng.random_bool(share) {
                    faults.push((from, Fault::PowerLoss { node }));
                    let back = from + pick(rng, &[50, 500, 3_000]);
                    faults.push((back, Fault::Restart { node }));
                }
            }
        }
        LockTrouble::Skew => {
            // Two that are off in opposite directions differ by less than a lease.
            let most = i64::try_from(lease_ms * 2 / 5).unwrap_or(0);
            let ms = pick(rng, &[-most, -500, 500, most]);
            faults.push((from, Fault::Skew { node, ms }));
            faults.push((to, Fault::Skew { node, ms: 0 }));
        }
    }
}

fn load(rng: &mut impl Rng, nodes: u8, lease_ms: u32) -> Vec<(u64, Load)> {
    let resources = pick(rng, &[1, 1, 2, 3]);
    let readers = pick(rng, &[0.0, 0.4, 0.7]);
    let mut load = Vec::new();
    for _ in 0..pick(rng, &[15, 40, 80]) {
        let at = rng.random_range(50..TROUBLE_MS);
        let is_reader = rng.random_bool(readers);
        let one = lock(rng, (nodes, resources), is_reader, lease_ms);
        load.push((at, Load::Lock(one)));
    }
    if rng.random_bool(0.15) {
        let force = ForcePlan { on: Node(rng.random_range(0..nodes)), resource: 0 };
        load.push((rng.random_range(2_000..TROUBLE_MS), Load::Force(force)));
    }
    load.sort_by_key(|(at, _)| *at);
    load
}

/// Two who want what nobody else wants: one has it and does not let go while its process is
/// suspended for longer than its lease, the other has it by the time that one goes on. By luck
/// alone that happens in one run of a thousand.
fn outlive(
    rng: &mut impl Rng,
    (nodes, lease_ms): (u8, u32),
    faults: &[(u64, Fault)],
    load: &mut Vec<(u64, Load)>,
) {
    let wakes = faults.iter().filter_map(|(at, fault)| match *fault {
        Fault::Wake { node, clock: Meanwhile::Stood } => Some((*at, node)),
        _ => None,
    });
    let suspensions = wakes.filter_map(|(to, node)| {
        let is_its = |(at, fault): &&(u64, Fault)| *at < to && *fault == Fault::Pause { node };
        faults.iter().rfind(is_its).map(|(from, _)| (node, *from, to))
    });
    let is_long = |(_, from, to): &(Node, u64, u64)| {
        *from > SUSPENDED_AFTER_MS && to - from > u64::from(lease_ms) + 1_000
    };
    let long = suspensions.rev().find(is_long);
    let Some((on, from, _)) = long.filter(|_| nodes > 2 && rng.random_bool(0.5)) else { return };
    let holds = LockPlan {
        on,
        resources: vec![OWN_RESOURCE],
        write: true,
        timeout_ms: 2_000,
        hold_ms: 0,
        // So often that it comes to the store before it has heard of anything.
        pace_ms: 1,
        store_ms: 0,
        ending: LockEnding::Lose,
        give_up_ms: None,
    };
    let other = Node((on.0 + rng.random_range(1..nodes)) % nodes);
    let waits = LockPlan {
        on: other,
        timeout_ms: lease_ms + 3_000,
        hold_ms: lease_ms,
        pace_ms: 200,
        ending: LockEnding::Unlock,
        ..holds.clone()
    };
    load.push((from - rng.random_range(300..2_000), Load::Lock(holds)));
    load.push((from + rng.random_range(100..1_000), Load::Lock(waits)));
    load.sort_by_key(|(at, _)| *at);
}

/// What nobody else wants.
const OWN_RESOURCE: u8 = 9;

/// Before that hardly anybody is connected.
const SUSPENDED_AFTER_MS: u64 = 4_000;

fn lock(
    rng: &mut impl Rng,
    (nodes, resources): (u8, u8),
    is_reader: bool,
    lease_ms: u32,
) -> LockPlan {
    let mut wanted: Vec<u8> = (0..resources).filter(|_| rng.random_bool(0.5)).collect();
    if wanted.is_empty() {
        wanted.push(rng.random_range(0..resources));
    }
    LockPlan {
        on: Node(rng.random_range(0..nodes)),
        resources: wanted,
        write: !is_reader,
        timeout_ms: pick(rng, &[500, 3_000, 10_000]),
        hold_ms: pick(rng, &[0, 20, 200, 1_000, 1_000, lease_ms]),
        pace_ms: pick(rng, &[0, 20, 100, 500]),
        store_ms: pick(rng, &[0, 2, 20]),
        ending: match rng.random_range(0..20) {
            0 => LockEnding::Lose,
            1..5 => LockEnding::Drop,
            _ => LockEnding::Unlock,
        },
        give_up_ms: pick(rng, &[None, None, None, None, Some(1), Some(30), Some(600)]),
    }
}
