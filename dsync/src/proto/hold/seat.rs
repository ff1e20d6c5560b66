//! What a holder knows of one locker.

use std::sync::Arc;

use grid::time::Instant;

use super::CallId;
use crate::proto::token::Token;

/// What is known of one locker.
#[derive(Debug)]
pub(super) struct Seat {
    /// Its vote for the current attempt.
    pub(super) vote: Vote,
    /// The call about the current attempt that it has not answered.
    pub(super) call: Option<Call>,
    /// The token that it has confirmed to know.
    pub(super) knows: Option<Token>,
    /// When the lock is to be refreshed there.
    pub(super) refresh_at: Instant,
    /// Whether something of the current attempt may be granted there.
    pub(super) may_hold: bool,
    /// What has to be released there, of an attempt that is over.
    pub(super) debt: Option<Debt>,
    /// The call that it answers when it is worth trying again.
    pub(super) wait: Option<CallId>,
    /// Why it did not vote for the last attempt.
    pub(super) stance: Stance,
    /// Whether it can tell waiters, as ours can: until it has answered like one that cannot.
    pub(super) tells: bool,
}

/// A vote for the current attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vote {
    None,
    Granted { until: Instant, token: Token },
}

/// Whether it is worth asking a locker again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stance {
    /// It granted, or has called.
    Free,
    /// Others hold the lock there, or wait for it.
    Blocked,
    /// It did not answer, or cannot grant for another reason.
    Unreachable,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) sent: Instant,
    /// The token that it carries.
    pub(super) token: Option<Token>,
}

/// A release that has not been confirmed.
#[derive(Debug)]
pub(super) struct Debt {
    pub(super) uid: Arc<str>,
    /// When no lease of it can stand any more.
    pub(super) until: Instant,
    pub(super) retry_at: Instant,
    pub(super) tries: u32,
    pub(super) call: Option<CallId>,
}

impl Debt {
    /// When there is something to do for it.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.call.is_some() { Some(self.until) } else { Some(self.retry_at.min(self.until)) }
    }
}

impl Seat {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            vote: Vote::None,
            call: None,
            knows: None,
            refresh_at: now,
            may_hold: false,
            debt: None,
            wait: None,
            stance: Stance::Unreachable,
            tells: true,
        }
    }

    /// Whether it can be asked to refresh: one debt at a time is enough.
    pub(super) fn is_idle(&self) -> bool {
        self.call.is_none() && self.debt.is_none()
    }

    pub(super) fn certain_until(&self) -> Option<Instant> {
        match self.vote {
            Vote::Granted { until, .. } => Some(until),
            Vote::None => None,
        }
    }

    pub(super) fn is_certain(&self, now: Instant) -> bool {
        self.certain_until().is_some_and(|until| until > now)
    }

    /// The highest token that it knew when it granted.
    pub(super) fn token(&self) -> Option<Token> {
        match self.vote {
            Vote::Granted { token, .. } => Some(token),
            Vote::None => None,
        }
    }
}
