//! Tickets queued at one locker, and their notifications ([B58]).
//!
//! ```text
//!                 contact                free for it, and
//!   (not queued) ─────────► Waiting ──── no older conflict ────► Notified
//!                            ▲  ▲ ▲                              │  │  │
//!                    contact │  │ └── refused, or in contact ────┘  │  │ no contact within
//!                            │  │     again                         │  │ its reservation
//!                     Absent ┘  └──────── Granted ◄─────────────────┘  ▼
//!                                released, waits on    granted       Absent
//!
//!   Any state ends when the ticket is cancelled, or without contact for [`TICKET_TTL`].
//! ```
//!
//! A *contact* is a refused lock request, a wait request, or the release of a failed attempt. The
//! end of an RPC, a new attempt and a dropped long poll are none, and change nothing.
//!
//! A locker does not grant by itself: with each locker in its own order, two waiters could get half
//! of a quorum each, and keep it. Instead it notifies waiters and reserves the lock for them for a
//! moment ([`RESERVATION`](crate::limits::RESERVATION)); a waiter that enough lockers have notified
//! retries. The order is that of tickets, which are the same at all lockers.
//!
//! A ticket that is waiting or notified is *present*: it blocks every younger conflicting request.
//! A granted one does not need to: its grant does. An absent one, whose waiter missed its
//! notification, keeps its position and blocks nothing, so that a dead waiter delays others once,
//! for its reservation, and not for the life of its ticket.
//!
//! [B58]: crate::rules#b58

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::keyed::{Key, KeyedMap};
use super::quorum::LockKind;
use super::resources::Resources;
use super::token::Token;
use crate::limits::{
    BARGING_LIMIT, Limits, PLAIN_SCAN_MAX, TICKET_TTL, WAITER_BYTES, WAITER_BYTES_MAX,
    WAITER_NAME_BYTES, WAITERS_NOTIFIED_MAX, WAITERS_SCANNED_MAX,
};
use grid::check_schedule::CheckSchedule;

mod check;
mod queue;
#[cfg(test)]
mod tests;

use queue::Queue;

/// Position in the queue: first come, first served. The id decides between equal times.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Time of the first refusal, by the lockers' clocks.
    pub time: Token,
    /// Id of the waiter: one for one call of `lock`, over all of its attempts.
    pub id: Arc<str>,
}

/// State of a ticket at one locker, ordered by how near it is to its grant.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TicketState {
    /// It missed a notification, and has made no contact since.
    Absent,
    /// It waits for its notification.
    #[default]
    Waiting,
    /// It was notified, and the lock is reserved for it.
    Notified,
    /// This locker granted its current attempt.
    Granted,
}

impl TicketState {
    /// Returns whether the ticket blocks younger requests.
    fn is_present(self) -> bool {
        match self {
            Self::Waiting | Self::Notified => true,
            Self::Absent | Self::Granted => false,
        }
    }
}

/// One waiter.
#[derive(Debug, Clone)]
pub struct Waiter {
    /// Resources that it waits for.
    pub resources: Resources,
    /// Read or write.
    pub kind: LockKind,
    /// Name of the server that waits.
    pub owner: Arc<str>,
    /// Call site in the waiter's code, for operators.
    pub source: Arc<str>,
    /// Start of its wait here.
    pub since: Instant,
    /// State of its ticket.
    pub state: TicketState,
    /// When its ticket ends without further contact.
    ends_at: Instant,
    /// End of its reservation, while it is notified.
    reserved_until: Option<Instant>,
    /// Notifications that it missed. Each doubles its next reservation.
    misses: u32,
}

impl Waiter {
    /// Returns when its state changes without contact.
    fn due(&self) -> Instant {
        self.reserved_until.map_or(self.ends_at, |until| until.min(self.ends_at))
    }

    /// Returns how many notifications it missed.
    pub(super) fn misses(&self) -> u32 {
        self.misses
    }

