//! Locks: a node asks for one, works on the protected store while it holds it, and lets go.
//!
//! A holder does as it should: it looks before each thing that it does, and stops as soon as it
//! knows that its lock is lost. What it had sent before may still arrive. While its process is
//! stopped it does nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::pause;
use crate::event::{CallId, LockEnd, LockFailure, Notice, StoreOp, StoreResult, What};
use crate::lock::{Held, Later, Wanted, source_of};
use crate::plan::{ForcePlan, LockEnding, LockPlan, resource_name};
use crate::world::Host;

/// Asks for a lock, holds it, and lets go, as the plan says.
pub(super) async fn make(call: CallId, plan: LockPlan, host: Host) {
    let (resources, write, timeout_ms) = (plan.resources.clone(), plan.write, plan.timeout_ms);
    host.pen.record(What::LockAsked { call, resources, write, timeout_ms });
    match ask(call, &plan, &host).await {
        Ok(held) => Holder { call, plan, host, held, operations: 0 }.hold().await,
        Err(failure) => host.pen.record(What::LockFailed { call, failure }),
    }
}

/// Forces locks open, as an operator does.
pub(super) async fn force(call: CallId, plan: ForcePlan, host: Host) {
    let Some(client) = host.locks.client() else { return };
    let (resource, pen) = (plan.resource, host.pen.clone());
    // As for a call: it must not keep the manager.
    drop(host);
    let lockers = client.force_unlock(resource_name(resource)).await;
    pen.record(What::LockForced { call, resource, lockers });
}

