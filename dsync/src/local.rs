//! The locker of this server: a table behind a mutex, and the waiters to notify.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use grid::Env;
use grid::sync::Mutex;
use grid::time::Instant;
use tokio::sync::{Notify, oneshot};

use crate::error::LockerError;
use crate::limits::{LISTED_BYTES_MAX, LISTED_MAX, Limits, WAIT_POLL};
use crate::locker::{Locker, ResponseFuture, StampedResponse};
use crate::proto::agreement::FOREVER;
use crate::proto::hold::{Request, Response};
use crate::proto::quorum::ListId;
use crate::proto::table::{
    ForceTarget, Gate, GrantCounts, HeldLease, LockRequest, RefreshRequest, Refusal, Table,
    WaitOutcome,
};
use crate::proto::token::{Token, TokenStamp};
use crate::proto::waiters::{QueueReport, Ticket};
use crate::wire::{LockerListing, LockerStateResponse};

/// The locker of this server. Cheap to clone.
#[derive(Clone)]
pub struct LocalLocker {
    inner: Arc<LockerInner>,
}

struct LockerInner {
    name: Arc<str>,
    env: Env,
    state: Mutex<TableState>,
    /// Number of callers that hold, or wait for, the mutex of `state`.
    callers: AtomicUsize,
    callers_max: usize,
    /// Wakes the timer task when a deadline precedes `next_wakeup`.
    reschedule: Notify,
    overloaded: AtomicUsize,
    started_at: Instant,
    /// Whether the table compares the lists of requests with its own.
    has_list: AtomicBool,
}

struct TableState {
    table: Table,
    /// Waiters to notify, by id, with the number of their latest wait request.
    waiters: BTreeMap<Arc<str>, (u64, oneshot::Sender<()>)>,
    wait_seq: u64,
    /// When the timer task runs next.
    next_wakeup: Option<Instant>,
    /// Until when this server is admitted, by what is known now.
    admitted_until: Instant,
}

