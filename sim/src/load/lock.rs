//! Locks: a node requests one, uses the protected store while it holds it, and releases it.
//!
//! The holder is correct: it checks `is_held()` before each step, and stops as soon as it notices
//! that its lock is lost. Messages that it had sent before may still arrive. While its process is
//! paused, it does nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::sleep_ms;
use crate::event::{CallId, EventKind, LockEnd, LockFailure, LossNotice, StoreOp, StoreResult};
use crate::host::Host;
use crate::lock::{BoxFuture, HeldLock, LockRequest, source_of};
use crate::plan::{ForcePlan, LockPlan, PlannedLockEnd, resource_name};

/// Requests a lock, holds it, and releases it, as the plan says.
pub(super) async fn perform(call: CallId, plan: LockPlan, host: Host) {
    let (resources, write, timeout_ms) = (plan.resources.clone(), plan.write, plan.timeout_ms);
    host.recorder.record(EventKind::LockRequested { call, resources, write, timeout_ms });
    match request(call, &plan, &host).await {
        Ok(held) => Holder { call, plan, host, held, operations: 0 }.hold().await,
        Err(failure) => host.recorder.record(EventKind::LockFailed { call, failure }),
    }
}

/// Forces locks open, as an operator does.
pub(super) async fn force(call: CallId, plan: ForcePlan, host: Host) {
    let Some(client) = host.locks.client() else { return };
    let (resource, recorder) = (plan.resource, host.recorder.clone());
    // As for a call: it must not keep the manager alive.
    drop(host);
    let lockers = client.force_unlock(resource_name(resource)).await;
    recorder.record(EventKind::LockForced { call, resource, lockers });
}

