//! Model of a locker: plain lists of grants and waiters, searched linearly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dsync::Limits;
use dsync::limits::{BARGING_LIMIT, TICKET_TTL, TOKEN_LEAD_MICROS};
use dsync::proto::quorum::LockKind;
use dsync::proto::resources::Resources;
use dsync::proto::table::{ForceTarget, LockRequest, RefreshOutcome, RefreshRequest, Refusal};
use dsync::proto::token::Token;
use dsync::proto::waiters::{Ticket, TicketState};
use grid::time::Instant;

/// Nodes that may hold locks.
pub(crate) const NODES: [&str; 2] = ["n0", "n1"];

pub(crate) fn limits() -> Limits {
    let mut limits = Limits::with_lease(Duration::from_secs(12));
    (limits.grants_max, limits.waiters_max) = (4, 3);
    limits
}

#[derive(Debug)]
pub(crate) struct ModelGrant {
    pub(crate) request: LockRequest,
    pub(crate) expires_at: Instant,
    pub(crate) is_revoked: bool,
}

#[derive(Debug)]
pub(crate) struct ModelWaiter {
    pub(crate) request: LockRequest,
    pub(crate) ticket: Ticket,
    pub(crate) since: Instant,
    pub(crate) ends_at: Instant,
    pub(crate) state: TicketState,
    pub(crate) reserved_until: Option<Instant>,
    pub(crate) misses: u32,
}

impl ModelWaiter {
    pub(crate) fn is_present(&self) -> bool {
        matches!(self.state, TicketState::Waiting | TicketState::Notified)
    }

    pub(crate) fn due(&self) -> Instant {
        self.reserved_until.unwrap_or(self.ends_at).min(self.ends_at)
    }

    pub(crate) fn set_state(&mut self, state: TicketState) {
        (self.state, self.reserved_until) = (state, None);
    }
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) limits: Limits,
    /// In the order in which they were granted.
    pub(crate) grants: Vec<ModelGrant>,
    /// In the order of their tickets.
    pub(crate) waiters: Vec<ModelWaiter>,
    /// Ended attempts and cancelled tickets, with the end of their tombstones.
    pub(crate) ended: BTreeMap<Arc<str>, Instant>,
    pub(crate) cancelled: BTreeMap<Arc<str>, Instant>,
    pub(crate) is_admitted: bool,
    /// Nodes whose reports are missing, and the latest time to open.
    pub(crate) closed: Option<(BTreeSet<&'static str>, Instant)>,
    /// Lower bounds of the tokens that the locker must know.
    pub(crate) tokens: BTreeMap<Arc<str>, Token>,
}

pub(crate) fn conflicts(one: &LockRequest, other: &LockRequest) -> bool {
    let shares = one.resources.iter().any(|name| other.resources.contains(name));
    shares && one.kind.excludes(other.kind)
}

impl Model {
    pub(crate) fn new(now: Instant) -> Self {
        let limits = limits();
        let closed = Some((NODES.into(), now + limits.lease));
        Self {
            limits,
            grants: Vec::new(),
            waiters: Vec::new(),
            ended: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            is_admitted: true,
            closed,
            tokens: BTreeMap::new(),
        }
    }

    pub(crate) fn can_grant(&self) -> bool {
        self.is_admitted && self.closed.is_none()
    }

    pub(crate) fn end_attempt(&mut self, uid: &Arc<str>, now: Instant) {
        self.ended.entry(Arc::clone(uid)).or_insert(now + 2 * self.limits.lease);
    }

    pub(crate) fn is_free(&self, request: &LockRequest) -> bool {
        self.grants.iter().all(|grant| !conflicts(&grant.request, request))
    }

    pub(crate) fn insert(&mut self, request: &LockRequest, now: Instant) {
        let expires_at = now + self.limits.lease;
        self.grants.push(ModelGrant { request: request.clone(), expires_at, is_revoked: false });
    }

    pub(crate) fn known(&self, resources: &Resources) -> Token {
        resources.iter().filter_map(|name| self.tokens.get(name)).max().copied().unwrap_or_default()
    }

    pub(crate) fn raise(&mut self, resources: &Resources, token: Token) {
        for name in resources.iter() {
            let known = self.tokens.entry(Arc::clone(name)).or_default();
            *known = token.max(*known);
        }
    }

