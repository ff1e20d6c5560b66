//! One collection for all who want it at the same time, or soon after.
//!
//! ```text
//!            get: begins               it is done           not fresh any more
//!   Nothing ─────────────► Under way ─────────────► Done ───────────────────────► get begins anew
//!                            ▲   │ its task ended without a result
//!                            └───┘ get begins anew
//! ```
//!
//! What is under way belongs to a task of its own and not to whoever wanted it first: those who leave
//! take nothing from the others.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use grid::time::{Clock, Instant};
use tokio::sync::Notify;

/// Makes a value for several who want it.
#[derive(Debug)]
pub(crate) struct Flight<T> {
    state: Arc<Mutex<State<T>>>,
    shared_for: Duration,
}

#[derive(Debug)]
enum State<T> {
    Nothing,
    UnderWay(Arc<Making<T>>),
    Done(Arc<T>, Instant),
}

/// A value that is being made.
///
/// Whoever waits is woken in the order of coming. A watch channel would do the same with less, but wakes in
/// an order that is drawn anew each time: no run of a simulation could be repeated.
#[derive(Debug)]
struct Making<T> {
    /// What came of it, once it is over; nothing if its task ended before.
    made: OnceLock<Option<Arc<T>>>,
    is_over: Notify,
}

impl<T: Send + Sync + 'static> Flight<T> {
    /// What is made is good for so long after it was done.
    pub(crate) fn new(shared_for: Duration) -> Self {
        Self { state: Arc::new(Mutex::new(State::Nothing)), shared_for }
    }

    /// What is being made, or was a moment ago, or is made by `make` now. `None` if the task that
    /// made it ended without a result.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing for anybody else.
    pub(crate) async fn get<Fut>(
        &self,
        clock: &Arc<dyn Clock>,
        make: impl FnOnce() -> Fut,
    ) -> Option<Arc<T>>
    where
        Fut: Future<Output = T> + Send + 'static,
    {
        match self.join(clock, make) {
            Ok(made) => Some(made),
            Err(under_way) => under_way.wait().await,
        }
    }

    /// What is there already, or what is under way.
    fn join<Fut>(
        &self,
        clock: &Arc<dyn Clock>,
        make: impl FnOnce() -> Fut,
    ) -> Result<Arc<T>, Arc<Making<T>>>
    where
        Fut: Future<Output = T> + Send + 'static,
    {
        let now = clock.now();
        let mut state = lock(&self.state);
        match &*state {
            State::Done(made, at) if now.since(*at) < self.shared_for => {
                return Ok(Arc::clone(made));
            }
            State::UnderWay(making) if !making.has_failed() => return Err(Arc::clone(making)),
            State::Nothing | State::UnderWay(_) | State::Done(..) => {}
        }
        let making = Arc::new(Making { made: OnceLock::new(), is_over: Notify::new() });
        *state = State::UnderWay(Arc::clone(&making));
        drop(state);
        let (value, state, clock) = (make(), Arc::clone(&self.state), Arc::clone(clock));
        let ending = Ending(Arc::clone(&making));
        tokio::spawn(async move {
            let made = Arc::new(value.await);
            let before =
                std::mem::replace(&mut *lock(&state), State::Done(Arc::clone(&made), clock.now()));
            drop(before);
            ending.0.end(Some(made));
        });
        Err(making)
    }
}

impl<T> Making<T> {
    async fn wait(&self) -> Option<Arc<T>> {
        // What ends between the look and the wait is not missed: it counts from here.
        let is_over = self.is_over.notified();
        if self.made.get().is_none() {
            is_over.await;
        }
        self.made.get().cloned().flatten()
    }

    fn has_failed(&self) -> bool {
        self.made.get().is_some_and(Option::is_none)
    }

    /// The first end counts.
    fn end(&self, made: Option<Arc<T>>) {
        let _ = self.made.set(made);
        self.is_over.notify_waiters();
    }
}

/// Of the task that makes something: however it ends, nobody waits for it any longer.
struct Ending<T>(Arc<Making<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
