//! One lock at its holder, from the first attempt until everything is released.
//!
//! ```text
//!          quorum granted                quorum knows
//!          and took our token            the token
//!   Trying ──────────────────────────────────────────► Held
//!    ▲  │  └─ granted ─────► Settling ─────────────────► │
//!    │  │ no quorum             │      no quorum is      │
//!    │  ▼                       │      certain any more  │ unlock | dropped
//!   Waiting ◄───────────────────┘    Lost ◄──────────────┤
//!    │                                └───── dropped ──► ▼
//!    └──────────── given up | timed out ────────────► Releasing ────► Over
//!                                                       every locker has confirmed, or no
//!                                                       lease of ours can stand any more
//! ```
//!
//! What was lost is released when its holder, who has to stop first, lets go; or lapses with its lease.
//!
//! Each attempt has an id of its own. What a failed one may have got is released, by each locker in
//! turn and for as long as a lease lasts; a locker that owes us the confirmation is not asked again
//! before. So a grant that comes late is released (B50), attempts do not pile up on a locker that
//! does not answer (B55), and the release of one attempt can never hit the next.
//!
//! A *vote* is certain up to a time that counts from when its request was sent (B52). The lock is
//! held as long as a quorum of votes is certain, which the holder's clock alone decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::names::Names;
use super::quorum::{Kind, quorum};
use super::table::{Ask, Granted, Holding, Lesson, Refresh, Refreshed, Refusal};
use super::token::{Token, TokenClock};
use super::waiters::Place;
use crate::limits::Limits;

mod answers;
mod release;
mod seat;
#[cfg(test)]
mod tests;

use seat::{Debt, Seat, Stance, Vote};

/// What a lock is to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many lockers there are.
    pub lockers: usize,
    /// What is to be locked.
    pub names: Names,
    /// How.
    pub kind: Kind,
    /// This server.
    pub owner: Arc<str>,
    /// Where in its code.
    pub source: Arc<str>,
    /// Names this lock: different from that of every other, ever.
    pub id: Arc<str>,
    /// When to stop trying; never if absent.
    pub deadline: Option<Instant>,
    /// How to wait.
    pub waiting: Waiting,
    /// Times.
    pub limits: Limits,
    /// For jitter.
    pub seed: u64,
}

/// How to wait for a lock that others hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Waiting {
    /// Lockers tell when it is worth trying again; those that cannot are asked now and then.
    #[default]
    Told,
    /// All lockers are asked now and then.
    Polling,
}

/// Names a call to a locker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a hold wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask a locker. Answer with [`Hold::handle_answer`]; what takes longer than
    /// [`Message::time_limit`] has failed.
    Send {
        /// Names the call.
        call: CallId,
        /// Which locker.
        locker: usize,
        /// What to ask.
        message: Message,
    },
    /// The answer to this call is not wanted any more.
    Cancel {
        /// Which call.
        call: CallId,
    },
}

/// What a locker is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// To grant a lock.
    Lock(Ask),
    /// To keep it.
    Refresh(Refresh),
    /// To release it.
    Unlock {
        /// The grant.
        uid: Arc<str>,
        /// What it locks, for the lockers of existing clusters; ours go by the id alone.
        names: Option<Names>,
        /// How.
        kind: Kind,
    },
    /// To answer when it is worth trying again.
    Wait(Ask),
}

impl Message {
    /// How long its answer may take.
    pub fn time_limit(&self, limits: &Limits) -> Duration {
        match self {
            Self::Lock(_) | Self::Refresh(_) | Self::Unlock { .. } => limits.attempt_timeout,
            Self::Wait(_) => crate::limits::WAIT_POLL + limits.attempt_timeout,
        }
    }
}

/// What a locker answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To a lock.
    Lock(Result<Granted, Refusal>),
    /// To a refresh.
    Refresh(Refreshed),
    /// To a release.
    Released,
    /// To a waiter: whether it was called. If not, it is not waited for here.
    Wait {
        /// Whether it is worth trying.
        is_called: bool,
    },
}

/// There is no answer, or none that can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Whether the locker may have done what it was asked.
    pub may_have_run: bool,
}

/// Where a lock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is not held yet.
    Trying,
    /// It is held.
    Held {
        /// Its fencing token.
        token: Token,
        /// Until when that is certain, by the holder's clock.
        until: Instant,
    },
    /// It is not held any more, or never was. Some of it may still have to be released.
    Ended(End),
}

/// Why a lock is not held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its holder released it.
    Unlocked,
    /// Whoever wanted it lost interest.
    GivenUp,
    /// It was not got in time.
    TimedOut,
    /// It could not be refreshed in time: too few lockers answer.
    Expired,
    /// Too few lockers know it: it was forced open.
    Revoked,
}

