//! Who has which lock, and whether it believes so.
//!
//! A node believes that it holds a lock while its process runs or is stopped, it has neither let go
//! nor learned that it lost the lock, and its clock is before the time up to which the lock is
//! certain. For a process that is stopped that clock is the one that it will see when it goes on:
//! what it had begun to send before, it sends then.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::event::CallId;
use crate::plan::{LockPlan, Node};
use crate::world::NodeClock;

use super::Held;

/// All locks that were granted and are not let go. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Holds(Arc<Mutex<BTreeMap<CallId, Hold>>>);

#[derive(Clone)]
struct Hold {
    plan: LockPlan,
    clock: NodeClock,
    /// Not an owner: with its process goes the guard.
    held: Weak<dyn Held>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// A lock that a node has, as it stands at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Belief {
    /// The call that asked for it.
    pub call: CallId,
    /// Who has it.
    pub node: Node,
    /// Which resources.
    pub resources: Vec<u8>,
    /// Whether nobody else may hold it meanwhile.
    pub write: bool,
    /// Its token.
    pub token: u64,
    /// Under which lockers know it.
    pub id: String,
    /// Whether its holder believes that it holds it.
    pub is_believed: bool,
}

impl Holds {
    fn all(&self) -> MutexGuard<'_, BTreeMap<CallId, Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lock was granted.
    pub(crate) fn begin(
        &self,
        call: CallId,
        plan: &LockPlan,
        clock: &NodeClock,
        held: &Arc<dyn Held>,
    ) {
        let hold = Hold { plan: plan.clone(), clock: clock.clone(), held: Arc::downgrade(held) };
        self.all().insert(call, hold);
    }

    /// Its holder lets go, or has learned that it lost it.
    pub(crate) fn end(&self, call: CallId) {
        self.all().remove(&call);
    }

    /// The process of a node is gone.
    pub(crate) fn crashed(&self, node: Node) {
        self.all().retain(|_, hold| hold.plan.on != node);
    }

    /// Whether the holder of one lock believes so at the simulated time `now`.
    pub(crate) fn is_believed(&self, call: CallId, now: Duration) -> bool {
        let hold = self.all().get(&call).cloned();
        hold.is_some_and(|hold| hold.is_believed(now))
    }

    /// All of them as they stand at the simulated time `now`, in the order of their calls.
    pub fn beliefs(&self, now: Duration) -> Vec<Belief> {
        let all = self.all().clone();
        all.into_iter().filter_map(|(call, hold)| hold.belief(call, now)).collect()
    }
}

impl Hold {
    fn is_believed(&self, now: Duration) -> bool {
        let Some(held) = self.held.upgrade() else { return false };
        // Not by asking whether it is held: who has seen that it is not does not hold it any more,
        // and nobody who looks from outside may be the one who has seen it.
        self.clock.shows(now) < held.valid_until()
    }

    fn belief(self, call: CallId, now: Duration) -> Option<Belief> {
        let is_believed = self.is_believed(now);
        let held = self.held.upgrade()?;
        Some(Belief {
            call,
            node: self.plan.on,
            is_believed,
            token: held.token(),
            id: held.id(),
            resources: self.plan.resources,
            write: self.plan.write,
        })
    }
}