async fn ask(call: CallId, plan: &LockPlan, host: &Host) -> Result<Arc<dyn Held>, LockFailure> {
    let Some(client) = host.locks.client() else {
        return Err(LockFailure::NotAsked { text: "the node has no locks".to_owned() });
    };
    let asked = client.lock(Wanted {
        resources: plan.resources.iter().copied().map(resource_name).collect(),
        write: plan.write,
        timeout: millis(plan.timeout_ms),
        source: source_of(call),
    });
    let granted = match plan.give_up_ms {
        None => asked.await,
        Some(ms) => {
            let granted = tokio::time::timeout(millis(ms), asked).await;
            granted.unwrap_or(Err(LockFailure::GaveUp))
        }
    };
    host.gate.pass().await;
    granted
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

/// Somebody who was granted a lock.
struct Holder {
    call: CallId,
    plan: LockPlan,
    host: Host,
    held: Arc<dyn Held>,
    operations: u32,
}

/// The lock is lost, and the holder knows.
struct IsLost(Notice);

/// Why a holder comes to an end.
enum Over {
    /// Its time is over.
    Done,
    Lost(Notice),
}

impl Holder {
    async fn hold(mut self) {
        let Self { call, ref plan, ref host, ref held, .. } = self;
        let valid = held.valid_until().since(grid::time::Clock::now(&host.clock));
        host.pen.record(What::LockGranted {
            call,
            resources: plan.resources.clone(),
            write: plan.write,
            token: held.token(),
            valid_ms: u64::try_from(valid.as_millis()).unwrap_or(u64::MAX),
        });
        host.protected.holds.begin(call, plan, &host.clock, held);
        let over = self.work().await;
        if let Over::Lost(notice) = over {
            self.host.pen.record(What::LockLost { call, notice });
        }
        self.part(&over).await;
    }

    /// Works until it is done or has lost its lock.
    async fn work(&mut self) -> Over {
        let mut lost = self.held.lost();
        let mut done = self.done();
        loop {
            if !self.held.is_held() {
                return Over::Lost(Notice::Looked);
            }
            let woken = self.host.gate.clone();
            let notice = tokio::select! {
                biased;
                () = &mut lost => Some(Over::Lost(Notice::Told)),
                () = &mut done => Some(Over::Done),
                // A process that was stopped looks before it goes on.
                () = woken.opened() => None,
                () = next(self.plan.pace_ms) => match self.operate().await {
                    Ok(()) => None,
                    Err(IsLost(notice)) => Some(Over::Lost(notice)),
                },
            };
            self.host.gate.pass().await;
            match notice {
                // It may have been lost while the process was stopped, and must not be let go then.
                Some(Over::Done) if !self.held.is_held() => return Over::Lost(Notice::Looked),
                Some(over) => return over,
                None => {}
            }
        }
    }

    /// Resolves when it is time to let go.
    fn done(&self) -> Later<()> {
        let (ending, healed) = (self.host.ending.clone(), self.host.healed.clone());
        let hold: Later<()> = match self.plan.ending {
            LockEnding::Unlock | LockEnding::Drop => Box::pin(pause(self.plan.hold_ms)),
            LockEnding::Lose => Box::pin(async move { healed.pass().await }),
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                () = ending.pass() => {}
                () = hold => {}
            }
        })
    }

    async fn part(&self, over: &Over) {
        let Self { call, plan, host, held, .. } = self;
        let how = match (over, plan.ending) {
            (Over::Lost(_), _) => LockEnd::Lost,
            (Over::Done, LockEnding::Unlock) => LockEnd::Unlocked,
            (Over::Done, LockEnding::Drop | LockEnding::Lose) => LockEnd::Dropped,
        };
        // First: others may be granted the lock as soon as the release has begun.
        host.protected.holds.end(*call);
        host.pen.record(What::LockEnded { call: *call, how });
        if how == LockEnd::Unlocked {
            held.unlock().await;
        } else {
            held.let_go();
        }
    }

    // ---- the protected store ----

    /// One operation on one of its resources, in turn.
    async fn operate(&mut self) -> Result<(), IsLost> {
        self.step().await?;
        let turn = self.operations as usize;
        self.operations += 1;
        let resource = self.plan.resources[turn % self.plan.resources.len()];
        let op = match (self.plan.write, turn % 3) {
            (false, _) => StoreOp::Read,
            (true, 2) => StoreOp::Write { value: self.own_value() },
            (true, _) => StoreOp::Increment,
        };
        let call = self.call;
        self.host.pen.record(What::StoreAsked { call, resource, op });
        let result = self.apply(resource, op).await;
        self.host.gate.pass().await;
        self.host.pen.record(What::StoreAnswered { call, resource, result });
        Ok(())
    }

    /// A value that nobody else writes.
    fn own_value(&self) -> u64 {
        (u64::from(self.call) + 1) * 1_000_000 + u64::from(self.operations) * 1_000
    }

    async fn apply(&self, resource: u8, op: StoreOp) -> StoreResult {
        match op {
            StoreOp::Read => self.reach(resource, None).await,
            StoreOp::Write { value } => self.reach(resource, Some(value)).await,
            StoreOp::Increment => match self.reach(resource, None).await {
                StoreResult::Done { value } => match self.step().await {
                    Ok(()) => self.reach(resource, Some(value + 1)).await,
                    Err(IsLost(_)) => StoreResult::Abandoned,
                },
                result => result,
            },
        }
    }

    /// What is sent travels, whatever becomes of its sender; so does the answer.
    async fn reach(&self, resource: u8, value: Option<u64>) -> StoreResult {
        let Self { call, host, held, plan, .. } = self;
        let (token, writer) = (held.token(), plan.write);
        pause(plan.store_ms).await;
        let store = &host.protected.store;
        let done = match value {
            None => store.read(resource, token, writer),
            Some(value) => store.write(resource, token, value).map(|()| value),
        };
        host.pen.record(What::StoreReached {
            call: *call,
            resource,
            token,
            writer,
            value,
            accepted: done.is_ok(),
            believed: host.believes(*call),
        });
        pause(plan.store_ms).await;
        done.map_or(StoreResult::Refused, |value| StoreResult::Done { value })
    }

    /// Before it does anything, a holder looks whether it may.
    async fn step(&self) -> Result<(), IsLost> {
        self.host.gate.pass().await;
        if self.held.is_held() { Ok(()) } else { Err(IsLost(Notice::Looked)) }
    }
}

/// When the next operation is due; never, if none is.
fn next(pace_ms: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    match pace_ms {
        0 => Box::pin(std::future::pending()),
        ms => Box::pin(tokio::time::sleep(millis(ms))),
    }
}
