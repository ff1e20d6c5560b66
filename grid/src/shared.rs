//! The state machine of one remote behind its lock, and the wakers of its waiters.
//!
//! Callers, handlers, the connection's task and watchers of its state meet here and nowhere else.
//! Each method takes the lock once, drives the state machine, and wakes tasks after the lock is
//! released. Nothing here knows sockets or tasks, and all locks come from [`crate::sync`], so that
//! loom can check it as it ships.
//!
//! One `Shared` outlives its connections. Each connection is an [`Epoch`]. A task or handler of an
//! earlier connection (one whose socket was superseded, or that returns late) finds its epoch ended
//! and can do no harm ([B03]).
//!
//! Public for other I/O layers and for loom: before 1.0 the interface may change with each minor
//! version.
//!
//! [B03]: crate::rules#b03

use std::sync::Arc as StdArc;
use std::task::{Poll, Waker};

use crate::check_schedule::CheckSchedule;
use crate::error::CallError;
use crate::limits::Limits;
use crate::name::Name;
use crate::outcome;
use crate::proto::Transmit;
use crate::proto::connection::{CloseReason, HandlerResult, Request};
use crate::proto::message::{Checksum, Message};
use crate::stats::{ConnectionState, ConnectionStats, Failure};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Instant};

mod invariants;
mod slot;
mod state;
mod stream;
mod stream_slot;

pub use slot::{NewCall, StartedCall};
pub use state::DeferredWork;
pub use stream::{NewStream, StreamHandle};

use slot::CallSlot;
use state::{ClosedTotals, Machine, OpenLink, SharedState, Waiter};

/// Identifies one connection of a remote among those before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

/// The state shared by all users of one remote.
#[derive(Debug)]
pub struct Shared {
    local: Name,
    remote: Name,
    limits: Limits,
    checksum: Checksum,
    clock: ClockHandle,
    handler_tasks: AtomicUsize,
    state: Mutex<SharedState>,
}

/// Registers a waker under its earlier key, or under a new one. Returns the replaced waker, which
/// must not be dropped under a lock.
fn register(
    wakers: &mut slab::Slab<Waker>,
    key: &mut Option<usize>,
    waker: Waker,
) -> Option<Waker> {
    match key.and_then(|key| wakers.get_mut(key)) {
        Some(registered) => Some(std::mem::replace(registered, waker)),
        None => {
            *key = Some(wakers.insert(waker));
            None
        }
    }
}

/// A shared pointer to a [`Shared`].
pub type SharedRef = Arc<Shared>;

/// The clock of a manager, shared by its tasks. Always std's `Arc`: loom's cannot hold a trait
/// object, and a clock has no interleavings to check.
#[derive(Clone)]
pub struct ClockHandle(pub StdArc<dyn Clock>);

impl std::fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// The progress of a connection's task with its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// Everything was written and has left this process.
    All,
    /// The limit of a turn was reached; more is queued.
    Partial,
    /// The socket is full.
    Blocked,
}

/// Whether a connection's task has output to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// At least one message is queued.
    Queued,
    /// No message is queued.
    Empty,
}

/// The instruction for a connection's task without work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Park {
    /// There is output to write after all.
    Ready,
    /// Sleep until woken, or until this time.
    Until(Option<Instant>),
}

impl Shared {
    /// Creates a remote that is not connected.
    pub fn new(local: Name, remote: Name, limits: Limits, clock: ClockHandle) -> Self {
        // P8: a checksum unless the transport of both ends protects the messages.
        let is_protected = local.is_secure() && remote.is_secure();
        let checksum = if is_protected { Checksum::Off } else { Checksum::On };
        Self {
            local,
            remote,
            limits,
            checksum,
            clock,
            handler_tasks: AtomicUsize::new(0),
            state: Mutex::new(SharedState {
                link: None,
                epoch: Epoch(0),
                end_reason: None,
                connection_state: ConnectionState::Connecting,
                version: 0,
                watchers: slab::Slab::new(),
                handler_wakers: rustc_hash::FxHashMap::default(),
                is_draining: false,
                idle_waiters: Vec::new(),
                last_failure: None,
                closed_totals: ClosedTotals::default(),
                checks: CheckSchedule::default(),
            }),
        }
    }

    /// Returns the name of this server.
    pub fn local(&self) -> &Name {
        &self.local
    }

    /// Returns the name of the other server.
    pub fn remote(&self) -> &Name {
        &self.remote
    }

    /// Returns the limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads the monotonic clock.
    pub fn now(&self) -> Instant {
        self.clock.0.now()
    }

    /// Runs `act` under the lock, and wakes tasks after it.
    fn with<R>(&self, act: impl FnOnce(&mut SharedState, &mut DeferredWork) -> R) -> R {
        let mut work = DeferredWork::default();
        let result = {
            let mut state = self.state.lock();
            let result = act(&mut state, &mut work);
            state.end_operation();
            result
        };
        debug_assert!(work.incoming.is_empty(), "only `receive` adds incoming calls");
        work.wake();
        result
    }

