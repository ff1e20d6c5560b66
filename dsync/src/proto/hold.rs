//! One lock at its holder, from the first attempt until everything is released.
//!
//! ```text
//!             a quorum granted and accepted the proposed token
//!   Voting ───────────────────────────────────────────────────► Held
//!    ▲  │  │ a quorum granted           a quorum has recorded    │
//!    │  │  └───────────────► Fencing ── a higher token ────────► │
//!    │  │ no quorum             │       fewer valid votes        │
//!    │  ▼                       │       than a quorum            │ unlock | dropped
//!   Waiting ◄───────────────────┘    Lost ◄──────────────────────┤
//!    │                                └──────── dropped ───────► ▼
//!    └─────────────── cancelled | timed out ────────────────► Releasing ────► Finished
//!                                             confirmed by all lockers, or expired
//! ```
//!
//! A lost lock is released when its guard is dropped, or expires with its lease. Each attempt has
//! its own id. Each locker that may have granted a failed attempt gets requests to release it, for
//! as long as a lease lasts, and no other lock request until it confirms. So a late grant is
//! released ([B50](crate::rules#b50)), attempts do not accumulate at a locker that does not respond
//! ([B55](crate::rules#b55)), and the release of one attempt can never release the next. All
//! attempts share one ticket, which keeps their place in the queues ([B58](crate::rules#b58)).
//!
//! A *vote* is valid until a time that counts from when its request was sent
//! ([B52](crate::rules#b52)). The lock is held as long as a quorum of votes is valid.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::quorum::{ListId, LockKind, quorum};
use super::resources::Resources;
use super::table::{Granted, LockRequest, RefreshOutcome, RefreshRequest, Refusal};
use super::token::{Token, TokenClock};
use super::waiters::Ticket;
pub use crate::error::AttemptStats;
use crate::error::{LossReason, UnlockReport};
use crate::limits::Limits;
use grid::check_schedule::CheckSchedule;

mod attempts;
mod check;
mod locker_state;
mod refresh;
mod release;
mod responses;
#[cfg(test)]
mod tests;
mod tickets;

use locker_state::{Family, LockerState, OutstandingRpc, PendingRelease, Vote};

/// Parameters of one lock.
#[derive(Debug, Clone)]
pub struct HoldConfig {
    /// Number of lockers.
    pub lockers: usize,
    /// Whether each of them is known to be of this crate. Those that are not, or that are absent
    /// here, show it by their first response.
    pub are_ours: Vec<bool>,
    /// Resources to lock.
    pub resources: Resources,
    /// Read or write.
    pub kind: LockKind,
    /// Name of this server.
    pub owner: Arc<str>,
    /// Call site in the holder's code, for operators.
    pub source: Arc<str>,
    /// List of lockers that this server uses.
    pub list: ListId,
    /// Unique id of this lock, different from that of every other lock ever.
    pub id: Arc<str>,
    /// How long to try.
    pub attempt_limit: AttemptLimit,
    /// How to wait after a conflict.
    pub wait_mode: WaitMode,
    /// Lease, timeouts and intervals.
    pub limits: Limits,
    /// Seed of the jitter.
    pub seed: u64,
}

/// How long to try to acquire a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptLimit {
    /// One attempt. It fails as soon as the lockers' responses exclude a quorum.
    Once,
    /// As many attempts as fit into this time.
    Timeout(Duration),
    /// As many attempts as needed.
    Unlimited,
}

/// How to wait for a lock that others hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitMode {
    /// Lockers notify when a retry is worthwhile; those without notifications are polled.
    #[default]
    Notified,
    /// All lockers are polled.
    Polling,
}

/// Id of an RPC to a locker, unique within one hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RpcId(pub u64);

/// Action that the driver must take for a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Sends a request. Without a response within [`Request::time_limit`] the RPC has failed.
    Send {
        /// Id of the RPC.
        rpc: RpcId,
        /// Index of the locker.
        locker: usize,
        /// The request.
        request: Request,
    },
    /// The response to this RPC is no longer needed.
    Cancel {
        /// Id of the RPC.
        rpc: RpcId,
    },
}

/// Request to a locker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Grants a lock.
    Lock(LockRequest),
    /// Extends a grant by another lease.
    Refresh(RefreshRequest),
    /// Releases a grant.
    Unlock {
        /// Id of the grant.
        uid: Arc<str>,
        /// Its resources: MinIO lockers need them, lockers of this crate only the id.
        resources: Option<Resources>,
        /// Read or write.
        kind: LockKind,
        /// The waiter that stays in the queues after a failed attempt: queued in the same critical
        /// section.
        waiter: Option<LockRequest>,
    },
    /// Releases a grant of a MinIO holder, which names the lock and not the attempt. No holder of
    /// this crate sends it.
    PlainUnlock {
        /// Id of the lock.
        uid: Arc<str>,
        /// Name of the server that holds it; empty if the caller states none.
        owner: Arc<str>,
        /// Read or write.
        kind: LockKind,
    },
    /// Removes a ticket from the queues: its lock is held or abandoned.
    CancelTicket(Ticket),
    /// Responds when a retry is worthwhile.
    Wait(LockRequest),
}

