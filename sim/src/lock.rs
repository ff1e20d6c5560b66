//! Locks in a run: requests, holders that see `is_held()`, and the protected store.
//!
//! The lock implementation is software on the nodes: it offers a [`LockClient`] on each node, and
//! the load requests locks from that. The holders' views are read from outside of the simulation,
//! by the holders' own clocks and at one instant for all of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use grid::time::Instant;

use crate::event::{CallId, LockFailure};

#[cfg(test)]
pub(crate) mod fake;
mod holds;
mod store;
#[cfg(test)]
mod tests;

pub use holds::{HoldView, Holds};
pub use store::{StaleToken, Store};

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A client of the lock service, on one node.
pub trait LockClient: Send + Sync {
    /// Waits for a lock. Dropping the future cancels the attempt.
    fn lock(&self, request: LockRequest) -> BoxFuture<Result<Arc<dyn HeldLock>, LockFailure>>;

    /// Forces the locks of a resource open. Returns how many lockers had granted such a lock.
    fn force_unlock(&self, resource: String) -> BoxFuture<usize>;

    /// Shuts down cleanly: accepts no more requests, and waits at most `grace` for releases.
    fn shutdown(&self, grace: Duration) -> BoxFuture<()>;

    /// Returns its state as seen from outside of the simulation; empty by default.
    fn view(&self) -> LocksView {
        LocksView::default()
    }
}

/// The locks of one node, as seen from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocksView {
    /// Number of locks that it holds, requests or releases.
    pub live: usize,
    /// Number of second rounds of requests, which a token needed.
    pub second_rounds: u64,
    /// Number of notifications to waiters that another attempt is likely to succeed.
    pub notifications: u64,
    /// Its locker, if it has one whose state can be read.
    pub locker: Option<LockerView>,
}

/// A locker, as seen from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockerView {
    /// Whether it grants. A locker that has restarted does not grant while it lacks its earlier
    /// grants.
    pub is_open: bool,
    /// Its current grants.
    pub grants: Vec<GrantView>,
    /// Number of grants that expired without a refresh.
    pub expired: u64,
    /// Its waiters, in the order of their tickets.
    pub waiters: Vec<WaiterView>,
}

/// A waiter in the queue of one locker, as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaiterView {
    /// The call of the lock, if its source names one.
    pub call: Option<CallId>,
    /// Whether it blocks later waiters: not while it has missed its notification.
    pub is_present: bool,
    /// How many notifications it has missed so far.
    pub missed: u32,
}

/// A grant, as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantView {
    /// Its id.
    pub id: String,
    /// The call of the lock, if its source names one.
    pub call: Option<CallId>,
}

/// Returns the source that names this call in a lock request.
pub(crate) fn source_of(call: CallId) -> String {
    format!("call {call}")
}

/// Returns the call that a source names.
pub(crate) fn call_of(source: &str) -> Option<CallId> {
    source.strip_prefix("call ")?.parse().ok()
}

/// A request for a lock.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// Names of the resources, which are locked all or none.
    pub resources: Vec<String>,
    /// Whether the lock is exclusive.
    pub write: bool,
    /// How long to wait for the lock.
    pub timeout: Duration,
    /// Text that identifies the requester to operators.
    pub source: String,
}

/// A lock that was granted.
pub trait HeldLock: Send + Sync {
    /// Returns whether it is held now, by the node's own clock.
    fn is_held(&self) -> bool;

    /// Returns the time up to which it is certain to be held, by the node's own clock; zero if it
    /// is known to be lost.
    fn valid_until(&self) -> Instant;

    /// Resolves when it is lost.
    fn lost(&self) -> BoxFuture<()>;

    /// Returns its fencing token, which the protected store compares.
    fn token(&self) -> u64;

    /// Returns the id by which lockers know it.
    fn id(&self) -> String;

    /// Releases it, and waits for the acknowledgement.
    fn unlock(&self) -> BoxFuture<()>;

    /// Releases it as a drop of the guard does, without waiting.
    fn release(&self);
}

/// Slot into which software puts the lock client of its node.
#[derive(Clone, Default)]
pub struct LockSlot(Arc<OnceLock<Arc<dyn LockClient>>>);

impl LockSlot {
    /// Sets the client that the load uses from now on, one for each incarnation of a node.
    pub fn set(&self, client: Arc<dyn LockClient>) {
        if self.0.set(client).is_err() {
            grid::bug!("a node has one lock client");
        }
    }

    /// Returns the client, if there is one.
    pub(crate) fn client(&self) -> Option<Arc<dyn LockClient>> {
        self.0.get().cloned()
    }
}

impl std::fmt::Debug for LockSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LockSlot").field(&self.0.get().is_some()).finish()
    }
}

/// State shared by all nodes of a run with locks: the protected store, and the holders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Protected {
    pub(crate) store: Store,
    pub(crate) holds: Holds,
}
