//! The calls of the demo: from every server to every other, of all kinds, and what each must come
//! to. The streams and locks beside them begin and end here too, but are the business of `streams` and
//! `locks`.

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
use super::ledger::{Ledger, Pair};
use super::locks::LockWorker;
use super::streams::Streamer;
use crate::handlers::{ECHO, SLEEP, SleepRequest};
use crate::outcome::Outcome;

/// Calls under way at once from one server to another.
const WORKERS_PER_PAIR: u32 = 8;

/// Calls that all servers together begin in a second. Enough to keep every connection busy, and
/// little enough that a laptop stays usable.
const CALLS_PER_SECOND: u32 = 30_000;

/// Shortest time between two calls of a worker: what timers can tell apart.
const PERIOD_MIN: Duration = Duration::from_millis(1);

/// Longest a call may take that nothing delays. One that takes longer is lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A worker whose connection is down tries a call that often nevertheless.
pub(super) const RETRY_EVERY: Duration = Duration::from_millis(500);

/// What a handler sleeps when it must not be the one that ends the call.
const TOO_LONG: SleepRequest = SleepRequest { ms: 30_000 };

/// Fails with [`FAILURE`].
const FAIL: HandlerId = HandlerId::new(202);
const FAILURE: &str = "failed, as it was asked to";

/// Served by nobody.
const UNKNOWN: HandlerId = HandlerId::new(203);

/// Registers what the load calls beyond what every node serves.
pub(super) fn register(manager: &Manager) -> Result<(), RegisterError> {
    manager.register(Route::new(FAIL).name("Fail"), |_context, _payload| async {
        Err(HandlerError::from(FAILURE))
    })
}

/// All callers.
pub(super) struct Load {
    is_over: Arc<AtomicBool>,
    /// From one server to another.
    pairs: u32,
    period: Duration,
    /// Where payloads are cut from.
    noise: Bytes,
    tasks: Vec<JoinHandle<()>>,
}

/// What came of stopping the load.
pub(super) struct Stopped {
    /// Workers that did not end in time: a call of theirs hangs.
    pub(super) hanging: usize,
    pub(super) panicked: usize,
}

impl Load {
    pub(super) fn new(nodes: usize) -> Self {
        let mut noise = vec![0; 64 * 1_024];
        SmallRng::seed_from_u64(0).fill_bytes(&mut noise);
        let pairs = u32::try_from(nodes * (nodes - 1)).unwrap_or(u32::MAX);
        let workers = pairs.saturating_mul(WORKERS_PER_PAIR);
        Self {
            is_over: Arc::default(),
            pairs,
            period: (Duration::from_secs(1) * workers / CALLS_PER_SECOND).max(PERIOD_MIN),
            noise: noise.into(),
            tasks: Vec::new(),
        }
    }

    /// Lets one server call all others, and take locks, until the load is stopped or the server killed.
    pub(super) fn start_from(&mut self, from: usize, cluster: &Cluster, ledger: &Ledger) {
        let Some(runtime) = cluster.runtime(from) else { return };
        for pair in ledger.pairs().iter().filter(|pair| pair.from == from) {
            let Some(connection) = cluster.connection(from, pair.to) else { continue };
            for number in 0..WORKERS_PER_PAIR {
                let seed = (pair.from << 16 | pair.to << 8) as u64 | u64::from(number);
                let worker = Worker {
                    connection: connection.clone(),
                    pair: Arc::clone(pair),
                    rng: SmallRng::seed_from_u64(seed),
                    noise: self.noise.clone(),
                    period: self.period,
                    is_over: Arc::clone(&self.is_over),
                };
                self.tasks.push(runtime.spawn(worker.work()));
            }
            let Self { pairs, noise, is_over, .. } = self;
            for streamer in Streamer::of_pair(*pairs, pair, &connection, noise, is_over) {
                self.tasks.push(runtime.spawn(streamer.work()));
            }
        }
        if let Some(dsync) = cluster.dsync(from) {
            for worker in LockWorker::of_node(from, dsync, &ledger.locks, &self.is_over) {
                self.tasks.push(runtime.spawn(worker.work()));
            }
        }
    }

    /// Lets the calls and streams under way end, and begins no more.
    pub(super) async fn stop(&mut self) -> Stopped {
        self.is_over.store(true, Ordering::Relaxed);
        let mut stopped = Stopped { hanging: 0, panicked: 0 };
        // Each call has a deadline of its own: when twice that has passed, it hangs. A stream has no
        // more to do than to finish.
        let patience = tokio::time::sleep(2 * CALL_TIMEOUT);
        tokio::pin!(patience);
        for mut task in std::mem::take(&mut self.tasks) {
            tokio::select! {
                biased;
                ended = &mut task => match ended {
                    Err(error) if error.is_panic() => stopped.panicked += 1,
                    Ok(()) | Err(_) => {}
                },
                () = &mut patience => stopped.hanging += 1,
            }
        }
        stopped
    }
}

