//! One end of a stream as its two halves share it, and their wakers.
//!
//! While a stream is open, its messages and wakers are in the state machine, under the one lock:
//! taking a message and returning its credit is one step. At its end, the messages that were not
//! received and the end itself move to the stream's slot, which outlives the connection. Messages
//! that came before the end are received before it ([B23]), and an end needs no room in any buffer
//! ([B24]).
//!
//! [B23]: crate::rules#b23
//! [B24]: crate::rules#b24

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::state::{Machine, Waiter};
use super::stream_slot::{Half, StreamSlot, StreamWaiter};
use super::{Epoch, Shared, SharedRef};
use crate::error::{CallError, SendError};
use crate::outcome;
use crate::proto::connection::{
    Capacities, End, OpenRequest, Received, SendStatus, StreamId, StreamSide,
};
use crate::proto::subroute::SubrouteId;
use crate::sync::Arc;

/// A stream to be opened.
#[derive(Debug)]
pub struct NewStream {
    /// The handler's id.
    pub handler: u8,
    /// The subroute that selects one of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// The initial payload for the handler.
    pub payload: Option<Bytes>,
    /// Time after which the stream expires, if any.
    pub timeout: Option<Duration>,
    /// Numbers of messages that may be in flight.
    pub capacities: Capacities,
}

/// One end of a stream, shared by its two halves. Dropping the caller's end cancels the stream, if
/// it has not ended ([B25]). Dropping the callee's end does nothing: its response ends the stream.
///
/// [B25]: crate::rules#b25
#[derive(Debug)]
pub struct StreamHandle {
    shared: SharedRef,
    slot: Arc<StreamSlot>,
    epoch: Epoch,
    id: StreamId,
}

impl Shared {
    /// Opens a stream. It must not be used before [`StreamHandle::poll_open`] is ready.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the stream was not opened. Nothing was sent then.
    pub fn open(this: &SharedRef, stream: NewStream) -> Result<StreamHandle, CallError> {
        let NewStream { handler, subroute, payload, timeout, capacities } = stream;
        let now = this.now();
        let deadline = timeout.map(|timeout| now + timeout);
        let open = OpenRequest { handler, subroute, payload, deadline, capacities };
        let slot = StreamSlot::new();
        let waiter = Waiter::Stream(StreamWaiter::new(&slot));
        // Until the state machine takes it, the payload is dropped out here, not under the lock.
        let mut open = Some(open);
        let (epoch, id) = this.with(|state, work| {
            if state.is_draining {
                return Err(CallError::Shutdown);
            }
            let epoch = state.epoch;
            let Some(link) = &mut state.link else {
                return Err(CallError::NotConnected { remote: this.remote.clone() });
            };
            let Some(open) = open.take() else { return Err(CallError::Shutdown) };
            let opened = link.machine.open(waiter, open, now);
            let first_ping = now + this.limits.stream_ping_interval;
            let wake_at = deadline.map_or(first_ping, |deadline| deadline.min(first_ping));
            link.wake_driver_for(wake_at, work);
            state.apply_events(work); // also on failure: the payload must not be dropped here
            Ok((
                epoch,
                opened.map_err(|error| outcome::start_error(error, &this.limits, &this.remote))?,
            ))
        })?;
        Ok(StreamHandle { shared: SharedRef::clone(this), slot, epoch, id })
    }

    /// Accepts an inbound stream. Returns `None` if it has already ended.
    pub fn accept(
        this: &SharedRef,
        epoch: Epoch,
        mux_id: u64,
        capacities: Capacities,
    ) -> Option<StreamHandle> {
        let slot = StreamSlot::new();
        let waiter = Waiter::Stream(StreamWaiter::new(&slot));
        let now = this.now();
        let is_accepted = this.with(|state, work| {
            let Ok(link) = state.link(epoch) else { return false };
            let is_accepted = link.machine.accept(mux_id, waiter, capacities, now);
            link.wake_driver(work);
            state.apply_events(work);
            is_accepted
        });
        let id = StreamId { side: StreamSide::Callee, mux_id };
        is_accepted.then(|| StreamHandle { shared: SharedRef::clone(this), slot, epoch, id })
    }
}

impl StreamHandle {
    /// Returns the shared state of the remote.
    pub fn shared(&self) -> &SharedRef {
        &self.shared
    }

