//! Handling of the lockers' responses.

use grid::time::Instant;

use super::locker_state::{Availability, Family, OutstandingRpc, Vote};
use super::{Failure, Hold, Phase, Response, RpcId};
use crate::proto::table::{Granted, RefreshOutcome, Refusal};
use crate::proto::token::{Token, TokenStamp};
use crate::proto::waiters::QueueReport;

impl Hold {
    /// Handles a response or a failure. `stamp` is the locker's token stamp, absent from MinIO
    /// lockers; `queue` is what it says about the ticket.
    pub fn handle_response(
        &mut self,
        (locker, rpc): (usize, RpcId),
        response: Result<Response, Failure>,
        (stamp, queue): (Option<TokenStamp>, QueueReport),
        now: Instant,
    ) {
        self.deliver((locker, rpc), response, (stamp, queue), now);
        if matches!(self.phase, Phase::Held { .. } | Phase::Ended(_)) && locker < self.lockers.len()
        {
            // A request that was outstanding may have queued the ticket again.
            self.cancel_ticket(locker, now);
        }
        self.check_after_change();
    }

    fn deliver(
        &mut self,
        (locker, rpc): (usize, RpcId),
        response: Result<Response, Failure>,
        (stamp, queue): (Option<TokenStamp>, QueueReport),
        now: Instant,
    ) {
        // Expire votes first: no response revives an expired lock.
        self.evaluate_votes(now);
        let Some(state) = self.lockers.get(locker) else { return };
        let outstanding = state.rpc.filter(|outstanding| outstanding.id == rpc);
        if let Some(stamp) = stamp {
            let sent_at = outstanding.map_or(now, |outstanding| outstanding.sent_at);
            self.tokens.observe_response(stamp, sent_at, now);
        }
        self.observe_family(locker, response, stamp);
        self.observe_ticket_time(stamp, queue);
        self.dispatch((locker, rpc), response, (stamp, queue), now);
        // Any response may have shown that its locker does not decide the time of the ticket.
        self.evaluate_votes(now);
    }

    /// Handles a response by the request that it belongs to, if that is still outstanding.
    fn dispatch(
        &mut self,
        (locker, rpc): (usize, RpcId),
        response: Result<Response, Failure>,
        (stamp, queue): (Option<TokenStamp>, QueueReport),
        now: Instant,
    ) {
        if self.handle_release_response((locker, rpc), response, now) {
            return;
        }
        let state = &mut self.lockers[locker];
        if state.wait_rpc == Some(rpc) {
            self.handle_wait_response(locker, response, queue, now);
        } else if let Some(outstanding) = state.rpc.take_if(|outstanding| outstanding.id == rpc) {
            let wall = stamp.map(|stamp| stamp.wall).unwrap_or_default();
            self.handle_attempt_response((locker, outstanding), response, wall, now);
        } else {
            state.ticket_cancel.take_if(|cancel| cancel.rpc == rpc);
        }
    }

    /// Records which implementation the locker is.
    fn observe_family(
        &mut self,
        locker: usize,
        response: Result<Response, Failure>,
        stamp: Option<TokenStamp>,
    ) {
        let family = &mut self.lockers[locker].family;
        let is_stamped = stamp.is_some_and(|stamp| stamp.wall != Token::default());
        let is_granted = matches!(
            response,
            Ok(Response::Lock(Ok(_)) | Response::Refresh(RefreshOutcome::Held { .. }))
        );
        if is_stamped {
            *family = Family::Ours;
        } else if response.is_ok() && (*family == Family::Unknown || is_granted) {
            // One of this crate sends some errors without a stamp, but no grant.
            *family = Family::Plain;
        }
    }

    fn handle_attempt_response(
        &mut self,
        (locker, rpc): (usize, OutstandingRpc),
        response: Result<Response, Failure>,
        wall: Token,
        now: Instant,
    ) {
        match response {
            Ok(Response::Lock(result)) if !rpc.is_refresh() => {
                self.handle_lock_response((locker, rpc), result, wall, now);
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
            ) => self.handle_failure((locker, rpc), true, now),
            Err(Failure { may_have_run }) => self.handle_failure((locker, rpc), may_have_run, now),
        }
    }

    fn handle_lock_response(
        &mut self,
        (locker, rpc): (usize, OutstandingRpc),
        result: Result<Granted, Refusal>,
        wall: Token,
        now: Instant,
    ) {
        let state = &mut self.lockers[locker];
        match result {
            Ok(Granted { token, lease }) => {
                let until = rpc.sent_at + self.config.limits.validity_period(lease);
                state.vote = Vote::Granted { until, token, wall };
                state.availability = Availability::Free;
                // The grant ends the ticket there, and with it what the wait request waits for.
                state.may_be_queued = false;
                self.cancel_wait(locker);
                if let Phase::Fencing { token, .. } = self.phase
                    && self.lockers[locker].is_ours()
                {
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
        let (known, wall) = match state.vote {
            Vote::Granted { token, wall, .. } => (token, wall),
            Vote::None => (Token::default(), Token::default()),
        };
        let mut extend = |lease| {
            let until = rpc.sent_at + limits.validity_period(lease);
            // Responses may be reordered: an older one must not shorten the validity.
            let until = state.valid_until().map_or(until, |earlier| earlier.max(until));
            state.vote = Vote::Granted { until, token: known, wall };
            state.confirmed_token = rpc.token.filter(|_| state.is_ours());
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

    fn handle_failure(
        &mut self,
        (locker, rpc): (usize, OutstandingRpc),
        may_have_run: bool,
        now: Instant,
    ) {
        let state = &mut self.lockers[locker];
        if !may_have_run && state.vote == Vote::None && !matches!(self.phase, Phase::Held { .. }) {
            state.may_have_granted = false;
        }
        state.has_lost_lock |= may_have_run && !rpc.is_refresh();
        state.availability = Availability::Unreachable;
        state.refresh_at = now + self.config.limits.refresh_interval / 5;
    }
}
