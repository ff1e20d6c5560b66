//! What this server answers to others: as a locker, and as one who holds locks.

use std::sync::Arc;

use grid::{
    CallOptions, HandlerError, Manager, Name, RegisterError, RequestContext, SingleHandler,
};

use crate::census::Census;
use crate::dsync::{Dsync, Inner};
use crate::limits::{HOLDINGS_BYTES_MAX, HOLDINGS_PER_ANSWER};
use crate::local::{LocalLocker, Overloaded};
use crate::locker::Locker;
use crate::proto::hold::{Answer, Message};
use crate::proto::quorum::Kind;
use crate::proto::table::{Holding, Refusal};
use crate::proto::token::Stamp;
use crate::wire::{self, Asked, HoldingsAnswer, LockAnswer, LockArgs, RevokedArgs};

/// Registers all handlers with the manager of the lock traffic.
pub(crate) fn register(dsync: &Dsync) -> Result<(), RegisterError> {
    let manager = &dsync.manager;
    if let Some(own) = &dsync.inner.own {
        let census = Census::new(dsync.lockers(), Arc::clone(&dsync.inner.clock));
        let census = Arc::new(census);
        for (handler, asked, kind) in [
            (wire::LOCK, Asked::Lock, Kind::Write),
            (wire::READ_LOCK, Asked::Lock, Kind::Read),
            (wire::UNLOCK, Asked::Unlock, Kind::Write),
            (wire::READ_UNLOCK, Asked::Unlock, Kind::Read),
            (wire::REFRESH, Asked::Refresh, Kind::Write),
        ] {
            let census = Arc::clone(&census);
            serve(manager, own, &handler, move |caller, args| {
                if asked == Asked::Lock {
                    census.check(caller, args, kind)?;
                }
                message(args, asked, kind)
            })?;
        }
        serve(manager, own, &wire::WAIT, |_caller, args| {
            let kind = if args.write { Kind::Write } else { Kind::Read };
            message(args, Asked::Wait, kind)
        })?;
        register_list(manager, own)?;
        register_force(dsync, own)?;
    }
    register_holdings(dsync)?;
    register_revoked(dsync)
}

/// What a request means; an error text if it means nothing.
fn message(args: &LockArgs, asked: Asked, kind: Kind) -> Result<Message, String> {
    args.check_texts()?;
    Ok(match asked {
        Asked::Lock => Message::Lock(args.to_ask(kind)?),
        Asked::Wait => Message::Wait(args.to_ask(kind)?),
        Asked::Refresh => Message::Refresh(args.to_refresh()?),
        Asked::Unlock => args.to_unlock(kind),
    })
}

fn serve(
    manager: &Manager,
    own: &LocalLocker,
    handler: &SingleHandler<LockArgs, LockAnswer>,
    meaning: impl Fn(&Name, &LockArgs) -> Result<Message, String> + Send + Sync + 'static,
) -> Result<(), RegisterError> {
    let own = own.clone();
    handler.register(manager, move |context, args| {
        let (own, message) = (own.clone(), meaning(context.caller(), &args));
        async move {
            let message = match message {
                Ok(message) => message,
                Err(text) => return Ok(LockAnswer::wrong(text)),
            };
            let is_lock = matches!(message, Message::Lock(_));
            Ok(match own.serve(message).await {
                Ok(stamped) => LockAnswer::of(stamped.answer, stamped.stamp.unwrap_or_default()),
                Err(Overloaded) if is_lock => {
                    LockAnswer::of(Answer::Lock(Err(Refusal::Full)), Stamp::default())
                }
                Err(Overloaded) => LockAnswer::wrong("overloaded".to_owned()),
            })
        }
    })
}

fn register_list(manager: &Manager, own: &LocalLocker) -> Result<(), RegisterError> {
    let own = own.clone();
    wire::LIST.register(manager, move |context, _| {
        let listing = own.list(context.time_left().unwrap_or_default());
        async move { listing.await.map_err(|error| HandlerError::from(error.text)) }
    })
}

