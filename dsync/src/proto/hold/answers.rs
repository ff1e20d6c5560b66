//! What a holder makes of its lockers' answers.

use grid::time::Instant;

use super::seat::{Call, Stance, Vote};
use super::{Answer, CallId, Failure, Hold, Phase};
use crate::proto::table::{Granted, Refreshed, Refusal};
use crate::proto::token::Stamp;

impl Hold {
    /// A locker has answered, or failed to. `stamp` is what it tells of tokens, where it is one of
    /// ours.
    pub fn handle_answer(
        &mut self,
        (locker, call): (usize, CallId),
        answer: Result<Answer, Failure>,
        stamp: Option<Stamp>,
        now: Instant,
    ) {
        // First of all: what the clock has ended, no answer brings back.
        self.review(now);
        if let Some(stamp) = stamp {
            self.tokens.observe(stamp, now);
        }
        let Some(seat) = self.seats.get_mut(locker) else { return };
        if answer.is_ok() {
            seat.tells = stamp.is_some();
        }
        if seat.debt.as_ref().is_some_and(|debt| debt.call == Some(call)) {
            return self.handle_release(locker, answer.is_ok(), now);
        }
        if seat.wait == Some(call) {
            seat.wait = None;
            let is_called = answer == Ok(Answer::Wait { is_called: true });
            return self.handle_call(locker, is_called, now);
        }
        let Some(asked) = seat.call.filter(|asked| asked.id == call) else { return };
        seat.call = None;
        match answer {
            Ok(Answer::Lock(verdict)) => self.handle_verdict(locker, asked, verdict, now),
            Ok(Answer::Refresh(refreshed)) => self.handle_refreshed(locker, asked, refreshed, now),
            Ok(Answer::Released | Answer::Wait { .. }) => self.handle_failure(locker, true, now),
            Err(Failure { may_have_run }) => self.handle_failure(locker, may_have_run, now),
        }
        self.review(now);
    }

    fn handle_verdict(
        &mut self,
        locker: usize,
        asked: Call,
        verdict: Result<Granted, Refusal>,
        now: Instant,
    ) {
        let seat = &mut self.seats[locker];
        match verdict {
            Ok(Granted { token, lease }) => {
                let until = asked.sent + self.config.limits.certainty(lease);
                seat.vote = Vote::Granted { until, token };
                seat.stance = Stance::Free;
                if let Phase::Settling { token, .. } = self.phase {
                    self.refresh(locker, token, now);
                }
            }
            Err(refusal) => {
                seat.may_hold = false;
                seat.stance = match refusal {
                    Refusal::Conflict => Stance::Blocked,
                    Refusal::Closed | Refusal::Over | Refusal::Full => Stance::Unreachable,
                };
            }
        }
    }

    fn handle_refreshed(&mut self, locker: usize, asked: Call, refreshed: Refreshed, now: Instant) {
        let limits = &self.config.limits;
        let seat = &mut self.seats[locker];
        let was_certain = seat.is_certain(now);
        let known = seat.token().unwrap_or_default();
        let mut extend = |lease| {
            let until = asked.sent + limits.certainty(lease);
            // A late answer to an early refresh takes nothing back.
            let until = seat.certain_until().map_or(until, |earlier| earlier.max(until));
            seat.vote = Vote::Granted { until, token: known };
            seat.knows = asked.token;
            seat.refresh_at = asked.sent + limits.refresh_interval;
        };
        match refreshed {
            Refreshed::Held { lease } => extend(lease),
            // It has forgotten what it granted meanwhile, if we were not certain all along.
            Refreshed::Taught { lease } if was_certain => extend(lease),
            Refreshed::Taught { .. } | Refreshed::Closed => {
                seat.refresh_at = now + limits.refresh_interval / 5;
            }
            Refreshed::NotFound => {
                seat.vote = Vote::None;
                seat.refresh_at = now + limits.refresh_interval;
            }
        }
    }

    fn handle_failure(&mut self, locker: usize, may_have_run: bool, now: Instant) {
        let seat = &mut self.seats[locker];
        if !may_have_run && seat.vote == Vote::None && !matches!(self.phase, Phase::Held { .. }) {
            seat.may_hold = false;
        }
        seat.stance = Stance::Unreachable;
        seat.refresh_at = now + self.config.limits.refresh_interval / 5;
    }

    fn handle_call(&mut self, locker: usize, is_called: bool, now: Instant) {
        let Phase::Waiting { until, is_called: was_called } = self.phase else { return };
        if is_called {
            self.tries.calls = self.tries.calls.saturating_add(1);
            self.seats[locker].stance = Stance::Free;
            self.phase = Phase::Waiting { until, is_called: true };
            return self.try_if_called(now);
        }
        self.seats[locker].stance = Stance::Unreachable;
        if !self.is_told() {
            // Too few will tell: it has to be asked.
            let until = until.min(now + self.back_off());
            self.phase = Phase::Waiting { until, is_called: was_called };
        }
    }

    fn handle_release(&mut self, locker: usize, is_confirmed: bool, now: Instant) {
        let limits = &self.config.limits;
        let seat = &mut self.seats[locker];
        let Some(debt) = &mut seat.debt else { return };
        if is_confirmed {
            seat.debt = None;
            return self.try_if_called(now);
        }
        debt.call = None;
        debt.tries = debt.tries.saturating_add(1);
        let wait = limits.retry_first.saturating_mul(1 << debt.tries.min(8));
        debt.retry_at = now + wait.min(limits.retry_max);
    }
}
