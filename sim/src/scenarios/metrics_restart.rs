//! A node loses its power and starts again.
//!
//! What it tells of itself then begins anew: its start time says so, and average and maximum are of what
//! came since. The others see that once they are connected to it again, and until then that it is down;
//! nothing that it said before its restart is told of it any more.

use rand::RngExt;

use super::metrics_history::{begin_metrics, scrapes, steady_scrapes};
use super::{Scenario, sort};
use crate::event::{Event, ReportedValues, ServerReport};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "metrics_restart",
    about: "a node restarts: its averages begin anew, and its start time says so",
    plan,
    expect,
};

const NODES: u8 = 3;
/// Longer than it takes to be connected again: the first sample is seen while it is alone.
const INTERVAL_MS: u32 = 25_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_metrics("metrics_restart", seed, NODES, 100_000, INTERVAL_MS);
    let node = Node(rng.random_range(0..NODES));
    // It is gone for long enough for everybody to ask meanwhile.
    let lost = rng.random_range(30_000..32_000);
    plan.faults.push((lost, Fault::PowerLoss { node }));
    plan.faults.push((lost + rng.random_range(5_000..7_000), Fault::Restart { node }));
    steady_scrapes(&mut plan, &mut rng, (0..NODES).map(Node), 2_000);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let [(lost_ms, Fault::PowerLoss { node }), (_, Fault::Restart { .. })] = plan.faults[..] else {
        return Err("the plan lacks a restart".to_owned());
    };
    for on in (0..NODES).map(Node) {
        let of_it = scrapes(events).into_iter().filter(|scrape| scrape.on == on);
        let told = of_it.filter_map(|scrape| scrape.of(node).map(|told| (scrape.asked_ms, told)));
        let told: Vec<_> = told.collect();
        let up = |(at_ms, told): &(u64, &ServerReport)| match told {
            ServerReport::Up { report } => Some((*at_ms, *report)),
            ServerReport::Down { .. } => None,
        };
        let (before, after): (Vec<_>, Vec<_>) =
            told.iter().filter_map(up).partition(|(at_ms, _)| *at_ms < lost_ms);
        let began = |(_, report): &(u64, ReportedValues)| report.start_ms;
        let (Some(first), Some(second)) =
            (before.last().and_then(began), after.first().and_then(began))
        else {
            return Err(format!("{on} must report {node} before and after its restart"));
        };
        if second <= first {
            return Err(format!("{on} must report that {node} restarted: {first}, then {second}"));
        }
        // Of one sample alone, then of several.
        let is_alone = |(_, report): &(u64, ReportedValues)| {
            report.start_ms == Some(second)
                && report.load.is_some()
                && report.load_average == report.load.map(|load| load * 1_000)
                && report.load_maximum == report.load
        };
        let has_more = |(_, report): &(u64, ReportedValues)| {
            report.start_ms == Some(second) && report.interval_ms.is_some()
        };
        if !after.iter().any(is_alone) || !after.iter().any(has_more) {
            return Err(format!("{on} must report the first samples of {node}, and of more"));
        }
        if on != node && !told.iter().any(|(at, told)| *at > lost_ms && up(&(*at, told)).is_none())
        {
            return Err(format!("{on} must say that {node} was down"));
        }
    }
    Ok(())
}
