//! The rows: every operation of the lock grid.

use std::future::{Future, ready};

use grid::{HandlerError, HandlerId, RequestContext, SingleHandler};

use super::{HolderParts, HolderRequest, LockerParts, Operation, Row, at_holder, at_locker};
use crate::error::LockerError;
use crate::live_locks::LeasePage;
use crate::locker::{Locker, StampedResponse};
use crate::proto::hold::{Request, Response};
use crate::proto::quorum::LockKind;
use crate::proto::table::{ForceTarget, RefreshRequest};
use crate::wire::{
    self, HeldLeasesArgs, HeldLeasesResponse, ListArgs, LockArgs, LockResponse, LockerListing,
    LockerStateArgs, LockerStateResponse, RefreshBatchArgs, RefreshBatchResponse, RevokedArgs,
};

/// All operations.
pub(crate) const OPERATIONS: [Row; 13] = [
    at_locker::<Lock>(),
    at_locker::<ReadLock>(),
    at_locker::<Unlock>(),
    at_locker::<ReadUnlock>(),
    at_locker::<Refresh>(),
    at_locker::<ForceUnlock>(),
    at_locker::<Wait>(),
    at_locker::<List>(),
    at_holder::<HeldLeases>(),
    at_holder::<Revoked>(),
    at_holder::<LockerState>(),
    at_locker::<RefreshBatch>(),
    at_locker::<CancelTicket>(),
];

/// Returns whether an operation has a row.
pub(super) const fn is_listed(id: HandlerId) -> bool {
    let mut index = 0;
    while index < OPERATIONS.len() {
        if OPERATIONS[index].id.get() == id.get() {
            return true;
        }
        index += 1;
    }
    false
}

/// Grants a write lock.
pub(crate) struct Lock;

impl HolderRequest for Lock {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = wire::LOCK;

    fn decode(args: &LockArgs) -> Result<Request, String> {
        args.to_lock_request(LockKind::Write).map(Request::Lock)
    }

    fn decode_reply(reply: &LockResponse) -> Result<Response, String> {
        reply.to_lock_response()
    }
}

/// Grants a read lock.
pub(crate) struct ReadLock;

impl HolderRequest for ReadLock {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = wire::READ_LOCK;

    fn decode(args: &LockArgs) -> Result<Request, String> {
        args.to_lock_request(LockKind::Read).map(Request::Lock)
    }

    fn decode_reply(reply: &LockResponse) -> Result<Response, String> {
        reply.to_lock_response()
    }
}

/// Releases a write lock.
pub(crate) struct Unlock;

impl HolderRequest for Unlock {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = wire::UNLOCK;

    fn decode(args: &LockArgs) -> Result<Request, String> {
        args.to_unlock(LockKind::Write)
    }

    fn decode_reply(reply: &LockResponse) -> Result<Response, String> {
        reply.to_unlock_response()
    }
}

/// Releases a read lock.
pub(crate) struct ReadUnlock;

impl HolderRequest for ReadUnlock {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = wire::READ_UNLOCK;

    fn decode(args: &LockArgs) -> Result<Request, String> {
        args.to_unlock(LockKind::Read)
    }

    fn decode_reply(reply: &LockResponse) -> Result<Response, String> {
        reply.to_unlock_response()
    }
}

/// Extends a lock by another lease.
pub(crate) struct Refresh;

impl HolderRequest for Refresh {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = wire::REFRESH;

    fn decode(args: &LockArgs) -> Result<Request, String> {
        args.to_refresh().map(Request::Refresh)
    }

    fn decode_reply(reply: &LockResponse) -> Result<Response, String> {
        reply.to_refresh_response()
    }
}

/// Long poll: responds when a retry may succeed.
pub(crate) struct Wait;

impl HolderRequest for Wait {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = wire::WAIT;

    fn decode(args: &LockArgs) -> Result<Request, String> {
        args.to_lock_request(args.kind()).map(Request::Wait)
    }

    fn decode_reply(reply: &LockResponse) -> Result<Response, String> {
        reply.to_wait_response()
    }
}

/// Removes a ticket from the queues of a locker: its lock is held or abandoned.
pub(crate) struct CancelTicket;

