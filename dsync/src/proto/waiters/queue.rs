//! Tickets queued for one resource.

use std::collections::BTreeSet;

use super::{Ticket, TicketState};
use crate::proto::quorum::LockKind;

/// Tickets queued for one resource, by what is asked of them: the oldest that blocks a reader or a
/// writer, and the next to notify. None of these searches the queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Number of tickets in any state.
    len: usize,
    /// Number of notified ones.
    notified: usize,
    /// Those that block younger writers: all that are present.
    present: BTreeSet<Ticket>,
    /// Those that block younger readers: the writers among them.
    writers: BTreeSet<Ticket>,
    /// Those that are present and not notified.
    waiting: BTreeSet<Ticket>,
}

impl Queue {
    /// Adds a ticket that is not queued, in this state.
    pub(super) fn insert(&mut self, ticket: &Ticket, kind: LockKind, state: TicketState) {
        self.len += 1;
        self.notified += usize::from(state == TicketState::Notified);
        if state.is_present() {
            self.present.insert(ticket.clone());
            if kind == LockKind::Write {
                self.writers.insert(ticket.clone());
            }
        }
        if state == TicketState::Waiting {
            self.waiting.insert(ticket.clone());
        }
    }

    /// Removes a ticket that is queued in this state.
    pub(super) fn remove(&mut self, ticket: &Ticket, kind: LockKind, state: TicketState) {
        debug_assert!(self.len > 0, "Queue.len 0, removing {ticket:?}");
        self.len -= 1;
        self.notified -= usize::from(state == TicketState::Notified);
        if state.is_present() {
            self.present.remove(ticket);
            if kind == LockKind::Write {
                self.writers.remove(ticket);
            }
        }
        if state == TicketState::Waiting {
            self.waiting.remove(ticket);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of tickets that are notified.
    pub(super) fn notified(&self) -> usize {
        self.notified
    }

    /// Iterates over the present tickets that exclude a lock of this kind, the oldest first.
    pub(super) fn conflicting(&self, kind: LockKind) -> impl Iterator<Item = &Ticket> {
        self.blocking(kind).iter()
    }

    /// Returns the first of them.
    pub(super) fn oldest(&self, kind: LockKind) -> Option<&Ticket> {
        self.blocking(kind).first()
    }

    fn blocking(&self, kind: LockKind) -> &BTreeSet<Ticket> {
        match kind {
            LockKind::Read => &self.writers,
            LockKind::Write => &self.present,
        }
    }

    /// Iterates over the waiting tickets that no older one for this resource blocks: the readers
    /// before the oldest writer, or that writer.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Ticket> {
        let writer = self.writers.first();
        self.waiting.iter().take_while(move |ticket| {
            writer.is_none_or(|writer| *ticket < writer)
                || writer == Some(*ticket) && self.present.first() == writer
        })
    }

    /// Returns whether the ticket is queued in this state.
    pub(super) fn has(&self, ticket: &Ticket, kind: LockKind, state: TicketState) -> bool {
        self.present.contains(ticket) == state.is_present()
            && self.writers.contains(ticket) == (state.is_present() && kind == LockKind::Write)
            && self.waiting.contains(ticket) == (state == TicketState::Waiting)
    }

    /// Returns the numbers of present, writing and waiting tickets.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.present.len(), self.writers.len(), self.waiting.len()]
    }
}
