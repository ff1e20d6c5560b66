//! Queues of waiters at one locker, and their notifications ([B55]).
//!
//! ```text
//!              refused, enqueues            free for it             granted
//!   absent ─────────────────────────► waiting ───────► notified ─────────────► absent
//!                                        │  ▲              │ │
//!                       cancelled, or    │  └──────────────┘ │ no retry in time
//!                       not renewed      │  retries, refused │
//!                                        ▼                   ▼
//!                                     absent              absent
//! ```
//!
//! A locker does not grant by itself: with each locker in its own order, two waiters could get half
//! of a quorum each, and keep it. Instead it notifies the oldest waiter and reserves the lock for
//! it for a moment ([`RESERVATION`](crate::limits::RESERVATION)); a waiter that enough lockers have
//! notified retries. The order is that of tickets, which are the same at all lockers: the time by
//! the lockers' clocks at the waiter's first refusal.
//!
//! An older waiter *blocks* a younger one, and a newcomer, once it was notified, or has waited for
//! [`BARGING_LIMIT`](crate::limits::BARGING_LIMIT): until then readers may pass a writer that waits
//! for other readers.
//!
//! [B55]: crate::rules#b55

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;

use super::keyed::{Key, KeyedMap};
use super::quorum::LockKind;
use super::resources::Resources;
use super::token::Token;
use crate::limits::{Limits, WAIT_POLL, WAITERS_NOTIFIED_MAX};
use grid::check_schedule::CheckSchedule;

/// Position in the queue: first come, first served. The id decides between equal times.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Time of the first refusal, by the lockers' clocks.
    pub time: Token,
    /// Id of the waiter: one for one call of `lock`, over all of its attempts.
    pub id: Arc<str>,
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
    /// When it is dropped unless it renews the wait, or uses its notification.
    expires_at: Instant,
    is_notified: bool,
}

/// What a response says about the queues of its locker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueReport {
    /// Whether the ticket of the request is in the queues.
    pub is_queued: bool,
    /// Highest time of a ticket that was ever queued. A later ticket is younger than all of them.
    pub last_ticket: Token,
}

/// Whether a locker will notify a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum WaitOutcome {
    /// It will, or has just done so.
    Enqueued,
    /// It will not: the waiter has to poll.
    Refused,
}

/// All waiters of one locker.
#[derive(Debug)]
pub(super) struct Waiters {
    by_ticket: BTreeMap<Ticket, Waiter>,
    queues: KeyedMap<Arc<str>, BTreeSet<Ticket>>,
    expiries: BTreeSet<(Instant, Ticket)>,
    notifications: VecDeque<Ticket>,
    reservation: Duration,
    barging_limit: Duration,
    max: usize,
    checks: CheckSchedule,
}

impl Waiters {
    pub(super) fn new(limits: &Limits, key: Key) -> Self {
        Self {
            by_ticket: BTreeMap::new(),
            queues: KeyedMap::with_hasher(key),
            expiries: BTreeSet::new(),
            notifications: VecDeque::new(),
            reservation: limits.reservation,
            barging_limit: limits.barging_limit,
            max: limits.waiters_max,
            checks: CheckSchedule::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Ticket, &Waiter)> {
        self.by_ticket.iter()
    }

    /// Enqueues or renews a waiter, if there is room for it.
    pub(super) fn enqueue(
        &mut self,
        ticket: Ticket,
        (resources, kind): (Resources, LockKind),
        (owner, source): (Arc<str>, Arc<str>),
        now: Instant,
    ) -> WaitOutcome {
        if self.by_ticket.len() >= self.max && !self.by_ticket.contains_key(&ticket) {
            return WaitOutcome::Refused;
        }
        let since = self.by_ticket.get(&ticket).map_or(now, |known| known.since);
        self.remove(&ticket);
        for name in resources.iter() {
            self.queues.entry(Arc::clone(name)).or_default().insert(ticket.clone());
        }
        let expires_at = now + WAIT_POLL;
        self.expiries.insert((expires_at, ticket.clone()));
        let waiter =
            Waiter { resources, kind, owner, source, since, expires_at, is_notified: false };
        self.by_ticket.insert(ticket, waiter);
        self.check_after_change();
        WaitOutcome::Enqueued
    }

    /// Removes a waiter. Returns its resources.
    pub(super) fn remove(&mut self, ticket: &Ticket) -> Option<Resources> {
        let waiter = self.by_ticket.remove(ticket)?;
        self.expiries.remove(&(waiter.expires_at, ticket.clone()));
        for name in waiter.resources.iter() {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.remove(ticket);
                if queue.is_empty() {
                    self.queues.remove(name);
                }
            }
        }
        self.check_after_change();
        Some(waiter.resources)
    }

