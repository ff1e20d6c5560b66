//! A response, a disconnect and the drop of the call race (B14, B05).
//!
//! Guards against a failure seen in production: two events end a call at the same time, and
//! its caller gets two outcomes, or none; or a response without a waiter stays in memory.
#![cfg(grid_loom)]

use std::task::Waker;

use grid::proto::connection::{CloseReason, End};
use loom::thread;
use loom_tests::{
    Remote, Sleeper, assert_quiescent, check, connected, deliver, new_call, peer, probed, transmit,
    wait,
};

/// Delivers the response; returns whether the connection was still open.
fn respond(
    remote: &Remote,
    epoch: grid::shared::Epoch,
    response: bytes::Bytes,
) -> thread::JoinHandle<bool> {
    let remote = remote.clone();
    thread::spawn(move || deliver(&remote, epoch, vec![peer::response(1, response)]).is_ok())
}

fn disconnect(remote: &Remote, epoch: grid::shared::Epoch) -> thread::JoinHandle<()> {
    let remote = remote.clone();
    thread::spawn(move || remote.detach(epoch, CloseReason::Peer))
}

#[test]
fn q3_b14_a_waiting_caller_has_exactly_one_outcome_the_response_if_it_came_first() {
    check("3 response × disconnect × a caller that moves to another task", || {
        let (remote, epoch) = connected();
        let (response, response_memory) = probed(b"response");
        let (payload, payload_memory) = probed(b"payload");
        // The future moves to another task between its first poll and its second.
        let first = Sleeper::default();
        let started = remote.start(new_call(payload), first.waker()).expect("connected");
        transmit(&remote, epoch).expect("open");
        let responder = respond(&remote, epoch, response);
        let disconnecter = disconnect(&remote, epoch);
        let outcome = wait(|waker| started.poll(waker));
        let is_delivered = responder.join().expect("no panic");
        disconnecter.join().expect("no panic");
        match outcome {
            Ok(response) => {
                assert!(is_delivered);
                assert_eq!(&response[..], b"response");
            }
            Err(End::Disconnected) => assert!(!is_delivered, "a response was lost"),
            other => panic!("{other:?}"),
        }
        drop(started);
        assert!(first.is_deregistered() && response_memory.is_released());
        assert!(payload_memory.is_released());
        assert_quiescent(&remote);
    });
}

#[test]
fn q3_b05_b11_a_cancelled_call_leaks_nothing_when_a_response_or_a_disconnect_arrives() {
    check("3 response × disconnect × cancel and drop", || {
        let (remote, epoch) = connected();
        let (response, response_memory) = probed(b"response");
        let (payload, payload_memory) = probed(b"payload");
        let sleeper = Sleeper::default();
        let started = remote.start(new_call(payload), sleeper.waker()).expect("connected");
        transmit(&remote, epoch).expect("open");
        let responder = respond(&remote, epoch, response);
        let disconnecter = disconnect(&remote, epoch);
        let is_ready = started.poll(Waker::noop()).is_ready();
        if !is_ready {
            remote.cancel(&started);
        }
        drop(started);
        responder.join().expect("no panic");
        disconnecter.join().expect("no panic");
        assert!(sleeper.is_deregistered() && response_memory.is_released());
        assert!(payload_memory.is_released());
        assert_quiescent(&remote);
    });
}
