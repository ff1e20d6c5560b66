//! The locks that ship: dsync on every node, as the plan wants it.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dsync::locker::Answering;
use dsync::{
    DRWMutex, Dsync, Forced, GrantInfo, Guard, Limits, LockError, LockOptions, Locker, LockerError,
    Stats,
};
use grid::time::Instant;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{
    BoxFuture, GrantView, HeldLock, LockClient, LockRequest, LockerView, LocksView, call_of,
};
use crate::event::LockFailure;
use crate::plan::{LocksPlan, Plan};
use crate::world::{Host, Software, url};

/// What the nodes of `plan` run besides the load: dsync, if the plan has locks.
pub fn software(plan: &Plan) -> Arc<dyn Software> {
    match &plan.cluster.locks {
        Some(locks) => Arc::new(Cluster(locks.clone())),
        None => Arc::new(()),
    }
}

struct Cluster(LocksPlan);

impl Software for Cluster {
    fn install(&self, host: &Host) -> Result<(), Box<dyn Error>> {
        // One manager for everything: its handlers are not those of the load.
        let dsync = Dsync::builder(&host.manager)
            .lockers(self.0.lockers.iter().map(|node| url(*node)))
            .limits(limits_of(&self.0))
            .clock(host.clock.clone())
            .rng(SmallRng::seed_from_u64(host.seed ^ 0x6c6f_636b))
            .build()?;
        dsync.start();
        host.locks.offer(Arc::new(Client(dsync)));
        Ok(())
    }
}

/// The limits that all nodes lock with.
fn limits_of(plan: &LocksPlan) -> Limits {
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    let mut limits = Limits::with_lease(millis(plan.lease_ms));
    limits.refresh_interval = millis(plan.refresh_ms);
    limits
}

struct Client(Dsync);

impl LockClient for Client {
    fn lock(&self, wanted: LockRequest) -> BoxFuture<Result<Arc<dyn HeldLock>, LockFailure>> {
        let LockRequest { resources, write, timeout, source } = wanted;
        let mutex = DRWMutex::new(&self.0, resources);
        Box::pin(async move {
            let options = LockOptions::default().timeout(timeout).source(&source);
            let granted = match write {
                true => mutex.lock(options).await,
                false => mutex.read_lock(options).await,
            };
            granted.map(|guard| Lease::new(guard) as Arc<dyn HeldLock>).map_err(failure_of)
        })
    }

    fn force_unlock(&self, resource: String) -> BoxFuture<usize> {
        let dsync = self.0.clone();
        Box::pin(async move {
            let report = dsync.force_unlock(&Forced::Resource(resource), FORCE_TIMEOUT).await;
            report.forced.len()
        })
    }

    fn shutdown(&self, grace: Duration) -> BoxFuture<()> {
        let dsync = self.0.clone();
        Box::pin(async move { dsync.shutdown(grace).await })
    }

    fn view(&self) -> LocksView {
        let locker = self.0.locker().and_then(|own| ready(own.list(FORCE_TIMEOUT)));
        let Stats { live, second_rounds, calls, locker: counted, .. } = self.0.stats();
        let locker = locker.and_then(Result::ok).map(|listing| LockerView {
            is_open: listing.is_open,
            grants: listing.grants.into_iter().map(view_of).collect(),
            expired: counted.map_or(0, |counted| counted.counts.expired),
        });
        LocksView { live, second_rounds, notifications: calls, locker }
    }
}

fn view_of(grant: GrantInfo) -> GrantView {
    GrantView { call: call_of(&grant.source), id: grant.uid }
}

/// What a future has to say that need not wait for anything, as what a node's own locker is asked.
fn ready<T>(mut later: Answering<T>) -> Option<Result<T, LockerError>> {
    match later.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

/// How long an operator waits for lockers.
const FORCE_TIMEOUT: Duration = Duration::from_secs(2);

fn failure_of(error: LockError) -> LockFailure {
    match error {
        LockError::TimedOut { .. } => LockFailure::TimedOut,
        LockError::Lost(_) => LockFailure::Lost,
        LockError::ShuttingDown => LockFailure::ShuttingDown,
        error => LockFailure::NotAttempted { text: error.to_string() },
    }
}

/// A guard that several look at, until it is let go.
struct Lease {
    guard: Mutex<Option<Guard>>,
    token: u64,
    id: String,
}

impl Lease {
    fn new(guard: Guard) -> Arc<Self> {
        let (token, id) = (guard.token().get(), guard.uid().to_owned());
        Arc::new(Self { guard: Mutex::new(Some(guard)), token, id })
    }

    fn look<R>(&self, look: impl FnOnce(&Guard) -> R) -> Option<R> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }

    fn take(&self) -> Option<Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl HeldLock for Lease {
    fn is_held(&self) -> bool {
        self.look(Guard::is_held).unwrap_or(false)
    }

    fn valid_until(&self) -> Instant {
        self.look(Guard::valid_until).unwrap_or_default()
    }

    fn lost(&self) -> BoxFuture<()> {
        match self.look(Guard::lost) {
            Some(lost) => Box::pin(async move {
                lost.await;
            }),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn token(&self) -> u64 {
        self.token
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn unlock(&self) -> BoxFuture<()> {
        match self.take() {
            Some(guard) => Box::pin(guard.unlock()),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn release(&self) {
        drop(self.take());
    }
}
