//! Draws a plan from a seed: the mix of faults, their rates, the cluster, the load, the limits.
//!
//! Swarm testing: not every run has everything. Each draws which kinds of trouble it has at all,
//! and how much of each, so that a run with nothing but one-way cuts, or with no faults and tiny
//! queues, comes up as surely as one with all at once.

use grid::buggify::Point;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::plan::{
    CAPACITIES, Cluster, Ending, Fault, LimitsPlan, Load, Node, Plan, RequestPlan, StreamPlan,
};

mod iam;
mod locks;

pub use iam::plan as plan_with_iam;
pub use locks::plan as plan_with_locks;

/// How long trouble is made in a swarm run, in milliseconds. With recovery a run takes about a
/// minute of simulated time.
pub const TROUBLE_MS: u64 = 30_000;

/// The plan of a seed. `nodes` is drawn unless it is given.
pub fn plan(seed: u64, nodes: Option<u8>) -> Plan {
    draw(seed, nodes, Mix::Some)
}

/// The plan of a seed with every kind of fault and every rare event in it.
pub fn plan_with_everything(seed: u64) -> Plan {
    draw(seed, None, Mix::All)
}

/// Which kinds of trouble a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    Some,
    All,
}

impl Mix {
    /// Whether a run has something that one in `1 / share` runs has.
    fn has(self, rng: &mut impl Rng, share: f64) -> bool {
        let is_drawn = rng.random_bool(share);
        is_drawn || self == Self::All
    }
}

fn draw(seed: u64, nodes: Option<u8>, mix: Mix) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let drawn = rng.random_range(2..=9);
    // With everything, one node is a stranger and one is late: fewer would have nobody to talk to.
    let least = if mix == Mix::All { 4 } else { 2 };
    let nodes = nodes.unwrap_or(drawn.max(least));
    let cluster = cluster(&mut rng, nodes, mix);
    let faults = faults(&mut rng, nodes, mix);
    let mut load = load(&mut rng, &cluster);
    flood(&mut rng, &cluster, &faults, &mut load);
    Plan { scenario: "swarm".to_owned(), seed, cluster, duration_ms: TROUBLE_MS, faults, load }
}

/// One of `choices`.
fn pick<T: Copy>(rng: &mut impl Rng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}

fn cluster(rng: &mut impl Rng, nodes: u8, mix: Mix) -> Cluster {
    let tick_ms = pick(rng, &[1, 5, 5]);
    let latency_min_ms = pick(rng, &[0, 1, 2, 10]);
    let latency_max_ms = latency_min_ms + pick(rng, &[0, 1, 5, 40]);
    let mut late = Vec::new();
    if mix.has(rng, 0.15) {
        late.push((Node(rng.random_range(0..nodes)), rng.random_range(1_000..20_000)));
    }
    let mut strangers = Vec::new();
    if mix.has(rng, 0.1) {
        strangers.push(Node(rng.random_range(0..nodes)));
    }
    Cluster {
        nodes,
        tick_ms,
        latency_min_ms,
        latency_max_ms,
        // turmoil bounds what waits to be accepted by the same number: small sockets are for small
        // clusters, where a node that thaws does not meet a crowd.
        socket_segments: pick(rng, if nodes <= 4 { &[16, 64, 256] } else { &[64, 64, 256] }),
        limits: limits(rng),
        rare: rare(rng, mix),
        late,
        strangers,
        locks: None,
        iam: None,
        metrics: None,
    }
}

fn limits(rng: &mut impl Rng) -> LimitsPlan {
    let message = pick(rng, &[None, Some(16 * 1024), Some(64 * 1024)]);
    LimitsPlan {
        message_bytes_max: message,
        queue_bytes_max: message.map(|bytes| bytes * pick(rng, &[2, 3, 16])),
        frame_bytes_target: pick(rng, &[None, Some(256), Some(4 * 1024)]),
        calls_made_max: pick(rng, &[None, None, Some(4), Some(32)]),
        calls_served_max: pick(rng, &[None, None, Some(4), Some(32)]),
        ping_interval_ms: pick(rng, &[Some(1_000), Some(2_000), Some(4_000)]),
        stream_ping_interval_ms: pick(rng, &[Some(1_000), Some(3_000), None]),
        deadline_default_ms: pick(rng, &[Some(2_000), Some(8_000)]),
        backoff_max_ms: pick(rng, &[None, Some(1_000)]),
    }
}

