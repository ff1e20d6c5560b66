//! An error for a stream whose buffer is full, a slow reader, and a cancellation (B24).
//!
//! Guards against a failure seen in production: the reader of the socket pushes the error of
//! one stream into its full response buffer and blocks, and with it the whole connection; or the
//! error is dropped because the buffer is full, and the caller never receives it.
#![cfg(grid_loom)]

use std::sync::Arc as StdArc;

use bytes::Bytes;
use grid::proto::connection::End;
use grid::proto::message::Op;
use grid::{CallError, SendError};
use loom::thread;
use loom_tests::{
    ONE_CREDIT_EACH_WAY, accepted, assert_quiescent, check, connected, deliver, opened,
    ops_of_call, peer, probed, receive_all, send, transmit_all, wait,
};

#[test]
fn q5_b24_an_error_reaches_both_halves_of_a_stream_whose_buffer_is_full() {
    check("5 error × slow reader × sender without credit", || {
        let (remote, epoch) = connected();
        let handle = StdArc::new(opened(&remote, epoch, ONE_CREDIT_EACH_WAY));
        let sender = {
            let handle = handle.clone();
            thread::spawn(move || send(&handle, b"one").and_then(|()| send(&handle, b"two")))
        };
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let data = peer::data(1, 1, Bytes::from_static(b"fills it"));
                deliver(&remote, epoch, vec![data]).expect("open");
                // Never blocks, even if the buffer is full.
                deliver(&remote, epoch, vec![peer::error(1)]).expect("open");
            })
        };
        let (received, end) = receive_all(&handle);
        assert_eq!(received, [&b"fills it"[..]], "messages before the error are received");
        assert_eq!(end, Some(End::RemoteError("it failed".into())));
        let sent = sender.join().expect("no panic");
        let (remote_name, message) = (remote.remote().clone(), "it failed".into());
        let expected = CallError::Remote { remote: remote_name, message };
        assert_eq!(sent, Err(SendError::Stream(expected.into())));
        task.join().expect("it never blocks");
        assert_eq!(remote.stats().live_outbound_streams, 0);
    });
}

#[test]
fn q5_b24_b25_an_error_and_a_cancellation_end_the_stream_once_and_leak_nothing() {
    check("5 error × slow reader × cancel", || {
        let (remote, epoch) = connected();
        let handle = StdArc::new(opened(&remote, epoch, ONE_CREDIT_EACH_WAY));
        let (payload, memory) = probed(b"fills it");
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                deliver(&remote, epoch, vec![peer::data(1, 1, payload)]).expect("open");
                deliver(&remote, epoch, vec![peer::error(1)]).expect("open");
            })
        };
        let reader = {
            let handle = handle.clone();
            thread::spawn(move || receive_all(&handle).1)
        };
        handle.cancel();
        let end = reader.join().expect("no panic");
        task.join().expect("it never blocks");
        let sent = ops_of_call(&transmit_all(&remote, epoch).expect("open"), 1);
        let is_cancelled = sent.contains(&Op::DisconnectServerMux);
        match end {
            Some(End::RemoteError(_)) => assert!(!is_cancelled, "the handler has ended"),
            Some(End::Cancelled) => assert!(is_cancelled, "the handler must be cancelled"),
            other => panic!("{other:?}"),
        }
        drop(handle);
        assert!(memory.is_released());
        assert_quiescent(&remote);
    });
}

#[test]
fn q5_b24_a_handlers_error_is_sent_without_a_credit_unless_it_was_cancelled_before() {
    check("5 handler's error without credit × cancel", || {
        let (remote, epoch) = connected();
        let handle = accepted(&remote, epoch, 1, ONE_CREDIT_EACH_WAY);
        let handler = {
            let remote = remote.clone();
            thread::spawn(move || {
                // Takes the only credit: the caller reads nothing.
                drop(send(&handle, b"unread"));
                remote.respond(epoch, &[(1, Err("it failed".into()))]);
                receive_all(&handle).1.expect("the handler's side of the stream ends with a reason")
            })
        };
        let watcher = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut key = None;
                wait(|waker| remote.poll_cancelled(epoch, 1, &mut key, waker));
            })
        };
        deliver(&remote, epoch, vec![peer::cancel(1)]).expect("open");
        let end = handler.join().expect("it does not hang");
        watcher.join().expect("it is woken, once the response was sent or cancelled");
        let sent = ops_of_call(&transmit_all(&remote, epoch).expect("open"), 1);
        match end {
            End::Finished => assert_eq!(sent.last(), Some(&Op::DisconnectClientMux)),
            End::Cancelled => assert!(!sent.contains(&Op::DisconnectClientMux), "{sent:?}"),
            other => panic!("{other:?}"),
        }
        assert_quiescent(&remote);
    });
}