impl std::fmt::Debug for LocalLocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLocker").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl LocalLocker {
    /// Returns the locker of the server `name`, which has just started; `nodes` may hold locks. Its
    /// hash tables are keyed from the environment.
    pub fn new<I>(name: &str, nodes: I, limits: &Limits, env: Env) -> Self
    where
        I: IntoIterator<Item = Arc<str>>,
    {
        let (now, wall) = (env.now(), Token::from_wall(env.wall()));
        let table = Table::new(limits, nodes, now, wall, env.seed());
        let state = TableState {
            table,
            waiters: BTreeMap::new(),
            wait_seq: 0,
            next_wakeup: None,
            admitted_until: FOREVER,
        };
        let inner = LockerInner {
            name: name.into(),
            env,
            state: Mutex::new(state),
            callers: AtomicUsize::new(0),
            callers_max: limits.table_callers_max,
            reschedule: Notify::new(),
            overloaded: AtomicUsize::new(0),
            started_at: now,
            has_list: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs an operation on the table, then notifies the waiters that can retry after it.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] if too many callers wait for the table (B57).
    fn with_table<R>(
        &self,
        operation: impl FnOnce(&mut TableState, Instant, Token) -> R,
    ) -> Result<R, Overloaded> {
        let inner = &self.inner;
        let _permit = inner.acquire_permit()?;
        let (result, notifications, is_earlier) = {
            let mut state = inner.state.lock();
            // Read with the table locked: its operations see a clock that does not go back.
            let (now, wall) = (inner.env.now(), Token::from_wall(inner.env.wall()));
            state.check_admission(now);
            let result = operation(&mut state, now, wall);
            let notifications = state.take_notifications();
            let due = state.table.poll_timeout();
            let is_earlier = due.is_some_and(|due| state.next_wakeup.is_none_or(|at| due < at));
            (result, notifications, is_earlier)
        };
        // With the mutex released: a woken waiter may lock it at once.
        for waiter in notifications {
            let _ = waiter.send(());
        }
        if is_earlier {
            inner.reschedule.notify_one();
        }
        Ok(result)
    }

    /// Handles all requests except wait requests, whose responses are deferred.
    fn handle(&self, request: &Request) -> Result<StampedResponse, Overloaded> {
        self.with_table(|state, now, wall| {
            let table = &mut state.table;
            let mut ticket = None;
            let response = match request {
                Request::Lock(request) => {
                    ticket = request.ticket.as_ref();
                    Response::Lock(table.lock(request, now, wall))
                }
                Request::Refresh(refresh) => Response::Refresh(table.refresh(refresh, now, wall)),
                Request::Unlock { uid, waiter, .. } => {
                    ticket = waiter.as_ref().and_then(|waiter| waiter.ticket.as_ref());
                    table.unlock(uid, waiter.as_ref(), now, wall);
                    Response::Released
                }
                Request::PlainUnlock { uid, owner, kind } => {
                    table.unlock_plain(uid, owner, *kind, now);
                    Response::Released
                }
                Request::CancelTicket(ticket) => {
                    table.cancel_ticket(ticket, now);
                    Response::Released
                }
                Request::Wait(_) => Response::Wait { is_notified: false },
            };
            stamped(response, table, ticket, wall)
        })
    }

    /// Handles several refreshes in one critical section. The responses have the same order.
    pub(crate) fn refresh_all(
        &self,
        refreshes: &[RefreshRequest],
    ) -> Result<Vec<StampedResponse>, Overloaded> {
        self.with_table(|state, now, wall| {
            let table = &mut state.table;
            let refresh = |refresh: &RefreshRequest| {
                let outcome = table.refresh(refresh, now, wall);
                stamped(Response::Refresh(outcome), table, None, wall)
            };
            refreshes.iter().map(refresh).collect()
        })
    }

    /// Returns the list of lockers that requests must be for.
    pub(crate) fn list_id(&self) -> ListId {
        self.inner.state.lock().table.list()
    }

    /// Sets the list of lockers that requests must be for.
    pub fn set_list(&self, list: ListId) {
        self.inner.state.lock().table.set_list(list);
        self.inner.has_list.store(list.hash != 0, Ordering::Release);
    }

    /// Returns whether [`set_list`](Self::set_list) has set a list.
    pub(crate) fn has_list(&self) -> bool {
        self.inner.has_list.load(Ordering::Acquire)
    }

    /// Sets until when this server is known to belong to the cluster; not at all if that is now or
    /// earlier. Without a call it always does. See [`Table::set_admitted`].
    pub fn set_admitted_until(&self, until: Instant) {
        // A change that must not be lost to an overload: it takes no permit.
        let now = self.inner.env.now();
        let notifications = {
            let mut state = self.inner.state.lock();
            state.admitted_until = until;
            let is_admitted = now < until;
            if state.table.is_admitted() != is_admitted {
                state.table.set_admitted(is_admitted, now);
            }
            state.take_notifications()
        };
        for waiter in notifications {
            let _ = waiter.send(());
        }
        self.inner.reschedule.notify_one();
    }

    /// Returns what the locker knows of its state.
    pub(crate) fn state(&self) -> LockerStateResponse {
        let now = self.inner.env.now();
        let up_for = now.since(self.inner.started_at);
        let mut state = self.inner.state.lock();
        state.check_admission(now);
        let ListId { epoch, hash } = state.table.list();
        LockerStateResponse {
            epoch,
            list_hash: hash,
            is_gate_open: state.table.grants_locks(now),
            up_for_ms: u64::try_from(up_for.as_millis()).unwrap_or(u64::MAX),
            highest_token: state.table.highest_token(),
            is_locker: true,
            ..LockerStateResponse::default()
        }
    }

    /// Waits for a notification to retry `request`. Returns whether it came in time.
    async fn wait(&self, request: &LockRequest) -> bool {
        let Some(ticket) = request.ticket.clone() else { return false };
        let enqueued = self.with_table(|state, now, wall| {
            let (sender, receiver) = oneshot::channel();
            state.wait_seq += 1;
            let seq = state.wait_seq;
            // Registered first: the table may notify it as soon as it is enqueued.
            let replaced = state.waiters.insert(Arc::clone(&ticket.id), (seq, sender));
            match state.table.wait(request, now, wall) {
                WaitOutcome::Enqueued => (Some((seq, receiver)), replaced),
                WaitOutcome::Refused => (None, state.waiters.remove(&ticket.id)),
            }
        });
        // The replaced request ends here, with the table unlocked: that wakes its task.
        let Ok((Some((seq, receiver)), _)) = enqueued else { return false };
        let _guard = WaitGuard { locker: self.clone(), id: ticket.id, seq };
        matches!(tokio::time::timeout(WAIT_POLL, receiver).await, Ok(Ok(())))
    }

    /// Handles any request.
    pub(crate) async fn serve(&self, request: Request) -> Result<StampedResponse, Overloaded> {
        let Request::Wait(request) = request else { return self.handle(&request) };
        let is_notified = self.wait(&request).await;
        let wall = Token::from_wall(self.inner.env.wall());
        let state = self.inner.state.lock();
        let ticket = request.ticket.as_ref();
        Ok(stamped(Response::Wait { is_notified }, &state.table, ticket, wall))
    }

    /// Returns the token stamp for a response.
    pub(crate) fn stamp(&self) -> TokenStamp {
        let inner = &self.inner;
        let wall = Token::from_wall(inner.env.wall());
        inner.state.lock().table.stamp(wall)
    }

    /// Returns a stamp with the time alone, which needs no access to the table.
    pub(crate) fn wall_stamp(&self) -> TokenStamp {
        TokenStamp { highest: Token::default(), wall: Token::from_wall(self.inner.env.wall()) }
    }

    /// Returns the highest token that this locker knows.
    pub(crate) fn highest_token(&self) -> Token {
        let state = self.inner.state.lock();
        state.table.highest_token()
    }

    /// Forces grants open. Returns their ids and holders.
    pub(crate) fn force(&self, target: &ForceTarget) -> Vec<(Arc<str>, Arc<str>)> {
        self.with_table(|state, now, _| state.table.force_unlock(target, now)).unwrap_or_default()
    }

    /// Records the leases that a node has reported (B53).
    pub(crate) fn handle_report(
        &self,
        node: &str,
        held_leases: Vec<HeldLease>,
        highest_token: Token,
    ) {
        let reported = self.with_table(|state, now, wall| {
            state.table.handle_report(node, held_leases, highest_token, now, wall);
        });
        if reported.is_err() {
            // The gate opens after a lease.
            tracing::debug!(target: "dsync", node, "table overloaded, lease report dropped");
        }
    }

    /// Returns the nodes whose reports are missing before it grants, and for how long at most;
    /// `None` if it grants.
    pub fn unreported_nodes(&self) -> Option<(Vec<Arc<str>>, Duration)> {
        let now = self.inner.env.now();
        let mut state = self.inner.state.lock();
        match state.table.gate(now) {
            Gate::Open => None,
            Gate::Closed { until, unreported } => {
                Some((unreported.iter().cloned().collect(), until.since(now)))
            }
        }
    }

    /// Returns the counters, the numbers of grants and waiters, and that of requests refused
    /// because the table was overloaded.
    pub fn counts(&self) -> (GrantCounts, usize, usize, usize) {
        let now = self.inner.env.now();
        let mut state = self.inner.state.lock();
        state.table.handle_timeout(now);
        let (grants, waiters) = state.table.sizes();
        (state.table.counts(), grants, waiters, self.inner.overloaded.load(Ordering::Relaxed))
    }

    fn listing(&self) -> LockerListing {
        let listing = self.with_table(|state, now, _| {
            let table = &mut state.table;
            let is_open = table.grants_locks(now);
            let (grants_total, waiters_total) = table.sizes();
            LockerListing {
                grants: table.grants(now, LISTED_MAX, LISTED_BYTES_MAX),
                waiters: table.waiters(now, LISTED_MAX, LISTED_BYTES_MAX),
                grants_total: grants_total as u64,
                waiters_total: waiters_total as u64,
                is_open,
            }
        });
        listing.unwrap_or_default()
    }

    /// Runs the timers of the table until the locker is dropped. One task per locker.
    pub(crate) async fn run_timers(self) {
        let weak = Arc::downgrade(&self.inner);
        drop(self);
        while let Some(locker) = upgrade(&weak) {
            let Ok(due) = locker.with_table(|state, now, _| {
                state.table.handle_timeout(now);
                state.next_wakeup = state.table.poll_timeout();
                state.next_wakeup.map(|at| at.since(now))
            }) else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            // tokio's timers have a resolution of 1 ms and may fire 1 ms early.
            let pause = due.unwrap_or(IDLE_INTERVAL).clamp(Duration::from_millis(1), IDLE_INTERVAL);
            let inner = Arc::clone(&locker.inner);
            drop(locker);
            tokio::select! {
                biased;
                () = inner.reschedule.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Wake-up interval of the timer task without a deadline: it may outlive the locker by as much.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

fn upgrade(weak: &Weak<LockerInner>) -> Option<LocalLocker> {
    weak.upgrade().map(|inner| LocalLocker { inner })
}

/// Too many callers wait for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overloaded;

/// Permit of a caller that holds, or waits for, the mutex of the table.
struct TablePermit<'a>(&'a AtomicUsize);

impl Drop for TablePermit<'_> {
    fn drop(&mut self) {
        let callers = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(callers > 0, "LockerInner.callers: {callers} before a permit was returned");
    }
}

impl LockerInner {
    fn acquire_permit(&self) -> Result<TablePermit<'_>, Overloaded> {
        let permit = TablePermit(&self.callers);
        if self.callers.fetch_add(1, Ordering::Relaxed) >= self.callers_max {
            self.overloaded.fetch_add(1, Ordering::Relaxed);
            return Err(Overloaded);
        }
        Ok(permit)
    }
}

impl TableState {
    /// Ends the admission in time, also if the process was suspended meanwhile.
    fn check_admission(&mut self, now: Instant) {
        if self.admitted_until <= now && self.table.is_admitted() {
            self.table.set_admitted(false, now);
        }
    }

    /// Takes the waiters that are to be notified now.
    fn take_notifications(&mut self) -> Vec<oneshot::Sender<()>> {
        let mut notifications = Vec::new();
        while let Some(ticket) = self.table.poll_notification() {
            notifications.extend(self.waiters.remove(&ticket.id).map(|(_, sender)| sender));
        }
        notifications
    }
}

/// Forgets where to notify a waiter when its wait request ends. Its ticket stays in the queues.
struct WaitGuard {
    locker: LocalLocker,
    id: Arc<str>,
    seq: u64,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        let mut state = self.locker.inner.state.lock();
        // Unless a newer wait request has replaced this one.
        if state.waiters.get(&self.id).is_some_and(|(latest, _)| *latest == self.seq) {
            state.waiters.remove(&self.id);
        }
    }
}

