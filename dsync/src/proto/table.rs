//! What one locker has granted, and for how long.
//!
//! ```text
//!           lock, nothing in conflict              unlock | lease over
//!   free ───────────────────────────────► granted ─────────────────────► free
//!                                           │  ▲
//!                             force_unlock  │  │ refresh: the lease begins anew
//!                                           ▼  │
//!                                         revoked ── unlock | lease over ──► free
//! ```
//!
//! A grant that was revoked still excludes others: its holder does not know yet, and must not meet
//! another. But it is refreshed no more.
//!
//! A locker that starts does not know what it granted before ([`Gate`], B53).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use slab::Slab;

use super::keyed::{Key, KeyedMap};
use super::names::Names;
use super::quorum::Kind;
use super::token::{Stamp, Token, Tokens};
use super::tombstones::Tombstones;
use super::waiters::{Place, Waiter, Waiters};
use crate::limits::{Limits, NAMES_BYTES_MAX, TOMBSTONES_MAX};

mod gate;
mod holders;
mod listing;
#[cfg(test)]
mod tests;

pub use gate::{Gate, Holding};
use holders::Holders;
pub use listing::{Forced, GrantInfo, WaiterInfo};

/// One attempt to take a lock. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Names the attempt, and the grant that it gets: no two attempts have the same.
    pub uid: Arc<str>,
    /// What is to be locked.
    pub names: Names,
    /// How.
    pub kind: Kind,
    /// The server that asks.
    pub owner: Arc<str>,
    /// Where in its code.
    pub source: Arc<str>,
    /// How many lockers must grant it.
    pub quorum: usize,
    /// The token that the holder would like; the smallest if it has no idea.
    pub proposal: Token,
    /// Its place among the waiters, if it has waited.
    pub place: Option<Place>,
    /// Whether the holder is one that loses its lock when it cannot refresh it. Others, of existing
    /// clusters, are told nothing when their lock is forced open.
    pub knows_leases: bool,
}

/// The answer to a lock that was granted, here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The highest token known for what is locked: the proposal, if and only if it was taken.
    pub token: Token,
    /// For how long, unless it is refreshed.
    pub lease: Duration,
}

/// Why a lock was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Others hold it, or have waited for it for longer.
    Conflict,
    /// This locker has started and grants nothing yet.
    Closed,
    /// The attempt has been given up already.
    Over,
    /// This locker has no room for more.
    Full,
}

/// A holder wants to keep its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// The grant.
    pub uid: Arc<str>,
    /// All that a locker needs that has forgotten it; absent from holders of existing clusters.
    pub lesson: Option<Lesson>,
}

/// What a locker needs to know of a lock that it has forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// What the holder asked for once.
    pub ask: Ask,
    /// Its token.
    pub token: Token,
    /// Whether the holder is certain that this locker's last grant still stands.
    pub is_certain: bool,
}

/// The answer to a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// It stands for another lease.
    Held {
        /// How long that is.
        lease: Duration,
    },
    /// This locker had forgotten it, is closed, and believes it now: it stands for another lease if
    /// the holder was certain of it up to this answer. If not, others may have been granted it
    /// meanwhile, and this locker has forgotten them.
    Taught {
        /// How long that is.
        lease: Duration,
    },
    /// It does not stand, here.
    NotFound,
    /// This locker has started and does not know.
    Closed,
}

/// One grant.
#[derive(Debug)]
struct Grant {
    ask: Ask,
    since: Instant,
    refreshed: Instant,
    expires: Instant,
    is_revoked: bool,
    /// Tells a grant from an earlier one that had its place in the slab.
    serial: u64,
}

/// What a locker has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Locks granted, those included that a holder had to remind this locker of.
    pub granted: u64,
    /// Locks refused.
    pub refused: u64,
    /// Grants that ended because nobody refreshed them.
    pub expired: u64,
    /// Grants that were forced open.
    pub forced: u64,
}

/// One locker.
#[derive(Debug)]
pub struct Table {
    grants: Slab<Grant>,
    by_uid: KeyedMap<Arc<str>, usize>,
    holders: Holders,
    /// When to look whether a grant has expired: refreshes do not move its entry.
    ends: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    next_serial: u64,
    names_bytes: usize,
    tokens: Tokens,
    waiters: Waiters,
    tombstones: Tombstones,
    gate: Gate,
    counts: Counts,
    lease: Duration,
    grants_max: usize,
}

