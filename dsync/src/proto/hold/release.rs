//! Release of all grants that an attempt may have got.
//!
//! A locker of this crate refuses an attempt that it has released, so the release is sent at once.
//! A plain locker executes requests in any order and grants to any: there the release follows the
//! response to the lock request, or is sent twice ([B59](crate::rules#b59)).

use std::sync::Arc;

use grid::backoff::Backoff;
use grid::time::Instant;

use super::locker_state::{Family, PendingRelease, Repetition, Vote};
use super::{EndReason, Failure, Hold, Output, Phase, Request, Response, RpcId};

/// When the grants of an attempt are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReleaseTime {
    /// At once.
    Now,
    /// When the guard of the lost lock is dropped; else they expire.
    GuardDropped,
}

impl Hold {
    /// Ends the hold. A lost lock is not released yet: its holder has to notice and stop first,
    /// which may take longer than it takes others to acquire the lock. It is released by
    /// [`Hold::release`], or expires by itself.
    pub(super) fn end(&mut self, end: EndReason, now: Instant) {
        self.phase = Phase::Ended(end);
        match end {
            EndReason::Expired | EndReason::Revoked => {
                self.schedule_releases(ReleaseTime::GuardDropped, now);
            }
            EndReason::Unlocked
            | EndReason::Cancelled
            | EndReason::TimedOut
            | EndReason::NotAcquired
            | EndReason::PlainLockers => self.release_all(now),
        }
        self.cancel_tickets(now);
    }

    /// Releases the grants of a lost lock, whose holder has stopped.
    pub(super) fn release_lost_grants(&mut self, now: Instant) {
        let pending = self.lockers.iter_mut().filter_map(|state| state.pending_release.as_mut());
        for release in pending.filter(|release| !release.is_sent) {
            release.retry_at = now;
        }
        self.send_due_releases(now);
    }

    /// Releases the grants of the current attempt, and those that outstanding RPCs may still get.
    pub(super) fn release_all(&mut self, now: Instant) {
        self.schedule_releases(ReleaseTime::Now, now);
        self.send_due_releases(now);
    }

    /// Voids the current attempt, and schedules the release of its grants.
    fn schedule_releases(&mut self, time: ReleaseTime, now: Instant) {
        let limits = &self.config.limits;
        let first_wait = limits.retry_first.saturating_mul(2);
        for state in &mut self.lockers {
            let is_ours = state.family == Family::Ours;
            let rpc = state.rpc.take();
            let lock_rpc = rpc.filter(|rpc| !is_ours && !rpc.is_refresh()).map(|rpc| rpc.id);
            let cancelled = rpc.filter(|_| lock_rpc.is_none());
            self.out.extend(cancelled.map(|rpc| Output::Cancel { rpc: rpc.id }));
            (state.vote, state.confirmed_token) = (Vote::None, None);
            let has_lost_lock = std::mem::take(&mut state.has_lost_lock) && !is_ours;
            if !std::mem::take(&mut state.may_have_granted) {
                continue;
            }
            debug_assert!(state.pending_release.is_none(), "no request while a release is pending");
            // A plain locker looks for expired grants once a lease.
            let expires_at = now + limits.lease.saturating_mul(if is_ours { 1 } else { 2 });
            state.pending_release = Some(PendingRelease {
                uid: Arc::clone(&self.uid),
                expires_at,
                retry_at: match time {
                    ReleaseTime::Now => now,
                    ReleaseTime::GuardDropped => expires_at,
                },
                is_sent: false,
                backoff: Backoff::new(first_wait, limits.retry_max),
                rpc: None,
                keeps_ticket: false,
                lock_rpc,
                repetition: if has_lost_lock { Repetition::Due } else { Repetition::None },
            });
        }
    }

    /// Sends the releases that are due, and drops those whose lease has ended.
    pub(super) fn send_due_releases(&mut self, now: Instant) {
        for locker in 0..self.lockers.len() {
            let Some(pending) = &self.lockers[locker].pending_release else { continue };
            if pending.expires_at <= now {
                self.out.extend(pending.rpcs().map(|rpc| Output::Cancel { rpc }));
                self.lockers[locker].pending_release = None;
                self.expired_releases += usize::from(matches!(self.phase, Phase::Ended(_)));
            } else if pending.is_due(now) {
                self.send_release(locker, now);
            }
        }
    }

    /// Sends a release. That of a failed attempt keeps the ticket in the queues.
    fn send_release(&mut self, locker: usize, now: Instant) {
        let state = &self.lockers[locker];
        let Some(pending) = &state.pending_release else { return };
        let is_acquiring = !matches!(self.phase, Phase::Held { .. } | Phase::Ended(_));
        let waiter = self.waiter().filter(|_| is_acquiring && state.is_ours());
        let keeps_ticket = waiter.is_some();
        let request = Request::Unlock {
            uid: Arc::clone(&pending.uid),
            resources: Some(self.config.resources.clone()),
            kind: self.config.kind,
            waiter,
        };
        let rpc = self.send(locker, request);
        let state = &mut self.lockers[locker];
        state.may_be_queued |= keeps_ticket;
        let Some(pending) = &mut state.pending_release else { return };
        (pending.rpc, pending.is_sent, pending.keeps_ticket) = (Some(rpc), true, keeps_ticket);
        pending.repetition = match pending.repetition {
            Repetition::Due => Repetition::At(now + self.config.limits.attempt_timeout),
            Repetition::At(at) if at > now => Repetition::At(at),
            Repetition::At(_) | Repetition::None => Repetition::None,
        };
    }

    /// Handles the response to an RPC of a pending release. Returns whether it was one.
    pub(super) fn handle_release_response(
        &mut self,
        (locker, rpc): (usize, RpcId),
        response: Result<Response, Failure>,
        now: Instant,
    ) -> bool {
        let Some(pending) = &mut self.lockers[locker].pending_release else { return false };
        let is_released = if pending.lock_rpc == Some(rpc) {
            pending.lock_rpc = None;
            match response {
                Ok(Response::Lock(Err(_))) | Err(Failure { may_have_run: false }) => true,
                Ok(Response::Lock(Ok(_))) => false,
                // It may still be executed.
                Ok(_) | Err(_) => {
                    pending.repetition = Repetition::Due;
                    false
                }
            }
        } else if pending.rpc == Some(rpc) {
            pending.rpc = None;
            match (response, pending.repetition) {
                (Ok(_), Repetition::At(at)) => {
                    pending.retry_at = at.max(now);
                    false
                }
                (Ok(_), Repetition::None | Repetition::Due) => true,
                (Err(_), _) => {
                    pending.retry_at = now + pending.backoff.next_wait(&mut self.rng);
                    false
                }
            }
        } else {
            return false;
        };
        if is_released {
            self.lockers[locker].pending_release = None;
            self.retry_if_notified(now);
        } else {
            self.send_due_releases(now);
        }
        true
    }
}
