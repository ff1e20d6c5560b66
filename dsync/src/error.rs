//! What can go wrong: one small enum per operation.

use std::time::Duration;

use grid::RegisterError;
use grid::name::NameError;

use crate::proto::hold::{End, Tries};
pub use crate::proto::names::NamesError;

/// Why a [`Dsync`](crate::Dsync) could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit does not fit the others.
    #[error("limit {name} must be {must}")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// What it must be.
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
    /// There are none, or too many.
    #[error("there must be 1 to {max} lockers, not {count}")]
    Lockers {
        /// How many were given.
        count: usize,
        /// [`LOCKERS_MAX`](crate::limits::LOCKERS_MAX).
        max: usize,
    },
    /// The manager has such handlers already: another `Dsync` was built on it.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why a lock was not taken, or not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// It was not got in time. Nothing is held.
    #[error("not locked within {waited:?}: {}", blame(*tries))]
    TimedOut {
        /// How long it was tried.
        waited: Duration,
        /// What was tried.
        tries: Tries,
    },
    /// It was lost while it was held: others may hold it now. Whatever was written since its token
    /// was last accepted may have been refused.
    #[error("{0}")]
    Lost(Lost),
    /// What is to be locked has names that cannot be.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// A text that travels with the lock is too long.
    #[error("a lock's source may have {max} bytes, not {bytes}")]
    SourceTooLong {
        /// How long it is.
        bytes: usize,
        /// [`TEXT_BYTES_MAX`](crate::limits::TEXT_BYTES_MAX).
        max: usize,
    },
    /// This process holds, tries for, or is releasing as many locks as it may.
    #[error("{max} locks are held or tried for by this process, which is the limit")]
    TooMany {
        /// [`Limits::holds_max`](crate::Limits::holds_max).
        max: usize,
    },
    /// This process takes no more locks.
    #[error("this server is shutting down")]
    ShuttingDown,
    /// There is no tokio runtime to keep the lock on.
    #[error("a lock must be taken inside a tokio runtime")]
    NoRuntime,
}

/// How a lock was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// Too few lockers confirmed it in time.
    #[error("the lock was lost: too few lockers confirmed it before its lease could end")]
    Expired,
    /// Too few lockers know it any more.
    #[error("the lock was lost: it was forced open")]
    Revoked,
    /// Its holder released it.
    #[error("the lock is released")]
    Released,
}

impl From<End> for Lost {
    fn from(end: End) -> Self {
        match end {
            End::Expired => Self::Expired,
            End::Revoked => Self::Revoked,
            End::Unlocked | End::GivenUp | End::TimedOut => Self::Released,
        }
    }
}

fn blame(tries: Tries) -> String {
    let Tries { attempts, in_conflict, unreachable, .. } = tries;
    let plural = if attempts == 1 { "" } else { "s" };
    format!(
        "{attempts} attempt{plural}; in the last one {in_conflict} lockers said that others hold it \
         or are before us, {unreachable} could not be reached or do not grant yet"
    )
}

/// Why a locker did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct LockerError {
    /// Whether it may have done what it was asked.
    pub may_have_run: bool,
    /// What went wrong.
    pub text: String,
}