    /// Ends expired grants, reservations, tickets and tombstones.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.ended.retain(|_, end| *end > now);
        self.cancelled.retain(|_, end| *end > now);
        if self.closed.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.closed = None;
        }
        let (ended, left) = self.grants.drain(..).partition(|grant| grant.expires_at <= now);
        self.grants = left;
        let ended: Vec<ModelGrant> = ended;
        for grant in ended.into_iter().filter(|grant| grant.is_revoked) {
            self.end_attempt(&grant.request.uid, now);
        }
        self.waiters.retain(|waiter| waiter.ends_at > now);
        for waiter in &mut self.waiters {
            if waiter.reserved_until.is_some_and(|until| until <= now) {
                waiter.set_state(TicketState::Absent);
                waiter.misses += 1;
            }
        }
    }

    /// Returns the expected result of a lock request; tokens are compared separately.
    pub(crate) fn lock(&mut self, request: &LockRequest, now: Instant) -> Result<(), Refusal> {
        let result = self.try_lock(request, now);
        match result {
            Ok(()) => {
                self.insert(request, now);
                let ticket = request.ticket.as_ref();
                let own = self.waiters.iter_mut().find(|waiter| Some(&waiter.ticket) == ticket);
                if let Some(waiter) = own {
                    waiter.set_state(TicketState::Granted);
                }
            }
            Err(Refusal::Conflict | Refusal::QueuedAhead | Refusal::Closed) => {
                self.contact(request, now);
            }
            Err(_) => {}
        }
        result
    }

    pub(crate) fn try_lock(&self, request: &LockRequest, now: Instant) -> Result<(), Refusal> {
        let uid = &request.uid;
        if !self.is_admitted {
            return Err(Refusal::NotReady);
        }
        if self.closed.is_some() {
            return Err(Refusal::Closed);
        }
        let is_granted = self.grants.iter().any(|grant| grant.request.uid == *uid);
        if request.supports_leases && (is_granted || self.ended.contains_key(uid)) {
            return Err(Refusal::AttemptEnded);
        }
        if is_granted || !self.is_free(request) {
            return Err(Refusal::Conflict);
        }
        if self.is_blocked(request, now) {
            return Err(Refusal::QueuedAhead);
        }
        if self.grants.len() >= self.limits.grants_max { Err(Refusal::Full) } else { Ok(()) }
    }

    pub(crate) fn is_blocked(&self, request: &LockRequest, now: Instant) -> bool {
        self.waiters.iter().any(|waiter| {
            let is_older = request.ticket.as_ref().is_none_or(|own| waiter.ticket < *own);
            let is_due = request.supports_leases
                || request.ticket.is_some()
                || waiter.state == TicketState::Notified
                || now.since(waiter.since) >= BARGING_LIMIT;
            waiter.is_present() && is_older && is_due && conflicts(&waiter.request, request)
        })
    }

    /// Returns whether this waiter is to be notified, if it was not yet.
    pub(crate) fn may_try(&self, waiter: &ModelWaiter) -> bool {
        let is_blocked = self.waiters.iter().any(|other| {
            other.is_present()
                && other.ticket < waiter.ticket
                && conflicts(&other.request, &waiter.request)
        });
        self.can_grant() && !is_blocked && self.is_free(&waiter.request)
    }

    /// Queues a ticket, or renews it. Returns whether it is queued.
    pub(crate) fn contact(&mut self, request: &LockRequest, now: Instant) -> bool {
        let Some(ticket) = request.ticket.clone() else { return false };
        if self.cancelled.contains_key(&ticket.id) {
            return false;
        }
        let ends_at = now + TICKET_TTL;
        if let Some(known) = self.waiters.iter_mut().find(|known| known.ticket == ticket) {
            known.set_state(TicketState::Waiting);
            known.ends_at = ends_at;
            return true;
        }
        if self.waiters.len() >= self.limits.waiters_max {
            return false;
        }
        self.waiters.push(ModelWaiter {
            request: request.clone(),
            ticket,
            since: now,
            ends_at,
            state: TicketState::Waiting,
            reserved_until: None,
            misses: 0,
        });
        self.waiters.sort_by(|one, other| one.ticket.cmp(&other.ticket));
        true
    }

    pub(crate) fn refresh(
        &mut self,
        refresh: &RefreshRequest,
        now: Instant,
        wall: Token,
    ) -> RefreshOutcome {
        if !self.is_admitted {
            return RefreshOutcome::Closed;
        }
        let lease = self.limits.lease;
        let is_open = self.closed.is_none();
        let kept = if is_open {
            RefreshOutcome::Held { lease }
        } else {
            RefreshOutcome::Reinstated { lease }
        };
        if let Some(claim) = &refresh.claim {
            let lead = Duration::from_micros(TOKEN_LEAD_MICROS);
            let ceiling = wall.later_by(2 * lease + lead);
            self.raise(&claim.request.resources, claim.token.min(ceiling));
            if claim.token > ceiling {
                return RefreshOutcome::TokenAhead;
            }
        }
        if let Some(grant) = self.grants.iter_mut().find(|grant| grant.request.uid == refresh.uid) {
            if grant.is_revoked {
                return RefreshOutcome::NotFound;
            }
            grant.expires_at = now + lease;
            return kept;
        }
        match &refresh.claim {
            Some(claim) if is_open || claim.is_valid => {
                let has_room = self.grants.len() < self.limits.grants_max;
                let is_ended = self.ended.contains_key(&refresh.uid);
                // A closed locker cannot know which of two is right, and reinstates both.
                let is_taken = is_open && !self.is_free(&claim.request);
                if is_ended || !has_room || is_taken {
                    return RefreshOutcome::NotFound;
                }
                self.insert(&claim.request, now);
                kept
            }
            _ if is_open => RefreshOutcome::NotFound,
            _ => RefreshOutcome::Closed,
        }
    }

    pub(crate) fn unlock(
        &mut self,
        uid: &Arc<str>,
        waiter: Option<&LockRequest>,
        now: Instant,
    ) -> bool {
        self.end_attempt(uid, now);
        let index = self.grants.iter().position(|grant| grant.request.uid == *uid);
        let released = index.map(|index| self.grants.remove(index).request);
        match (waiter, &released) {
            (Some(waiter), _) if self.is_admitted => drop(self.contact(waiter, now)),
            (None, Some(LockRequest { ticket: Some(ticket), .. })) => {
                let is_own = |waiter: &ModelWaiter| waiter.ticket == *ticket;
                self.waiters
                    .retain(|waiter| !is_own(waiter) || waiter.state != TicketState::Granted);
            }
            _ => {}
        }
        released.is_some()
    }

    pub(crate) fn unlock_plain(&mut self, uid: &str, owner: &str, kind: LockKind) -> bool {
        let before = self.grants.len();
        self.grants.retain(|ModelGrant { request, .. }| {
            let is_owner = owner.is_empty() || *request.owner == *owner;
            *request.uid != *uid || !is_owner || request.kind != kind
        });
        self.grants.len() < before
    }

    pub(crate) fn wait(&mut self, request: &LockRequest, now: Instant) -> bool {
        self.is_admitted && self.contact(request, now)
    }

    pub(crate) fn force(&mut self, target: &ForceTarget) -> Vec<Arc<str>> {
        let mut forced = Vec::new();
        for grant in self.grants.iter_mut().filter(|grant| !grant.is_revoked) {
            let is_meant = match target {
                ForceTarget::Uid(uid) => *grant.request.uid == **uid,
                ForceTarget::Resource(name) => grant.request.resources.contains(name),
            };
            if is_meant {
                grant.is_revoked = true;
                forced.push(Arc::clone(&grant.request.uid));
            }
        }
        self.grants.retain(|grant| !grant.is_revoked || grant.request.supports_leases);
        forced.sort();
        forced
    }

    pub(crate) fn report(&mut self, node: &'static str, held_leases: &[LockRequest], now: Instant) {
        let Some((unreported, _)) = &mut self.closed else { return };
        if !unreported.remove(node) {
            return;
        }
        let is_last = unreported.is_empty();
        for request in held_leases {
            self.raise(&request.resources, request.proposed_token);
            let is_known = self.grants.iter().any(|grant| grant.request.uid == request.uid);
            if !is_known && !self.ended.contains_key(&request.uid) {
                self.insert(request, now);
            }
        }
        if is_last {
            self.closed = None;
        }
    }
}
