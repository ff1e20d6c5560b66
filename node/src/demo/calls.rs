//! The calls of the demo: from every server to every other, of several types, each with an expected
//! outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use grid::{
    CallError, CallOptions, Connection, HandlerError, HandlerId, Manager, RegisterError, Route,
};
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::RETRY_INTERVAL;
use super::counters::Pair;
use crate::handlers::{ECHO, SLEEP, SleepRequest};
use crate::outcome::Outcome;

/// Timeout of calls that nothing delays. A call that takes longer is lost.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

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
pub(super) struct CallWorker {
    pub(super) connection: Connection,
    pub(super) pair: Arc<Pair>,
    pub(super) rng: SmallRng,
    /// Payloads are slices of these.
    pub(super) random_bytes: Bytes,
    /// Time between two calls.
    pub(super) period: Duration,
    pub(super) is_stopping: Arc<AtomicBool>,
}

impl CallWorker {
    /// Calls until the load is stopped.
    pub(super) async fn work(mut self) {
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
