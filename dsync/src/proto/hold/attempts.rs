//! Attempts to acquire: requests to all lockers, their votes, and the wait for the next attempt.

use std::sync::Arc;
use std::time::Duration;

use grid::backoff::jittered;
use grid::time::Instant;
use rand::RngExt;

use super::locker_state::{Availability, Family, LockerState, Vote};
use super::{AttemptLimit, AttemptStats, EndReason, Hold, Phase, Request};
use crate::limits::TOKEN_LAG_MAX;
use crate::proto::quorum::LockKind;
use crate::proto::table::LockRequest;
use crate::proto::token::Token;

impl Hold {
    pub(super) fn begin_attempt(&mut self, now: Instant) {
        self.stats.attempts += 1;
        self.uid = format!("{}.{}", self.config.id, self.stats.attempts).into();
        let request = LockRequest {
            uid: Arc::clone(&self.uid),
            resources: self.config.resources.clone(),
            kind: self.config.kind,
            owner: Arc::clone(&self.config.owner),
            source: Arc::clone(&self.config.source),
            quorum: self.quorum,
            proposed_token: self.tokens.propose(now),
            ticket: self.ticket.clone(),
            supports_leases: true,
            list: self.config.list,
        };
        self.request = Some(request.clone());
        self.phase = Phase::Voting { until: now + self.config.limits.attempt_timeout };
        for locker in 0..self.lockers.len() {
            // The wait request stays outstanding: if the attempt fails, the locker still notifies.
            let state = &mut self.lockers[locker];
            (state.vote, state.availability, state.may_have_granted) =
                (Vote::None, Availability::Unknown, false);
            if state.pending_release.is_none() {
                state.may_have_granted = true;
                state.may_be_queued |= request.ticket.is_some();
                self.send_rpc(locker, Request::Lock(request.clone()), now);
            }
        }
        self.evaluate_votes(now);
    }

    /// Counts the votes: enters the next phase if they suffice, or if they no longer can.
    pub(super) fn evaluate_votes(&mut self, now: Instant) {
        match self.phase {
            Phase::Voting { .. } => {
                let granted = self.count(|state| state.is_valid(now));
                let outstanding = self.count(|state| state.rpc.is_some());
                if granted >= self.quorum {
                    self.choose_token(now);
                } else if self.is_excluded_by_plain_lockers() {
                    self.count_outcomes();
                    self.end(EndReason::PlainLockers, now);
                } else if granted + outstanding < self.quorum && !self.awaits_ticket_time() {
                    self.fail(now);
                }
            }
            Phase::Fencing { token, .. } => {
                let known = self.count(|state| state.knows(token, now));
                let outstanding = self.count(|state| state.rpc.is_some());
                if known >= self.quorum {
                    self.enter_held(token, Fencing::Known, now);
                } else if known + outstanding < self.quorum {
                    self.fail(now);
                }
            }
            Phase::Held { .. } => match self.valid_until() {
                None => self.end(EndReason::Revoked, now),
                Some(until) if until <= now => self.end(EndReason::Expired, now),
                Some(_) => {}
            },
            Phase::Waiting { .. } | Phase::Ended(_) => {}
        }
    }

    fn count(&self, holds: impl Fn(&LockerState) -> bool) -> usize {
        self.lockers.iter().filter(|state| holds(state)).count()
    }

    /// Returns how many lockers have shown to be of the MinIO type.
    pub fn plain_lockers(&self) -> usize {
        self.count(|state| state.family == Family::Plain)
    }

    /// Returns whether lockers that grant read locks of one resource only exclude a quorum.
    fn is_excluded_by_plain_lockers(&self) -> bool {
        let is_unsupported =
            self.config.kind == LockKind::Read && self.config.resources.iter().take(2).count() > 1;
        let refuses = |state: &LockerState| {
            state.family == Family::Plain
                && state.availability.is_response()
                && state.availability != Availability::Free
        };
        is_unsupported && self.lockers.len() - self.count(refuses) < self.quorum
    }

