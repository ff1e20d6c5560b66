//! MinIO servers among the nodes: the test doubles of dsync, with the timing that belongs to the
//! lease of the plan.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use dsync::LockKind;
use dsync::limits::LEASE;
use dsync::testing::{MinioHolder, MinioLock, MinioLocker, MinioMutex, MinioTiming};
use grid::sync::Mutex;
use grid::time::Instant;
use tokio::sync::oneshot;

use crate::event::LockFailure;
use crate::host::Host;
use crate::lock::{BoxFuture, HeldLock, LockClient, LockRequest};
use crate::node::url;
use crate::plan::LocksPlan;

/// Installs a MinIO server on a node.
pub(super) fn install(host: &Host, plan: &LocksPlan) -> Result<(), Box<dyn Error>> {
    let lease = Duration::from_millis(u64::from(plan.lease_ms));
    let divisor = u32::try_from(LEASE.as_millis() / lease.as_millis().max(1))?.max(1);
    let timing = MinioTiming::scaled(divisor);
    let lockers: Vec<_> = plan.lockers.iter().map(|node| url(*node)).collect();
    let locker =
        plan.lockers.contains(&host.node).then(|| MinioLocker::new(timing.clone(), host.seed));
    if let Some(locker) = &locker {
        locker.register(&host.manager)?;
    }
    let holder = MinioHolder::new(&host.manager, &lockers, locker.as_ref(), timing, !host.seed);
    host.locks.set(Arc::new(MinioClient(holder)));
    Ok(())
}

struct MinioClient(MinioHolder);

impl LockClient for MinioClient {
    fn lock(&self, request: LockRequest) -> BoxFuture<Result<Arc<dyn HeldLock>, LockFailure>> {
        let LockRequest { resources, write, timeout, .. } = request;
        let names: Vec<_> = resources.iter().map(String::as_str).collect();
        let mutex = self.0.mutex(&names);
        let kind = if write { LockKind::Write } else { LockKind::Read };
        let acquired = acquire(mutex, kind, timeout);
        Box::pin(async move {
            match tokio::time::timeout(timeout, acquired).await {
                Ok(Ok(lock)) => Ok(Arc::new(HeldMinioLock::new(lock)) as Arc<dyn HeldLock>),
                Ok(Err(_)) | Err(_) => Err(LockFailure::TimedOut),
            }
        })
    }

    fn force_unlock(&self, _resource: String) -> BoxFuture<usize> {
        Box::pin(std::future::ready(0))
    }

    fn shutdown(&self, _grace: Duration) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }
}

/// Acquires a lock in a task of its own. A lock that comes too late for its caller is released:
/// MinIO's attempts run to their end.
fn acquire(mutex: MinioMutex, kind: LockKind, timeout: Duration) -> oneshot::Receiver<MinioLock> {
    let (granted, acquired) = oneshot::channel();
    tokio::spawn(async move {
        if let Some(lock) = mutex.lock(kind, timeout).await
            && let Err(late) = granted.send(lock)
        {
            drop(late.unlock());
        }
    });
    acquired
}

/// A lock, until it is released.
struct HeldMinioLock {
    lock: Arc<Mutex<Option<MinioLock>>>,
    id: String,
}

/// How often a holder looks whether its lock is lost.
const LOSS_POLL: Duration = Duration::from_millis(20);

impl HeldMinioLock {
    fn new(lock: MinioLock) -> Self {
        Self { id: lock.uid().to_owned(), lock: Arc::new(Mutex::new(Some(lock))) }
    }
}

impl HeldLock for HeldMinioLock {
    fn is_held(&self) -> bool {
        self.lock.lock().as_ref().is_some_and(|lock| !lock.is_lost())
    }

    /// It is held for as long as its lockers do not report its loss: it has no lease.
    fn valid_until(&self) -> Instant {
        if self.is_held() { Instant::from_nanos(u64::MAX) } else { Instant::default() }
    }

    fn lost(&self) -> BoxFuture<()> {
        let lock = Arc::clone(&self.lock);
        Box::pin(async move {
            while !lock.lock().as_ref().is_some_and(MinioLock::is_lost) {
                tokio::time::sleep(LOSS_POLL).await;
            }
        })
    }

    fn token(&self) -> u64 {
        0
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn unlock(&self) -> BoxFuture<()> {
        self.release();
        Box::pin(std::future::ready(()))
    }

    fn release(&self) {
        let lock = self.lock.lock().take();
        if let Some(lock) = lock {
            drop(lock.unlock());
        }
    }
}
