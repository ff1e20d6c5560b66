//! Single-flight: one collection for all concurrent callers, and for later ones within the ttl.
//!
//! ```text
//!          get: starts                 completed           ttl has passed
//!   Idle ─────────────► In flight ─────────────► Done ─────────────────────► get starts again
//!                         ▲   │ task ended without a result
//!                         └───┘ get starts again
//! ```
//!
//! A separate task computes the value, not its first caller: a caller that is cancelled does not
//! affect the others.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use grid::env::Env;
use grid::sync::Mutex;
use grid::time::Instant;
use tokio::sync::Notify;

/// Computes one value for all concurrent callers.
#[derive(Debug)]
pub(crate) struct SingleFlight<T> {
    state: Arc<Mutex<FlightState<T>>>,
    ttl: Duration,
}

/// State of the latest value.
#[derive(Debug)]
enum FlightState<T> {
    Idle,
    InFlight(Arc<InFlight<T>>),
    Done(Arc<T>, Instant),
}

/// A value that is being computed.
///
/// Waiting callers are woken in order of arrival. A watch channel would be simpler, but wakes in a
/// random order, which would make simulation runs unrepeatable.
#[derive(Debug)]
struct InFlight<T> {
    /// Result once it is completed; `None` inside if its task ended without one.
    result: OnceLock<Option<Arc<T>>>,
    completed: Notify,
}

impl<T: Send + Sync + 'static> SingleFlight<T> {
    /// Creates an idle single-flight. A value is shared for `ttl` after its completion.
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { state: Arc::new(Mutex::new(FlightState::Idle)), ttl }
    }

    /// Returns the value in flight, one that is younger than the ttl, or one computed now
    /// by `compute`. `None` if the task that computed it ended without a result.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not affect other callers.
    pub(crate) async fn get<Fut>(&self, env: &Env, compute: impl FnOnce() -> Fut) -> Option<Arc<T>>
    where
        Fut: Future<Output = T> + Send + 'static,
    {
        match self.join(env, compute) {
            Ok(result) => Some(result),
            Err(in_flight) => in_flight.wait().await,
        }
    }

    /// Returns the value if there is a fresh one, else the one in flight.
    fn join<Fut>(
        &self,
        env: &Env,
        compute: impl FnOnce() -> Fut,
    ) -> Result<Arc<T>, Arc<InFlight<T>>>
    where
        Fut: Future<Output = T> + Send + 'static,
    {
        let now = env.now();
        let mut state = self.state.lock();
        match &*state {
            FlightState::Done(result, at) if now.since(*at) < self.ttl => {
                return Ok(Arc::clone(result));
            }
            FlightState::InFlight(in_flight) if !in_flight.has_failed() => {
                return Err(Arc::clone(in_flight));
            }
            FlightState::Idle | FlightState::InFlight(_) | FlightState::Done(..) => {}
        }
        let in_flight = Arc::new(InFlight { result: OnceLock::new(), completed: Notify::new() });
        *state = FlightState::InFlight(Arc::clone(&in_flight));
        drop(state);
        let (value, state, env) = (compute(), Arc::clone(&self.state), env.clone());
        let completion = CompleteOnDrop(Arc::clone(&in_flight));
        tokio::spawn(async move {
            let result = Arc::new(value.await);
            let previous = std::mem::replace(
                &mut *state.lock(),
                FlightState::Done(Arc::clone(&result), env.now()),
            );
            drop(previous);
            completion.0.complete(Some(result));
        });
        Err(in_flight)
    }
}

impl<T> InFlight<T> {
    async fn wait(&self) -> Option<Arc<T>> {
        // Created before the check, so that a completion in between is not missed.
        let completed = self.completed.notified();
        if self.result.get().is_none() {
            completed.await;
        }
        self.result.get().cloned().flatten()
    }

    fn has_failed(&self) -> bool {
        self.result.get().is_some_and(Option::is_none)
    }

    /// Completes the value; further calls do nothing.
    fn complete(&self, result: Option<Arc<T>>) {
        let _ = self.result.set(result);
        self.completed.notify_waiters();
    }
}

/// Completes the value when its task ends for any reason, so that no caller waits forever.
struct CompleteOnDrop<T>(Arc<InFlight<T>>);

impl<T> Drop for CompleteOnDrop<T> {
    fn drop(&mut self) {
        self.0.complete(None);
    }
}