impl HolderRequest for CancelTicket {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = wire::CANCEL_TICKET;

    fn decode(args: &LockArgs) -> Result<Request, String> {
        args.to_cancel_ticket()
    }

    fn decode_reply(reply: &LockResponse) -> Result<Response, String> {
        reply.to_unlock_response()
    }
}

/// Extends several locks by another lease.
pub(crate) struct RefreshBatch;

impl Operation for RefreshBatch {
    const HANDLER: SingleHandler<RefreshBatchArgs, RefreshBatchResponse> = wire::REFRESH_BATCH;
    type Args = RefreshBatchArgs;
    type Reply = RefreshBatchResponse;
    type Request = Vec<RefreshRequest>;
    type Outcome = Vec<Result<StampedResponse, LockerError>>;
    type Callee = LockerParts;

    fn encode(refreshes: &Vec<RefreshRequest>) -> RefreshBatchArgs {
        RefreshBatchArgs { refreshes: refreshes.iter().map(LockArgs::refresh).collect() }
    }

    fn decode(args: &RefreshBatchArgs) -> Result<Vec<RefreshRequest>, String> {
        args.to_refreshes()
    }

    fn handle(
        callee: LockerParts,
        context: RequestContext,
        refreshes: Vec<RefreshRequest>,
    ) -> impl Future<Output = Result<RefreshBatchResponse, HandlerError>> + Send + 'static {
        let responses = callee.refresh_batch(&context, refreshes);
        ready(Ok(RefreshBatchResponse { responses }))
    }

    fn decode_reply(reply: RefreshBatchResponse) -> Result<Self::Outcome, String> {
        let decode = |reply: LockResponse| match reply.to_refresh_response() {
            Ok(response) => {
                let (stamp, queue, error) = (reply.stamp(), reply.queue(), reply.error_text());
                Ok(StampedResponse { response, stamp, queue, error })
            }
            Err(message) => Err(LockerError { may_have_run: true, message }),
        };
        Ok(reply.responses.into_iter().map(decode).collect())
    }
}

/// Queries a server for the list of lockers that it knows, and for the state of its locker.
pub(crate) struct LockerState;

impl Operation for LockerState {
    const HANDLER: SingleHandler<LockerStateArgs, LockerStateResponse> = wire::LOCKER_STATE;
    type Args = LockerStateArgs;
    type Reply = LockerStateResponse;
    type Request = LockerStateArgs;
    type Outcome = LockerStateResponse;
    type Callee = HolderParts;

    fn encode(query: &LockerStateArgs) -> LockerStateArgs {
        query.clone()
    }

    fn decode(args: &LockerStateArgs) -> Result<LockerStateArgs, String> {
        Ok(args.clone())
    }

    fn handle(
        callee: HolderParts,
        _context: RequestContext,
        _query: LockerStateArgs,
    ) -> impl Future<Output = Result<LockerStateResponse, HandlerError>> + Send + 'static {
        ready(Ok(callee.admission.state()))
    }

    fn decode_reply(reply: LockerStateResponse) -> Result<LockerStateResponse, String> {
        Ok(reply)
    }
}

/// Forces locks open. The outcome is how many targets had a grant: a remote locker reports only
/// whether any had.
pub(crate) struct ForceUnlock;

impl Operation for ForceUnlock {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = wire::FORCE_UNLOCK;
    type Args = LockArgs;
    type Reply = LockResponse;
    type Request = Vec<ForceTarget>;
    type Outcome = usize;
    type Callee = LockerParts;

    fn encode(targets: &Vec<ForceTarget>) -> LockArgs {
        LockArgs::force_targets(targets)
    }

    fn decode(args: &LockArgs) -> Result<Vec<ForceTarget>, String> {
        Ok(args.to_force_targets())
    }

    fn handle(
        callee: LockerParts,
        _context: RequestContext,
        targets: Vec<ForceTarget>,
    ) -> impl Future<Output = Result<LockResponse, HandlerError>> + Send + 'static {
        let mut count = 0;
        for target in targets {
            let forced = callee.locker.force(&target);
            count += forced.len();
            callee.notifier.notify(forced);
        }
        ready(Ok(LockResponse::forced(count, callee.locker.stamp())))
    }

    fn decode_reply(reply: LockResponse) -> Result<usize, String> {
        match reply.code {
            wire::CODE_OK => Ok(1),
            wire::CODE_NOT_FOUND => Ok(0),
            _ => Err(reply.error),
        }
    }
}

