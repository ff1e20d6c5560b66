//! A node is cut off from all others, and the cluster is scraped on both sides.
//!
//! The unreachable side is reported as down: first with a timeout, because no response arrives by
//! the deadline; once the dead connection is detected, because there is no connection. All other
//! nodes stay up throughout, and all nodes are up after the links are repaired.

use rand::RngExt;

use super::metrics_history::{CONNECTED_MS, add_steady_scrapes, new_metrics_plan, scrapes};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::{Cut, Repair};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "metrics_partition",
    about: "a node is cut off: it is reported down, with a reason, and the others in time",
    plan,
    expect,
};

const NODES: u8 = 4;
const INTERVAL_MS: u32 = 5_000;
/// Time for earlier scrapes to complete.
const MARGIN_MS: u64 = 3_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) =
        new_metrics_plan("metrics_partition", seed, NODES, 70_000, INTERVAL_MS);
    let a = Node(rng.random_range(0..NODES));
    let (cut, repaired) = (rng.random_range(9_000..11_000), rng.random_range(35_000..37_000));
    for b in (0..NODES).map(Node).filter(|b| *b != a) {
        plan.faults.push((cut, Fault::Cut(Cut { a, b })));
        plan.faults.push((repaired, Fault::Repair(Repair { a, b })));
    }
    add_steady_scrapes(&mut plan, &mut rng, (0..NODES).map(Node), 1_500);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let bounds = Bounds::of(plan);
    let (Some((cut_ms, Fault::Cut(Cut { a: cut_off, .. }))), Some((repaired_ms, _))) =
        (plan.faults.first(), plan.faults.last())
    else {
        return Err("the plan lacks a cut".to_owned());
    };
    let detected_ms = cut_ms + bounds.dead_peer_ms + MARGIN_MS;
    let healthy_ms = repaired_ms + bounds.settle_ms + bounds.reconnect_ms + MARGIN_MS;
    let (mut timeouts, mut not_connected, mut recovered) = (0, 0, 0);
    for scrape in scrapes(events) {
        for server in (0..NODES).map(Node).filter(|server| *server != scrape.on) {
            let is_cut = [server, scrape.on].contains(cut_off);
            match scrape.requested_ms {
                requested if requested < CONNECTED_MS => {}
                requested if !is_cut || requested + MARGIN_MS < *cut_ms => {
                    scrape.must_be_up(server)?;
                }
                requested if (cut_ms + 1_000..cut_ms + MARGIN_MS).contains(&requested) => {
                    timeouts += usize::from(scrape.must_be_down(server)? == "timeout");
                }
                requested if (detected_ms..repaired_ms - 1_000).contains(&requested) => {
                    if scrape.must_be_down(server)? != "not_connected" {
                        return Err(scrape.violation("must report that there is no connection"));
                    }
                    not_connected += 1;
                }
                requested if requested >= healthy_ms => {
                    scrape.must_be_up(server)?;
                    recovered += 1;
                }
                _ => {}
            }
        }
    }
    match timeouts > 0 && not_connected > 0 && recovered > 0 {
        true => Ok(()),
        false => {
            Err("no scrape was made while the node was cut off, and before and after".to_owned())
        }
    }
}
