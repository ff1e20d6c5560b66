//! The command line.

pub(crate) mod corpus;
mod output;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod shrink;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sim::corpus::CorpusError;
use sim::plan::Plan;
use sim::scenarios::{self, Scenario};

/// Simulates clusters on a simulated network, from seeds
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run scenarios for many seeds; exit with 1 and name the seeds if any fails
    Run(run::Arguments),
    /// Run the corpus of plans that failed once
    Corpus(corpus::Arguments),
    /// Run one seed, or one plan from a file, and print its events
    Replay(replay::Arguments),
    /// Shrink a failing plan as far as the same invariant fails
    Shrink(shrink::Arguments),
    /// List the scenarios
    List,
}

/// Result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Success,
    Failure,
}

/// An invalid command line, or an invalid file that it names.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("unknown scenario {name}; the scenarios are: {}", names())]
    NoScenario { name: String },
    #[error("give a seed, or a plan with --schedule")]
    NoSeedOrSchedule,
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    #[error("the plan does not fail: there is nothing to shrink")]
    DoesNotFail,
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: std::io::Error },
    #[error("cannot write to standard output: {0}")]
    Stdout(#[from] std::io::Error),
}

impl UsageError {
    /// Returns whether the reader of the output closed the pipe.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Stdout(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

fn names() -> String {
    let names: Vec<_> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
    names.join(", ")
}

fn find(name: &str) -> Result<&'static Scenario, UsageError> {
    scenarios::find(name).ok_or_else(|| UsageError::NoScenario { name: name.to_owned() })
}

/// Selects one run.
#[derive(Debug, Args)]
pub(crate) struct RunSelection {
    /// The seed
    seed: Option<u64>,
    /// The scenario that makes the plan from the seed
    #[arg(long, default_value = "swarm", value_name = "NAME", conflicts_with = "schedule")]
    scenario: String,
    /// Nodes of a swarm run; drawn from the seed unless given
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u8).range(2..=9),
        conflicts_with = "schedule"
    )]
    nodes: Option<u8>,
    /// A plan or a corpus entry, instead of a plan made from the seed
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
}

impl RunSelection {
    fn source(&self) -> output::Source<'_> {
        match &self.schedule {
            Some(file) => output::Source::File(file, self.seed),
            None => output::Source::Seed,
        }
    }

    fn plan(&self) -> Result<Plan, UsageError> {
        let mut plan = match (&self.schedule, self.seed) {
            (Some(file), _) => sim::corpus::read_plan(file)?,
            (None, Some(seed)) => return Ok(plan_of(find(&self.scenario)?, seed, self.nodes)),
            (None, None) => return Err(UsageError::NoSeedOrSchedule),
        };
        // The same schedule with other latencies and fault points.
        plan.seed = self.seed.unwrap_or(plan.seed);
        Ok(plan)
    }
}

/// Returns a scenario's plan of a seed; with `nodes` nodes, if the scenario is the swarm.
fn plan_of(scenario: &Scenario, seed: u64, nodes: Option<u8>) -> Plan {
    match (scenario.name, nodes) {
        ("swarm", Some(nodes)) => sim::swarm::plan(seed, Some(nodes)),
        (_, _) => (scenario.plan)(seed),
    }
}

/// Prints the scenarios.
pub(crate) fn list() -> Result<ExitStatus, UsageError> {
    for Scenario { name, about, .. } in scenarios::ALL {
        output::line(format_args!("{name:<28} {about}"))?;
    }
    Ok(ExitStatus::Success)
}
