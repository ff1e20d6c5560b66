//! The ticket of a lock, and its place in the lockers' queues ([B58](crate::rules#b58)).
//!
//! ```text
//!              first refused attempt             held | ended
//!   no ticket ───────────────────────► queued ─────────────────► cancelled
//!                                       │  ▲
//!                                       └──┘ a wait request each TICKET_RENEWAL,
//!                                            a refused attempt, the release of a failed one
//! ```
//!
//! The ticket is assigned once and kept over all attempts. Each request that has it renews it at the
//! locker, which keeps its position meanwhile. It ends when the hold cancels it, or without contact.

use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;

use super::locker_state::{Availability, Family, LockerState, TicketCancel};
use super::{AttemptLimit, Failure, Hold, Output, Phase, Request, Response, WaitMode};
use crate::limits::TICKET_RENEWAL;
use crate::proto::quorum::{LockKind, quorum};
use crate::proto::table::LockRequest;
use crate::proto::token::{Token, TokenStamp};
use crate::proto::waiters::{QueueReport, Ticket};

impl Hold {
    /// Records what a response says about the time of the ticket: it is later than each ticket that
    /// the lockers have queued, and not earlier than their clocks.
    pub(super) fn observe_ticket_time(&mut self, stamp: Option<TokenStamp>, queue: QueueReport) {
        if self.ticket.is_none() {
            let wall = stamp.map(|stamp| stamp.wall).unwrap_or_default();
            let last = Some(queue.last_ticket).filter(|last| *last != Token::default());
            let next = last.map(Token::next).unwrap_or_default();
            self.ticket_time = self.ticket_time.max(wall).max(next);
        }
    }

    /// Returns whether the first attempt, which has failed, still waits for responses that decide
    /// the time of the ticket: from so many lockers that one of them knows each earlier ticket.
    pub(super) fn awaits_ticket_time(&self) -> bool {
        let count = |holds: &dyn Fn(&LockerState) -> bool| {
            self.lockers.iter().filter(|state| holds(state)).count()
        };
        let responses = count(&|state| state.availability.is_response());
        let outstanding = count(&|state| state.rpc.is_some() && state.family != Family::Plain);
        self.can_queue()
            && self.ticket.is_none()
            && outstanding > 0
            && responses < quorum(self.config.lockers, LockKind::Read)
    }

    fn can_queue(&self) -> bool {
        self.config.wait_mode == WaitMode::Notified
            && self.config.attempt_limit != AttemptLimit::Once
    }

    /// Assigns the ticket after the first attempt in which a locker of this crate responded.
    pub(super) fn assign_ticket(&mut self) {
        if self.can_queue() && self.ticket.is_none() && self.ticket_time != Token::default() {
            let id = Arc::clone(&self.config.id);
            self.ticket = Some(Ticket { time: self.ticket_time, id });
        }
    }

    /// Returns the current request with the ticket, if there is one.
    pub(super) fn waiter(&self) -> Option<LockRequest> {
        let (request, ticket) = (self.request.clone()?, self.ticket.clone()?);
        Some(LockRequest { ticket: Some(ticket), ..request })
    }

    /// Plans wait requests to the lockers that keep the ticket after a failed attempt.
    pub(super) fn plan_waits(&mut self, now: Instant) {
        if self.ticket.is_none() {
            return;
        }
        for state in self.lockers.iter_mut().filter(|state| state.is_ours()) {
            let is_queued = matches!(
                state.availability,
                Availability::Blocked | Availability::QueuedAhead | Availability::Free
            );
            if is_queued {
                // One that granted is free for others now, too: it notifies.
                state.availability = Availability::Blocked;
                let renewal = state.wait_at.filter(|_| state.wait_rpc.is_some());
                state.wait_at = Some(renewal.unwrap_or(now));
            }
        }
    }

    /// Sends the wait requests that are due. Each renews the ticket, and replaces the earlier one.
    pub(super) fn send_due_waits(&mut self, now: Instant) {
        let Phase::Waiting { .. } = self.phase else { return };
        let Some(request) = self.waiter() else { return };
        for locker in 0..self.lockers.len() {
            if self.lockers[locker].wait_at.is_none_or(|at| at > now) {
                continue;
            }
            let rpc = self.send(locker, Request::Wait(request.clone()));
            let state = &mut self.lockers[locker];
            state.may_be_queued = true;
            // One that has notified is still free, most likely: this renews its reservation.
            if state.availability != Availability::Free {
                state.availability = Availability::Blocked;
            }
            state.wait_at = Some(now + TICKET_RENEWAL);
            // Cancelled after the new one is sent: the locker keeps the ticket.
            self.out.extend(state.wait_rpc.replace(rpc).map(|rpc| Output::Cancel { rpc }));
        }
    }

