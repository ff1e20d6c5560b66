//! The operations of the lock grid, one row each: number, encoding, decoding, handling.
//!
//! ```text
//!   caller                                         callee
//!   call::<O>(request) ── O::encode ──► O::decode ── O::handle ──┐
//!        outcome ◄────── O::decode_reply ◄───────────────────────┘
//! ```
//!
//! A new operation is an [`Operation`], listed in [`OPERATIONS`]: [`call`] does not compile for one
//! that is not listed. Operations of a locker on one lock are a [`HolderRequest`], which shares
//! everything but the shape of its messages.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use grid::{
    CallError, CallOptions, Connection, HandlerError, HandlerId, Manager, RegisterError,
    RequestContext, SingleHandler, TypedCallError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admission::Admission;
use crate::error::LockerError;
use crate::live_locks::{LeasePage, LiveLocks};
use crate::local::{LocalLocker, Overloaded};
use crate::locker::StampedResponse;
use crate::peers::Peers;
use crate::proto::hold::{Request, Response};
use crate::proto::quorum::ListId;
use crate::proto::table::{LockRequest, RefreshRequest, Refusal};
use crate::proto::waiters::QueueReport;
use crate::quorum_check::QuorumCheck;
use crate::wire::{
    CODE_EPOCH_DIFFERS, HeldLeasesResponse, LockArgs, LockResponse, LockerListing,
    LockerStateResponse, RefreshBatchResponse,
};

mod rows;

pub(crate) use rows::{
    CancelTicket, ForceUnlock, HeldLeases, List, Lock, OPERATIONS, ReadLock, ReadUnlock, Refresh,
    RefreshBatch, Revoked, Unlock, Wait,
};

/// One operation, at its caller and at its callee.
pub(crate) trait Operation: 'static {
    /// Number and name, and the messages.
    const HANDLER: SingleHandler<Self::Args, Self::Reply>;
    /// The request's message.
    type Args: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The response's message.
    type Reply: Reply + Serialize + DeserializeOwned + Send + 'static;
    /// The request.
    type Request;
    /// The response, at the caller.
    type Outcome;
    /// The parts of a server that handle it.
    type Callee: Clone + Send + Sync + 'static;

    /// Encodes a request.
    fn encode(request: &Self::Request) -> Self::Args;

    /// Decodes a request.
    ///
    /// # Errors
    ///
    /// The reason, as a message for the caller.
    fn decode(args: &Self::Args) -> Result<Self::Request, String>;

    /// Executes a request, and encodes the response.
    fn handle(
        callee: Self::Callee,
        context: RequestContext,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Reply, HandlerError>> + Send + 'static;

    /// Decodes a response.
    ///
    /// # Errors
    ///
    /// The error that the response reports.
    fn decode_reply(reply: Self::Reply) -> Result<Self::Outcome, String>;
}

/// A response's message.
pub(crate) trait Reply: Sized {
    /// Returns the response to a request that cannot be decoded.
    fn invalid(error: String) -> Result<Self, HandlerError> {
        Err(HandlerError::from(error))
    }
}

impl Reply for LockResponse {
    fn invalid(error: String) -> Result<Self, HandlerError> {
        Ok(Self::invalid(error))
    }
}

impl Reply for LockerListing {}
impl Reply for HeldLeasesResponse {}
impl Reply for LockerStateResponse {}
impl Reply for RefreshBatchResponse {}
impl Reply for () {}

/// An operation of a locker on one lock, at the request of its holder.
pub(crate) trait HolderRequest: 'static {
    /// Number and name.
    const HANDLER: SingleHandler<LockArgs, LockResponse>;

    /// Decodes a request.
    ///
    /// # Errors
    ///
    /// The reason, as a message for the caller.
    fn decode(args: &LockArgs) -> Result<Request, String>;

    /// Decodes a response.
    ///
    /// # Errors
    ///
    /// The error that the response reports.
    fn decode_reply(reply: &LockResponse) -> Result<Response, String>;
}

impl<O: HolderRequest> Operation for O {
    const HANDLER: SingleHandler<LockArgs, LockResponse> = O::HANDLER;
    type Args = LockArgs;
    type Reply = LockResponse;
    type Request = Request;
    type Outcome = StampedResponse;
    type Callee = LockerParts;

    fn encode(request: &Request) -> LockArgs {
        LockArgs::of(request)
    }

    fn decode(args: &LockArgs) -> Result<Request, String> {
        O::decode(args)
    }

