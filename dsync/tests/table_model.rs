//! One locker against a model of it: plain lists of grants and waiters, searched linearly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;

use std::sync::Arc;
use std::time::Duration;

use dsync::GrantInfo;
use dsync::limits::TICKET_TTL;
use dsync::proto::quorum::{ListId, LockKind};
use dsync::proto::resources::Resources;
use dsync::proto::table::{
    ForceTarget, Gate, Granted, HeldLease, LeaseClaim, LockRequest, RefreshRequest, Table,
    UnlockOutcome, WaitOutcome,
};
use dsync::proto::token::Token;
use dsync::proto::waiters::{Ticket, TicketState};
use grid::time::Instant;
use proptest::collection::vec;
use proptest::prelude::*;

use self::model::{Model, ModelWaiter, NODES, limits};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Op {
    Lock(LockRequest),
    Refresh(LockRequest, ClaimKind),
    /// The release of an attempt, with the request of a holder that keeps waiting.
    Unlock(Arc<str>, Option<LockRequest>),
    PlainUnlock(Arc<str>, &'static str, LockKind),
    Wait(LockRequest),
    CancelTicket(Ticket),
    SetAdmitted(bool),
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
        let (now, wall) = (self.now, self.wall());
        match op {
            Op::Lock(request) => self.lock(&request),
            Op::Refresh(request, claim_kind) => {
                let is_valid = matches!(claim_kind, ClaimKind::Valid);
                let token = Token::new(self.wall().get() + request.proposed_token.get());
                let claim = LeaseClaim { request: request.clone(), token, is_valid };
                let claim = (!matches!(claim_kind, ClaimKind::Absent)).then_some(claim);
                let refresh = RefreshRequest { uid: request.uid, claim };
                let outcome = self.table.refresh(&refresh, now, wall);
                assert_eq!(outcome, self.model.refresh(&refresh, now, wall));
            }
            Op::Unlock(uid, waiter) => {
                let outcome = self.table.unlock(&uid, waiter.as_ref(), now, wall);
                let is_released = self.model.unlock(&uid, waiter.as_ref(), now);
                assert_eq!(outcome == UnlockOutcome::Released, is_released);
            }
            Op::PlainUnlock(uid, owner, kind) => {
                let outcome = self.table.unlock_plain(&uid, owner, kind, now);
                let is_released = self.model.unlock_plain(&uid, owner, kind);
                assert_eq!(outcome == UnlockOutcome::Released, is_released);
            }
            Op::Wait(request) => {
                let enqueued = self.table.wait(&request, now, wall) == WaitOutcome::Enqueued;
                assert_eq!(enqueued, self.model.wait(&request, now));
            }
            Op::CancelTicket(ticket) => {
                self.table.cancel_ticket(&ticket, now);
                self.model.waiters.retain(|waiter| waiter.ticket != ticket);
                let end = now + 2 * self.model.limits.lease;
                self.model.cancelled.entry(ticket.id).or_insert(end);
            }
            Op::SetAdmitted(is_admitted) => {
                self.table.set_admitted(is_admitted, now);
                self.model.is_admitted = is_admitted;
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
                let held_leases = held_leases.collect();
                self.table.handle_report(node, held_leases, Token::default(), now, wall);
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

    fn expire_due(&mut self) {
        self.table.handle_timeout(self.now);
        self.model.expire(self.now);
        self.take_notifications();
    }

    /// Checks that only waiters are notified that may try (B58), each once.
    fn take_notifications(&mut self) {
        while let Some(ticket) = self.table.poll_notification() {
            let model = &mut self.model;
            let Some(index) = model.waiters.iter().position(|known| known.ticket == ticket) else {
                continue; // It ended at the same time.
            };
            let waiter = &model.waiters[index];
            assert_eq!(waiter.state, TicketState::Waiting, "{ticket:?} is notified");
            assert!(model.may_try(waiter), "B58: {ticket:?} is notified before others");
            let reservation = model.limits.reservation * (1 << waiter.misses.min(16));
            let waiter = &mut model.waiters[index];
            waiter.state = TicketState::Notified;
            waiter.reserved_until = Some(self.now + reservation.min(TICKET_TTL));
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
        let granted = TicketState::Granted;
        let expected = self.model.waiters.iter().filter(|waiter| waiter.state != granted);
        let expected = expected.map(|waiter| (waiter.ticket.id.to_string(), waiter.state));
        let waiters = waiters.map(|info| (info.id, info.state));
        assert_eq!(waiters.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        for n in 0..TICKETS {
            let ticket = ticket_of(n);
            let is_queued = self.model.waiters.iter().any(|waiter| waiter.ticket == ticket);
            assert_eq!(self.table.queue_report(Some(&ticket)).is_queued, is_queued, "{ticket:?}");
        }
        let is_open = matches!(self.table.gate(self.now), Gate::Open);
        assert_eq!(is_open, self.model.closed.is_none());
        self.check_all_notified();
    }

    /// Checks that every waiter is notified that may try (B58).
    fn check_all_notified(&mut self) {
        for waiter in &self.model.waiters {
            let is_forgotten = waiter.state == TicketState::Waiting && self.model.may_try(waiter);
            assert!(!is_forgotten, "B58: {:?} waits for free resources", waiter.ticket);
        }
        let first = self.model.waiters.iter().map(ModelWaiter::due).min();
        let due = self.table.poll_timeout();
        assert_eq!(due.is_some(), first.is_some());
        assert!(due <= first, "a reservation or ticket ends too late");
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

/// Number of different tickets.
const TICKETS: u64 = 10;

fn ticket_of(n: u64) -> Ticket {
    Ticket { time: Token::new(n), id: format!("w{n}").into() }
}

fn ticket() -> impl Strategy<Value = Ticket> {
    (0..TICKETS).prop_map(ticket_of)
}

fn kind() -> impl Strategy<Value = LockKind> {
    prop_oneof![Just(LockKind::Read), Just(LockKind::Write)]
}

fn request() -> impl Strategy<Value = LockRequest> {
    let ticket = prop::option::weighted(0.4, ticket());
    // High enough to be ahead of all tokens often, and too far ahead seldom.
    let proposed_token = prop_oneof![0..40_000_000_u64, Just(0)];
    (uid(), resources(), kind(), ticket, proposed_token, prop::bool::weighted(0.8)).prop_map(
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
    let (resources, kind): (&[&str], LockKind) = match ticket.time.get() % 5 {
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
    let owner = prop::sample::select(&["n0", "n1", ""][..]);
    let report = (prop::sample::select(&NODES[..]), vec(request(), 0..4));
    prop_oneof![
        8 => request().prop_map(Op::Lock),
        3 => (request(), claim_kind).prop_map(|(request, kind)| Op::Refresh(request, kind)),
        4 => (uid(), prop::option::weighted(0.4, waiting()))
            .prop_map(|(uid, waiter)| Op::Unlock(uid, waiter)),
        1 => (uid(), owner, kind()).prop_map(|(uid, owner, kind)| Op::PlainUnlock(uid, owner, kind)),
        4 => waiting().prop_map(Op::Wait),
        1 => ticket().prop_map(Op::CancelTicket),
        1 => forced.prop_map(Op::Force),
        1 => report.prop_map(|(node, requests)| Op::Report(node, requests)),
        1 => (0..40_u8).prop_map(|n| match n {
            0 => Op::Crash,
            1..=5 => Op::SetAdmitted(n > 1),
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
