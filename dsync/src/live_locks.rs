//! The state of one instance that changes: its unfinished locks, and its estimate of the lockers'
//! clocks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grid::Env;
use grid::sync::Mutex;
use grid::time::Instant;
use tokio::sync::Notify;

use crate::error::LockError;
use crate::limits::{HELD_LEASES_BYTES_MAX, HELD_LEASES_PER_RESPONSE, Limits};
use crate::lock::Lock;
use crate::proto::hold::{AttemptLimit, Hold, HoldConfig, WaitMode};
use crate::proto::quorum::{ListId, LockKind};
use crate::proto::resources::Resources;
use crate::proto::table::HeldLease;
use crate::proto::token::{Token, TokenClock, TokenStamp};

/// Parameters that all locks of one instance share.
pub(crate) struct LocksConfig {
    /// Name of this server.
    pub(crate) owner: Arc<str>,
    /// Names of the lockers. A lock's votes are by index into this list.
    pub(crate) lockers: Vec<Arc<str>>,
    /// Identifies this list.
    pub(crate) list: ListId,
    pub(crate) limits: Limits,
    pub(crate) wait_mode: WaitMode,
}

/// Unfinished locks of this process, and its token clock.
pub(crate) struct LiveLocks {
    config: LocksConfig,
    env: Env,
    /// Random id of this process, which makes the ids of its locks globally unique.
    instance_id: u128,
    tokens: Mutex<TokenClock>,
    /// Whether each locker has shown to be of this crate.
    are_ours: Vec<AtomicBool>,
    locks: Mutex<NumberedLocks>,
    is_closing: AtomicBool,
    removed: Notify,
}

/// Locks of this process that are not finished, by number.
#[derive(Debug, Default)]
struct NumberedLocks {
    last: u64,
    live: BTreeMap<u64, Arc<Lock>>,
}

/// A new lock, to be acquired.
pub(crate) struct LockOrder {
    pub(crate) resources: Resources,
    pub(crate) kind: LockKind,
    pub(crate) source: Arc<str>,
    pub(crate) attempt_limit: AttemptLimit,
}

/// One page of the leases that this process holds from one locker.
#[derive(Debug, Default)]
pub(crate) struct LeasePage {
    pub(crate) held_leases: Vec<HeldLease>,
    /// Upper bound of the tokens issued so far, as far as this process knows.
    pub(crate) highest_token: Token,
    /// Cursor of the next page; 0 after the last page.
    pub(crate) next: u64,
}

impl fmt::Debug for LiveLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveLocks").field("owner", &self.config.owner).finish_non_exhaustive()
    }
}

