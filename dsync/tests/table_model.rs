//! One locker against a model of it: a plain list of grants and one of waiters, looked through from
//! beginning to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dsync::limits::WAIT_POLL;
use dsync::proto::names::Names;
use dsync::proto::quorum::Kind;
use dsync::proto::table::{
    Ask, Forced, Gate, Granted, Holding, Lesson, Refresh, Refreshed, Refusal, Table,
};
use dsync::proto::token::Token;
use dsync::proto::waiters::Place;
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
    Lock(Ask),
    Refresh(Ask, Lessons),
    Unlock(Arc<str>),
    Wait(Ask),
    Leave(Place),
    Force(Forced),
    Report(&'static str, Vec<Ask>),
    Crash,
    Pass(Duration),
}

/// What a refresh carries besides the id.
#[derive(Debug, Clone, Copy)]
enum Lessons {
    Nothing,
    Doubtful,
    Certain,
}

// ---- the model ----

#[derive(Debug)]
struct ModelGrant {
    ask: Ask,
    expires: Instant,
    is_revoked: bool,
}

#[derive(Debug)]
struct ModelWaiter {
    ask: Ask,
    place: Place,
    since: Instant,
    until: Instant,
    is_called: bool,
}

#[derive(Debug)]
struct Model {
    limits: Limits,
    /// In the order in which they were granted.
    grants: Vec<ModelGrant>,
    /// In their order.
    waiters: Vec<ModelWaiter>,
    over: BTreeSet<Arc<str>>,
    /// Whom it waits for, and until when.
    closed: Option<(BTreeSet<&'static str>, Instant)>,
    /// Tokens that it must know.
    tokens: BTreeMap<Arc<str>, Token>,
}

fn collide(one: &Ask, other: &Ask) -> bool {
    let shares = one.names.iter().any(|name| other.names.contains(name));
    shares && one.kind.excludes(other.kind)
}

impl Model {
    fn new(now: Instant) -> Self {
        let limits = limits();
        let closed = Some((NODES.into(), now + limits.lease));
        let (grants, waiters) = (Vec::new(), Vec::new());
        Self { limits, grants, waiters, over: BTreeSet::new(), closed, tokens: BTreeMap::new() }
    }

    fn is_free(&self, ask: &Ask) -> bool {
        self.grants.iter().all(|grant| !collide(&grant.ask, ask))
    }

    fn insert(&mut self, ask: &Ask, now: Instant) {
        let expires = now + self.limits.lease;
        self.grants.push(ModelGrant { ask: ask.clone(), expires, is_revoked: false });
    }

    fn known(&self, names: &Names) -> Token {
        names.iter().filter_map(|name| self.tokens.get(name)).max().copied().unwrap_or_default()
    }

    fn raise(&mut self, names: &Names, token: Token) {
        for name in names.iter() {
            let known = self.tokens.entry(Arc::clone(name)).or_default();
            *known = token.max(*known);
        }
    }

    /// Ends grants that are over.
    fn expire(&mut self, now: Instant) {
        if self.closed.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.closed = None;
        }
        let (ended, left) = self.grants.drain(..).partition(|grant| grant.expires <= now);
        self.grants = left;
        let ended: Vec<ModelGrant> = ended;
        self.over.extend(ended.into_iter().filter(|g| g.is_revoked).map(|g| g.ask.uid));
    }

    /// What a lock must be answered; tokens are compared apart.
    fn lock(&mut self, ask: &Ask, now: Instant) -> Result<(), Refusal> {
        let uid = &ask.uid;
        if self.closed.is_some() {
            return Err(Refusal::Closed);
        }
        if self.over.contains(uid) || self.grants.iter().any(|grant| grant.ask.uid == *uid) {
            return Err(Refusal::Over);
        }
        if !self.is_free(ask) || self.somebody_waits_before(ask, now) {
            let place = ask.place.as_ref();
            for waiter in self.waiters.iter_mut().filter(|waiter| Some(&waiter.place) == place) {
                (waiter.is_called, waiter.until) = (false, now + WAIT_POLL);
            }
            return Err(Refusal::Conflict);
        }
        if self.grants.len() >= self.limits.grants_max {
            return Err(Refusal::Full);
        }
        self.insert(ask, now);
        self.waiters.retain(|waiter| Some(&waiter.place) != ask.place.as_ref());
        Ok(())
    }

