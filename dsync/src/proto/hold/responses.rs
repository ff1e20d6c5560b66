//! Handling of the lockers' responses.

use grid::time::Instant;

use super::locker_state::{Availability, OutstandingRpc, Vote};
use super::{Failure, Hold, Phase, Response, RpcId};
use crate::proto::table::{Granted, RefreshOutcome, Refusal};
use crate::proto::token::TokenStamp;

impl Hold {
    /// Handles a response or a failure. `stamp` is the locker's token stamp, absent from MinIO
    /// lockers.
    pub fn handle_response(
        &mut self,
        (locker, rpc): (usize, RpcId),
        response: Result<Response, Failure>,
        stamp: Option<TokenStamp>,
        now: Instant,
    ) {
        self.deliver((locker, rpc), response, stamp, now);
        self.check_after_change();
    }

    fn deliver(
        &mut self,
        (locker, rpc): (usize, RpcId),
        response: Result<Response, Failure>,
        stamp: Option<TokenStamp>,
        now: Instant,
    ) {
        // Expire votes first: no response revives an expired lock.
        self.evaluate_votes(now);
        if let Some(stamp) = stamp {
            self.tokens.observe(stamp, now);
        }
        let Some(state) = self.lockers.get_mut(locker) else { return };
        if response.is_ok() {
            state.can_notify = stamp.is_some();
        }
        let pending = state.pending_release.as_ref();
        if pending.is_some_and(|pending| pending.rpc == Some(rpc)) {
            return self.handle_release_response(locker, response.is_ok(), now);
        }
        if state.wait_rpc == Some(rpc) {
            state.wait_rpc = None;
            let is_notified = response == Ok(Response::Wait { is_notified: true });
            return self.handle_notification(locker, is_notified, now);
        }
        let Some(rpc) = state.rpc.filter(|outstanding| outstanding.id == rpc) else {
            return;
        };
        state.rpc = None;
        match response {
            Ok(Response::Lock(result)) if !rpc.is_refresh() => {
                self.handle_lock_response(locker, rpc, result, now);
            }
            Ok(Response::Refresh(outcome)) if rpc.is_refresh() => {
                self.handle_refresh_response(locker, rpc, outcome, now);
            }
            // A response to another kind of request: what the locker did is not known.
            Ok(
                Response::Lock(_)
                | Response::Refresh(_)
                | Response::Released
                | Response::Wait { .. },
            ) => self.handle_failure(locker, true, now),
            Err(Failure { may_have_run }) => self.handle_failure(locker, may_have_run, now),
        }
        self.evaluate_votes(now);
    }

    fn handle_lock_response(
        &mut self,
        locker: usize,
        rpc: OutstandingRpc,
        result: Result<Granted, Refusal>,
        now: Instant,
    ) {
        let state = &mut self.lockers[locker];
        match result {
            Ok(Granted { token, lease }) => {
                let until = rpc.sent_at + self.config.limits.validity_period(lease);
                state.vote = Vote::Granted { until, token };
                state.availability = Availability::Free;
                if let Phase::Fencing { token, .. } = self.phase {
                    self.refresh(locker, token, now);
                }
            }
            Err(refusal) => {
                state.may_have_granted = false;
                state.availability = match refusal {
                    Refusal::Conflict => Availability::Blocked,
                    Refusal::QueuedAhead => Availability::QueuedAhead,
                    Refusal::ListDiffers => Availability::ListDiffers,
                    Refusal::Closed | Refusal::NotReady | Refusal::AttemptEnded | Refusal::Full => {
                        Availability::NotReady
                    }
                };
            }
        }
    }

    fn handle_refresh_response(
        &mut self,
        locker: usize,
        rpc: OutstandingRpc,
        outcome: RefreshOutcome,
        now: Instant,
    ) {
        let limits = &self.config.limits;
        let state = &mut self.lockers[locker];
        let was_valid = state.is_valid(now);
        let known = state.token().unwrap_or_default();
        let mut extend = |lease| {
            let until = rpc.sent_at + limits.validity_period(lease);
            // Responses may be reordered: an older one must not shorten the validity.
            let until = state.valid_until().map_or(until, |earlier| earlier.max(until));
            state.vote = Vote::Granted { until, token: known };
            state.confirmed_token = rpc.token;
            state.refresh_at = rpc.sent_at + limits.refresh_interval;
        };
        match outcome {
            RefreshOutcome::Held { lease } => extend(lease),
            // The vote must have been valid until now: after its end the locker may have granted
            // the lock to another holder, and lost that grant too.
            RefreshOutcome::Reinstated { lease } if was_valid => extend(lease),
            RefreshOutcome::Reinstated { .. }
            | RefreshOutcome::Closed
            | RefreshOutcome::ListDiffers
            | RefreshOutcome::TokenAhead => {
                state.refresh_at = now + limits.refresh_interval / 5;
            }
            RefreshOutcome::NotFound => {
                state.vote = Vote::None;
                state.refresh_at = now + limits.refresh_interval;
            }
        }
    }

    fn handle_failure(&mut self, locker: usize, may_have_run: bool, now: Instant) {
        let state = &mut self.lockers[locker];
        if !may_have_run && state.vote == Vote::None && !matches!(self.phase, Phase::Held { .. }) {
            state.may_have_granted = false;
        }
        state.availability = Availability::Unreachable;
        state.refresh_at = now + self.config.limits.refresh_interval / 5;
    }

    fn handle_notification(&mut self, locker: usize, is_notified: bool, now: Instant) {
        let Phase::Waiting { until, is_notified: was_notified } = self.phase else { return };
        if is_notified {
            self.stats.notifications = self.stats.notifications.saturating_add(1);
            self.lockers[locker].availability = Availability::Free;
            self.phase = Phase::Waiting { until, is_notified: true };
            return self.retry_if_notified(now);
        }
        self.lockers[locker].availability = Availability::Unreachable;
        if !self.expects_notifications() {
            // Too few lockers will notify: poll.
            let until = until.min(now + self.back_off());
            self.phase = Phase::Waiting { until, is_notified: was_notified };
        }
    }

    fn handle_release_response(&mut self, locker: usize, is_confirmed: bool, now: Instant) {
        let state = &mut self.lockers[locker];
        let Some(pending) = &mut state.pending_release else { return };
        if is_confirmed {
            state.pending_release = None;
            return self.retry_if_notified(now);
        }
        pending.rpc = None;
        pending.retry_at = now + pending.backoff.next_wait(&mut self.rng);
    }
}