fn register_force(dsync: &Dsync, own: &LocalLocker) -> Result<(), RegisterError> {
    let (own, inner) = (own.clone(), Arc::downgrade(&dsync.inner));
    wire::FORCE_UNLOCK.register(&dsync.manager, move |_context, args| {
        let mut count = 0;
        for what in args.to_forced() {
            let forced = own.force(&what);
            count += forced.len();
            if let Some(inner) = inner.upgrade() {
                tell_holders(&inner, forced);
            }
        }
        let code = if count == 0 { wire::CODE_NOT_FOUND } else { wire::CODE_OK };
        let stamp = own.stamp();
        let answer =
            LockAnswer { code, high: stamp.high, wall: stamp.wall, ..LockAnswer::default() };
        async move { Ok(answer) }
    })
}

/// Tells holders that this server's locker has forced their locks open: they would find out at their
/// next refresh.
pub(crate) fn tell_holders(inner: &Inner, forced: Vec<(Arc<str>, Arc<str>)>) {
    let mut others = Vec::new();
    for (uid, owner) in forced {
        if owner == inner.owner {
            revoked(inner, &inner.owner, &uid);
        } else if let Some(connection) = inner.connections.get(&*owner) {
            others.push((connection.clone(), RevokedArgs { uid: uid.to_string() }));
        }
    }
    if others.is_empty() {
        return;
    }
    let limit = inner.limits.attempt_timeout;
    tokio::spawn(async move {
        for (connection, args) in others {
            let options = CallOptions::default().timeout(limit);
            if let Err(error) = wire::REVOKED.call_with(&connection, &args, options).await {
                tracing::debug!(target: "dsync", uid = args.uid, %error, "a holder was not told");
            }
        }
    });
}

fn register_holdings(dsync: &Dsync) -> Result<(), RegisterError> {
    let inner = Arc::downgrade(&dsync.inner);
    wire::HOLDINGS.register(&dsync.manager, move |context: RequestContext, args| {
        let answer = inner.upgrade().map(|inner| {
            let asker = inner.locker_index(context.caller().as_str());
            holdings(&inner, asker, args.after)
        });
        async move { answer.ok_or_else(|| HandlerError::from("this server is shutting down")) }
    })
}

/// What this server holds of a locker that has restarted: the locks after the number `after`.
pub(crate) fn holdings(inner: &Inner, locker: Option<usize>, after: u64) -> HoldingsAnswer {
    let now = inner.clock.now();
    let mut answer = HoldingsAnswer::default();
    let Some(locker) = locker else { return answer };
    let mut bytes = 0;
    for (number, lock) in inner.locks_after(after, HOLDINGS_PER_ANSWER) {
        let holding: Option<Holding> = lock.act(now, |hold| hold.recall(locker, now));
        if let Some(holding) = holding {
            bytes += holding.ask.names.bytes();
            answer.holdings.push(LockArgs::holding(&holding));
        }
        answer.next = number;
        if bytes > HOLDINGS_BYTES_MAX {
            break;
        }
    }
    if inner.locks_after(answer.next.max(after), 1).is_empty() {
        answer.next = 0;
    }
    answer.high = inner.high(now);
    answer
}

fn register_revoked(dsync: &Dsync) -> Result<(), RegisterError> {
    let inner = Arc::downgrade(&dsync.inner);
    wire::REVOKED.register(&dsync.manager, move |context: RequestContext, args| {
        if let Some(inner) = inner.upgrade() {
            revoked(&inner, context.caller().as_str(), &args.uid);
        }
        async { Ok(()) }
    })
}

/// A locker has forced a lock open that this server holds.
pub(crate) fn revoked(inner: &Inner, locker: &str, uid: &str) {
    let now = inner.clock.now();
    if let (Some(locker), Some(lock)) = (inner.locker_index(locker), inner.lock_of(uid)) {
        lock.act(now, |hold| hold.handle_revoked(locker, uid, now));
    }
}
