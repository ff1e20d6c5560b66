//! A node loses power and starts again.
//!
//! Its reports then start over: they show its new start time, and average and maximum cover the
//! samples since then. The other nodes report these values once they are connected to it again, and
//! report it as down until then. No value from before its restart is reported afterwards.

use rand::RngExt;

use super::metrics_history::{add_steady_scrapes, new_metrics_plan, scrapes};
use super::{Scenario, sort};
use crate::event::{Event, ReportedValues, ServerReport};
use crate::fault::{PowerLoss, Restart};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "metrics_restart",
    about: "a node restarts: its averages start over, and its start time shows that",
    plan,
    expect,
};

const NODES: u8 = 3;
/// Longer than a reconnect: reports show the first sample before there is a second.
const INTERVAL_MS: u32 = 25_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_metrics_plan("metrics_restart", seed, NODES, 100_000, INTERVAL_MS);
    let node = Node(rng.random_range(0..NODES));
    // It is down for long enough that each other node is scraped in that time.
    let lost = rng.random_range(30_000..32_000);
    plan.faults.push((lost, Fault::PowerLoss(PowerLoss { node })));
    plan.faults.push((lost + rng.random_range(5_000..7_000), Fault::Restart(Restart { node })));
    add_steady_scrapes(&mut plan, &mut rng, (0..NODES).map(Node), 2_000);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let [(lost_ms, Fault::PowerLoss(PowerLoss { node })), (_, Fault::Restart(_))] = plan.faults[..]
    else {
        return Err("the plan lacks a restart".to_owned());
    };
    for on in (0..NODES).map(Node) {
        let own = scrapes(events).into_iter().filter(|scrape| scrape.on == on);
        let reports =
            own.filter_map(|scrape| scrape.of(node).map(|report| (scrape.requested_ms, report)));
        let reports: Vec<_> = reports.collect();
        let up = |(at_ms, report): &(u64, &ServerReport)| match report {
            ServerReport::Up { report } => Some((*at_ms, *report)),
            ServerReport::Down { .. } => None,
        };
        let (before, after): (Vec<_>, Vec<_>) =
            reports.iter().filter_map(up).partition(|(at_ms, _)| *at_ms < lost_ms);
        let start_of = |(_, report): &(u64, ReportedValues)| report.start_ms;
        let (Some(first), Some(second)) =
            (before.last().and_then(start_of), after.first().and_then(start_of))
        else {
            return Err(format!("{on} must report {node} before and after its restart"));
        };
        if second <= first {
            return Err(format!("{on} must report that {node} restarted: {first}, then {second}"));
        }
        // First of a single sample, then of several.
        let is_first = |(_, report): &(u64, ReportedValues)| {
            report.start_ms == Some(second)
                && report.load.is_some()
                && report.load_average == report.load.map(|load| load * 1_000)
                && report.load_maximum == report.load
        };
        let has_more = |(_, report): &(u64, ReportedValues)| {
            report.start_ms == Some(second) && report.interval_ms.is_some()
        };
        if !after.iter().any(is_first) || !after.iter().any(has_more) {
            return Err(format!(
                "{on} must report the first samples of {node} after its restart, and later ones"
            ));
        }
        if on != node
            && !reports.iter().any(|(at, report)| *at > lost_ms && up(&(*at, report)).is_none())
        {
            return Err(format!("{on} must report that {node} was down"));
        }
    }
    Ok(())
}
