//! `sim run`: runs many seeds, with a progress bar and a summary.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sim::coverage::{self, Coverage};
use sim::iam::Convergence;
use sim::run::Violation;
use sim::scenarios::{self, Scenario};
use sim::sweep::{FinishedJob, Job, sweep};

use super::{ExitStatus, UsageError, find, output, plan_of};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A scenario; may be repeated; all scenarios unless given
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// A seed, or a range such as 0..200
    #[arg(long, default_value = "0..20", value_name = "RANGE")]
    seeds: Seeds,
    /// Threads; as many as there are processors unless given
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Nodes of swarm runs; drawn from the seed unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: Option<u8>,
    /// Begin no further run after this number of seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Begin no further run after the first failure; runs in progress finish, so that the lowest
    /// failing seed is always among the printed ones
    #[arg(long)]
    stop_at_first: bool,
    /// Fail if a coverage point was never reached
    #[arg(long)]
    require_coverage: bool,
    /// Print the coverage points and how often each was reached
    #[arg(long)]
    coverage: bool,
    /// Print one line of JSON for each run to standard output, and nothing else
    #[arg(long)]
    json: bool,
}

/// A range of seeds.
#[derive(Debug, Clone)]
struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a seed nor a range such as 0..200");
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        let range = match text.split_once("..") {
            None => number(text).map(|seed| seed..seed.saturating_add(1))?,
            Some((from, to)) => number(from)?..number(to)?,
        };
        if range.is_empty() { Err(format!("{text:?} is an empty range")) } else { Ok(Self(range)) }
    }
}

/// A run as a line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    scenario: &'a str,
    seed: u64,
    /// Equal for runs with equal traces.
    digest: String,
    simulated_ms: u64,
    events: usize,
    /// Time from healing until all replicas were equal, if the plan has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    convergence: Option<Convergence>,
    violation: Option<&'a Violation>,
    /// Number of hits of each coverage point; to be summed over machines.
    coverage: &'a BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct RunCounts {
    runs: u64,
    failed: Vec<u64>,
    simulated_ms: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitStatus, UsageError> {
    let chosen = chosen(arguments)?;
    let points = coverage::points_of(chosen.iter().map(|scenario| scenario.name));
    let Seeds(seeds) = &arguments.seeds;
    let total = (seeds.end - seeds.start).saturating_mul(chosen.len() as u64);
    let bar = progress(total, arguments.json);
    #[expect(clippy::disallowed_methods, reason = "measures real time for the user")]
    let start = Instant::now();
    let limit = arguments.seconds.map(Duration::from_secs);
    let nodes = arguments.nodes;
    let jobs = seeds.clone().flat_map(|seed| {
        chosen.iter().map(move |scenario| Job {
            name: scenario.name.to_owned(),
            seed,
            plan: plan_of(scenario, seed, nodes),
        })
    });
    let threads = arguments.jobs.or_else(|| std::thread::available_parallelism().ok());
    let (mut tallies, mut coverage) = (BTreeMap::<String, RunCounts>::new(), Coverage::default());
    let mut written = Ok(());
    sweep(jobs, threads.map_or(1, NonZeroUsize::get), |done| {
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        bar.inc(1);
        bar.set_message(format!("{:.0}/min", (bar.position() as f64) / minutes));
        coverage.add(&done.run.coverage);
        if arguments.json {
            written = print_line(&done);
        } else if let Some(violation) = &done.run.violation {
            let Job { name, plan, .. } = &done.job;
            let report = output::failure(name, plan, violation, &output::Source::Seed);
            written = bar.suspend(|| output::line(report));
        }
        let tally = tallies.entry(done.job.name).or_default();
        tally.runs += 1;
        tally.simulated_ms += done.run.simulated_ms;
        let has_failed = done.run.violation.is_some();
        tally.failed.extend(has_failed.then_some(done.job.seed));
        let is_last = has_failed && arguments.stop_at_first;
        written.is_ok() && !is_last && limit.is_none_or(|limit| start.elapsed() < limit)
    });
    written?;
    bar.finish_and_clear();
    if !arguments.json {
        output::line(summary(&tallies, start.elapsed()))?;
        output::line(reached(&coverage, &points, arguments.coverage))?;
    }
    let has_failed = tallies.values().any(|tally| !tally.failed.is_empty());
    let missing = coverage.missing(&points);
    let lacks_coverage = arguments.require_coverage && !missing.is_empty();
    if lacks_coverage {
        eprintln!("never reached: {}", missing.join(", "));
    }
    Ok(if has_failed || lacks_coverage { ExitStatus::Failure } else { ExitStatus::Success })
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static Scenario>, UsageError> {
    if arguments.scenarios.is_empty() {
        return Ok(scenarios::ALL.iter().collect());
    }
    arguments.scenarios.iter().map(|name| find(name)).collect()
}

fn progress(total: u64, is_json: bool) -> ProgressBar {
    if is_json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print_line(done: &FinishedJob) -> std::io::Result<()> {
    let line = Line {
        scenario: &done.job.name,
        seed: done.job.seed,
        digest: format!("{:016x}", done.run.digest()),
        simulated_ms: done.run.simulated_ms,
        events: done.run.events.len(),
        convergence: done.run.convergence,
        violation: done.run.violation.as_ref(),
        coverage: done.run.coverage.counts(),
    };
    output::line(serde_json::to_string(&line)?)
}

fn summary(tallies: &BTreeMap<String, RunCounts>, took: Duration) -> String {
    let head = format!("{:<28} {:>6} {:>7} {:>12}", "scenario", "runs", "failed", "simulated");
    let mut lines = vec![head];
    for (name, RunCounts { runs, failed, simulated_ms }) in tallies {
        let (failed, simulated) = (failed.len(), simulated_ms / 1000);
        lines.push(format!("{name:<28} {runs:>6} {failed:>7} {simulated:>10} s"));
    }
    let runs: u64 = tallies.values().map(|tally| tally.runs).sum();
    let (seconds, minutes) = (took.as_secs_f64(), took.as_secs_f64() / 60.0);
    lines.push(format!("{runs} runs in {seconds:.1} s: {:.0}/min", runs as f64 / minutes));
    for (name, RunCounts { failed, .. }) in tallies {
        if !failed.is_empty() {
            lines.push(format!("{name} failed for seeds {failed:?}"));
        }
    }
    lines.join("\n")
}

fn reached(coverage: &Coverage, points: &[&'static str], with_counts: bool) -> String {
    let missing = coverage.missing(points);
    let (points, reached) = (points.len(), points.len() - missing.len());
    let mut lines = vec![format!("{reached} of {points} coverage points reached")];
    if with_counts {
        let counts = coverage.counts().iter();
        lines.extend(counts.map(|(point, count)| format!("{count:>10} {point}")));
        lines.extend(missing.iter().map(|point| format!("{:>10} {point}", "never")));
    }
    lines.join("\n")
}
