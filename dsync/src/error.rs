//! Errors: one small enum per operation.

use std::time::Duration;

use grid::RegisterError;
use grid::name::NameError;

use crate::proto::hold::{AttemptStats, EndReason};
pub use crate::proto::resources::ResourcesError;

/// Why a [`Dsync`](crate::Dsync) could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit is out of range, or does not fit the others.
    #[error("limit {name} must be {must}")]
    Limit {
        /// Name of the limit.
        name: &'static str,
        /// Its constraint.
        must: &'static str,
    },
    /// A locker's address is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A locker is not among the manager's servers.
    #[error("locker {name} must be one of the servers that the manager knows")]
    Unknown {
        /// The name that was given.
        name: String,
    },
    /// A locker is listed twice.
    #[error("locker {name} is listed more than once")]
    Duplicate {
        /// The name that occurs twice.
        name: String,
    },
    /// The list has no lockers, or too many.
    #[error("there must be 1 to {max} lockers, not {count}")]
    Lockers {
        /// Number of lockers given.
        count: usize,
        /// [`LOCKERS_MAX`](crate::limits::LOCKERS_MAX).
        max: usize,
    },
    /// The manager already has such handlers: another `Dsync` was built on it.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why a lock was not acquired, or not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// It was not acquired in time. Nothing is held.
    #[error("not locked within {waited:?}: {}", describe_attempts(*stats))]
    TimedOut {
        /// Time spent trying.
        waited: Duration,
        /// Counters of the attempts.
        stats: AttemptStats,
    },
    /// It was lost while it was held: others may hold it now. Writes since its token was last
    /// accepted may have been refused.
    #[error("{0}")]
    Lost(LossReason),
    /// The resource names are invalid.
    #[error(transparent)]
    Resources(#[from] ResourcesError),
    /// The source text is too long.
    #[error("a lock's source may have {max} bytes, not {bytes}")]
    SourceTooLong {
        /// Length of the text.
        bytes: usize,
        /// [`TEXT_BYTES_MAX`](crate::limits::TEXT_BYTES_MAX).
        max: usize,
    },
    /// This process holds, acquires or is releasing as many locks as its limit.
    #[error("{max} locks are held or tried for by this process, which is the limit")]
    TooMany {
        /// [`Limits::holds_max`](crate::Limits::holds_max).
        max: usize,
    },
    /// This process is shutting down, and acquires no more locks.
    #[error("this server is shutting down")]
    ShuttingDown,
    /// There is no tokio runtime to refresh the lock on.
    #[error("a lock must be taken inside a tokio runtime")]
    NoRuntime,
}

/// Why a lock is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LossReason {
    /// Too few lockers confirmed it in time.
    #[error("the lock was lost: too few lockers confirmed it before its lease could end")]
    Expired,
    /// Too few lockers still have the grant.
    #[error("the lock was lost: it was forced open")]
    Revoked,
    /// Its holder released it.
    #[error("the lock is released")]
    Released,
}

impl From<EndReason> for LossReason {
    fn from(end: EndReason) -> Self {
        match end {
            EndReason::Expired => Self::Expired,
            EndReason::Revoked => Self::Revoked,
            EndReason::Unlocked | EndReason::Cancelled | EndReason::TimedOut => Self::Released,
        }
    }
}

fn describe_attempts(stats: AttemptStats) -> String {
    let AttemptStats { attempts, in_conflict, unreachable, .. } = stats;
    let plural = if attempts == 1 { "" } else { "s" };
    format!(
        "{attempts} attempt{plural}; in the last one {in_conflict} lockers said that others hold it \
         or are queued ahead, {unreachable} could not be reached or do not grant yet"
    )
}

/// Why a request to a locker failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LockerError {
    /// Whether the locker may have executed the request.
    pub may_have_run: bool,
    /// Description of the failure.
    pub message: String,
}