    /// Returns ready once the peer has accepted the stream, or the stream has ended.
    ///
    /// # Errors
    ///
    /// The end of the stream, if there is nothing to receive from it.
    pub fn poll_open(&self, waker: &Waker) -> Poll<Result<(), End>> {
        let attempt = |machine: &mut Machine, id: StreamId| {
            if machine.is_open(id.mux_id) {
                Some(Poll::Ready(Ok(())))
            } else {
                machine.slot_mut(id).map(|_| Poll::Pending)
            }
        };
        // A handler may have sent all of its messages and returned before this poll.
        self.poll(Half::Receiver, waker, attempt, |rest, end| {
            let is_worth_reading = *end == End::Finished || !rest.is_empty();
            if is_worth_reading { Ok(()) } else { Err(end.clone()) }
        })
    }

    /// Sends `payload`, and returns ready once it was queued. Must be polled with the same
    /// `payload` until then; it becomes `None` when the stream has accepted it.
    ///
    /// # Errors
    ///
    /// [`SendError`], except [`SendError::NotReady`]. If the stream ended while the message waited,
    /// it is not known whether the message was sent.
    pub fn poll_send(
        &self,
        payload: &mut Option<Bytes>,
        waker: &Waker,
    ) -> Poll<Result<(), SendError>> {
        let attempt = |machine: &mut Machine, id: StreamId| self.attempt_send(machine, id, payload);
        self.poll(Half::Sender, waker, attempt, |_, end| Err(self.send_error(end)))
    }

    /// Sends `payload` without waiting for it to be queued: at most one message waits.
    ///
    /// # Errors
    ///
    /// [`SendError`]; [`SendError::NotReady`] if an earlier message waits.
    pub fn try_send(&self, payload: Bytes) -> Result<(), SendError> {
        let mut payload = Some(payload);
        let mut attempt =
            |machine: &mut Machine, id: StreamId| self.attempt_send(machine, id, &mut payload);
        match self.attempt(Half::Sender, None, &mut attempt) {
            Some(Poll::Ready(sent)) => sent,
            Some(Poll::Pending) if payload.is_none() => Ok(()),
            Some(Poll::Pending) => Err(SendError::NotReady),
            // The stream has ended, but the end may not be recorded yet: the message is then lost
            // like any that is in flight at the end.
            None => self.end().map_or(Ok(()), |end| Err(self.send_error(&end))),
        }
    }

    /// Takes back the waiting message, if any.
    pub fn cancel_send(&self) {
        self.act(Machine::cancel_send);
    }

    /// Finishes the sending direction, after the waiting message. Only for the caller's end.
    pub fn finish(&self) {
        self.act(|machine, id| {
            machine.finish(id);
        });
    }

    /// Finishes the sending direction, and returns ready once the end was queued, or is not needed
    /// because the handler has returned.
    ///
    /// # Errors
    ///
    /// The end of the stream, if it failed.
    pub fn poll_finish(&self, waker: &Waker) -> Poll<Result<(), End>> {
        let attempt = |machine: &mut Machine, id: StreamId| match machine.finish(id) {
            SendStatus::StreamEnded => None,
            SendStatus::Queued => Some(Poll::Ready(Ok(()))),
            _ => Some(Poll::Pending),
        };
        self.poll(Half::Sender, waker, attempt, |_, end| match end {
            End::Finished => Ok(()),
            end => Err(end.clone()),
        })
    }

    /// Receives the next message; `None` once the peer has finished sending.
    ///
    /// # Errors
    ///
    /// The end of the stream, if it failed, or if this end's own handler has returned.
    pub fn poll_receive(&self, waker: &Waker) -> Poll<Option<Result<Bytes, End>>> {
        let attempt = |machine: &mut Machine, id: StreamId| match machine.receive(id) {
            Received::Message(payload) => Some(Poll::Ready(Some(Ok(payload)))),
            Received::Empty => Some(Poll::Pending),
            Received::InputFinished => Some(Poll::Ready(None)),
            Received::StreamEnded => None,
        };
        let side = self.id.side;
        self.poll(Half::Receiver, waker, attempt, |rest, end| match (rest.pop_front(), end) {
            (Some(payload), _) => Some(Ok(payload)),
            (None, End::Finished) if side == StreamSide::Caller => None,
            (None, end) => Some(Err(end.clone())),
        })
    }

