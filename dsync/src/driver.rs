//! Does what the machine of one lock wants: asks lockers, brings their answers, keeps its time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use grid::time::Instant;
use tokio::time::Sleep;

use crate::dsync::Inner;
use crate::error::LockerError;
use crate::lock::Lock;
use crate::locker::Answering;
use crate::locker::Stamped;
use crate::proto::hold::{CallId, End, Failure, Hold, Output, Status};

/// The driver of one lock. Dropped before everything is released, it takes the lock with it.
pub(crate) struct Driver {
    pub(crate) lock: Arc<Lock>,
    inner: Arc<Inner>,
    calls: Vec<Call>,
    out: Vec<Output>,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

struct Call {
    id: CallId,
    locker: usize,
    answering: Answering<Stamped>,
}

impl Driver {
    pub(crate) fn new(lock: Arc<Lock>, inner: Arc<Inner>) -> Self {
        Self { lock, inner, calls: Vec::new(), out: Vec::new(), timer: None }
    }

    /// Goes on until the lock is held, or will not be.
    pub(crate) async fn acquire(&mut self) -> Status {
        self.until(|hold, now| match hold.status(now) {
            Status::Trying => None,
            status => Some(status),
        })
        .await
    }

    /// Goes on until there is nothing left to do.
    pub(crate) async fn finish(mut self) {
        let end = self.until(|hold, now| match hold.status(now) {
            Status::Ended(end) => Some(end),
            Status::Trying | Status::Held { .. } => None,
        });
        let end = end.await;
        if matches!(end, End::Expired | End::Revoked) {
            self.inner.tell_of_loss(&self.lock.look(|hold| Arc::clone(hold.uid())), end.into());
        }
        self.until(|hold, _| hold.is_over().then_some(())).await;
    }

    async fn until<R>(&mut self, done: impl Fn(&mut Hold, Instant) -> Option<R>) -> R {
        let lock = Arc::clone(&self.lock);
        let mut changed = Box::pin(lock.changed());
        poll_fn(|cx| {
            loop {
                if let Some(result) = self.step(&done) {
                    return Poll::Ready(result);
                }
                let mut has_progress = self.poll_calls(cx);
                if changed.as_mut().poll(cx).is_ready() {
                    changed.set(lock.changed());
                    has_progress = true;
                }
                if !has_progress && self.poll_timer(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Lets the machine do what is due, and begins what it wants.
    fn step<R>(&mut self, done: impl Fn(&mut Hold, Instant) -> Option<R>) -> Option<R> {
        let now = self.inner.clock.now();
        let (result, due) = self.lock.drive(now, &mut self.out, |hold| {
            hold.handle_timeout(now);
            (done(hold, now), hold.poll_timeout())
        });
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Send { call, locker, message } => {
                    let Some(asked) = self.inner.lockers.get(locker) else { continue };
                    let limit = message.time_limit(&self.inner.limits);
                    self.calls.push(Call {
                        id: call,
                        locker,
                        answering: asked.ask(message, limit),
                    });
                }
                Output::Cancel { call } => self.calls.retain(|known| known.id != call),
            }
        }
        self.set_timer(due, now);
        result
    }

    /// Whether a locker has answered.
    fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut index = 0;
        let mut has_progress = false;
        while let Some(call) = self.calls.get_mut(index) {
            let Poll::Ready(answer) = call.answering.as_mut().poll(cx) else {
                index += 1;
                continue;
            };
            let Call { id, locker, .. } = self.calls.swap_remove(index);
            self.handle_answer((locker, id), answer);
            has_progress = true;
        }
        has_progress
    }

    fn handle_answer(&mut self, from: (usize, CallId), answer: Result<Stamped, LockerError>) {
        let now = self.inner.clock.now();
        let (answer, stamp) = match answer {
            Ok(Stamped { answer, stamp }) => (Ok(answer), stamp),
            Err(LockerError { may_have_run, text }) => {
                let locker = self.inner.lockers.get(from.0).map_or("", |locker| locker.name());
                tracing::trace!(target: "dsync", locker, error = text, "a locker did not answer");
                (Err(Failure { may_have_run }), None)
            }
        };
        if let Some(stamp) = stamp {
            self.inner.observe(stamp, now);
        }
        self.lock.drive(now, &mut self.out, |hold| hold.handle_answer(from, answer, stamp, now));
    }

    fn set_timer(&mut self, due: Option<Instant>, now: Instant) {
        if self.timer.as_ref().map(|(at, _)| *at) == due {
            return;
        }
        // Timers count whole milliseconds; one that is due already must not keep the task busy.
        self.timer = due.map(|at| {
            let pause = at.since(now).max(Duration::from_millis(1));
            (at, Box::pin(tokio::time::sleep(pause)))
        });
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((_, sleep)) = &mut self.timer else { return Poll::Pending };
        let fired = sleep.as_mut().poll(cx);
        if fired.is_ready() {
            // By the machine's clock it may be too early still: it is set anew.
            self.timer = None;
        }
        fired
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A lock that nobody keeps is not held: the runtime has ended.
        let now = self.inner.clock.now();
        self.lock.let_go(now);
        self.inner.forget(self.lock.number());
    }
}

/// A driver that tries for a lock. Dropped, it releases what it has got, in the background.
pub(crate) struct Trying {
    driver: Option<Driver>,
    runtime: tokio::runtime::Handle,
}

impl Trying {
    pub(crate) fn new(driver: Driver, runtime: tokio::runtime::Handle) -> Self {
        Self { driver: Some(driver), runtime }
    }

    /// Goes on until the lock is held, or will not be. After that the driver goes on in a task.
    pub(crate) async fn acquire(mut self) -> Status {
        match &mut self.driver {
            Some(driver) => driver.acquire().await,
            None => Status::Trying,
        }
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        let Some(driver) = self.driver.take() else { return };
        let now = driver.inner.clock.now();
        let is_held = driver.lock.validity().is_certain(now);
        if !is_held {
            driver.lock.let_go(now);
        }
        if !driver.lock.look(Hold::is_over) {
            self.runtime.spawn(driver.finish());
        }
    }
}
