//! The state under the lock of [`Shared`](super::Shared), and how it follows the events of the
//! state machine.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::Epoch;
use super::slot::CallSlot;
use super::stream_slot::StreamWaiter;
use crate::check_schedule::CheckSchedule;
use crate::proto::connection::{
    CallOutcome, CloseReason, Connection, Counters, End, Event, Incoming,
};
use crate::proto::message::Op;
use crate::stats::{ConnectionState, Failure, FailureKind};
use crate::sync::Arc;
use crate::time::Instant;

/// The state machine, with its waiters attached to calls.
pub(super) type Machine = Connection<Waiter>;

/// The waiter attached to a call or a stream.
#[derive(Debug)]
pub(super) enum Waiter {
    Call(Arc<CallSlot>),
    Stream(Box<StreamWaiter>),
}

#[derive(Debug)]
pub(super) struct SharedState {
    /// The open connection.
    pub(super) link: Option<OpenLink>,
    /// The number of connections so far.
    pub(super) epoch: Epoch,
    /// Reason for the end of the connection of `epoch`, once it has ended.
    pub(super) end_reason: Option<CloseReason>,
    pub(super) connection_state: ConnectionState,
    /// Grows with each change of `connection_state`, so that a watcher misses none.
    pub(super) version: u64,
    pub(super) watchers: Slab<Waker>,
    /// Wakers of handlers that wait for the cancellation of their inbound call, by its id.
    pub(super) handler_wakers: FxHashMap<u64, Slab<Waker>>,
    pub(super) is_draining: bool,
    /// Wakers of tasks that wait for all outstanding work to finish.
    pub(super) idle_waiters: Vec<Waker>,
    /// Cause of the last failed attempt to connect, or of the last connection's end.
    pub(super) last_failure: Option<Failure>,
    /// Sums over the ended connections.
    pub(super) closed_totals: ClosedTotals,
    pub(super) checks: CheckSchedule,
}

#[derive(Debug)]
pub(super) struct OpenLink {
    pub(super) machine: Machine,
    /// Waker of the connection's task, while it sleeps.
    pub(super) driver_waker: Option<Waker>,
    /// Whether the task is to be woken for new output: not while its socket is full.
    pub(super) driver_can_write: bool,
    /// Time at which the sleeping task wakes by itself.
    pub(super) driver_wakes_at: Option<Instant>,
    /// Whether all frames taken from the state machine have left the process.
    pub(super) is_flushed: bool,
    pub(super) bytes_in: u64,
}

#[derive(Debug, Default)]
pub(super) struct ClosedTotals {
    pub(super) counters: Counters,
    pub(super) bytes_in: u64,
    pub(super) round_trip: Option<Duration>,
}

/// Actions of one turn that must happen after the lock is released.
#[derive(Debug, Default)]
pub struct DeferredWork {
    /// Inbound calls to be served.
    pub incoming: Vec<Incoming>,
    /// Ignored messages, to be logged.
    pub skipped: Vec<(Op, u64)>,
    /// Payloads to be dropped: their memory may belong to the user.
    retired_payloads: Vec<Bytes>,
    ended_calls: Vec<(Arc<CallSlot>, CallOutcome)>,
    ended_streams: Vec<(Box<StreamWaiter>, VecDeque<Bytes>, End)>,
    pub(super) wakers: Vec<Waker>,
}

impl DeferredWork {
    /// Completes ended calls and wakes the waiting tasks. Must be called without a lock held.
    pub fn wake(&mut self) {
        for (slot, outcome) in self.ended_calls.drain(..) {
            if let Some(waker) = slot.complete(outcome) {
                waker.wake();
            }
        }
        for (waiter, rest, end) in self.ended_streams.drain(..) {
            waiter.complete(rest, end);
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        self.retired_payloads.clear(); // last: dropping a user's payload may panic
    }
}

impl SharedState {
    /// Returns the connection of `epoch`, or the reason for its end.
    pub(super) fn link(&mut self, epoch: Epoch) -> Result<&mut OpenLink, CloseReason> {
        if self.epoch != epoch {
            return Err(CloseReason::Superseded);
        }
        match &mut self.link {
            Some(link) => Ok(link),
            None => Err(self.end_reason.clone().unwrap_or(CloseReason::Superseded)),
        }
    }

