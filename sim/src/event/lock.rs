//! Outcomes of locks, and operations on the store that they protect.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a lock was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum LockFailure {
    /// It was not granted within its timeout.
    TimedOut,
    /// The caller cancelled the attempt.
    Cancelled,
    /// The process accepts no more requests: it is shutting down.
    ShuttingDown,
    /// It was granted, and lost before the grant was reported.
    Lost,
    /// No request was sent to a locker.
    NotAttempted {
        /// The reason.
        text: String,
    },
    /// The process of the caller crashed.
    Crashed,
}

/// How a holder noticed that its lock is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossNotice {
    /// By notification: `lost` resolved.
    Notified,
    /// By a check of `is_held()` before its next step.
    Checked,
}

/// How a lock ended for its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockEnd {
    /// Its holder starts to unlock it.
    Unlocked,
    /// Its holder drops the guard.
    Dropped,
    /// It was lost.
    Lost,
    /// The process of its holder crashed.
    Crashed,
}

/// An operation on the protected store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum StoreOp {
    /// Reads the value.
    Read,
    /// Writes a value.
    Write {
        /// The new value.
        value: u64,
    },
    /// Reads the value and writes its successor: two steps, between which only the lock excludes
    /// other holders.
    Increment,
}

/// The result of an operation on the protected store, as its holder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum StoreResult {
    /// It succeeded.
    Done {
        /// The value read or written.
        value: u64,
    },
    /// The store refused it because of its token, and nothing is changed.
    Refused,
    /// The holder noticed the loss of its lock before it had changed anything.
    Abandoned,
    /// The result is unknown: the process crashed, and the operation may have taken effect.
    Unknown,
}

impl fmt::Display for LockFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("timed out"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::ShuttingDown => f.write_str("shutting down"),
            Self::Lost => f.write_str("lost before the grant was reported"),
            Self::NotAttempted { text } => write!(f, "not attempted: {text}"),
            Self::Crashed => f.write_str("its process crashed"),
        }
    }
}

impl fmt::Display for LockEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlocked => "unlocked",
            Self::Dropped => "dropped",
            Self::Lost => "ended, because it was lost",
            Self::Crashed => "ended, because its process crashed",
        })
    }
}

impl fmt::Display for StoreOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write { value } => write!(f, "write {value}"),
            Self::Increment => f.write_str("increment"),
        }
    }
}

impl fmt::Display for StoreResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { value } => write!(f, "done, {value}"),
            Self::Refused => f.write_str("refused because of its token"),
            Self::Abandoned => f.write_str("abandoned"),
            Self::Unknown => f.write_str("result unknown"),
        }
    }
}
