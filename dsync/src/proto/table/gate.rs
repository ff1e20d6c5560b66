//! Recovery gate: a locker that has restarted does not know what it granted before ([B53]).
//!
//! ```text
//!   Closed ── one lease has passed, or every node has reported its leases ──► Open
//! ```
//!
//! While it is closed it grants nothing, so no earlier grant is violated: a holder's votes expire
//! within a lease. To grant before a full lease has passed, it needs from every node a report
//! of the leases that the node still relies on.
//!
//! [B53]: crate::rules#b53

use std::collections::BTreeSet;
use std::sync::Arc;

use grid::time::Instant;

use super::{LockRequest, Table};
use crate::proto::token::Token;

/// Whether a locker grants locks.
#[derive(Debug)]
pub enum Gate {
    /// It has restarted, and does not grant yet.
    Closed {
        /// Latest time at which it opens.
        until: Instant,
        /// Nodes that have not reported their leases.
        unreported: BTreeSet<Arc<str>>,
    },
    /// It grants locks.
    Open,
}

/// A lease that a node still relies on, as reported to the locker that granted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// The original lock request.
    pub request: LockRequest,
    /// Token of the lock, or the one that was proposed.
    pub token: Token,
}

impl Gate {
    pub(super) fn closed(nodes: impl IntoIterator<Item = Arc<str>>, until: Instant) -> Self {
        Self::Closed { until, unreported: nodes.into_iter().collect() }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Self::Closed { until, .. } = self
            && *until <= now
        {
            *self = Self::Open;
        }
    }
}

impl Table {
    /// Returns whether it grants, and if not, which reports are missing.
    pub fn gate(&mut self, now: Instant) -> &Gate {
        self.handle_timeout(now);
        &self.gate
    }

    /// Records a node's report: its leases of this locker, and the highest token that it knows.
    /// Both the query and the report date from after this locker's start. All leases are kept, even
    /// beyond the limit and even if they exclude each other: one of two holders may have been
    /// suspended together with its clock, and the other one relies on this locker.
    pub fn handle_report(
        &mut self,
        node: &str,
        held_leases: Vec<HeldLease>,
        highest: Token,
        now: Instant,
        wall: Token,
    ) {
        self.handle_timeout(now);
        let Gate::Closed { unreported, .. } = &mut self.gate else { return };
        if !unreported.remove(node) {
            return;
        }
        let was_last = unreported.is_empty();
        self.tokens.raise_all(highest, wall);
        for HeldLease { request, token } in held_leases {
            // Beyond the highest that can be recorded, it was issued against the assumptions.
            let _ = self.tokens.raise(&request.resources, token, wall);
            if self.tombstones.contains(&request.uid) {
                continue; // The lock was released before its report arrived.
            }
            if !self.by_uid.contains_key(&request.uid) {
                self.insert(request, now);
            }
        }
        if was_last {
            self.gate = Gate::Open;
            self.notify_all(now);
        }
        self.check_after_change();
    }
}