    async fn handle(
        callee: LockerParts,
        context: RequestContext,
        request: Request,
    ) -> Result<LockResponse, HandlerError> {
        let is_lock = matches!(request, Request::Lock(_));
        if let Err(text) = callee.check(&context, &request) {
            return Ok(LockResponse::invalid(text));
        }
        Ok(match callee.locker.serve(request).await {
            Ok(stamped) => callee.encode(&stamped),
            Err(Overloaded) if is_lock => LockResponse::of(
                Response::Lock(Err(Refusal::Full)),
                // It shows the caller that this is no locker of the MinIO type.
                callee.locker.wall_stamp(),
                QueueReport::default(),
            ),
            Err(Overloaded) => LockResponse::invalid("overloaded".to_owned()),
        })
    }

    fn decode_reply(reply: LockResponse) -> Result<StampedResponse, String> {
        let (stamp, queue, error) = (reply.stamp(), reply.queue(), reply.error_text());
        Ok(StampedResponse { response: O::decode_reply(&reply)?, stamp, queue, error })
    }
}

// ---- callees ----

/// The parts of a server that handle operations of its locker.
#[derive(Clone)]
pub(crate) struct LockerParts {
    pub(crate) locker: LocalLocker,
    pub(crate) quorum_check: Arc<QuorumCheck>,
    pub(crate) notifier: HolderNotifier,
}

impl LockerParts {
    /// Checks that the caller counts as many lockers as this server. Requests that only end or
    /// shorten something run in any case.
    ///
    /// # Errors
    ///
    /// Message for the caller.
    fn check(&self, context: &RequestContext, request: &Request) -> Result<(), String> {
        match request {
            Request::Lock(request) | Request::Wait(request) => self.check_quorum(context, request),
            Request::Refresh(refresh) => self.check_refresh(context, refresh),
            Request::Unlock { .. } | Request::PlainUnlock { .. } | Request::CancelTicket(_) => {
                Ok(())
            }
        }
    }

    fn check_refresh(
        &self,
        context: &RequestContext,
        refresh: &RefreshRequest,
    ) -> Result<(), String> {
        match &refresh.claim {
            Some(claim) => self.check_quorum(context, &claim.request),
            None => Ok(()),
        }
    }

    fn check_quorum(&self, context: &RequestContext, request: &LockRequest) -> Result<(), String> {
        // The table compares the lists themselves.
        if request.list.hash != 0 && self.locker.has_list() {
            return Ok(());
        }
        self.quorum_check.check(context.caller(), request)
    }

    fn encode(&self, stamped: &StampedResponse) -> LockResponse {
        let StampedResponse { response, stamp, queue, .. } = *stamped;
        let mut reply = LockResponse::of(response, stamp.unwrap_or_default(), queue);
        if reply.code == CODE_EPOCH_DIFFERS {
            let ListId { epoch, hash } = self.locker.list_id();
            (reply.epoch, reply.list_hash) = (epoch, hash);
        }
        reply
    }

    /// Refreshes locks in one critical section.
    fn refresh_batch(
        &self,
        context: &RequestContext,
        refreshes: Vec<RefreshRequest>,
    ) -> Vec<LockResponse> {
        let checked: Vec<Result<(), String>> =
            refreshes.iter().map(|refresh| self.check_refresh(context, refresh)).collect();
        let mut checks = checked.iter();
        let valid = refreshes.into_iter().filter(|_| checks.next().is_some_and(Result::is_ok));
        let mut refreshed = match self.locker.refresh_all(&valid.collect::<Vec<_>>()) {
            Ok(refreshed) => refreshed.into_iter(),
            Err(Overloaded) => Vec::new().into_iter(),
        };
        let responses = checked.into_iter().map(|check| match check {
            Err(text) => LockResponse::invalid(text),
            Ok(()) => match refreshed.next() {
                Some(stamped) => self.encode(&stamped),
                None => LockResponse::invalid("overloaded".to_owned()),
            },
        });
        responses.collect()
    }
}

/// The parts of a server that handle operations on the locks that it holds.
#[derive(Clone)]
pub(crate) struct HolderParts {
    /// Weak: handlers belong to the manager, and do not keep an instance alive.
    pub(crate) locks: Weak<LiveLocks>,
    pub(crate) locker: Option<LocalLocker>,
    pub(crate) admission: Arc<Admission>,
}

impl HolderParts {
    /// Returns a page of the leases that this server holds from a locker; see
    /// [`LiveLocks::leases_from`]. `None` if the instance is dropped.
    pub(crate) fn leases_from(&self, locker: &str, after: u64) -> Option<LeasePage> {
        let mut page = self.locks.upgrade()?.leases_from(locker, after);
        if let Some(locker) = &self.locker {
            page.highest_token = page.highest_token.max(locker.highest_token());
        }
        Some(page)
    }
}

/// Notifies holders that this server's locker has forced their locks open. Without the notice they
/// would learn of it at their next refresh.
#[derive(Clone)]
pub(crate) struct HolderNotifier {
    pub(crate) locks: Weak<LiveLocks>,
    pub(crate) peers: Weak<Peers>,
}

