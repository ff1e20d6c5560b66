//! What holds whenever the lock of the state is released.
//!
//! The state of the connection, the slots of its callers and the wakers of its handlers follow the
//! state machine; here each is compared with it. The machine checks its own parts. In debug builds
//! every operation ends with a check, so that each test, model and simulated run performs it.

use super::state::{OpenLink, SharedState, Waiter};
use crate::proto::connection::SlotOwner;
use crate::stats::ConnectionState;

impl SharedState {
    /// Checks the invariants at the end of an operation (debug builds).
    pub(super) fn end_operation(&mut self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let live = self.link.as_ref().map_or(0, |link| {
            link.machine.live_outbound_calls() + link.machine.live_inbound_calls()
        });
        let items = live + self.handler_wakers.len();
        if self.checks.is_due_after_operation(items) {
            self.check_invariants();
        }
    }

    /// Checks that the state agrees with the state machine in it. Walks over all of it.
    ///
    /// # Panics
    ///
    /// If it does not, which is a bug of this crate. The message names the field and both values.
    pub(super) fn check_invariants(&self) {
        self.check_epochs();
        self.check_handler_wakers();
        if let Some(link) = &self.link {
            link.check_slots();
        }
    }

    /// The connection, its state and the reason for its end describe the same epoch (B03, B08).
    fn check_epochs(&self) {
        let (epoch, version, state) = (self.epoch.0, self.version, self.connection_state);
        let end_reason = &self.end_reason;
        let is_open = self.link.is_some();
        let is_connected = state == ConnectionState::Connected;
        assert_eq!(is_open, is_connected, "link.is_some, and connection_state {state:?}");
        if is_open {
            assert!(epoch > 0, "epoch is 0 with an open connection");
            assert!(end_reason.is_none(), "end_reason {end_reason:?} of the open epoch {epoch}");
        } else if epoch > 0 {
            assert!(end_reason.is_some(), "no end_reason for the ended epoch {epoch}");
        }
        // Each connection is a change of the state, which its watchers see.
        assert!(version >= epoch, "version {version} is below epoch {epoch}");
        let is_shut_down = state == ConnectionState::Shutdown;
        assert!(
            !is_shut_down || self.is_draining,
            "connection_state {state:?} without is_draining"
        );
    }

    /// Each waiting handler waits for the end of a live call: no event would wake any other (B11).
    fn check_handler_wakers(&self) {
        for mux_id in self.handler_wakers.keys() {
            let link = self.link.as_ref();
            let is_live = link.is_some_and(|link| link.machine.is_inbound_live(*mux_id));
            assert!(is_live, "handler_wakers has the ended call {mux_id}");
        }
    }
}

impl OpenLink {
    /// Each slot in the state machine is of the kind of its call, and has no outcome yet (B14). A
    /// closed machine is removed together with the event of its close.
    fn check_slots(&self) {
        assert!(self.machine.poll_timeout().is_some(), "link has a closed machine");
        for (owner, waiter) in self.machine.slots() {
            let is_outstanding = match (owner, waiter) {
                // Not under loom: a lock inside a lock multiplies the interleavings to search.
                _ if cfg!(grid_loom) => true,
                (SlotOwner::Call(_), Waiter::Call(slot)) => slot.is_waiting(),
                (SlotOwner::Stream(_), Waiter::Stream(waiter)) => waiter.is_live(),
                (SlotOwner::Call(_), Waiter::Stream(_))
                | (SlotOwner::Stream(_), Waiter::Call(_)) => false,
            };
            assert!(is_outstanding, "the slot of the outstanding {owner:?} is {waiter:?}");
        }
    }
}

#[cfg(test)]
mod tests;
