//! Refreshes of a lock at its lockers, and its report to a locker that has restarted.

use std::sync::Arc;

use grid::time::Instant;

use super::{Hold, Output, Phase, Request};
use crate::proto::table::{HeldLease, LeaseClaim, RefreshRequest};
use crate::proto::token::Token;

impl Hold {
    pub(super) fn send_due_refreshes(&mut self, now: Instant) {
        let Phase::Held { token, .. } = self.phase else { return };
        for locker in 0..self.lockers.len() {
            if self.lockers[locker].is_idle() && self.lockers[locker].refresh_at <= now {
                self.refresh(locker, token, now);
            }
        }
    }

    pub(super) fn refresh(&mut self, locker: usize, token: Token, now: Instant) {
        let Some(request) = self.request.clone() else { return };
        self.lockers[locker].may_have_granted = true;
        let is_valid = self.lockers[locker].is_valid(now);
        let claim = Some(LeaseClaim { request, token, is_valid });
        let uid = Arc::clone(&self.uid);
        self.send_rpc(locker, Request::Refresh(RefreshRequest { uid, claim }), now);
    }

    /// Returns the lease of a locker that has restarted, if this lock relies on one. Voids the
    /// outstanding request to it: only the returned lease counts.
    pub fn void_outstanding(&mut self, locker: usize, now: Instant) -> Option<HeldLease> {
        if let Some(rpc) = self.lockers.get_mut(locker)?.rpc.take() {
            self.lockers[locker].has_lost_lock |= !rpc.is_refresh();
            self.out.push_back(Output::Cancel { rpc: rpc.id });
            let retry = self.config.limits.refresh_interval / 5;
            self.lockers[locker].refresh_at = now + retry;
        }
        let is_live = !matches!(self.phase, Phase::Ended(_) | Phase::Waiting { .. });
        let lease = || {
            let request = self.request.clone()?;
            let token = match self.phase {
                Phase::Held { token, .. } | Phase::Fencing { token, .. } => {
                    token.max(request.proposed_token)
                }
                _ => request.proposed_token,
            };
            Some(HeldLease { request, token })
        };
        let lease = if is_live && self.lockers[locker].is_valid(now) { lease() } else { None };
        self.evaluate_votes(now);
        self.check_after_change();
        lease
    }
}
