//! A send that races with the close of its connection (B05, B06).
//!
//! Guards against a failure seen in production: closing takes the lock that a blocked sender
//! holds, or does not notify the blocked sender; the server then hangs in its reconnect until it is
//! restarted.
#![cfg(grid_loom)]

use std::task::Waker;

use grid::proto::connection::{Capacities, CloseReason, End};
use grid::shared::{Park, Written};
use loom::thread;
use loom_tests::{
    QUEUE_FILLER, Sleeper, assert_quiescent, check, connected, disconnected, opened, receive_all,
    request, send, start,
};

#[test]
fn q2_b05_b06_closing_ends_calls_that_wait_for_queue_space_and_wakes_a_task_whose_socket_is_full() {
    check("2 calls waiting for queue space × close", || {
        let (remote, epoch) = connected();
        let filler = start(&remote, QUEUE_FILLER);
        let caller = {
            let remote = remote.clone();
            thread::spawn(move || request(&remote, QUEUE_FILLER))
        };
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let sleeper = Sleeper::default();
                while let Ok(Park::Until(_)) = remote.park(epoch, Written::Blocked, sleeper.waker())
                {
                    sleeper.sleep();
                }
                sleeper
            })
        };
        remote.detach(epoch, CloseReason::Peer);
        let outcome = caller.join().expect("no panic");
        assert!(matches!(outcome, None | Some(Err(End::Disconnected))), "{outcome:?}");
        let sleeper = task.join().expect("no panic");
        assert!(sleeper.is_deregistered());
        assert!(filler.poll(Waker::noop()).is_ready());
        assert_quiescent(&remote);
    });
}

#[test]
fn q2_b05_b06_closing_ends_both_halves_of_a_stream_that_wait_for_credit_and_messages() {
    check("2 stream waiting for credit × close", || {
        let (remote, epoch) = connected();
        let handle = opened(&remote, epoch, Capacities { input: 1, output: 1 });
        let handle = std::sync::Arc::new(handle);
        let sender = {
            let handle = handle.clone();
            thread::spawn(move || {
                // The first is queued; the second has no credit until the end.
                send(&handle, b"one").and_then(|()| send(&handle, b"two"))
            })
        };
        let receiver = {
            let handle = handle.clone();
            thread::spawn(move || receive_all(&handle))
        };
        remote.detach(epoch, CloseReason::Peer);
        let sent = sender.join().expect("no panic");
        assert_eq!(sent, Err(disconnected(&remote)));
        let received = receiver.join().expect("no panic");
        assert_eq!(received, (vec![], Some(End::Disconnected)));
        assert_quiescent(&remote);
    });
}
