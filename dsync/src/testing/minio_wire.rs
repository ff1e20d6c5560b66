//! MinIO's lock messages, and nothing else: no extension field, no optional array.

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

/// Request to a locker. An absent field is a default; a nil array is an error, as in MinIO.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MinioArgs {
    /// Id of the lock.
    #[serde(rename = "UID")]
    pub uid: String,
    /// Resources to lock.
    #[serde(rename = "Resources")]
    pub resources: Vec<String>,
    /// Host and port of the server that requests the lock.
    #[serde(rename = "Owner")]
    pub owner: String,
    /// Call site in the holder's code.
    #[serde(rename = "Source")]
    pub source: String,
    /// Number of lockers that must grant it.
    #[serde(rename = "Quorum")]
    pub quorum: Option<i64>,
}

/// Response of a locker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MinioResponse {
    /// 0 success, 1 conflict, 3 not found, 4 error.
    #[serde(rename = "Code")]
    pub code: u8,
    /// Error message.
    #[serde(rename = "Err")]
    pub error: String,
}

impl MinioResponse {
    pub(super) const SUCCESS: u8 = 0;
    pub(super) const CONFLICT: u8 = 1;
    pub(super) const NOT_FOUND: u8 = 3;
    pub(super) const ERROR: u8 = 4;

    /// Returns whether a holder treats the response as a failure. (Conflict and not found are not.)
    pub(super) fn is_error(&self) -> bool {
        !matches!(self.code, Self::SUCCESS | Self::CONFLICT | Self::NOT_FOUND)
    }

    pub(super) fn of(code: u8) -> Self {
        Self { code, error: String::new() }
    }

    pub(super) fn failed(error: &str) -> Self {
        Self { code: Self::ERROR, error: error.to_owned() }
    }
}

/// The operations of a locker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinioOperation {
    /// Grants a write lock.
    Lock,
    /// Grants a read lock.
    ReadLock,
    /// Releases a write lock.
    Unlock,
    /// Releases a read lock.
    ReadUnlock,
    /// Keeps a lock from being swept.
    Refresh,
    /// Releases a lock by its UID, or all locks of the resources.
    ForceUnlock,
}

impl MinioOperation {
    pub(super) const ALL: [Self; 6] = [
        Self::Lock,
        Self::ReadLock,
        Self::Unlock,
        Self::ReadUnlock,
        Self::Refresh,
        Self::ForceUnlock,
    ];

    pub(super) const fn handler(self) -> SingleHandler<MinioArgs, MinioResponse> {
        match self {
            Self::Lock => SingleHandler::new(HandlerId::new(1), "Lock"),
            Self::ReadLock => SingleHandler::new(HandlerId::new(2), "RLock"),
            Self::Unlock => SingleHandler::new(HandlerId::new(3), "Unlock"),
            Self::ReadUnlock => SingleHandler::new(HandlerId::new(4), "RUnlock"),
            Self::Refresh => SingleHandler::new(HandlerId::new(5), "Refresh"),
            Self::ForceUnlock => SingleHandler::new(HandlerId::new(6), "ForceUnlock"),
        }
    }
}
