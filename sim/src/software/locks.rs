//! The production locks: dsync on every node, configured by the plan.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dsync::locker::ResponseFuture;
use dsync::{
    DRWMutex, Dsync, ForceTarget, GrantInfo, Guard, Limits, LockError, LockOptions, Locker,
    LockerError, Stats, TicketState, Token, WaiterInfo,
};
use grid::Env;
use grid::sync::Mutex;
use grid::time::Instant;
use iam_bootstrap::bootstrap::{Bootstrap, ClusterLocks};
use iam_bootstrap::{HashKey, SystemConfig};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::event::{EventKind, LockFailure};
use crate::host::{Host, Software};
use crate::lock::{
    BoxFuture, GrantView, HeldLock, LockClient, LockRequest, LockerView, LocksView, WaiterView,
    call_of,
};
use crate::node::url;
use crate::plan::{LocksPlan, Node, Plan};
use crate::recorder::NodeRecorder;

use super::minio;

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
        if self.0.minio.contains(&host.node) {
            return minio::install(host, &self.0);
        }
        // The load's manager is shared: dsync registers other handlers.
        let mut rng = SmallRng::seed_from_u64(host.seed ^ 0x6c6f_636b);
        let env = Env::new(host.clock.clone(), &mut rng);
        let flags = Flags::of(&self.0, host);
        let dsync = Dsync::builder(&host.manager)
            .lockers(flags.lockers.iter().map(|node| url(*node)))
            .limits(limits_of(&self.0))
            .env(env.clone())
            .build()?;
        dsync.start();
        let bootstrap = if self.0.flags.is_empty() {
            dsync.open();
            None
        } else {
            let lockers = flags.lockers.clone();
            host.recorder.record(EventKind::LockersConfigured { lockers });
            Some(bootstrap(host, &flags, (dsync.clone(), env))?)
        };
        host.locks.set(Arc::new(DsyncClient { dsync, bootstrap }));
        Ok(())
    }
}

/// The flags of one process.
struct Flags {
    lockers: Vec<Node>,
    build: u8,
    root_user: u8,
    lease_ms: u32,
}

impl Flags {
    /// Returns the flags of a process that starts now.
    fn of(plan: &LocksPlan, host: &Host) -> Self {
        let now_ms = host.recorder.now_ms();
        let own = plan.flags_at(host.node, now_ms).filter(|_| !host.healed.is_open());
        Self {
            lockers: own.map_or_else(|| plan.lockers.clone(), |own| own.lockers.clone()),
            build: own.map_or(0, |own| own.build),
            root_user: own.map_or(0, |own| own.root_user),
            lease_ms: plan.lease_ms,
        }
    }

    /// Returns the configuration that a server with these flags reports to its peers.
    fn config(&self, nodes: u8) -> SystemConfig {
        let hash_key = HashKey::from_shared_secret(b"the secret of all nodes");
        let lockers: Vec<_> = self.lockers.iter().map(Node::to_string).collect();
        let arguments = [
            format!("--lockers={}", lockers.join(",")),
            format!("--lock-lease={}ms", self.lease_ms),
            format!("--root-user=root-{}", self.root_user),
        ];
        SystemConfig::collect(&hash_key)
            .endpoints((0..nodes).map(|node| url(Node(node))))
            .arguments(arguments)
            .program(&format!("build {}", self.build), "")
            .finish()
    }
}

/// Starts the server in the one order that is safe: its locks open once its peers are verified.
fn bootstrap(
    host: &Host,
    flags: &Flags,
    (dsync, env): (Dsync, Env),
) -> Result<Bootstrap, Box<dyn Error>> {
    let locks = RecordedLocks { dsync, recorder: host.recorder.clone() };
    let bootstrap = Bootstrap::builder(&host.manager, flags.config(host.nodes))
        .locks(locks)
        .env(env)
        .register()?;
    // The world starts the manager, after all software is installed.
    bootstrap.start(|| Ok::<_, Infallible>(()))?;
    Ok(bootstrap)
}

/// Records when locks open.
struct RecordedLocks {
    dsync: Dsync,
    recorder: NodeRecorder,
}

impl ClusterLocks for RecordedLocks {
    fn open(&self) {
        self.recorder.record(EventKind::PeersVerified);
        self.dsync.open();
    }

    fn close(&self, reason: &str) {
        self.dsync.close(reason);
    }
}

/// Returns the dsync limits of all nodes.
fn limits_of(plan: &LocksPlan) -> Limits {
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    let mut limits = Limits::with_lease(millis(plan.lease_ms));
    limits.refresh_interval = millis(plan.refresh_ms);
    limits
}

struct DsyncClient {
    dsync: Dsync,
    bootstrap: Option<Bootstrap>,
}

impl LockClient for DsyncClient {
    fn lock(&self, request: LockRequest) -> BoxFuture<Result<Arc<dyn HeldLock>, LockFailure>> {
        let LockRequest { resources, write, timeout, source } = request;
        let mutex = DRWMutex::new(&self.dsync, resources);
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
        let dsync = self.dsync.clone();
        Box::pin(async move {
            let report = dsync.force_unlock(&ForceTarget::Resource(resource), FORCE_TIMEOUT).await;
            report.forced.len()
        })
    }

    fn shutdown(&self, grace: Duration) -> BoxFuture<()> {
        if let Some(bootstrap) = &self.bootstrap {
            bootstrap.stop();
        }
        let dsync = self.dsync.clone();
        Box::pin(async move { dsync.shutdown(grace).await })
    }

    fn view(&self) -> LocksView {
        let locker = self.dsync.locker().and_then(|own| poll_once(own.list(FORCE_TIMEOUT)));
        let Stats { live, second_rounds, notifications, locker: locker_stats, .. } =
            self.dsync.stats();
        let locker = locker.and_then(Result::ok).map(|listing| LockerView {
            is_open: listing.is_open,
            grants: listing.grants.into_iter().map(view_of).collect(),
            expired: locker_stats.map_or(0, |locker_stats| locker_stats.counts.expired),
            waiters: listing.waiters.into_iter().map(waiter_of).collect(),
        });
        LocksView { live, second_rounds, notifications, locker }
    }
}

fn view_of(grant: GrantInfo) -> GrantView {
    GrantView { call: call_of(&grant.source), id: grant.uid }
}

fn waiter_of(waiter: WaiterInfo) -> WaiterView {
    let WaiterInfo { source, state, misses, .. } = waiter;
    // No ticket excludes one that was granted; it excludes others by its grant.
    WaiterView { call: call_of(&source), is_present: state != TicketState::Absent, missed: misses }
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
        LockError::TimedOut { .. } | LockError::NotAcquired { .. } | LockError::NotReady { .. } => {
            LockFailure::TimedOut
        }
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