    fn somebody_waits_before(&self, ask: &Ask, now: Instant) -> bool {
        self.waiters.iter().any(|waiter| {
            let is_older = ask.place.as_ref().is_none_or(|own| waiter.place < *own);
            let is_due = waiter.is_called || now.since(waiter.since) >= self.limits.patience;
            is_older && is_due && collide(&waiter.ask, ask)
        })
    }

    fn refresh(&mut self, refresh: &Refresh, now: Instant) -> Refreshed {
        let lease = self.limits.lease;
        let is_open = self.closed.is_none();
        let kept = if is_open { Refreshed::Held { lease } } else { Refreshed::Taught { lease } };
        if let Some(lesson) = &refresh.lesson {
            self.raise(&lesson.ask.names, lesson.token);
        }
        if let Some(grant) = self.grants.iter_mut().find(|grant| grant.ask.uid == refresh.uid) {
            if grant.is_revoked {
                return Refreshed::NotFound;
            }
            grant.expires = now + lease;
            return kept;
        }
        match &refresh.lesson {
            Some(lesson) if is_open || lesson.is_certain => {
                let has_room = self.grants.len() < self.limits.grants_max;
                let is_over = self.over.contains(&refresh.uid);
                // A closed locker cannot know which of two is right, and believes both.
                let is_taken = is_open && !self.is_free(&lesson.ask);
                if is_over || !has_room || is_taken {
                    return Refreshed::NotFound;
                }
                self.insert(&lesson.ask, now);
                kept
            }
            _ if is_open => Refreshed::NotFound,
            _ => Refreshed::Closed,
        }
    }

    fn unlock(&mut self, uid: &Arc<str>) -> bool {
        self.over.insert(Arc::clone(uid));
        let before = self.grants.len();
        self.grants.retain(|grant| grant.ask.uid != *uid);
        self.grants.len() < before
    }

    fn wait(&mut self, ask: &Ask, now: Instant) -> bool {
        let Some(place) = ask.place.as_ref().filter(|_| self.closed.is_none()) else {
            return false; // Whoever waits here could only be refused.
        };
        let known = self.waiters.iter().position(|waiter| waiter.place == *place);
        let since = match known {
            Some(index) => self.waiters.remove(index).since,
            None if self.waiters.len() >= self.limits.waiters_max => return false,
            None => now,
        };
        let (ask, place, until) = (ask.clone(), place.clone(), now + WAIT_POLL);
        self.waiters.push(ModelWaiter { ask, place, since, until, is_called: false });
        self.waiters.sort_by(|one, other| one.place.cmp(&other.place));
        true
    }

    fn force(&mut self, what: &Forced) -> Vec<Arc<str>> {
        let mut forced = Vec::new();
        for grant in self.grants.iter_mut().filter(|grant| !grant.is_revoked) {
            let is_meant = match what {
                Forced::Uid(uid) => *grant.ask.uid == **uid,
                Forced::Resource(name) => grant.ask.names.contains(name),
            };
            if is_meant {
                grant.is_revoked = true;
                forced.push(Arc::clone(&grant.ask.uid));
                if !grant.ask.knows_leases {
                    self.over.insert(Arc::clone(&grant.ask.uid));
                }
            }
        }
        self.grants.retain(|grant| !grant.is_revoked || grant.ask.knows_leases);
        forced.sort();
        forced
    }

    fn report(&mut self, node: &'static str, holdings: &[Ask], now: Instant) {
        let Some((silent, _)) = &mut self.closed else { return };
        if !silent.remove(node) {
            return;
        }
        let is_last = silent.is_empty();
        for ask in holdings {
            self.raise(&ask.names, ask.proposal);
            let is_known = self.grants.iter().any(|grant| grant.ask.uid == ask.uid);
            if !is_known && !self.over.contains(&ask.uid) {
                self.insert(ask, now);
            }
        }
        if is_last {
            self.closed = None;
        }
    }
}

// ---- both, side by side ----

struct Both {
    table: Table,
    model: Model,
    now: Instant,
}