impl Table {
    /// A locker that has just started, and knows nothing but that `nodes` may hold locks. `wall` is
    /// what its wall clock shows, as a token; the seed keys its hash tables.
    pub fn new<I>(limits: &Limits, nodes: I, now: Instant, wall: Token, seed: u64) -> Self
    where
        I: IntoIterator<Item = Arc<str>>,
    {
        let key = Key::new(seed);
        Self {
            grants: Slab::new(),
            by_uid: KeyedMap::with_hasher(key),
            holders: Holders::new(key),
            ends: BinaryHeap::new(),
            next_serial: 0,
            names_bytes: 0,
            // Higher than any token of before, though the wall clock was set back by up to a lease:
            // tokens were no further ahead of it than that of the last start, which is over.
            tokens: Tokens::new(wall, limits.lease, key),
            waiters: Waiters::new(limits, key),
            tombstones: Tombstones::new(TOMBSTONES_MAX, key),
            gate: Gate::closed(nodes, now + limits.lease),
            counts: Counts::default(),
            lease: limits.lease,
            grants_max: limits.grants_max,
        }
    }

    /// What it tells of tokens.
    pub fn stamp(&self, wall: Token) -> Stamp {
        self.tokens.stamp(wall)
    }

    /// The highest token that it knows.
    pub fn high(&self) -> Token {
        self.tokens.high()
    }

    /// Grants a lock, or does not.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says why not.
    pub fn lock(&mut self, ask: &Ask, now: Instant, wall: Token) -> Result<Granted, Refusal> {
        self.handle_timeout(now);
        let verdict = self.try_lock(ask, now, wall);
        match verdict {
            Ok(_) => self.counts.granted += 1,
            Err(refusal) => {
                self.counts.refused += 1;
                if let (Refusal::Conflict, Some(place)) = (refusal, &ask.place) {
                    self.waiters.refused(place, now);
                }
            }
        }
        verdict
    }

    fn try_lock(&mut self, ask: &Ask, now: Instant, wall: Token) -> Result<Granted, Refusal> {
        if !self.gate.is_open() {
            return Err(Refusal::Closed);
        }
        if self.tombstones.contains(&ask.uid) || self.by_uid.contains_key(&ask.uid) {
            // Each attempt has an id of its own, and asks each locker once.
            return Err(Refusal::Over);
        }
        if !self.is_free(&ask.names, ask.kind) {
            return Err(Refusal::Conflict);
        }
        if self.waiters.stand_in_the_way((&ask.names, ask.kind), ask.place.as_ref(), now) {
            return Err(Refusal::Conflict);
        }
        if !self.has_room(&ask.names) {
            return Err(Refusal::Full);
        }
        self.insert(ask.clone(), now);
        if let Some(place) = &ask.place {
            self.waiters.leave(place);
        }
        let token = self.tokens.propose(&ask.names, ask.proposal, wall);
        Ok(Granted { token, lease: self.lease })
    }

    /// Lets a holder keep its lock for another lease.
    pub fn refresh(&mut self, refresh: &Refresh, now: Instant) -> Refreshed {
        self.handle_timeout(now);
        let lease = self.lease;
        let is_open = self.gate.is_open();
        if let Some(lesson) = &refresh.lesson {
            self.tokens.raise(&lesson.ask.names, lesson.token);
        }
        if let Some(grant) = self.by_uid.get(&refresh.uid).and_then(|key| self.grants.get_mut(*key))
        {
            if grant.is_revoked {
                return Refreshed::NotFound;
            }
            (grant.refreshed, grant.expires) = (now, now + lease);
            return if is_open { Refreshed::Held { lease } } else { Refreshed::Taught { lease } };
        }
        let Some(lesson) = refresh.lesson.as_ref() else {
            return if is_open { Refreshed::NotFound } else { Refreshed::Closed };
        };
        let Lesson { ask, is_certain, .. } = lesson;
        if !is_open && !is_certain {
            return Refreshed::Closed;
        }
        // While it is closed it believes all who are certain, also where they exclude each other.
        let may_stand = !self.tombstones.contains(&ask.uid)
            && (!is_open || self.is_free(&ask.names, ask.kind))
            && self.has_room(&ask.names);
        if !may_stand {
            return Refreshed::NotFound;
        }
        self.insert(ask.clone(), now);
        self.counts.granted += 1;
        if is_open { Refreshed::Held { lease } } else { Refreshed::Taught { lease } }
    }

