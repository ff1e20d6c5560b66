//! Grants of one locker, and their leases.
//!
//! ```text
//!           lock, no conflict               unlock | lease expired
//!   free ───────────────────────► granted ─────────────────────────► free
//!                                   │  ▲
//!                     force_unlock  │  │ refresh: the lease starts again
//!                                   ▼  │
//!                                 revoked ── unlock | lease expired ──► free
//! ```
//!
//! A revoked grant still excludes others: its holder may not know yet, and must not overlap with
//! another. But refreshes of it fail.
//!
//! A locker that starts does not know what it granted before ([`Gate`], [B53]).
//!
//! [B53]: crate::rules#b53

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use slab::Slab;

use super::keyed::{Key, KeyedMap};
use super::quorum::{ListId, LockKind};
use super::resources::Resources;
use super::token::{Recorded, Token, TokenStamp, Tokens};
use super::tombstones::Tombstones;
pub use super::waiters::WaitOutcome;
use super::waiters::{Position, QueueReport, Ticket, TicketState, Waiter, Waiters};
use crate::limits::{GRANTED_NAME_BYTES_MAX, Limits};
use grid::check_schedule::CheckSchedule;

mod check;
mod gate;
mod holders;
mod listing;
mod request;
#[cfg(test)]
mod tests;

pub use gate::{Gate, HeldLease};
use holders::{Added, Holders};
pub use listing::{ForceTarget, GrantInfo, WaiterInfo};
pub use request::{
    Granted, LeaseClaim, LockRequest, RefreshOutcome, RefreshRequest, Refusal, UnlockOutcome,
};

/// One grant.
#[derive(Debug)]
struct Grant {
    request: LockRequest,
    granted_at: Instant,
    refreshed_at: Instant,
    expires_at: Instant,
    is_revoked: bool,
    /// Distinguishes a grant from an earlier one in the same slab entry.
    serial: u64,
}

/// Counters of a locker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GrantCounts {
    /// Locks granted, including those reinstated by a holder's claim.
    pub granted: u64,
    /// Locks refused.
    pub refused: u64,
    /// Grants whose lease ended without a refresh.
    pub expired: u64,
    /// Grants that were forced open.
    pub forced: u64,
}

/// State of one locker.
#[derive(Debug)]
pub struct Table {
    grants: Slab<Grant>,
    by_uid: KeyedMap<Arc<str>, usize>,
    holders: Holders,
    /// When to check each grant for expiry. Refreshes do not update these entries.
    expiries: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    next_serial: u64,
    resource_bytes: usize,
    tokens: Tokens,
    waiters: Waiters,
    /// Ended attempts. Ids of MinIO holders are not among them: they name locks.
    tombstones: Tombstones,
    cancelled_tickets: Tombstones,
    gate: Gate,
    /// Whether this server has verified that it belongs to the cluster.
    is_admitted: bool,
    /// List of lockers that requests must be for.
    list: ListId,
    counts: GrantCounts,
    lease: Duration,
    grants_max: usize,
    live_checks: CheckSchedule,
    history_checks: CheckSchedule,
}

impl Table {
    /// Returns the state of a locker that has just started, and only knows that `nodes` may hold
    /// locks. `wall` is its wall clock as a token; the seed keys its hash tables.
    pub fn new<I>(limits: &Limits, nodes: I, now: Instant, wall: Token, seed: u64) -> Self
    where
        I: IntoIterator<Item = Arc<str>>,
    {
        let key = Key::new(seed);
        Self {
            grants: Slab::new(),
            by_uid: KeyedMap::with_hasher(key),
            holders: Holders::new(key),
            expiries: BinaryHeap::new(),
            next_serial: 0,
            resource_bytes: 0,
            // Higher than any earlier token, even if the wall clock was set back by up to a lease:
            // no earlier token was further ahead of that clock than at the last start.
            tokens: Tokens::new(wall, limits.lease, key),
            waiters: Waiters::new(limits, key),
            tombstones: Tombstones::new(2 * limits.lease, key),
            cancelled_tickets: Tombstones::new(2 * limits.lease, key),
            is_admitted: true,
            list: ListId::default(),
            gate: Gate::closed(nodes, now + limits.lease),
            counts: GrantCounts::default(),
            lease: limits.lease,
            grants_max: limits.grants_max,
            live_checks: CheckSchedule::default(),
            history_checks: CheckSchedule::default(),
        }
    }

