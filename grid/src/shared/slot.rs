//! Where one caller waits for the outcome of its call.
//!
//! Apart from the machine's lock on purpose: the connection's task ends a whole batch of calls under
//! that lock, and hands out the outcomes afterwards, so that the callers it wakes do not queue up
//! behind it.

use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::Epoch;
use crate::proto::connection::Outcome;
use crate::proto::subroute::SubrouteId;
use crate::sync::{Arc, Mutex};

/// A call to be made.
#[derive(Debug)]
pub struct NewCall {
    /// The handler's id.
    pub handler: u8,
    /// Which of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// What the handler gets.
    pub payload: Bytes,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// A call that was started and whose caller waits.
#[derive(Debug)]
pub struct StartedCall {
    pub(super) slot: Arc<CallSlot>,
    pub(super) epoch: Epoch,
    pub(super) mux_id: u64,
}

impl StartedCall {
    /// How the call ended, once.
    pub fn poll(&self, waker: &Waker) -> Poll<Outcome> {
        self.slot.poll(waker)
    }
}

/// One caller's place.
///
/// ```text
///            complete             poll
///   Waiting ──────────► Done ──────────► Taken
/// ```
#[derive(Debug)]
pub(super) struct CallSlot(Mutex<State>);

#[derive(Debug)]
enum State {
    Waiting(Waker),
    Done(Outcome),
    Taken,
}

impl CallSlot {
    /// A caller that waits.
    pub(super) fn new(waker: Waker) -> Self {
        Self(Mutex::new(State::Waiting(waker)))
    }

    /// Puts the outcome there. Returns whom to wake.
    pub(super) fn complete(&self, outcome: Outcome) -> Option<Waker> {
        let mut state = self.0.lock();
        match &*state {
            State::Waiting(_) => match std::mem::replace(&mut *state, State::Done(outcome)) {
                State::Waiting(waker) => Some(waker),
                State::Done(_) | State::Taken => None,
            },
            State::Done(_) | State::Taken => {
                crate::bug!("a call ended twice");
                None
            }
        }
    }

    /// The outcome, once, as soon as it is there.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Outcome> {
        let mut state = self.0.lock();
        if let State::Waiting(registered) = &mut *state {
            if !registered.will_wake(waker) {
                let earlier = std::mem::replace(registered, waker.clone());
                drop(state);
                drop(earlier); // not under the lock: a waker can be anybody's code
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(outcome) => Poll::Ready(outcome),
            State::Waiting(_) | State::Taken => {
                crate::bug!("a call was asked for its outcome after it had been told");
                Poll::Ready(Outcome::Disconnected)
            }
        }
    }
}