async fn request(
    call: CallId,
    plan: &LockPlan,
    host: &Host,
) -> Result<Arc<dyn HeldLock>, LockFailure> {
    let Some(client) = host.locks.client() else {
        return Err(LockFailure::NotAttempted { text: "the node has no locks".to_owned() });
    };
    let attempt = client.lock(LockRequest {
        resources: plan.resources.iter().copied().map(resource_name).collect(),
        write: plan.write,
        timeout: millis(plan.timeout_ms),
        source: source_of(call),
    });
    let granted = match plan.cancel_after_ms {
        None => attempt.await,
        Some(ms) => {
            let granted = tokio::time::timeout(millis(ms), attempt).await;
            granted.unwrap_or(Err(LockFailure::Cancelled))
        }
    };
    host.gate.pass().await;
    granted
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

/// The holder of a lock.
struct Holder {
    call: CallId,
    plan: LockPlan,
    host: Host,
    held: Arc<dyn HeldLock>,
    operations: u32,
}

/// The lock is lost, and the holder has noticed.
struct LockIsLost(LossNotice);

/// Why a holder stops.
enum HoldEnd {
    /// The planned time has passed.
    Done,
    /// It has noticed that its lock is lost.
    Lost(LossNotice),
}

impl Holder {
    async fn hold(mut self) {
        let Self { call, ref plan, ref host, ref held, .. } = self;
        let valid = held.valid_until().since(grid::time::Clock::now(&host.clock));
        host.recorder.record(EventKind::LockGranted {
            call,
            resources: plan.resources.clone(),
            write: plan.write,
            token: held.token(),
            valid_ms: u64::try_from(valid.as_millis()).unwrap_or(u64::MAX),
        });
        host.protected.holds.insert(call, plan, &host.clock, held);
        let end = self.work().await;
        if let HoldEnd::Lost(notice) = end {
            self.host.recorder.record(EventKind::LockLost { call, notice });
        }
        self.finish(&end).await;
    }

    /// Works until its time has passed or its lock is lost.
    async fn work(&mut self) -> HoldEnd {
        let mut lost = self.held.lost();
        let mut done = self.hold_time();
        loop {
            if !self.held.is_held() {
                return HoldEnd::Lost(LossNotice::Checked);
            }
            let resumed = self.host.gate.clone();
            let end = tokio::select! {
                biased;
                () = &mut lost => Some(HoldEnd::Lost(LossNotice::Notified)),
                () = &mut done => Some(HoldEnd::Done),
                // A resumed process checks before it continues.
                () = resumed.opened() => None,
                () = next_operation(self.plan.pace_ms) => match self.operate().await {
                    Ok(()) => None,
                    Err(LockIsLost(notice)) => Some(HoldEnd::Lost(notice)),
                },
            };
            self.host.gate.pass().await;
            match end {
                // A lock that was lost while the process was paused must not be released.
                Some(HoldEnd::Done) if !self.held.is_held() => {
                    return HoldEnd::Lost(LossNotice::Checked);
                }
                Some(end) => return end,
                None => {}
            }
        }
    }

    /// Resolves when the lock is to be released.
    fn hold_time(&self) -> BoxFuture<()> {
        let (ending, healed) = (self.host.ending.clone(), self.host.healed.clone());
        let hold: BoxFuture<()> = match self.plan.ending {
            PlannedLockEnd::Unlock | PlannedLockEnd::Drop => Box::pin(sleep_ms(self.plan.hold_ms)),
            PlannedLockEnd::HoldUntilLost => Box::pin(async move { healed.pass().await }),
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                () = ending.pass() => {}
                () = hold => {}
            }
        })
    }

    async fn finish(&self, end: &HoldEnd) {
        let Self { call, plan, host, held, .. } = self;
        let how = match (end, plan.ending) {
            (HoldEnd::Lost(_), _) => LockEnd::Lost,
            (HoldEnd::Done, PlannedLockEnd::Unlock) => LockEnd::Unlocked,
            (HoldEnd::Done, PlannedLockEnd::Drop | PlannedLockEnd::HoldUntilLost) => {
                LockEnd::Dropped
            }
        };
        // Recorded first, because another holder may be granted the lock once the release has
        // begun.
        host.protected.holds.remove(*call);
        host.recorder.record(EventKind::LockEnded { call: *call, how });
        if how == LockEnd::Unlocked {
            held.unlock().await;
        } else {
            held.release();
        }
    }

    // ---- the protected store ----

    /// Performs one operation, on the next of its resources.
    async fn operate(&mut self) -> Result<(), LockIsLost> {
        self.check_held().await?;
        let turn = self.operations as usize;
        self.operations += 1;
        let resource = self.plan.resources[turn % self.plan.resources.len()];
        let op = match (self.plan.write, turn % 3) {
            (false, _) => StoreOp::Read,
            (true, 2) => StoreOp::Write { value: self.unique_value() },
            (true, _) => StoreOp::Increment,
        };
        let call = self.call;
        self.host.recorder.record(EventKind::StoreRequested { call, resource, op });
        let result = self.perform_operation(resource, op).await;
        self.host.gate.pass().await;
        self.host.recorder.record(EventKind::StoreCompleted { call, resource, result });
        Ok(())
    }

    /// Returns a value that no other operation writes.
    fn unique_value(&self) -> u64 {
        (u64::from(self.call) + 1) * 1_000_000 + u64::from(self.operations) * 1_000
    }

    async fn perform_operation(&self, resource: u8, op: StoreOp) -> StoreResult {
        match op {
            StoreOp::Read => self.reach(resource, None).await,
            StoreOp::Write { value } => self.reach(resource, Some(value)).await,
            StoreOp::Increment => match self.reach(resource, None).await {
                StoreResult::Done { value } => match self.check_held().await {
                    Ok(()) => self.reach(resource, Some(value + 1)).await,
                    Err(LockIsLost(_)) => StoreResult::Abandoned,
                },
                result => result,
            },
        }
    }

    /// Sends a read or write to the store. The request and the response arrive even if the sender
    /// loses the lock or is paused.
    async fn reach(&self, resource: u8, value: Option<u64>) -> StoreResult {
        let Self { call, host, held, plan, .. } = self;
        let (token, writer) = (held.token(), plan.write);
        sleep_ms(plan.store_ms).await;
        let store = &host.protected.store;
        let done = match value {
            None => store.read(resource, token, writer),
            Some(value) => store.write(resource, token, value).map(|()| value),
        };
        host.recorder.record(EventKind::StoreReached {
            call: *call,
            resource,
            token,
            writer,
            value,
            accepted: done.is_ok(),
            held: host.sees_held(*call),
        });
        sleep_ms(plan.store_ms).await;
        done.map_or(StoreResult::Refused, |value| StoreResult::Done { value })
    }

    /// Checks that the lock is held, as a holder must before each step.
    async fn check_held(&self) -> Result<(), LockIsLost> {
        self.host.gate.pass().await;
        if self.held.is_held() { Ok(()) } else { Err(LockIsLost(LossNotice::Checked)) }
    }
}

/// Resolves when the next operation is due; never, if none is.
fn next_operation(pace_ms: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match pace_ms {
        0 => Box::pin(std::future::pending()),
        ms => Box::pin(tokio::time::sleep(millis(ms))),
    }
}