impl Both {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self { table: table(now), model: Model::new(now), now }
    }

    fn wall(&self) -> Token {
        wall(self.now)
    }

    fn act(&mut self, op: Op) {
        self.end_what_is_over();
        let now = self.now;
        match op {
            Op::Lock(ask) => self.lock(&ask),
            Op::Refresh(ask, lessons) => {
                let is_certain = matches!(lessons, Lessons::Certain);
                let token = Token::new(self.wall().get() + ask.proposal.get());
                let lesson = Lesson { ask: ask.clone(), token, is_certain };
                let lesson = (!matches!(lessons, Lessons::Nothing)).then_some(lesson);
                let refresh = Refresh { uid: ask.uid, lesson };
                assert_eq!(self.table.refresh(&refresh, now), self.model.refresh(&refresh, now));
            }
            Op::Unlock(uid) => {
                assert_eq!(self.table.unlock(&uid, now), self.model.unlock(&uid));
            }
            Op::Wait(ask) => {
                assert_eq!(self.table.wait(&ask, now), self.model.wait(&ask, now));
            }
            Op::Leave(place) => {
                self.table.leave(&place, now);
                self.model.waiters.retain(|waiter| waiter.place != place);
            }
            Op::Force(what) => {
                let forced = self.table.force_unlock(&what, now).into_iter();
                let mut forced: Vec<_> = forced.map(|(uid, _owner)| uid).collect();
                forced.sort();
                assert_eq!(forced, self.model.force(&what));
            }
            Op::Report(node, asks) => {
                let token = |ask: &Ask| ask.proposal;
                let holdings = asks.iter();
                let holdings = holdings.map(|ask| Holding { ask: ask.clone(), token: token(ask) });
                self.table.report(node, holdings.collect(), Token::default(), now);
                self.model.report(node, &asks, now);
            }
            Op::Crash => {
                (self.table, self.model) = (table(now), Model::new(now));
            }
            Op::Pass(time) => {
                self.now = now + time;
                self.end_what_is_over();
            }
        }
        self.take_calls();
        self.compare();
    }

    fn lock(&mut self, ask: &Ask) {
        let proposal = Token::new(self.wall().get() + ask.proposal.get());
        let ask = Ask { proposal, ..ask.clone() };
        let answer = self.table.lock(&ask, self.now, self.wall());
        assert_eq!(answer.map(drop), self.model.lock(&ask, self.now));
        let Ok(Granted { token, .. }) = answer else { return };
        let known = self.model.known(&ask.names);
        assert!(token >= known, "{token}, though {known} is known");
        assert!(token != proposal || proposal > known, "{proposal} was taken, {known} is known");
        if token == proposal {
            self.model.raise(&ask.names, token);
        }
    }

    /// First grants, so that who waits for them is called, then waiters.
    fn end_what_is_over(&mut self) {
        self.table.handle_timeout(self.now);
        self.model.expire(self.now);
        self.take_calls();
        let now = self.now;
        self.model.waiters.retain(|waiter| waiter.until > now);
        self.take_calls();
    }

    /// Whom the locker has called is for it to decide, within what [`compare`](Self::compare) asks.
    fn take_calls(&mut self) {
        let until = self.now + self.model.limits.reservation;
        while let Some(place) = self.table.poll_called() {
            let waiter = self.model.waiters.iter_mut().find(|waiter| waiter.place == place);
            let Some(waiter) = waiter else { continue };
            assert!(!waiter.is_called, "{place:?} is called twice");
            (waiter.is_called, waiter.until) = (true, until);
        }
    }

    fn compare(&mut self) {
        let grants = self.table.grants(self.now, usize::MAX, usize::MAX);
        let what = |info: &GrantInfo| (info.uid.clone(), info.expires_ms, info.is_revoked);
        let listed: Vec<_> = grants.iter().map(what).collect();
        let expected = self.model.grants.iter().map(|grant| {
            let left = grant.expires.since(self.now).as_millis() as u64;
            (grant.ask.uid.to_string(), left, grant.is_revoked)
        });
        assert_eq!(listed, expected.collect::<Vec<_>>());
        let waiters = self.table.waiters(self.now, usize::MAX, usize::MAX).into_iter();
        let expected = self.model.waiters.iter().map(|waiter| waiter.place.id.to_string());
        assert_eq!(waiters.map(|info| info.id).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let is_open = matches!(self.table.gate(self.now), Gate::Open);
        assert_eq!(is_open, self.model.closed.is_none());
        self.the_first_are_called();
    }

    /// Nobody is before it at any of its names, and all of these are free: it has been told (B55).
    fn the_first_are_called(&mut self) {
        for (index, waiter) in self.model.waiters.iter().enumerate() {
            let shares = |other: &ModelWaiter| {
                other.ask.names.iter().any(|name| waiter.ask.names.contains(name))
            };
            let is_first = !self.model.waiters[..index].iter().any(shares);
            if is_first && self.model.is_free(&waiter.ask) {
                assert!(waiter.is_called, "B55: {:?} waits for what is free", waiter.place);
            }
        }
        let first = self.model.waiters.iter().map(|waiter| waiter.until).min();
        let due = self.table.poll_timeout();
        assert_eq!(due.is_some(), first.is_some());
        assert!(due <= first, "somebody is forgotten too late");
    }
}

