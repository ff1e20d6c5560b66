//! RPC handlers of this server, as a locker and as a holder of locks.

use std::sync::Arc;

use grid::{
    CallOptions, HandlerError, Manager, Name, RegisterError, RequestContext, SingleHandler,
};

use crate::dsync::{Dsync, DsyncInner};
use crate::limits::{HELD_LEASES_BYTES_MAX, HELD_LEASES_PER_RESPONSE};
use crate::local::{LocalLocker, Overloaded};
use crate::locker::Locker;
use crate::proto::hold::{Request, Response};
use crate::proto::quorum::LockKind;
use crate::proto::table::{HeldLease, Refusal};
use crate::proto::token::TokenStamp;
use crate::quorum_check::QuorumCheck;
use crate::wire::{self, HeldLeasesResponse, LockArgs, LockResponse, LockRpc, RevokedArgs};

/// Registers all handlers with the manager of the lock grid.
pub(crate) fn register(dsync: &Dsync) -> Result<(), RegisterError> {
    let manager = &dsync.manager;
    if let Some(local_locker) = &dsync.inner.local_locker {
        let quorum_check = QuorumCheck::new(dsync.lockers(), Arc::clone(&dsync.inner.clock));
        let quorum_check = Arc::new(quorum_check);
        for (handler, rpc, kind) in [
            (wire::LOCK, LockRpc::Lock, LockKind::Write),
            (wire::READ_LOCK, LockRpc::Lock, LockKind::Read),
            (wire::UNLOCK, LockRpc::Unlock, LockKind::Write),
            (wire::READ_UNLOCK, LockRpc::Unlock, LockKind::Read),
            (wire::REFRESH, LockRpc::Refresh, LockKind::Write),
        ] {
            let quorum_check = Arc::clone(&quorum_check);
            serve(manager, local_locker, &handler, move |caller, args| {
                if rpc == LockRpc::Lock {
                    quorum_check.check(caller, args, kind)?;
                }
                decode(args, rpc, kind)
            })?;
        }
        serve(manager, local_locker, &wire::WAIT, |_caller, args| {
            let kind = if args.write { LockKind::Write } else { LockKind::Read };
            decode(args, LockRpc::Wait, kind)
        })?;
        register_list(manager, local_locker)?;
        register_force(dsync, local_locker)?;
    }
    register_held_leases(dsync)?;
    register_revoked(dsync)
}

/// Decodes a request; the error is a message for the caller.
fn decode(args: &LockArgs, rpc: LockRpc, kind: LockKind) -> Result<Request, String> {
    args.check_texts()?;
    Ok(match rpc {
        LockRpc::Lock => Request::Lock(args.to_lock_request(kind)?),
        LockRpc::Wait => Request::Wait(args.to_lock_request(kind)?),
        LockRpc::Refresh => Request::Refresh(args.to_refresh()?),
        LockRpc::Unlock => args.to_unlock(kind),
    })
}

fn serve(
    manager: &Manager,
    local_locker: &LocalLocker,
    handler: &SingleHandler<LockArgs, LockResponse>,
    to_request: impl Fn(&Name, &LockArgs) -> Result<Request, String> + Send + Sync + 'static,
) -> Result<(), RegisterError> {
    let local_locker = local_locker.clone();
    handler.register(manager, move |context, args| {
        let (local_locker, request) = (local_locker.clone(), to_request(context.caller(), &args));
        async move {
            let request = match request {
                Ok(request) => request,
                Err(text) => return Ok(LockResponse::invalid(text)),
            };
            let is_lock = matches!(request, Request::Lock(_));
            Ok(match local_locker.serve(request).await {
                Ok(stamped) => {
                    LockResponse::of(stamped.response, stamped.stamp.unwrap_or_default())
                }
                Err(Overloaded) if is_lock => {
                    LockResponse::of(Response::Lock(Err(Refusal::Full)), TokenStamp::default())
                }
                Err(Overloaded) => LockResponse::invalid("overloaded".to_owned()),
            })
        }
    })
}

fn register_list(manager: &Manager, local_locker: &LocalLocker) -> Result<(), RegisterError> {
    let local_locker = local_locker.clone();
    wire::LIST.register(manager, move |context, _| {
        let listing = local_locker.list(context.time_left().unwrap_or_default());
        async move { listing.await.map_err(|error| HandlerError::from(error.message)) }
    })
}

