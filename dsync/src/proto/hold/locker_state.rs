//! A holder's view of one locker.

use std::sync::Arc;

use grid::backoff::Backoff;
use grid::time::Instant;

use super::RpcId;
use crate::proto::token::Token;

/// A holder's view of one locker.
#[derive(Debug)]
pub(super) struct LockerState {
    /// Its implementation, as far as its responses show it.
    pub(super) family: Family,
    /// Its vote for the current attempt.
    pub(super) vote: Vote,
    /// Outstanding RPC of the current attempt.
    pub(super) rpc: Option<OutstandingRpc>,
    /// Whether the lock request of the current attempt failed, and may still be executed.
    pub(super) has_lost_lock: bool,
    /// Token that the locker has confirmed to have recorded.
    pub(super) confirmed_token: Option<Token>,
    /// When the next refresh is due.
    pub(super) refresh_at: Instant,
    /// Whether the locker may have granted the current attempt.
    pub(super) may_have_granted: bool,
    /// Release of an earlier attempt that the locker has not confirmed.
    pub(super) pending_release: Option<PendingRelease>,
    /// Whether it is likely to grant the next attempt.
    pub(super) availability: Availability,
    /// Outstanding wait request, to which the locker responds when a retry is worthwhile. It stays
    /// over attempts.
    pub(super) wait_rpc: Option<RpcId>,
    /// When the next wait request is due, which renews the ticket; absent if it keeps no ticket.
    pub(super) wait_at: Option<Instant>,
    /// Whether the ticket may be in its queues.
    pub(super) may_be_queued: bool,
    /// Outstanding cancellation of the ticket.
    pub(super) ticket_cancel: Option<TicketCancel>,
}

/// Implementation of a locker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// No response yet. It is handled as a plain one.
    Unknown,
    /// This crate's: a response had a wall clock reading.
    Ours,
    /// MinIO's: it knows no tokens, tickets or leases, and executes requests in any order.
    Plain,
}

/// A vote for the current attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vote {
    None,
    Granted {
        until: Instant,
        /// Highest token that the locker knew.
        token: Token,
        /// Its wall clock.
        wall: Token,
    },
}

/// State of a locker since the current attempt began: whether another request to it is worthwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Availability {
    /// It granted the lock, or sent a notification.
    Free,
    /// Others hold the lock there.
    Blocked,
    /// Older waiters are queued there.
    QueuedAhead,
    /// It does not grant now: restarted, not admitted, or overloaded.
    NotReady,
    /// It has another list of lockers.
    ListDiffers,
    /// No request could be sent to it, or it did not respond in time.
    Unreachable,
    /// It was not asked, or its response was not waited for.
    Unknown,
}

impl Availability {
    /// Returns whether the locker has responded in the current attempt.
    pub(super) fn is_response(self) -> bool {
        !matches!(self, Self::Unreachable | Self::Unknown)
    }
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

/// Cancellation of the ticket at a locker. It is sent once: without contact the ticket expires.
#[derive(Debug, Clone, Copy)]
pub(super) struct TicketCancel {
    pub(super) rpc: RpcId,
    pub(super) expires_at: Instant,
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
    /// Whether the outstanding request keeps the ticket in the queues.
    pub(super) keeps_ticket: bool,
    /// Outstanding lock request to a plain locker: it might be executed after the release, so the
    /// release follows its response.
    pub(super) lock_rpc: Option<RpcId>,
    /// Whether the release is sent again although it is confirmed.
    pub(super) repetition: Repetition,
}

/// A lock request to a plain locker that failed may be executed after the release: then the release
/// is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repetition {
    /// One confirmation is enough.
    None,
    /// It is repeated some time after it was first sent.
    Due,
    /// It is repeated at this time.
    At(Instant),
}

impl PendingRelease {
    /// Returns when it is to be sent again or dropped.
    pub(super) fn due(&self) -> Instant {
        if self.rpc.is_some() || self.lock_rpc.is_some() {
            self.expires_at
        } else {
            self.retry_at.min(self.expires_at)
        }
    }

    /// Returns whether a request to release it is to be sent.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.rpc.is_none() && self.lock_rpc.is_none() && self.retry_at <= now
    }

    /// Returns its outstanding RPCs.
    pub(super) fn rpcs(&self) -> impl Iterator<Item = RpcId> + use<> {
        self.rpc.into_iter().chain(self.lock_rpc)
    }
}

impl LockerState {
    pub(super) fn new(family: Family, now: Instant) -> Self {
        Self {
            family,
            vote: Vote::None,
            rpc: None,
            has_lost_lock: false,
            confirmed_token: None,
            refresh_at: now,
            may_have_granted: false,
            pending_release: None,
            availability: Availability::Unknown,
            wait_rpc: None,
            wait_at: None,
            may_be_queued: false,
            ticket_cancel: None,
        }
    }

    /// Returns whether it is of this crate.
    pub(super) fn is_ours(&self) -> bool {
        self.family == Family::Ours
    }

    /// Returns whether no release and no other request is outstanding, so that it can be refreshed.
    pub(super) fn is_idle(&self) -> bool {
        self.rpc.is_none() && self.pending_release.is_none()
    }

    /// Returns whether it has confirmed all releases.
    pub(super) fn is_released(&self) -> bool {
        self.pending_release.is_none()
    }

    /// Returns whether nothing is left to do there once the lock has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.is_released() && self.ticket_cancel.is_none()
    }

    /// Returns whether it would take part in another attempt.
    pub(super) fn is_ready(&self) -> bool {
        self.availability == Availability::Free && self.is_released()
    }

    /// Returns whether it is free, or will notify when it is.
    pub(super) fn will_notify(&self) -> bool {
        self.wait_rpc.is_some() || self.availability == Availability::Free
    }

    /// Returns whether it has confirmed this token, with a vote that is valid. A plain locker
    /// confirms refreshes, but records no token.
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

    /// Returns its wall clock when it granted.
    pub(super) fn wall(&self) -> Option<Token> {
        match self.vote {
            Vote::Granted { wall, .. } => Some(wall),
            Vote::None => None,
        }
    }
}
