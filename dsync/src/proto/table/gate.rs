//! A locker that has started does not know what it granted before (B53).
//!
//! ```text
//!   Closed ── one lease has passed, or every node has said what it holds ──► Open
//! ```
//!
//! While it is closed it grants nothing, so whatever was granted before stays what it was: a holder's
//! certainty ends within a lease. It opens earlier once every node that could hold one of its leases
//! has said which of them it still counts on.

use std::collections::BTreeSet;
use std::sync::Arc;

use grid::time::Instant;

use super::{Ask, Table};
use crate::proto::token::Token;

/// Whether a locker grants.
#[derive(Debug)]
pub enum Gate {
    /// Not yet.
    Closed {
        /// When it opens at the latest.
        until: Instant,
        /// Nodes that have not said what they hold.
        silent: BTreeSet<Arc<str>>,
    },
    /// It does.
    Open,
}

/// A lease that a node counts on, as it tells a locker that has forgotten it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// What it asked for once.
    pub ask: Ask,
    /// Its token, or the one that it has proposed.
    pub token: Token,
}

impl Gate {
    pub(super) fn closed(nodes: impl IntoIterator<Item = Arc<str>>, until: Instant) -> Self {
        Self::Closed { until, silent: nodes.into_iter().collect() }
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
    /// Whether it grants, and if not, whom it waits for.
    pub fn gate(&mut self, now: Instant) -> &Gate {
        self.handle_timeout(now);
        &self.gate
    }

    /// A node has said which leases of this locker it counts on, and the highest token that it knows.
    /// Asked and answered since this locker started. All of them are kept, though there be no room and
    /// though they exclude each other: one of two may have been suspended together with its clock, and
    /// the other one counts on this locker.
    pub fn report(&mut self, node: &str, holdings: Vec<Holding>, high: Token, now: Instant) {
        self.handle_timeout(now);
        let Gate::Closed { silent, .. } = &mut self.gate else { return };
        if !silent.remove(node) {
            return;
        }
        let was_last = silent.is_empty();
        self.tokens.raise_all(high);
        for Holding { ask, token } in holdings {
            self.tokens.raise(&ask.names, token);
            if self.tombstones.contains(&ask.uid) {
                continue; // Its release was faster.
            }
            if !self.by_uid.contains_key(&ask.uid) {
                self.insert(ask, now);
            }
        }
        if was_last {
            self.gate = Gate::Open;
        }
    }
}