    /// Holds the lock if a quorum accepted the proposed token; else writes a higher one first.
    /// Without a quorum of lockers that know tokens, the lock has none
    /// ([B59](crate::rules#b59)).
    fn choose_token(&mut self, now: Instant) {
        let Phase::Voting { until } = self.phase else { return };
        let proposed = self.request.as_ref().map(|sent| sent.proposed_token).unwrap_or_default();
        let all = || self.lockers.iter().filter(|state| state.is_ours() && state.is_valid(now));
        if all().count() < self.quorum {
            return self.enter_held(proposed, Fencing::Unknown, now);
        }
        // A vote whose locker's clock is far ahead of those of a quorum does not count: the others
        // would not record its time, and no lock would be granted. A quorum without it knows each
        // token that was ever issued.
        let mut walls: Vec<_> = all().filter_map(LockerState::wall).collect();
        walls.sort_unstable_by(|a, b| b.cmp(a));
        let at_quorum = walls.get(self.quorum - 1).copied().unwrap_or_default();
        let mut ceiling = at_quorum.ceiling(self.config.limits.lease);
        let is_counted = |state: &&LockerState, ceiling| state.wall().is_none_or(|w| w <= ceiling);
        if all().filter(|state| is_counted(state, ceiling)).count() < self.quorum {
            if self.count(|state| state.rpc.is_some()) > 0 {
                return; // Another vote may complete a quorum.
            }
            ceiling = Token::new(u64::MAX);
        }
        let votes = || all().filter(|state| is_counted(state, ceiling));
        let accepted = votes().filter(|state| state.token() == Some(proposed)).count();
        // Above the tokens of the resources is not enough: the lockers that knew a higher one may
        // be unreachable, and one that has restarted may know less. The clocks know how late it is.
        let wall = votes().filter_map(LockerState::wall).max().unwrap_or_default();
        let lags = proposed.later_by(TOKEN_LAG_MAX) < wall;
        if proposed != Token::default() && accepted >= self.quorum && !lags {
            return self.enter_held(proposed, Fencing::Known, now);
        }
        let known = votes().filter_map(LockerState::token).max().unwrap_or_default();
        // A proposal beyond the ceiling is an estimate from such a clock, and was issued to no lock.
        let estimate = Some(proposed).filter(|proposed| *proposed <= ceiling).unwrap_or_default();
        let token = known.max(estimate).max(wall).next();
        self.stats.second_rounds += 1;
        self.phase = Phase::Fencing { token, until };
        for locker in 0..self.lockers.len() {
            let state = &self.lockers[locker];
            if state.is_ours() && state.is_valid(now) && state.rpc.is_none() {
                self.refresh(locker, token, now);
            }
        }
    }

    fn enter_held(&mut self, token: Token, fencing: Fencing, now: Instant) {
        self.tokens.observe_token(token);
        self.phase = Phase::Held { token, is_fenced: fencing == Fencing::Known };
        for state in &mut self.lockers {
            let jitter = self.rng.random_range(0.9..1.0);
            state.refresh_at = now + self.config.limits.refresh_interval.mul_f64(jitter);
        }
        self.cancel_tickets(now);
        self.evaluate_votes(now);
    }

    /// Releases the possible grants of a failed attempt, and schedules the next attempt.
    pub(super) fn fail(&mut self, now: Instant) {
        let is_late = matches!(self.phase, Phase::Voting { until } if until <= now);
        for state in self.lockers.iter_mut().filter(|state| is_late && state.rpc.is_some()) {
            state.availability = Availability::Unreachable;
        }
        self.count_outcomes();
        if self.config.attempt_limit == AttemptLimit::Once {
            return self.end(EndReason::NotAcquired, now);
        }
        for state in self.lockers.iter_mut().filter(|state| !is_late && state.rpc.is_some()) {
            if state.is_ours() {
                state.availability = Availability::Blocked; // It had too little time to respond.
            }
        }
        self.assign_ticket();
        self.phase = Phase::Waiting { until: now, is_notified: false };
        self.release_all(now);
        self.plan_waits(now);
        self.send_due_waits(now);
        let wait = match self.expects_notifications() {
            true => self.config.limits.retry_max, // A fallback if no notification arrives.
            false => self.back_off(),
        };
        let until = now + jittered(wait, &mut self.rng);
        self.phase = Phase::Waiting { until, is_notified: false };
    }

    /// Returns the retry delay without notifications: it grows ([B55](crate::rules#b55)).
    pub(super) fn back_off(&self) -> Duration {
        let limits = &self.config.limits;
        let steps = limits.retry_step.saturating_mul(self.stats.attempts.saturating_sub(1));
        limits.retry_first.saturating_add(steps).min(limits.retry_max)
    }

    /// Counts what the lockers said in the current attempt.
    pub(super) fn count_outcomes(&mut self) {
        let count = |availability| {
            let matching = self.count(|state| state.availability == availability);
            u32::try_from(matching).unwrap_or(u32::MAX)
        };
        self.stats = AttemptStats {
            lockers: u32::try_from(self.lockers.len()).unwrap_or(u32::MAX),
            granted: count(Availability::Free),
            in_conflict: count(Availability::Blocked),
            queued_ahead: count(Availability::QueuedAhead),
            not_ready: count(Availability::NotReady),
            list_differs: count(Availability::ListDiffers),
            unreachable: count(Availability::Unreachable),
            not_waited_for: count(Availability::Unknown),
            ..self.stats
        };
    }

    /// Returns whether enough lockers are free or will notify for a quorum of notifications.
    pub(super) fn expects_notifications(&self) -> bool {
        self.count(LockerState::will_notify) >= self.quorum
    }

    /// Begins an attempt if it was notified and enough lockers are free for a quorum.
    pub(super) fn retry_if_notified(&mut self, now: Instant) {
        if let Phase::Waiting { is_notified: true, .. } = self.phase
            && self.count(LockerState::is_ready) >= self.quorum
        {
            self.begin_attempt(now);
        }
    }
}

/// Whether a quorum of lockers knows the token of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fencing {
    Known,
    Unknown,
}