    // ---- callers ----

    /// Starts a call; `waker` is woken when it ends.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the call was not started. Nothing was sent then.
    pub fn start(&self, call: NewCall, waker: &Waker) -> Result<StartedCall, CallError> {
        let NewCall { handler, subroute, payload, timeout } = call;
        let now = self.now();
        let deadline = now + timeout;
        let request = Request { handler, subroute, payload, deadline };
        let slot = Arc::new(CallSlot::new(waker.clone()));
        // If the call does not start, the slot is dropped out here, not under the lock: a waker may
        // run foreign code.
        let (epoch, mux_id) = self.with(|state, work| {
            if state.is_draining {
                return Err(CallError::Shutdown);
            }
            let epoch = state.epoch;
            let Some(link) = &mut state.link else {
                return Err(CallError::NotConnected { remote: self.remote.clone() });
            };
            let mux_id = link
                .machine
                .call(Waiter::Call(Arc::clone(&slot)), &request, now)
                .map_err(|error| outcome::start_error(error, &self.limits, &self.remote))?;
            link.wake_driver_for(deadline, work);
            Ok((epoch, mux_id))
        })?;
        Ok(StartedCall { slot, epoch, mux_id })
    }

    /// Cancels a started call ([B11]). Does nothing if it has ended.
    ///
    /// [B11]: crate::rules#b11
    pub fn cancel(&self, call: &StartedCall) {
        self.with(|state, work| {
            if let Ok(link) = state.link(call.epoch) {
                link.machine.cancel(call.mux_id);
                link.wake_driver(work);
                state.apply_events(work);
            }
        });
    }

    // ---- the connection's task ----

    /// Starts a new connection, which supersedes the current one, if any ([B03]).
    ///
    /// # Errors
    ///
    /// [`CloseReason::Shutdown`] if this remote is draining or ended for good.
    ///
    /// [B03]: crate::rules#b03
    pub fn attach(&self) -> Result<Epoch, CloseReason> {
        let now = self.now();
        self.with(|state, work| {
            if state.connection_state == ConnectionState::Shutdown || state.is_draining {
                return Err(CloseReason::Shutdown);
            }
            state.end(CloseReason::Superseded, work);
            state.epoch.0 += 1;
            state.end_reason = None;
            state.link = Some(OpenLink {
                machine: Machine::new(&self.limits, self.checksum, now),
                driver_waker: None,
                driver_can_write: true,
                driver_wakes_at: None,
                is_flushed: true,
                bytes_in: 0,
            });
            state.set_connection_state(ConnectionState::Connected, work);
            Ok(state.epoch)
        })
    }

    /// Ends a connection. Does nothing if it has already ended.
    pub fn detach(&self, epoch: Epoch, reason: CloseReason) {
        self.with(|state, work| {
            if state.epoch == epoch {
                state.end(reason, work);
            }
        });
    }

    /// Runs expired timers, and handles the messages of one or more frames of `bytes` bytes,
    /// emptying `messages`. Returns whether there is output to write.
    ///
    /// Actions that must not happen under the lock, wake-ups included, are added to `work`. The
    /// task must call this in each turn, also without messages: a task that is always busy never
    /// sleeps, and its deadlines must be kept all the same.
    ///
    /// # Errors
    ///
    /// The reason for the end of the connection, if it has ended.
    pub fn receive(
        &self,
        epoch: Epoch,
        messages: &mut Vec<Message>,
        bytes: usize,
        work: &mut DeferredWork,
    ) -> Result<Output, CloseReason> {
        let now = self.now();
        let mut state = self.state.lock();
        let link = state.link(epoch)?;
        if link.machine.poll_timeout().is_some_and(|at| at <= now) {
            link.machine.handle_timeout(now, self.clock.0.wall());
        }
        link.bytes_in += bytes as u64;
        for message in messages.drain(..) {
            link.machine.handle_message(message, now);
        }
        state.apply_events(work);
        state.end_operation();
        let wants_transmit = state.link(epoch)?.machine.wants_transmit();
        Ok(if wants_transmit { Output::Queued } else { Output::Empty })
    }

    /// Queues the responses of handlers. Those of calls that have ended are ignored.
    pub fn respond(&self, epoch: Epoch, responses: &[(u64, HandlerResult)]) {
        let now = self.now();
        self.with(|state, work| {
            if state.link(epoch).is_err() {
                return;
            }
            if let SharedState { link: Some(link), handler_wakers, .. } = state {
                for (mux_id, response) in responses {
                    link.machine.respond(*mux_id, response, now);
                    // A response that waits for room keeps its call live; an event reports its end.
                    if !handler_wakers.is_empty() && !link.machine.is_inbound_live(*mux_id) {
                        work.wakers.extend(
                            handler_wakers
                                .remove(mux_id)
                                .into_iter()
                                .flatten()
                                .map(|(_, waker)| waker),
                        );
                    }
                }
                link.wake_driver(work);
            }
            state.apply_events(work);
        });
    }

