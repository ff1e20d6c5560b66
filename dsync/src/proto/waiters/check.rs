//! Invariants of the tickets: queues, timers and counters agree with them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{TicketState, Waiters};
use crate::limits::{WAITER_BYTES_MAX, WAITERS_NOTIFIED_MAX};
use crate::proto::quorum::LockKind;

impl Waiters {
    /// Checks the invariants as often as the number of tickets permits.
    pub(super) fn check_after_change(&mut self) {
        let items = self.by_ticket.len() + self.queues.len();
        if self.checks.is_due_after_operation(items) {
            self.check_invariants();
        }
    }

    /// Checks that each ticket has one timer, and its place in the queue of each of its resources.
    ///
    /// # Panics
    ///
    /// If not: the message names the field, and has both values.
    pub(in crate::proto) fn check_invariants(&self) {
        let tickets = self.by_ticket.len();
        assert_eq!(self.timers.len(), tickets, "Waiters.timers, by_ticket");
        assert!(tickets <= self.max, "Waiters.by_ticket {tickets}, max {}", self.max);
        let (mut bytes, mut granted) = (0, 0);
        let mut expected: FxHashMap<&Arc<str>, (usize, usize, [usize; 3])> = FxHashMap::default();
        for (ticket, waiter) in &self.by_ticket {
            let (due, state, kind) = (waiter.due(), waiter.state, waiter.kind);
            let has_timer = self.timers.contains(&(due, ticket.clone()));
            assert!(has_timer, "Waiters.timers lacks {ticket:?}, which is due at {due:?}");
            let is_notified = state == TicketState::Notified;
            let reserved = waiter.reserved_until;
            assert_eq!(reserved.is_some(), is_notified, "Waiter.reserved_until of {ticket:?}");
            let counts = [
                usize::from(state.is_present()),
                usize::from(state.is_present() && kind == LockKind::Write),
                usize::from(state == TicketState::Waiting),
            ];
            for name in waiter.resources.iter() {
                let queue = self.queues.get(name);
                let has = queue.is_some_and(|queue| queue.has(ticket, kind, state));
                assert!(has, "Waiters.queues of {name} lacks {ticket:?} as {state:?}");
                let (len, notified, sizes) = expected.entry(name).or_default();
                *len += 1;
                *notified += usize::from(is_notified);
                for (size, count) in sizes.iter_mut().zip(counts) {
                    *size += count;
                }
            }
            bytes += waiter.bytes(ticket);
            granted += usize::from(state == TicketState::Granted);
        }
        assert_eq!(self.granted, granted, "Waiters.granted, granted tickets");
        assert_eq!(self.bytes, bytes, "Waiters.bytes, bytes of the tickets");
        assert!(bytes <= WAITER_BYTES_MAX, "Waiters.bytes {bytes}, max {WAITER_BYTES_MAX}");
        assert_eq!(self.queues.len(), expected.len(), "Waiters.queues, resources of the tickets");
        for (name, queue) in &self.queues {
            let own = (queue.len(), queue.notified(), queue.sizes());
            assert_eq!(Some(&own), expected.get(name), "Waiters.queues of {name}, its tickets");
            let notified = queue.notified();
            assert!(notified <= WAITERS_NOTIFIED_MAX, "Queue.notified of {name}: {notified}");
        }
    }
}