    /// Wakes the receiving half, so that it looks for changes.
    pub fn wake_receiver(&self) {
        self.shared.with(|state, work| {
            if let Ok(link) = state.link(self.epoch)
                && let Some(Waiter::Stream(waiter)) = link.machine.slot_mut(self.id)
            {
                work.wakers.extend(waiter.receiver_waker.take());
            }
        });
    }

    /// Discards received messages, and those still to come, so that the peer's sender is not
    /// blocked.
    pub fn stop_receiving(&self) {
        self.act(Machine::stop_receiving);
        drop(self.slot.take_rest());
    }

    /// Cancels the stream from the caller's end ([B11]). Does nothing if it has ended.
    ///
    /// [B11]: crate::rules#b11
    pub fn cancel(&self) {
        debug_assert_eq!(self.id.side, StreamSide::Caller, "a handler ends by returning");
        self.act(|machine, id| machine.cancel(id.mux_id));
    }

    /// Returns the end of the stream, if it has ended.
    pub fn end(&self) -> Option<End> {
        self.slot.end()
    }

    /// Runs `act` on the state machine, if the stream's connection is still open.
    fn act(&self, act: impl FnOnce(&mut Machine, StreamId)) {
        self.shared.with(|state, work| {
            if let Ok(link) = state.link(self.epoch) {
                act(&mut link.machine, self.id);
                link.wake_driver(work);
                state.apply_events(work);
            }
        });
    }

    /// Passes `payload` to the stream, unless that has been done, and returns its progress; `None` if
    /// the state machine no longer has the stream.
    fn attempt_send(
        &self,
        machine: &mut Machine,
        id: StreamId,
        payload: &mut Option<Bytes>,
    ) -> Option<Poll<Result<(), SendError>>> {
        let sent = match payload {
            Some(_) => machine.send(id, payload),
            None => machine.send_status(id),
        };
        Some(Poll::Ready(match sent {
            SendStatus::Queued => Ok(()),
            SendStatus::Waiting => return Some(Poll::Pending),
            SendStatus::Finished => Err(SendError::Finished),
            SendStatus::NoInput => Err(SendError::NoInput),
            SendStatus::TooLarge { bytes } => {
                Err(SendError::TooLarge { bytes, max: self.shared.limits.message_bytes_max })
            }
            SendStatus::StreamEnded => return None,
        }))
    }

    fn send_error(&self, end: &End) -> SendError {
        outcome::send_error(end.clone(), &self.shared.remote)
    }

    /// Attempts an operation under the lock. If it must wait, attempts it again and registers the
    /// waker under the same lock, so that no wake-up is lost in between. The first attempt has no
    /// waker, because most attempts succeed and cloning a waker costs more than the attempt.
    ///
    /// An attempt returns `None` if the state machine no longer has the stream. The result is then
    /// read from the slot by `on_end`.
    fn poll<R>(
        &self,
        half: Half,
        waker: &Waker,
        mut attempt: impl FnMut(&mut Machine, StreamId) -> Option<Poll<R>>,
        on_end: impl FnOnce(&mut VecDeque<Bytes>, &End) -> R,
    ) -> Poll<R> {
        let attempted = match self.attempt(half, None, &mut attempt) {
            Some(Poll::Pending) => self.attempt(half, Some(waker.clone()), &mut attempt),
            attempted => attempted,
        };
        attempted.unwrap_or_else(|| self.slot.poll(half, waker, on_end))
    }

    /// Runs one attempt; `waker` is registered under the same lock if it must wait.
    fn attempt<R>(
        &self,
        half: Half,
        mut waker: Option<Waker>,
        attempt: &mut impl FnMut(&mut Machine, StreamId) -> Option<Poll<R>>,
    ) -> Option<Poll<R>> {
        let mut previous = None;
        self.shared.with(|state, work| {
            let link = state.link(self.epoch).ok()?;
            let attempted = attempt(&mut link.machine, self.id);
            if matches!(attempted, Some(Poll::Pending))
                && let Some(Waiter::Stream(waiter)) = link.machine.slot_mut(self.id)
                && waker.is_some()
            {
                previous = std::mem::replace(waiter.waker_mut(half), waker.take());
            }
            link.wake_driver(work);
            state.apply_events(work);
            attempted
        })
        // `waker` and `previous` are dropped here, not under the lock: they may run foreign code.
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        match self.id.side {
            StreamSide::Caller => self.cancel(),
            StreamSide::Callee => {}
        }
    }
}
