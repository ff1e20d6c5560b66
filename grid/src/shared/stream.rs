//! One end of a stream as its two halves share it, and where they wait.
//!
//! While a stream is under way its messages and its waiters are in the machine, under the one lock:
//! taking a message and giving its credit back is one step. When it ends, what was not received yet
//! and the end itself move to the stream's slot, which outlives the connection: what came before the
//! end is received before it (B23), and an end needs no room in any buffer (B24).

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::state::{Machine, Waiter};
use super::{Epoch, Shared, SharedRef};
use crate::error::CallError;
use crate::proto::connection::{Capacities, Open, Received, Sent, Side, StreamEnd, StreamId};
use crate::proto::subroute::SubrouteId;
use crate::sync::{Arc, Mutex};

/// A stream to be opened.
#[derive(Debug)]
pub struct NewStream {
    /// The handler's id.
    pub handler: u8,
    /// Which of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// What the handler gets to begin with.
    pub payload: Option<Bytes>,
    /// When the stream ends by itself, if it does.
    pub timeout: Option<Duration>,
    /// How many messages may be under way.
    pub capacities: Capacities,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendFailure {
    /// This direction was finished, or the handler has returned.
    Finished,
    /// The stream has no request side.
    NoInput,
    /// The message is larger than the limit.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The stream is over.
    StreamOver(StreamEnd),
}

/// Who waits for a stream that is under way. In the machine, under its lock.
#[derive(Debug)]
pub(super) struct StreamWaiter {
    slot: Arc<StreamSlot>,
    pub(super) receiver: Option<Waker>,
    pub(super) sender: Option<Waker>,
}

impl StreamWaiter {
    fn new(slot: &Arc<StreamSlot>) -> Box<Self> {
        Box::new(Self { slot: Arc::clone(slot), receiver: None, sender: None })
    }

    /// Tells everybody that the stream is over. Not to be called under the lock.
    pub(super) fn complete(self, rest: VecDeque<Bytes>, end: StreamEnd) {
        let late = self.slot.complete(rest, end);
        let waiting = [self.receiver, self.sender];
        waiting.into_iter().chain(late).flatten().for_each(Waker::wake);
    }
}

/// What is left of a stream that is over.
///
/// ```text
///          complete
///   Live ────────────► Over
/// ```
#[derive(Debug)]
struct StreamSlot(Mutex<SlotState>);

#[derive(Debug)]
enum SlotState {
    /// With those who found the machine rid of the stream before they were told of its end.
    Live {
        wakers: [Option<Waker>; 2],
    },
    Over {
        rest: VecDeque<Bytes>,
        end: StreamEnd,
    },
}

/// One of the two who may wait for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Receiver,
    Sender,
}

impl StreamSlot {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(SlotState::Live { wakers: [None, None] })))
    }

    fn complete(&self, rest: VecDeque<Bytes>, end: StreamEnd) -> [Option<Waker>; 2] {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, SlotState::Over { rest, end }) {
            SlotState::Live { wakers } => wakers,
            over @ SlotState::Over { .. } => {
                *state = over;
                crate::bug!("a stream ended twice");
                [None, None]
            }
        }
    }

    /// Looks at what is left, once that is there.
    fn poll<R>(
        &self,
        half: Half,
        waker: &Waker,
        look: impl FnOnce(&mut VecDeque<Bytes>, &StreamEnd) -> R,
    ) -> Poll<R> {
        let waker = waker.clone();
        let mut state = self.0.lock();
        let earlier = match &mut *state {
            SlotState::Over { rest, end } => return Poll::Ready(look(rest, end)),
            SlotState::Live { wakers } => wakers[half as usize].replace(waker),
        };
        drop(state);
        drop(earlier); // not under the lock: a waker can be anybody's code
        Poll::Pending
    }
}

/// What an attempt under the lock came to.
enum Attempt<R> {
    Ready(R),
    Pending,
    StreamOver,
}

/// One end of a stream, shared by its two halves. Dropping the caller's cancels the stream, if it is
/// not over (B25); dropping the handler's does nothing: its answer is the end.
#[derive(Debug)]
pub struct StreamHandle {
    shared: SharedRef,
    slot: Arc<StreamSlot>,
    epoch: Epoch,
    id: StreamId,
}

impl Shared {
    /// Opens a stream. It is not to be used before [`StreamHandle::poll_open`] says so.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the stream was not opened. Nothing was sent then.
    pub fn open(this: &SharedRef, stream: NewStream) -> Result<StreamHandle, CallError> {
        let NewStream { handler, subroute, payload, timeout, capacities } = stream;
        let now = this.now();
        let deadline = timeout.map(|timeout| now + timeout);
        let open = Open { handler, subroute, payload, deadline, capacities };
        let slot = StreamSlot::new();
        let waiter = Waiter::Stream(StreamWaiter::new(&slot));
        // Until the machine takes it, the payload is dropped out here, not under the lock.
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
            state.settle(work); // also if it failed: the payload is not to be dropped here
            Ok((epoch, opened.map_err(|error| this.start_error(error))?))
        })?;
        Ok(StreamHandle { shared: SharedRef::clone(this), slot, epoch, id })
    }

    /// Takes a stream that came in. `None` if its caller does not want it any more.
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
            state.settle(work);
            is_accepted
        });
        let id = StreamId { side: Side::Serving, mux_id };
        is_accepted.then(|| StreamHandle { shared: SharedRef::clone(this), slot, epoch, id })
    }
}