    /// Returns the memory that it takes, approximately.
    fn bytes(&self, ticket: &Ticket) -> usize {
        let texts = ticket.id.len() + self.owner.len() + self.source.len();
        let names = self.resources.iter().count() * WAITER_NAME_BYTES + self.resources.bytes();
        WAITER_BYTES + texts + names
    }
}

/// Queue state in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueReport {
    /// Whether the ticket of the request is in the queues.
    pub is_queued: bool,
    /// Highest time of a ticket that was ever queued. A later ticket is younger than all of them.
    pub last_ticket: Token,
}

/// Whether a locker keeps a ticket in its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum WaitOutcome {
    /// It does, and will notify the waiter, or has just done so.
    Enqueued,
    /// It does not: the waiter has to poll.
    Refused,
}

/// Position of a request among the tickets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Position<'a> {
    /// That of its ticket.
    Ticket(&'a Ticket),
    /// Behind all tickets: it has none.
    Youngest,
    /// None: a MinIO holder takes no part in the order. Only tickets that are notified, or have
    /// waited for [`BARGING_LIMIT`], block it ([B59](crate::rules#b59)).
    Plain,
}

/// Waiters of several resources that one search has examined. A waiter of a thousand resources that
/// are all released would otherwise be examined a thousand times, with all of them each time.
#[derive(Default)]
struct Examined(FxHashSet<Ticket>);

impl Examined {
    fn is_first(&mut self, ticket: &Ticket, waiter: &Waiter) -> bool {
        waiter.resources.iter().nth(1).is_none() || self.0.insert(ticket.clone())
    }
}

/// All tickets of one locker.
#[derive(Debug)]
pub(super) struct Waiters {
    by_ticket: BTreeMap<Ticket, Waiter>,
    queues: KeyedMap<Arc<str>, Queue>,
    timers: BTreeSet<(Instant, Ticket)>,
    notifications: VecDeque<Ticket>,
    last_ticket: Token,
    granted: usize,
    bytes: usize,
    reservation: Duration,
    max: usize,
    checks: CheckSchedule,
}

impl Waiters {
    pub(super) fn new(limits: &Limits, key: Key) -> Self {
        Self {
            by_ticket: BTreeMap::new(),
            queues: KeyedMap::with_hasher(key),
            timers: BTreeSet::new(),
            notifications: VecDeque::new(),
            last_ticket: Token::default(),
            granted: 0,
            bytes: 0,
            reservation: limits.reservation,
            max: limits.waiters_max,
            checks: CheckSchedule::default(),
        }
    }

    /// Returns the number of tickets whose attempt is not granted here.
    pub(super) fn len(&self) -> usize {
        self.by_ticket.len() - self.granted
    }

