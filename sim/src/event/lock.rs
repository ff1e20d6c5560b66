//! Words for what happens to locks, and to what they protect.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a lock was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum LockFailure {
    /// Not within its time.
    TimedOut,
    /// Whoever asked gave it up.
    GaveUp,
    /// The process takes no more: it is ending.
    ShuttingDown,
    /// It was granted, and lost before whoever asked was told.
    Lost,
    /// Nobody was asked.
    NotAsked {
        /// Why.
        text: String,
    },
    /// The process of whoever asked crashed.
    Crashed,
}

/// How a holder noticed that its lock is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// It was told: `lost` resolved.
    Told,
    /// It looked before it did something.
    Looked,
}

/// How a lock ended for its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockEnd {
    /// It begins to unlock.
    Unlocked,
    /// It drops the guard.
    Dropped,
    /// It was lost.
    Lost,
    /// Its process crashed.
    Crashed,
}

/// What a holder wants of the protected store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum StoreOp {
    /// To know the value.
    Read,
    /// To set it.
    Write {
        /// To this.
        value: u64,
    },
    /// To read it and to set it to one more: two steps, between which only the lock keeps others
    /// out.
    Increment,
}

/// What came of an operation on the protected store, for the holder that wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "came", rename_all = "snake_case")]
pub enum StoreResult {
    /// It is done.
    Done {
        /// The value that it read, or wrote.
        value: u64,
    },
    /// The store refused it for its token, and nothing is changed.
    Refused,
    /// The holder noticed that its lock is lost before it had changed anything.
    Abandoned,
    /// Nobody knows: its process crashed. It may have been done until then.
    Unknown,
}

impl fmt::Display for LockFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("timed out"),
            Self::GaveUp => f.write_str("given up"),
            Self::ShuttingDown => f.write_str("shutting down"),
            Self::Lost => f.write_str("lost before it was told"),
            Self::NotAsked { text } => write!(f, "not asked: {text}"),
            Self::Crashed => f.write_str("its process crashed"),
        }
    }
}

impl fmt::Display for LockEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlocked => "unlocked",
            Self::Dropped => "dropped",
            Self::Lost => "over, because it was lost",
            Self::Crashed => "over, because its process crashed",
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
            Self::Refused => f.write_str("refused for its token"),
            Self::Abandoned => f.write_str("abandoned"),
            Self::Unknown => f.write_str("nobody knows"),
        }
    }
}