/// Lists a locker's grants and waiters.
pub(crate) struct List;

impl Operation for List {
    const HANDLER: SingleHandler<ListArgs, LockerListing> = wire::LIST;
    type Args = ListArgs;
    type Reply = LockerListing;
    type Request = ();
    type Outcome = LockerListing;
    type Callee = LockerParts;

    fn encode((): &()) -> ListArgs {
        ListArgs {}
    }

    fn decode(_args: &ListArgs) -> Result<(), String> {
        Ok(())
    }

    fn handle(
        callee: LockerParts,
        context: RequestContext,
        (): (),
    ) -> impl Future<Output = Result<LockerListing, HandlerError>> + Send + 'static {
        let listing = callee.locker.list(context.time_left().unwrap_or_default());
        async move { listing.await.map_err(|error| HandlerError::from(error.message)) }
    }

    fn decode_reply(reply: LockerListing) -> Result<LockerListing, String> {
        Ok(reply)
    }
}

/// Queries a node for the leases that it holds from the caller, a locker that has restarted. The
/// request is the cursor of the page.
pub(crate) struct HeldLeases;

impl Operation for HeldLeases {
    const HANDLER: SingleHandler<HeldLeasesArgs, HeldLeasesResponse> = wire::HELD_LEASES;
    type Args = HeldLeasesArgs;
    type Reply = HeldLeasesResponse;
    type Request = u64;
    type Outcome = LeasePage;
    type Callee = HolderParts;

    fn encode(after: &u64) -> HeldLeasesArgs {
        HeldLeasesArgs { after: *after }
    }

    fn decode(args: &HeldLeasesArgs) -> Result<u64, String> {
        Ok(args.after)
    }

    fn handle(
        callee: HolderParts,
        context: RequestContext,
        after: u64,
    ) -> impl Future<Output = Result<HeldLeasesResponse, HandlerError>> + Send + 'static {
        let page = callee.leases_from(context.caller().as_str(), after);
        let response = page.map(|LeasePage { held_leases, highest_token, next }| {
            let held_leases = held_leases.iter().map(LockArgs::held_lease).collect();
            HeldLeasesResponse { held_leases, highest_token, next }
        });
        ready(response.ok_or_else(|| HandlerError::from("this server is shutting down")))
    }

    /// Leaves out malformed leases: the others must not be lost with them.
    fn decode_reply(reply: HeldLeasesResponse) -> Result<LeasePage, String> {
        let HeldLeasesResponse { held_leases, highest_token, next } = reply;
        let to_held_lease = |args: LockArgs| match args.to_held_lease() {
            Ok(held_lease) => Some(held_lease),
            Err(error) => {
                let uid = args.uid;
                tracing::warn!(target: "dsync", uid, error, "ignoring a malformed lease report");
                None
            }
        };
        let held_leases = held_leases.into_iter().filter_map(to_held_lease).collect();
        Ok(LeasePage { held_leases, highest_token, next })
    }
}

/// Notifies a holder that the caller, a locker, has forced its lock open. The request is the id of
/// the grant.
pub(crate) struct Revoked;

impl Operation for Revoked {
    const HANDLER: SingleHandler<RevokedArgs, ()> = wire::REVOKED;
    type Args = RevokedArgs;
    type Reply = ();
    type Request = String;
    type Outcome = ();
    type Callee = HolderParts;

    fn encode(uid: &String) -> RevokedArgs {
        RevokedArgs { uid: uid.clone() }
    }

    fn decode(args: &RevokedArgs) -> Result<String, String> {
        Ok(args.uid.clone())
    }

    fn handle(
        callee: HolderParts,
        context: RequestContext,
        uid: String,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send + 'static {
        if let Some(locks) = callee.locks.upgrade() {
            locks.handle_revoked(context.caller().as_str(), &uid);
        }
        ready(Ok(()))
    }

    fn decode_reply((): ()) -> Result<(), String> {
        Ok(())
    }
}