    /// Iterates over those tickets, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Ticket, &Waiter)> {
        self.by_ticket.iter().filter(|(_, waiter)| waiter.state != TicketState::Granted)
    }

    /// Returns what a response says about this ticket.
    pub(super) fn report(&self, ticket: Option<&Ticket>) -> QueueReport {
        let is_queued = ticket.is_some_and(|ticket| self.by_ticket.contains_key(ticket));
        QueueReport { is_queued, last_ticket: self.last_ticket }
    }

    /// Records a contact: enqueues the ticket in its position, if there is room for it, or renews
    /// it. Either way it is present, and waits for a notification. A ticket time beyond
    /// `time_max`, from a peer with a wrong clock, counts as that for those that follow.
    pub(super) fn contact(
        &mut self,
        ticket: &Ticket,
        (resources, kind): (&Resources, LockKind),
        (owner, source): (&Arc<str>, &Arc<str>),
        now: Instant,
        time_max: Token,
    ) -> WaitOutcome {
        let ends_at = now + TICKET_TTL;
        if self.by_ticket.contains_key(ticket) {
            self.set_state(ticket, TicketState::Waiting, None, Some(ends_at));
            self.check_after_change();
            return WaitOutcome::Enqueued;
        }
        let waiter = Waiter {
            resources: resources.clone(),
            kind,
            owner: Arc::clone(owner),
            source: Arc::clone(source),
            since: now,
            state: TicketState::Waiting,
            ends_at,
            reserved_until: None,
            misses: 0,
        };
        let bytes = waiter.bytes(ticket);
        if self.by_ticket.len() >= self.max || self.bytes + bytes > WAITER_BYTES_MAX {
            return WaitOutcome::Refused;
        }
        for name in resources.iter() {
            let queue = self.queues.entry(Arc::clone(name)).or_default();
            queue.insert(ticket, kind, TicketState::Waiting);
        }
        self.timers.insert((waiter.due(), ticket.clone()));
        self.bytes += bytes;
        self.last_ticket = self.last_ticket.max(ticket.time.min(time_max));
        self.by_ticket.insert(ticket.clone(), waiter);
        self.check_after_change();
        WaitOutcome::Enqueued
    }

    /// Records that the attempt of a ticket is granted. Returns its resources if it is queued.
    pub(super) fn set_granted(&mut self, ticket: &Ticket) -> Option<Resources> {
        self.set_state(ticket, TicketState::Granted, None, None);
        self.check_after_change();
        self.by_ticket.get(ticket).map(|waiter| waiter.resources.clone())
    }

    /// Removes the ticket of a grant that was released, unless it has made contact since.
    pub(super) fn remove_granted(&mut self, ticket: &Ticket) {
        if self.by_ticket.get(ticket).is_some_and(|known| known.state == TicketState::Granted) {
            self.remove(ticket);
        }
    }

    /// Removes a ticket. Returns its resources.
    pub(super) fn remove(&mut self, ticket: &Ticket) -> Option<Resources> {
        let waiter = self.by_ticket.remove(ticket)?;
        self.timers.remove(&(waiter.due(), ticket.clone()));
        self.granted -= usize::from(waiter.state == TicketState::Granted);
        self.bytes -= waiter.bytes(ticket);
        for name in waiter.resources.iter() {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.remove(ticket, waiter.kind, waiter.state);
                if queue.is_empty() {
                    self.queues.remove(name);
                }
            }
        }
        self.check_after_change();
        Some(waiter.resources)
    }

    /// Changes the state of a ticket, and its timer. `ends_at` is absent if this is no contact.
    fn set_state(
        &mut self,
        ticket: &Ticket,
        state: TicketState,
        reserved_until: Option<Instant>,
        ends_at: Option<Instant>,
    ) {
        let Some(waiter) = self.by_ticket.get_mut(ticket) else { return };
        let (earlier, earlier_due) = (waiter.state, waiter.due());
        (waiter.state, waiter.reserved_until) = (state, reserved_until);
        waiter.ends_at = ends_at.unwrap_or(waiter.ends_at);
        let due = waiter.due();
        if due != earlier_due {
            self.timers.remove(&(earlier_due, ticket.clone()));
            self.timers.insert((due, ticket.clone()));
        }
        if state == earlier {
            return;
        }
        self.granted += usize::from(state == TicketState::Granted);
        self.granted -= usize::from(earlier == TicketState::Granted);
        let kind = waiter.kind;
        for name in waiter.resources.iter() {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.remove(ticket, kind, earlier);
                queue.insert(ticket, kind, state);
            }
        }
    }

    /// Returns whether a present ticket that comes first blocks a request.
    pub(super) fn is_blocked(
        &self,
        (resources, kind): (&Resources, LockKind),
        position: Position<'_>,
        now: Instant,
    ) -> bool {
        let is_due = |ticket: &Ticket| {
            self.by_ticket.get(ticket).is_some_and(|waiter| {
                waiter.state == TicketState::Notified || now.since(waiter.since) >= BARGING_LIMIT
            })
        };
        resources.iter().filter_map(|name| self.queues.get(name)).any(|queue| match position {
            Position::Ticket(own) => queue.oldest(kind).is_some_and(|oldest| oldest < own),
            Position::Youngest => queue.oldest(kind).is_some(),
            // Tickets are notified in order, and nearly in the order of their arrival.
            Position::Plain => queue.conflicting(kind).take(PLAIN_SCAN_MAX).any(is_due),
        })
    }

    /// Notifies the waiters for `resources` that may try now: those whose resources are all free,
    /// by `is_free`, without an older conflicting ticket. In the order of their tickets, and at
    /// most [`WAITERS_NOTIFIED_MAX`] at once: the rest when these have tried.
    pub(super) fn notify(
        &mut self,
        resources: &Resources,
        is_free: impl Fn(&str, LockKind) -> bool,
        now: Instant,
    ) {
        let mut examined = Examined::default();
        for name in resources.iter() {
            self.notify_queue(name, &mut examined, &is_free, now);
        }
        self.check_after_change();
    }

    /// Notifies all waiters that may try now, as [`notify`](Self::notify) does.
    pub(super) fn notify_all(&mut self, is_free: impl Fn(&str, LockKind) -> bool, now: Instant) {
        // Sorted: the order of a hash table would differ from run to run.
        let mut examined = Examined::default();
        for name in self.queues.keys().cloned().collect::<BTreeSet<_>>() {
            self.notify_queue(&name, &mut examined, &is_free, now);
        }
        self.check_after_change();
    }

    fn notify_queue(
        &mut self,
        name: &str,
        examined: &mut Examined,
        is_free: &impl Fn(&str, LockKind) -> bool,
        now: Instant,
    ) {
        // Of a resource that is not free for a reader, nothing is to be searched.
        if !is_free(name, LockKind::Read) {
            return;
        }
        let Some(queue) = self.queues.get(name) else { return };
        let room = WAITERS_NOTIFIED_MAX.saturating_sub(queue.notified());
        let ready = queue.candidates().take(WAITERS_SCANNED_MAX).filter(|ticket| {
            self.by_ticket.get(*ticket).is_some_and(|waiter| {
                examined.is_first(ticket, waiter) && self.may_try(ticket, waiter, is_free)
            })
        });
        for ticket in ready.take(room).cloned().collect::<Vec<_>>() {
            let Some(waiter) = self.by_ticket.get(&ticket) else { continue };
            if !self.may_try(&ticket, waiter, is_free) {
                continue; // Those before it fill the queue of another of its resources.
            }
            // About five misses until it is as long as the ticket lives.
            let reservation = self.reservation.saturating_mul(1 << waiter.misses.min(16));
            let until = now + reservation.min(TICKET_TTL);
            self.set_state(&ticket, TicketState::Notified, Some(until), None);
            self.notifications.push_back(ticket);
        }
    }

    fn may_try(
        &self,
        ticket: &Ticket,
        waiter: &Waiter,
        is_free: &impl Fn(&str, LockKind) -> bool,
    ) -> bool {
        waiter.resources.iter().all(|name| {
            is_free(name, waiter.kind)
                && self.queues.get(name).is_none_or(|queue| {
                    let oldest = queue.oldest(waiter.kind);
                    oldest.is_none_or(|oldest| oldest >= ticket)
                        && queue.notified() < WAITERS_NOTIFIED_MAX
                })
        })
    }

    /// Returns the next waiter to notify.
    pub(super) fn poll_notification(&mut self) -> Option<Ticket> {
        self.notifications.pop_front()
    }

    /// Returns when the next reservation or ticket ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Ends one reservation, whose waiter is absent then, or one ticket. Returns its resources.
    pub(super) fn expire_one(&mut self, now: Instant) -> Option<Resources> {
        let (_, ticket) = self.timers.first().filter(|(due, _)| *due <= now)?.clone();
        let waiter = self.by_ticket.get_mut(&ticket)?;
        if waiter.ends_at <= now {
            return self.remove(&ticket);
        }
        waiter.misses = waiter.misses.saturating_add(1);
        let resources = waiter.resources.clone();
        self.set_state(&ticket, TicketState::Absent, None, None);
        self.check_after_change();
        Some(resources)
    }
}
