//! Draws a plan from a seed: the mix of faults, their rates, the cluster, the load, the limits.
//!
//! Swarm testing: each run draws which classes of faults it has, and how many of each. Runs with
//! only one-way cuts, or with tiny queues and no faults, therefore occur as well as runs with all
//! faults.

use grid::buggify::FaultPoint;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::draw::{pick, two_nodes};
use crate::fault::{
    Drawing, Effect, FaultClass, bounce, cut, cut_one_way, drift, hold, power_loss, skew, slow,
};
use crate::plan::{
    CAPACITIES, Cluster, Fault, LimitsPlan, Load, Node, Plan, PlannedHandlerEnd, RequestPlan,
    StreamPlan,
};

mod fair;
mod iam;
mod lists;
mod locks;
mod mixed;

pub use fair::plan as plan_with_contention;
pub use iam::plan as plan_with_iam;
pub use lists::plan as plan_with_lists;
pub use locks::plan as plan_with_locks;
pub use mixed::plan as plan_with_minio;

/// How long faults are injected in a swarm run, in milliseconds. With recovery, a run takes about a
/// minute of simulated time.
pub const FAULT_PHASE_MS: u64 = 30_000;

/// Draws the plan of a seed. `nodes` is drawn unless it is given.
pub fn plan(seed: u64, nodes: Option<u8>) -> Plan {
    draw(seed, nodes, FaultMix::Drawn)
}

/// Draws the plan of a seed with every class of fault and every fault point.
pub fn plan_with_everything(seed: u64) -> Plan {
    draw(seed, None, FaultMix::All)
}

/// Which classes of faults a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultMix {
    /// Each class is drawn with a probability of its own.
    Drawn,
    /// All classes are present.
    All,
}

impl FaultMix {
    /// Draws whether a run has a feature; with all faults, every run has it.
    fn has(self, rng: &mut impl Rng, probability: f64) -> bool {
        let is_drawn = rng.random_bool(probability);
        is_drawn || self == Self::All
    }
}

fn draw(seed: u64, nodes: Option<u8>, mix: FaultMix) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let drawn = rng.random_range(2..=9);
    // With all faults, one node has a wrong secret and one is late: at least two others must
    // remain.
    let least = if mix == FaultMix::All { 4 } else { 2 };
    let nodes = nodes.unwrap_or(drawn.max(least));
    let cluster = cluster(&mut rng, nodes, mix);
    let faults = faults(&mut rng, nodes, mix);
    let mut load = load(&mut rng, &cluster);
    flood(&mut rng, &cluster, &faults, &mut load);
    Plan { scenario: "swarm".to_owned(), seed, cluster, duration_ms: FAULT_PHASE_MS, faults, load }
}

fn cluster(rng: &mut impl Rng, nodes: u8, mix: FaultMix) -> Cluster {
    let tick_ms = pick(rng, &[1, 5, 5]);
    let latency_min_ms = pick(rng, &[0, 1, 2, 10]);
    let latency_max_ms = latency_min_ms + pick(rng, &[0, 1, 5, 40]);
    let mut late = Vec::new();
    if mix.has(rng, 0.15) {
        late.push((Node(rng.random_range(0..nodes)), rng.random_range(1_000..20_000)));
    }
    let mut wrong_secret_nodes = Vec::new();
    if mix.has(rng, 0.1) {
        wrong_secret_nodes.push(Node(rng.random_range(0..nodes)));
    }
    Cluster {
        nodes,
        tick_ms,
        latency_min_ms,
        latency_max_ms,
        // turmoil bounds the accept queue by the same number: small sockets are for small clusters,
        // where few peers connect at once to a node that resumes.
        socket_segments: pick(rng, if nodes <= 4 { &[16, 64, 256] } else { &[64, 64, 256] }),
        limits: limits(rng),
        fault_points: fault_points(rng, mix),
        late,
        wrong_secret_nodes,
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
        outbound_calls_max: pick(rng, &[None, None, Some(4), Some(32)]),
        inbound_calls_max: pick(rng, &[None, None, Some(4), Some(32)]),
        ping_interval_ms: pick(rng, &[Some(1_000), Some(2_000), Some(4_000)]),
        stream_ping_interval_ms: pick(rng, &[Some(1_000), Some(3_000), None]),
        deadline_default_ms: pick(rng, &[Some(2_000), Some(8_000)]),
        backoff_max_ms: pick(rng, &[None, Some(1_000)]),
    }
}

fn fault_points(rng: &mut impl Rng, mix: FaultMix) -> Vec<(String, u16)> {
    let mut fault_points = Vec::new();
    for point in FaultPoint::ALL {
        if mix.has(rng, 0.3) {
            let rate = match point {
                // Evaluated for each frame.
                FaultPoint::DelayFlush | FaultPoint::FullSocket | FaultPoint::SpuriousWake => {
                    pick(rng, &[10, 100, 1_000])
                }
                // Evaluated once per connection, or once per node.
                FaultPoint::TinyQueue | FaultPoint::EarlyTimeout | FaultPoint::Supersede => {
                    pick(rng, &[500, 3_000])
                }
            };
            fault_points.push((point.name().to_owned(), rate));
        }
    }
    fault_points
}