fn register_force(dsync: &Dsync, local_locker: &LocalLocker) -> Result<(), RegisterError> {
    let (local_locker, inner) = (local_locker.clone(), Arc::downgrade(&dsync.inner));
    wire::FORCE_UNLOCK.register(&dsync.manager, move |_context, args| {
        let mut count = 0;
        for target in args.to_force_targets() {
            let forced = local_locker.force(&target);
            count += forced.len();
            if let Some(inner) = inner.upgrade() {
                notify_holders(&inner, forced);
            }
        }
        let code = if count == 0 { wire::CODE_NOT_FOUND } else { wire::CODE_OK };
        let stamp = local_locker.stamp();
        let response = LockResponse {
            code,
            highest_token: stamp.highest,
            wall: stamp.wall,
            ..LockResponse::default()
        };
        async move { Ok(response) }
    })
}

/// Notifies holders that this server's locker has forced their locks open. Without the notice they
/// would learn of it at their next refresh.
pub(crate) fn notify_holders(inner: &DsyncInner, forced: Vec<(Arc<str>, Arc<str>)>) {
    let mut others = Vec::new();
    for (uid, owner) in forced {
        if owner == inner.owner {
            handle_revoked(inner, &inner.owner, &uid);
        } else if let Some(connection) = inner.connections.get(&*owner) {
            others.push((connection.clone(), RevokedArgs { uid: uid.to_string() }));
        }
    }
    if others.is_empty() {
        return;
    }
    let timeout = inner.limits.attempt_timeout;
    tokio::spawn(async move {
        for (connection, args) in others {
            let options = CallOptions::default().timeout(timeout);
            if let Err(error) = wire::REVOKED.call_with(&connection, &args, options).await {
                let uid = args.uid;
                tracing::debug!(target: "dsync", uid, %error, "revocation notice failed");
            }
        }
    });
}

fn register_held_leases(dsync: &Dsync) -> Result<(), RegisterError> {
    let inner = Arc::downgrade(&dsync.inner);
    wire::HELD_LEASES.register(&dsync.manager, move |context: RequestContext, args| {
        let response = inner.upgrade().map(|inner| {
            let locker = inner.locker_index(context.caller().as_str());
            held_leases(&inner, locker, args.after)
        });
        async move { response.ok_or_else(|| HandlerError::from("this server is shutting down")) }
    })
}

/// Reports the leases that this server holds from a locker that has restarted: those of the locks
/// after the number `after`.
pub(crate) fn held_leases(
    inner: &DsyncInner,
    locker: Option<usize>,
    after: u64,
) -> HeldLeasesResponse {
    let now = inner.clock.now();
    let mut response = HeldLeasesResponse::default();
    let Some(locker) = locker else { return response };
    let mut bytes = 0;
    for (number, lock) in inner.locks_after(after, HELD_LEASES_PER_RESPONSE) {
        let held_lease: Option<HeldLease> =
            lock.apply(now, |hold| hold.void_outstanding(locker, now));
        if let Some(held_lease) = held_lease {
            bytes += held_lease.request.resources.bytes();
            response.held_leases.push(LockArgs::held_lease(&held_lease));
        }
        response.next = number;
        if bytes > HELD_LEASES_BYTES_MAX {
            break;
        }
    }
    if inner.locks_after(response.next.max(after), 1).is_empty() {
        response.next = 0;
    }
    response.highest_token = inner.highest_token(now);
    response
}

fn register_revoked(dsync: &Dsync) -> Result<(), RegisterError> {
    let inner = Arc::downgrade(&dsync.inner);
    wire::REVOKED.register(&dsync.manager, move |context: RequestContext, args| {
        if let Some(inner) = inner.upgrade() {
            handle_revoked(&inner, context.caller().as_str(), &args.uid);
        }
        async { Ok(()) }
    })
}

/// Handles a locker's notice that it forced a lock open that this server holds.
pub(crate) fn handle_revoked(inner: &DsyncInner, locker: &str, uid: &str) {
    let now = inner.clock.now();
    if let (Some(locker), Some(lock)) = (inner.locker_index(locker), inner.lock_by_uid(uid)) {
        lock.apply(now, |hold| hold.handle_revoked(locker, uid, now));
    }
}
