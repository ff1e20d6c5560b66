//! Errors: one small enum per operation. Every other module may use them, so they use none.

use std::time::Duration;

use grid::RegisterError;
use grid::name::NameError;

/// Why a set of resource names is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResourcesError {
    /// The set is empty.
    #[error("a lock needs at least one resource")]
    NoResources,
    /// A name is empty.
    #[error("a resource's name must not be empty")]
    EmptyName,
    /// A name is too long.
    #[error("a resource's name may have {max} bytes, not {bytes}")]
    TooLong {
        /// Length of the name.
        bytes: usize,
        /// [`RESOURCE_NAME_BYTES_MAX`](crate::limits::RESOURCE_NAME_BYTES_MAX).
        max: usize,
    },
    /// The set has too many names.
    #[error("a lock may take {max} resources, not {count}")]
    TooMany {
        /// Number of names, at least.
        count: usize,
        /// [`RESOURCES_MAX`](crate::limits::RESOURCES_MAX).
        max: usize,
    },
}

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

/// Counters of one lock's attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttemptStats {
    /// Attempts.
    pub attempts: u32,
    /// Notifications from lockers that a retry is worthwhile.
    pub notifications: u32,
    /// Second rounds of requests, which write a token higher than any that the lockers knew.
    pub second_rounds: u32,
    /// Lockers that refused the last attempt because others hold the lock or wait for it.
    pub in_conflict: u32,
    /// Lockers of the last attempt that were unreachable, did not respond, or were closed.
    pub unreachable: u32,
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