fn wall(now: Instant) -> Token {
    Token::new(1_700_000_000_000_000 + now.as_nanos() / 1_000)
}

fn table(now: Instant) -> Table {
    Table::new(&limits(), NODES.map(Arc::from), now, wall(now), 7)
}

// ---- what is done ----

fn names() -> impl Strategy<Value = Names> {
    vec(prop::sample::select(&NAMES[..]), 1..3).prop_map(|names| Names::new(names).expect("good"))
}

fn uid() -> impl Strategy<Value = Arc<str>> {
    (0..24_u8).prop_map(|n| Arc::from(format!("u{n}")))
}

fn place() -> impl Strategy<Value = Place> {
    (0..5_u64).prop_map(|n| Place { ticket: Token::new(n), id: format!("w{n}").into() })
}

fn ask() -> impl Strategy<Value = Ask> {
    let kind = prop_oneof![Just(Kind::Read), Just(Kind::Write)];
    let place = prop::option::weighted(0.4, place());
    // Far enough to be ahead of all tokens now and then, seldom too far.
    let proposal = prop_oneof![0..40_000_000_u64, Just(0)];
    (uid(), names(), kind, place, proposal, prop::bool::weighted(0.8)).prop_map(
        |(uid, names, kind, place, proposal, knows_leases)| {
            let (owner, source) = ("n0".into(), "test".into());
            let proposal = Token::new(proposal);
            let ask =
                Ask { uid, names, kind, owner, source, quorum: 1, proposal, place, knows_leases };
            as_its_place_wants(ask)
        },
    )
}

fn waiting() -> impl Strategy<Value = Ask> {
    (ask(), place()).prop_map(|(ask, place)| as_its_place_wants(Ask { place: Some(place), ..ask }))
}

/// A waiter wants the same each time it asks.
fn as_its_place_wants(ask: Ask) -> Ask {
    let Some(place) = &ask.place else { return ask };
    let (names, kind): (&[&str], Kind) = match place.ticket.get() {
        0 => (&["a"], Kind::Write),
        1 => (&["a", "b"], Kind::Write),
        2 => (&["a"], Kind::Read),
        3 => (&["b", "c"], Kind::Read),
        _ => (&["b"], Kind::Write),
    };
    Ask { names: Names::new(names).expect("good names"), kind, ..ask }
}

fn op() -> impl Strategy<Value = Op> {
    let lessons =
        prop_oneof![Just(Lessons::Nothing), Just(Lessons::Doubtful), Just(Lessons::Certain)];
    let forced = prop_oneof![
        uid().prop_map(|uid| Forced::Uid(uid.to_string())),
        prop::sample::select(&NAMES[..]).prop_map(|name| Forced::Resource(name.to_owned())),
    ];
    let report = (prop::sample::select(&NODES[..]), vec(ask(), 0..4));
    prop_oneof![
        8 => ask().prop_map(Op::Lock),
        3 => (ask(), lessons).prop_map(|(ask, lessons)| Op::Refresh(ask, lessons)),
        4 => uid().prop_map(Op::Unlock),
        4 => waiting().prop_map(Op::Wait),
        1 => place().prop_map(Op::Leave),
        1 => forced.prop_map(Op::Force),
        1 => report.prop_map(|(node, asks)| Op::Report(node, asks)),
        1 => (0..40_u8).prop_map(|n| if n == 0 { Op::Crash } else { Op::Pass(Duration::ZERO) }),
        4 => (0..4_000_u64).prop_map(|ms| Op::Pass(Duration::from_millis(ms))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Verdicts, grants with their ends, waiters and whether it is open: as the model has them after
    /// each step. Tokens never fall.
    #[test]
    fn a_locker_does_what_a_plain_list_would(ops in vec(op(), 1..200)) {
        let mut both = Both::new();
        for node in NODES {
            both.act(Op::Report(node, Vec::new()));
        }
        for op in ops {
            both.act(op);
        }
    }

    /// The same for one that has just started, and is told what it had granted.
    #[test]
    fn b53_a_locker_that_has_restarted_does_what_a_plain_list_would(ops in vec(op(), 1..60)) {
        let mut both = Both::new();
        for op in ops {
            both.act(op);
        }
    }
}
