//! B51: a lock that is believed to be held is known by a quorum of lockers, so that any other quorum has
//! one of them in it; and of a lock that is over no locker knows anything once a lease has passed, so that
//! nobody's death keeps it for ever.
//!
//! Exclusion follows from the first half, but fails only if somebody asks in the wrong moment: this fails
//! in any. A locker that does not grant may know the lock: it is closed, or its process does not run. Who
//! cannot know is excused (see `suspended`).

use std::collections::{BTreeMap, BTreeSet};

use super::suspended::Suspended;
use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, What};
use crate::lock::{Belief, LockerView};
use crate::plan::LocksPlan;
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Quorums {
    suspended: Suspended,
    believed: Vec<Belief>,
    over: BTreeMap<CallId, u64>,
    healed_ms: u64,
}

impl Invariant for Quorums {
    fn name(&self) -> &'static str {
        "quorums"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
        self.suspended.see(event);
        match event.what {
            What::LockFailed { call, .. } | What::LockEnded { call, .. } => {
                self.over.insert(call, event.at_ms);
            }
            What::Healed => self.healed_ms = event.at_ms,
            _ => {}
        }
        Ok(())
    }

    fn tick(&mut self, beliefs: &[Belief], _facts: &Facts<'_>) -> Verdict {
        let believed = beliefs.iter().filter(|belief| belief.is_believed);
        let known = believed.filter(|belief| !self.suspended.is_over(belief.call));
        self.believed = known.cloned().collect();
        Ok(())
    }

    fn look(&mut self, views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        let Some(locks) = &facts.plan.cluster.locks else { return Ok(()) };
        if self.believed.is_empty() {
            return Ok(());
        }
        let tables: Vec<_> = tables(locks, views).map(ids).collect();
        for Belief { call, node, id, write, .. } in &self.believed {
            let may_know = |ids: &&Option<BTreeSet<&str>>| {
                ids.as_ref().is_none_or(|ids| ids.contains(id.as_str()))
            };
            let known = tables.iter().filter(may_know).count();
            let needed = quorum(tables.len(), *write);
            if known < needed {
                return Err(format!(
                    "the lock of call {call} is believed by {node}, and known by {known} lockers of \
                     {}: {needed} are needed",
                    tables.len()
                ));
            }
        }
        Ok(())
    }

    fn at_quiet(&mut self, views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        let Some(locks) = &facts.plan.cluster.locks else { return Ok(()) };
        let bounds = facts.bounds;
        // What was held up in the network until it was healed may have been granted then.
        let lease_ms = bounds.lease_ms + bounds.drift_of(bounds.lease_ms);
        let patience = lease_ms + bounds.queue_ms() + bounds.round_trip_ms + bounds.ticks_ms;
        for grant in tables(locks, views).flatten().flat_map(|table| &table.grants) {
            let over = grant.call.and_then(|call| self.over.get(&call).copied());
            if over.is_none_or(|over| over.max(self.healed_ms) + patience < facts.now_ms) {
                return Err(format!(
                    "a locker keeps {} for call {:?}, which is over since {over:?}",
                    grant.id, grant.call
                ));
            }
        }
        Ok(())
    }
}

/// What each locker knows, if that can be seen.
fn tables<'a>(
    locks: &'a LocksPlan,
    views: &'a [NodeView],
) -> impl Iterator<Item = Option<&'a LockerView>> {
    let view = |node| views.iter().find(move |view| view.node == node);
    locks.lockers.iter().map(move |node| view(*node).and_then(|view| view.locks.locker.as_ref()))
}

/// The locks that a locker knows of, if it grants anything.
fn ids(table: Option<&LockerView>) -> Option<BTreeSet<&str>> {
    let table = table.filter(|table| table.is_open)?;
    Some(table.grants.iter().map(|grant| grant.id.as_str()).collect())
}

/// So many of `lockers` have one in common with any quorum of writers; of writers, with any of readers.
fn quorum(lockers: usize, write: bool) -> usize {
    if write { lockers / 2 + 1 } else { lockers - lockers / 2 }
}
