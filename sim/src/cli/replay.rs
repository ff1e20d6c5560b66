//! `sim replay`: runs one plan, and prints or writes its events.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use sim::plan::Plan;
use sim::run::Run;

use super::{ExitStatus, RunSelection, UsageError, output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: RunSelection,
    /// Where to write the trace: a page (.html), a ShiViz log (.shiviz), JSON lines (.jsonl), or
    /// text (anything else)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Where to write the plan, for changes and a replay with --schedule
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print all events, not only the last ones
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitStatus, UsageError> {
    let plan = arguments.selection.plan()?;
    if let Some(path) = &arguments.save {
        super::shrink::save(path, &plan, None)?;
    }
    let run = sim::sweep::run_plan(&plan);
    // Written first: the reader of the output may close the pipe before its end.
    if let Some(path) = &arguments.trace {
        write_trace(path, &plan, &run)?;
    }
    let hidden =
        if arguments.all { 0 } else { run.events.len().saturating_sub(output::LAST_EVENTS) };
    let mut out = std::io::stdout().lock();
    if hidden > 0 {
        writeln!(out, "({hidden} earlier events; --all prints them)")?;
    }
    for event in &run.events[hidden..] {
        writeln!(out, "{event}")?;
    }
    if let Some(path) = &arguments.trace {
        writeln!(out, "wrote the trace to {}", path.display())?;
    }
    let seconds = run.simulated_ms as f64 / 1000.0;
    let events = run.events.len();
    writeln!(out, "{events} events, {seconds:.1} simulated s, digest {:016x}", run.digest())?;
    Ok(match &run.violation {
        None => {
            writeln!(out, "no violation")?;
            ExitStatus::Success
        }
        Some(violation) => {
            let report =
                output::failure(&plan.scenario, &plan, violation, &arguments.selection.source());
            writeln!(out, "{report}")?;
            ExitStatus::Failure
        }
    })
}

fn write_trace(path: &Path, plan: &Plan, run: &Run) -> Result<(), UsageError> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let text = match extension {
        Some("jsonl") => {
            let lines: Result<Vec<_>, _> = run.events.iter().map(serde_json::to_string).collect();
            lines.map_err(std::io::Error::from)?.join("\n") + "\n"
        }
        Some("html") => sim::report::html(plan, &run.events),
        Some("shiviz") => sim::report::shiviz(&run.events),
        _ => sim::report::text(&run.events),
    };
    std::fs::write(path, text).map_err(|cause| UsageError::Write { path: path.to_owned(), cause })
}