impl StreamHandle {
    /// What is shared about the remote.
    pub fn shared(&self) -> &SharedRef {
        &self.shared
    }

    /// Ready once the other side has taken the stream, or will not.
    ///
    /// # Errors
    ///
    /// How the stream ended, if nothing can be received from it.
    pub fn poll_open(&self, waker: &Waker) -> Poll<Result<(), StreamEnd>> {
        let attempt = |machine: &mut Machine, id: StreamId| {
            if machine.is_open(id.mux_id) {
                Attempt::Ready(Ok(()))
            } else if machine.slot_mut(id).is_some() {
                Attempt::Pending
            } else {
                Attempt::StreamOver
            }
        };
        // A handler may have sent all that it had, and returned, before this was looked at.
        self.poll(Half::Receiver, waker, attempt, |rest, end| {
            let is_worth_reading = *end == StreamEnd::Finished || !rest.is_empty();
            if is_worth_reading { Ok(()) } else { Err(end.clone()) }
        })
    }

    /// Hands `payload` over, and is ready once it was queued. To be polled with the same `payload`
    /// until then; it is `None` once it was handed over.
    ///
    /// # Errors
    ///
    /// [`SendFailure`]. If the stream ended while the message waited, it is not known whether it was
    /// sent.
    pub fn poll_send(
        &self,
        payload: &mut Option<Bytes>,
        waker: &Waker,
    ) -> Poll<Result<(), SendFailure>> {
        let attempt = |machine: &mut Machine, id: StreamId| try_send(machine, id, payload);
        let over =
            |_: &mut VecDeque<Bytes>, end: &StreamEnd| Err(SendFailure::StreamOver(end.clone()));
        self.poll(Half::Sender, waker, attempt, over)
    }

    /// Hands `payload` over without waiting for it to be queued. Returns whether that was possible:
    /// one at a time waits.
    ///
    /// # Errors
    ///
    /// [`SendFailure`].
    pub fn hand_over(&self, payload: Bytes) -> Result<bool, SendFailure> {
        let mut payload = Some(payload);
        let mut attempt = |machine: &mut Machine, id: StreamId| try_send(machine, id, &mut payload);
        match self.attempt(Half::Sender, None, &mut attempt) {
            Attempt::Ready(sent) => sent.map(|()| true),
            Attempt::Pending => Ok(payload.is_none()),
            // Over, but perhaps nobody has been told yet: it is lost like any that is under way then.
            Attempt::StreamOver => {
                self.end().map_or(Ok(true), |end| Err(SendFailure::StreamOver(end)))
            }
        }
    }

    /// Takes back the message that was handed over and waits. Nothing happens if none does.
    pub fn cancel_send(&self) {
        self.act(Machine::cancel_send);
    }

    /// Sends nothing more, after what waits. Only for the caller's end.
    pub fn finish(&self) {
        self.act(|machine, id| {
            machine.finish(id);
        });
    }

    /// Likewise, and is ready once the end was queued, or is not needed any more because the handler
    /// has returned.
    ///
    /// # Errors
    ///
    /// How the stream ended, if it did and not well.
    pub fn poll_finish(&self, waker: &Waker) -> Poll<Result<(), StreamEnd>> {
        let attempt = |machine: &mut Machine, id: StreamId| match machine.finish(id) {
            Sent::StreamOver => Attempt::StreamOver,
            Sent::Queued => Attempt::Ready(Ok(())),
            _ => Attempt::Pending,
        };
        self.poll(Half::Sender, waker, attempt, |_, end| match end {
            StreamEnd::Finished => Ok(()),
            end => Err(end.clone()),
        })
    }

    /// The next message; `None` once the other side is done sending.
    ///
    /// # Errors
    ///
    /// How the stream ended, if this side's handler returned or it did not end well.
    pub fn poll_receive(&self, waker: &Waker) -> Poll<Option<Result<Bytes, StreamEnd>>> {
        let attempt = |machine: &mut Machine, id: StreamId| match machine.receive(id) {
            Received::Message(payload) => Attempt::Ready(Some(Ok(payload))),
            Received::Nothing => Attempt::Pending,
            Received::InputOver => Attempt::Ready(None),
            Received::StreamOver => Attempt::StreamOver,
        };
        let side = self.id.side;
        self.poll(Half::Receiver, waker, attempt, |rest, end| match (rest.pop_front(), end) {
            (Some(payload), _) => Some(Ok(payload)),
            (None, StreamEnd::Finished) if side == Side::Calling => None,
            (None, end) => Some(Err(end.clone())),
        })
    }

