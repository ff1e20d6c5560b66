//! The deployment id within the process: unknown, or known forever ([B63]).
//!
//! Shared state comes from [`grid::sync`], so that loom checks this very file
//! (`loom-tests/tests/q10_deployment_id.rs`). `agree` decides the id.
//!
//! [B63]: crate::rules#b63

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use grid::sync::Mutex;
use grid::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use slab::Slab;

use super::id::DeploymentId;

/// A write-once cell for the id.
///
/// ```text
///   not known yet ──set──► known
/// ```
///
/// Readers take no lock: they load one flag, which is stored after both halves of the id.
pub struct DeploymentCell {
    is_known: AtomicBool,
    high: AtomicU64,
    low: AtomicU64,
    /// Wakers of waiting tasks. Locked by `set`; empty once the id is known.
    waiters: Mutex<Slab<Waker>>,
}

/// The cell already holds another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deployment id is {ours} already, and is never changed")]
pub struct AlreadySet {
    /// The id in the cell.
    pub ours: DeploymentId,
}

impl Default for DeploymentCell {
    fn default() -> Self {
        Self::new()
    }
}

impl DeploymentCell {
    /// Creates an empty cell.
    pub fn new() -> Self {
        Self {
            is_known: AtomicBool::new(false),
            high: AtomicU64::new(0),
            low: AtomicU64::new(0),
            waiters: Mutex::new(Slab::new()),
        }
    }

    /// Returns the id; `None` until it is known. Takes no lock.
    pub fn get(&self) -> Option<DeploymentId> {
        if !self.is_known.load(Ordering::Acquire) {
            return None;
        }
        let [high, low] = [&self.high, &self.low].map(|half| half.load(Ordering::Relaxed));
        DeploymentId::from_bits(u128::from(high) << 64 | u128::from(low))
    }

    /// Sets the id and wakes all waiting tasks. Setting the same id again changes nothing.
    ///
    /// # Errors
    ///
    /// [`AlreadySet`] if the cell holds another id.
    pub fn set(&self, id: DeploymentId) -> Result<(), AlreadySet> {
        let mut waiters = self.waiters.lock();
        if let Some(ours) = self.get() {
            return if ours == id { Ok(()) } else { Err(AlreadySet { ours }) };
        }
        let bits = id.to_bits();
        #[expect(clippy::cast_possible_truncation, reason = "takes the lower half")]
        self.low.store(bits as u64, Ordering::Relaxed);
        self.high.store((bits >> 64) as u64, Ordering::Relaxed);
        self.is_known.store(true, Ordering::Release);
        let woken = mem::take(&mut *waiters);
        drop(waiters); // a waker may run arbitrary code
        woken.into_iter().for_each(|(_, waker)| waker.wake());
        Ok(())
    }

    /// Waits until the id is known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub fn wait(&self) -> impl Future<Output = DeploymentId> + Send + Unpin + '_ {
        Wait { cell: self, key: None }
    }

    fn poll_known(&self, key: &mut Option<usize>, waker: &Waker) -> Poll<DeploymentId> {
        if let Some(id) = self.get() {
            return Poll::Ready(id);
        }
        let waker = waker.clone();
        let mut waiters = self.waiters.lock();
        // Checked again under the lock that `set` holds: a waker registered after `set` would never
        // be woken.
        if let Some(id) = self.get() {
            return Poll::Ready(id);
        }
        let earlier = match key.and_then(|key| waiters.get_mut(key)) {
            Some(known) => Some(mem::replace(known, waker)),
            None => {
                *key = Some(waiters.insert(waker));
                None
            }
        };
        drop(waiters);
        drop(earlier); // not under the lock: a waker may run arbitrary code
        Poll::Pending
    }
}

impl fmt::Debug for DeploymentCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeploymentCell").field(&self.get()).finish()
    }
}

struct Wait<'a> {
    cell: &'a DeploymentCell,
    /// Key of this future's waker.
    key: Option<usize>,
}

impl Future for Wait<'_> {
    type Output = DeploymentId;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DeploymentId> {
        let wait = &mut *self;
        wait.cell.poll_known(&mut wait.key, cx.waker())
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut waiters = self.cell.waiters.lock();
        // Absent if the id has become known. The key is not reused then: no task waits any more.
        let waker = waiters.try_remove(key);
        drop(waiters);
        drop(waker); // not under the lock either
    }
}

// Not where loom-tests compiles this file: loom's types cannot be used outside of a model.
#[cfg(not(grid_loom))]
#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn id(bits: u128) -> DeploymentId {
        DeploymentId::from_bits(bits).expect("not nil")
    }

    #[test]
    fn b63_id_is_unknown_or_final() {
        let cell = DeploymentCell::new();
        assert_eq!(cell.get(), None);
        let (ours, theirs) = (id(3 << 64), id(u128::MAX));
        assert_eq!(cell.set(ours), Ok(()));
        assert_eq!(cell.set(ours), Ok(()), "same id again");
        assert_eq!(cell.set(theirs), Err(AlreadySet { ours }));
        assert_eq!(cell.get(), Some(ours));
    }

    #[test]
    fn b63_waiting_tasks_are_woken_once_and_cancelled_ones_are_removed() {
        let cell = DeploymentCell::new();
        let counters = [(); 3].map(|()| Arc::new(CountingWaker::default()));
        let poll = |wait: &mut Wait<'_>, counter: &Arc<CountingWaker>| {
            let waker = Waker::from(Arc::clone(counter));
            Pin::new(wait).poll(&mut Context::from_waker(&waker))
        };
        let mut waits = [(); 2].map(|()| Wait { cell: &cell, key: None });
        assert!(poll(&mut waits[0], &counters[0]).is_pending());
        assert!(poll(&mut waits[1], &counters[1]).is_pending());
        let [dropped, mut pending] = waits;
        drop(dropped);
        assert_eq!(Arc::strong_count(&counters[0]), 1, "waker is dropped with the future");
        assert!(poll(&mut pending, &counters[2]).is_pending(), "polled by another task");
        cell.set(id(1)).expect("first set succeeds");
        let wake_counts = counters.each_ref().map(|counter| counter.0.load(Ordering::Relaxed));
        assert_eq!(wake_counts, [0, 0, 1]);
        assert_eq!(poll(&mut pending, &counters[2]), Poll::Ready(id(1)));
        drop(pending);
        assert!(cell.waiters.lock().is_empty());
    }
}
