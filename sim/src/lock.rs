//! Locks as a run sees them: who asks, who believes that it holds what, and what the locks protect.
//!
//! Which locks those are is the software's business: it offers a [`LockClient`] on each node, and
//! the load asks that for locks. Who believes to hold what is looked at from outside of the
//! simulation, by the holders' own clocks and at one instant for all of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use grid::time::Instant;

use crate::event::{CallId, LockFailure};

mod cluster;
#[cfg(test)]
pub(crate) mod fake;
mod holds;
mod store;
#[cfg(test)]
mod tests;

pub use cluster::software;
pub use holds::{Belief, Holds};
pub use store::{Refused, Store};

/// What happens later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Asks for locks, on one node.
pub trait LockClient: Send + Sync {
    /// Waits for a lock. Dropping the future gives up.
    fn lock(&self, wanted: Wanted) -> Later<Result<Arc<dyn Held>, LockFailure>>;

    /// Forces the locks of a resource open. Tells how many lockers had any.
    fn force_unlock(&self, resource: String) -> Later<usize>;

    /// The process ends in good order: takes no more, and waits no longer than `grace` for what is
    /// let go.
    fn shutdown(&self, grace: Duration) -> Later<()>;

    /// What is to be seen of it from outside of the simulation; nothing unless it has something to
    /// show.
    fn look(&self) -> LocksView {
        LocksView::default()
    }
}

/// The locks of one node, as they look from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocksView {
    /// How many it holds, tries for, or is releasing.
    pub live: usize,
    /// How often it needed a second round of questions, for a token.
    pub second_rounds: u64,
    /// How often it was told that it was worth trying again.
    pub calls: u64,
    /// Its locker, if it is one that can be looked at.
    pub locker: Option<LockerView>,
}

/// A locker, as it looks from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockerView {
    /// Whether it grants; if not, it does not know yet what it granted before it was started.
    pub is_open: bool,
    /// What it has granted.
    pub grants: Vec<GrantView>,
    /// How many grants ended because nobody refreshed them.
    pub expired: u64,
}

/// A grant, as it looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantView {
    /// Its id.
    pub id: String,
    /// The call that it was granted to, if its source names one.
    pub call: Option<CallId>,
}

/// The source of a lock that this call asks for.
pub(crate) fn source_of(call: CallId) -> String {
    format!("call {call}")
}

/// The call that a source names.
fn call_of(source: &str) -> Option<CallId> {
    source.strip_prefix("call ")?.parse().ok()
}

/// A lock that somebody wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Names of the resources, all or none.
    pub resources: Vec<String>,
    /// Whether nobody else may hold it meanwhile.
    pub write: bool,
    /// How long to wait for it.
    pub timeout: Duration,
    /// Who asks, for operators.
    pub source: String,
}

/// A lock that was granted.
pub trait Held: Send + Sync {
    /// Whether it is held now, by the node's own clock.
    fn is_held(&self) -> bool;

    /// Up to when it is certain to be held, by the node's own clock, as far as is known now; the
    /// clock's beginning if it is known not to be.
    fn valid_until(&self) -> Instant;

    /// Resolves when it is lost.
    fn lost(&self) -> Later<()>;

    /// For the protected store to compare.
    fn token(&self) -> u64;

    /// Under which lockers know it.
    fn id(&self) -> String;

    /// Lets go, and waits for the acknowledgement.
    fn unlock(&self) -> Later<()>;

    /// Lets go as dropping does, without waiting for anything.
    fn let_go(&self);
}

/// Where software leaves the client of its node.
#[derive(Clone, Default)]
pub struct Locks(Arc<OnceLock<Arc<dyn LockClient>>>);

impl Locks {
    /// The load asks this client from now on. One for each incarnation of a node.
    pub fn offer(&self, client: Arc<dyn LockClient>) {
        if self.0.set(client).is_err() {
            grid::bug!("a node has one lock client");
        }
    }

    /// The client, if there is one.
    pub(crate) fn client(&self) -> Option<Arc<dyn LockClient>> {
        self.0.get().cloned()
    }
}

impl std::fmt::Debug for Locks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Locks").field(&self.0.get().is_some()).finish()
    }
}

/// What the locks of a run are about, for all nodes: the store that they protect, and who holds
/// what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Protected {
    pub(crate) store: Store,
    pub(crate) holds: Holds,
}
