//! Drives one lock: sends its requests to lockers, delivers their responses, runs its timer.

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use grid::Env;
use grid::time::Instant;
use tokio::time::Sleep;

use crate::error::LockerError;
use crate::live_locks::LiveLocks;
use crate::lock::Lock;
use crate::locker::{ResponseFuture, StampedResponse};
use crate::loss_log::LossLog;
use crate::peers::Peers;
use crate::proto::hold::{EndReason, Failure, Hold, Output, Request, RpcId, Status};
use crate::proto::table::RefreshRequest;
use crate::proto::waiters::QueueReport;

/// The parts of an instance that its drivers need. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DriverParts {
    pub(crate) env: Env,
    pub(crate) locks: Arc<LiveLocks>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) loss_log: Arc<LossLog>,
    /// Whether this server does not belong to the cluster.
    pub(crate) is_excluded: Arc<AtomicBool>,
}

/// Driver of one lock. Dropped before everything is released, it removes the lock.
pub(crate) struct Driver {
    pub(crate) lock: Arc<Lock>,
    parts: DriverParts,
    rpcs: Vec<PendingRpc>,
    out: Vec<Output>,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

struct PendingRpc {
    id: RpcId,
    locker: usize,
    /// When it was sent; absent from a wait request, whose response says nothing about the round
    /// trip.
    sent_at: Option<Instant>,
    response: ResponseFuture<StampedResponse>,
}

impl Driver {
    pub(crate) fn new(lock: Arc<Lock>, parts: DriverParts) -> Self {
        Self { lock, parts, rpcs: Vec::new(), out: Vec::new(), timer: None }
    }

    /// Runs until the lock is held or its acquisition has ended.
    pub(crate) async fn acquire(&mut self) -> Status {
        self.run_until(|hold, now| match hold.status(now) {
            Status::Acquiring => None,
            status => Some(status),
        })
        .await
    }

    /// Runs until the lock has ended and all grants are released.
    pub(crate) async fn finish(mut self) {
        let end = self.run_until(|hold, now| match hold.status(now) {
            Status::Ended(end) => Some(end),
            Status::Acquiring | Status::Held { .. } => None,
        });
        let end = end.await;
        if matches!(end, EndReason::Expired | EndReason::Revoked) {
            let uid = self.lock.inspect(|hold| Arc::clone(hold.uid()));
            self.parts.loss_log.record(&uid, end.into());
        }
        self.run_until(|hold, _| hold.is_finished().then_some(())).await;
    }

