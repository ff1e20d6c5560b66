//! One locker against a model of it: plain lists of grants and waiters, searched linearly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dsync::limits::WAIT_POLL;
use dsync::proto::quorum::{ListId, LockKind};
use dsync::proto::resources::Resources;
use dsync::proto::table::{
    ForceTarget, Gate, Granted, HeldLease, LeaseClaim, LockRequest, RefreshOutcome, RefreshRequest,
    Refusal, Table, UnlockOutcome, WaitOutcome,
};
use dsync::proto::token::Token;
use dsync::proto::waiters::Ticket;
use dsync::{GrantInfo, Limits};
use grid::time::Instant;
use proptest::collection::vec;
use proptest::prelude::*;

const NODES: [&str; 2] = ["n0", "n1"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn limits() -> Limits {
    let mut limits = Limits::with_lease(Duration::from_secs(12));
    (limits.grants_max, limits.waiters_max) = (4, 3);
    limits
}

#[derive(Debug, Clone)]
enum Op {
    Lock(LockRequest),
    Refresh(LockRequest, ClaimKind),
    Unlock(Arc<str>),
    Wait(LockRequest),
    CancelWait(Ticket),
    Force(ForceTarget),
    Report(&'static str, Vec<LockRequest>),
    Crash,
    AdvanceClock(Duration),
}

/// Claim that a refresh carries besides the id.
#[derive(Debug, Clone, Copy)]
enum ClaimKind {
    Absent,
    Invalid,
    Valid,
}

// ---- the model ----

#[derive(Debug)]
struct ModelGrant {
    request: LockRequest,
    expires_at: Instant,
    is_revoked: bool,
}

#[derive(Debug)]
struct ModelWaiter {
    request: LockRequest,
    ticket: Ticket,
    since: Instant,
    expires_at: Instant,
    is_notified: bool,
}

#[derive(Debug)]
struct Model {
    limits: Limits,
    /// In the order in which they were granted.
    grants: Vec<ModelGrant>,
    /// In the order of their tickets.
    waiters: Vec<ModelWaiter>,
    ended: BTreeSet<Arc<str>>,
    /// Nodes whose reports are missing, and the latest time to open.
    closed: Option<(BTreeSet<&'static str>, Instant)>,
    /// Lower bounds of the tokens that the locker must know.
    tokens: BTreeMap<Arc<str>, Token>,
}

fn conflicts(one: &LockRequest, other: &LockRequest) -> bool {
    let shares = one.resources.iter().any(|name| other.resources.contains(name));
    shares && one.kind.excludes(other.kind)
}

impl Model {
    fn new(now: Instant) -> Self {
        let limits = limits();
        let closed = Some((NODES.into(), now + limits.lease));
        let (grants, waiters) = (Vec::new(), Vec::new());
        Self { limits, grants, waiters, ended: BTreeSet::new(), closed, tokens: BTreeMap::new() }
    }

    fn is_free(&self, request: &LockRequest) -> bool {
        self.grants.iter().all(|grant| !conflicts(&grant.request, request))
    }

    fn insert(&mut self, request: &LockRequest, now: Instant) {
        let expires_at = now + self.limits.lease;
        self.grants.push(ModelGrant { request: request.clone(), expires_at, is_revoked: false });
    }

    fn known(&self, resources: &Resources) -> Token {
        resources.iter().filter_map(|name| self.tokens.get(name)).max().copied().unwrap_or_default()
    }

    fn raise(&mut self, resources: &Resources, token: Token) {
        for name in resources.iter() {
            let known = self.tokens.entry(Arc::clone(name)).or_default();
            *known = token.max(*known);
        }
    }

    /// Ends expired grants.
    fn expire(&mut self, now: Instant) {
        if self.closed.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.closed = None;
        }
        let (ended, left) = self.grants.drain(..).partition(|grant| grant.expires_at <= now);
        self.grants = left;
        let ended: Vec<ModelGrant> = ended;
        self.ended.extend(ended.into_iter().filter(|g| g.is_revoked).map(|g| g.request.uid));
    }

    /// Returns the expected result of a lock request; tokens are compared separately.
    fn lock(&mut self, request: &LockRequest, now: Instant) -> Result<(), Refusal> {
        let uid = &request.uid;
        if self.closed.is_some() {
            return Err(Refusal::Closed);
        }
        if self.ended.contains(uid) || self.grants.iter().any(|grant| grant.request.uid == *uid) {
            return Err(Refusal::AttemptEnded);
        }
        if !self.is_free(request) || self.is_blocked_by_older(request, now) {
            let ticket = request.ticket.as_ref();
            for waiter in self.waiters.iter_mut().filter(|waiter| Some(&waiter.ticket) == ticket) {
                (waiter.is_notified, waiter.expires_at) = (false, now + WAIT_POLL);
            }
            return Err(Refusal::Conflict);
        }
        if self.grants.len() >= self.limits.grants_max {
            return Err(Refusal::Full);
        }
        self.insert(request, now);
        self.waiters.retain(|waiter| Some(&waiter.ticket) != request.ticket.as_ref());
        Ok(())
    }

    fn is_blocked_by_older(&self, request: &LockRequest, now: Instant) -> bool {
        self.waiters.iter().any(|waiter| {
            let is_older = request.ticket.as_ref().is_none_or(|own| waiter.ticket < *own);
            let is_due = waiter.is_notified || now.since(waiter.since) >= self.limits.barging_limit;
            is_older && is_due && conflicts(&waiter.request, request)
        })
    }

    fn refresh(&mut self, refresh: &RefreshRequest, now: Instant) -> RefreshOutcome {
        let lease = self.limits.lease;
        let is_open = self.closed.is_none();
        let kept = if is_open {
            RefreshOutcome::Held { lease }
        } else {
            RefreshOutcome::Reinstated { lease }
        };
        if let Some(claim) = &refresh.claim {
            self.raise(&claim.request.resources, claim.token);
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
                let is_ended = self.ended.contains(&refresh.uid);
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

    fn unlock(&mut self, uid: &Arc<str>) -> bool {
        self.ended.insert(Arc::clone(uid));
        let before = self.grants.len();
        self.grants.retain(|grant| grant.request.uid != *uid);
        self.grants.len() < before
    }

    fn wait(&mut self, request: &LockRequest, now: Instant) -> bool {
        let Some(ticket) = request.ticket.as_ref().filter(|_| self.closed.is_none()) else {
            return false; // A closed locker refuses waiters.
        };
        let known = self.waiters.iter().position(|waiter| waiter.ticket == *ticket);
        let since = match known {
            Some(index) => self.waiters.remove(index).since,
            None if self.waiters.len() >= self.limits.waiters_max => return false,
            None => now,
        };
        let (request, ticket, expires_at) = (request.clone(), ticket.clone(), now + WAIT_POLL);
        self.waiters.push(ModelWaiter { request, ticket, since, expires_at, is_notified: false });
        self.waiters.sort_by(|one, other| one.ticket.cmp(&other.ticket));
        true
    }

    fn force(&mut self, target: &ForceTarget) -> Vec<Arc<str>> {
        let mut forced = Vec::new();
        for grant in self.grants.iter_mut().filter(|grant| !grant.is_revoked) {
            let is_meant = match target {
                ForceTarget::Uid(uid) => *grant.request.uid == **uid,
                ForceTarget::Resource(name) => grant.request.resources.contains(name),
            };
            if is_meant {
                grant.is_revoked = true;
                forced.push(Arc::clone(&grant.request.uid));
                if !grant.request.supports_leases {
                    self.ended.insert(Arc::clone(&grant.request.uid));
                }
            }
        }
        self.grants.retain(|grant| !grant.is_revoked || grant.request.supports_leases);
        forced.sort();
        forced
    }

    fn report(&mut self, node: &'static str, held_leases: &[LockRequest], now: Instant) {
        let Some((unreported, _)) = &mut self.closed else { return };
        if !unreported.remove(node) {
            return;
        }
        let is_last = unreported.is_empty();
        for request in held_leases {
            self.raise(&request.resources, request.proposed_token);
            let is_known = self.grants.iter().any(|grant| grant.request.uid == request.uid);
            if !is_known && !self.ended.contains(&request.uid) {
                self.insert(request, now);
            }
        }
        if is_last {
            self.closed = None;
        }
    }
}

// ---- differential test of table and model ----

struct TableAndModel {
    table: Table,
    model: Model,
    now: Instant,
}

impl TableAndModel {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self { table: table(now), model: Model::new(now), now }
    }

    fn wall(&self) -> Token {
        wall(self.now)
    }

    fn apply(&mut self, op: Op) {
        self.expire_due();
        let now = self.now;
        match op {
            Op::Lock(request) => self.lock(&request),
            Op::Refresh(request, claim_kind) => {
                let is_valid = matches!(claim_kind, ClaimKind::Valid);
                let token = Token::new(self.wall().get() + request.proposed_token.get());
                let claim = LeaseClaim { request: request.clone(), token, is_valid };
                let claim = (!matches!(claim_kind, ClaimKind::Absent)).then_some(claim);
                let refresh = RefreshRequest { uid: request.uid, claim };
                assert_eq!(self.table.refresh(&refresh, now), self.model.refresh(&refresh, now));
            }
            Op::Unlock(uid) => {
                let released = self.table.unlock(&uid, now) == UnlockOutcome::Released;
                assert_eq!(released, self.model.unlock(&uid));
            }
            Op::Wait(request) => {
                let enqueued = self.table.wait(&request, now) == WaitOutcome::Enqueued;
                assert_eq!(enqueued, self.model.wait(&request, now));
            }
            Op::CancelWait(ticket) => {
                self.table.cancel_wait(&ticket, now);
                self.model.waiters.retain(|waiter| waiter.ticket != ticket);
            }
            Op::Force(target) => {
                let forced = self.table.force_unlock(&target, now).into_iter();
                let mut forced: Vec<_> = forced.map(|(uid, _owner)| uid).collect();
                forced.sort();
                assert_eq!(forced, self.model.force(&target));
            }
            Op::Report(node, requests) => {
                let token = |request: &LockRequest| request.proposed_token;
                let held_leases = requests.iter();
                let held_leases = held_leases
                    .map(|request| HeldLease { request: request.clone(), token: token(request) });
                self.table.handle_report(node, held_leases.collect(), Token::default(), now);
                self.model.report(node, &requests, now);
            }
            Op::Crash => {
                (self.table, self.model) = (table(now), Model::new(now));
            }
            Op::AdvanceClock(time) => {
                self.now = now + time;
                self.expire_due();
            }
        }
        self.take_notifications();
        self.compare();
    }

    fn lock(&mut self, request: &LockRequest) {
        let proposed_token = Token::new(self.wall().get() + request.proposed_token.get());
        let request = LockRequest { proposed_token, ..request.clone() };
        let response = self.table.lock(&request, self.now, self.wall());
        assert_eq!(response.map(drop), self.model.lock(&request, self.now));
        let Ok(Granted { token, .. }) = response else { return };
        let known = self.model.known(&request.resources);
        assert!(token >= known, "{token}, though {known} is known");
        assert!(
            token != proposed_token || proposed_token > known,
            "{proposed_token} accepted, though {known} is known"
        );
        if token == proposed_token {
            self.model.raise(&request.resources, token);
        }
    }

    /// Expires grants first, so that their waiters are notified, then waiters.
    fn expire_due(&mut self) {
        self.table.handle_timeout(self.now);
        self.model.expire(self.now);
        self.take_notifications();
        let now = self.now;
        self.model.waiters.retain(|waiter| waiter.expires_at > now);
        self.take_notifications();
    }

    /// The table chooses the waiters to notify, within the checks of [`compare`](Self::compare).
    fn take_notifications(&mut self) {
        let until = self.now + self.model.limits.reservation;
        while let Some(ticket) = self.table.poll_notification() {
            let waiter = self.model.waiters.iter_mut().find(|waiter| waiter.ticket == ticket);
            let Some(waiter) = waiter else { continue };
            assert!(!waiter.is_notified, "{ticket:?} is notified twice");
            (waiter.is_notified, waiter.expires_at) = (true, until);
        }
    }

    fn compare(&mut self) {
        let grants = self.table.grants(self.now, usize::MAX, usize::MAX);
        let fields = |info: &GrantInfo| (info.uid.clone(), info.expires_ms, info.is_revoked);
        let listed: Vec<_> = grants.iter().map(fields).collect();
        let expected = self.model.grants.iter().map(|grant| {
            let left = grant.expires_at.since(self.now).as_millis() as u64;
            (grant.request.uid.to_string(), left, grant.is_revoked)
        });
        assert_eq!(listed, expected.collect::<Vec<_>>());
        let waiters = self.table.waiters(self.now, usize::MAX, usize::MAX).into_iter();
        let expected = self.model.waiters.iter().map(|waiter| waiter.ticket.id.to_string());
        assert_eq!(waiters.map(|info| info.id).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let is_open = matches!(self.table.gate(self.now), Gate::Open);
        assert_eq!(is_open, self.model.closed.is_none());
        self.check_front_notified();
    }

    /// Checks that a waiter is notified if it is first for all its resources, and they are free
    /// (B55).
    fn check_front_notified(&mut self) {
        for (index, waiter) in self.model.waiters.iter().enumerate() {
            let shares = |other: &ModelWaiter| {
                other.request.resources.iter().any(|name| waiter.request.resources.contains(name))
            };
            let is_first = !self.model.waiters[..index].iter().any(shares);
            if is_first && self.model.is_free(&waiter.request) {
                assert!(waiter.is_notified, "B55: {:?} waits for free resources", waiter.ticket);
            }
        }
        let first = self.model.waiters.iter().map(|waiter| waiter.expires_at).min();
        let due = self.table.poll_timeout();
        assert_eq!(due.is_some(), first.is_some());
        assert!(due <= first, "a waiter expires too late");
    }
}

fn wall(now: Instant) -> Token {
    Token::new(1_700_000_000_000_000 + now.as_nanos() / 1_000)
}

fn table(now: Instant) -> Table {
    Table::new(&limits(), NODES.map(Arc::from), now, wall(now), 7)
}

// ---- operations ----

fn resources() -> impl Strategy<Value = Resources> {
    vec(prop::sample::select(&NAMES[..]), 1..3)
        .prop_map(|names| Resources::new(names).expect("valid"))
}

fn uid() -> impl Strategy<Value = Arc<str>> {
    (0..24_u8).prop_map(|n| Arc::from(format!("u{n}")))
}

fn ticket() -> impl Strategy<Value = Ticket> {
    (0..5_u64).prop_map(|n| Ticket { time: Token::new(n), id: format!("w{n}").into() })
}

fn request() -> impl Strategy<Value = LockRequest> {
    let kind = prop_oneof![Just(LockKind::Read), Just(LockKind::Write)];
    let ticket = prop::option::weighted(0.4, ticket());
    // High enough to be ahead of all tokens often, and too far ahead seldom.
    let proposed_token = prop_oneof![0..40_000_000_u64, Just(0)];
    (uid(), resources(), kind, ticket, proposed_token, prop::bool::weighted(0.8)).prop_map(
        |(uid, resources, kind, ticket, proposed_token, supports_leases)| {
            let (owner, source) = ("n0".into(), "test".into());
            let proposed_token = Token::new(proposed_token);
            let request = LockRequest {
                uid,
                resources,
                kind,
                owner,
                source,
                quorum: 1,
                proposed_token,
                ticket,
                supports_leases,
                list: ListId::default(),
            };
            with_ticket_resources(request)
        },
    )
}

fn waiting() -> impl Strategy<Value = LockRequest> {
    (request(), ticket()).prop_map(|(request, ticket)| {
        with_ticket_resources(LockRequest { ticket: Some(ticket), ..request })
    })
}

/// Gives a waiter the same resources each time it requests.
fn with_ticket_resources(request: LockRequest) -> LockRequest {
    let Some(ticket) = &request.ticket else { return request };
    let (resources, kind): (&[&str], LockKind) = match ticket.time.get() {
        0 => (&["a"], LockKind::Write),
        1 => (&["a", "b"], LockKind::Write),
        2 => (&["a"], LockKind::Read),
        3 => (&["b", "c"], LockKind::Read),
        _ => (&["b"], LockKind::Write),
    };
    LockRequest { resources: Resources::new(resources).expect("valid names"), kind, ..request }
}

fn op() -> impl Strategy<Value = Op> {
    let claim_kind =
        prop_oneof![Just(ClaimKind::Absent), Just(ClaimKind::Invalid), Just(ClaimKind::Valid)];
    let forced = prop_oneof![
        uid().prop_map(|uid| ForceTarget::Uid(uid.to_string())),
        prop::sample::select(&NAMES[..]).prop_map(|name| ForceTarget::Resource(name.to_owned())),
    ];
    let report = (prop::sample::select(&NODES[..]), vec(request(), 0..4));
    prop_oneof![
        8 => request().prop_map(Op::Lock),
        3 => (request(), claim_kind).prop_map(|(request, kind)| Op::Refresh(request, kind)),
        4 => uid().prop_map(Op::Unlock),
        4 => waiting().prop_map(Op::Wait),
        1 => ticket().prop_map(Op::CancelWait),
        1 => forced.prop_map(Op::Force),
        1 => report.prop_map(|(node, requests)| Op::Report(node, requests)),
        1 => (0..40_u8).prop_map(|n| match n {
            0 => Op::Crash,
            _ => Op::AdvanceClock(Duration::ZERO),
        }),
        4 => (0..4_000_u64).prop_map(|ms| Op::AdvanceClock(Duration::from_millis(ms))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Results, grants with their expiry, waiters and the gate match the model after each step.
    /// Tokens never decrease.
    #[test]
    fn a_locker_matches_the_model(ops in vec(op(), 1..200)) {
        let mut both = TableAndModel::new();
        for node in NODES {
            both.apply(Op::Report(node, Vec::new()));
        }
        for op in ops {
            both.apply(op);
        }
    }

    /// The same for a locker that has just started, and receives lease reports.
    #[test]
    fn b53_a_restarted_locker_matches_the_model(ops in vec(op(), 1..60)) {
        let mut both = TableAndModel::new();
        for op in ops {
            both.apply(op);
        }
    }
}