impl HolderNotifier {
    /// Notifies the holders of these grants, given by id and holder.
    pub(crate) fn notify(&self, forced: Vec<(Arc<str>, Arc<str>)>) {
        let (Some(locks), Some(peers)) = (self.locks.upgrade(), self.peers.upgrade()) else {
            return;
        };
        let mut others = Vec::new();
        for (uid, owner) in forced {
            if owner == *locks.owner() {
                locks.handle_revoked(&owner, &uid);
            } else if let Some(connection) = peers.connection(&owner) {
                others.push((connection.clone(), uid.to_string()));
            }
        }
        if others.is_empty() {
            return;
        }
        let timeout = locks.limits().attempt_timeout;
        tokio::spawn(async move {
            for (connection, uid) in others {
                if let Err(error) = call::<Revoked>(&connection, &uid, timeout).await {
                    tracing::debug!(target: "dsync", uid, %error, "revocation notice failed");
                }
            }
        });
    }
}

// ---- calls ----

/// Calls an operation on the remote of `connection`. Encodes the request at once.
///
/// # Cancel safety
///
/// Dropping the future cancels the call on both servers.
pub(crate) fn call<O: Operation>(
    connection: &Connection,
    request: &O::Request,
    timeout: Duration,
) -> impl Future<Output = Result<O::Outcome, LockerError>> + Send + use<O> {
    call_newer::<O, _>(connection, request, timeout, || {})
}

/// As [`call`]. Runs `on_unknown` if the remote does not know the operation, as an earlier release
/// does not.
pub(crate) fn call_newer<O: Operation, F: FnOnce() + Send>(
    connection: &Connection,
    request: &O::Request,
    timeout: Duration,
    on_unknown: F,
) -> impl Future<Output = Result<O::Outcome, LockerError>> + Send + use<O, F> {
    const { assert!(rows::is_listed(O::HANDLER.id()), "a row of OPERATIONS is missing") };
    let (connection, args) = (connection.clone(), O::encode(request));
    async move {
        let options = CallOptions::default().timeout(timeout);
        let reply = O::HANDLER.call_with(&connection, &args, options).await.map_err(|error| {
            if matches!(error, TypedCallError::Call(CallError::UnknownHandler { .. })) {
                on_unknown();
            }
            failed(error)
        })?;
        O::decode_reply(reply).map_err(|message| LockerError { may_have_run: true, message })
    }
}

/// Converts the error of a call, and classifies whether the handler may have run.
#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn failed(error: TypedCallError) -> LockerError {
    // Handler errors are no refusals: what the handler did before it failed is not known.
    let did_not_run = matches!(
        error,
        TypedCallError::Encode { .. }
            | TypedCallError::Call(
                CallError::NotConnected { .. }
                    | CallError::UnknownHandler { .. }
                    | CallError::Refused { .. }
                    | CallError::TooLarge { .. }
                    | CallError::TooManyCalls { .. }
                    | CallError::Shutdown
            )
    );
    LockerError { may_have_run: !did_not_run, message: error.to_string() }
}

// ---- registration ----

/// Registers all operations with the manager of the lock grid: those of a locker only if this
/// server is one.
///
/// # Errors
///
/// [`RegisterError`] if the manager already has such handlers.
pub(crate) fn register(
    manager: &Manager,
    locker: Option<&LockerParts>,
    holder: &HolderParts,
) -> Result<(), RegisterError> {
    for row in &OPERATIONS {
        match (row.register, locker) {
            (Register::AtLocker(register), Some(locker)) => register(manager, locker)?,
            (Register::AtLocker(_), None) => {}
            (Register::AtHolder(register), _) => register(manager, holder)?,
        }
    }
    Ok(())
}

/// One row of the table of operations.
pub(crate) struct Row {
    id: HandlerId,
    register: Register,
}

/// How an operation is registered, by the parts of a server that handle it.
#[derive(Clone, Copy)]
enum Register {
    AtLocker(fn(&Manager, &LockerParts) -> Result<(), RegisterError>),
    AtHolder(fn(&Manager, &HolderParts) -> Result<(), RegisterError>),
}

const fn at_locker<O: Operation<Callee = LockerParts>>() -> Row {
    Row { id: O::HANDLER.id(), register: Register::AtLocker(register_one::<O>) }
}

const fn at_holder<O: Operation<Callee = HolderParts>>() -> Row {
    Row { id: O::HANDLER.id(), register: Register::AtHolder(register_one::<O>) }
}

fn register_one<O: Operation>(manager: &Manager, callee: &O::Callee) -> Result<(), RegisterError> {
    let callee = callee.clone();
    O::HANDLER.register(manager, move |context, args| {
        let handled = O::decode(&args).map(|request| O::handle(callee.clone(), context, request));
        async move {
            match handled {
                Ok(handled) => handled.await,
                Err(text) => O::Reply::invalid(text),
            }
        }
    })
}
