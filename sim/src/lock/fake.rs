//! A fake lock service: one table for all nodes, without a network. It is correct, or has one
//! chosen flaw that a run must find.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grid::sync::{Mutex, MutexGuard};
use grid::time::{Clock, Instant};

use super::{BoxFuture, HeldLock, LockClient, LockRequest};
use crate::event::LockFailure;
use crate::host::{Host, Software};

/// The flaw of the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// No flaw.
    None,
    /// A lease expires in the table before it expires for its holder.
    ExpiresEarly,
    /// `is_held()` stays true for ever.
    NeverExpires,
    /// Leases are not refreshed, and no holder is notified that its lock is lost.
    LossIsNotReported,
    /// All tokens are the same.
    SameToken,
    /// The lock of a crashed holder never becomes free.
    NeverReleased,
    /// The timeout of a request is ignored.
    NoTimeout,
}

/// The fake lock service.
#[derive(Debug)]
pub(crate) struct Fake {
    lease: Duration,
    flaw: Flaw,
    table: Mutex<GrantTable>,
}

#[derive(Debug, Default)]
struct GrantTable {
    tokens: u64,
    /// By token: the locked resources, whether by a writer, and the expiry in simulated time.
    held: BTreeMap<u64, (Vec<String>, bool, u64)>,
}

/// Intervals between two attempts and between two refreshes. They are short, because a failed
/// attempt costs nothing here.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

impl Fake {
    pub(crate) fn software(lease_ms: u32, flaw: Flaw) -> Arc<dyn Software> {
        let lease = Duration::from_millis(u64::from(lease_ms));
        Arc::new(FakeSoftware(Arc::new(Self { lease, flaw, table: Mutex::default() })))
    }

    fn table(&self) -> MutexGuard<'_, GrantTable> {
        self.table.lock()
    }

    fn lease_ms(&self) -> u64 {
        let lease = self.lease.as_millis() as u64;
        if self.flaw == Flaw::ExpiresEarly { lease / 2 } else { lease }
    }

    fn grant(&self, request: &LockRequest, now_ms: u64) -> Option<u64> {
        let mut table = self.table();
        if self.flaw != Flaw::NeverReleased {
            table.held.retain(|_, (_, _, until)| *until > now_ms);
        }
        let is_free = table.held.values().all(|(names, write, _)| {
            !(*write || request.write) || !names.iter().any(|name| request.resources.contains(name))
        });
        is_free.then(|| {
            table.tokens += 1;
            let (token, until) = (table.tokens, now_ms + self.lease_ms());
            table.held.insert(token, (request.resources.clone(), request.write, until));
            token
        })
    }

    /// Refreshes a lock. Returns whether it is still held.
    #[must_use]
    fn refresh(&self, token: u64, now_ms: u64) -> bool {
        let until = now_ms + self.lease_ms();
        let mut table = self.table();
        let held = table.held.get_mut(&token).filter(|(_, _, until)| *until > now_ms);
        held.map(|held| held.2 = until).is_some()
    }
}

struct FakeSoftware(Arc<Fake>);

impl Software for FakeSoftware {
    fn install(&self, host: &Host) -> Result<(), Box<dyn Error>> {
        let fake = Arc::clone(&self.0);
        host.locks.set(Arc::new(FakeClient { fake, host: HostHandle::new(host) }));
        Ok(())
    }
}

/// The parts of a host that the fake needs, without its manager.
#[derive(Clone)]
struct HostHandle {
    clock: crate::clock::NodeClock,
    recorder: crate::recorder::NodeRecorder,
    gate: crate::gate::Gate,
}

impl HostHandle {
    fn new(host: &Host) -> Self {
        let (clock, recorder, gate) =
            (host.clock.clone(), host.recorder.clone(), host.gate.clone());
        Self { clock, recorder, gate }
    }

    fn now_ms(&self) -> u64 {
        self.recorder.now_ms()
    }
}