    /// Returns the token stamp for a response.
    pub fn stamp(&self, wall: Token) -> TokenStamp {
        self.tokens.stamp(wall)
    }

    /// Returns the highest token that this locker knows.
    pub fn highest_token(&self) -> Token {
        self.tokens.highest()
    }

    /// Returns what a response says about this ticket, and about the queues.
    pub fn queue_report(&self, ticket: Option<&Ticket>) -> QueueReport {
        self.waiters.report(ticket)
    }

    /// Sets the list of lockers that requests must be for.
    pub fn set_list(&mut self, list: ListId) {
        self.list = list;
    }

    /// Returns the list of lockers that requests must be for.
    pub fn list(&self) -> ListId {
        self.list
    }

    /// Sets whether this server has verified that it belongs to the cluster. Until then, its locker
    /// grants, extends, queues and reinstates nothing; releases, forced releases and cancellations
    /// run.
    pub fn set_admitted(&mut self, is_admitted: bool, now: Instant) {
        self.is_admitted = is_admitted;
        self.handle_timeout(now);
        self.notify_all(now);
        self.check_after_change();
    }

    /// Returns whether this server has verified that it belongs to the cluster.
    pub fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    /// Grants or refuses a lock. A refused one is queued, if it has a ticket.
    ///
    /// # Errors
    ///
    /// [`Refusal`] names the reason.
    pub fn lock(
        &mut self,
        request: &LockRequest,
        now: Instant,
        wall: Token,
    ) -> Result<Granted, Refusal> {
        self.handle_timeout(now);
        let result = self.try_lock(request, now, wall);
        match result {
            Ok(_) => self.counts.granted += 1,
            Err(refusal) => {
                self.counts.refused += 1;
                if refusal.enqueues_ticket() {
                    let _ = self.enqueue(request, now, wall);
                    self.notify_waiters(&request.resources, now);
                }
            }
        }
        self.check_after_change();
        result
    }

    fn try_lock(
        &mut self,
        request: &LockRequest,
        now: Instant,
        wall: Token,
    ) -> Result<Granted, Refusal> {
        if !self.is_admitted {
            return Err(Refusal::NotReady);
        }
        if request.list.differs_from(self.list) {
            return Err(Refusal::ListDiffers);
        }
        if !self.gate.is_open() {
            return Err(Refusal::Closed);
        }
        self.check_uid(request)?;
        if !self.is_free(&request.resources, request.kind) {
            return Err(Refusal::Conflict);
        }
        let position = match &request.ticket {
            Some(ticket) => Position::Ticket(ticket),
            None if request.supports_leases => Position::Youngest,
            None => Position::Plain,
        };
        if self.waiters.is_blocked((&request.resources, request.kind), position, now) {
            return Err(Refusal::QueuedAhead);
        }
        if !self.has_room(&request.resources) {
            return Err(Refusal::Full);
        }
        self.insert(request.clone(), now);
        if let Some(ticket) = &request.ticket
            && let Some(resources) = self.waiters.set_granted(ticket)
        {
            // The next reader may follow.
            self.notify_waiters(&resources, now);
        }
        let token = self.tokens.propose(&request.resources, request.proposed_token, wall);
        Ok(Granted { token, lease: self.lease })
    }