    /// Wakes whoever waits for a message, to look at what has changed.
    pub fn wake_receiver(&self) {
        self.shared.with(|state, work| {
            if let Ok(link) = state.link(self.epoch)
                && let Some(Waiter::Stream(waiter)) = link.machine.slot_mut(self.id)
            {
                work.wakes.extend(waiter.receiver.take());
            }
        });
    }

    /// Drops what came in and what will, so that the other side is not stuck for it.
    pub fn stop_receiving(&self) {
        self.act(Machine::stop_receiving);
        let mut state = self.slot.0.lock();
        let dropped = match &mut *state {
            SlotState::Over { rest, .. } => std::mem::take(rest),
            SlotState::Live { .. } => VecDeque::new(),
        };
        drop(state);
        drop(dropped);
    }

    /// The caller gives the stream up (B11). Nothing happens if it is over.
    pub fn give_up(&self) {
        debug_assert_eq!(self.id.side, Side::Calling, "a handler ends by its answer");
        self.act(|machine, id| machine.give_up(id.mux_id));
    }

    /// How the stream ended, if it has.
    pub fn end(&self) -> Option<StreamEnd> {
        match &*self.slot.0.lock() {
            SlotState::Over { end, .. } => Some(end.clone()),
            SlotState::Live { .. } => None,
        }
    }

    /// Moves the machine, if the stream's connection is still there.
    fn act(&self, act: impl FnOnce(&mut Machine, StreamId)) {
        self.shared.with(|state, work| {
            if let Ok(link) = state.link(self.epoch) {
                act(&mut link.machine, self.id);
                link.wake_driver(work);
                state.settle(work);
            }
        });
    }

    /// Attempts something under the machine's lock; if it must wait, attempts it once more and
    /// registers the waker under the same lock, so that no wake-up is lost in between. The first
    /// attempt is without a waker because most are ready, and cloning one costs more than looking.
    fn poll<R>(
        &self,
        half: Half,
        waker: &Waker,
        mut attempt: impl FnMut(&mut Machine, StreamId) -> Attempt<R>,
        over: impl FnOnce(&mut VecDeque<Bytes>, &StreamEnd) -> R,
    ) -> Poll<R> {
        let attempted = match self.attempt(half, None, &mut attempt) {
            Attempt::Pending => self.attempt(half, Some(waker.clone()), &mut attempt),
            attempted => attempted,
        };
        match attempted {
            Attempt::Ready(ready) => Poll::Ready(ready),
            Attempt::Pending => Poll::Pending,
            Attempt::StreamOver => self.slot.poll(half, waker, over),
        }
    }

    /// One attempt; `waker` is registered under the same lock if it must wait.
    fn attempt<R>(
        &self,
        half: Half,
        mut waker: Option<Waker>,
        attempt: &mut impl FnMut(&mut Machine, StreamId) -> Attempt<R>,
    ) -> Attempt<R> {
        let mut earlier = None;
        self.shared.with(|state, work| {
            let Ok(link) = state.link(self.epoch) else { return Attempt::StreamOver };
            let attempted = attempt(&mut link.machine, self.id);
            if matches!(attempted, Attempt::Pending)
                && let Some(Waiter::Stream(waiter)) = link.machine.slot_mut(self.id)
            {
                let place = match half {
                    Half::Receiver => &mut waiter.receiver,
                    Half::Sender => &mut waiter.sender,
                };
                if waker.is_some() {
                    earlier = std::mem::replace(place, waker.take());
                }
            }
            link.wake_driver(work);
            state.settle(work);
            attempted
        })
        // `waker` and `earlier` are dropped here, not under the lock: they can be anybody's code.
    }
}

/// Hands `payload` over, unless that has been done; says how far it came.
fn try_send(
    machine: &mut Machine,
    id: StreamId,
    payload: &mut Option<Bytes>,
) -> Attempt<Result<(), SendFailure>> {
    let sent = match payload {
        Some(_) => machine.send(id, payload),
        None => machine.sent(id),
    };
    match sent {
        Sent::Queued => Attempt::Ready(Ok(())),
        Sent::Waiting => Attempt::Pending,
        Sent::Finished => Attempt::Ready(Err(SendFailure::Finished)),
        Sent::NoInput => Attempt::Ready(Err(SendFailure::NoInput)),
        Sent::TooLarge { bytes } => Attempt::Ready(Err(SendFailure::TooLarge { bytes })),
        Sent::StreamOver => Attempt::StreamOver,
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        match self.id.side {
            Side::Calling => self.give_up(),
            Side::Serving => {}
        }
    }
}