/// One call of the load, and so what must come of it while the connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A few bytes, as most calls are.
    Small,
    /// A block of data.
    Large,
    /// To a handler that is slower than the deadline.
    ShortDeadline,
    /// Dropped while the handler runs.
    Dropped,
    /// To a handler that fails.
    Failing,
    /// To a handler that does not exist.
    Unknown,
}

impl Kind {
    /// The mix: parts of a thousand.
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

    /// What must come of it.
    const fn expected(self) -> Outcome {
        match self {
            Self::Small | Self::Large => Outcome::Answered,
            Self::ShortDeadline => Outcome::Deadline,
            Self::Dropped => Outcome::Cancelled,
            Self::Failing => Outcome::Remote,
            Self::Unknown => Outcome::UnknownHandler,
        }
    }
}

/// How a call ended, with the text of its error.
struct Ended {
    outcome: Outcome,
    text: String,
}

impl Ended {
    fn failed(error: &CallError) -> Self {
        Self { outcome: error.into(), text: error.to_string() }
    }

    fn plain(outcome: Outcome) -> Self {
        Self { outcome, text: String::new() }
    }
}

/// Makes one call after the other, at its own pace.
struct Worker {
    connection: Connection,
    pair: Arc<Pair>,
    rng: SmallRng,
    noise: Bytes,
    period: Duration,
    is_over: Arc<AtomicBool>,
}

impl Worker {
    async fn work(mut self) {
        // Not all in the same moment.
        tokio::time::sleep(self.period.mul_f64(self.rng.random::<f64>())).await;
        let mut pace = interval(self.period);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_over.load(Ordering::Relaxed) {
            pace.tick().await;
            let kind = Kind::draw(&mut self.rng);
            let open = self.pair.begin();
            let Ended { outcome, text } = self.call(kind).await;
            open.end(outcome);
            match outcome {
                outcome if outcome == kind.expected() => {}
                // Whether these may be is a matter of the pair, which the verdict knows.
                Outcome::Disconnected | Outcome::NotConnected => {
                    let _ = timeout(RETRY_EVERY, self.connection.wait_connected()).await;
                }
                outcome => {
                    let label = outcome.label();
                    self.pair.surprised(&format!("{kind:?} call came to: {label}. {text}"));
                }
            }
        }
    }

    async fn call(&mut self, kind: Kind) -> Ended {
        match kind {
            Kind::Small => self.echo(16..=512).await,
            Kind::Large => self.echo(4 * 1_024..=64 * 1_024).await,
            Kind::ShortDeadline => {
                let deadline = Duration::from_millis(self.rng.random_range(1..50));
                self.sleep(deadline).await
            }
            Kind::Dropped => {
                let patience = Duration::from_millis(self.rng.random_range(0..20));
                let dropped = timeout(patience, self.sleep(CALL_TIMEOUT)).await;
                dropped.unwrap_or_else(|_| Ended::plain(Outcome::Cancelled))
            }
            Kind::Failing => match self.fail(FAIL).await {
                Ended { outcome: Outcome::Remote, text } if !text.ends_with(FAILURE) => {
                    Ended { outcome: Outcome::Wrong, text }
                }
                ended => ended,
            },
            Kind::Unknown => self.fail(UNKNOWN).await,
        }
    }

    async fn echo(&mut self, bytes: std::ops::RangeInclusive<usize>) -> Ended {
        let bytes = self.rng.random_range(bytes);
        let payload = self.payload(bytes);
        let answer = self.connection.request(ECHO, payload.clone()).timeout(CALL_TIMEOUT).await;
        match answer {
            Ok(answer) if answer == payload => Ended::plain(Outcome::Answered),
            Ok(_) => Ended::plain(Outcome::Wrong),
            Err(error) => Ended::failed(&error),
        }
    }

    /// Begins with a number that no other call has, so that an answer meant for another is found.
    fn payload(&mut self, bytes: usize) -> Bytes {
        let mut payload = BytesMut::with_capacity(bytes);
        payload.put_u64(self.rng.random());
        payload.put_slice(&self.noise[..bytes - size_of::<u64>()]);
        payload.freeze()
    }

    /// Calls a handler that sleeps longer than anybody waits.
    async fn sleep(&self, deadline: Duration) -> Ended {
        let options = CallOptions::default().timeout(deadline);
        match SLEEP.call_with(&self.connection, &TOO_LONG, options).await {
            Ok(_) => Ended::plain(Outcome::Answered),
            Err(error) => Ended { outcome: Outcome::from(&error), text: error.to_string() },
        }
    }

    /// Calls a handler that does not answer but fails.
    async fn fail(&self, handler: HandlerId) -> Ended {
        match self.connection.request(handler, Bytes::new()).timeout(CALL_TIMEOUT).await {
            Ok(_) => Ended::plain(Outcome::Answered),
            Err(error) => Ended::failed(&error),
        }
    }
}
