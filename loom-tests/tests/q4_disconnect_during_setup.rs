//! A disconnect during the setup of a call or a stream (B15).
//!
//! Guards against a failure seen in production: the connection ends after the mux id was
//! allocated and before the waiter is registered. The waiter is not notified, and the caller waits
//! for its whole deadline, or for ever.
#![cfg(grid_loom)]

use grid::proto::connection::{CloseReason, End};
use grid::shared::Shared;
use loom::thread;
use loom_tests::{
    ONE_CREDIT_EACH_WAY, QUEUE_FILLER, Task, assert_quiescent, check, connected, deliver,
    new_stream, peer, receive_all, request, send, wait,
};

#[test]
fn q4_b15_a_disconnect_ends_calls_and_streams_during_their_setup() {
    check("4 disconnect × setup of a call and a stream", || {
        let (remote, epoch) = connected();
        let caller = {
            let remote = remote.clone();
            // The call fills the queue, or finds the stream's opening in it.
            thread::spawn(move || request(&remote, QUEUE_FILLER))
        };
        let opener = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut new = new_stream(ONE_CREDIT_EACH_WAY);
                new.payload = Some(bytes::Bytes::from_static(QUEUE_FILLER));
                let handle = Shared::open(&remote, new).ok()?;
                wait(|waker| handle.poll_open(waker)).err()
            })
        };
        remote.detach(epoch, CloseReason::Peer);
        let outcome = caller.join().expect("no panic");
        assert!(matches!(outcome, None | Some(Err(End::Disconnected))), "{outcome:?}");
        let end = opener.join().expect("no panic");
        assert!(matches!(end, None | Some(End::Disconnected)), "{end:?}");
        assert_quiescent(&remote);
    });
}

#[test]
fn q4_b15_b20_a_disconnect_ends_a_stream_whose_acknowledgement_arrives_concurrently() {
    check("4 disconnect × acknowledgement", || {
        let (remote, epoch) = connected();
        let opener = {
            let remote = remote.clone();
            thread::spawn(move || {
                let Ok(handle) = Shared::open(&remote, new_stream(ONE_CREDIT_EACH_WAY)) else {
                    return;
                };
                // Opened or not: a message that waits for the acknowledgement must not wait for
                // ever.
                let opened = wait(|waker| handle.poll_open(waker));
                assert!(matches!(opened, Ok(()) | Err(End::Disconnected)), "{opened:?}");
                let sent = send(&handle, b"one").and_then(|()| send(&handle, b"two"));
                sent.expect_err("there is one credit");
            })
        };
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let acknowledge = |written: &grid::proto::message::Message| {
                    let is_new = written.header.op == grid::proto::message::Op::ConnectMux;
                    if is_new { vec![peer::ack(written.header.mux_id)] } else { vec![] }
                };
                Task::new(&remote, epoch).run(acknowledge)
            })
        };
        remote.detach(epoch, CloseReason::Peer);
        opener.join().expect("no panic");
        task.join().expect("no panic");
        assert_quiescent(&remote);
    });
}

#[test]
fn q4_b15_a_disconnect_ends_a_stream_that_is_being_accepted() {
    check("4 disconnect × accept", || {
        let (remote, epoch) = connected();
        deliver(&remote, epoch, vec![peer::connect(1)]).expect("open");
        let handler = {
            let remote = remote.clone();
            thread::spawn(move || {
                let handle = Shared::accept(&remote, epoch, 1, ONE_CREDIT_EACH_WAY)?;
                Some(receive_all(&handle))
            })
        };
        let watcher = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut key = None;
                wait(|waker| remote.poll_cancelled(epoch, 1, &mut key, waker));
            })
        };
        remote.detach(epoch, CloseReason::Peer);
        watcher.join().expect("no panic");
        let received = handler.join().expect("no panic");
        assert!(matches!(received, None | Some((_, Some(End::Disconnected)))));
        assert_quiescent(&remote);
    });
}