    /// Checks that the id can get a grant. Each attempt has its own id, and is sent to each locker
    /// once. An id without leases names a lock over all attempts of its holder: it can be granted
    /// again after its release, but not twice at once, or the release of one attempt would end the
    /// grant of the next. (MinIO's lockers count such read locks instead.)
    fn check_uid(&self, request: &LockRequest) -> Result<(), Refusal> {
        let is_granted = self.by_uid.contains_key(&request.uid);
        match request.supports_leases {
            true if is_granted || self.tombstones.contains(&request.uid) => {
                Err(Refusal::AttemptEnded)
            }
            false if is_granted => Err(Refusal::Conflict),
            true | false => Ok(()),
        }
    }

    /// Extends a grant by another lease.
    pub fn refresh(
        &mut self,
        refresh: &RefreshRequest,
        now: Instant,
        wall: Token,
    ) -> RefreshOutcome {
        self.handle_timeout(now);
        let outcome = self.try_refresh(refresh, now, wall);
        self.check_after_change();
        outcome
    }

    fn try_refresh(
        &mut self,
        refresh: &RefreshRequest,
        now: Instant,
        wall: Token,
    ) -> RefreshOutcome {
        if !self.is_admitted {
            // Not even a grant that exists: a majority may use another list of lockers by now, and
            // waits for the leases of this one to end.
            return RefreshOutcome::Closed;
        }
        let lease = self.lease;
        if let Some(LeaseClaim { request, token, .. }) = &refresh.claim {
            if request.list.differs_from(self.list) {
                return RefreshOutcome::ListDiffers;
            }
            if self.tokens.raise(&request.resources, *token, wall) == Recorded::Clamped {
                // A response would confirm to the holder that this locker knows the token.
                return RefreshOutcome::TokenAhead;
            }
        }
        let kept = match self.gate.is_open() {
            true => RefreshOutcome::Held { lease },
            false => RefreshOutcome::Reinstated { lease },
        };
        if let Some(grant) = self.by_uid.get(&refresh.uid).and_then(|key| self.grants.get_mut(*key))
        {
            if grant.is_revoked {
                return RefreshOutcome::NotFound;
            }
            (grant.refreshed_at, grant.expires_at) = (now, now + lease);
            return kept;
        }
        match &refresh.claim {
            Some(claim) => self.insert_claimed(claim, kept, now),
            None if self.gate.is_open() => RefreshOutcome::NotFound,
            None => RefreshOutcome::Closed,
        }
    }

    /// Inserts the grant of a claim that this locker does not know, if it can be right.
    ///
    /// An open locker does so too, if nothing excludes it: the lock is held by a quorum, of which
    /// this locker was one until it lost the grant in a crash, or until the lease ended in a
    /// partition. Else each such event would cost the lock a vote for good, and the lock would be
    /// lost with a few of them. Tickets that are queued, and even notified, do not prevent it: the
    /// lock is held, so its waiters wait for it at a quorum in any case, and without this locker
    /// they would only be notified here in vain. A claim is no way past the queue, as a new attempt
    /// never begins with a refresh; one that arrives after its release finds the tombstone.
    fn insert_claimed(
        &mut self,
        LeaseClaim { request, is_valid, .. }: &LeaseClaim,
        kept: RefreshOutcome,
        now: Instant,
    ) -> RefreshOutcome {
        let is_open = self.gate.is_open();
        if !is_open && !is_valid {
            return RefreshOutcome::Closed;
        }
        // While closed it reinstates every valid claim, even claims that exclude each other.
        let can_be_inserted = !self.tombstones.contains(&request.uid)
            && (!is_open || self.is_free(&request.resources, request.kind))
            && self.has_room(&request.resources);
        if !can_be_inserted {
            return RefreshOutcome::NotFound;
        }
        self.insert(request.clone(), now);
        self.counts.granted += 1;
        kept
    }

