//! A response × a disconnect × the caller going away (B14, B05).
//!
//! Guards against this failure of grids in the field: two of those who may end a call do so at once.
//! Its caller is told twice, or never; or a response that nobody waits for any more stays in memory.
#![cfg(grid_loom)]

use std::task::Waker;

use grid::proto::connection::{CloseReason, Outcome};
use loom::thread;
use loom_tests::{
    Remote, Sleeper, assert_quiescent, call, check, connected, deliver, peer, transmit, wait,
    watched,
};

/// The response comes in; returns whether it did before the connection was over.
fn respond(
    remote: &Remote,
    epoch: grid::shared::Epoch,
    answer: bytes::Bytes,
) -> thread::JoinHandle<bool> {
    let remote = remote.clone();
    thread::spawn(move || deliver(&remote, epoch, vec![peer::response(1, answer)]).is_ok())
}

fn disconnect(remote: &Remote, epoch: grid::shared::Epoch) -> thread::JoinHandle<()> {
    let remote = remote.clone();
    thread::spawn(move || remote.detach(epoch, CloseReason::Peer))
}

#[test]
fn q3_b14_a_caller_that_waits_has_exactly_one_outcome_and_it_is_the_response_if_that_came_first() {
    check("3 response × disconnect × a caller that moves", || {
        let (remote, epoch) = connected();
        let (answer, answer_memory) = watched(b"answer");
        let (payload, payload_memory) = watched(b"payload");
        // The future moves to another task between its first poll and its second.
        let first = Sleeper::default();
        let started = remote.start(call(payload), first.waker()).expect("connected");
        transmit(&remote, epoch).expect("open");
        let responder = respond(&remote, epoch, answer);
        let disconnecter = disconnect(&remote, epoch);
        let outcome = wait(|waker| started.poll(waker));
        let has_come = responder.join().expect("it ends");
        disconnecter.join().expect("it ends");
        match outcome {
            Outcome::Response(answer) => {
                assert!(has_come);
                assert_eq!(&answer[..], b"answer");
            }
            Outcome::Disconnected => assert!(!has_come, "a response was lost"),
            other => panic!("{other:?}"),
        }
        drop(started);
        assert!(first.is_forgotten() && answer_memory.is_released());
        assert!(payload_memory.is_released());
        assert_quiescent(&remote);
    });
}

#[test]
fn q3_b05_b11_a_caller_that_gives_up_leaves_nothing_behind_whatever_comes_for_it() {
    check("3 response × disconnect × give up and drop", || {
        let (remote, epoch) = connected();
        let (answer, answer_memory) = watched(b"answer");
        let (payload, payload_memory) = watched(b"payload");
        let sleeper = Sleeper::default();
        let started = remote.start(call(payload), sleeper.waker()).expect("connected");
        transmit(&remote, epoch).expect("open");
        let responder = respond(&remote, epoch, answer);
        let disconnecter = disconnect(&remote, epoch);
        let is_told = started.poll(Waker::noop()).is_ready();
        if !is_told {
            remote.give_up(&started);
        }
        drop(started);
        responder.join().expect("it ends");
        disconnecter.join().expect("it ends");
        assert!(sleeper.is_forgotten() && answer_memory.is_released());
        assert!(payload_memory.is_released());
        assert_quiescent(&remote);
    });
}