    /// Refuses an inbound call.
    pub fn refuse(&self, epoch: Epoch, mux_id: u64, reason: &str) {
        self.with(|state, work| {
            if let Ok(link) = state.link(epoch) {
                link.machine.refuse(mux_id, reason);
                link.wake_driver(work);
                state.apply_events(work);
            }
        });
    }

    /// Takes the next frame to be written, if there is one.
    ///
    /// # Errors
    ///
    /// The reason for the end of the connection, if it has ended.
    pub fn next_transmit(&self, epoch: Epoch) -> Result<Option<Transmit>, CloseReason> {
        let now = self.now();
        self.with(|state, work| {
            let link = state.link(epoch)?;
            let transmit = link.machine.poll_transmit(now);
            link.is_flushed &= transmit.is_none();
            state.apply_events(work);
            Ok(transmit)
        })
    }

    /// Registers the task to be woken for new work. `written` is its progress with the output.
    ///
    /// # Errors
    ///
    /// The reason for the end of the connection, if it has ended.
    pub fn park(&self, epoch: Epoch, written: Written, waker: &Waker) -> Result<Park, CloseReason> {
        let waker = waker.clone();
        let mut state = self.state.lock();
        let link = state.link(epoch)?;
        let can_write = written == Written::All;
        if can_write && link.machine.wants_transmit() {
            return Ok(Park::Ready);
        }
        link.is_flushed = can_write;
        let previous = link.driver_waker.replace(waker);
        link.driver_can_write = can_write;
        link.driver_wakes_at = link.machine.poll_timeout();
        let until = Park::Until(link.driver_wakes_at);
        let idle = state.idle_waiters_to_wake();
        drop(state);
        idle.into_iter().for_each(Waker::wake);
        drop(previous); // not under the lock: a waker may run foreign code
        Ok(until)
    }

    // ---- handlers ----

    /// Returns ready once the response of an inbound call is no longer needed. `key` identifies the
    /// waiter: `None` at first, and passed to [`deregister`](Self::deregister) if the waiter is
    /// dropped.
    pub fn poll_cancelled(
        &self,
        epoch: Epoch,
        mux_id: u64,
        key: &mut Option<usize>,
        waker: &Waker,
    ) -> Poll<()> {
        let waker = waker.clone();
        let mut state = self.state.lock();
        match state.link(epoch) {
            Ok(link) if link.machine.is_inbound_live(mux_id) => {}
            _ => {
                *key = None; // the end of the call emptied the table
                return Poll::Ready(());
            }
        }
        let waiters = state.handler_wakers.entry(mux_id).or_default();
        let previous = register(waiters, key, waker);
        state.end_operation();
        drop(state);
        drop(previous); // not under the lock: a waker may run foreign code
        Poll::Pending
    }

    /// Removes the waiter with this key.
    pub fn deregister(&self, epoch: Epoch, mux_id: u64, key: usize) {
        let mut state = self.state.lock();
        if state.link(epoch).is_err() {
            return;
        }
        let removed =
            state.handler_wakers.get_mut(&mux_id).and_then(|waiters| waiters.try_remove(key));
        drop(state);
        drop(removed);
    }

    /// Whether the response of an inbound call is still needed.
    #[must_use]
    pub fn is_live(&self, epoch: Epoch, mux_id: u64) -> bool {
        self.state.lock().link(epoch).is_ok_and(|link| link.machine.is_inbound_live(mux_id))
    }

    // ---- state and end ----

    /// Returns the state of the connection, and a version that grows with each change.
    pub fn connection_state(&self) -> (ConnectionState, u64) {
        let state = self.state.lock();
        (state.connection_state, state.version)
    }

    /// Sets the state while there is no connection. Does nothing if there is one.
    pub fn set_disconnected_state(&self, to: ConnectionState) {
        debug_assert_ne!(to, ConnectionState::Connected, "only `attach` sets this state");
        self.with(|state, work| {
            if state.link.is_none() {
                state.set_connection_state(to, work);
            }
        });
    }

    /// Returns the state once it differs from that of `version`.
    pub fn poll_changed(
        &self,
        version: u64,
        key: &mut Option<usize>,
        waker: &Waker,
    ) -> Poll<(ConnectionState, u64)> {
        let waker = waker.clone();
        let mut state = self.state.lock();
        if state.version != version {
            *key = None; // the change emptied the table
            return Poll::Ready((state.connection_state, state.version));
        }
        let previous = register(&mut state.watchers, key, waker);
        drop(state);
        drop(previous); // not under the lock: a waker may run foreign code
        Poll::Pending
    }