    async fn run_until<R>(&mut self, done: impl Fn(&mut Hold, Instant) -> Option<R>) -> R {
        let lock = Arc::clone(&self.lock);
        let mut changed = Box::pin(lock.changed());
        poll_fn(|cx| {
            loop {
                if let Some(result) = self.step(&done) {
                    return Poll::Ready(result);
                }
                let mut has_progress = self.poll_rpcs(cx);
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

    /// Fires the due timers of the hold, and sends its requests.
    fn step<R>(&mut self, done: impl Fn(&mut Hold, Instant) -> Option<R>) -> Option<R> {
        let now = self.parts.env.now();
        let is_excluded = self.parts.is_excluded.load(Ordering::Acquire);
        let (result, due) = self.lock.drive(now, &mut self.out, |hold| {
            if is_excluded && hold.status(now) == Status::Acquiring {
                // Its ticket must not keep others waiting.
                hold.release(now);
            }
            hold.handle_timeout(now);
            (done(hold, now), hold.poll_timeout())
        });
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Send { rpc, locker, request } => {
                    let Some(target) = self.parts.peers.lockers().get(locker) else { continue };
                    let limit = request.time_limit(self.parts.locks.limits());
                    let sent_at = (!matches!(request, Request::Wait(_))).then_some(now);
                    let response = match request {
                        // Other lockers do not know: they would grant, and extend.
                        Request::Lock(_) | Request::Refresh(_) if is_excluded => excluded(),
                        Request::Refresh(refresh) if self.may_batch(locker, now) => {
                            self.refresh_in_batch(locker, refresh)
                        }
                        request => target.call(request, limit),
                    };
                    self.rpcs.push(PendingRpc { id: rpc, locker, sent_at, response });
                }
                Output::Cancel { rpc } => self.rpcs.retain(|known| known.id != rpc),
            }
        }
        self.set_timer(due, now);
        result
    }

    /// Returns whether a refresh may be sent together with others: the lock is held for longer than
    /// that takes. The second round of an attempt never waits.
    fn may_batch(&self, locker: usize, now: Instant) -> bool {
        let DriverParts { locks, peers, .. } = &self.parts;
        let limits = locks.limits();
        let needed = limits.attempt_timeout + limits.refresh_batch_window();
        locks.is_ours(locker)
            && self.lock.validity().until().since(now) > needed
            && peers.lockers().get(locker).is_some_and(|locker| locker.accepts_batches())
    }

    fn refresh_in_batch(
        &self,
        locker: usize,
        refresh: RefreshRequest,
    ) -> ResponseFuture<StampedResponse> {
        let DriverParts { locks, peers, .. } = &self.parts;
        let limits = locks.limits();
        match peers.batcher(locker) {
            Some(batcher) => {
                batcher.refresh(refresh, limits.refresh_batch_window(), limits.attempt_timeout)
            }
            None => {
                let message = "there is no such locker".to_owned();
                Box::pin(ready(Err(LockerError { may_have_run: false, message })))
            }
        }
    }

    /// Delivers responses. Returns whether there were any.
    fn poll_rpcs(&mut self, cx: &mut Context<'_>) -> bool {
        let mut index = 0;
        let mut has_progress = false;
        while let Some(rpc) = self.rpcs.get_mut(index) {
            let Poll::Ready(response) = rpc.response.as_mut().poll(cx) else {
                index += 1;
                continue;
            };
            let PendingRpc { id, locker, sent_at, .. } = self.rpcs.swap_remove(index);
            self.handle_response((locker, id), sent_at, response);
            has_progress = true;
        }
        has_progress
    }

    fn handle_response(
        &mut self,
        from: (usize, RpcId),
        sent_at: Option<Instant>,
        response: Result<StampedResponse, LockerError>,
    ) {
        let now = self.parts.env.now();
        let (response, stamp, queue) = match response {
            Ok(StampedResponse { response, stamp, queue, error }) => {
                error.into_iter().for_each(|error| self.lock.record_error(error));
                (Ok(response), stamp, queue)
            }
            Err(LockerError { may_have_run, message }) => {
                let locker =
                    self.parts.peers.lockers().get(from.0).map_or("", |locker| locker.name());
                tracing::trace!(target: "dsync", locker, error = message, "rpc failed");
                (Err(Failure { may_have_run }), None, QueueReport::default())
            }
        };
        if let Some(stamp) = stamp {
            self.parts.locks.observe(from.0, stamp, (sent_at.unwrap_or(now), now));
        }
        self.lock.drive(now, &mut self.out, |hold| {
            hold.handle_response(from, response, (stamp, queue), now);
        });
    }

    fn set_timer(&mut self, due: Option<Instant>, now: Instant) {
        if self.timer.as_ref().map(|(at, _)| *at) == due {
            return;
        }
        // tokio's timers have a resolution of 1 ms: a shorter sleep would busy-loop.
        self.timer = due.map(|at| {
            let pause = at.since(now).max(Duration::from_millis(1));
            (at, Box::pin(tokio::time::sleep(pause)))
        });
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((_, sleep)) = &mut self.timer else { return Poll::Pending };
        let fired = sleep.as_mut().poll(cx);
        if fired.is_ready() {
            // The lock's clock may lag behind tokio's: then `set_timer` sets it again.
            self.timer = None;
        }
        fired
    }
}

/// Returns the outcome of a request that a server sends only while it belongs to the cluster.
fn excluded() -> ResponseFuture<StampedResponse> {
    let message = "this server does not belong to the cluster".to_owned();
    Box::pin(ready(Err(LockerError { may_have_run: false, message })))
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A lock without a driver cannot be refreshed: the runtime has ended.
        let now = self.parts.env.now();
        self.lock.release(now);
        self.parts.locks.remove(self.lock.number());
    }
}

/// Driver of a lock that is being acquired. Dropping it releases the grants in the background.
pub(crate) struct Acquisition {
    driver: Option<Driver>,
    runtime: tokio::runtime::Handle,
}

impl Acquisition {
    pub(crate) fn new(driver: Driver, runtime: tokio::runtime::Handle) -> Self {
        Self { driver: Some(driver), runtime }
    }

    /// Runs until the lock is held or its acquisition has ended. A task then continues to drive it.
    pub(crate) async fn acquire(mut self) -> Status {
        match &mut self.driver {
            Some(driver) => driver.acquire().await,
            None => Status::Acquiring,
        }
    }
}

impl Drop for Acquisition {
    fn drop(&mut self) {
        let Some(driver) = self.driver.take() else { return };
        let now = driver.parts.env.now();
        let is_held = driver.lock.validity().is_valid(now);
        if !is_held {
            driver.lock.release(now);
        }
        if !driver.lock.inspect(Hold::is_finished) {
            self.runtime.spawn(driver.finish());
        }
    }
}

#[cfg(test)]
mod tests;
