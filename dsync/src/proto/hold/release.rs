//! Release of all grants that an attempt may have got.

use std::sync::Arc;

use grid::backoff::Backoff;
use grid::time::Instant;

use super::locker_state::{PendingRelease, Vote};
use super::{EndReason, Hold, Output, Phase, Request};

impl Hold {
    /// Ends the hold. A lost lock is not released yet: its holder has to notice and stop first,
    /// which may take longer than it takes others to acquire the lock. It is released by
    /// [`Hold::release`], or expires by itself.
    pub(super) fn end(&mut self, end: EndReason, now: Instant) {
        self.phase = Phase::Ended(end);
        for locker in 0..self.lockers.len() {
            self.cancel_wait(locker);
        }
        match end {
            EndReason::Expired | EndReason::Revoked => {
                self.schedule_releases(now + self.config.limits.lease, now);
            }
            EndReason::Unlocked
            | EndReason::Cancelled
            | EndReason::TimedOut
            | EndReason::NotAcquired => {
                self.release_all(now);
            }
        }
    }

    /// Releases the grants of a lost lock, whose holder has stopped.
    pub(super) fn release_lost_grants(&mut self, now: Instant) {
        let pending = self.lockers.iter_mut().filter_map(|state| state.pending_release.as_mut());
        for release in pending.filter(|release| !release.is_sent) {
            release.retry_at = now;
        }
        self.send_due_releases(now);
    }

    pub(super) fn cancel_wait(&mut self, locker: usize) {
        if let Some(rpc) = self.lockers[locker].wait_rpc.take() {
            self.out.push_back(Output::Cancel { rpc });
        }
    }

    /// Releases the grants of the current attempt, and those that outstanding RPCs may still get.
    pub(super) fn release_all(&mut self, now: Instant) {
        self.schedule_releases(now, now);
        self.send_due_releases(now);
    }

    /// Voids the current attempt, and schedules the release of its grants for `at`.
    fn schedule_releases(&mut self, at: Instant, now: Instant) {
        let limits = &self.config.limits;
        let until = now + limits.lease;
        let first_wait = limits.retry_first.saturating_mul(2);
        for locker in 0..self.lockers.len() {
            let uid = Arc::clone(&self.uid);
            let state = &mut self.lockers[locker];
            if let Some(rpc) = state.rpc.take() {
                self.out.push_back(Output::Cancel { rpc: rpc.id });
            }
            (state.vote, state.confirmed_token) = (Vote::None, None);
            if std::mem::take(&mut state.may_have_granted) {
                debug_assert!(
                    state.pending_release.is_none(),
                    "no request while a release is pending"
                );
                state.pending_release = Some(PendingRelease {
                    uid,
                    expires_at: until,
                    retry_at: at,
                    is_sent: false,
                    backoff: Backoff::new(first_wait, limits.retry_max),
                    rpc: None,
                });
            }
        }
    }

    /// Sends the releases that are due, and drops those whose lease has ended.
    pub(super) fn send_due_releases(&mut self, now: Instant) {
        for locker in 0..self.lockers.len() {
            let Some(pending) = &self.lockers[locker].pending_release else { continue };
            if pending.expires_at <= now {
                let dropped = self.lockers[locker].pending_release.take();
                self.expired_releases += usize::from(matches!(self.phase, Phase::Ended(_)));
                let rpc = dropped.and_then(|release| release.rpc);
                self.out.extend(rpc.map(|rpc| Output::Cancel { rpc }));
            } else if pending.rpc.is_none() && pending.retry_at <= now {
                let (uid, resources) =
                    (Arc::clone(&pending.uid), Some(self.config.resources.clone()));
                let kind = self.config.kind;
                let rpc = self.send(locker, Request::Unlock { uid, resources, kind, waiter: None });
                if let Some(pending) = &mut self.lockers[locker].pending_release {
                    (pending.rpc, pending.is_sent) = (Some(rpc), true);
                }
            }
        }
    }
}
