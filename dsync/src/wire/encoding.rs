//! Messages from and to the types of the state machines.

use std::sync::Arc;
use std::time::Duration;

use super::{
    CODE_CONFLICT, CODE_EPOCH_DIFFERS, CODE_ERROR, CODE_NOT_FOUND, CODE_NOT_INITIALISED, CODE_OK,
    LockArgs, LockResponse, RefreshBatchArgs,
};
use crate::limits::{LEASE, REFRESH_BATCH_BYTES_MAX, REFRESHES_PER_BATCH, TEXT_BYTES_MAX};
use crate::proto::hold::{Request, Response};
use crate::proto::quorum::{ListId, LockKind};
use crate::proto::resources::Resources;
use crate::proto::table::{
    ForceTarget, Granted, HeldLease, LeaseClaim, LockRequest, RefreshOutcome, RefreshRequest,
    Refusal,
};
use crate::proto::token::{Token, TokenStamp};
use crate::proto::waiters::{QueueReport, Ticket};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl LockArgs {
    /// Encodes a request.
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Lock(request) | Request::Wait(request) => Self::lock_request(request),
            Request::Refresh(refresh) => Self::refresh(refresh),
            Request::Unlock { uid, resources, kind, waiter } => {
                let waiter = waiter.as_ref().map(Self::lock_request).unwrap_or_default();
                Self {
                    uid: uid.to_string(),
                    resources: resources.as_ref().map(Resources::to_vec).unwrap_or_default(),
                    write: *kind == LockKind::Write,
                    leased: true,
                    ..waiter
                }
            }
            Request::PlainUnlock { uid, owner, kind } => Self {
                uid: uid.to_string(),
                owner: owner.to_string(),
                write: *kind == LockKind::Write,
                ..Self::default()
            },
            Request::CancelTicket(ticket) => Self {
                leased: true,
                ticket_time: ticket.time,
                waiter: ticket.id.to_string(),
                ..Self::default()
            },
        }
    }

    /// Encodes a refresh.
    pub(crate) fn refresh(RefreshRequest { uid, claim }: &RefreshRequest) -> Self {
        match claim {
            Some(claim) => Self::claim(&claim.request, claim.token, claim.is_valid),
            None => Self { uid: uid.to_string(), ..Self::default() },
        }
    }

    fn lock_request(request: &LockRequest) -> Self {
        let ticket = request.ticket.as_ref();
        Self {
            uid: request.uid.to_string(),
            resources: request.resources.to_vec(),
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
            epoch: request.list.epoch,
            list_hash: request.list.hash,
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
        let resources = Resources::new(&self.resources).map_err(|error| error.to_string())?;
        self.check_texts()?;
        Ok(LockRequest {
            uid: Arc::from(self.uid.as_str()),
            resources,
            kind,
            owner: Arc::from(self.owner.as_str()),
            source: Arc::from(self.source.as_str()),
            quorum: self.quorum.and_then(|quorum| usize::try_from(quorum).ok()).unwrap_or(0),
            proposed_token: self.token,
            ticket: self.ticket(),
            supports_leases: self.leased,
            list: ListId { epoch: self.epoch, hash: self.list_hash },
        })
    }

    fn ticket(&self) -> Option<Ticket> {
        let has_waited = self.leased && !self.waiter.is_empty();
        has_waited.then(|| Ticket { time: self.ticket_time, id: Arc::from(self.waiter.as_str()) })
    }

    /// Decodes a release. One with a ticket keeps the waiter in the queues.
    ///
    /// # Errors
    ///
    /// The reason, as a message for the caller.
    pub(crate) fn to_unlock(&self, kind: LockKind) -> Result<Request, String> {
        self.check_texts()?;
        let uid = Arc::from(self.uid.as_str());
        if !self.leased {
            return Ok(Request::PlainUnlock { uid, owner: Arc::from(self.owner.as_str()), kind });
        }
        let waiter = match self.ticket() {
            Some(_) => Some(self.to_lock_request(kind)?),
            None => None,
        };
        Ok(Request::Unlock { uid, resources: None, kind, waiter })
    }

    /// Decodes the cancellation of a ticket.
    ///
    /// # Errors
    ///
    /// The reason, as a message for the caller.
    pub(crate) fn to_cancel_ticket(&self) -> Result<Request, String> {
        if self.waiter.len() > TEXT_BYTES_MAX {
            return Err(format!("the id of a waiter may have {TEXT_BYTES_MAX} bytes"));
        }
        self.ticket().map(Request::CancelTicket).ok_or_else(|| "a ticket needs a Waiter".to_owned())
    }

    /// Decodes a refresh. A MinIO holder sends only the id.
    pub(crate) fn to_refresh(&self) -> Result<RefreshRequest, String> {
        self.check_texts()?;
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
            "" => self.resources.iter().cloned().map(ForceTarget::Resource).collect(),
            uid => vec![ForceTarget::Uid(uid.to_owned())],
        }
    }

    /// Encodes the targets of a forced release. A request has one id, or resources.
    pub(crate) fn force_targets(targets: &[ForceTarget]) -> Self {
        let mut args = Self::default();
        for target in targets {
            match target {
                ForceTarget::Uid(uid) => args.uid.clone_from(uid),
                ForceTarget::Resource(name) => args.resources.push(name.clone()),
            }
        }
        args
    }
}

