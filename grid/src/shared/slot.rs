//! The place where one caller waits for the outcome of its call.
//!
//! It has its own lock on purpose. The connection's task ends a whole batch of calls under the lock
//! of the state machine and hands out the outcomes afterwards, so that the woken callers do not
//! queue up behind that lock.

use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::Epoch;
use crate::proto::connection::{CallOutcome, End};
use crate::proto::subroute::SubrouteId;
use crate::sync::{Arc, Mutex};

/// A call to be started.
#[derive(Debug)]
pub struct NewCall {
    /// The handler's id.
    pub handler: u8,
    /// The subroute that selects one of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// The payload for the handler.
    pub payload: Bytes,
    /// Longest wait for the response.
    pub timeout: Duration,
}

/// A started call whose caller waits.
#[derive(Debug)]
pub struct StartedCall {
    pub(super) slot: Arc<CallSlot>,
    pub(super) epoch: Epoch,
    pub(super) mux_id: u64,
}

impl StartedCall {
    /// Returns the outcome of the call, once.
    pub fn poll(&self, waker: &Waker) -> Poll<CallOutcome> {
        self.slot.poll(waker)
    }
}

/// The outcome of one call, or the waker of its caller.
///
/// ```text
///            complete             poll
///   Waiting ──────────► Done ──────────► Taken
/// ```
#[derive(Debug)]
pub(super) struct CallSlot(Mutex<CallSlotState>);

#[derive(Debug)]
enum CallSlotState {
    Waiting(Waker),
    Done(CallOutcome),
    Taken,
}

impl CallSlot {
    /// Creates a slot with a waiting caller.
    pub(super) fn new(waker: Waker) -> Self {
        Self(Mutex::new(CallSlotState::Waiting(waker)))
    }

    /// Stores the outcome. Returns the waker of the caller.
    pub(super) fn complete(&self, outcome: CallOutcome) -> Option<Waker> {
        let mut state = self.0.lock();
        match &*state {
            CallSlotState::Waiting(_) => {
                match std::mem::replace(&mut *state, CallSlotState::Done(outcome)) {
                    CallSlotState::Waiting(waker) => Some(waker),
                    CallSlotState::Done(_) | CallSlotState::Taken => None,
                }
            }
            CallSlotState::Done(_) | CallSlotState::Taken => {
                crate::bug!("a call ended twice");
                None
            }
        }
    }

    /// Whether the call has no outcome yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(&*self.0.lock(), CallSlotState::Waiting(_))
    }

    /// Takes the outcome as soon as it is stored.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<CallOutcome> {
        let mut state = self.0.lock();
        if let CallSlotState::Waiting(registered) = &mut *state {
            if !registered.will_wake(waker) {
                let previous = std::mem::replace(registered, waker.clone());
                drop(state);
                drop(previous); // not under the lock: a waker may run foreign code
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, CallSlotState::Taken) {
            CallSlotState::Done(outcome) => Poll::Ready(outcome),
            CallSlotState::Waiting(_) | CallSlotState::Taken => {
                crate::bug!("the outcome of a call was polled after it was taken");
                Poll::Ready(Err(End::Disconnected))
            }
        }
    }
}
