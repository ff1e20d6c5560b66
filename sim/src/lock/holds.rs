//! The granted locks, and whether each holder sees `is_held()`.
//!
//! A holder sees `is_held()` while its process runs or is paused, it has neither released the lock
//! nor noticed its loss, and its clock is before the end of the lock's validity. For a paused
//! process this is the clock that it will read when it resumes: it then sends what it had started
//! to send.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use grid::sync::{Mutex, MutexGuard};

use crate::clock::NodeClock;
use crate::event::CallId;
use crate::plan::{LockPlan, Node};

use super::HeldLock;

/// All locks that are granted and not released. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Holds(Arc<Mutex<BTreeMap<CallId, Hold>>>);

#[derive(Clone)]
struct Hold {
    plan: LockPlan,
    clock: NodeClock,
    /// Weak, so that the guard is dropped with its process.
    held: Weak<dyn HeldLock>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// A granted lock, as seen at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldView {
    /// The call that requested it.
    pub call: CallId,
    /// The holder.
    pub node: Node,
    /// The locked resources.
    pub resources: Vec<u8>,
    /// Whether the lock is exclusive.
    pub write: bool,
    /// Its fencing token.
    pub token: u64,
    /// The id by which lockers know it.
    pub id: String,
    /// Whether its holder sees `is_held()`.
    pub is_held: bool,
}

impl Holds {
    fn all(&self) -> MutexGuard<'_, BTreeMap<CallId, Hold>> {
        self.0.lock()
    }

    /// Adds a lock that was granted.
    pub(crate) fn insert(
        &self,
        call: CallId,
        plan: &LockPlan,
        clock: &NodeClock,
        held: &Arc<dyn HeldLock>,
    ) {
        let hold = Hold { plan: plan.clone(), clock: clock.clone(), held: Arc::downgrade(held) };
        self.all().insert(call, hold);
    }

    /// Removes a lock whose holder releases it or has noticed its loss.
    pub(crate) fn remove(&self, call: CallId) {
        self.all().remove(&call);
    }

    /// Removes the locks of a node whose process has ended.
    pub(crate) fn remove_node(&self, node: Node) {
        self.all().retain(|_, hold| hold.plan.on != node);
    }

    /// Returns whether the holder of one lock sees `is_held()` at the simulated time `now`.
    pub(crate) fn is_held(&self, call: CallId, now: Duration) -> bool {
        let hold = self.all().get(&call).cloned();
        hold.is_some_and(|hold| hold.is_held(now))
    }

    /// Returns all held locks as seen at the simulated time `now`, in the order of their calls.
    pub fn views(&self, now: Duration) -> Vec<HoldView> {
        let all = self.all().clone();
        all.into_iter().filter_map(|(call, hold)| hold.view(call, now)).collect()
    }
}

impl Hold {
    fn is_held(&self, now: Duration) -> bool {
        let Some(held) = self.held.upgrade() else { return false };
        // Not by a call of `is_held()`: that call can make the holder notice the loss, and an
        // observation from outside must not cause it.
        self.clock.reading_at(now) < held.valid_until()
    }

    fn view(self, call: CallId, now: Duration) -> Option<HoldView> {
        let is_held = self.is_held(now);
        let held = self.held.upgrade()?;
        Some(HoldView {
            call,
            node: self.plan.on,
            is_held,
            token: held.token(),
            id: held.id(),
            resources: self.plan.resources,
            write: self.plan.write,
        })
    }
}
