//! Locks that are no locks: one table for all nodes, without a network. It is right, and can be
//! made wrong in one way, to see that a run finds it.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid::time::{Clock, Instant};

use super::{Held, Later, LockClient, Wanted};
use crate::event::LockFailure;
use crate::world::{Host, Software};

/// What is wrong with the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing.
    None,
    /// A lease ends for others before it ends for its holder.
    EndsEarly,
    /// A holder believes for ever, and is told when others are.
    BelievesForEver,
    /// Leases are not refreshed, and nobody is told that a lock is lost.
    TellsNobody,
    /// All tokens are the same.
    OneToken,
    /// The lock of a holder that is gone is never free again.
    NeverFree,
    /// A time-out is none.
    WaitsForEver,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Fake {
    lease: Duration,
    flaw: Flaw,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    tokens: u64,
    /// What is held, whether by a writer, and until when, by the time of the run.
    held: BTreeMap<u64, (Vec<String>, bool, u64)>,
}

/// Between two attempts, and between two refreshes: an attempt that fails costs nothing.
const PACE: Duration = Duration::from_millis(20);
const REFRESH: Duration = Duration::from_millis(500);

impl Fake {
    pub(crate) fn software(lease_ms: u32, flaw: Flaw) -> Arc<dyn Software> {
        let lease = Duration::from_millis(u64::from(lease_ms));
        Arc::new(Shared(Arc::new(Self { lease, flaw, table: Mutex::default() })))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease_ms(&self) -> u64 {
        let lease = self.lease.as_millis() as u64;
        if self.flaw == Flaw::EndsEarly { lease / 2 } else { lease }
    }

    fn grant(&self, wanted: &Wanted, now_ms: u64) -> Option<u64> {
        let mut table = self.table();
        if self.flaw != Flaw::NeverFree {
            table.held.retain(|_, (_, _, until)| *until > now_ms);
        }
        let is_free = table.held.values().all(|(names, write, _)| {
            !(*write || wanted.write) || !names.iter().any(|name| wanted.resources.contains(name))
        });
        is_free.then(|| {
            table.tokens += 1;
            let (token, until) = (table.tokens, now_ms + self.lease_ms());
            table.held.insert(token, (wanted.resources.clone(), wanted.write, until));
            token
        })
    }

    /// Whether it is still held.
    fn refresh(&self, token: u64, now_ms: u64) -> bool {
        let until = now_ms + self.lease_ms();
        let mut table = self.table();
        let held = table.held.get_mut(&token).filter(|(_, _, until)| *until > now_ms);
        held.map(|held| held.2 = until).is_some()
    }
}

struct Shared(Arc<Fake>);

impl Software for Shared {
    fn install(&self, host: &Host) -> Result<(), Box<dyn Error>> {
        let fake = Arc::clone(&self.0);
        host.locks.offer(Arc::new(Client { fake, host: Handle::of(host) }));
        Ok(())
    }
}

/// What is needed of a host, without its manager.
#[derive(Clone)]
struct Handle {
    clock: crate::world::NodeClock,
    pen: crate::recorder::Pen,
    gate: crate::world::Gate,
}

impl Handle {
    fn of(host: &Host) -> Self {
        let (clock, pen, gate) = (host.clock.clone(), host.pen.clone(), host.gate.clone());
        Self { clock, pen, gate }
    }

    fn now_ms(&self) -> u64 {
        self.pen.now_ms()
    }
}

struct Client {
    fake: Arc<Fake>,
    host: Handle,
}

impl LockClient for Client {
    fn lock(&self, wanted: Wanted) -> Later<Result<Arc<dyn Held>, LockFailure>> {
        let (fake, host) = (Arc::clone(&self.fake), self.host.clone());
        Box::pin(async move {
            let timeout_ms = wanted.timeout.as_millis() as u64;
            let until = host.now_ms() + timeout_ms;
            loop {
                host.gate.pass().await;
                let sent = host.clock.now();
                if let Some(token) = fake.grant(&wanted, host.now_ms()) {
                    return Ok(Guard::begin(fake, host, token, sent) as Arc<dyn Held>);
                }
                if host.now_ms() >= until && fake.flaw != Flaw::WaitsForEver {
                    return Err(LockFailure::TimedOut);
                }
                let left = Duration::from_millis(until.saturating_sub(host.now_ms()).max(1));
                tokio::time::sleep(PACE.min(left)).await;
            }
        })
    }

    fn force_unlock(&self, resource: String) -> Later<usize> {
        let mut table = self.fake.table();
        let forced = table.held.extract_if(.., |_, (names, ..)| names.contains(&resource)).count();
        Box::pin(async move { forced })
    }

    fn shutdown(&self, _grace: Duration) -> Later<()> {
        Box::pin(async {})
    }
}

struct Guard {
    fake: Arc<Fake>,
    host: Handle,
    token: u64,
    valid_until: Arc<Mutex<Instant>>,
    is_over: AtomicBool,
}

impl Guard {
    fn begin(fake: Arc<Fake>, host: Handle, token: u64, sent: Instant) -> Arc<Self> {
        let valid_until = Arc::new(Mutex::new(Self::certain(&fake, sent)));
        let guard = Self { fake, host, token, valid_until, is_over: AtomicBool::new(false) };
        let guard = Arc::new(guard);
        let held = Arc::downgrade(&guard);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(REFRESH).await;
                let Some(guard) = held.upgrade() else { return };
                guard.host.gate.pass().await;
                let sent = guard.host.clock.now();
                if guard.is_over.load(Ordering::Relaxed)
                    || guard.fake.flaw == Flaw::TellsNobody
                    || !guard.fake.refresh(guard.token, guard.host.now_ms())
                {
                    return;
                }
                *guard.valid_until.lock().expect("no panic") = Self::certain(&guard.fake, sent);
            }
        });
        guard
    }

    fn certain(fake: &Fake, sent: Instant) -> Instant {
        sent + fake.lease * 98 / 100
    }
}

impl Held for Guard {
    fn is_held(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed) && self.host.clock.now() < self.valid_until()
    }

    fn valid_until(&self) -> Instant {
        if self.fake.flaw == Flaw::BelievesForEver {
            return Instant::from_nanos(u64::MAX);
        }
        if self.is_over.load(Ordering::Relaxed) {
            return Instant::default();
        }
        *self.valid_until.lock().expect("no panic")
    }

    fn lost(&self) -> Later<()> {
        if self.fake.flaw == Flaw::TellsNobody {
            return Box::pin(std::future::pending());
        }
        let (clock, until) = (self.host.clock.clone(), Arc::clone(&self.valid_until));
        Box::pin(async move {
            while clock.now() < *until.lock().expect("no panic") {
                tokio::time::sleep(PACE).await;
            }
        })
    }

    fn id(&self) -> String {
        self.token.to_string()
    }

    fn token(&self) -> u64 {
        if self.fake.flaw == Flaw::OneToken { 1 } else { self.token }
    }

    fn unlock(&self) -> Later<()> {
        self.let_go();
        Box::pin(async {})
    }

    fn let_go(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.fake.table().held.remove(&self.token);
    }
}
