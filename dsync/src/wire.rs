//! Messages between lockers and their callers: MinIO's msgpack maps, with extension fields
//! (PROTOCOL.md, "Locks").

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Deserializer, Serialize};

use crate::proto::table::{GrantInfo, WaiterInfo};
use crate::proto::token::Token;

mod encoding;

/// Grants a write lock.
pub const LOCK: SingleHandler<LockArgs, LockResponse> =
    SingleHandler::new(HandlerId::new(1), "Lock");
/// Grants a read lock.
pub const READ_LOCK: SingleHandler<LockArgs, LockResponse> =
    SingleHandler::new(HandlerId::new(2), "RLock");
/// Releases a write lock.
pub const UNLOCK: SingleHandler<LockArgs, LockResponse> =
    SingleHandler::new(HandlerId::new(3), "Unlock");
/// Releases a read lock.
pub const READ_UNLOCK: SingleHandler<LockArgs, LockResponse> =
    SingleHandler::new(HandlerId::new(4), "RUnlock");
/// Extends a lock by another lease.
pub const REFRESH: SingleHandler<LockArgs, LockResponse> =
    SingleHandler::new(HandlerId::new(5), "Refresh");
/// Forces locks open.
pub const FORCE_UNLOCK: SingleHandler<LockArgs, LockResponse> =
    SingleHandler::new(HandlerId::new(6), "ForceUnlock");
/// Queries a node for the leases that it holds from a locker that has restarted.
pub const HELD_LEASES: SingleHandler<HeldLeasesArgs, HeldLeasesResponse> =
    SingleHandler::new(HandlerId::new(128), "Holdings");
/// Long poll: responds when a retry may succeed.
pub const WAIT: SingleHandler<LockArgs, LockResponse> =
    SingleHandler::new(HandlerId::new(129), "Wait");
/// Lists a locker's grants and waiters.
pub const LIST: SingleHandler<ListArgs, LockerListing> =
    SingleHandler::new(HandlerId::new(130), "List");
/// Notifies a holder that a locker has forced its lock open.
pub const REVOKED: SingleHandler<RevokedArgs, ()> =
    SingleHandler::new(HandlerId::new(131), "Revoked");
/// Queries a server for the list of lockers that it knows, and for the state of its own locker.
pub const LOCKER_STATE: SingleHandler<LockerStateArgs, LockerStateResponse> =
    SingleHandler::new(HandlerId::new(134), "LockerState");
/// Extends several locks by another lease.
pub const REFRESH_BATCH: SingleHandler<RefreshBatchArgs, RefreshBatchResponse> =
    SingleHandler::new(HandlerId::new(135), "RefreshBatch");
/// Removes a ticket from the queues of a locker.
pub const CANCEL_TICKET: SingleHandler<LockArgs, LockResponse> =
    SingleHandler::new(HandlerId::new(136), "CancelTicket");

/// Request to a locker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockArgs {
    /// Id of the attempt, and of the grant that it gets.
    #[serde(rename = "UID")]
    pub uid: String,
    /// Resources to lock. Always an array: MinIO's decoder refuses nil ([B59](crate::rules#b59)).
    #[serde(rename = "Resources", deserialize_with = "nil_as_default")]
    pub resources: Vec<String>,
    /// Name of the server that requests the lock.
    #[serde(rename = "Owner")]
    pub owner: String,
    /// Call site in the holder's code.
    #[serde(rename = "Source")]
    pub source: String,
    /// Number of lockers that must grant it.
    #[serde(rename = "Quorum")]
    pub quorum: Option<i64>,
    /// Extension: set if the holder stops when it cannot refresh its lock. All fields below depend
    /// on it.
    #[serde(rename = "Leased", skip_serializing_if = "is_default")]
    pub leased: bool,
    /// Extension, for a refresh: whether it is a write lock.
    #[serde(rename = "Write", skip_serializing_if = "is_default")]
    pub write: bool,
    /// Extension: token of the lock, or the proposed one.
    #[serde(rename = "Token", skip_serializing_if = "is_default")]
    pub token: Token,
    /// Extension, for a refresh: token that the lock request proposed.
    #[serde(rename = "Proposal", skip_serializing_if = "is_default")]
    pub proposed_token: Token,
    /// Extension: time of a waiter's ticket.
    #[serde(rename = "Ticket", skip_serializing_if = "is_default")]
    pub ticket_time: Token,
    /// Extension: id of a waiter; empty if there is none.
    #[serde(rename = "Waiter", skip_serializing_if = "is_default")]
    pub waiter: String,
    /// Extension, for a refresh: whether the holder's vote from this locker is still valid.
    #[serde(rename = "Certain", skip_serializing_if = "is_default")]
    pub is_valid: bool,
    /// Extension: epoch of the list of lockers that the holder uses.
    #[serde(rename = "Epoch", skip_serializing_if = "is_default")]
    pub epoch: u64,
    /// Extension: hash of the list of lockers that the holder uses; 0 if it states none.
    #[serde(rename = "List", skip_serializing_if = "is_default")]
    pub list_hash: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn nil_as_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Response of a locker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockResponse {
    /// One of the `CODE_` constants.
    #[serde(rename = "Code")]
    pub code: u8,
    /// Error message for operators.
    #[serde(rename = "Err")]
    pub error: String,
    /// Extension: highest token known for the resources.
    #[serde(rename = "Token", skip_serializing_if = "is_default")]
    pub token: Token,
    /// Extension: highest token that the locker knows.
    #[serde(rename = "High", skip_serializing_if = "is_default")]
    pub highest_token: Token,
    /// Extension: reading of the locker's wall clock.
    #[serde(rename = "Wall", skip_serializing_if = "is_default")]
    pub wall: Token,
    /// Extension: duration of the grant, in milliseconds.
    #[serde(rename = "Lease", skip_serializing_if = "is_default")]
    pub lease_ms: u64,
    /// Extension: the locker is closed, but has reinstated the lock.
    #[serde(rename = "Taught", skip_serializing_if = "is_default")]
    pub reinstated: bool,
    /// Extension: whether the ticket of the request is in this locker's queues.
    #[serde(rename = "Queued", skip_serializing_if = "is_default")]
    pub is_queued: bool,
    /// Extension: highest time of a ticket that was ever queued here.
    #[serde(rename = "LastTicket", skip_serializing_if = "is_default")]
    pub last_ticket: Token,
    /// Extension, with code 16: epoch of the list of lockers that the locker uses.
    #[serde(rename = "Epoch", skip_serializing_if = "is_default")]
    pub epoch: u64,
    /// Extension, with code 16: hash of the list of lockers that the locker uses.
    #[serde(rename = "List", skip_serializing_if = "is_default")]
    pub list_hash: u64,
}