impl LiveLocks {
    pub(crate) fn new(config: LocksConfig, env: Env) -> Self {
        let are_ours = config.lockers.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            config,
            are_ours,
            instance_id: env.unique_id(),
            env,
            tokens: Mutex::default(),
            locks: Mutex::default(),
            is_closing: AtomicBool::new(false),
            removed: Notify::new(),
        }
    }

    pub(crate) fn owner(&self) -> &Arc<str> {
        &self.config.owner
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Creates a lock, and begins its first attempt.
    pub(crate) fn begin(&self, order: LockOrder) -> Result<Arc<Lock>, LockError> {
        if self.is_closing.load(Ordering::Acquire) {
            return Err(LockError::ShuttingDown);
        }
        let LocksConfig { owner, lockers, list, limits, wait_mode } = &self.config;
        let LockOrder { resources, kind, source, attempt_limit } = order;
        let now = self.env.now();
        let seed = self.env.seed();
        let tokens = *self.tokens.lock();
        let mut locks = self.locks.lock();
        if locks.live.len() >= limits.holds_max {
            return Err(LockError::TooMany { max: limits.holds_max });
        }
        locks.last += 1;
        let number = locks.last;
        let config = HoldConfig {
            lockers: lockers.len(),
            are_ours: self.are_ours.iter().map(|ours| ours.load(Ordering::Relaxed)).collect(),
            resources,
            kind,
            owner: Arc::clone(owner),
            source,
            list: *list,
            id: format!("{:032x}-{number:x}", self.instance_id).into(),
            attempt_limit,
            wait_mode: *wait_mode,
            limits: limits.clone(),
            seed,
        };
        let lock = Arc::new(Lock::new(number, Hold::new(config, tokens, now)));
        locks.live.insert(number, Arc::clone(&lock));
        Ok(lock)
    }

    /// Removes a lock that is finished: everything is released.
    pub(crate) fn remove(&self, number: u64) {
        let removed = self.locks.lock().live.remove(&number);
        drop(removed);
        self.removed.notify_waiters();
    }

    /// Refuses new locks from now on. Returns the unfinished ones.
    pub(crate) fn close(&self) -> Vec<Arc<Lock>> {
        self.is_closing.store(true, Ordering::Release);
        self.locks.lock().live.values().cloned().collect()
    }

    /// Waits until all locks are finished.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time.
    pub(crate) async fn wait_empty(&self) {
        loop {
            let removed = self.removed.notified();
            if self.locks.lock().live.is_empty() {
                return;
            }
            removed.await;
        }
    }

    /// Returns the number of unfinished locks.
    pub(crate) fn len(&self) -> usize {
        self.locks.lock().live.len()
    }

    /// Returns the leases that this process holds from `locker`: those of the locks after the
    /// number `after`. Voids outstanding requests to that locker: it has restarted, and only the
    /// returned leases count ([B53](crate::rules#b53)). A server that is no locker has none.
    pub(crate) fn leases_from(&self, locker: &str, after: u64) -> LeasePage {
        let mut page = LeasePage::default();
        let Some(locker) = self.locker_index(locker) else { return page };
        let now = self.env.now();
        let mut bytes = 0;
        for (number, lock) in self.after(after, HELD_LEASES_PER_RESPONSE) {
            if let Some(held_lease) = lock.apply(now, |hold| hold.void_outstanding(locker, now)) {
                bytes += held_lease.request.resources.bytes();
                page.held_leases.push(held_lease);
            }
            page.next = number;
            if bytes > HELD_LEASES_BYTES_MAX {
                break;
            }
        }
        if self.after(page.next.max(after), 1).is_empty() {
            page.next = 0;
        }
        page.highest_token = self.tokens.lock().now(now);
        page
    }

    /// Returns up to `count` unfinished locks with a greater number.
    fn after(&self, number: u64, count: usize) -> Vec<(u64, Arc<Lock>)> {
        let locks = self.locks.lock();
        let after = locks.live.range(number.saturating_add(1)..).take(count);
        after.map(|(number, lock)| (*number, Arc::clone(lock))).collect()
    }

    /// Handles a locker's notice that it forced a lock open that this server holds.
    pub(crate) fn handle_revoked(&self, locker: &str, uid: &str) {
        let now = self.env.now();
        if let (Some(locker), Some(lock)) = (self.locker_index(locker), self.by_uid(uid)) {
            lock.apply(now, |hold| hold.handle_revoked(locker, uid, now));
        }
    }

    /// Returns the lock of the attempt with this id.
    fn by_uid(&self, uid: &str) -> Option<Arc<Lock>> {
        let id = uid.rsplit_once('.')?.0.rsplit_once('-')?;
        if id.0 != format!("{:032x}", self.instance_id) {
            return None;
        }
        let number = u64::from_str_radix(id.1, 16).ok()?;
        self.locks.lock().live.get(&number).cloned()
    }

    fn locker_index(&self, name: &str) -> Option<usize> {
        self.config.lockers.iter().position(|locker| **locker == *name)
    }

    /// Records the token stamp of a locker, in the response to a request that was sent at `sent_at`.
    pub(crate) fn observe(
        &self,
        locker: usize,
        stamp: TokenStamp,
        (sent_at, now): (Instant, Instant),
    ) {
        self.tokens.lock().observe_response(stamp, sent_at, now);
        if stamp.wall != Token::default()
            && let Some(is_ours) = self.are_ours.get(locker)
        {
            is_ours.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether a locker has shown to be of this crate.
    pub(crate) fn is_ours(&self, locker: usize) -> bool {
        self.are_ours.get(locker).is_some_and(|ours| ours.load(Ordering::Relaxed))
    }

    /// Records an issued token.
    pub(crate) fn observe_token(&self, token: Token) {
        self.tokens.lock().observe_token(token);
    }
}
