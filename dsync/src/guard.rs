//! What holding a lock gives you.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;

use crate::dsync::Inner;
use crate::error::Lost;
use crate::lock::Lock;
use crate::proto::token::Token;

/// A lock that is held, as long as [`is_held`](Self::is_held) says so.
///
/// It is a lease. A task refreshes it in the background; when too few lockers confirm that in time it
/// is lost, and this guard knows so before anybody else can be granted it. A process that is stopped
/// knows as soon as it runs again, if its clock went on meanwhile; if its clock stood still as well
/// (a virtual machine that was suspended) it cannot know, and only what it writes to can tell, by the
/// [`token`](Self::token).
///
/// Dropping the guard releases the lock in the background: each locker is asked until it confirms, or
/// until the lease has ended. That is so for a lock that was lost, too: who loses it to an operator keeps
/// others out until the guard is gone, or the lease has ended.
#[derive(Debug)]
#[must_use = "a guard that is dropped releases its lock"]
pub struct Guard {
    lock: Arc<Lock>,
    inner: Arc<Inner>,
    token: Token,
    uid: Arc<str>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Guard {
    pub(crate) fn new(lock: Arc<Lock>, inner: Arc<Inner>, token: Token) -> Self {
        let uid = lock.look(|hold| Arc::clone(hold.uid()));
        inner.meter.made();
        Self { lock, inner, token, uid }
    }

    /// Whether the lock is held now. Asks the clock and nothing else: some nanoseconds.
    ///
    /// Once it has said no it says no for ever.
    pub fn is_held(&self) -> bool {
        self.lock.validity().is_certain(self.inner.clock.now())
    }

    /// Until when it is held, by this server's clock, unless it is refreshed before; the clock's
    /// beginning once it is lost.
    pub fn valid_until(&self) -> Instant {
        self.lock.validity().until()
    }

    /// How much longer it is held unless it is refreshed before; zero once it is lost.
    pub fn time_left(&self) -> Duration {
        self.valid_until().since(self.inner.clock.now())
    }

    /// Resolves when the lock is lost or released, with the reason: before anybody else can be
    /// granted it, as long as this runtime's timers are late by less than
    /// [`SCHEDULING_MARGIN`](crate::limits::SCHEDULING_MARGIN).
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time.
    pub fn lost(&self) -> impl Future<Output = Lost> + Send + use<> {
        self.lock.ended()
    }

    /// The fencing token: greater than that of every writer before. See [`Token`] for what is
    /// promised and assumed.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The id under which operators find this lock.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Releases the lock, now: it is not held any more when this returns. What is returned resolves
    /// when so many lockers have confirmed it that others can get it; it need not be awaited.
    pub fn unlock(self) -> impl Future<Output = ()> + Send + use<> {
        let released = self.lock.released();
        drop(self);
        released
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let now = self.inner.clock.now();
        // Whoever lost it may never have asked: it is counted here.
        let was_held = self.lock.validity().is_certain(now);
        self.lock.let_go(now);
        self.inner.meter.dropped(was_held);
    }
}
