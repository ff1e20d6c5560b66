//! The place where the two halves of a stream find its end.
//!
//! Like a call's slot it has its own lock: ends are recorded after the lock of the state machine is
//! released.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::proto::connection::End;
use crate::sync::{Arc, Mutex};

/// The wakers of an open stream. Kept in the state machine, under its lock.
#[derive(Debug)]
pub(super) struct StreamWaiter {
    slot: Arc<StreamSlot>,
    pub(super) receiver_waker: Option<Waker>,
    pub(super) sender_waker: Option<Waker>,
}

impl StreamWaiter {
    pub(super) fn new(slot: &Arc<StreamSlot>) -> Box<Self> {
        Box::new(Self { slot: Arc::clone(slot), receiver_waker: None, sender_waker: None })
    }

    /// Returns the registered waker of a half.
    pub(super) fn waker_mut(&mut self, half: Half) -> &mut Option<Waker> {
        match half {
            Half::Receiver => &mut self.receiver_waker,
            Half::Sender => &mut self.sender_waker,
        }
    }

    /// Whether the stream's end is not recorded yet.
    pub(super) fn is_live(&self) -> bool {
        self.slot.end().is_none()
    }

    /// Records the end of the stream and wakes its halves. Must not be called under the lock.
    pub(super) fn complete(self, rest: VecDeque<Bytes>, end: End) {
        let late = self.slot.complete(rest, end);
        let waiting = [self.receiver_waker, self.sender_waker];
        waiting.into_iter().chain(late).flatten().for_each(Waker::wake);
    }
}

/// The remains of a stream after its end.
///
/// ```text
///          complete
///   Live ────────────► Ended
/// ```
#[derive(Debug)]
pub(super) struct StreamSlot(Mutex<StreamSlotState>);

#[derive(Debug)]
enum StreamSlotState {
    /// With the wakers of halves that found the stream removed from the state machine before its
    /// end was recorded here.
    Live {
        wakers: [Option<Waker>; 2],
    },
    Ended {
        rest: VecDeque<Bytes>,
        end: End,
    },
}

/// The half of a stream that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Receiver,
    Sender,
}

impl StreamSlot {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(StreamSlotState::Live { wakers: [None, None] })))
    }

    fn complete(&self, rest: VecDeque<Bytes>, end: End) -> [Option<Waker>; 2] {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, StreamSlotState::Ended { rest, end }) {
            StreamSlotState::Live { wakers } => wakers,
            ended @ StreamSlotState::Ended { .. } => {
                *state = ended;
                crate::bug!("a stream ended twice");
                [None, None]
            }
        }
    }

    /// Returns the end of the stream, once it is there.
    pub(super) fn end(&self) -> Option<End> {
        match &*self.0.lock() {
            StreamSlotState::Ended { end, .. } => Some(end.clone()),
            StreamSlotState::Live { .. } => None,
        }
    }

    /// Takes the messages that were not received before the end. Those of an open stream are in the
    /// state machine.
    pub(super) fn take_rest(&self) -> VecDeque<Bytes> {
        match &mut *self.0.lock() {
            StreamSlotState::Ended { rest, .. } => std::mem::take(rest),
            StreamSlotState::Live { .. } => VecDeque::new(),
        }
    }

    /// Reads the remains, once they are there.
    pub(super) fn poll<R>(
        &self,
        half: Half,
        waker: &Waker,
        read: impl FnOnce(&mut VecDeque<Bytes>, &End) -> R,
    ) -> Poll<R> {
        let waker = waker.clone();
        let mut state = self.0.lock();
        let previous = match &mut *state {
            StreamSlotState::Ended { rest, end } => return Poll::Ready(read(rest, end)),
            StreamSlotState::Live { wakers } => wakers[half as usize].replace(waker),
        };
        drop(state);
        drop(previous); // not under the lock: a waker may run foreign code
        Poll::Pending
    }
}
