//! The machine of one remote behind its lock, and everybody who waits for it.
//!
//! Callers, handlers, the connection's task and watchers of its state meet here and nowhere else.
//! Each method takes the lock once, moves the machine, and wakes whom it must after the lock is
//! gone. Nothing here knows sockets or tasks, and all locks come from [`crate::sync`], so that loom
//! can check it as it ships.
//!
//! One `Shared` outlives its connections. Each connection is an [`Epoch`]; what still acts for an
//! earlier one (a task whose socket was superseded, a handler that returns late) finds its epoch
//! over and can do no harm (B03).
//!
//! For other shells and for loom: before 1.0 it changes with each minor version.

use std::sync::Arc as StdArc;
use std::task::{Poll, Waker};

use crate::error::CallError;
use crate::limits::Limits;
use crate::name::Name;
use crate::proto::Transmit;
use crate::proto::connection::{Answer, CloseReason, Request, StartError};
use crate::proto::message::{Checksum, Message};
use crate::stats::{ConnectionStats, Failure};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, Instant};

mod slot;
mod state;
mod stream;

pub use slot::{NewCall, StartedCall};
pub use state::Work;
pub use stream::{NewStream, SendFailure, StreamHandle};

use slot::CallSlot;
use state::{Link, Machine, Past, State, Waiter};

/// Where the connection to a remote stands (B08).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// Dialling, or waiting to be dialled.
    Connecting,
    /// Open: calls can be made.
    Connected,
    /// Waiting before the next attempt.
    Backoff,
    /// Over for good.
    Shutdown,
}

/// One connection of a remote, as opposed to those before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

/// Everything that is shared about one remote.
#[derive(Debug)]
pub struct Shared {
    local: Name,
    remote: Name,
    limits: Limits,
    checksum: Checksum,
    clock: ClockHandle,
    handler_tasks: AtomicUsize,
    state: Mutex<State>,
}

/// Puts a waker where it was before, or into a new place. Returns the one that was there, which is
/// not to be dropped under a lock.
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

/// How a [`Shared`] is shared.
pub type SharedRef = Arc<Shared>;

/// A clock that everybody of a manager shares. Always std's `Arc`: loom's cannot hold a trait
/// object, and a clock has nothing to interleave.
#[derive(Clone)]
pub struct ClockHandle(pub StdArc<dyn Clock>);

impl std::fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// How far a connection's task came with what there was to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// To the end, and all of it has left this process.
    All,
    /// To the limit of a turn; there is more.
    Some,
    /// To the point where the socket takes no more.
    Blocked,
}

/// What a connection's task is told when it has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Park {
    /// There is something to write after all.
    Ready,
    /// Sleep until woken, or until then.
    Until(Option<Instant>),
}

impl Shared {
    /// A remote that is not connected.
    pub fn new(local: Name, remote: Name, limits: Limits, clock: ClockHandle) -> Self {
        // P8: a checksum unless the transport of both ends protects what travels.
        let is_protected = local.is_secure() && remote.is_secure();
        let checksum = if is_protected { Checksum::Off } else { Checksum::On };
        Self {
            local,
            remote,
            limits,
            checksum,
            clock,
            handler_tasks: AtomicUsize::new(0),
            state: Mutex::new(State {
                link: None,
                epoch: Epoch(0),
                ended: None,
                connection_state: ConnectionState::Connecting,
                version: 0,
                watchers: slab::Slab::new(),
                handlers: rustc_hash::FxHashMap::default(),
                is_draining: false,
                idle_waiters: Vec::new(),
                last_failure: None,
                past: Past::default(),
            }),
        }
    }

    /// This server.
    pub fn local(&self) -> &Name {
        &self.local
    }

