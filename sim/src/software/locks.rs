//! The production locks: dsync on every node, configured by the plan.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dsync::locker::ResponseFuture;
use dsync::{
    DRWMutex, Dsync, ForceTarget, GrantInfo, Guard, Limits, LockError, LockOptions, Locker,
    LockerError, Stats, Token,
};
use grid::Env;
use grid::sync::Mutex;
use grid::time::Instant;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::event::LockFailure;
use crate::host::{Host, Software};
use crate::lock::{
    BoxFuture, GrantView, HeldLock, LockClient, LockRequest, LockerView, LocksView, call_of,
};
use crate::node::url;
use crate::plan::{LocksPlan, Plan};

/// Returns the software for the nodes of `plan`: dsync, if the plan has locks.
pub(super) fn software(plan: &Plan) -> Arc<dyn Software> {
    match &plan.cluster.locks {
        Some(locks) => Arc::new(DsyncSoftware(locks.clone())),
        None => Arc::new(()),
    }
}

struct DsyncSoftware(LocksPlan);

impl Software for DsyncSoftware {
    fn install(&self, host: &Host) -> Result<(), Box<dyn Error>> {
        // The load's manager is shared: dsync registers other handlers.
        let mut rng = SmallRng::seed_from_u64(host.seed ^ 0x6c6f_636b);
        let dsync = Dsync::builder(&host.manager)
            .lockers(self.0.lockers.iter().map(|node| url(*node)))
            .limits(limits_of(&self.0))
            .env(Env::new(host.clock.clone(), &mut rng))
            .build()?;
        dsync.start();
        dsync.open();
        host.locks.set(Arc::new(DsyncClient(dsync)));
        Ok(())
    }
}

/// Returns the dsync limits of all nodes.
fn limits_of(plan: &LocksPlan) -> Limits {
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    let mut limits = Limits::with_lease(millis(plan.lease_ms));
    limits.refresh_interval = millis(plan.refresh_ms);
    limits
}

struct DsyncClient(Dsync);

impl LockClient for DsyncClient {
    fn lock(&self, request: LockRequest) -> BoxFuture<Result<Arc<dyn HeldLock>, LockFailure>> {
        let LockRequest { resources, write, timeout, source } = request;
        let mutex = DRWMutex::new(&self.0, resources);
        Box::pin(async move {
            let options = LockOptions::default().timeout(timeout).source(&source);
            let granted = match write {
                true => mutex.lock(options).await,
                false => mutex.read_lock(options).await,
            };
            granted.map(|guard| DsyncLock::new(guard) as Arc<dyn HeldLock>).map_err(failure_of)
        })
    }

    fn force_unlock(&self, resource: String) -> BoxFuture<usize> {
        let dsync = self.0.clone();
        Box::pin(async move {
            let report = dsync.force_unlock(&ForceTarget::Resource(resource), FORCE_TIMEOUT).await;
            report.forced.len()
        })
    }

    fn shutdown(&self, grace: Duration) -> BoxFuture<()> {
        let dsync = self.0.clone();
        Box::pin(async move { dsync.shutdown(grace).await })
    }

    fn view(&self) -> LocksView {
        let locker = self.0.locker().and_then(|own| poll_once(own.list(FORCE_TIMEOUT)));
        let Stats { live, second_rounds, notifications, locker: locker_stats, .. } = self.0.stats();
        let locker = locker.and_then(Result::ok).map(|listing| LockerView {
            is_open: listing.is_open,
            grants: listing.grants.into_iter().map(view_of).collect(),
            expired: locker_stats.map_or(0, |locker_stats| locker_stats.counts.expired),
        });
        LocksView { live, second_rounds, notifications, locker }
    }
}

fn view_of(grant: GrantInfo) -> GrantView {
    GrantView { call: call_of(&grant.source), id: grant.uid }
}

/// Polls a future once. A request to the node's own locker completes without waiting.
fn poll_once<T>(mut future: ResponseFuture<T>) -> Option<Result<T, LockerError>> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Timeout of an operator's requests to lockers.
const FORCE_TIMEOUT: Duration = Duration::from_secs(2);

fn failure_of(error: LockError) -> LockFailure {
    match error {
        LockError::TimedOut { .. } | LockError::NotAcquired { .. } => LockFailure::TimedOut,
        LockError::Lost(_) => LockFailure::Lost,
        LockError::ShuttingDown => LockFailure::ShuttingDown,
        error => LockFailure::NotAttempted { text: error.to_string() },
    }
}

/// A guard that is shared until it is released.
struct DsyncLock {
    guard: Mutex<Option<Guard>>,
    token: u64,
    id: String,
}

impl DsyncLock {
    fn new(guard: Guard) -> Arc<Self> {
        let (token, id) = (guard.token().map_or(0, Token::get), guard.uid().to_owned());
        Arc::new(Self { guard: Mutex::new(Some(guard)), token, id })
    }

    fn with_guard<R>(&self, read: impl FnOnce(&Guard) -> R) -> Option<R> {
        self.guard.lock().as_ref().map(read)
    }

    fn take(&self) -> Option<Guard> {
        self.guard.lock().take()
    }
}

impl HeldLock for DsyncLock {
    fn is_held(&self) -> bool {
        self.with_guard(Guard::is_held).unwrap_or(false)
    }

    fn valid_until(&self) -> Instant {
        self.with_guard(Guard::valid_until).unwrap_or_default()
    }

    fn lost(&self) -> BoxFuture<()> {
        match self.with_guard(Guard::lost) {
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
            Some(guard) => {
                let unlocking = guard.unlock();
                Box::pin(async move {
                    unlocking.await;
                })
            }
            None => Box::pin(std::future::ready(())),
        }
    }

    fn release(&self) {
        drop(self.take());
    }
}