impl Request {
    /// Timeout of the RPC.
    pub fn time_limit(&self, limits: &Limits) -> Duration {
        match self {
            Self::Lock(_)
            | Self::Refresh(_)
            | Self::Unlock { .. }
            | Self::PlainUnlock { .. }
            | Self::CancelTicket(_) => limits.attempt_timeout,
            Self::Wait(_) => crate::limits::WAIT_POLL + limits.attempt_timeout,
        }
    }
}

/// Response of a locker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// To a lock request.
    Lock(Result<Granted, Refusal>),
    /// To a refresh.
    Refresh(RefreshOutcome),
    /// To a release.
    Released,
    /// To a wait request. If not notified, the locker does not keep this waiter.
    Wait {
        /// Whether a retry is worthwhile.
        is_notified: bool,
    },
}

/// The RPC has no response, or none that can be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Whether the locker may have executed the request.
    pub may_have_run: bool,
}

/// State of a lock, as its user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not held yet.
    Acquiring,
    /// Held.
    Held {
        /// Fencing token of the lock; `None` if MinIO lockers, which know no tokens, were needed for
        /// the quorum.
        token: Option<Token>,
        /// End of its validity, by the holder's clock.
        until: Instant,
    },
    /// Not held any more, or never was. Some grants may still have to be released.
    Ended(EndReason),
}

/// Why a lock is not held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The holder released it.
    Unlocked,
    /// The attempt was cancelled.
    Cancelled,
    /// The deadline passed before it was acquired.
    TimedOut,
    /// Its only attempt failed.
    NotAcquired,
    /// It is a read lock of several resources, and MinIO lockers, which grant none, exclude a quorum.
    PlainLockers,
    /// Too few lockers confirmed a refresh in time.
    Expired,
    /// Too few lockers still have the grant: it was forced open.
    Revoked,
}

