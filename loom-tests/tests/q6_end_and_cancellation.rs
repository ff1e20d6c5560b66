//! The end of a stream races with its cancellation (B23).
//!
//! Guards against a failure seen in production: the end of a stream and a cancellation are
//! ready at once, the waiter picks one at random, and a handler that returned cleanly is reported
//! as cancelled; or the last responses before the end are dropped with it.
#![cfg(grid_loom)]

use bytes::Bytes;
use grid::proto::connection::{Capacities, CloseReason, End};
use grid::proto::message::{Flags, Op};
use loom::thread;
use loom_tests::{
    ONE_CREDIT_EACH_WAY, accepted, assert_quiescent, check, connected, deliver, opened, peer,
    receive_all, send, transmit_all,
};

#[test]
fn q6_b23_messages_before_the_end_are_received_and_a_clean_end_survives_a_disconnect() {
    check("6 end × disconnect × reader", || {
        let (remote, epoch) = connected();
        let handle = opened(&remote, epoch, Capacities { input: 0, output: 2 });
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let one = peer::data(1, 1, Bytes::from_static(b"one"));
                let two = peer::data(1, 2, Bytes::from_static(b"two"));
                // How many of the three arrived before the connection closed.
                let Ok(_) = deliver(&remote, epoch, vec![one]) else { return 0 };
                let Ok(_) = deliver(&remote, epoch, vec![two, peer::end(1, 3)]) else { return 1 };
                3
            })
        };
        let disconnecter = {
            let remote = remote.clone();
            thread::spawn(move || remote.detach(epoch, CloseReason::Peer))
        };
        let (received, end) = receive_all(&handle);
        disconnecter.join().expect("no panic");
        match task.join().expect("no panic") {
            0 => assert_eq!((received.len(), end), (0, Some(End::Disconnected))),
            1 => assert_eq!((received.len(), end), (1, Some(End::Disconnected))),
            _ => assert_eq!((&*received, end), (&["one".into(), "two".into()][..], None)),
        }
        assert_quiescent(&remote);
    });
}

#[test]
fn q6_b23_a_clean_end_that_came_first_survives_the_callers_cancellation() {
    check("6 end × cancel × reader", || {
        let (remote, epoch) = connected();
        let handle = opened(&remote, epoch, Capacities { input: 0, output: 1 });
        let handle = std::sync::Arc::new(handle);
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let one = peer::data(1, 1, Bytes::from_static(b"one"));
                deliver(&remote, epoch, vec![one, peer::end(1, 2)]).expect("open");
            })
        };
        let canceller = {
            let handle = handle.clone();
            thread::spawn(move || handle.cancel())
        };
        let (received, end) = receive_all(&handle);
        task.join().expect("no panic");
        canceller.join().expect("no panic");
        let is_cancelled = !transmit_all(&remote, epoch).expect("open").is_empty();
        match end {
            None => assert_eq!((received.len(), is_cancelled), (1, false)),
            Some(End::Cancelled) => assert_eq!((received.len(), is_cancelled), (0, true)),
            other => panic!("{other:?}"),
        }
        assert_quiescent(&remote);
    });
}

#[test]
fn q6_b23_an_open_that_is_polled_after_the_end_still_has_all_messages() {
    check("6 end × open", || {
        let (remote, epoch) = connected();
        let new = loom_tests::new_stream(Capacities { input: 0, output: 1 });
        let handle = grid::shared::Shared::open(&remote, new).expect("connected");
        transmit_all(&remote, epoch).expect("open");
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                deliver(&remote, epoch, vec![peer::ack(1)]).expect("open");
                let one = peer::data(1, 1, Bytes::from_static(b"one"));
                deliver(&remote, epoch, vec![one, peer::end(1, 2)]).expect("open");
            })
        };
        let opened = loom_tests::wait(|waker| handle.poll_open(waker));
        assert_eq!(opened, Ok(()));
        assert_eq!(receive_all(&handle), (vec!["one".into()], None));
        task.join().expect("no panic");
    });
}

#[test]
fn q6_b23_the_end_that_a_returned_handler_gets_matches_the_messages_sent() {
    check("6 handler's end × cancel", || {
        let (remote, epoch) = connected();
        let handle = accepted(&remote, epoch, 1, Capacities { input: 1, output: 2 });
        let handler = {
            let remote = remote.clone();
            thread::spawn(move || {
                let sent = send(&handle, b"one");
                remote.respond(epoch, &[(1, Ok(Bytes::new()))]);
                let (_, end) = receive_all(&handle);
                (sent, end.expect("the handler's side of the stream ends with a reason"))
            })
        };
        deliver(&remote, epoch, vec![peer::cancel(1)]).expect("open");
        let (sent, end) = handler.join().expect("no panic");
        let written = transmit_all(&remote, epoch).expect("open");
        let is_end = |flags: Flags| flags.contains(Flags::EOF);
        let messages = written.iter().filter(|message| message.header.op == Op::MuxServerMsg);
        let ends: Vec<bool> = messages.map(|message| is_end(message.header.flags)).collect();
        match (sent, end) {
            (Ok(()), End::Finished) => assert_eq!(ends, [false, true]),
            (Ok(()), End::Cancelled) => assert_eq!(ends, [false]),
            (Err(_), End::Cancelled) => assert_eq!(ends, [false; 0]),
            other => panic!("{other:?}, but {ends:?} was sent"),
        }
        assert_quiescent(&remote);
    });
}

#[test]
fn q6_b23_b25_a_clean_end_is_not_a_cancellation_for_a_sender() {
    check("6 end × sender", || {
        let (remote, epoch) = connected();
        let handle = opened(&remote, epoch, ONE_CREDIT_EACH_WAY);
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                deliver(&remote, epoch, vec![peer::end(1, 1)]).expect("open");
            })
        };
        // Finishes the input, without the credit that this takes, while the handler returns
        // cleanly.
        drop(send(&handle, b"one"));
        let finished = loom_tests::wait(|waker| handle.poll_finish(waker));
        assert_eq!(finished, Ok(()));
        task.join().expect("no panic");
    });
}