/// What was tried so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    /// Attempts.
    pub attempts: u32,
    /// How often lockers told that it was worth trying.
    pub calls: u32,
    /// Second rounds, for a token that exceeds what lockers knew.
    pub second_rounds: u32,
    /// Lockers that refused the last attempt because others hold the lock, or wait for it.
    pub in_conflict: u32,
    /// Lockers that could not be asked in the last attempt, or did not answer, or were closed.
    pub unreachable: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Trying { until: Instant },
    Settling { token: Token, until: Instant },
    Waiting { until: Instant, is_called: bool },
    Held { token: Token },
    Ended(End),
}

/// One lock at its holder.
#[derive(Debug)]
pub struct Hold {
    config: Config,
    quorum: usize,
    phase: Phase,
    seats: Vec<Seat>,
    uid: Arc<str>,
    ask: Option<Ask>,
    tokens: TokenClock,
    place: Option<Place>,
    tries: Tries,
    out: VecDeque<Output>,
    next_call: u64,
    rng: SmallRng,
}

impl Hold {
    /// Begins to try. `tokens` is what the process knows of the lockers' clocks.
    pub fn new(config: Config, tokens: TokenClock, now: Instant) -> Self {
        let mut hold = Self {
            quorum: quorum(config.lockers, config.kind),
            phase: Phase::Trying { until: now },
            seats: (0..config.lockers).map(|_| Seat::new(now)).collect(),
            uid: Arc::clone(&config.id),
            ask: None,
            tokens,
            place: None,
            tries: Tries::default(),
            out: VecDeque::new(),
            next_call: 0,
            rng: SmallRng::seed_from_u64(config.seed),
            config,
        };
        hold.begin_attempt(now);
        hold
    }

    /// Where it stands at `now`.
    pub fn status(&self, now: Instant) -> Status {
        match self.phase {
            Phase::Held { token } => match self.valid_until() {
                Some(until) if until > now => Status::Held { token, until },
                _ => Status::Ended(End::Expired),
            },
            Phase::Ended(end) => Status::Ended(end),
            Phase::Trying { .. } | Phase::Settling { .. } | Phase::Waiting { .. } => Status::Trying,
        }
    }