fn rare(rng: &mut impl Rng, mix: Mix) -> Vec<(String, u16)> {
    let mut rare = Vec::new();
    for point in Point::ALL {
        if mix.has(rng, 0.3) {
            let often = match point {
                // Asked with each frame.
                Point::DelayFlush | Point::FullSocket | Point::SpuriousWake => {
                    pick(rng, &[10, 100, 1_000])
                }
                // Asked once a connection, or once a node.
                Point::TinyQueue | Point::EarlyTimeout | Point::Supersede => {
                    pick(rng, &[500, 3_000])
                }
            };
            rare.push((point.name().to_owned(), often));
        }
    }
    rare
}

/// A pair of different nodes.
fn two(rng: &mut impl Rng, nodes: u8) -> (Node, Node) {
    let a = rng.random_range(0..nodes);
    let b = (a + rng.random_range(1..nodes)) % nodes;
    (Node(a), Node(b))
}

/// A kind of trouble that comes and goes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Cut,
    CutOneWay,
    Hold,
    Slow,
    Power,
    Bounce,
    Skew,
    Drift,
    /// Links cut one after the other, and mended in another order (swizzle-clogging).
    Swizzle,
}

const KINDS: [Kind; 9] = [
    Kind::Cut,
    Kind::CutOneWay,
    Kind::Hold,
    Kind::Slow,
    Kind::Power,
    Kind::Bounce,
    Kind::Skew,
    Kind::Drift,
    Kind::Swizzle,
];

fn faults(rng: &mut impl Rng, nodes: u8, mix: Mix) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    if rng.random_bool(0.1) && mix == Mix::Some {
        return faults;
    }
    for kind in KINDS {
        if !mix.has(rng, 0.35) {
            continue;
        }
        for _ in 0..pick(rng, &[1, 1, 2, 3, 6]) {
            let from = rng.random_range(500..TROUBLE_MS - 2_000);
            let to = from + pick(rng, &[100, 1_000, 5_000, 15_000]);
            make_trouble(rng, kind, nodes, (from, to), &mut faults);
        }
    }
    faults.retain(|(at, _)| *at < TROUBLE_MS);
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn make_trouble(
    rng: &mut impl Rng,
    kind: Kind,
    nodes: u8,
    (from, to): (u64, u64),
    faults: &mut Vec<(u64, Fault)>,
) {
    let (a, b) = two(rng, nodes);
    let (begin, end) = match kind {
        Kind::Cut => (Fault::Cut { a, b }, Fault::Mend { a, b }),
        Kind::CutOneWay => (Fault::CutOneWay { from: a, to: b }, Fault::Mend { a, b }),
        Kind::Hold => (Fault::Hold { a, b }, Fault::Mend { a, b }),
        Kind::Slow => {
            let ms = pick(rng, &[20, 200, 1_000]);
            (Fault::Slow { a, b, ms }, Fault::Mend { a, b })
        }
        Kind::Power => (Fault::PowerLoss { node: a }, Fault::Restart { node: a }),
        Kind::Bounce => {
            let grace_ms = pick(rng, &[0, 200, 3_000]);
            faults.push((from, Fault::Bounce { node: a, grace_ms }));
            return;
        }
        Kind::Skew => {
            let ms = pick(rng, &[-400_000, -10_000, 5_000, 310_000]);
            (Fault::Skew { node: a, ms }, Fault::Skew { node: a, ms: 0 })
        }
        Kind::Drift => {
            let ppm = pick(rng, &[-10_000, -500, 500, 10_000]);
            (Fault::Drift { node: a, ppm }, Fault::Drift { node: a, ppm: 0 })
        }
        Kind::Swizzle => {
            for other in (0..nodes).map(Node).filter(|other| *other != a) {
                let cut = from + rng.random_range(0..2_000);
                let mend = to.max(cut) + rng.random_range(0..4_000);
                faults.push((cut, Fault::Cut { a, b: other }));
                faults.push((mend, Fault::Mend { a, b: other }));
            }
            return;
        }
    };
    faults.push((from, begin));
    faults.push((to, end));
}

