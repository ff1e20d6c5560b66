//! The calls of the demo: from every server to every other, of several types, each with an expected
//! outcome. Starts and stops the workers of `streams` and `locks` too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use grid::{
    CallError, CallOptions, Connection, HandlerError, HandlerId, Manager, RegisterError, Route,
};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::cluster::Cluster;
use super::counters::{Counters, Pair};
use super::locks::LockWorker;
use super::streams::StreamWorker;
use crate::handlers::{ECHO, SLEEP, SleepRequest};
use crate::outcome::Outcome;

/// Concurrent calls from one server to another.
const WORKERS_PER_PAIR: u32 = 8;

/// Calls per second of all servers together. Enough to keep every connection busy, and few enough
/// that a laptop stays usable.
const CALLS_PER_SECOND: u32 = 30_000;

/// Shortest time between two calls of a worker: the resolution of timers.
const PERIOD_MIN: Duration = Duration::from_millis(1);

/// Timeout of calls that nothing delays. A call that takes longer is lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval at which a worker retries while its connection is down.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Sleeps longer than any deadline or cancellation of the demo.
const LONG_SLEEP: SleepRequest = SleepRequest { ms: 30_000 };

/// A handler that fails with [`FAILURE`].
const FAIL: HandlerId = HandlerId::new(202);
const FAILURE: &str = "failed on request";

/// An id without a handler.
const UNKNOWN: HandlerId = HandlerId::new(203);

/// Registers the handlers that only the demo has.
pub(super) fn register(manager: &Manager) -> Result<(), RegisterError> {
    manager.register(Route::new(FAIL).name("Fail"), |_context, _payload| async {
        Err(HandlerError::from(FAILURE))
    })
}

/// All workers.
pub(super) struct Load {
    is_stopping: Arc<AtomicBool>,
    /// Number of ordered pairs of servers.
    pairs: u32,
    period: Duration,
    /// Random bytes; payloads are slices of them.
    random_bytes: Bytes,
    tasks: Vec<JoinHandle<()>>,
}

/// The result of stopping the load.
pub(super) struct StoppedLoad {
    /// Workers that did not end in time, because a call hangs.
    pub(super) hanging: usize,
    pub(super) panicked: usize,
}

impl Load {
    pub(super) fn new(nodes: usize) -> Self {
        let mut random_bytes = vec![0; 64 * 1_024];
        SmallRng::seed_from_u64(0).fill_bytes(&mut random_bytes);
        let pairs = u32::try_from(nodes * (nodes - 1)).unwrap_or(u32::MAX);
        let workers = pairs.saturating_mul(WORKERS_PER_PAIR);
        Self {
            is_stopping: Arc::default(),
            pairs,
            period: (Duration::from_secs(1) * workers / CALLS_PER_SECOND).max(PERIOD_MIN),
            random_bytes: random_bytes.into(),
            tasks: Vec::new(),
        }
    }

    /// Starts the workers of one server. They run until the load is stopped or the server is
    /// killed.
    pub(super) fn start_from(&mut self, from: usize, cluster: &Cluster, counters: &Counters) {
        let Some(runtime) = cluster.runtime(from) else { return };
        for pair in counters.pairs().iter().filter(|pair| pair.from == from) {
            let Some(connection) = cluster.connection(from, pair.to) else { continue };
            for number in 0..WORKERS_PER_PAIR {
                let seed = (pair.from << 16 | pair.to << 8) as u64 | u64::from(number);
                let worker = CallWorker {
                    connection: connection.clone(),
                    pair: Arc::clone(pair),
                    rng: SmallRng::seed_from_u64(seed),
                    random_bytes: self.random_bytes.clone(),
                    period: self.period,
                    is_stopping: Arc::clone(&self.is_stopping),
                };
                self.tasks.push(runtime.spawn(worker.work()));
            }
            let Self { pairs, random_bytes, is_stopping, .. } = self;
            for worker in
                StreamWorker::of_pair(*pairs, pair, &connection, random_bytes, is_stopping)
            {
                self.tasks.push(runtime.spawn(worker.work()));
            }
        }
        if let Some(dsync) = cluster.dsync(from) {
            for worker in LockWorker::of_node(from, dsync, &counters.locks, &self.is_stopping) {
                self.tasks.push(runtime.spawn(worker.work()));
            }
        }
    }

    /// Starts no more calls and streams, and waits for the outstanding ones.
    pub(super) async fn stop(&mut self) -> StoppedLoad {
        self.is_stopping.store(true, Ordering::Relaxed);
        let mut stopped = StoppedLoad { hanging: 0, panicked: 0 };
        // Each call has a deadline, so a worker that needs twice as long hangs. Streams only have
        // to finish.
        let hang_timeout = tokio::time::sleep(2 * CALL_TIMEOUT);
        tokio::pin!(hang_timeout);
        for mut task in std::mem::take(&mut self.tasks) {
            tokio::select! {
                biased;
                ended = &mut task => match ended {
                    Err(error) if error.is_panic() => stopped.panicked += 1,
                    Ok(()) | Err(_) => {}
                },
                () = &mut hang_timeout => stopped.hanging += 1,
            }
        }
        stopped
    }
}

