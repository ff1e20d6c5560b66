//! What `gridwire lock` and `gridwire locks` and the server that they ask say to each other.
//!
//! ```text
//!   gridwire lock                         server
//!   HoldRequest ────────────────────►  takes the lock
//!               ◄────────────────────  Granted, or Refused and the end
//!   Ping 0 ─────────────────────────►
//!               ◄────────────────────  Pong 0: how long the lock is certain, as of this answer
//!   …                                  …
//!               ◄────────────────────  Lost and the end, once it is
//!   the end ────────────────────────►  releases the lock
//!               ◄────────────────────  the end
//! ```
//!
//! A connection that is lost ends the stream at both sides: the server then releases, the tool counts
//! the lock as lost.

use dsync::{ForceReport, Forced, Listing};
use grid::{HandlerId, SingleHandler, StreamHandler};
use serde::{Deserialize, Serialize};

/// Takes a lock for a client, and holds it as long as the stream lasts.
pub(crate) const HOLD_LOCK: StreamHandler<HoldRequest, Ping, HoldAnswer> =
    StreamHandler::new(HandlerId::new(132), "HoldLock");

/// Asks all lockers who holds and who waits.
pub(crate) const GET_LOCKS: SingleHandler<GetLocksRequest, Listing> =
    SingleHandler::new(HandlerId::new(65), "GetLocks");

/// Forces locks open, at all lockers.
pub(crate) const FORCE_UNLOCK: SingleHandler<ForceRequest, ForceReport> =
    SingleHandler::new(HandlerId::new(133), "ForceUnlock");

/// How long lockers are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GetLocksRequest {
    pub(crate) timeout_ms: u64,
}

/// Which locks to force open, and how long lockers are waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForceRequest {
    pub(crate) what: Forced,
    pub(crate) timeout_ms: u64,
}

/// Which lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldRequest {
    /// All or none.
    pub(crate) resources: Vec<String>,
    /// Shared with other readers.
    pub(crate) read: bool,
    /// Longest wait for the lock.
    pub(crate) timeout_ms: u64,
    /// Who asks, for those who list locks.
    pub(crate) source: String,
}

/// Asks how long the lock is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ping {
    /// Counted from 0.
    pub(crate) number: u64,
}

/// All that the server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HoldAnswer {
    /// The lock is held.
    Granted {
        /// Grows from holder to holder.
        token: u64,
        /// The lock's id.
        uid: String,
        /// How long it was certain when this was sent. The tool cannot tell when that was, and asks
        /// anew.
        valid_for_ms: u64,
    },
    /// There is no lock; the stream ends.
    Refused {
        /// Whose fault it is.
        reason: Refusal,
        /// In words.
        why: String,
    },
    /// Answers a ping.
    Pong {
        /// The ping's.
        number: u64,
        /// How long the lock was certain when this was sent.
        valid_for_ms: u64,
    },
    /// The lock is held no more, or not for long: the command is to end.
    Lost {
        /// In words.
        why: String,
    },
}

/// Why there is no lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// Others held it all the time that there was.
    TimedOut,
    /// What was asked for cannot be locked.
    Invalid,
    /// The server takes no locks now.
    Unavailable,
}
