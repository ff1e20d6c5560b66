//! `gridwire bench`: how many echo calls a second one connection carries, and how long each takes.
//! `streams` is what `--stream` measures instead.
//!
//! A closed loop: as many tasks as calls shall be under way, each calling again as soon as it is
//! answered. Tasks share nothing but the connection; what they counted is put together at the end.

mod report;
mod streams;

use std::time::{Duration, Instant};

use bytes::Bytes;
use grid::{Connection, Failure};
use hdrhistogram::CreationError;
use rand::Rng;
use tokio::task::JoinSet;

use crate::cli::BenchArgs;
use crate::handlers::ECHO;
use crate::latency::Latencies;
use crate::outcome::Outcome;
use crate::probe::{Probe, ProbeError};
use crate::stdout;

use self::report::Report;

/// A failed call is followed by this wait, lest a server that is gone makes a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// Why a bench has no good result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("cannot record latencies: {0}")]
    Latencies(#[from] CreationError),
    #[error("a task of the bench ended badly: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("{failed} calls failed, {answered} were answered: the numbers mean little{last}")]
    CallsFailed { failed: u64, answered: u64, last: String },
    #[error("no call was answered")]
    NoCalls,
    #[error("{failed} of {streams} streams failed: the numbers mean little; first: {first}")]
    StreamsFailed { failed: usize, streams: usize, first: String },
    #[error("no message came through")]
    NoMessages,
    #[error("cannot write the result: {0}")]
    Write(#[from] std::io::Error),
}

impl BenchError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Probe(error) => error.exit_code(),
            _ => 1,
        }
    }
}

/// Measures, and prints what came out.
pub(crate) fn run(arguments: &BenchArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads.into())
        .enable_all()
        .build()
        .map_err(ProbeError::Runtime)?;
    if arguments.stream {
        return runtime.block_on(streams::run(arguments));
    }
    let Measured { tally, elapsed, last_failure } = runtime.block_on(measure(arguments))?;
    let report = Report::new(arguments, &tally, elapsed);
    match arguments.json {
        true => stdout::line(&report.json().map_err(std::io::Error::from)?)?,
        false => stdout::line(&report)?,
    }
    match (tally.failed(), tally.latencies.count()) {
        (0, 0) => Err(BenchError::NoCalls),
        (0, _) => Ok(()),
        (failed, answered) => {
            let last = last_failure.map_or_else(String::new, |last| format!("; last: {last}"));
            Err(BenchError::CallsFailed { failed, answered, last })
        }
    }
}

/// What came out.
struct Measured {
    tally: Tally,
    elapsed: Duration,
    /// Why the connection was lost, if it was.
    last_failure: Option<Failure>,
}

async fn measure(arguments: &BenchArgs) -> Result<Measured, BenchError> {
    let probe =
        Probe::connect(&arguments.peer, &arguments.probe.entry, arguments.probe.timeout).await?;
    let payload = random_payload(usize::try_from(arguments.size).unwrap_or(usize::MAX));
    let from = Instant::now() + Duration::from_secs(arguments.warmup);
    let until = from + Duration::from_secs(arguments.seconds);
    let mut tasks = JoinSet::new();
    for _ in 0..arguments.calls() {
        let caller = Caller {
            connection: probe.connection.clone(),
            payload: payload.clone(),
            timeout: arguments.probe.timeout,
            from,
            until,
            tally: Tally::new()?,
        };
        tasks.spawn(caller.call_until_over());
    }
    let mut total = Tally::new()?;
    while let Some(tally) = tasks.join_next().await {
        total.merge(&tally?);
    }
    let elapsed = from.elapsed();
    let last_failure = probe.connection.stats().last_failure;
    probe.leave().await;
    Ok(Measured { tally: total, elapsed, last_failure })
}

/// Not to be compressed or guessed by anything on the way.
fn random_payload(bytes: usize) -> Bytes {
    let mut payload = vec![0; bytes];
    rand::rng().fill_bytes(&mut payload);
    payload.into()
}

/// One task of the bench.
struct Caller {
    connection: Connection,
    payload: Bytes,
    timeout: Duration,
    /// What begins earlier is warm-up.
    from: Instant,
    until: Instant,
    tally: Tally,
}

impl Caller {
    async fn call_until_over(mut self) -> Tally {
        let mut begun = Instant::now();
        while begun < self.until {
            let outcome = self.call().await;
            // One reading of the clock ends this call and begins the next.
            let ended = Instant::now();
            if begun >= self.from {
                match outcome {
                    Outcome::Answered => self.tally.latencies.record(ended - begun),
                    failure => self.tally.failures[failure.index()] += 1,
                }
            }
            begun = ended;
            if outcome != Outcome::Answered {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                begun = Instant::now();
            }
        }
        self.tally
    }

    async fn call(&self) -> Outcome {
        let request = self.connection.request(ECHO, self.payload.clone()).timeout(self.timeout);
        match request.await {
            Ok(answer) if answer.len() == self.payload.len() => Outcome::Answered,
            Ok(_) => Outcome::Wrong,
            Err(error) => Outcome::from(&error),
        }
    }
}

/// What was counted.
struct Tally {
    latencies: Latencies,
    failures: [u64; Outcome::COUNT],
}

impl Tally {
    fn new() -> Result<Self, CreationError> {
        Ok(Self { latencies: Latencies::new()?, failures: [0; Outcome::COUNT] })
    }

    fn merge(&mut self, other: &Self) {
        self.latencies.merge(&other.latencies);
        for (sum, count) in self.failures.iter_mut().zip(other.failures) {
            *sum += count;
        }
    }

    fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }
}