    /// Removes a watcher that was registered at `version`.
    pub fn deregister_watcher(&self, version: u64, key: usize) {
        let mut state = self.state.lock();
        // A later version has emptied the table, and the key may have been reused.
        let removed = if state.version == version { state.watchers.try_remove(key) } else { None };
        drop(state);
        drop(removed);
    }

    /// Records why an attempt to connect failed, for the statistics.
    pub fn record_failure(&self, failure: Failure) {
        self.state.lock().last_failure = Some(failure);
    }

    /// Takes no new calls in either direction; outstanding ones continue ([B09]).
    ///
    /// [B09]: crate::rules#b09
    pub fn drain(&self) {
        self.with(|state, _| {
            state.is_draining = true;
            if let Some(link) = &mut state.link {
                link.machine.drain();
            }
        });
    }

    /// Returns ready once no call is outstanding in either direction and all output has left the
    /// process. Call it after [`drain`](Self::drain): otherwise new calls may start at any time.
    pub fn poll_idle(&self, waker: &Waker) -> Poll<()> {
        self.poll_condition(waker, SharedState::is_idle)
    }

    /// Returns ready once no task runs a handler. Call it after [`shutdown`](Self::shutdown):
    /// otherwise new tasks may start at any time.
    pub fn poll_no_handler_tasks(&self, waker: &Waker) -> Poll<()> {
        self.poll_condition(waker, |_| self.handler_tasks.load(Ordering::Acquire) == 0)
    }

    fn poll_condition(&self, waker: &Waker, is_met: impl Fn(&SharedState) -> bool) -> Poll<()> {
        let waker = waker.clone();
        let mut state = self.state.lock();
        if is_met(&state) {
            return Poll::Ready(());
        }
        if !state.idle_waiters.iter().any(|waiter| waiter.will_wake(&waker)) {
            state.idle_waiters.push(waker);
        }
        Poll::Pending
    }

    /// Ends the connection and the remote for good.
    pub fn shutdown(&self) {
        self.with(|state, work| {
            state.is_draining = true;
            state.end(CloseReason::Shutdown, work);
            state.set_connection_state(ConnectionState::Shutdown, work);
        });
    }

    /// Returns a snapshot of this remote.
    pub fn stats(&self) -> ConnectionStats {
        let state = self.state.lock();
        let machine = state.link.as_ref().map(|link| &link.machine);
        let mut counters = state.closed_totals.counters;
        if let Some(machine) = machine {
            counters.add(&machine.counters());
        }
        ConnectionStats {
            local: self.local.clone(),
            remote: self.remote.clone(),
            state: state.connection_state,
            bytes_in: state.closed_totals.bytes_in
                + state.link.as_ref().map_or(0, |link| link.bytes_in),
            bytes_out: counters.bytes_out,
            messages_in: counters.messages_in,
            messages_out: counters.messages_out,
            messages_skipped: counters.skipped,
            outbound_calls: counters.outbound_calls,
            inbound_calls: counters.inbound_calls,
            live_outbound_calls: machine.map_or(0, Machine::live_outbound_calls),
            live_inbound_calls: machine.map_or(0, Machine::live_inbound_calls),
            outbound_streams: counters.outbound_streams,
            inbound_streams: counters.inbound_streams,
            live_outbound_streams: machine.map_or(0, Machine::live_outbound_streams),
            live_inbound_streams: machine.map_or(0, Machine::live_inbound_streams),
            live_handler_tasks: self.handler_tasks.load(Ordering::Relaxed),
            queued_bytes: machine.map_or(0, Machine::queued_bytes),
            blocked_messages: machine.map_or(0, Machine::blocked_messages),
            connections: state.epoch.0,
            last_failure: state.last_failure.clone(),
            ping_round_trip: machine
                .and_then(Machine::ping_round_trip)
                .or(state.closed_totals.round_trip),
        }
    }
}

/// The registration of a task that runs a handler; counted until it is dropped.
#[derive(Debug)]
pub struct HandlerTask(Arc<Shared>);

impl HandlerTask {
    /// Counts one more task that runs a handler of `shared`'s remote.
    pub fn new(shared: &SharedRef) -> Self {
        shared.handler_tasks.fetch_add(1, Ordering::Relaxed);
        Self(SharedRef::clone(shared))
    }
}

impl Drop for HandlerTask {
    fn drop(&mut self) {
        let before = self.0.handler_tasks.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "handler_tasks was {before} while a task ends");
        if before == 1 {
            self.0.with(|state, work| {
                if state.is_draining {
                    work.wakers.append(&mut state.idle_waiters);
                }
            });
        }
    }
}