impl RefreshBatchArgs {
    /// Decodes a batch of refreshes.
    ///
    /// # Errors
    ///
    /// The reason, as a message for the caller.
    pub(crate) fn to_refreshes(&self) -> Result<Vec<RefreshRequest>, String> {
        let names = self.refreshes.iter().flat_map(|refresh| &refresh.resources);
        let (count, bytes) = (self.refreshes.len(), names.map(String::len).sum::<usize>());
        if count > REFRESHES_PER_BATCH || count > 1 && bytes > REFRESH_BATCH_BYTES_MAX {
            return Err(format!(
                "a batch may have {REFRESHES_PER_BATCH} refreshes with {REFRESH_BATCH_BYTES_MAX} bytes \
                 of names, not {count} with {bytes}"
            ));
        }
        self.refreshes.iter().map(LockArgs::to_refresh).collect()
    }
}

impl LockResponse {
    /// Encodes a response.
    pub(crate) fn of(response: Response, stamp: TokenStamp, queue: QueueReport) -> Self {
        let base = Self {
            highest_token: stamp.highest,
            wall: stamp.wall,
            is_queued: queue.is_queued,
            last_ticket: queue.last_ticket,
            ..Self::default()
        };
        let failed = |code, error: &str| Self { code, error: error.to_owned(), ..base.clone() };
        match response {
            Response::Lock(Ok(Granted { token, lease })) => {
                Self { token, lease_ms: millis(lease), ..base }
            }
            Response::Lock(Err(refusal)) => match refusal {
                Refusal::Conflict => failed(CODE_CONFLICT, "the resource is locked"),
                Refusal::QueuedAhead => failed(CODE_CONFLICT, QUEUED_AHEAD),
                Refusal::ListDiffers => failed(CODE_EPOCH_DIFFERS, LIST_DIFFERS),
                Refusal::Closed => failed(CODE_NOT_INITIALISED, RECOVERING),
                Refusal::NotReady => failed(CODE_NOT_INITIALISED, NOT_READY),
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
                RefreshOutcome::ListDiffers => failed(CODE_EPOCH_DIFFERS, LIST_DIFFERS),
                RefreshOutcome::TokenAhead => failed(CODE_ERROR, TOKEN_AHEAD),
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
            CODE_CONFLICT if self.error == QUEUED_AHEAD => Err(Refusal::QueuedAhead),
            CODE_CONFLICT => Err(Refusal::Conflict),
            CODE_EPOCH_DIFFERS => Err(Refusal::ListDiffers),
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
            CODE_EPOCH_DIFFERS => RefreshOutcome::ListDiffers,
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

    /// Returns the text of an error that has no code of its own.
    pub(crate) fn error_text(&self) -> Option<Arc<str>> {
        (self.code == CODE_ERROR && !self.error.is_empty()).then(|| Arc::from(self.error.as_str()))
    }

    /// Returns what the response says about the locker's queues.
    pub(crate) fn queue(&self) -> QueueReport {
        QueueReport { is_queued: self.is_queued, last_ticket: self.last_ticket }
    }
}

const RECOVERING: &str = "this locker has restarted and does not know yet what it has granted";
const NOT_READY: &str = "this server grants no locks now: it has not verified the cluster, or too \
                         few servers are known to have its list of lockers";
const QUEUED_AHEAD: &str = "an older waiter is queued ahead";
const LIST_DIFFERS: &str = "this locker uses another list of lockers";
const TOKEN_AHEAD: &str = "the token is too far ahead of this locker's clock: compare the clocks of \
                           the servers";

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_request() -> LockRequest {
        LockRequest {
            uid: "u".into(),
            resources: Resources::new(["a"]).expect("a valid name"),
            kind: LockKind::Write,
            owner: "n".into(),
            source: "s".into(),
            quorum: 2,
            proposed_token: Token::new(3),
            ticket: Some(Ticket { time: Token::new(4), id: "w".into() }),
            supports_leases: true,
            list: ListId { epoch: 5, hash: 6 },
        }
    }

    fn unlock(resources: Option<Resources>, waiter: Option<LockRequest>) -> Request {
        Request::Unlock { uid: "u".into(), resources, kind: LockKind::Write, waiter }
    }

    #[test]
    fn b59_resources_are_an_array_in_every_request() {
        let claim = LeaseClaim { request: lock_request(), token: Token::new(7), is_valid: true };
        let refresh = |claim| Request::Refresh(RefreshRequest { uid: "u".into(), claim });
        let ticket = Ticket { time: Token::new(4), id: "w".into() };
        let requests = [
            Request::Lock(lock_request()),
            Request::Wait(lock_request()),
            refresh(Some(claim)),
            refresh(None),
            unlock(None, None),
            unlock(None, Some(lock_request())),
            Request::PlainUnlock { uid: "u".into(), owner: "n".into(), kind: LockKind::Read },
            Request::CancelTicket(ticket),
        ];
        let forced = [ForceTarget::Uid("u".to_owned()), ForceTarget::Resource("a".to_owned())];
        let all = requests.iter().map(LockArgs::of);
        let all = all.chain(
            forced.iter().map(|target| LockArgs::force_targets(std::slice::from_ref(target))),
        );
        for args in all {
            let bytes = rmp_serde::to_vec_named(&args).expect("encodable");
            let key = b"\xa9Resources";
            let at = bytes.windows(key.len()).position(|window| window == key).expect("the key");
            let marker = bytes[at + key.len()];
            assert!((0x90..=0x9f).contains(&marker), "{args:?} has {marker:#x}, which is no array");
        }
    }

    #[test]
    fn b58_a_release_carries_the_request_that_stays_in_the_queues() {
        let args = LockArgs::of(&unlock(Some(lock_request().resources), Some(lock_request())));
        let decoded = args.to_unlock(LockKind::Write).expect("it is valid");
        assert_eq!(decoded, unlock(None, Some(lock_request())));
        let without = LockArgs::of(&unlock(Some(lock_request().resources), None));
        assert_eq!(without.to_unlock(LockKind::Write), Ok(unlock(None, None)));
    }

    #[test]
    fn b59_a_release_without_leases_names_the_owner_and_no_attempt() {
        let args = LockArgs { leased: false, ..LockArgs::of(&Request::Lock(lock_request())) };
        let decoded = args.to_unlock(LockKind::Read).expect("it is valid");
        let (uid, owner) = ("u".into(), "n".into());
        assert_eq!(decoded, Request::PlainUnlock { uid, owner, kind: LockKind::Read });
    }

    #[test]
    fn refusals_and_outcomes_arrive_as_they_were_sent_as_far_as_the_wire_distinguishes_them() {
        let over_the_wire =
            |response| LockResponse::of(response, TokenStamp::default(), QueueReport::default());
        for (sent, received) in [
            (Refusal::Conflict, Refusal::Conflict),
            (Refusal::QueuedAhead, Refusal::QueuedAhead),
            (Refusal::ListDiffers, Refusal::ListDiffers),
            (Refusal::Closed, Refusal::Closed),
            (Refusal::NotReady, Refusal::Closed),
            (Refusal::AttemptEnded, Refusal::AttemptEnded),
            (Refusal::Full, Refusal::Full),
        ] {
            let reply = over_the_wire(Response::Lock(Err(sent)));
            assert_eq!(reply.to_lock_response(), Ok(Response::Lock(Err(received))));
        }
        let lease = Duration::from_secs(7);
        for outcome in [
            RefreshOutcome::Held { lease },
            RefreshOutcome::Reinstated { lease },
            RefreshOutcome::NotFound,
            RefreshOutcome::Closed,
            RefreshOutcome::ListDiffers,
        ] {
            let reply = over_the_wire(Response::Refresh(outcome));
            assert_eq!(reply.to_refresh_response(), Ok(Response::Refresh(outcome)));
        }
        let ahead = over_the_wire(Response::Refresh(RefreshOutcome::TokenAhead));
        assert!(ahead.to_refresh_response().is_err_and(|text| text.contains("compare the clocks")));
    }
}
