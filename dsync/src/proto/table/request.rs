//! Requests to a locker, and its responses.

use std::sync::Arc;
use std::time::Duration;

use crate::proto::quorum::{ListId, LockKind};
use crate::proto::resources::Resources;
use crate::proto::token::Token;
use crate::proto::waiters::Ticket;

/// One attempt to take a lock. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    /// Unique id of the attempt, and of the grant that it gets. From MinIO holders, which do not
    /// support leases, it is that of the lock over all of its attempts ([B59](crate::rules#b59)).
    pub uid: Arc<str>,
    /// Resources to lock.
    pub resources: Resources,
    /// Read or write.
    pub kind: LockKind,
    /// Name of the server that requests the lock.
    pub owner: Arc<str>,
    /// Call site in the holder's code, for operators.
    pub source: Arc<str>,
    /// Number of lockers that must grant it.
    pub quorum: usize,
    /// Token that the holder proposes; the smallest if it has no estimate.
    pub proposed_token: Token,
    /// Its ticket. Without one, it is behind all that are queued.
    pub ticket: Option<Ticket>,
    /// Whether the holder stops when it cannot refresh its lock. MinIO holders do not, and get no
    /// notice when their lock is forced open.
    pub supports_leases: bool,
    /// List of lockers that the holder uses.
    pub list: ListId,
}

/// Response to a lock request that this locker granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Highest token known for the resources: the proposed one, if and only if it was accepted.
    pub token: Token,
    /// Duration of the grant unless it is refreshed.
    pub lease: Duration,
}

/// Why a lock was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Others hold it.
    Conflict,
    /// None of the others holds it, but an older waiter is queued.
    QueuedAhead,
    /// The request is for another list of lockers.
    ListDiffers,
    /// This server has not verified the cluster yet.
    NotReady,
    /// This locker has restarted and does not grant yet.
    Closed,
    /// The attempt has already been released.
    AttemptEnded,
    /// The table of this locker is full.
    Full,
}

/// Request to extend a grant by another lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshRequest {
    /// Id of the grant.
    pub uid: Arc<str>,
    /// Claim for a locker that has lost the grant; absent from MinIO holders.
    pub claim: Option<LeaseClaim>,
}

/// Proof of an earlier grant, from which a locker can reinstate it after losing its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseClaim {
    /// The original lock request.
    pub request: LockRequest,
    /// Token of the lock.
    pub token: Token,
    /// Whether the holder's vote from this locker is still valid.
    pub is_valid: bool,
}

/// Response to a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The grant is extended.
    Held {
        /// Duration of the lease.
        lease: Duration,
    },
    /// This locker had lost the grant, is closed, and has reinstated it. The grant is extended only
    /// if the holder's vote was valid until this response: otherwise this locker may meanwhile have
    /// granted to others, and lost that too.
    Reinstated {
        /// Duration of the lease.
        lease: Duration,
    },
    /// This locker has no such grant.
    NotFound,
    /// This locker has restarted, and does not know yet whether it had granted the lock.
    Closed,
    /// The request is for another list of lockers, and changed nothing.
    ListDiffers,
    /// The claimed token is too far ahead of this locker's clock to be recorded. The grant is not
    /// extended.
    TokenAhead,
}

impl Refusal {
    /// Returns whether the request's ticket is queued with the refusal ([B58](crate::rules#b58)).
    /// A locker that has restarted queues it too: it may be the only one that knows the ticket.
    pub(super) fn enqueues_ticket(self) -> bool {
        match self {
            Self::Conflict | Self::QueuedAhead | Self::Closed => true,
            Self::ListDiffers | Self::NotReady | Self::AttemptEnded | Self::Full => false,
        }
    }
}

/// Response to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnlockOutcome {
    /// The grant is released.
    Released,
    /// This locker has no such grant. A request of the same attempt that arrives later is refused.
    NotFound,
}
