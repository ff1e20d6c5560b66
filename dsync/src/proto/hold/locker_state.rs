//! A holder's view of one locker.

use std::sync::Arc;

use grid::backoff::Backoff;
use grid::time::Instant;

use super::RpcId;
use crate::proto::token::Token;

/// A holder's view of one locker.
#[derive(Debug)]
pub(super) struct LockerState {
    /// Its vote for the current attempt.
    pub(super) vote: Vote,
    /// Outstanding RPC of the current attempt.
    pub(super) rpc: Option<OutstandingRpc>,
    /// Token that the locker has confirmed to have recorded.
    pub(super) confirmed_token: Option<Token>,
    /// When the next refresh is due.
    pub(super) refresh_at: Instant,
    /// Whether the locker may have granted the current attempt.
    pub(super) may_have_granted: bool,
    /// Release of an earlier attempt that the locker has not confirmed.
    pub(super) pending_release: Option<PendingRelease>,
    /// Outstanding wait request, to which the locker responds when a retry is worthwhile.
    pub(super) wait_rpc: Option<RpcId>,
    /// Whether it is likely to grant the next attempt.
    pub(super) availability: Availability,
    /// Whether it notifies waiters: true until it responds without a stamp, as MinIO lockers do.
    pub(super) can_notify: bool,
}

/// A vote for the current attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vote {
    None,
    Granted { until: Instant, token: Token },
}

/// What is known of a locker since the current attempt began: whether another request to it is
/// worthwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Availability {
    /// It granted the lock, or sent a notification.
    Free,
    /// Others hold the lock there.
    Blocked,
    /// Older waiters are queued there.
    QueuedAhead,
    /// It does not grant now: restarted, not verified, or overloaded.
    NotReady,
    /// It has another list of lockers.
    ListDiffers,
    /// No request could be sent to it, or it did not respond in time.
    Unreachable,
    /// It was not asked, or its response was not waited for.
    Unknown,
}

/// RPC of the current attempt without a response.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutstandingRpc {
    pub(super) id: RpcId,
    pub(super) sent_at: Instant,
    /// Token in the request, which is a refresh; absent from a lock request.
    pub(super) token: Option<Token>,
}

impl OutstandingRpc {
    pub(super) fn is_refresh(self) -> bool {
        self.token.is_some()
    }
}

/// A release that the locker has not confirmed.
#[derive(Debug)]
pub(super) struct PendingRelease {
    pub(super) uid: Arc<str>,
    /// When the grant has certainly expired.
    pub(super) expires_at: Instant,
    pub(super) retry_at: Instant,
    /// Whether a request to release it was sent, and waits between such requests.
    pub(super) is_sent: bool,
    pub(super) backoff: Backoff,
    pub(super) rpc: Option<RpcId>,
}

impl PendingRelease {
    /// Returns when it is to be sent again or dropped.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.rpc.is_some() {
            Some(self.expires_at)
        } else {
            Some(self.retry_at.min(self.expires_at))
        }
    }
}

impl LockerState {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            vote: Vote::None,
            rpc: None,
            confirmed_token: None,
            refresh_at: now,
            may_have_granted: false,
            pending_release: None,
            wait_rpc: None,
            availability: Availability::Unknown,
            can_notify: true,
        }
    }

    /// Returns whether no release and no other request is outstanding, so that it can be refreshed.
    pub(super) fn is_idle(&self) -> bool {
        self.rpc.is_none() && self.pending_release.is_none()
    }

    /// Returns whether it has confirmed all releases.
    pub(super) fn is_released(&self) -> bool {
        self.pending_release.is_none()
    }

    /// Returns whether it would take part in another attempt.
    pub(super) fn is_ready(&self) -> bool {
        self.availability == Availability::Free && self.is_released()
    }

    /// Returns whether it reported a conflict, and can notify when that is over.
    pub(super) fn accepts_waiters(&self) -> bool {
        matches!(self.availability, Availability::Blocked | Availability::QueuedAhead)
            && self.can_notify
    }

    /// Returns whether it is free, or will notify when it is.
    pub(super) fn will_notify(&self) -> bool {
        self.wait_rpc.is_some() || self.availability == Availability::Free
    }

    /// Returns whether it has confirmed this token, with a vote that is valid.
    pub(super) fn knows(&self, token: Token, now: Instant) -> bool {
        self.confirmed_token == Some(token) && self.is_valid(now)
    }

    pub(super) fn valid_until(&self) -> Option<Instant> {
        match self.vote {
            Vote::Granted { until, .. } => Some(until),
            Vote::None => None,
        }
    }

    pub(super) fn is_valid(&self, now: Instant) -> bool {
        self.valid_until().is_some_and(|until| until > now)
    }

    /// Returns the highest token that it knew when it granted.
    pub(super) fn token(&self) -> Option<Token> {
        match self.vote {
            Vote::Granted { token, .. } => Some(token),
            Vote::None => None,
        }
    }
}
