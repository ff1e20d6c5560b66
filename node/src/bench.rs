//! `gridwire bench`: how many echo calls per second one connection carries, and their latencies.
//! `streams` is the measurement of `--stream`.
//!
//! A closed loop: each concurrent call is a task that calls again as soon as it has its response.
//! Tasks share only the connection; their counts are merged at the end.

mod report;
mod streams;

use std::time::{Duration, Instant};

use bytes::Bytes;
use grid::{Connection, Failure};
use hdrhistogram::CreationError;
use rand::Rng;
use tokio::task::JoinSet;

use crate::cli::BenchArgs;
use crate::client::{Client, ClientError};
use crate::handlers::ECHO;
use crate::latency::Latencies;
use crate::outcome::Outcome;
use crate::output;

use self::report::Report;

/// Pause after a failed call, so that a lost connection does not cause a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// Why a bench failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot record latencies: {0}")]
    Latencies(#[from] CreationError),
    #[error("a task of the bench failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("{failed} calls failed, {responded} succeeded: the result is not meaningful{last}")]
    CallsFailed { failed: u64, responded: u64, last: String },
    #[error("no call succeeded")]
    NoCalls,
    #[error("{failed} of {streams} streams failed: the result is not meaningful; first: {first}")]
    StreamsFailed { failed: usize, streams: usize, first: String },
    #[error("no message arrived")]
    NoMessages,
    #[error("cannot write the result: {0}")]
    Write(#[from] std::io::Error),
}

impl BenchError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => error.exit_code(),
            _ => 1,
        }
    }
}

/// Measures, and prints the result.
pub(crate) fn run(arguments: &BenchArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads.into())
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    if arguments.stream {
        return runtime.block_on(streams::run(arguments));
    }
    let BenchResult { tally, elapsed, last_failure } = runtime.block_on(measure(arguments))?;
    let report = Report::new(arguments, &tally, elapsed);
    match arguments.json {
        true => output::print_line(&report.json().map_err(std::io::Error::from)?)?,
        false => output::print_line(&report)?,
    }
    match (tally.failed(), tally.latencies.count()) {
        (0, 0) => Err(BenchError::NoCalls),
        (0, _) => Ok(()),
        (failed, responded) => {
            let last =
                last_failure.map_or_else(String::new, |last| format!("; last failure: {last}"));
            Err(BenchError::CallsFailed { failed, responded, last })
        }
    }
}

/// The result of a bench.
struct BenchResult {
    tally: Tally,
    elapsed: Duration,
    /// Why the connection was last lost, if it was.
    last_failure: Option<Failure>,
}

async fn measure(arguments: &BenchArgs) -> Result<BenchResult, BenchError> {
    let client =
        Client::connect(&arguments.peer, &arguments.client.identity, arguments.client.timeout)
            .await?;
    let payload = random_payload(usize::try_from(arguments.size).unwrap_or(usize::MAX));
    let measure_from = Instant::now() + Duration::from_secs(arguments.warmup);
    let measure_until = measure_from + Duration::from_secs(arguments.seconds);
    let mut tasks = JoinSet::new();
    for _ in 0..arguments.calls() {
        let caller = BenchCaller {
            connection: client.connection.clone(),
            payload: payload.clone(),
            timeout: arguments.client.timeout,
            measure_from,
            measure_until,
            tally: Tally::new()?,
        };
        tasks.spawn(caller.call_until_end());
    }
    let mut total = Tally::new()?;
    while let Some(tally) = tasks.join_next().await {
        total.merge(&tally?);
    }
    let elapsed = measure_from.elapsed();
    let last_failure = client.connection.stats().last_failure;
    client.shutdown().await;
    Ok(BenchResult { tally: total, elapsed, last_failure })
}

/// Random bytes, so that no layer can compress them.
fn random_payload(bytes: usize) -> Bytes {
    let mut payload = vec![0; bytes];
    rand::rng().fill_bytes(&mut payload);
    payload.into()
}

/// Makes calls one after the other.
struct BenchCaller {
    connection: Connection,
    payload: Bytes,
    timeout: Duration,
    /// Calls that begin earlier are warm-up.
    measure_from: Instant,
    measure_until: Instant,
    tally: Tally,
}

impl BenchCaller {
    async fn call_until_end(mut self) -> Tally {
        let mut start = Instant::now();
        while start < self.measure_until {
            let outcome = self.call().await;
            // One clock reading is the end of this call and the start of the next.
            let end = Instant::now();
            if start >= self.measure_from {
                match outcome {
                    Outcome::Responded => self.tally.latencies.record(end - start),
                    failure => self.tally.failures[failure.index()] += 1,
                }
            }
            start = end;
            if outcome != Outcome::Responded {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                start = Instant::now();
            }
        }
        self.tally
    }

    async fn call(&self) -> Outcome {
        let request = self.connection.request(ECHO, self.payload.clone()).timeout(self.timeout);
        match request.await {
            Ok(response) if response.len() == self.payload.len() => Outcome::Responded,
            Ok(_) => Outcome::Wrong,
            Err(error) => Outcome::from(&error),
        }
    }
}

/// Latencies of successful calls, and counts of failed ones.
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
