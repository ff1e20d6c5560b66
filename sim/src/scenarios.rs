//! Named situations, each a file that describes what it shows.
//!
//! A scenario makes a [`Plan`] from a seed: the sequence of events is fixed; times, nodes and
//! latencies are drawn. All invariants hold in all scenarios; each also checks its own expectation.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::draw::two_nodes;
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{Load, Node, Plan, PlannedHandlerEnd, RequestPlan};

mod big_and_small;
mod cancel_storm;
mod clock_skew;
mod flapping_link;
mod full_queue_then_cancel;
mod full_queue_then_disconnect;
mod half_open_peer;
mod history;
mod iam_changes_in_a_partition;
mod iam_deletion_missed;
mod iam_history;
mod iam_late_joiner;
mod iam_late_pools;
mod iam_partition_in_load;
mod iam_reconnect_storm;
mod late_node;
mod lock_history;
mod locks_contention;
mod locks_cut_off_holder;
mod locks_dead_holder;
mod locks_far_waiter;
mod locks_force_unlock;
mod locks_lists_differ;
mod locks_locker_restarts;
mod locks_long_readers;
mod locks_many_leases;
mod locks_mixed;
mod locks_readers_behind_writer;
mod locks_rolling_list;
mod locks_slow_locker;
mod locks_stopped_holder;
mod locks_suspended_holder;
mod locks_wrong_clocks;
mod metrics_history;
mod metrics_partition;
mod metrics_restart;
mod metrics_scrapes;
mod metrics_slow_node;
mod one_way_cut;
mod partition_heals;
mod reconnect_storm;
mod rolling_restart;
mod slow_reader;
mod swarm;
mod wrong_token;

/// A named situation.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Name, as on the command line.
    pub name: &'static str,
    /// Description in a sentence.
    pub about: &'static str,
    /// Makes the plan of a seed.
    pub plan: fn(seed: u64) -> Plan,
    /// Checks the expectation besides the invariants.
    pub expect: fn(&Plan, &[Event]) -> CheckResult,
}

/// All scenarios, in the order of their names except `swarm`, which is last.
pub const ALL: &[Scenario] = &[
    big_and_small::SCENARIO,
    cancel_storm::SCENARIO,
    clock_skew::SCENARIO,
    swarm::EVERYTHING,
    swarm::FAIR,
    flapping_link::SCENARIO,
    full_queue_then_cancel::SCENARIO,
    full_queue_then_disconnect::SCENARIO,
    half_open_peer::SCENARIO,
    swarm::IAM,
    iam_changes_in_a_partition::SCENARIO,
    iam_deletion_missed::SCENARIO,
    iam_late_joiner::SCENARIO,
    iam_late_pools::SCENARIO,
    iam_partition_in_load::SCENARIO,
    iam_reconnect_storm::SCENARIO,
    late_node::SCENARIO,
    swarm::LISTS,
    swarm::LOCKS,
    locks_contention::SCENARIO,
    locks_cut_off_holder::SCENARIO,
    locks_dead_holder::SCENARIO,
    locks_far_waiter::SCENARIO,
    locks_force_unlock::SCENARIO,
    locks_lists_differ::SCENARIO,
    locks_locker_restarts::SCENARIO,
    locks_long_readers::SCENARIO,
    locks_many_leases::SCENARIO,
    locks_mixed::SCENARIO,
    locks_readers_behind_writer::SCENARIO,
    locks_rolling_list::SCENARIO,
    locks_slow_locker::SCENARIO,
    locks_stopped_holder::SCENARIO,
    locks_suspended_holder::SCENARIO,
    locks_wrong_clocks::SCENARIO,
    metrics_partition::SCENARIO,
    metrics_restart::SCENARIO,
    metrics_scrapes::SCENARIO,
    metrics_slow_node::SCENARIO,
    swarm::MIXED,
    one_way_cut::SCENARIO,
    partition_heals::SCENARIO,
    reconnect_storm::SCENARIO,
    rolling_restart::SCENARIO,
    slow_reader::SCENARIO,
    wrong_token::SCENARIO,
    swarm::SCENARIO,
];

/// Returns the scenario with this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// Checks that a plan can be run, and that its scenario exists: for plans that come from files.
///
/// # Errors
///
/// The reason why it cannot be run.
pub fn check(plan: &Plan) -> Result<(), String> {
    if !plan.scenario.is_empty() && find(&plan.scenario).is_none() {
        return Err(format!("unknown scenario {}", plan.scenario));
    }
    plan.check()
}

/// Creates a plan of `nodes` nodes with a name, a duration and a source of randomness.
fn new_plan(name: &str, seed: u64, nodes: u8, duration_ms: u64) -> (Plan, SmallRng) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut plan = Plan::quiet(nodes);
    name.clone_into(&mut plan.scenario);
    plan.seed = seed;
    plan.duration_ms = duration_ms;
    plan.cluster.latency_min_ms = rng.random_range(0..=2);
    plan.cluster.latency_max_ms = plan.cluster.latency_min_ms + rng.random_range(1..=10);
    // Half-open connections are detected in seconds, so that a run takes a minute.
    plan.cluster.limits.ping_interval_ms = Some(2_000);
    plan.cluster.limits.deadline_default_ms = Some(8_000);
    (plan, rng)
}

/// Adds small requests from each node to each other, about every `every_ms`.
fn add_steady_requests(plan: &mut Plan, rng: &mut SmallRng, every_ms: u64) {
    let nodes = plan.cluster.nodes;
    // Before the first tick no node runs, and a request in the last tick would not be made.
    let begin = plan.cluster.tick_ms;
    let end = plan.duration_ms.saturating_sub(plan.cluster.tick_ms);
    for from in (0..nodes).map(Node) {
        for to in (0..nodes).map(Node).filter(|to| *to != from) {
            let mut at = begin + rng.random_range(0..every_ms);
            while at < end {
                plan.load.push((at, Load::Request(small_request(from, to))));
                at += rng.random_range(every_ms / 2..=every_ms * 3 / 2).max(1);
            }
        }
    }
    sort(plan);
}

/// Returns a small request whose handler responds without waiting.
fn small_request(from: Node, to: Node) -> RequestPlan {
    RequestPlan {
        from,
        to,
        bytes: 100,
        response_bytes: 100,
        work_ms: 0,
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: None,
    }
}

/// Sorts load and faults by time.
fn sort(plan: &mut Plan) {
    plan.load.sort_by_key(|(at, _)| *at);
    plan.faults.sort_by_key(|(at, _)| *at);
}