    /// Clears the notification of a waiter that tried again and was refused.
    pub(super) fn requeue(&mut self, ticket: &Ticket, now: Instant) {
        self.set_state(ticket, false, now + WAIT_POLL);
        self.check_after_change();
    }

    fn set_state(&mut self, ticket: &Ticket, is_notified: bool, expires_at: Instant) {
        if let Some(waiter) = self.by_ticket.get_mut(ticket) {
            self.expiries.remove(&(waiter.expires_at, ticket.clone()));
            (waiter.is_notified, waiter.expires_at) = (is_notified, expires_at);
            self.expiries.insert((expires_at, ticket.clone()));
        }
    }

    /// Returns whether an older waiter blocks a request with this ticket, or a newcomer's without
    /// one.
    pub(super) fn is_blocked_by_older(
        &self,
        (resources, kind): (&Resources, LockKind),
        ticket: Option<&Ticket>,
        now: Instant,
    ) -> bool {
        resources.iter().filter_map(|name| self.queues.get(name)).any(|queue| {
            let older = queue.iter().take_while(|other| ticket.is_none_or(|own| *other < own));
            older.filter_map(|other| self.by_ticket.get(other)).any(|waiter| {
                kind.excludes(waiter.kind)
                    && (waiter.is_notified || now.since(waiter.since) >= self.barging_limit)
            })
        })
    }

    /// Notifies the oldest waiters for `resources` that `is_free` admits, after a release.
    pub(super) fn notify(
        &mut self,
        resources: &Resources,
        is_free: impl Fn(&Resources, LockKind) -> bool,
        now: Instant,
    ) {
        for name in resources.iter() {
            let Some(queue) = self.queues.get(name) else { continue };
            let first: Vec<Ticket> = queue.iter().take(WAITERS_NOTIFIED_MAX).cloned().collect();
            for ticket in first {
                let Some(waiter) = self.by_ticket.get(&ticket) else { continue };
                let (wanted, kind) = (&waiter.resources, waiter.kind);
                let may_pass = waiter.is_notified
                    || is_free(wanted, kind)
                        && !self.is_blocked_by_older((wanted, kind), Some(&ticket), now);
                let was_notified = waiter.is_notified;
                if may_pass && !was_notified {
                    self.set_state(&ticket, true, now + self.reservation);
                    self.notifications.push_back(ticket);
                }
                if may_pass && kind == LockKind::Write {
                    break; // No waiter behind a writer that may retry.
                }
            }
        }
        self.check_after_change();
    }

    /// Returns the next waiter to notify.
    pub(super) fn poll_notification(&mut self) -> Option<Ticket> {
        self.notifications.pop_front()
    }

    /// Returns when the next waiter is dropped.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.expiries.first().map(|(expires_at, _)| *expires_at)
    }

    /// Drops one waiter that did not retry or renew in time. Returns its resources.
    pub(super) fn expire_one(&mut self, now: Instant) -> Option<Resources> {
        let (_, ticket) =
            self.expiries.first().filter(|(expires_at, _)| *expires_at <= now)?.clone();
        self.remove(&ticket)
    }
}

impl Waiters {
    /// Checks the invariants as often as the number of waiters permits.
    fn check_after_change(&mut self) {
        let items = self.by_ticket.len() + self.queues.len();
        if self.checks.is_due_after_operation(items) {
            self.check_invariants();
        }
    }

