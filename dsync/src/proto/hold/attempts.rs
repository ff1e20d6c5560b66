//! Attempts to acquire: requests to all lockers, their votes, and the wait for the next attempt.

use std::sync::Arc;
use std::time::Duration;

use grid::backoff::jittered;
use grid::time::Instant;
use rand::RngExt;

use super::locker_state::{Availability, LockerState, Vote};
use super::{EndReason, Hold, Phase, Request, WaitMode};
use crate::proto::table::LockRequest;
use crate::proto::token::Token;
use crate::proto::waiters::Ticket;

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
            self.cancel_wait(locker);
            let state = &mut self.lockers[locker];
            (state.vote, state.availability, state.may_have_granted) =
                (Vote::None, Availability::Unreachable, false);
            if state.pending_release.is_none() {
                state.may_have_granted = true;
                self.send_rpc(locker, Request::Lock(request.clone()), now);
            }
        }
        self.evaluate_votes(now);
    }

    /// Counts the votes: enters the next phase if they suffice, or if they no longer can.
    pub(super) fn evaluate_votes(&mut self, now: Instant) {
        match self.phase {
            Phase::Voting { .. } => {
                let granted = self.lockers.iter().filter(|state| state.is_valid(now)).count();
                let outstanding = self.lockers.iter().filter(|state| state.rpc.is_some()).count();
                if granted >= self.quorum {
                    self.choose_token(now);
                } else if granted + outstanding < self.quorum {
                    self.fail(now);
                }
            }
            Phase::Fencing { token, .. } => {
                let known = self.lockers.iter().filter(|state| state.knows(token, now)).count();
                let outstanding = self.lockers.iter().filter(|state| state.rpc.is_some()).count();
                if known >= self.quorum {
                    self.enter_held(token, now);
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

    /// Holds the lock if a quorum accepted the proposed token; else writes a higher one first.
    fn choose_token(&mut self, now: Instant) {
        let Phase::Voting { until } = self.phase else { return };
        let proposed = self.request.as_ref().map(|sent| sent.proposed_token).unwrap_or_default();
        let valid = || self.lockers.iter().filter(|state| state.is_valid(now));
        let accepted = valid().filter(|state| state.token() == Some(proposed)).count();
        if accepted >= self.quorum {
            return self.enter_held(proposed, now);
        }
        let highest = valid().filter_map(LockerState::token).max().unwrap_or_default();
        let token = highest.max(proposed).next();
        self.stats.second_rounds += 1;
        self.phase = Phase::Fencing { token, until };
        for locker in 0..self.lockers.len() {
            if self.lockers[locker].is_valid(now) && self.lockers[locker].rpc.is_none() {
                self.refresh(locker, token, now);
            }
        }
    }

    fn enter_held(&mut self, token: Token, now: Instant) {
        self.tokens.observe_token(token);
        self.phase = Phase::Held { token };
        for state in &mut self.lockers {
            let jitter = self.rng.random_range(0.9..1.0);
            state.refresh_at = now + self.config.limits.refresh_interval.mul_f64(jitter);
        }
        self.evaluate_votes(now);
    }

    /// Releases the possible grants of a failed attempt, and schedules the next attempt.
    pub(super) fn fail(&mut self, now: Instant) {
        self.count_refusals();
        let is_late = matches!(self.phase, Phase::Voting { until } if until <= now);
        for state in &mut self.lockers {
            if state.rpc.is_some() && state.can_notify && !is_late {
                state.availability = Availability::Blocked; // It had too little time to respond.
            }
        }
        self.release_all(now);
        self.request_notifications();
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

    pub(super) fn count_refusals(&mut self) {
        let count = |availability| {
            let matching = self.lockers.iter().filter(|state| state.availability == availability);
            u32::try_from(matching.count()).unwrap_or(u32::MAX)
        };
        self.stats.in_conflict = count(Availability::Blocked);
        self.stats.unreachable = count(Availability::Unreachable);
    }

    /// Asks the lockers that reported a conflict for a notification.
    fn request_notifications(&mut self) {
        let can_wait = self.lockers.iter().any(LockerState::accepts_waiters);
        if self.config.wait_mode == WaitMode::Polling || !can_wait {
            return;
        }
        // The ticket is assigned once: all lockers must have the same order.
        if self.ticket.is_none() {
            let id = Arc::clone(&self.config.id);
            self.ticket = Some(Ticket { time: self.tokens.latest(), id });
        }
        let Some(request) = self.request.clone() else { return };
        let request = LockRequest { ticket: self.ticket.clone(), ..request };
        for locker in 0..self.lockers.len() {
            if self.lockers[locker].accepts_waiters() {
                let id = self.send(locker, Request::Wait(request.clone()));
                self.lockers[locker].wait_rpc = Some(id);
            }
        }
    }

    /// Returns whether enough lockers are free or will notify for a quorum of notifications.
    pub(super) fn expects_notifications(&self) -> bool {
        self.lockers.iter().filter(|state| state.will_notify()).count() >= self.quorum
    }

    /// Begins an attempt if it was notified and enough lockers are free for a quorum.
    pub(super) fn retry_if_notified(&mut self, now: Instant) {
        if let Phase::Waiting { is_notified: true, .. } = self.phase
            && self.lockers.iter().filter(|state| state.is_ready()).count() >= self.quorum
        {
            self.begin_attempt(now);
        }
    }
}