/// A type of call. It determines the expected outcome while the connection is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallKind {
    /// A few bytes: most calls.
    Small,
    /// A block of data.
    Large,
    /// A handler that is slower than the deadline.
    ShortDeadline,
    /// Dropped while the handler runs.
    Dropped,
    /// A handler that fails.
    Failing,
    /// An id without a handler.
    Unknown,
}

impl CallKind {
    /// Draws a type of call; weights are per mille.
    fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..1_000) {
            0..10 => Self::ShortDeadline,
            10..20 => Self::Dropped,
            20..25 => Self::Failing,
            25..30 => Self::Unknown,
            30..60 => Self::Large,
            _ => Self::Small,
        }
    }

    /// The outcome while the connection is up.
    const fn expected(self) -> Outcome {
        match self {
            Self::Small | Self::Large => Outcome::Responded,
            Self::ShortDeadline => Outcome::Deadline,
            Self::Dropped => Outcome::Cancelled,
            Self::Failing => Outcome::Remote,
            Self::Unknown => Outcome::UnknownHandler,
        }
    }
}

/// The outcome of a call, with its error text.
struct CallResult {
    outcome: Outcome,
    text: String,
}

impl CallResult {
    fn failed(error: &CallError) -> Self {
        Self { outcome: error.into(), text: error.to_string() }
    }

    fn plain(outcome: Outcome) -> Self {
        Self { outcome, text: String::new() }
    }
}

/// Makes one call after the other, at a fixed rate.
struct CallWorker {
    connection: Connection,
    pair: Arc<Pair>,
    rng: SmallRng,
    random_bytes: Bytes,
    period: Duration,
    is_stopping: Arc<AtomicBool>,
}

impl CallWorker {
    async fn work(mut self) {
        // Spreads the first calls over a period.
        tokio::time::sleep(self.period.mul_f64(self.rng.random::<f64>())).await;
        let mut pace = interval(self.period);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_stopping.load(Ordering::Relaxed) {
            pace.tick().await;
            let call = CallKind::draw(&mut self.rng);
            let open = self.pair.begin();
            let CallResult { outcome, text } = self.call(call).await;
            open.end(outcome);
            match outcome {
                outcome if outcome == call.expected() => {}
                // Expected only if one of the two was killed; the report checks that.
                Outcome::Disconnected | Outcome::NotConnected => {
                    let _ = timeout(RETRY_INTERVAL, self.connection.wait_connected()).await;
                }
                outcome => {
                    let label = outcome.label();
                    self.pair.record_unexpected(&format!("{call:?} call: {label}. {text}"));
                }
            }
        }
    }

    async fn call(&mut self, call: CallKind) -> CallResult {
        match call {
            CallKind::Small => self.echo(16..=512).await,
            CallKind::Large => self.echo(4 * 1_024..=64 * 1_024).await,
            CallKind::ShortDeadline => {
                let deadline = Duration::from_millis(self.rng.random_range(1..50));
                self.sleep(deadline).await
            }
            CallKind::Dropped => {
                let cancel_after = Duration::from_millis(self.rng.random_range(0..20));
                let dropped = timeout(cancel_after, self.sleep(CALL_TIMEOUT)).await;
                dropped.unwrap_or_else(|_| CallResult::plain(Outcome::Cancelled))
            }
            CallKind::Failing => match self.fail(FAIL).await {
                CallResult { outcome: Outcome::Remote, text } if !text.ends_with(FAILURE) => {
                    CallResult { outcome: Outcome::Wrong, text }
                }
                ended => ended,
            },
            CallKind::Unknown => self.fail(UNKNOWN).await,
        }
    }

    async fn echo(&mut self, bytes: std::ops::RangeInclusive<usize>) -> CallResult {
        let bytes = self.rng.random_range(bytes);
        let payload = self.payload(bytes);
        let response = self.connection.request(ECHO, payload.clone()).timeout(CALL_TIMEOUT).await;
        match response {
            Ok(response) if response == payload => CallResult::plain(Outcome::Responded),
            Ok(_) => CallResult::plain(Outcome::Wrong),
            Err(error) => CallResult::failed(&error),
        }
    }

    /// Creates a payload that begins with a unique number, so that a response to another call is
    /// found.
    fn payload(&mut self, bytes: usize) -> Bytes {
        let mut payload = BytesMut::with_capacity(bytes);
        payload.put_u64(self.rng.random());
        payload.put_slice(&self.random_bytes[..bytes - size_of::<u64>()]);
        payload.freeze()
    }

    /// Calls a handler that sleeps longer than any deadline.
    async fn sleep(&self, deadline: Duration) -> CallResult {
        let options = CallOptions::default().timeout(deadline);
        match SLEEP.call_with(&self.connection, &LONG_SLEEP, options).await {
            Ok(_) => CallResult::plain(Outcome::Responded),
            Err(error) => CallResult { outcome: Outcome::from(&error), text: error.to_string() },
        }
    }

    /// Calls a handler that returns an error.
    async fn fail(&self, handler: HandlerId) -> CallResult {
        match self.connection.request(handler, Bytes::new()).timeout(CALL_TIMEOUT).await {
            Ok(_) => CallResult::plain(Outcome::Responded),
            Err(error) => CallResult::failed(&error),
        }
    }
}
