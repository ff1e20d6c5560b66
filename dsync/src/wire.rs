//! Messages between lockers and their callers: MinIO's msgpack maps, with extension fields
//! (PROTOCOL.md, "Locks").

use std::sync::Arc;
use std::time::Duration;

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

use crate::limits::{LEASE, TEXT_BYTES_MAX};
use crate::proto::hold::{Request, Response};
use crate::proto::quorum::LockKind;
use crate::proto::resources::Resources;
use crate::proto::table::{
    ForceTarget, GrantInfo, Granted, HeldLease, LeaseClaim, LockRequest, RefreshOutcome,
    RefreshRequest, Refusal, WaiterInfo,
};
use crate::proto::token::{Token, TokenStamp};
use crate::proto::waiters::Ticket;

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

/// Request to a locker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockArgs {
    /// Id of the attempt, and of the grant that it gets.
    #[serde(rename = "UID")]
    pub uid: String,
    /// Resources to lock.
    #[serde(rename = "Resources")]
    pub resources: Option<Vec<String>>,
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
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl LockArgs {
    /// Encodes a request.
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Lock(request) | Request::Wait(request) => Self::lock_request(request),
            Request::Refresh(RefreshRequest { uid, claim }) => match claim {
                Some(claim) => Self::claim(&claim.request, claim.token, claim.is_valid),
                None => Self { uid: uid.to_string(), ..Self::default() },
            },
            Request::Unlock { uid, resources, kind } => Self {
                uid: uid.to_string(),
                resources: resources.as_ref().map(Resources::to_vec),
                write: *kind == LockKind::Write,
                leased: true,
                ..Self::default()
            },
        }
    }

    fn lock_request(request: &LockRequest) -> Self {
        let ticket = request.ticket.as_ref();
        Self {
            uid: request.uid.to_string(),
            resources: Some(request.resources.to_vec()),
            owner: request.owner.to_string(),
            source: request.source.to_string(),
            quorum: i64::try_from(request.quorum).ok(),
            leased: true,
            write: request.kind == LockKind::Write,
            token: request.proposed_token,
            proposed_token: Token::default(),
            ticket_time: ticket.map(|ticket| ticket.time).unwrap_or_default(),
            waiter: ticket.map(|ticket| ticket.id.to_string()).unwrap_or_default(),
            is_valid: false,
        }
    }

    fn claim(request: &LockRequest, token: Token, is_valid: bool) -> Self {
        Self {
            token,
            proposed_token: request.proposed_token,
            is_valid,
            ..Self::lock_request(request)
        }
    }

    /// Encodes a lease of a node's report.
    pub(crate) fn held_lease(held_lease: &HeldLease) -> Self {
        Self::claim(&held_lease.request, held_lease.token, true)
    }

    /// Returns the kind that the request states. Only some requests do: others have it by handler.
    pub(crate) fn kind(&self) -> LockKind {
        if self.write { LockKind::Write } else { LockKind::Read }
    }

    /// Checks that there is an id, and that no string exceeds [`TEXT_BYTES_MAX`].
    ///
    /// # Errors
    ///
    /// The reason, as a message for the caller.
    pub(crate) fn check_texts(&self) -> Result<(), String> {
        let strings = [&self.uid, &self.owner, &self.source, &self.waiter];
        if self.uid.is_empty() || strings.iter().any(|string| string.len() > TEXT_BYTES_MAX) {
            return Err(format!(
                "a lock needs a UID, and none of its texts may be longer than {TEXT_BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }

    /// Decodes a lock or wait request.
    ///
    /// # Errors
    ///
    /// The reason, as a message for the caller.
    pub(crate) fn to_lock_request(&self, kind: LockKind) -> Result<LockRequest, String> {
        let resources = self.resources.as_deref().unwrap_or_default();
        let resources = Resources::new(resources).map_err(|error| error.to_string())?;
        self.check_texts()?;
        let has_waited = self.leased && !self.waiter.is_empty();
        let ticket = has_waited
            .then(|| Ticket { time: self.ticket_time, id: Arc::from(self.waiter.as_str()) });
        Ok(LockRequest {
            uid: Arc::from(self.uid.as_str()),
            resources,
            kind,
            owner: Arc::from(self.owner.as_str()),
            source: Arc::from(self.source.as_str()),
            quorum: self.quorum.and_then(|quorum| usize::try_from(quorum).ok()).unwrap_or(0),
            proposed_token: self.token,
            ticket,
            supports_leases: self.leased,
        })
    }

    /// Decodes a release.
    pub(crate) fn to_unlock(&self, kind: LockKind) -> Request {
        let uid = Arc::from(self.uid.as_str());
        Request::Unlock { uid, resources: None, kind }
    }

    /// Decodes a refresh. A MinIO holder sends only the id.
    pub(crate) fn to_refresh(&self) -> Result<RefreshRequest, String> {
        let claim = match self.leased {
            true => Some(self.to_claim()?),
            false => None,
        };
        Ok(RefreshRequest { uid: Arc::from(self.uid.as_str()), claim })
    }

    fn to_claim(&self) -> Result<LeaseClaim, String> {
        let request = LockRequest {
            proposed_token: self.proposed_token,
            ..self.to_lock_request(self.kind())?
        };
        Ok(LeaseClaim { request, token: self.token, is_valid: self.is_valid })
    }

    /// Decodes a lease of a node's report.
    pub(crate) fn to_held_lease(&self) -> Result<HeldLease, String> {
        let LeaseClaim { request, token, .. } = self.to_claim()?;
        Ok(HeldLease { request, token })
    }

    /// Decodes the targets of a forced release: the id if there is one, else each resource.
    pub(crate) fn to_force_targets(&self) -> Vec<ForceTarget> {
        match self.uid.as_str() {
            "" => {
                let resources = self.resources.clone().unwrap_or_default();
                resources.into_iter().map(ForceTarget::Resource).collect()
            }
            uid => vec![ForceTarget::Uid(uid.to_owned())],
        }
    }

    /// Encodes the targets of a forced release. A request has one id, or resources.
    pub(crate) fn force_targets(targets: &[ForceTarget]) -> Self {
        let mut args = Self::default();
        for target in targets {
            match target {
                ForceTarget::Uid(uid) => args.uid.clone_from(uid),
                ForceTarget::Resource(name) => {
                    args.resources.get_or_insert_default().push(name.clone());
                }
            }
        }
        args
    }
}

impl LockResponse {
    /// Encodes a response.
    pub(crate) fn of(response: Response, stamp: TokenStamp) -> Self {
        let base = Self { highest_token: stamp.highest, wall: stamp.wall, ..Self::default() };
        let failed = |code, error: &str| Self { code, error: error.to_owned(), ..base.clone() };
        match response {
            Response::Lock(Ok(Granted { token, lease })) => {
                Self { token, lease_ms: millis(lease), ..base }
            }
            Response::Lock(Err(refusal)) => match refusal {
                Refusal::Conflict => failed(CODE_CONFLICT, "the resource is locked"),
                Refusal::Closed => failed(CODE_NOT_INITIALISED, RECOVERING),
                Refusal::AttemptEnded => failed(CODE_NOT_FOUND, "the attempt is over"),
                Refusal::Full => failed(CODE_ERROR, "this locker has no room for more"),
            },
            Response::Refresh(outcome) => match outcome {
                RefreshOutcome::Held { lease } => Self { lease_ms: millis(lease), ..base },
                RefreshOutcome::Reinstated { lease } => Self {
                    lease_ms: millis(lease),
                    reinstated: true,
                    ..failed(CODE_NOT_INITIALISED, RECOVERING)
                },
                RefreshOutcome::Closed => failed(CODE_NOT_INITIALISED, RECOVERING),
                RefreshOutcome::NotFound => failed(CODE_NOT_FOUND, "there is no such lock"),
            },
            Response::Released | Response::Wait { is_notified: true } => base,
            Response::Wait { is_notified: false } => failed(CODE_CONFLICT, "not waited for"),
        }
    }

    /// Returns the response to a request that cannot be decoded.
    pub(crate) fn invalid(error: String) -> Self {
        Self { code: CODE_ERROR, error, ..Self::default() }
    }

    /// Encodes the response to a forced release of `count` grants.
    pub(crate) fn forced(count: usize, stamp: TokenStamp) -> Self {
        let code = if count == 0 { CODE_NOT_FOUND } else { CODE_OK };
        Self { code, highest_token: stamp.highest, wall: stamp.wall, ..Self::default() }
    }

    /// Decodes the response to a lock request.
    ///
    /// # Errors
    ///
    /// The code and message of the response, if it reports an error.
    pub(crate) fn to_lock_response(&self) -> Result<Response, String> {
        Ok(Response::Lock(match self.code {
            CODE_OK => Ok(Granted { token: self.token, lease: self.lease() }),
            CODE_CONFLICT => Err(Refusal::Conflict),
            CODE_NOT_INITIALISED => Err(Refusal::Closed),
            CODE_NOT_FOUND => Err(Refusal::AttemptEnded),
            CODE_ERROR => Err(Refusal::Full),
            _ => return Err(self.describe()),
        }))
    }

    /// Decodes the response to a refresh. Errors as [`to_lock_response`](Self::to_lock_response).
    pub(crate) fn to_refresh_response(&self) -> Result<Response, String> {
        let lease = self.lease();
        Ok(Response::Refresh(match self.code {
            CODE_OK => RefreshOutcome::Held { lease },
            CODE_NOT_INITIALISED if self.reinstated => RefreshOutcome::Reinstated { lease },
            CODE_NOT_INITIALISED => RefreshOutcome::Closed,
            CODE_NOT_FOUND => RefreshOutcome::NotFound,
            _ => return Err(self.describe()),
        }))
    }

    /// Decodes the response to a release. Errors as [`to_lock_response`](Self::to_lock_response).
    pub(crate) fn to_unlock_response(&self) -> Result<Response, String> {
        match self.code {
            CODE_OK | CODE_NOT_FOUND => Ok(Response::Released),
            _ => Err(self.describe()),
        }
    }

    /// Decodes the response to a wait request. Errors as
    /// [`to_lock_response`](Self::to_lock_response).
    pub(crate) fn to_wait_response(&self) -> Result<Response, String> {
        match self.code {
            CODE_OK => Ok(Response::Wait { is_notified: true }),
            CODE_CONFLICT => Ok(Response::Wait { is_notified: false }),
            _ => Err(self.describe()),
        }
    }

    fn lease(&self) -> Duration {
        match self.lease_ms {
            0 => LEASE, // A MinIO locker.
            ms => Duration::from_millis(ms),
        }
    }

    fn describe(&self) -> String {
        format!("code {}: {}", self.code, self.error)
    }

    /// Returns the token stamp; `None` from a MinIO locker.
    pub(crate) fn stamp(&self) -> Option<TokenStamp> {
        let stamp = TokenStamp { highest: self.highest_token, wall: self.wall };
        (stamp != TokenStamp::default()).then_some(stamp)
    }
}

const RECOVERING: &str = "this locker has restarted and does not know yet what it has granted";
