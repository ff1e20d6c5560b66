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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid::time::{Clock, Instant};
use tokio::sync::watch;

/// Makes a value for several who want it.
#[derive(Debug)]
pub(crate) struct Flight<T> {
    state: Arc<Mutex<State<T>>>,
    shared_for: Duration,
}

#[derive(Debug)]
enum State<T> {
    Nothing,
    UnderWay(watch::Receiver<Option<Arc<T>>>),
    Done(Arc<T>, Instant),
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
        let mut made = match self.join(clock, make) {
            Ok(made) => return Some(made),
            Err(under_way) => under_way,
        };
        let made = made.wait_for(Option::is_some).await.ok()?;
        made.clone()
    }

    /// What is there already, or what is under way.
    fn join<Fut>(
        &self,
        clock: &Arc<dyn Clock>,
        make: impl FnOnce() -> Fut,
    ) -> Result<Arc<T>, watch::Receiver<Option<Arc<T>>>>
    where
        Fut: Future<Output = T> + Send + 'static,
    {
        let now = clock.now();
        let mut state = lock(&self.state);
        match &*state {
            State::Done(made, at) if now.since(*at) < self.shared_for => {
                return Ok(Arc::clone(made));
            }
            // Without a sender its task is over; with a result it would have said so.
            State::UnderWay(made) if made.has_changed().is_ok() => return Err(made.clone()),
            State::Nothing | State::UnderWay(_) | State::Done(..) => {}
        }
        let (done, made) = watch::channel(None);
        *state = State::UnderWay(made.clone());
        drop(state);
        let (making, state, clock) = (make(), Arc::clone(&self.state), Arc::clone(clock));
        tokio::spawn(async move {
            let made = Arc::new(making.await);
            let before =
                std::mem::replace(&mut *lock(&state), State::Done(Arc::clone(&made), clock.now()));
            drop(before);
            done.send_replace(Some(made));
        });
        Err(made)
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