/// The classes of faults of all swarms, in the order in which they are drawn.
const FAULT_CLASSES: [FaultClass; 9] = [
    cut::CUT,
    cut_one_way::CUT_ONE_WAY,
    hold::HOLD,
    slow::SLOW,
    power_loss::POWER_LOSS,
    bounce::BOUNCE,
    skew::SKEW,
    drift::DRIFT,
    cut::SWIZZLE,
];

fn faults(rng: &mut SmallRng, nodes: u8, mix: FaultMix) -> Vec<(u64, Fault)> {
    if rng.random_bool(0.1) && mix == FaultMix::Drawn {
        return Vec::new();
    }
    let mut drawing = Drawing::new(rng, nodes, FAULT_PHASE_MS);
    for class in FAULT_CLASSES {
        if mix.has(drawing.rng, 0.35) {
            let times = drawing.pick(&[1, 1, 2, 3, 6]);
            draw_class(&mut drawing, class, times, 500);
        }
    }
    drawing.finish()
}

/// Draws a class a number of times, each with a period of its own that begins at `earliest_ms` or
/// later.
fn draw_class(drawing: &mut Drawing<'_>, class: FaultClass, times: u32, earliest_ms: u64) {
    for _ in 0..times {
        drawing.from = drawing.rng.random_range(earliest_ms..FAULT_PHASE_MS - 2_000);
        drawing.to = drawing.from + drawing.pick(&[100, 1_000, 5_000, 15_000]);
        (class.draw)(drawing);
    }
}

fn load(rng: &mut impl Rng, cluster: &Cluster) -> Vec<(u64, Load)> {
    let calls = pick(rng, &[40, 150, 400]) * u64::from(cluster.nodes.min(5)) / 2;
    let streams_per_ten = pick(rng, &[0, 2, 5, 10]);
    let is_bursty = rng.random_bool(0.3);
    let sizes = sizes(rng, cluster);
    let mut load = Vec::new();
    let mut at = 0;
    for _ in 0..calls {
        if !is_bursty || rng.random_bool(0.02) {
            at = rng.random_range(0..FAULT_PHASE_MS);
        }
        let ends = two_nodes(rng, cluster.nodes);
        let operation = if rng.random_range(0..10) < streams_per_ten {
            Load::Stream(stream(rng, ends, &sizes))
        } else {
            Load::Request(request(rng, ends, &sizes))
        };
        load.push((at, operation));
    }
    load.sort_by_key(|(at, _)| *at);
    load
}

/// Adds more requests than fit into a queue, at once and to one node: often one that has just
/// become unreachable.
fn flood(
    rng: &mut impl Rng,
    cluster: &Cluster,
    faults: &[(u64, Fault)],
    load: &mut Vec<(u64, Load)>,
) {
    if !rng.random_bool(0.15) {
        return;
    }
    let link_faults = faults.iter().filter_map(|(at, fault)| match fault.effect() {
        Effect::LinkFails { from, to } => Some((at + 100, (from, to))),
        _ => None,
    });
    let mut link_faults: Vec<_> = link_faults.collect();
    link_faults.push((rng.random_range(1_000..FAULT_PHASE_MS), two_nodes(rng, cluster.nodes)));
    let (at, ends) = pick(rng, &link_faults);
    let sizes = [cluster.limits.message_bytes_max.unwrap_or(256 * 1024) - 128];
    for _ in 0..pick(rng, &[30, 60]) {
        load.push((at.min(FAULT_PHASE_MS - 1), Load::Request(request(rng, ends, &sizes))));
    }
    load.sort_by_key(|(at, _)| *at);
}

/// Draws the sizes of a run's messages: small ones, and up to the limit.
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

fn ending(rng: &mut impl Rng) -> PlannedHandlerEnd {
    match rng.random_range(0..20) {
        0 => PlannedHandlerEnd::Error,
        1 => PlannedHandlerEnd::Panic,
        2 => PlannedHandlerEnd::Never,
        3 => PlannedHandlerEnd::Unknown,
        _ => PlannedHandlerEnd::Success,
    }
}

fn request(rng: &mut impl Rng, (from, to): (Node, Node), sizes: &[u32]) -> RequestPlan {
    RequestPlan {
        from,
        to,
        bytes: pick(rng, sizes),
        response_bytes: pick(rng, sizes),
        work_ms: pick(rng, &[0, 0, 0, 3, 50, 1_000]),
        ending: ending(rng),
        timeout_ms: pick(rng, &[None, Some(20), Some(500), Some(5_000)]),
        cancel_after_ms: pick(rng, &[None, None, None, Some(0), Some(4), Some(100)]),
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
        receive_pace_ms: pick(rng, &[Some(0), Some(0), Some(5), Some(300), None]),
        ending: ending(rng),
        timeout_ms: pick(rng, &[None, None, Some(1_000), Some(10_000)]),
        cancel_after_ms: Some(pick(rng, &[30, 1_000, 10_000, 10_000])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_faults_is_in_a_swarm() {
        let swarms = [&FAULT_CLASSES[..], &locks::LOCK_FAULTS, &iam::IAM_FAULTS].concat();
        let drawn: Vec<_> = swarms.iter().map(|class| class.name).collect();
        for class in Fault::all_classes() {
            assert!(drawn.contains(&class.name), "{class:?} is in no swarm");
        }
    }
}
