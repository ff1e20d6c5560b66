//! Prints failures and other lines.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use sim::plan::Plan;
use sim::run::Violation;

/// Writes lines to standard output. Returns an error, rather than panicking, if the pipe is closed.
pub(super) fn line(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Number of events printed before the violation.
pub(super) const LAST_EVENTS: usize = 30;

/// The arguments of `sim replay` that repeat a run.
pub(super) enum Source<'a> {
    /// A scenario's plan of a seed.
    Seed,
    /// A file, and the seed that replaces its own, if given.
    File(&'a Path, Option<u64>),
}

/// Describes the violation, the faults of the plan, and the commands that repeat and shrink the
/// run.
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
    text += &format!("  replay: sim replay {again} --trace out.html\n");
    text += &format!("  shrink: sim shrink {again} --out small.toml");
    text
}