    /// Releases the grant of an attempt. `waiter` is the holder's request if it keeps waiting: its
    /// ticket is queued before others are notified. Without it the ticket of the grant ends too.
    pub fn unlock(
        &mut self,
        uid: &Arc<str>,
        waiter: Option<&LockRequest>,
        now: Instant,
        wall: Token,
    ) -> UnlockOutcome {
        self.handle_timeout(now);
        self.tombstones.insert(Arc::clone(uid), now);
        let released = self.by_uid.get(uid).copied().map(|key| self.remove(key));
        match (waiter, released.as_ref().and_then(|request| request.ticket.as_ref())) {
            (Some(waiter), _) => {
                if self.is_admitted && !waiter.list.differs_from(self.list) {
                    let _ = self.enqueue(waiter, now, wall);
                    self.notify_waiters(&waiter.resources, now);
                }
            }
            (None, Some(ticket)) => self.waiters.remove_granted(ticket),
            (None, None) => {}
        }
        if let Some(request) = &released {
            self.notify_waiters(&request.resources, now);
        }
        self.check_after_change();
        match released {
            Some(_) => UnlockOutcome::Released,
            None => UnlockOutcome::NotFound,
        }
    }

    /// Releases the lock of a MinIO holder. A lock of another owner (if the holder states one) or
    /// kind is another lock.
    pub fn unlock_plain(
        &mut self,
        uid: &str,
        owner: &str,
        kind: LockKind,
        now: Instant,
    ) -> UnlockOutcome {
        self.handle_timeout(now);
        let Some(key) = self.by_uid.get(uid).copied().filter(|key| {
            let request = &self.grants[*key].request;
            request.kind == kind && (owner.is_empty() || *request.owner == *owner)
        }) else {
            return UnlockOutcome::NotFound;
        };
        let request = self.remove(key);
        self.notify_waiters(&request.resources, now);
        self.check_after_change();
        UnlockOutcome::Released
    }

    /// Queues a ticket, or renews it, and notifies its waiter when it may retry.
    pub fn wait(&mut self, request: &LockRequest, now: Instant, wall: Token) -> WaitOutcome {
        self.handle_timeout(now);
        if !self.is_admitted || request.list.differs_from(self.list) {
            return WaitOutcome::Refused;
        }
        let outcome = self.enqueue(request, now, wall);
        self.notify_waiters(&request.resources, now);
        self.check_after_change();
        outcome
    }

    /// Removes a ticket for good: its lock is held or abandoned. Late messages do not queue it again.
    pub fn cancel_ticket(&mut self, ticket: &Ticket, now: Instant) {
        self.handle_timeout(now);
        self.cancelled_tickets.insert(Arc::clone(&ticket.id), now);
        if let Some(resources) = self.waiters.remove(ticket) {
            self.notify_waiters(&resources, now);
        }
        self.check_after_change();
    }

