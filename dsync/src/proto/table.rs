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
use super::token::{Token, TokenStamp, Tokens};
use super::tombstones::Tombstones;
pub use super::waiters::WaitOutcome;
use super::waiters::{Ticket, Waiter, Waiters};
use crate::limits::{GRANTED_NAME_BYTES_MAX, Limits, TOMBSTONES_MAX};
use grid::check_schedule::CheckSchedule;

mod check;
mod gate;
mod holders;
mod listing;
#[cfg(test)]
mod tests;

pub use gate::{Gate, HeldLease};
use holders::{Added, Holders};
pub use listing::{ForceTarget, GrantInfo, WaiterInfo};

/// One attempt to take a lock. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    /// Unique id of the attempt, and of the grant that it gets.
    pub uid: Arc<str>,
    /// Resources to lock.
    pub resources: Resources,
    /// Read or write.
    pub kind: LockKind,
    /// Name of the server that requests the lock.
    pub owner: Arc<str>,
    /// Call site in the holder's code, for operators.
    pub source: Arc<str>,
    /// Number of lockers that must grant it.
    pub quorum: usize,
    /// Token that the holder proposes; the smallest if it has no estimate.
    pub proposed_token: Token,
    /// Its ticket, if it has waited.
    pub ticket: Option<Ticket>,
    /// Whether the holder stops when it cannot refresh its lock. MinIO holders do not, and get no
    /// notice when their lock is forced open.
    pub supports_leases: bool,
    /// List of lockers that the holder uses.
    pub list: ListId,
}

/// Response to a lock request that this locker granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Highest token known for the resources: the proposed one, if and only if it was accepted.
    pub token: Token,
    /// Duration of the grant unless it is refreshed.
    pub lease: Duration,
}

/// Why a lock was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Others hold it.
    Conflict,
    /// None of the others holds it, but an older waiter is queued.
    QueuedAhead,
    /// The request is for another list of lockers.
    ListDiffers,
    /// This server has not verified the cluster yet.
    NotReady,
    /// This locker has restarted and does not grant yet.
    Closed,
    /// The attempt has already been released.
    AttemptEnded,
    /// The table of this locker is full.
    Full,
}

/// Request to extend a grant by another lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshRequest {
    /// Id of the grant.
    pub uid: Arc<str>,
    /// Claim for a locker that has lost the grant; absent from MinIO holders.
    pub claim: Option<LeaseClaim>,
}

/// Proof of an earlier grant, from which a locker can reinstate it after losing its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseClaim {
    /// The original lock request.
    pub request: LockRequest,
    /// Token of the lock.
    pub token: Token,
    /// Whether the holder's vote from this locker is still valid.
    pub is_valid: bool,
}

/// Response to a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The grant is extended.
    Held {
        /// Duration of the lease.
        lease: Duration,
    },
    /// This locker had lost the grant, is closed, and has reinstated it. The grant is extended only
    /// if the holder's vote was valid until this response: otherwise this locker may meanwhile have
    /// granted to others, and lost that too.
    Reinstated {
        /// Duration of the lease.
        lease: Duration,
    },
    /// This locker has no such grant.
    NotFound,
    /// This locker has restarted, and does not know yet whether it had granted the lock.
    Closed,
    /// The request is for another list of lockers, and changed nothing.
    ListDiffers,
    /// The claimed token is too far ahead of this locker's clock to be recorded. The grant is not
    /// extended.
    TokenAhead,
}