    /// The other server.
    pub fn remote(&self) -> &Name {
        &self.remote
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The monotonic clock.
    pub fn now(&self) -> Instant {
        self.clock.0.now()
    }

    /// Runs `act` under the lock and wakes afterwards.
    fn with<R>(&self, act: impl FnOnce(&mut State, &mut Work) -> R) -> R {
        let mut work = Work::default();
        let result = act(&mut self.state.lock(), &mut work);
        debug_assert!(work.incoming.is_empty(), "requests come in through `receive` only");
        work.wake();
        result
    }

    // ---- callers ----

    /// Starts a call; `waker` is woken when it is over.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the call was not made. Nothing was sent then.
    pub fn start(&self, call: NewCall, waker: &Waker) -> Result<StartedCall, CallError> {
        let NewCall { handler, subroute, payload, timeout } = call;
        let now = self.now();
        let deadline = now + timeout;
        let request = Request { handler, subroute, payload, deadline };
        let slot = Arc::new(CallSlot::new(waker.clone()));
        // What is left of the slot if the call does not start is dropped out here, not under the
        // lock: a waker can be anybody's code.
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
                .map_err(|error| self.start_error(error))?;
            link.wake_driver_for(deadline, work);
            Ok((epoch, mux_id))
        })?;
        Ok(StartedCall { slot, epoch, mux_id })
    }

    fn start_error(&self, error: StartError) -> CallError {
        let remote = self.remote.clone();
        match error {
            StartError::TooLarge { bytes } => {
                CallError::TooLarge { bytes, max: self.limits.message_bytes_max }
            }
            StartError::TooManyCalls => {
                CallError::TooManyCalls { remote, max: self.limits.calls_made_max }
            }
            StartError::DeadlinePassed => CallError::DeadlineExceeded { remote },
            StartError::Draining => CallError::Shutdown,
        }
    }

    /// The caller of a started call gives it up (B11). Nothing happens if it is over.
    pub fn give_up(&self, call: &StartedCall) {
        self.with(|state, work| {
            if let Ok(link) = state.link(call.epoch) {
                link.machine.give_up(call.mux_id);
                link.wake_driver(work);
                state.settle(work);
            }
        });
    }

    // ---- the connection's task ----

    /// A new connection takes the place of whatever was there (B03).
    ///
    /// # Errors
    ///
    /// [`CloseReason::Shutdown`] if this remote is over for good.
    pub fn attach(&self) -> Result<Epoch, CloseReason> {
        let now = self.now();
        self.with(|state, work| {
            if state.connection_state == ConnectionState::Shutdown || state.is_draining {
                return Err(CloseReason::Shutdown);
            }
            state.end(CloseReason::Superseded, work);
            state.epoch.0 += 1;
            state.ended = None;
            state.link = Some(Link {
                machine: Machine::new(&self.limits, self.checksum, now),
                driver: None,
                driver_can_write: true,
                armed: None,
                is_flushed: true,
                bytes_in: 0,
            });
            state.change_to(ConnectionState::Connected, work);
            Ok(state.epoch)
        })
    }

    /// Ends a connection. Does nothing if it is over already.
    pub fn detach(&self, epoch: Epoch, reason: CloseReason) {
        self.with(|state, work| {
            if state.epoch == epoch {
                state.end(reason, work);
            }
        });
    }

    /// Does what is due, and takes in what one or more frames of `bytes` bytes held, emptying
    /// `messages`. Returns whether there is something to write now.
    ///
    /// What must be done without the lock is added to `work`, waking included. To be called in each
    /// turn, also with nothing to take in: a task that always has something to do never sleeps, and
    /// its deadlines must be kept all the same.
    ///
    /// # Errors
    ///
    /// Why the connection is over, if it is.
    pub fn receive(
        &self,
        epoch: Epoch,
        messages: &mut Vec<Message>,
        bytes: usize,
        work: &mut Work,
    ) -> Result<bool, CloseReason> {
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
        state.settle(work);
        state.link(epoch).map(|link| link.machine.wants_transmit())
    }

    /// Queues the answers of handlers. Those that nobody wants any more are ignored.
    pub fn answer(&self, epoch: Epoch, answers: &[(u64, Answer)]) {
        let now = self.now();
        self.with(|state, work| {
            if state.link(epoch).is_err() {
                return;
            }
            if let State { link: Some(link), handlers, .. } = state {
                for (mux_id, answer) in answers {
                    link.machine.answer(*mux_id, answer, now);
                    // One that waits for room is still wanted; the machine says when it is not.
                    if !handlers.is_empty() && !link.machine.is_serving(*mux_id) {
                        work.wakes.extend(
                            handlers.remove(mux_id).into_iter().flatten().map(|(_, waker)| waker),
                        );
                    }
                }
                link.wake_driver(work);
            }
            state.settle(work);
        });
    }

    /// Refuses a call that was to be served.
    pub fn refuse(&self, epoch: Epoch, mux_id: u64, reason: &str) {
        self.with(|state, work| {
            if let Ok(link) = state.link(epoch) {
                link.machine.refuse(mux_id, reason);
                link.wake_driver(work);
                state.settle(work);
            }
        });
    }

    /// The next frame to be written, if there is one.
    ///
    /// # Errors
    ///
    /// Why the connection is over, if it is.
    pub fn next_transmit(&self, epoch: Epoch) -> Result<Option<Transmit>, CloseReason> {
        let now = self.now();
        self.with(|state, work| {
            let link = state.link(epoch)?;
            let transmit = link.machine.poll_transmit(now);
            link.is_flushed &= transmit.is_none();
            state.settle(work);
            Ok(transmit)
        })
    }

    /// The task has nothing to do. `written` says how far it came with what there was to write.
    ///
    /// # Errors
    ///
    /// Why the connection is over, if it is.
    pub fn park(&self, epoch: Epoch, written: Written, waker: &Waker) -> Result<Park, CloseReason> {
        let waker = waker.clone();
        let mut state = self.state.lock();
        let link = state.link(epoch)?;
        let can_write = written == Written::All;
        if can_write && link.machine.wants_transmit() {
            return Ok(Park::Ready);
        }
        link.is_flushed = can_write;
        let earlier = link.driver.replace(waker);
        link.driver_can_write = can_write;
        link.armed = link.machine.poll_timeout();
        let until = Park::Until(link.armed);
        let idle = state.idle_waiters_to_wake();
        drop(state);
        idle.into_iter().for_each(Waker::wake);
        drop(earlier); // not under the lock: a waker can be anybody's code
        Ok(until)
    }

    // ---- handlers ----

    /// Ready once nobody waits for the answer of a served call any more. `key` is the waiter's own:
    /// `None` at first, and given back with [`stop_waiting`](Self::stop_waiting) if it is dropped.
    pub fn poll_unwanted(
        &self,
        epoch: Epoch,
        mux_id: u64,
        key: &mut Option<usize>,
        waker: &Waker,
    ) -> Poll<()> {
        let waker = waker.clone();
        let mut state = self.state.lock();
        match state.link(epoch) {
            Ok(link) if link.machine.is_serving(mux_id) => {}
            _ => {
                *key = None; // the end of the call emptied the table
                return Poll::Ready(());
            }
        }
        let waiters = state.handlers.entry(mux_id).or_default();
        let earlier = register(waiters, key, waker);
        drop(state);
        drop(earlier); // not under the lock: a waker can be anybody's code
        Poll::Pending
    }

    /// Whoever waited under this key does not wait any more.
    pub fn stop_waiting(&self, epoch: Epoch, mux_id: u64, key: usize) {
        let mut state = self.state.lock();
        if state.link(epoch).is_err() {
            return;
        }
        let removed = state.handlers.get_mut(&mux_id).and_then(|waiters| waiters.try_remove(key));
        drop(state);
        drop(removed);
    }

    /// Whether anybody still wants the answer of a served call.
    pub fn is_wanted(&self, epoch: Epoch, mux_id: u64) -> bool {
        self.state.lock().link(epoch).is_ok_and(|link| link.machine.is_serving(mux_id))
    }

    // ---- the state and the end ----

    /// Where the connection stands, and how often that has changed.
    pub fn connection_state(&self) -> (ConnectionState, u64) {
        let state = self.state.lock();
        (state.connection_state, state.version)
    }

    /// Says what the peer's task is doing while there is no connection.
    pub fn set_disconnected_state(&self, to: ConnectionState) {
        debug_assert_ne!(to, ConnectionState::Connected, "`attach` does that");
        self.with(|state, work| {
            if state.link.is_none() {
                state.change_to(to, work);
            }
        });
    }

    /// The state, once it has changed since `version`.
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
        let earlier = register(&mut state.watchers, key, waker);
        drop(state);
        drop(earlier); // not under the lock: a waker can be anybody's code
        Poll::Pending
    }

    /// A watcher that was registered at `version` does not watch any more.
    pub fn stop_watching(&self, version: u64, key: usize) {
        let mut state = self.state.lock();
        // A later version has emptied the table, and the key may be somebody else's.
        let removed = if state.version == version { state.watchers.try_remove(key) } else { None };
        drop(state);
        drop(removed);
    }

    /// Remembers why an attempt to connect failed, for whoever looks at the statistics.
    pub fn record_failure(&self, failure: Failure) {
        self.state.lock().last_failure = Some(failure);
    }

    /// Takes no new calls in either direction (B09). Those under way go on.
    pub fn drain(&self) {
        self.with(|state, _| {
            state.is_draining = true;
            if let Some(link) = &mut state.link {
                link.machine.drain();
            }
        });
    }

    /// Ready once no call is under way in either direction and everything queued has left. Only
    /// sensible after [`drain`](Self::drain).
    pub fn poll_idle(&self, waker: &Waker) -> Poll<()> {
        self.poll_rest(waker, State::is_idle)
    }

    /// Ready once no task runs a handler any more. Only sensible after [`shutdown`](Self::shutdown).
    pub fn poll_handlers_gone(&self, waker: &Waker) -> Poll<()> {
        self.poll_rest(waker, |_| self.handler_tasks.load(Ordering::Acquire) == 0)
    }

    fn poll_rest(&self, waker: &Waker, is_reached: impl Fn(&State) -> bool) -> Poll<()> {
        let waker = waker.clone();
        let mut state = self.state.lock();
        if is_reached(&state) {
            return Poll::Ready(());
        }
        if !state.idle_waiters.iter().any(|waiter| waiter.will_wake(&waker)) {
            state.idle_waiters.push(waker);
        }
        Poll::Pending
    }

    /// Ends everything for good.
    pub fn shutdown(&self) {
        self.with(|state, work| {
            state.is_draining = true;
            state.end(CloseReason::Shutdown, work);
            state.change_to(ConnectionState::Shutdown, work);
        });
    }

    /// What can be seen of this remote now.
    pub fn stats(&self) -> ConnectionStats {
        let state = self.state.lock();
        let machine = state.link.as_ref().map(|link| &link.machine);
        let mut counters = state.past.counters;
        if let Some(machine) = machine {
            counters.add(&machine.counters());
        }
        ConnectionStats {
            local: self.local.clone(),
            remote: self.remote.clone(),
            state: state.connection_state,
            bytes_in: state.past.bytes_in + state.link.as_ref().map_or(0, |link| link.bytes_in),
            bytes_out: counters.bytes_out,
            messages_in: counters.messages_in,
            messages_out: counters.messages_out,
            messages_skipped: counters.skipped,
            calls_made: counters.calls_made,
            calls_served: counters.calls_served,
            live_calls: machine.map_or(0, Machine::live_calls),
            live_served: machine.map_or(0, Machine::live_served),
            streams_made: counters.streams_made,
            streams_served: counters.streams_served,
            live_streams: machine.map_or(0, Machine::live_streams),
            live_streams_served: machine.map_or(0, Machine::live_streams_served),
            live_handler_tasks: self.handler_tasks.load(Ordering::Relaxed),
            queued_bytes: machine.map_or(0, Machine::queued_bytes),
            blocked_messages: machine.map_or(0, Machine::blocked_messages),
            connections: state.epoch.0,
            last_failure: state.last_failure.clone(),
            ping_round_trip: machine.and_then(Machine::ping_round_trip).or(state.past.round_trip),
        }
    }
}

/// A task that runs a handler; counted until it is dropped.
#[derive(Debug)]
pub struct HandlerTask(Arc<Shared>);

impl HandlerTask {
    /// One more task that runs a handler of `shared`'s remote.
    pub fn counted(shared: &SharedRef) -> Self {
        shared.handler_tasks.fetch_add(1, Ordering::Relaxed);
        Self(SharedRef::clone(shared))
    }
}

impl Drop for HandlerTask {
    fn drop(&mut self) {
        if self.0.handler_tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.with(|state, work| {
                if state.is_draining {
                    work.wakes.append(&mut state.idle_waiters);
                }
            });
        }
    }
}
