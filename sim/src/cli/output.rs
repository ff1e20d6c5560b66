//! How a failure is told.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use sim::plan::Plan;
use sim::run::Violation;

/// Writes one line, or several, to standard output: by the caller's error, not by a panic, if
/// nobody reads it.
pub(super) fn line(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Events before the violation that are shown.
pub(super) const LAST_EVENTS: usize = 30;

/// What makes a run: as it is given to `sim replay`.
pub(super) enum Source<'a> {
    /// A scenario's plan of a seed.
    Seed,
    /// A file, and the seed that was given instead of its own.
    File(&'a Path, Option<u64>),
}

/// What failed, what was done to the cluster, and how to see it again.
pub(super) fn failure(
    name: &str,
    plan: &Plan,
    violation: &Violation,
    source: &Source<'_>,
) -> String {
    let mut text = format!("\n{name}, seed {} FAILED: {violation}\n", plan.seed);
    let nodes = plan.cluster.nodes;
    text += &format!("  {nodes} nodes, {} calls; faults:\n", plan.load.len());
    for (at_ms, fault) in &plan.faults {
        text += &format!("  {:>9.3}s {fault}\n", *at_ms as f64 / 1000.0);
    }
    let again = match source {
        Source::Seed => {
            let is_chosen = plan.scenario == "swarm"
                && sim::swarm::plan(plan.seed, None).cluster.nodes != nodes;
            let nodes = if is_chosen { format!(" --nodes {nodes}") } else { String::new() };
            format!("{} --scenario {}{nodes}", plan.seed, plan.scenario)
        }
        Source::File(path, None) => format!("--schedule {}", path.display()),
        Source::File(path, Some(seed)) => format!("{seed} --schedule {}", path.display()),
    };
    text += &format!("  see it again: sim replay {again} --trace out.html\n");
    text += &format!("  make it small: sim shrink {again} --out small.toml");
    text
}