/// Response to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnlockOutcome {
    /// The grant is released.
    Released,
    /// This locker has no such grant. A request for it that arrives later is refused.
    NotFound,
}

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
    tombstones: Tombstones,
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
            tombstones: Tombstones::new(TOMBSTONES_MAX, key),
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

    /// Sets the list of lockers that requests must be for.
    pub fn set_list(&mut self, list: ListId) {
        self.list = list;
    }

    /// Returns the list of lockers that requests must be for.
    pub fn list(&self) -> ListId {
        self.list
    }

    /// Sets whether this server has verified that it belongs to the cluster. Until then, its locker
    /// grants, extends, queues and reinstates nothing.
    pub fn set_admitted(&mut self, is_admitted: bool, now: Instant) {
        self.is_admitted = is_admitted;
        self.handle_timeout(now);
        self.check_after_change();
    }

    /// Returns whether this server has verified that it belongs to the cluster.
    pub fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    /// Grants or refuses a lock.
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
                if let (Refusal::Conflict, Some(ticket)) = (refusal, &request.ticket) {
                    self.waiters.requeue(ticket, now);
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
        if self.tombstones.contains(&request.uid) || self.by_uid.contains_key(&request.uid) {
            // Each attempt has its own id, and is sent to each locker once.
            return Err(Refusal::AttemptEnded);
        }
        if !self.is_free(&request.resources, request.kind) {
            return Err(Refusal::Conflict);
        }
        if self.waiters.is_blocked_by_older(
            (&request.resources, request.kind),
            request.ticket.as_ref(),
            now,
        ) {
            return Err(Refusal::Conflict);
        }
        if !self.has_room(&request.resources) {
            return Err(Refusal::Full);
        }
        self.insert(request.clone(), now);
        if let Some(ticket) = &request.ticket {
            self.waiters.remove(ticket);
        }
        let token = self.tokens.propose(&request.resources, request.proposed_token, wall);
        Ok(Granted { token, lease: self.lease })
    }

    /// Extends a grant by another lease.
    pub fn refresh(&mut self, refresh: &RefreshRequest, now: Instant) -> RefreshOutcome {
        self.handle_timeout(now);
        let outcome = self.try_refresh(refresh, now);
        self.check_after_change();
        outcome
    }

    fn try_refresh(&mut self, refresh: &RefreshRequest, now: Instant) -> RefreshOutcome {
        if !self.is_admitted {
            return RefreshOutcome::Closed;
        }
        if let Some(claim) = &refresh.claim
            && claim.request.list.differs_from(self.list)
        {
            return RefreshOutcome::ListDiffers;
        }
        let lease = self.lease;
        let is_open = self.gate.is_open();
        if let Some(claim) = &refresh.claim {
            self.tokens.raise(&claim.request.resources, claim.token);
        }
        if let Some(grant) = self.by_uid.get(&refresh.uid).and_then(|key| self.grants.get_mut(*key))
        {
            if grant.is_revoked {
                return RefreshOutcome::NotFound;
            }
            (grant.refreshed_at, grant.expires_at) = (now, now + lease);
            return if is_open {
                RefreshOutcome::Held { lease }
            } else {
                RefreshOutcome::Reinstated { lease }
            };
        }
        let Some(claim) = refresh.claim.as_ref() else {
            return if is_open { RefreshOutcome::NotFound } else { RefreshOutcome::Closed };
        };
        let LeaseClaim { request, is_valid, .. } = claim;
        if !is_open && !is_valid {
            return RefreshOutcome::Closed;
        }
        // While closed it reinstates every valid claim, even claims that exclude each other.
        let can_be_reinstated = !self.tombstones.contains(&request.uid)
            && (!is_open || self.is_free(&request.resources, request.kind))
            && self.has_room(&request.resources);
        if !can_be_reinstated {
            return RefreshOutcome::NotFound;
        }
        self.insert(request.clone(), now);
        self.counts.granted += 1;
        if is_open { RefreshOutcome::Held { lease } } else { RefreshOutcome::Reinstated { lease } }
    }

    /// Releases a grant.
    pub fn unlock(&mut self, uid: &Arc<str>, now: Instant) -> UnlockOutcome {
        self.handle_timeout(now);
        self.tombstones.insert(Arc::clone(uid));
        let Some(key) = self.by_uid.get(uid).copied() else { return UnlockOutcome::NotFound };
        let resources = self.remove(key);
        self.notify_waiters(&resources, now);
        self.check_after_change();
        UnlockOutcome::Released
    }

    /// Enqueues a refused request for notification.
    pub fn wait(&mut self, request: &LockRequest, now: Instant) -> WaitOutcome {
        self.handle_timeout(now);
        let Some(ticket) = request.ticket.clone().filter(|_| self.gate.is_open()) else {
            return WaitOutcome::Refused;
        };
        let origin = (Arc::clone(&request.owner), Arc::clone(&request.source));
        let outcome =
            self.waiters.enqueue(ticket, (request.resources.clone(), request.kind), origin, now);
        self.notify_waiters(&request.resources, now);
        self.check_after_change();
        outcome
    }

    /// Removes a waiter.
    pub fn cancel_wait(&mut self, ticket: &Ticket, now: Instant) {
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

    /// Expires grants and waiters.
    pub fn handle_timeout(&mut self, now: Instant) {
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
                self.tombstones.insert(uid);
            }
            let resources = self.remove(key);
            self.notify_waiters(&resources, now);
        }
        while let Some(resources) = self.waiters.expire_one(now) {
            self.notify_waiters(&resources, now);
        }
        self.check_after_change();
    }

    /// Returns the counters.
    pub fn counts(&self) -> GrantCounts {
        self.counts
    }

    /// Returns the numbers of grants and waiters.
    pub fn sizes(&self) -> (usize, usize) {
        (self.grants.len(), self.waiters.len())
    }

    // ---- helpers ----

    fn notify_waiters(&mut self, resources: &Resources, now: Instant) {
        let holders = &self.holders;
        self.waiters.notify(resources, |wanted, kind| holders.is_free(wanted, kind), now);
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

    fn remove(&mut self, key: usize) -> Resources {
        let Grant { request, .. } = self.grants.remove(key);
        self.by_uid.remove(&request.uid);
        let (all, own) = (self.resource_bytes, request.resources.bytes());
        debug_assert!(all >= own, "Table.resource_bytes {all}, of a grant {own}");
        self.resource_bytes -= own;
        self.holders.remove(&request.resources, key);
        request.resources
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