/// Completes a response with the state of the table behind it.
fn stamped(
    response: Response,
    table: &Table,
    ticket: Option<&Ticket>,
    wall: Token,
) -> StampedResponse {
    let (stamp, queue) = (Some(table.stamp(wall)), table.queue_report(ticket));
    StampedResponse { response, stamp, queue, error: None }
}

impl Locker for LocalLocker {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn call(&self, request: Request, timeout: Duration) -> ResponseFuture<StampedResponse> {
        let locker = self.clone();
        Box::pin(async move {
            let is_lock = matches!(request, Request::Lock(_));
            match tokio::time::timeout(timeout, locker.serve(request)).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(Overloaded)) if is_lock => Ok(StampedResponse {
                    response: Response::Lock(Err(Refusal::Full)),
                    stamp: Some(locker.wall_stamp()),
                    queue: QueueReport::default(),
                    error: None,
                }),
                Ok(Err(Overloaded)) => {
                    Err(LockerError { may_have_run: false, message: "overloaded".to_owned() })
                }
                Err(_) => Err(LockerError { may_have_run: true, message: "timed out".to_owned() }),
            }
        })
    }

    fn refresh_batch(
        &self,
        refreshes: Vec<RefreshRequest>,
        _timeout: Duration,
    ) -> ResponseFuture<Vec<Result<StampedResponse, LockerError>>> {
        let overloaded =
            |Overloaded| LockerError { may_have_run: false, message: "overloaded".to_owned() };
        let responses = self.refresh_all(&refreshes).map_err(overloaded);
        Box::pin(async move { Ok(responses?.into_iter().map(Ok).collect()) })
    }

    fn list(&self, _timeout: Duration) -> ResponseFuture<LockerListing> {
        let listing = self.listing();
        Box::pin(async move { Ok(listing) })
    }

    fn force_unlock(&self, target: &ForceTarget, _timeout: Duration) -> ResponseFuture<usize> {
        let forced = self.force(target).len();
        Box::pin(async move { Ok(forced) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;
    use crate::clock::LeaseClock;
    use crate::proto::quorum::LockKind;
    use crate::proto::resources::Resources;

    /// Timeout of operations that must not hang.
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn lock_request(uid: &str) -> Request {
        let resources = Resources::new(["a"]).expect("valid names");
        Request::Lock(LockRequest {
            uid: uid.into(),
            resources,
            kind: LockKind::Read,
            owner: "n".into(),
            source: "test".into(),
            quorum: 1,
            proposed_token: Token::default(),
            ticket: None,
            supports_leases: true,
            list: ListId::default(),
        })
    }

    fn open_locker(table_callers_max: usize) -> LocalLocker {
        let limits = Limits { table_callers_max, ..Limits::default() };
        let locker = LocalLocker::new(
            "n",
            ["n".into()],
            &limits,
            Env::system().with_clock(LeaseClock::new()),
        );
        locker.handle_report("n", Vec::new(), Token::default());
        locker
    }

    /// Calls the locker as a driver does, in a separate thread, as the call may block.
    fn call(locker: &LocalLocker, request: Request) -> thread::JoinHandle<Result<Response, bool>> {
        let response = locker.call(request, TIMEOUT);
        thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let response = runtime.expect("a runtime").block_on(response);
            response.map(|stamped| stamped.response).map_err(|error| error.may_have_run)
        })
    }

    fn wait_until(mut condition: impl FnMut() -> bool) {
        while !condition() {
            thread::yield_now();
        }
    }

    #[test]
    fn b57_callers_beyond_the_limit_are_refused_without_waiting() {
        let locker = open_locker(2);
        let locked_table = locker.inner.state.lock();
        let waiting = ["1", "2"].map(|uid| call(&locker, lock_request(uid)));
        wait_until(|| locker.inner.callers.load(Ordering::Relaxed) == 2);

        let (sender, receiver) = sync_channel(2);
        let caller = locker.clone();
        thread::spawn(move || {
            let release = Request::Unlock {
                uid: "0".into(),
                resources: None,
                kind: LockKind::Read,
                waiter: None,
            };
            for request in [lock_request("3"), release] {
                let _ = sender.send(call(&caller, request).join().expect("no panic"));
            }
        });
        // The table is still locked: a caller that waited for it would get no response.
        let refused = receiver.recv_timeout(TIMEOUT).expect("refused without waiting");
        assert_eq!(refused, Ok(Response::Lock(Err(Refusal::Full))));
        let refused = receiver.recv_timeout(TIMEOUT).expect("refused without waiting");
        assert_eq!(refused, Err(false), "a refused request has certainly not run");

        drop(locked_table);
        for waiter in waiting {
            let response = waiter.join().expect("no panic");
            assert!(matches!(response, Ok(Response::Lock(Ok(_)))), "{response:?}");
        }
        let response = call(&locker, lock_request("3")).join().expect("no panic");
        assert!(
            matches!(response, Ok(Response::Lock(Ok(_)))),
            "the table has room again: {response:?}"
        );
        let (_, grants, _, overloaded) = locker.counts();
        assert_eq!((grants, overloaded), (3, 2));
    }
}
