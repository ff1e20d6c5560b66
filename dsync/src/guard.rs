//! Guard of a held lock.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use grid::Env;
use grid::time::Instant;

use crate::error::{LossReason, UnlockReport};
use crate::lock::Lock;
use crate::proto::token::Token;
use crate::stats::Counters;

/// A lock that is held as long as [`is_held`](Self::is_held) returns true.
///
/// It is a lease, which a task refreshes in the background. When too few lockers confirm a refresh
/// in time, the lock is lost, and this guard reports that before another holder can be granted it.
/// A process that was stopped sees the loss as soon as it resumes, if its clock kept running. If
/// its clock stopped too (a suspended virtual machine) it cannot see it: only the store that it
/// writes to can, by the [`token`](Self::token).
///
/// Dropping the guard releases the lock in the background: each locker is asked until it confirms,
/// or until the lease has ended. A lost lock, too, is not released until its guard is dropped: when
/// an operator forces it open, others wait until the guard is gone, or the lease has ended.
#[derive(Debug)]
#[must_use = "a guard that is dropped releases its lock"]
pub struct Guard {
    lock: Arc<Lock>,
    env: Env,
    counters: Arc<Counters>,
    token: Option<Token>,
    uid: Arc<str>,
}

impl Guard {
    pub(crate) fn new(
        lock: Arc<Lock>,
        env: Env,
        counters: Arc<Counters>,
        token: Option<Token>,
    ) -> Self {
        let uid = lock.inspect(|hold| Arc::clone(hold.uid()));
        counters.guard_created();
        Self { lock, env, counters, token, uid }
    }

    /// Returns whether the lock is held now. Reads only the clock: some nanoseconds.
    ///
    /// Once it has returned false it never returns true again.
    pub fn is_held(&self) -> bool {
        self.lock.validity().is_valid(self.env.now())
    }

    /// Returns until when the lock is held, by this server's clock, unless it is refreshed before;
    /// the clock's zero once it is lost.
    pub fn valid_until(&self) -> Instant {
        self.lock.validity().until()
    }

    /// Returns how much longer the lock is held unless it is refreshed; zero once it is lost.
    pub fn time_left(&self) -> Duration {
        self.valid_until().since(self.env.now())
    }

    /// Resolves with the reason when the lock is lost or released: before another holder can be
    /// granted it, as long as this runtime's timers are late by less than
    /// [`SCHEDULING_MARGIN`](crate::limits::SCHEDULING_MARGIN).
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time.
    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + use<> {
        self.lock.ended()
    }

    /// Returns the fencing token: greater than that of every earlier writer. See [`Token`] for the
    /// guarantees and their assumptions.
    ///
    /// `None` if the lock has no token, because lockers of the MinIO type, which know no tokens, were
    /// needed for the quorum ([B59](crate::rules#b59)). The lock excludes others all the same, but a
    /// store cannot distinguish a late write of this holder from one of a later holder. A holder that
    /// needs fencing must not write then.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// Returns the id of this lock in listings.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Releases the lock: it is no longer held, and the release has begun, when this returns.
    ///
    /// The returned future reports whether all lockers have confirmed that. It need not be awaited:
    /// without a quorum of lockers it takes up to a lease, and the release goes on without it.
    pub fn unlock(self) -> Unlocking {
        let released = Box::pin(self.lock.released());
        drop(self);
        Unlocking { released }
    }
}

/// Future of an [unlocked](Guard::unlock) lock's report. Dropping it changes nothing.
pub struct Unlocking {
    released: Pin<Box<dyn Future<Output = UnlockReport> + Send>>,
}

impl std::fmt::Debug for Unlocking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unlocking").finish_non_exhaustive()
    }
}

impl Future for Unlocking {
    type Output = UnlockReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<UnlockReport> {
        self.released.as_mut().poll(cx)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let now = self.env.now();
        // The holder may not have checked since the loss: it is counted here.
        let was_held = self.lock.validity().is_valid(now);
        self.lock.release(now);
        self.counters.guard_dropped(was_held);
    }
}
