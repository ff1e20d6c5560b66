//! How a failure is told.

use sim::plan::Plan;
use sim::run::Violation;

/// Events before the violation that are shown.
pub(super) const LAST_EVENTS: usize = 30;

/// What failed, what was done to the cluster, and how to see it again.
pub(super) fn failure(name: &str, seed: u64, plan: &Plan, violation: &Violation) -> String {
    let mut text = format!("\n{name}, seed {seed} FAILED: {violation}\n");
    let nodes = plan.cluster.nodes;
    text += &format!("  {nodes} nodes, {} calls; faults:\n", plan.load.len());
    for (at_ms, fault) in &plan.faults {
        text += &format!("  {:>9.3}s {fault}\n", *at_ms as f64 / 1000.0);
    }
    let again = format!("{seed} --scenario {}", plan.scenario);
    text += &format!("  see it again: sim replay {again} --trace out.html\n");
    text += &format!("  make it small: sim shrink {again} --out small.toml\n");
    text
}