struct FakeClient {
    fake: Arc<Fake>,
    host: HostHandle,
}

impl LockClient for FakeClient {
    fn lock(&self, request: LockRequest) -> BoxFuture<Result<Arc<dyn HeldLock>, LockFailure>> {
        let (fake, host) = (Arc::clone(&self.fake), self.host.clone());
        Box::pin(async move {
            let timeout_ms = request.timeout.as_millis() as u64;
            let until = host.now_ms() + timeout_ms;
            loop {
                host.gate.pass().await;
                let sent = host.clock.now();
                if let Some(token) = fake.grant(&request, host.now_ms()) {
                    return Ok(FakeLock::begin(fake, host, token, sent) as Arc<dyn HeldLock>);
                }
                if host.now_ms() >= until && fake.flaw != Flaw::NoTimeout {
                    return Err(LockFailure::TimedOut);
                }
                let remaining = Duration::from_millis(until.saturating_sub(host.now_ms()).max(1));
                tokio::time::sleep(RETRY_INTERVAL.min(remaining)).await;
            }
        })
    }

    fn force_unlock(&self, resource: String) -> BoxFuture<usize> {
        let mut table = self.fake.table();
        let forced = table.held.extract_if(.., |_, (names, ..)| names.contains(&resource)).count();
        Box::pin(async move { forced })
    }

    fn shutdown(&self, _grace: Duration) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

struct FakeLock {
    fake: Arc<Fake>,
    host: HostHandle,
    token: u64,
    valid_until: Arc<Mutex<Instant>>,
    is_released: AtomicBool,
}

impl FakeLock {
    fn begin(fake: Arc<Fake>, host: HostHandle, token: u64, sent: Instant) -> Arc<Self> {
        let valid_until = Arc::new(Mutex::new(Self::lease_end(&fake, sent)));
        let guard = Self { fake, host, token, valid_until, is_released: AtomicBool::new(false) };
        let guard = Arc::new(guard);
        let held = Arc::downgrade(&guard);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(REFRESH_INTERVAL).await;
                let Some(guard) = held.upgrade() else { return };
                guard.host.gate.pass().await;
                let sent = guard.host.clock.now();
                if guard.is_released.load(Ordering::Relaxed)
                    || guard.fake.flaw == Flaw::LossIsNotReported
                    || !guard.fake.refresh(guard.token, guard.host.now_ms())
                {
                    return;
                }
                *guard.valid_until.lock() = Self::lease_end(&guard.fake, sent);
            }
        });
        guard
    }

    fn lease_end(fake: &Fake, sent: Instant) -> Instant {
        sent + fake.lease * 98 / 100
    }
}

impl HeldLock for FakeLock {
    fn is_held(&self) -> bool {
        !self.is_released.load(Ordering::Relaxed) && self.host.clock.now() < self.valid_until()
    }

    fn valid_until(&self) -> Instant {
        if self.fake.flaw == Flaw::NeverExpires {
            return Instant::from_nanos(u64::MAX);
        }
        if self.is_released.load(Ordering::Relaxed) {
            return Instant::default();
        }
        *self.valid_until.lock()
    }

    fn lost(&self) -> BoxFuture<()> {
        if self.fake.flaw == Flaw::LossIsNotReported {
            return Box::pin(std::future::pending());
        }
        let (clock, until) = (self.host.clock.clone(), Arc::clone(&self.valid_until));
        Box::pin(async move {
            while clock.now() < *until.lock() {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        })
    }

    fn id(&self) -> String {
        self.token.to_string()
    }

    fn token(&self) -> u64 {
        if self.fake.flaw == Flaw::SameToken { 1 } else { self.token }
    }

    fn unlock(&self) -> BoxFuture<()> {
        self.release();
        Box::pin(async {})
    }

    fn release(&self) {
        self.is_released.store(true, Ordering::Relaxed);
        self.fake.table().held.remove(&self.token);
    }
}
