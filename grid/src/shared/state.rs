//! What the lock of [`Shared`](super::Shared) guards, and how it follows the machine.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::slot::CallSlot;
use super::stream::StreamWaiter;
use super::{ConnectionState, Epoch};
use crate::proto::connection::{
    CloseReason, Connection, Counters, Event, Incoming, Outcome, StreamEnd,
};
use crate::proto::message::Op;
use crate::stats::{Failure, FailureKind};
use crate::sync::Arc;
use crate::time::Instant;

/// The machine, with callers waiting in slots.
pub(super) type Machine = Connection<Waiter>;

/// Who waits for what becomes of a call.
#[derive(Debug)]
pub(super) enum Waiter {
    Call(Arc<CallSlot>),
    Stream(Box<StreamWaiter>),
}

#[derive(Debug)]
pub(super) struct State {
    /// The open connection.
    pub(super) link: Option<Link>,
    /// How many connections there have been.
    pub(super) epoch: Epoch,
    /// Why the connection of `epoch` ended, once it has.
    pub(super) ended: Option<CloseReason>,
    pub(super) connection_state: ConnectionState,
    /// Grows with each change of `connection_state`, so that a watcher misses none.
    pub(super) version: u64,
    pub(super) watchers: Slab<Waker>,
    /// Who wants to know when a call that is served here is not wanted any more.
    pub(super) handlers: FxHashMap<u64, Slab<Waker>>,
    pub(super) is_draining: bool,
    /// Who waits for everything under way to finish.
    pub(super) idle_waiters: Vec<Waker>,
    /// Why the last attempt to connect failed, or the last connection ended.
    pub(super) last_failure: Option<Failure>,
    /// Sums of the connections that are over.
    pub(super) past: Past,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) machine: Machine,
    /// The connection's task, while it sleeps.
    pub(super) driver: Option<Waker>,
    /// Whether the task wants to be woken when there is something to write: not while its socket
    /// is full.
    pub(super) driver_can_write: bool,
    /// When the task wakes by itself.
    pub(super) armed: Option<Instant>,
    /// Whether what the machine gave to be written has left the process.
    pub(super) is_flushed: bool,
    pub(super) bytes_in: u64,
}

#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) counters: Counters,
    pub(super) bytes_in: u64,
    pub(super) round_trip: Option<Duration>,
}

/// What one turn under the lock leaves to be done without it.
#[derive(Debug, Default)]
pub struct Work {
    /// Requests to be served.
    pub incoming: Vec<Incoming>,
    /// Messages that meant nothing.
    pub skipped: Vec<(Op, u64)>,
    /// Payloads to be dropped: their memory may be the user's own.
    spent: Vec<Bytes>,
    ended: Vec<(Arc<CallSlot>, Outcome)>,
    ended_streams: Vec<(Box<StreamWaiter>, VecDeque<Bytes>, StreamEnd)>,
    pub(super) wakes: Vec<Waker>,
}

impl Work {
    /// Tells callers how their calls ended, and wakes everybody who must be. Holds no lock.
    pub fn wake(&mut self) {
        for (slot, outcome) in self.ended.drain(..) {
            if let Some(waker) = slot.complete(outcome) {
                waker.wake();
            }
        }
        for (waiter, rest, end) in self.ended_streams.drain(..) {
            waiter.complete(rest, end);
        }
        for waker in self.wakes.drain(..) {
            waker.wake();
        }
        self.spent.clear(); // last: a payload's memory may be the user's, and a panic there its own
    }
}

impl State {
    /// The connection of `epoch`, or why it is over.
    pub(super) fn link(&mut self, epoch: Epoch) -> Result<&mut Link, CloseReason> {
        if self.epoch != epoch {
            return Err(CloseReason::Superseded);
        }
        match &mut self.link {
            Some(link) => Ok(link),
            None => Err(self.ended.clone().unwrap_or(CloseReason::Superseded)),
        }
    }

