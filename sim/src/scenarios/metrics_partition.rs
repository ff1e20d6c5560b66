//! A node is cut off from all others, and the cluster is scraped on both sides meanwhile.
//!
//! Whoever is cut off is told of as down: at first because its answer does not come by the deadline, once
//! the dead connection is found because there is none. All others stay up throughout, and after the links
//! are mended everybody is.

use rand::RngExt;

use super::metrics_history::{CONNECTED_MS, begin_metrics, scrapes, steady_scrapes};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{Fault, Node, Plan};

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "metrics_partition",
    about: "a node is cut off: it is down, for a reason, and the others are told of in time",
    plan,
    expect,
};

const NODES: u8 = 4;
const INTERVAL_MS: u32 = 5_000;
/// Scrapes that began before the trouble are over.
const MARGIN_MS: u64 = 3_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = begin_metrics("metrics_partition", seed, NODES, 70_000, INTERVAL_MS);
    let a = Node(rng.random_range(0..NODES));
    let (cut, mended) = (rng.random_range(9_000..11_000), rng.random_range(35_000..37_000));
    for b in (0..NODES).map(Node).filter(|b| *b != a) {
        plan.faults.push((cut, Fault::Cut { a, b }));
        plan.faults.push((mended, Fault::Repair { a, b }));
    }
    steady_scrapes(&mut plan, &mut rng, (0..NODES).map(Node), 1_500);
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let bounds = Bounds::of(plan);
    let (Some((cut_ms, Fault::Cut { a: cut_off, .. })), Some((mended_ms, _))) =
        (plan.faults.first(), plan.faults.last())
    else {
        return Err("the plan lacks a cut".to_owned());
    };
    let found_ms = cut_ms + bounds.dead_peer_ms + MARGIN_MS;
    let whole_ms = mended_ms + bounds.settle_ms + bounds.reconnect_ms + MARGIN_MS;
    let (mut timeouts, mut not_connected, mut recovered) = (0, 0, 0);
    for scrape in scrapes(events) {
        for server in (0..NODES).map(Node).filter(|server| *server != scrape.on) {
            let is_cut = [server, scrape.on].contains(cut_off);
            match scrape.asked_ms {
                asked if asked < CONNECTED_MS => {}
                asked if !is_cut || asked + MARGIN_MS < *cut_ms => {
                    scrape.must_be_up(server)?;
                }
                asked if (cut_ms + 1_000..cut_ms + MARGIN_MS).contains(&asked) => {
                    timeouts += usize::from(scrape.must_be_down(server)? == "timeout");
                }
                asked if (found_ms..mended_ms - 1_000).contains(&asked) => {
                    if scrape.must_be_down(server)? != "not_connected" {
                        return Err(scrape.complaint("must report that there is no connection"));
                    }
                    not_connected += 1;
                }
                asked if asked >= whole_ms => {
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