    /// Whether there is nothing left to do.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_)) && self.seats.iter().all(|seat| seat.debt.is_none())
    }

    /// Whether so many lockers have confirmed the release, or never granted anything, that others can
    /// get the lock.
    pub fn is_released(&self) -> bool {
        let free = self.seats.iter().filter(|seat| seat.debt.is_none()).count();
        matches!(self.phase, Phase::Ended(_)) && free >= quorum(self.config.lockers, Kind::Write)
    }

    /// What was tried so far.
    pub fn tries(&self) -> Tries {
        self.tries
    }

    /// The id of the current attempt, and of the grants that it got.
    pub fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let debts = self.seats.iter().filter_map(|seat| seat.debt.as_ref()?.due());
        let own = match self.phase {
            Phase::Trying { until } | Phase::Settling { until, .. } => Some(until),
            Phase::Waiting { until, .. } => Some(until),
            Phase::Held { .. } => {
                let idle = self.seats.iter().filter(|seat| seat.is_idle());
                let refresh = idle.map(|seat| seat.refresh_at).min();
                let end = self.valid_until();
                refresh.into_iter().chain(end).min()
            }
            Phase::Ended(_) => None,
        };
        let deadline = match self.phase {
            Phase::Held { .. } | Phase::Ended(_) => None,
            _ => self.config.deadline,
        };
        debts.chain(own).chain(deadline).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pay_debts(now);
        let is_late = self.config.deadline.is_some_and(|deadline| deadline <= now);
        match self.phase {
            Phase::Trying { .. } | Phase::Settling { .. } if is_late => {
                self.note_who_failed();
                self.end(End::TimedOut, now);
            }
            Phase::Waiting { .. } if is_late => {
                self.end(End::TimedOut, now);
            }
            Phase::Trying { until } | Phase::Settling { until, .. } if until <= now => {
                self.fail(now);
            }
            Phase::Waiting { until, .. } if until <= now => self.begin_attempt(now),
            Phase::Held { .. } => {
                self.review(now);
                self.refresh_what_is_due(now);
            }
            Phase::Trying { .. }
            | Phase::Settling { .. }
            | Phase::Waiting { .. }
            | Phase::Ended(_) => {}
        }
    }

    /// Nobody wants it any more: releases it, or stops trying. What was lost is released by this too.
    pub fn let_go(&mut self, now: Instant) {
        match self.phase {
            Phase::Held { .. } => self.end(End::Unlocked, now),
            Phase::Ended(_) => self.release_what_was_lost(now),
            _ => self.end(End::GivenUp, now),
        }
    }

    /// A locker says that the grant with this id was forced open there.
    pub fn handle_revoked(&mut self, locker: usize, uid: &str, now: Instant) {
        if *self.uid == *uid
            && let Some(seat) = self.seats.get_mut(locker)
        {
            seat.vote = Vote::None;
            self.review(now);
        }
    }

    /// Its holder has seen that its time is over. Nothing that comes later makes it held again.
    pub fn lapse(&mut self, now: Instant) {
        if let Phase::Held { .. } = self.phase {
            self.end(End::Expired, now);
        }
    }

    /// Until when a quorum of votes is certain; `None` if there is no such quorum.
    fn valid_until(&self) -> Option<Instant> {
        let mut untils: Vec<_> = self.seats.iter().filter_map(Seat::certain_until).collect();
        untils.sort_unstable_by(|a, b| b.cmp(a));
        untils.get(self.quorum - 1).copied()
    }

    fn granted(&self, now: Instant) -> usize {
        self.seats.iter().filter(|seat| seat.is_certain(now)).count()
    }

    // ---- attempts ----

    fn begin_attempt(&mut self, now: Instant) {
        self.tries.attempts += 1;
        self.uid = format!("{}.{}", self.config.id, self.tries.attempts).into();
        let ask = Ask {
            uid: Arc::clone(&self.uid),
            names: self.config.names.clone(),
            kind: self.config.kind,
            owner: Arc::clone(&self.config.owner),
            source: Arc::clone(&self.config.source),
            quorum: self.quorum,
            proposal: self.tokens.propose(now),
            place: self.place.clone(),
            knows_leases: true,
        };
        self.ask = Some(ask.clone());
        self.phase = Phase::Trying { until: now + self.config.limits.attempt_timeout };
        for locker in 0..self.seats.len() {
            self.stop_waiting(locker);
            let seat = &mut self.seats[locker];
            (seat.vote, seat.stance, seat.may_hold) = (Vote::None, Stance::Unreachable, false);
            if seat.debt.is_none() {
                seat.may_hold = true;
                self.call(locker, Message::Lock(ask.clone()), now);
            }
        }
        self.review(now);
    }

    /// Decides whether the votes are enough, or cannot become enough.
    fn review(&mut self, now: Instant) {
        match self.phase {
            Phase::Trying { .. } => {
                let granted = self.granted(now);
                let asked = self.seats.iter().filter(|seat| seat.call.is_some()).count();
                if granted >= self.quorum {
                    self.settle(now);
                } else if granted + asked < self.quorum {
                    self.fail(now);
                }
            }
            Phase::Settling { token, .. } => {
                let knows = |seat: &&Seat| seat.knows == Some(token) && seat.is_certain(now);
                let known = self.seats.iter().filter(knows).count();
                let asked = self.seats.iter().filter(|seat| seat.call.is_some()).count();
                if known >= self.quorum {
                    self.hold(token, now);
                } else if known + asked < self.quorum {
                    self.fail(now);
                }
            }
            Phase::Held { .. } => match self.valid_until() {
                None => self.end(End::Revoked, now),
                Some(until) if until <= now => self.end(End::Expired, now),
                Some(_) => {}
            },
            Phase::Waiting { .. } | Phase::Ended(_) => {}
        }
    }

    /// A quorum has granted. If it took our token it knows it; else it has to be told a higher one.
    fn settle(&mut self, now: Instant) {
        let Phase::Trying { until } = self.phase else { return };
        let proposal = self.ask.as_ref().map(|ask| ask.proposal).unwrap_or_default();
        let certain = || self.seats.iter().filter(|seat| seat.is_certain(now));
        let took = certain().filter(|seat| seat.token() == Some(proposal)).count();
        if took >= self.quorum {
            return self.hold(proposal, now);
        }
        let highest = certain().filter_map(Seat::token).max().unwrap_or_default();
        let token = highest.max(proposal).next();
        self.tries.second_rounds += 1;
        self.phase = Phase::Settling { token, until };
        for locker in 0..self.seats.len() {
            if self.seats[locker].is_certain(now) && self.seats[locker].call.is_none() {
                self.refresh(locker, token, now);
            }
        }
    }

    fn hold(&mut self, token: Token, now: Instant) {
        self.tokens.observe_token(token);
        self.phase = Phase::Held { token };
        for seat in &mut self.seats {
            let part = self.rng.random_range(0.9..1.0);
            seat.refresh_at = now + self.config.limits.refresh_interval.mul_f64(part);
        }
        self.review(now);
    }

    /// The attempt has failed: what it got is released, and another one begins later.
    fn fail(&mut self, now: Instant) {
        self.note_who_failed();
        let is_late = matches!(self.phase, Phase::Trying { until } if until <= now);
        for seat in &mut self.seats {
            if seat.call.is_some() && seat.tells && !is_late {
                seat.stance = Stance::Blocked; // It had no time to say anything else.
            }
        }
        self.release_all(now);
        self.wait_to_be_called();
        let wait = match self.is_told() {
            true => self.config.limits.retry_max, // Only in case that nobody tells.
            false => self.back_off(),
        };
        let until = now + wait.mul_f64(self.rng.random_range(0.5..1.0));
        self.phase = Phase::Waiting { until, is_called: false };
    }

    /// How long to wait where nobody tells: longer after each attempt (B55).
    fn back_off(&self) -> Duration {
        let limits = &self.config.limits;
        let steps = limits.retry_step.saturating_mul(self.tries.attempts.saturating_sub(1));
        limits.retry_first.saturating_add(steps).min(limits.retry_max)
    }

    fn note_who_failed(&mut self) {
        let count = |stance| self.seats.iter().filter(|seat| seat.stance == stance).count();
        self.tries.in_conflict = u32::try_from(count(Stance::Blocked)).unwrap_or(u32::MAX);
        self.tries.unreachable = u32::try_from(count(Stance::Unreachable)).unwrap_or(u32::MAX);
    }

    /// Asks those lockers to tell where others were in the way.
    fn wait_to_be_called(&mut self) {
        let is_blocked = |seat: &Seat| seat.stance == Stance::Blocked && seat.tells;
        if self.config.waiting == Waiting::Polling || !self.seats.iter().any(is_blocked) {
            return;
        }
        // The ticket is drawn once: all lockers must have the same order.
        if self.place.is_none() {
            let id = Arc::clone(&self.config.id);
            self.place = Some(Place { ticket: self.tokens.latest(), id });
        }
        let Some(ask) = self.ask.clone() else { return };
        let ask = Ask { place: self.place.clone(), ..ask };
        for locker in 0..self.seats.len() {
            if is_blocked(&self.seats[locker]) {
                let id = self.send(locker, Message::Wait(ask.clone()));
                self.seats[locker].wait = Some(id);
            }
        }
    }

    /// Whether so many lockers are free or will tell that a quorum of calls can come.
    fn is_told(&self) -> bool {
        let tells = |seat: &&Seat| seat.wait.is_some() || seat.stance == Stance::Free;
        self.seats.iter().filter(tells).count() >= self.quorum
    }

    /// So many lockers are worth asking that an attempt can succeed.
    fn try_if_called(&mut self, now: Instant) {
        let is_free = |seat: &&Seat| seat.stance == Stance::Free && seat.debt.is_none();
        if let Phase::Waiting { is_called: true, .. } = self.phase
            && self.seats.iter().filter(is_free).count() >= self.quorum
        {
            self.begin_attempt(now);
        }
    }

    // ---- refreshes ----

    fn refresh_what_is_due(&mut self, now: Instant) {
        let Phase::Held { token } = self.phase else { return };
        for locker in 0..self.seats.len() {
            if self.seats[locker].is_idle() && self.seats[locker].refresh_at <= now {
                self.refresh(locker, token, now);
            }
        }
    }

    fn refresh(&mut self, locker: usize, token: Token, now: Instant) {
        let Some(ask) = self.ask.clone() else { return };
        self.seats[locker].may_hold = true;
        let is_certain = self.seats[locker].is_certain(now);
        let lesson = Some(Lesson { ask, token, is_certain });
        let uid = Arc::clone(&self.uid);
        self.call(locker, Message::Refresh(Refresh { uid, lesson }), now);
    }

    /// A locker has restarted, and asks whether this lock counts on a grant of its. Nothing that was
    /// asked of it before counts any more, unless it is told of it now.
    pub fn recall(&mut self, locker: usize, now: Instant) -> Option<Holding> {
        if let Some(call) = self.seats.get_mut(locker)?.call.take() {
            self.out.push_back(Output::Cancel { call: call.id });
            let retry = self.config.limits.refresh_interval / 5;
            self.seats[locker].refresh_at = now + retry;
        }
        let is_live = !matches!(self.phase, Phase::Ended(_) | Phase::Waiting { .. });
        let holding = || {
            let ask = self.ask.clone()?;
            let token = match self.phase {
                Phase::Held { token } | Phase::Settling { token, .. } => token.max(ask.proposal),
                _ => ask.proposal,
            };
            Some(Holding { ask, token })
        };
        let holding = if is_live && self.seats[locker].is_certain(now) { holding() } else { None };
        self.review(now);
        holding
    }

    // ---- calls ----

    /// Asks a locker about the current attempt.
    fn call(&mut self, locker: usize, message: Message, now: Instant) {
        let token = match &message {
            Message::Refresh(refresh) => refresh.lesson.as_ref().map(|lesson| lesson.token),
            _ => None,
        };
        let id = self.send(locker, message);
        self.seats[locker].call = Some(seat::Call { id, sent: now, token });
    }

    fn send(&mut self, locker: usize, message: Message) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.out.push_back(Output::Send { call, locker, message });
        call
    }
}