    /// Checks that each waiter has one timer, and a place in the queue of each of its resources.
    ///
    /// # Panics
    ///
    /// If not: the message names the field, and has both values.
    pub(super) fn check_invariants(&self) {
        let waiters = self.by_ticket.len();
        assert_eq!(self.expiries.len(), waiters, "Waiters.expiries, by_ticket");
        assert!(waiters <= self.max, "Waiters.by_ticket {waiters}, max {}", self.max);
        let mut places = 0;
        for (ticket, waiter) in &self.by_ticket {
            let end = waiter.expires_at;
            let has_timer = self.expiries.contains(&(end, ticket.clone()));
            assert!(has_timer, "Waiters.expiries lacks {ticket:?}, which expires at {end:?}");
            for name in waiter.resources.iter() {
                let is_queued = self.queues.get(name).is_some_and(|queue| queue.contains(ticket));
                assert!(is_queued, "Waiters.queues of {name} lacks {ticket:?}");
                places += 1;
            }
        }
        let mut queued = 0;
        for (name, queue) in &self.queues {
            assert!(!queue.is_empty(), "Waiters.queues of {name}: {queue:?}");
            queued += queue.len();
        }
        assert_eq!(queued, places, "Waiters.queues, resources of the waiters");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(0);

    fn waiters() -> Waiters {
        Waiters::new(&Limits { waiters_max: 4, ..Limits::default() }, Key::new(1))
    }

    fn resources(resources: &[&str]) -> Resources {
        Resources::new(resources).expect("valid names")
    }

    fn ticket(time: u64) -> Ticket {
        Ticket { time: Token::new(time), id: format!("w{time}").into() }
    }

    fn enqueue(
        waiters: &mut Waiters,
        time: u64,
        wanted: &[&str],
        kind: LockKind,
        now: Instant,
    ) -> bool {
        let origin = ("node".into(), "test".into());
        let outcome = waiters.enqueue(ticket(time), (resources(wanted), kind), origin, now);
        outcome == WaitOutcome::Enqueued
    }

    fn notifications(
        waiters: &mut Waiters,
        now: Instant,
        is_free: impl Fn(&Resources) -> bool,
    ) -> Vec<u64> {
        waiters.notify(&resources(&["a"]), |wanted, _| is_free(wanted), now);
        std::iter::from_fn(|| waiters.poll_notification()).map(|ticket| ticket.time.get()).collect()
    }

    #[test]
    fn b55_the_oldest_writer_is_notified_alone_and_only_once() {
        let mut waiters = waiters();
        for time in [3, 1, 2] {
            assert!(enqueue(&mut waiters, time, &["a"], LockKind::Write, START));
        }
        assert_eq!(notifications(&mut waiters, START, |_| true), [1]);
        assert_eq!(notifications(&mut waiters, START, |_| true), [0; 0], "only once");
        let newcomer = (&resources(&["a"]), LockKind::Read);
        assert!(waiters.is_blocked_by_older(newcomer, None, START), "the lock is reserved");
        assert!(
            !waiters.is_blocked_by_older(newcomer, Some(&ticket(1)), START),
            "but not from itself"
        );
    }

    #[test]
    fn b55_readers_are_notified_together_up_to_the_first_writer() {
        let mut waiters = waiters();
        for (time, kind) in
            [(1, LockKind::Read), (2, LockKind::Read), (3, LockKind::Write), (4, LockKind::Read)]
        {
            enqueue(&mut waiters, time, &["a"], kind, START);
        }
        // The fourth may pass the writer, which has only begun to wait.
        assert_eq!(notifications(&mut waiters, START, |_| true), [1, 2, 4]);
        let mut barged = self::waiters();
        for (time, kind) in [(1, LockKind::Read), (3, LockKind::Write), (4, LockKind::Read)] {
            enqueue(&mut barged, time, &["a"], kind, START);
        }
        let later = START + Limits::default().barging_limit;
        assert_eq!(
            notifications(&mut barged, later, |_| true),
            [1],
            "the writer has reached the barging limit"
        );
    }

    #[test]
    fn b55_a_waiter_blocked_elsewhere_lets_others_pass_until_the_barging_limit() {
        let mut waiters = waiters();
        enqueue(&mut waiters, 1, &["a", "b"], LockKind::Write, START);
        enqueue(&mut waiters, 2, &["a"], LockKind::Write, START);
        let without_b = |wanted: &Resources| !wanted.contains("b");
        assert_eq!(notifications(&mut waiters, START, without_b), [2]);
        let later = START + Limits::default().barging_limit;
        waiters.requeue(&ticket(2), later);
        assert_eq!(
            notifications(&mut waiters, later, without_b),
            [0; 0],
            "now it blocks younger waiters"
        );
    }

    #[test]
    fn b55_a_notified_waiter_that_does_not_retry_is_dropped() {
        let mut waiters = waiters();
        enqueue(&mut waiters, 1, &["a"], LockKind::Write, START);
        enqueue(&mut waiters, 2, &["a"], LockKind::Write, START);
        assert_eq!(notifications(&mut waiters, START, |_| true), [1]);
        let end = START + Limits::default().reservation;
        assert_eq!(waiters.poll_timeout(), Some(end));
        assert_eq!(waiters.expire_one(end), Some(resources(&["a"])));
        assert_eq!(waiters.expire_one(end), None);
        assert_eq!(notifications(&mut waiters, end, |_| true), [2]);
    }

    #[test]
    fn waiters_are_bounded_and_removing_them_frees_all_state() {
        let mut waiters = waiters();
        for time in 1..=4 {
            assert!(enqueue(&mut waiters, time, &["a", "b"], LockKind::Write, START));
        }
        assert!(!enqueue(&mut waiters, 5, &["a"], LockKind::Write, START));
        assert!(
            enqueue(&mut waiters, 4, &["a"], LockKind::Write, START),
            "a known waiter may renew"
        );
        for time in 1..=4 {
            assert!(waiters.remove(&ticket(time)).is_some());
        }
        assert_eq!((waiters.len(), waiters.queues.len(), waiters.expiries.len()), (0, 0, 0));
    }
}