    /// Ends the open connection, if there is one: every call, every handler, the queue (B05).
    pub(super) fn end(&mut self, reason: CloseReason, work: &mut Work) {
        if let Some(link) = &mut self.link {
            link.machine.close(reason);
            self.settle(work);
        }
    }

    /// Does what the machine says should happen.
    pub(super) fn settle(&mut self, work: &mut Work) {
        let mut closed = None;
        if let Some(link) = &mut self.link {
            while let Some(event) = link.machine.poll_event() {
                match event {
                    Event::Ended { slot: Waiter::Call(slot), outcome } => {
                        work.ended.push((slot, outcome));
                    }
                    Event::StreamEnded { slot: Waiter::Stream(waiter), rest, end } => {
                        work.ended_streams.push((waiter, rest, end));
                    }
                    Event::Ended { .. } | Event::StreamEnded { .. } => {
                        crate::bug!("the end of one kind of call reached the other");
                    }
                    Event::Opened(id) | Event::Readable(id) => {
                        if let Some(Waiter::Stream(waiter)) = link.machine.slot_mut(id) {
                            work.wakes.extend(waiter.receiver.take());
                        }
                    }
                    Event::Writable(id) => {
                        if let Some(Waiter::Stream(waiter)) = link.machine.slot_mut(id) {
                            work.wakes.extend(waiter.sender.take());
                        }
                    }
                    Event::Serve(incoming) => work.incoming.push(incoming),
                    Event::Cancel { mux_id } | Event::AnswerOver { mux_id } => {
                        let waiters = self.handlers.remove(&mux_id).into_iter().flatten();
                        work.wakes.extend(waiters.map(|(_, waker)| waker));
                    }
                    Event::Skipped { op, mux_id } => work.skipped.push((op, mux_id)),
                    Event::Closed(reason) => closed = Some(reason),
                }
            }
        }
        if let Some(link) = &mut self.link {
            work.spent.append(&mut link.machine.take_spent());
        }
        if let Some(reason) = closed {
            self.forget_link(reason, work);
        }
        work.wakes.extend(self.idle_waiters_to_wake());
    }

    /// Who waits for everything under way to finish, if it has.
    pub(super) fn idle_waiters_to_wake(&mut self) -> Vec<Waker> {
        let is_reached = !self.idle_waiters.is_empty() && self.is_idle();
        if is_reached { std::mem::take(&mut self.idle_waiters) } else { Vec::new() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.machine.is_idle() && link.is_flushed)
    }

    pub(super) fn forget_link(&mut self, reason: CloseReason, work: &mut Work) {
        if let Some(mut link) = self.link.take() {
            self.past.counters.add(&link.machine.counters());
            self.past.bytes_in += link.bytes_in;
            self.past.round_trip = link.machine.ping_round_trip().or(self.past.round_trip);
            work.wakes.extend(link.driver.take());
        }
        let waiters = self.handlers.drain().flat_map(|(_, waiters)| waiters);
        work.wakes.extend(waiters.map(|(_, waker)| waker));
        let cause = reason.to_string().into();
        self.last_failure = Some(Failure { kind: FailureKind::Ended, cause });
        self.ended = Some(reason);
        self.change_to(ConnectionState::Backoff, work);
    }

    pub(super) fn change_to(&mut self, to: ConnectionState, work: &mut Work) {
        let from = self.connection_state;
        if from == to || from == ConnectionState::Shutdown {
            return;
        }
        self.connection_state = to;
        self.version += 1;
        work.wakes.extend(self.watchers.drain());
    }
}

impl Link {
    /// Wakes the task if it sleeps and there is something that it could write.
    pub(super) fn wake_driver(&mut self, work: &mut Work) {
        if self.driver_can_write && self.machine.wants_transmit() {
            work.wakes.extend(self.driver.take());
        }
    }

    /// Likewise, or if it would sleep beyond `deadline`.
    pub(super) fn wake_driver_for(&mut self, deadline: Instant, work: &mut Work) {
        if self.armed.is_none_or(|armed| deadline < armed) {
            work.wakes.extend(self.driver.take());
        }
        self.wake_driver(work);
    }
}