    /// Handles the response to a wait request.
    pub(super) fn handle_wait_response(
        &mut self,
        locker: usize,
        response: Result<Response, Failure>,
        queue: QueueReport,
        now: Instant,
    ) {
        let reconnect_pause = self.reconnect_pause();
        let state = &mut self.lockers[locker];
        state.wait_rpc = None;
        let is_notified = response == Ok(Response::Wait { is_notified: true });
        let is_kept = response.is_ok() && queue.is_queued;
        if is_notified {
            self.stats.notifications = self.stats.notifications.saturating_add(1);
        }
        let Phase::Waiting { until, is_notified: was_notified } = self.phase else { return };
        if is_notified {
            state.availability = Availability::Free;
            self.phase = Phase::Waiting { until, is_notified: true };
            // While enough others can still notify it too, it shows that it lives: a waiter that
            // misses its reservation blocks nothing, and younger ones would pass it for as long as
            // they come. Without a quorum it lets them pass.
            let pause = match self.expects_notifications() {
                true => self.config.limits.reservation / 2,
                false => TICKET_RENEWAL,
            };
            self.lockers[locker].wait_at = Some(now + pause);
            return self.retry_if_notified(now);
        }
        state.availability = Availability::Unreachable;
        state.wait_at = match response {
            // The long poll ended, and the ticket is queued: the next one is due at its renewal.
            Ok(_) if is_kept => state.wait_at,
            Ok(_) => None,
            Err(_) => Some(now + reconnect_pause),
        };
        if !self.expects_notifications() {
            // Too few lockers will notify: poll.
            let until = until.min(now + self.back_off());
            self.phase = Phase::Waiting { until, is_notified: was_notified };
        }
        self.send_due_waits(now);
    }

    /// Returns the pause before a wait request is sent again whose connection broke.
    fn reconnect_pause(&self) -> Duration {
        self.config.limits.retry_first.saturating_mul(4).min(TICKET_RENEWAL)
    }

    pub(super) fn cancel_wait(&mut self, locker: usize) {
        let state = &mut self.lockers[locker];
        state.wait_at = None;
        self.out.extend(state.wait_rpc.take().map(|rpc| Output::Cancel { rpc }));
    }

    /// Cancels the ticket at all lockers: the lock is held, or its acquisition has ended.
    pub(super) fn cancel_tickets(&mut self, now: Instant) {
        for locker in 0..self.lockers.len() {
            self.cancel_wait(locker);
            self.cancel_ticket(locker, now);
        }
    }

    /// Cancels the ticket at a locker, once no outstanding request can queue it there again.
    pub(super) fn cancel_ticket(&mut self, locker: usize, now: Instant) {
        let Some(ticket) = self.ticket.clone() else { return };
        let state = &self.lockers[locker];
        let release = state.pending_release.as_ref();
        let may_still_queue = state.rpc.is_some_and(|rpc| !rpc.is_refresh())
            || release.is_some_and(|release| release.rpc.is_some() && release.keeps_ticket);
        if !state.may_be_queued || !state.is_ours() || may_still_queue {
            return;
        }
        let rpc = self.send(locker, Request::CancelTicket(ticket));
        let expires_at = now + self.config.limits.attempt_timeout;
        let state = &mut self.lockers[locker];
        state.may_be_queued = false;
        let earlier = state.ticket_cancel.replace(TicketCancel { rpc, expires_at });
        self.out.extend(earlier.map(|cancel| Output::Cancel { rpc: cancel.rpc }));
    }

    /// Stops waiting for responses to cancellations that are too old.
    pub(super) fn expire_ticket_cancels(&mut self, now: Instant) {
        for state in &mut self.lockers {
            let expired = state.ticket_cancel.take_if(|cancel| cancel.expires_at <= now);
            self.out.extend(expired.map(|cancel| Output::Cancel { rpc: cancel.rpc }));
        }
    }
}