/// Success.
pub const CODE_OK: u8 = 0;
/// Conflict: others hold the lock, or wait for it.
pub const CODE_CONFLICT: u8 = 1;
/// The locker has restarted and does not grant yet.
pub const CODE_NOT_INITIALISED: u8 = 2;
/// There is no such grant, or the attempt has ended.
pub const CODE_NOT_FOUND: u8 = 3;
/// Any other error; the response describes it.
pub const CODE_ERROR: u8 = 4;
/// Extension, only to holders with leases: the request is for another list of lockers, and changed
/// nothing.
pub const CODE_EPOCH_DIFFERS: u8 = 16;

/// Query of a restarted locker for the leases that a node still relies on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldLeasesArgs {
    /// Cursor: end of the previous page; 0 for the first page.
    #[serde(rename = "After")]
    pub after: u64,
}

/// One page of a node's lease report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldLeasesResponse {
    /// Claims, as in refreshes.
    #[serde(rename = "Holdings")]
    pub held_leases: Vec<LockArgs>,
    /// Highest token that the node knows.
    #[serde(rename = "High")]
    pub highest_token: Token,
    /// Cursor of the next page; 0 after the last page.
    #[serde(rename = "Next")]
    pub next: u64,
}

/// Query for the list of grants and waiters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListArgs {}

/// Grants and waiters of one locker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockerListing {
    /// The oldest grants, as many as fit.
    pub grants: Vec<GrantInfo>,
    /// The first waiters, as many as fit.
    pub waiters: Vec<WaiterInfo>,
    /// Number of grants.
    pub grants_total: u64,
    /// Number of waiters.
    pub waiters_total: u64,
    /// Whether it grants locks; if not, it has restarted and does not know its earlier grants yet.
    pub is_open: bool,
}

/// Notice that a lock was forced open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokedArgs {
    /// Id of the grant.
    #[serde(rename = "UID")]
    pub uid: String,
}

/// Query for the state of a locker, with the list that the caller knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockerStateArgs {
    /// Epoch of the caller's list.
    #[serde(rename = "Epoch")]
    pub epoch: u64,
    /// Hash of the caller's list.
    #[serde(rename = "List")]
    pub list_hash: u64,
    /// Hash of the caller's list of servers.
    #[serde(rename = "Servers")]
    pub servers_hash: u64,
}

/// State of a server's locker, and the list that the server knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockerStateResponse {
    /// Epoch of the server's list.
    #[serde(rename = "Epoch")]
    pub epoch: u64,
    /// Hash of the server's list.
    #[serde(rename = "List")]
    pub list_hash: u64,
    /// Hash of the server's list of servers.
    #[serde(rename = "Servers")]
    pub servers_hash: u64,
    /// Time since its locker began to refuse all older epochs, in milliseconds.
    #[serde(rename = "SealedForMs")]
    pub sealed_for_ms: u64,
    /// Whether its locker grants locks.
    #[serde(rename = "GateOpen")]
    pub is_gate_open: bool,
    /// Time since its locker started, in milliseconds.
    #[serde(rename = "UpForMs")]
    pub up_for_ms: u64,
    /// Random id of the server's process.
    #[serde(rename = "Process")]
    pub process: u64,
    /// Highest token that its locker knows.
    #[serde(rename = "High")]
    pub highest_token: Token,
    /// Whether the server has a locker.
    #[serde(rename = "IsLocker")]
    pub is_locker: bool,
}

/// Refreshes of several locks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshBatchArgs {
    /// Arguments of each refresh, at most
    /// [`REFRESHES_PER_BATCH`](crate::limits::REFRESHES_PER_BATCH).
    #[serde(rename = "Refreshes")]
    pub refreshes: Vec<LockArgs>,
}

/// Responses to several refreshes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshBatchResponse {
    /// Response to each refresh, in the same order.
    #[serde(rename = "Responses")]
    pub responses: Vec<LockResponse>,
}