    /// Releases a grant. Returns whether there was one.
    pub fn unlock(&mut self, uid: &Arc<str>, now: Instant) -> bool {
        self.handle_timeout(now);
        self.tombstones.insert(Arc::clone(uid));
        let Some(key) = self.by_uid.get(uid).copied() else { return false };
        let names = self.remove(key);
        self.call(&names, now);
        true
    }

    /// Somebody was refused and wants to be told when it may try again. Returns whether it will be.
    pub fn wait(&mut self, ask: &Ask, now: Instant) -> bool {
        self.handle_timeout(now);
        let Some(place) = ask.place.clone().filter(|_| self.gate.is_open()) else { return false };
        let who = (Arc::clone(&ask.owner), Arc::clone(&ask.source));
        let has_joined = self.waiters.join(place, (ask.names.clone(), ask.kind), who, now);
        self.call(&ask.names, now);
        has_joined
    }

    /// A waiter waits no more.
    pub fn leave(&mut self, place: &Place, now: Instant) {
        if let Some(names) = self.waiters.leave(place) {
            self.call(&names, now);
        }
    }

    /// Who has to be told that it may try, one after the other. To be asked after every other call.
    pub fn poll_called(&mut self) -> Option<Place> {
        self.waiters.poll_called()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has somebody to tell, at the earliest. Nothing
    /// else waits for it: what is over is over for every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiter = self.waiters.poll_timeout()?;
        let end = self.ends.peek().map(|Reverse((end, ..))| *end);
        Some(end.map_or(waiter, |end| end.min(waiter)))
    }

    /// Ends what is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.gate.handle_timeout(now);
        while let Some(Reverse((_, key, serial))) =
            self.ends.peek().filter(|Reverse((end, ..))| *end <= now).copied()
        {
            self.ends.pop();
            let Some(grant) = self.grants.get(key).filter(|grant| grant.serial == serial) else {
                continue;
            };
            if grant.expires > now {
                self.ends.push(Reverse((grant.expires, key, serial)));
                continue;
            }
            self.counts.expired += 1;
            if grant.is_revoked {
                let uid = Arc::clone(&grant.ask.uid);
                self.tombstones.insert(uid);
            }
            let names = self.remove(key);
            self.call(&names, now);
        }
        while let Some(names) = self.waiters.forget_one(now) {
            self.call(&names, now);
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Grants that stand, and waiters.
    pub fn sizes(&self) -> (usize, usize) {
        (self.grants.len(), self.waiters.len())
    }

    // ---- inside ----

    fn call(&mut self, names: &Names, now: Instant) {
        let holders = &self.holders;
        self.waiters.call(names, |wanted, kind| holders.is_free(wanted, kind), now);
    }

    fn is_free(&self, names: &Names, kind: Kind) -> bool {
        self.holders.is_free(names, kind)
    }

    fn has_room(&self, names: &Names) -> bool {
        self.grants.len() < self.grants_max && self.names_bytes + names.bytes() <= NAMES_BYTES_MAX
    }

    fn insert(&mut self, ask: Ask, now: Instant) {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.names_bytes += ask.names.bytes();
        let entry = self.grants.vacant_entry();
        let key = entry.key();
        if self.holders.add(&ask.names, key, ask.kind) && self.gate.is_open() {
            grid::bug!("a lock was granted that somebody holds");
        }
        let expires = now + self.lease;
        self.by_uid.insert(Arc::clone(&ask.uid), key);
        self.ends.push(Reverse((expires, key, serial)));
        entry.insert(Grant { ask, since: now, refreshed: now, expires, is_revoked: false, serial });
        self.compact();
    }

    fn remove(&mut self, key: usize) -> Names {
        let Grant { ask, .. } = self.grants.remove(key);
        self.by_uid.remove(&ask.uid);
        self.names_bytes -= ask.names.bytes();
        self.holders.remove(&ask.names, key);
        ask.names
    }

    /// Entries of released grants stay until they are due, or until most of the heap is such.
    fn compact(&mut self) {
        if self.ends.len() > 2 * self.grants.len() + 64 {
            let grants = &self.grants;
            self.ends.retain(|Reverse((_, key, serial))| {
                grants.get(*key).is_some_and(|grant| grant.serial == *serial)
            });
        }
    }
}