fn load(rng: &mut impl Rng, cluster: &Cluster) -> Vec<(u64, Load)> {
    let calls = pick(rng, &[40, 150, 400]) * u64::from(cluster.nodes.min(5)) / 2;
    let streams_of_ten = pick(rng, &[0, 2, 5, 10]);
    let is_bursty = rng.random_bool(0.3);
    let sizes = sizes(rng, cluster);
    let mut load = Vec::new();
    let mut at = 0;
    for _ in 0..calls {
        if !is_bursty || rng.random_bool(0.02) {
            at = rng.random_range(0..TROUBLE_MS);
        }
        let ends = two(rng, cluster.nodes);
        let one = if rng.random_range(0..10) < streams_of_ten {
            Load::Stream(stream(rng, ends, &sizes))
        } else {
            Load::Request(request(rng, ends, &sizes))
        };
        load.push((at, one));
    }
    load.sort_by_key(|(at, _)| *at);
    load
}

/// More than fits into a queue, at once and to one node; often one that has just stopped reading.
fn flood(
    rng: &mut impl Rng,
    cluster: &Cluster,
    faults: &[(u64, Fault)],
    load: &mut Vec<(u64, Load)>,
) {
    if !rng.random_bool(0.15) {
        return;
    }
    let stops = faults.iter().filter_map(|(at, fault)| match *fault {
        Fault::Cut { a, b } | Fault::Hold { a, b } => Some((at + 100, (a, b))),
        Fault::CutOneWay { from, to } => Some((at + 100, (from, to))),
        _ => None,
    });
    let mut stops: Vec<_> = stops.collect();
    stops.push((rng.random_range(1_000..TROUBLE_MS), two(rng, cluster.nodes)));
    let (at, ends) = pick(rng, &stops);
    let sizes = [cluster.limits.message_bytes_max.unwrap_or(256 * 1024) - 128];
    for _ in 0..pick(rng, &[30, 60]) {
        load.push((at.min(TROUBLE_MS - 1), Load::Request(request(rng, ends, &sizes))));
    }
    load.sort_by_key(|(at, _)| *at);
}

/// Sizes of messages that a run has: small ones, and up to what its limits allow.
fn sizes(rng: &mut impl Rng, cluster: &Cluster) -> Vec<u32> {
    let max = cluster.limits.message_bytes_max.unwrap_or(256 * 1024) - 128;
    let mut sizes = vec![16, 512];
    for size in [4_096, 15_000, max] {
        if rng.random_bool(0.4) {
            sizes.push(size.min(max));
        }
    }
    sizes
}

fn ending(rng: &mut impl Rng) -> Ending {
    match rng.random_range(0..20) {
        0 => Ending::Error,
        1 => Ending::Panic,
        2 => Ending::Never,
        3 => Ending::Unknown,
        _ => Ending::Well,
    }
}

fn request(rng: &mut impl Rng, (from, to): (Node, Node), sizes: &[u32]) -> RequestPlan {
    RequestPlan {
        from,
        to,
        bytes: pick(rng, sizes),
        answer_bytes: pick(rng, sizes),
        work_ms: pick(rng, &[0, 0, 0, 3, 50, 1_000]),
        ending: ending(rng),
        timeout_ms: pick(rng, &[None, Some(20), Some(500), Some(5_000)]),
        give_up_ms: pick(rng, &[None, None, None, Some(0), Some(4), Some(100)]),
    }
}

fn stream(rng: &mut impl Rng, (from, to): (Node, Node), sizes: &[u32]) -> StreamPlan {
    let capacities = rng.random_range(0..CAPACITIES.len() as u8);
    let (input, _) = CAPACITIES[usize::from(capacities)];
    let up = if input == 0 { 0 } else { pick(rng, &[0, 1, 5, 40]) };
    StreamPlan {
        from,
        to,
        capacities,
        up,
        down: pick(rng, &[0, 1, 5, 40]),
        bytes: pick(rng, sizes),
        up_pace_ms: pick(rng, &[0, 0, 5, 200]),
        down_pace_ms: pick(rng, &[0, 0, 5, 200]),
        take_ms: pick(rng, &[Some(0), Some(0), Some(5), Some(300), None]),
        ending: ending(rng),
        timeout_ms: pick(rng, &[None, None, Some(1_000), Some(10_000)]),
        give_up_ms: Some(pick(rng, &[30, 1_000, 10_000, 10_000])),
    }
}
