//! A state that disagrees with its state machine is found, and the message names the field.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc as StdArc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::Limits;
use crate::proto::connection::{CloseReason, End};
use crate::shared::state::{SharedState, Waiter};
use crate::shared::{ClockHandle, NewCall, Shared};
use crate::stats::ConnectionState;
use crate::time::{Clock, Instant, Timestamp};

struct FrozenClock;

impl Clock for FrozenClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(1)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::default()
    }
}

/// Corrupts the state of a connected remote with one outstanding call. Returns what the check says.
fn violation(corrupt: impl FnOnce(&mut SharedState)) -> String {
    let name = |text: &str| text.parse().expect("a valid name");
    let (local, remote) = (name("http://10.0.0.1:9000"), name("http://10.0.0.2:9000"));
    let clock = ClockHandle(StdArc::new(FrozenClock));
    let shared = Shared::new(local, remote, Limits::default(), clock);
    shared.attach().expect("not shut down");
    let (payload, timeout) = (Bytes::from_static(b"payload"), Duration::from_secs(1));
    let call = NewCall { handler: 1, subroute: None, payload, timeout };
    let _call = shared.start(call, Waker::noop()).expect("connected");
    let mut state = shared.state.lock();
    state.check_invariants();
    corrupt(&mut state);
    let panic = catch_unwind(AssertUnwindSafe(|| state.check_invariants()))
        .expect_err("the check must find it");
    panic.downcast_ref::<String>().expect("a formatted message").clone()
}

#[test]
fn b14_a_call_that_has_an_outcome_but_is_outstanding_is_found() {
    let found = violation(|state| {
        let link = state.link.as_ref().expect("connected");
        for (_, waiter) in link.machine.slots() {
            if let Waiter::Call(slot) = waiter {
                slot.complete(Err(End::Disconnected));
            }
        }
    });
    assert!(found.starts_with("the slot of the outstanding Call(1) is Call("), "{found}");
}

#[test]
fn b11_a_handler_that_waits_for_the_end_of_an_ended_call_is_found() {
    let found = violation(|state| {
        state.handler_wakers.entry(7).or_default().insert(Waker::noop().clone());
    });
    assert_eq!(found, "handler_wakers has the ended call 7");
}

#[test]
fn b03_a_reason_for_the_end_of_an_open_connection_is_found() {
    let found = violation(|state| state.end_reason = Some(CloseReason::Peer));
    assert_eq!(found, "end_reason Some(Peer) of the open epoch 1");
}

#[test]
fn b08_a_connection_state_that_is_not_that_of_the_connection_is_found() {
    let found = violation(|state| state.connection_state = ConnectionState::Backoff);
    assert!(found.contains("link.is_some, and connection_state Backoff"), "{found}");
}

#[test]
fn b08_a_connection_that_watchers_did_not_see_is_found() {
    let found = violation(|state| state.version = 0);
    assert_eq!(found, "version 0 is below epoch 1");
}