impl From<EndReason> for LossReason {
    fn from(end: EndReason) -> Self {
        match end {
            EndReason::Expired => Self::Expired,
            EndReason::Revoked => Self::Revoked,
            EndReason::Unlocked
            | EndReason::Cancelled
            | EndReason::TimedOut
            | EndReason::NotAcquired
            | EndReason::PlainLockers => Self::Released,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Voting { until: Instant },
    Fencing { token: Token, until: Instant },
    Waiting { until: Instant, is_notified: bool },
    Held { token: Token, is_fenced: bool },
    Ended(EndReason),
}

/// One lock at its holder.
#[derive(Debug)]
pub struct Hold {
    config: HoldConfig,
    quorum: usize,
    deadline: Option<Instant>,
    phase: Phase,
    lockers: Vec<LockerState>,
    uid: Arc<str>,
    request: Option<LockRequest>,
    tokens: TokenClock,
    /// Earliest time of the ticket, as far as the lockers said.
    ticket_time: Token,
    ticket: Option<Ticket>,
    stats: AttemptStats,
    /// Releases that no locker confirmed before the grant expired.
    expired_releases: usize,
    out: VecDeque<Output>,
    next_rpc: u64,
    rng: SmallRng,
    checks: CheckSchedule,
}

impl Hold {
    /// Begins the first attempt. `tokens` is the process's estimate of the lockers' clocks.
    pub fn new(config: HoldConfig, tokens: TokenClock, now: Instant) -> Self {
        let deadline = match config.attempt_limit {
            AttemptLimit::Timeout(timeout) => Some(now + timeout),
            AttemptLimit::Once | AttemptLimit::Unlimited => None,
        };
        let mut hold = Self {
            deadline,
            quorum: quorum(config.lockers, config.kind),
            phase: Phase::Voting { until: now },
            lockers: (0..config.lockers)
                .map(|locker| {
                    let is_ours = config.are_ours.get(locker).copied().unwrap_or(false);
                    LockerState::new(if is_ours { Family::Ours } else { Family::Unknown }, now)
                })
                .collect(),
            uid: Arc::clone(&config.id),
            request: None,
            tokens,
            ticket_time: Token::default(),
            ticket: None,
            stats: AttemptStats::default(),
            expired_releases: 0,
            out: VecDeque::new(),
            next_rpc: 0,
            rng: SmallRng::seed_from_u64(config.seed),
            checks: CheckSchedule::default(),
            config,
        };
        hold.begin_attempt(now);
        hold.check_after_change();
        hold
    }

    /// Returns the state at `now`.
    pub fn status(&self, now: Instant) -> Status {
        match self.phase {
            Phase::Held { token, is_fenced } => match self.valid_until() {
                Some(until) if until > now => {
                    Status::Held { token: is_fenced.then_some(token), until }
                }
                _ => Status::Ended(EndReason::Expired),
            },
            Phase::Ended(end) => Status::Ended(end),
            Phase::Voting { .. } | Phase::Fencing { .. } | Phase::Waiting { .. } => {
                Status::Acquiring
            }
        }
    }

    /// Returns whether the lock has ended and all its grants are released.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Ended(_)) && self.lockers.iter().all(LockerState::is_finished)
    }

    /// Returns whether enough lockers have confirmed the release, or never granted, for others to
    /// acquire the lock.
    pub fn is_released(&self) -> bool {
        let free = self.lockers.iter().filter(|state| state.is_released()).count();
        matches!(self.phase, Phase::Ended(_))
            && free >= quorum(self.config.lockers, LockKind::Write)
    }

    /// Returns where the release is confirmed.
    pub fn unlock_report(&self) -> UnlockReport {
        let lockers = self.lockers.len();
        let pending = self.lockers.iter().filter(|state| !state.is_released()).count();
        let confirmed = match self.phase {
            Phase::Ended(_) => lockers.saturating_sub(pending + self.expired_releases),
            _ => 0,
        };
        UnlockReport { lockers, confirmed, expired: self.expired_releases }
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> AttemptStats {
        self.stats
    }

    /// Returns the id of the current attempt and of its grants.
    pub fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    /// Returns the next action.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let releases = self.lockers.iter().filter_map(|state| {
            let release = state.pending_release.as_ref().map(PendingRelease::due);
            let cancel = state.ticket_cancel.map(|cancel| cancel.expires_at);
            release.into_iter().chain(cancel).min()
        });
        let own = match self.phase {
            Phase::Voting { until } | Phase::Fencing { until, .. } => Some(until),
            Phase::Waiting { until, .. } => {
                let waits = self.lockers.iter().filter_map(|state| state.wait_at);
                waits.filter(|_| self.ticket.is_some()).chain([until]).min()
            }
            Phase::Held { .. } => {
                let idle = self.lockers.iter().filter(|state| state.is_idle());
                let refresh = idle.map(|state| state.refresh_at).min();
                let end = self.valid_until();
                refresh.into_iter().chain(end).min()
            }
            Phase::Ended(_) => None,
        };
        let deadline = match self.phase {
            Phase::Held { .. } | Phase::Ended(_) => None,
            _ => self.deadline,
        };
        releases.chain(own).chain(deadline).min()
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.send_due_releases(now);
        self.expire_ticket_cancels(now);
        let is_late = self.deadline.is_some_and(|deadline| deadline <= now);
        match self.phase {
            Phase::Voting { .. } | Phase::Fencing { .. } if is_late => {
                self.count_outcomes();
                self.end(EndReason::TimedOut, now);
            }
            Phase::Waiting { .. } if is_late => self.end(EndReason::TimedOut, now),
            Phase::Voting { until } | Phase::Fencing { until, .. } if until <= now => {
                self.fail(now);
            }
            Phase::Waiting { until, .. } if until <= now => self.begin_attempt(now),
            Phase::Waiting { .. } => self.send_due_waits(now),
            Phase::Held { .. } => {
                self.evaluate_votes(now);
                self.send_due_refreshes(now);
            }
            Phase::Voting { .. } | Phase::Fencing { .. } | Phase::Ended(_) => {}
        }
        self.check_after_change();
    }

    /// Releases a held lock, cancels an acquisition, or releases the grants of a lost lock.
    pub fn release(&mut self, now: Instant) {
        match self.phase {
            Phase::Held { .. } => self.end(EndReason::Unlocked, now),
            Phase::Ended(_) => self.release_lost_grants(now),
            _ => self.end(EndReason::Cancelled, now),
        }
        self.check_after_change();
    }

    /// Handles a locker's notice that it forced this grant open.
    pub fn handle_revoked(&mut self, locker: usize, uid: &str, now: Instant) {
        if *self.uid == *uid
            && let Some(state) = self.lockers.get_mut(locker)
        {
            state.vote = Vote::None;
            self.evaluate_votes(now);
        }
        self.check_after_change();
    }

    /// Makes an expiry that the holder has seen final: no later response makes the lock held again.
    pub fn expire(&mut self, now: Instant) {
        if let Phase::Held { .. } = self.phase {
            self.end(EndReason::Expired, now);
        }
        self.check_after_change();
    }

    /// Returns the end of a quorum's validity; `None` if too few lockers have voted.
    fn valid_until(&self) -> Option<Instant> {
        let mut ends: Vec<_> = self.lockers.iter().filter_map(LockerState::valid_until).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(self.quorum - 1).copied()
    }

    /// Sends a request about the current attempt.
    fn send_rpc(&mut self, locker: usize, request: Request, now: Instant) {
        let token = match &request {
            Request::Refresh(refresh) => refresh.claim.as_ref().map(|claim| claim.token),
            _ => None,
        };
        let id = self.send(locker, request);
        self.lockers[locker].rpc = Some(OutstandingRpc { id, sent_at: now, token });
    }

    fn send(&mut self, locker: usize, request: Request) -> RpcId {
        let rpc = RpcId(self.next_rpc);
        self.next_rpc += 1;
        self.out.push_back(Output::Send { rpc, locker, request });
        rpc
    }
}
