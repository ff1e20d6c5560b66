//! Who waits for a lock at one locker, and who is told that it is free (B55).
//!
//! ```text
//!             refused, asks to be told        free for it           granted
//!   nothing ─────────────────────────► waiting ─────────► called ─────────► nothing
//!                                         │  ▲               │ │
//!                             left, or    │  └───────────────┘ │ did not come in time
//!                             not renewed │  asked, refused    │
//!                                         ▼                    ▼
//!                                      nothing              nothing
//! ```
//!
//! A locker does not grant by itself: with each locker in an order of its own, two waiters could get
//! half of a quorum each, and keep it. It calls the oldest, keeps the lock for it a moment, and a
//! waiter that was called by enough lockers tries again. The order is that of tickets, which are the
//! same at all lockers: what the lockers' clocks showed when the waiter was first refused.
//!
//! An older waiter *stands in the way* of a younger one, and of a newcomer, once it was called, or
//! has waited for [`PATIENCE`](crate::limits::PATIENCE): until then readers may pass a writer that
//! waits for other readers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;

use super::keyed::{Key, KeyedMap};
use super::names::Names;
use super::quorum::Kind;
use super::token::Token;
use crate::limits::{Limits, WAIT_POLL, WAITERS_CALLED_MAX};

/// A waiter's place: first come, first served. The id decides between equal tickets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// When it was first refused, by the lockers' clocks.
    pub ticket: Token,
    /// Who waits: one number for one call of `lock`, over all of its attempts.
    pub id: Arc<str>,
}

/// What is known of a waiter.
#[derive(Debug, Clone)]
pub struct Waiter {
    /// What it waits for.
    pub names: Names,
    /// How.
    pub kind: Kind,
    /// The server that waits.
    pub owner: Arc<str>,
    /// Where in its code.
    pub source: Arc<str>,
    /// Since when it has been waiting here.
    pub since: Instant,
    /// When it is forgotten if it does not ask again, or does not come although it was called.
    until: Instant,
    is_called: bool,
}

/// All waiters of one locker.
#[derive(Debug)]
pub(super) struct Waiters {
    waiting: BTreeMap<Place, Waiter>,
    queues: KeyedMap<Arc<str>, BTreeSet<Place>>,
    ends: BTreeSet<(Instant, Place)>,
    called: VecDeque<Place>,
    reservation: Duration,
    patience: Duration,
    max: usize,
}

impl Waiters {
    pub(super) fn new(limits: &Limits, key: Key) -> Self {
        Self {
            waiting: BTreeMap::new(),
            queues: KeyedMap::with_hasher(key),
            ends: BTreeSet::new(),
            called: VecDeque::new(),
            reservation: limits.reservation,
            patience: limits.patience,
            max: limits.waiters_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Place, &Waiter)> {
        self.waiting.iter()
    }

    /// Somebody waits, or still does. Returns whether there is room for it.
    pub(super) fn join(
        &mut self,
        place: Place,
        (names, kind): (Names, Kind),
        (owner, source): (Arc<str>, Arc<str>),
        now: Instant,
    ) -> bool {
        if self.waiting.len() >= self.max && !self.waiting.contains_key(&place) {
            return false;
        }
        let since = self.waiting.get(&place).map_or(now, |known| known.since);
        self.leave(&place);
        for name in names.iter() {
            self.queues.entry(Arc::clone(name)).or_default().insert(place.clone());
        }
        let until = now + WAIT_POLL;
        self.ends.insert((until, place.clone()));
        let waiter = Waiter { names, kind, owner, source, since, until, is_called: false };
        self.waiting.insert(place, waiter);
        true
    }

    /// Somebody waits no more. Returns what it waited for.
    pub(super) fn leave(&mut self, place: &Place) -> Option<Names> {
        let waiter = self.waiting.remove(place)?;
        self.ends.remove(&(waiter.until, place.clone()));
        for name in waiter.names.iter() {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.remove(place);
                if queue.is_empty() {
                    self.queues.remove(name);
                }
            }
        }
        Some(waiter.names)
    }

    /// A waiter came because it was called, and was refused: it waits on.
    pub(super) fn refused(&mut self, place: &Place, now: Instant) {
        self.set(place, false, now + WAIT_POLL);
    }

    fn set(&mut self, place: &Place, is_called: bool, until: Instant) {
        if let Some(waiter) = self.waiting.get_mut(place) {
            self.ends.remove(&(waiter.until, place.clone()));
            (waiter.is_called, waiter.until) = (is_called, until);
            self.ends.insert((until, place.clone()));
        }
    }

    /// Whether an older waiter stands in the way of somebody with this place; of a newcomer if it
    /// has none.
    pub(super) fn stand_in_the_way(
        &self,
        (names, kind): (&Names, Kind),
        place: Option<&Place>,
        now: Instant,
    ) -> bool {
        names.iter().filter_map(|name| self.queues.get(name)).any(|queue| {
            let older = queue.iter().take_while(|other| place.is_none_or(|own| *other < own));
            older.filter_map(|other| self.waiting.get(other)).any(|waiter| {
                kind.excludes(waiter.kind)
                    && (waiter.is_called || now.since(waiter.since) >= self.patience)
            })
        })
    }

