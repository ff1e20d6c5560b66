//! Messages between `gridwire lock` or `gridwire locks` and a server.
//!
//! ```text
//!   gridwire lock                         server
//!   HoldRequest ────────────────────►  acquires the lock
//!               ◄────────────────────  Granted, or Refused and end of stream
//!   Ping 0 ─────────────────────────►
//!               ◄────────────────────  Pong 0: remaining validity of the lock
//!   …                                  …
//!               ◄────────────────────  Lost, if it is lost
//!   end of stream ──────────────────►  releases the lock
//!               ◄────────────────────  end of stream
//! ```
//!
//! A lost connection ends the stream at both ends. The tool then considers the lock lost, and ends
//! its command. The server keeps the lock until the validity that it has promised in a pong has
//! passed, because the tool may have been killed or stopped; so it does for a tool that sends no
//! pings.

use dsync::{ForceReport, ForceTarget, Listing};
use grid::{HandlerId, SingleHandler, StreamHandler};
use serde::{Deserialize, Serialize};

/// Holds a lock for a client, as long as the stream lasts.
pub(crate) const HOLD_LOCK: StreamHandler<HoldRequest, Ping, HoldResponse> =
    StreamHandler::new(HandlerId::new(132), "HoldLock");

/// Lists the locks and waiters of all lockers.
pub(crate) const GET_LOCKS: SingleHandler<GetLocksRequest, Listing> =
    SingleHandler::new(HandlerId::new(65), "GetLocks");

/// Forces locks open at all lockers.
pub(crate) const FORCE_UNLOCK: SingleHandler<ForceRequest, ForceReport> =
    SingleHandler::new(HandlerId::new(133), "ForceUnlock");

/// A request to list locks, with the longest wait for lockers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GetLocksRequest {
    pub(crate) timeout_ms: u64,
}

/// A request to force locks open, with the longest wait for lockers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForceRequest {
    /// Locks to force open.
    pub(crate) what: ForceTarget,
    pub(crate) timeout_ms: u64,
}

/// A request to hold a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldRequest {
    /// Resources to lock, all or none.
    pub(crate) resources: Vec<String>,
    /// Whether to lock for reading, shared with other readers.
    pub(crate) read: bool,
    /// Longest wait for the lock; 0 to ask the lockers once.
    pub(crate) timeout_ms: u64,
    /// Identifies the holder in lists of locks.
    pub(crate) source: String,
}

/// Asks for the current validity of the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ping {
    /// Counted from 0.
    pub(crate) number: u64,
}

/// Messages of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HoldResponse {
    /// The lock is held.
    Granted {
        /// Fencing token, which grows with each holder; `None` if too few lockers have tokens.
        token: Option<u64>,
        /// Id of the lock.
        uid: String,
        /// Validity when this was sent. The tool cannot know that time, so it sends a ping.
        valid_for_ms: u64,
    },
    /// The lock was not acquired; the stream ends.
    Refused {
        /// Machine-readable reason.
        reason: Refusal,
        /// Human-readable reason.
        why: String,
    },
    /// The response to a ping.
    Pong {
        /// Number of the ping.
        number: u64,
        /// Validity of the lock when this was sent.
        valid_for_ms: u64,
    },
    /// The lock is lost, or will be soon: the command must end.
    Lost {
        /// Human-readable reason.
        why: String,
    },
}

/// Why the lock was not acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// Other holders kept it until the timeout, or hold it when it is tried for once.
    TimedOut,
    /// The resources or the source are invalid.
    Invalid,
    /// The server cannot acquire locks now.
    Unavailable,
}