    /// Returns the next waiter to notify. To be polled after every other method.
    pub fn poll_notification(&mut self) -> Option<Ticket> {
        self.waiters.poll_notification()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) may have a waiter to notify, at the
    /// earliest. Nothing else needs it: every other method expires grants first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiter = self.waiters.poll_timeout()?;
        let end = self.expiries.peek().map(|Reverse((end, ..))| *end);
        Some(end.map_or(waiter, |end| end.min(waiter)))
    }

    /// Expires grants, reservations, tickets and tombstones.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tombstones.expire(now);
        self.cancelled_tickets.expire(now);
        let was_open = self.gate.is_open();
        self.gate.handle_timeout(now);
        while let Some(Reverse((_, key, serial))) =
            self.expiries.peek().filter(|Reverse((end, ..))| *end <= now).copied()
        {
            self.expiries.pop();
            let Some(grant) = self.grants.get(key).filter(|grant| grant.serial == serial) else {
                continue;
            };
            if grant.expires_at > now {
                self.expiries.push(Reverse((grant.expires_at, key, serial)));
                continue;
            }
            self.counts.expired += 1;
            if grant.is_revoked {
                let uid = Arc::clone(&grant.request.uid);
                self.tombstones.insert(uid, now);
            }
            let request = self.remove(key);
            self.notify_waiters(&request.resources, now);
        }
        while let Some(resources) = self.waiters.expire_one(now) {
            self.notify_waiters(&resources, now);
        }
        if !was_open && self.gate.is_open() {
            self.notify_all(now);
        }
        self.check_after_change();
    }

    /// Returns the counters.
    pub fn counts(&self) -> GrantCounts {
        self.counts
    }

    /// Returns the numbers of grants, and of waiters that this locker has not granted their lock.
    pub fn sizes(&self) -> (usize, usize) {
        (self.grants.len(), self.waiters.len())
    }

    // ---- helpers ----

    /// Queues the ticket of a request, or renews it.
    fn enqueue(&mut self, request: &LockRequest, now: Instant, wall: Token) -> WaitOutcome {
        let ticket = request.ticket.as_ref();
        let Some(ticket) = ticket.filter(|ticket| !self.cancelled_tickets.contains(&ticket.id))
        else {
            return WaitOutcome::Refused;
        };
        let time_max = wall.ceiling(self.lease);
        let origin = (&request.owner, &request.source);
        self.waiters.contact(ticket, (&request.resources, request.kind), origin, now, time_max)
    }

    /// Returns whether it grants locks now: it has verified the cluster, and its gate is open.
    pub fn grants_locks(&mut self, now: Instant) -> bool {
        self.handle_timeout(now);
        self.can_grant()
    }

    fn can_grant(&self) -> bool {
        self.is_admitted && self.gate.is_open()
    }

    /// Notifies the waiters that a change of these resources, or of their queues, lets try.
    fn notify_waiters(&mut self, resources: &Resources, now: Instant) {
        if self.can_grant() {
            let holders = &self.holders;
            self.waiters.notify(resources, |name, kind| holders.is_name_free(name, kind), now);
        }
    }

    /// Notifies all waiters that may try, when this locker begins to grant.
    fn notify_all(&mut self, now: Instant) {
        if self.can_grant() {
            let holders = &self.holders;
            self.waiters.notify_all(|name, kind| holders.is_name_free(name, kind), now);
        }
    }

    fn is_free(&self, resources: &Resources, kind: LockKind) -> bool {
        self.holders.is_free(resources, kind)
    }

    fn has_room(&self, resources: &Resources) -> bool {
        self.grants.len() < self.grants_max
            && self.resource_bytes + resources.bytes() <= GRANTED_NAME_BYTES_MAX
    }

    fn insert(&mut self, request: LockRequest, now: Instant) {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.resource_bytes += request.resources.bytes();
        let entry = self.grants.vacant_entry();
        let key = entry.key();
        let added = self.holders.add(&request.resources, key, request.kind);
        if added == Added::Disputed && self.gate.is_open() {
            grid::bug!("granted a lock that another grant excludes");
        }
        let expires_at = now + self.lease;
        self.by_uid.insert(Arc::clone(&request.uid), key);
        self.expiries.push(Reverse((expires_at, key, serial)));
        entry.insert(Grant {
            request,
            granted_at: now,
            refreshed_at: now,
            expires_at,
            is_revoked: false,
            serial,
        });
        self.compact();
    }

    fn remove(&mut self, key: usize) -> LockRequest {
        let Grant { request, .. } = self.grants.remove(key);
        self.by_uid.remove(&request.uid);
        let (all, own) = (self.resource_bytes, request.resources.bytes());
        debug_assert!(all >= own, "Table.resource_bytes {all}, of a grant {own}");
        self.resource_bytes -= own;
        self.holders.remove(&request.resources, key);
        request
    }

    /// Drops the entries of released grants once they are most of the heap.
    fn compact(&mut self) {
        if self.expiries.len() > 2 * self.grants.len() + 64 {
            let grants = &self.grants;
            self.expiries.retain(|Reverse((_, key, serial))| {
                grants.get(*key).is_some_and(|grant| grant.serial == *serial)
            });
        }
    }
}