    /// Ends the open connection, if there is one: every call, every handler, the queue (B05).
    pub(super) fn end(&mut self, reason: CloseReason, work: &mut DeferredWork) {
        if let Some(link) = &mut self.link {
            link.machine.close(reason);
            self.apply_events(work);
        }
    }

    /// Applies the events of the state machine.
    pub(super) fn apply_events(&mut self, work: &mut DeferredWork) {
        let mut closed = None;
        if let Some(link) = &mut self.link {
            while let Some(event) = link.machine.poll_event() {
                match event {
                    Event::CallEnded { slot: Waiter::Call(slot), outcome } => {
                        work.ended_calls.push((slot, outcome));
                    }
                    Event::StreamEnded { slot: Waiter::Stream(waiter), rest, end } => {
                        work.ended_streams.push((waiter, rest, end));
                    }
                    Event::CallEnded { .. } | Event::StreamEnded { .. } => {
                        crate::bug!("a call ended with the event of another kind");
                    }
                    Event::Opened(id) | Event::Readable(id) => {
                        if let Some(Waiter::Stream(waiter)) = link.machine.slot_mut(id) {
                            work.wakers.extend(waiter.receiver_waker.take());
                        }
                    }
                    Event::Writable(id) => {
                        if let Some(Waiter::Stream(waiter)) = link.machine.slot_mut(id) {
                            work.wakers.extend(waiter.sender_waker.take());
                        }
                    }
                    Event::Incoming(incoming) => work.incoming.push(incoming),
                    Event::Cancel { mux_id } | Event::ResponseRetired { mux_id } => {
                        let waiters = self.handler_wakers.remove(&mux_id).into_iter().flatten();
                        work.wakers.extend(waiters.map(|(_, waker)| waker));
                    }
                    Event::Skipped { op, mux_id } => work.skipped.push((op, mux_id)),
                    Event::Closed(reason) => closed = Some(reason),
                }
            }
        }
        if let Some(link) = &mut self.link {
            work.retired_payloads.append(&mut link.machine.take_retired_payloads());
        }
        if let Some(reason) = closed {
            self.close_link(reason, work);
        }
        work.wakers.extend(self.idle_waiters_to_wake());
    }

    /// Takes the wakers that wait for all outstanding work, if it has finished.
    pub(super) fn idle_waiters_to_wake(&mut self) -> Vec<Waker> {
        let is_finished = !self.idle_waiters.is_empty() && self.is_idle();
        if is_finished { std::mem::take(&mut self.idle_waiters) } else { Vec::new() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.machine.is_idle() && link.is_flushed)
    }

    pub(super) fn close_link(&mut self, reason: CloseReason, work: &mut DeferredWork) {
        if let Some(mut link) = self.link.take() {
            self.closed_totals.counters.add(&link.machine.counters());
            self.closed_totals.bytes_in += link.bytes_in;
            self.closed_totals.round_trip =
                link.machine.ping_round_trip().or(self.closed_totals.round_trip);
            work.wakers.extend(link.driver_waker.take());
        }
        let waiters = self.handler_wakers.drain().flat_map(|(_, waiters)| waiters);
        work.wakers.extend(waiters.map(|(_, waker)| waker));
        let cause = reason.to_string().into();
        self.last_failure = Some(Failure { kind: FailureKind::Ended, cause });
        self.end_reason = Some(reason);
        self.set_connection_state(ConnectionState::Backoff, work);
    }

    pub(super) fn set_connection_state(&mut self, to: ConnectionState, work: &mut DeferredWork) {
        let from = self.connection_state;
        if from == to || from == ConnectionState::Shutdown {
            return;
        }
        self.connection_state = to;
        self.version += 1;
        work.wakers.extend(self.watchers.drain());
    }
}

impl OpenLink {
    /// Wakes the task if it sleeps and could write output.
    pub(super) fn wake_driver(&mut self, work: &mut DeferredWork) {
        if self.driver_can_write && self.machine.wants_transmit() {
            work.wakers.extend(self.driver_waker.take());
        }
    }

    /// Like [`wake_driver`](Self::wake_driver), and also wakes the task if it would sleep past
    /// `deadline`.
    pub(super) fn wake_driver_for(&mut self, deadline: Instant, work: &mut DeferredWork) {
        if self.driver_wakes_at.is_none_or(|at| deadline < at) {
            work.wakers.extend(self.driver_waker.take());
        }
        self.wake_driver(work);
    }
}
