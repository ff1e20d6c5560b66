//! A reconnect that drains the queue, senders, and a second connection that supersedes the first
//! (B03, B06).
//!
//! Guards against a failure seen in production: the task of the old connection, a handler
//! that it started, or its leftover queue act on the new one. The end of the old connection closes
//! the new one, a response reaches an unrelated call with the same mux id, or a caller between the
//! two connections is never notified.
#![cfg(grid_loom)]

use std::task::Waker;

use bytes::Bytes;
use grid::ConnectionState;
use grid::proto::connection::{CloseReason, End};
use grid::proto::message::Op;
use loom::thread;
use loom_tests::{
    QUEUE_FILLER, Task, assert_quiescent, check, connected, deliver, ops_of_call, peer, remote,
    request, start, transmit, transmit_all, wait,
};

#[test]
fn q7_b03_b06_a_call_between_two_connections_is_served_by_the_second_or_ended_with_the_first() {
    check("7 old task × sender × superseding", || {
        let (remote, first) = connected();
        let _filler = start(&remote, QUEUE_FILLER);
        let old_task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let written = transmit(&remote, first);
                // The socket has failed, and a guard detaches the connection, possibly after the
                // new one has been attached.
                remote.detach(first, CloseReason::Transport("reset".into()));
                written.unwrap_or_default()
            })
        };
        let sender = {
            let remote = remote.clone();
            thread::spawn(move || request(&remote, QUEUE_FILLER))
        };
        let second = remote.attach().expect("not shut down");
        let new_task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut task = Task::new(&remote, second);
                (task.run(peer::responding), task.written)
            })
        };
        let old_written = old_task.join().expect("no panic");
        assert!(old_written.len() <= 1, "the old task writes what its own queue held");
        let outcome = sender.join().expect("no panic");
        assert_eq!(remote.connection_state().0, ConnectionState::Connected);
        remote.detach(second, CloseReason::Peer);
        let (reason, new_written) = new_task.join().expect("no panic");
        assert_eq!(reason, CloseReason::Peer);
        match outcome {
            Some(Ok(_)) => {
                assert_eq!(ops_of_call(&new_written, 1), [Op::Request]);
            }
            // It was started on the first connection, or between the two.
            Some(Err(End::Disconnected)) | None => assert_eq!(new_written, []),
            other => panic!("{other:?}"),
        }
        assert_quiescent(&remote);
    });
}

#[test]
fn q7_b03_the_later_of_two_concurrent_connections_survives_and_a_watcher_misses_no_change() {
    check("7 two concurrent connections × a watcher", || {
        let remote = remote();
        let connect = || {
            let remote = remote.clone();
            thread::spawn(move || match remote.attach() {
                Ok(epoch) => (Some(epoch), Task::new(&remote, epoch).run(peer::silent)),
                Err(reason) => (None, reason),
            })
        };
        let tasks = [connect(), connect()];
        // Watches until the expected state; other states may come before it.
        let (mut key, mut seen) = (None, (ConnectionState::Connecting, 0));
        while seen.0 != ConnectionState::Connected {
            seen = wait(|waker| remote.poll_changed(seen.1, &mut key, waker));
        }
        remote.shutdown();
        assert_eq!(remote.connection_state().0, ConnectionState::Shutdown);
        let mut ends = tasks.map(|task| task.join().expect("no panic"));
        ends.sort_by_key(|(epoch, _)| *epoch);
        let [(first, first_end), (second, second_end)] = ends;
        assert_eq!(second_end, CloseReason::Shutdown);
        assert!(second.is_some(), "the watcher saw one");
        let is_superseded = first.is_some();
        let expected = if is_superseded { CloseReason::Superseded } else { CloseReason::Shutdown };
        assert_eq!(first_end, expected);
        assert_quiescent(&remote);
    });
}

#[test]
fn q7_b03_a_watcher_that_leaves_while_the_state_changes_removes_no_other_watcher() {
    check("7 watcher leaves × changes × watcher registers", || {
        let (remote, epoch) = connected();
        let (_, version) = remote.connection_state();
        let mut key = None;
        assert!(remote.poll_changed(version, &mut key, Waker::noop()).is_pending());
        let watcher = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut key = None;
                let mut seen = remote.connection_state();
                while seen.0 != ConnectionState::Shutdown {
                    seen = wait(|waker| remote.poll_changed(seen.1, &mut key, waker));
                }
            })
        };
        let changes = {
            let remote = remote.clone();
            thread::spawn(move || {
                remote.detach(epoch, CloseReason::Peer);
                remote.shutdown();
            })
        };
        remote.deregister_watcher(version, key.expect("it watches"));
        changes.join().expect("no panic");
        watcher.join().expect("it saw the last change");
    });
}

#[test]
fn q7_b03_a_late_response_of_an_earlier_connection_is_not_sent_for_a_later_call() {
    check("7 late response × superseding", || {
        let (remote, first) = connected();
        assert_eq!(deliver(&remote, first, vec![peer::request(1)]), Ok(1));
        let handler = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut key = None;
                remote.respond(first, &[(1, Ok(Bytes::from_static(b"old")))]);
                // The call that it served has ended, even if a new call has its mux id.
                wait(|waker| remote.poll_cancelled(first, 1, &mut key, waker));
            })
        };
        let canceller = {
            let remote = remote.clone();
            thread::spawn(move || {
                let _ = deliver(&remote, first, vec![peer::cancel(1)]);
            })
        };
        let second = remote.attach().expect("not shut down");
        assert_eq!(deliver(&remote, second, vec![peer::request(1)]), Ok(1));
        handler.join().expect("no panic");
        canceller.join().expect("no panic");
        assert_eq!(transmit_all(&remote, second), Ok(vec![]));
        assert!(remote.is_live(second, 1));
    });
}