    /// Something was released: calls the oldest waiters for `names` whom `is_free` lets pass.
    pub(super) fn call(
        &mut self,
        names: &Names,
        is_free: impl Fn(&Names, Kind) -> bool,
        now: Instant,
    ) {
        for name in names.iter() {
            let Some(queue) = self.queues.get(name) else { continue };
            let first: Vec<Place> = queue.iter().take(WAITERS_CALLED_MAX).cloned().collect();
            for place in first {
                let Some(waiter) = self.waiting.get(&place) else { continue };
                let (wanted, kind) = (&waiter.names, waiter.kind);
                let may_pass = waiter.is_called
                    || is_free(wanted, kind)
                        && !self.stand_in_the_way((wanted, kind), Some(&place), now);
                let was_called = waiter.is_called;
                if may_pass && !was_called {
                    self.set(&place, true, now + self.reservation);
                    self.called.push_back(place);
                }
                if may_pass && kind == Kind::Write {
                    break; // Nobody behind a writer that may go.
                }
            }
        }
    }

    /// Who has to be told, one after the other.
    pub(super) fn poll_called(&mut self) -> Option<Place> {
        self.called.pop_front()
    }

    /// When somebody is to be forgotten, or has waited for so long that the order changes.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Forgets one who did not come or did not ask again. Returns what it waited for.
    pub(super) fn forget_one(&mut self, now: Instant) -> Option<Names> {
        let (_, place) = self.ends.first().filter(|(until, _)| *until <= now)?.clone();
        self.leave(&place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(0);

    fn waiters() -> Waiters {
        Waiters::new(&Limits { waiters_max: 4, ..Limits::default() }, Key::new(1))
    }

    fn names(names: &[&str]) -> Names {
        Names::new(names).expect("names")
    }

    fn place(ticket: u64) -> Place {
        Place { ticket: Token::new(ticket), id: format!("w{ticket}").into() }
    }

    fn join(waiters: &mut Waiters, ticket: u64, wanted: &[&str], kind: Kind, now: Instant) -> bool {
        let who = ("node".into(), "test".into());
        waiters.join(place(ticket), (names(wanted), kind), who, now)
    }

    fn called(waiters: &mut Waiters, now: Instant, is_free: impl Fn(&Names) -> bool) -> Vec<u64> {
        waiters.call(&names(&["a"]), |wanted, _| is_free(wanted), now);
        std::iter::from_fn(|| waiters.poll_called()).map(|place| place.ticket.get()).collect()
    }

    #[test]
    fn b55_the_oldest_writer_is_called_alone_and_only_once() {
        let mut waiters = waiters();
        for ticket in [3, 1, 2] {
            assert!(join(&mut waiters, ticket, &["a"], Kind::Write, START));
        }
        assert_eq!(called(&mut waiters, START, |_| true), [1]);
        assert_eq!(called(&mut waiters, START, |_| true), [0; 0], "it has been called");
        let newcomer = (&names(&["a"]), Kind::Read);
        assert!(waiters.stand_in_the_way(newcomer, None, START), "the lock is kept for it");
        assert!(!waiters.stand_in_the_way(newcomer, Some(&place(1)), START), "but not from itself");
    }

    #[test]
    fn b55_readers_are_called_together_up_to_the_first_writer() {
        let mut waiters = waiters();
        for (ticket, kind) in [(1, Kind::Read), (2, Kind::Read), (3, Kind::Write), (4, Kind::Read)]
        {
            join(&mut waiters, ticket, &["a"], kind, START);
        }
        // The fourth may pass the writer, who has only begun to wait.
        assert_eq!(called(&mut waiters, START, |_| true), [1, 2, 4]);
        let mut patient = self::waiters();
        for (ticket, kind) in [(1, Kind::Read), (3, Kind::Write), (4, Kind::Read)] {
            join(&mut patient, ticket, &["a"], kind, START);
        }
        let later = START + Limits::default().patience;
        assert_eq!(called(&mut patient, later, |_| true), [1], "the writer has waited for long");
    }

    #[test]
    fn b55_one_who_waits_for_something_else_too_lets_others_pass_for_a_while() {
        let mut waiters = waiters();
        join(&mut waiters, 1, &["a", "b"], Kind::Write, START);
        join(&mut waiters, 2, &["a"], Kind::Write, START);
        let without_b = |wanted: &Names| !wanted.contains("b");
        assert_eq!(called(&mut waiters, START, without_b), [2]);
        let later = START + Limits::default().patience;
        waiters.refused(&place(2), later);
        assert_eq!(called(&mut waiters, later, without_b), [0; 0], "now it stands in the way");
    }

    #[test]
    fn b55_who_is_called_and_does_not_come_is_forgotten() {
        let mut waiters = waiters();
        join(&mut waiters, 1, &["a"], Kind::Write, START);
        join(&mut waiters, 2, &["a"], Kind::Write, START);
        assert_eq!(called(&mut waiters, START, |_| true), [1]);
        let end = START + Limits::default().reservation;
        assert_eq!(waiters.poll_timeout(), Some(end));
        assert_eq!(waiters.forget_one(end), Some(names(&["a"])));
        assert_eq!(waiters.forget_one(end), None);
        assert_eq!(called(&mut waiters, end, |_| true), [2]);
    }

    #[test]
    fn waiters_are_bounded_and_leave_nothing_behind() {
        let mut waiters = waiters();
        for ticket in 1..=4 {
            assert!(join(&mut waiters, ticket, &["a", "b"], Kind::Write, START));
        }
        assert!(!join(&mut waiters, 5, &["a"], Kind::Write, START));
        assert!(join(&mut waiters, 4, &["a"], Kind::Write, START), "who is known may ask again");
        for ticket in 1..=4 {
            assert!(waiters.leave(&place(ticket)).is_some());
        }
        assert_eq!((waiters.len(), waiters.queues.len(), waiters.ends.len()), (0, 0, 0));
    }
}
