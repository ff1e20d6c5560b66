//! `sim shrink`: shrinks a failing plan.

use std::path::{Path, PathBuf};

use clap::Args;
use sim::corpus::Entry;
use sim::plan::Plan;
use sim::run::Violation;
use sim::shrink::{Budget, shrink};

use super::{ExitStatus, RunSelection, UsageError, output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: RunSelection,
    /// Where to write the shrunk plan, as a corpus entry
    #[arg(long, default_value = "shrunk.toml", value_name = "FILE")]
    out: PathBuf,
    /// Maximum number of runs
    #[arg(long, default_value_t = Budget::default().runs, value_name = "N")]
    runs: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitStatus, UsageError> {
    let plan = arguments.selection.plan()?;
    let Some(violation) = sim::sweep::run_plan(&plan).violation else {
        return Err(UsageError::DoesNotFail);
    };
    output::line(&violation)?;
    output::line(format_args!("from {}", size(&plan)))?;
    let fails = |plan: &Plan| {
        // An inconsistent plan does not fail in the same way.
        let found = plan.check().ok().and_then(|()| sim::sweep::run_plan(plan).violation);
        found.is_some_and(|found| found.is_like(&violation))
    };
    let budget = Budget { runs: arguments.runs };
    let mut printed = Ok(());
    let shrunk = shrink(&plan, budget, fails, |plan, runs| {
        printed = output::line(format_args!("  {} after {runs} runs", size(plan)));
    });
    printed?;
    let last = sim::sweep::run_plan(&shrunk.plan).violation.unwrap_or(violation);
    save(&arguments.out, &shrunk.plan, Some(&last))?;
    let least = if shrunk.is_minimal { "nothing smaller fails" } else { "stopped by --runs" };
    let (size, out) = (size(&shrunk.plan), arguments.out.display());
    output::line(format_args!("to {size} ({least}): {out}"))?;
    let source = output::Source::File(&arguments.out, None);
    output::line(output::failure(&plan.scenario, &shrunk.plan, &last, &source))?;
    Ok(ExitStatus::Failure)
}

fn size(plan: &Plan) -> String {
    let nodes = plan.cluster.nodes;
    format!("{nodes} nodes, {} faults, {} calls", plan.faults.len(), plan.load.len())
}

/// Writes a plan as a corpus entry.
pub(super) fn save(
    path: &Path,
    plan: &Plan,
    violation: Option<&Violation>,
) -> Result<(), UsageError> {
    let (about, invariant) = match violation {
        Some(violation) => (violation.text.clone(), violation.invariant.clone()),
        None => ("a plan saved by sim replay".to_owned(), String::new()),
    };
    Ok(sim::corpus::write(path, &Entry { about, invariant, plan: plan.clone() })?)
}
