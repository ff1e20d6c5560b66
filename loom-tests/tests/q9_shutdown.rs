//! Shutdown races with calls, streams, handlers, waiters for the end and watchers (B05, B09).
//!
//! Guards against a failure seen in production: a server hangs in its shutdown because the
//! last task ended between the check and the wait; or it stops and leaves callers waiting for ever.
#![cfg(grid_loom)]

use std::sync::Arc as StdArc;

use bytes::Bytes;
use grid::ConnectionState;
use grid::proto::connection::{CloseReason, End};
use grid::shared::HandlerTask;
use loom::thread;
use loom_tests::{
    ONE_CREDIT_EACH_WAY, Remote, Sleeper, Task, assert_quiescent, check, connected, deliver,
    disconnected, opened, peer, receive_all, request, send, wait,
};

#[test]
fn q9_b09_draining_ends_when_the_last_response_was_sent() {
    check("9 drain × response × task", || {
        let (remote, epoch) = connected();
        assert_eq!(deliver(&remote, epoch, vec![peer::request(1)]), Ok(1));
        let task = {
            let remote = remote.clone();
            thread::spawn(move || Task::new(&remote, epoch).run(peer::silent))
        };
        let handler = {
            let remote = remote.clone();
            thread::spawn(move || remote.respond(epoch, &[(1, Ok(Bytes::new()))]))
        };
        remote.drain();
        let sleeper = Sleeper::default();
        sleeper.until(|waker| remote.poll_idle(waker));
        assert_quiescent(&remote);
        assert_eq!(remote.stats().messages_out, 1, "the response was sent");
        handler.join().expect("no panic");
        remote.shutdown();
        assert_eq!(task.join().expect("no panic"), CloseReason::Shutdown);
        assert!(sleeper.is_deregistered());
    });
}

#[test]
fn q9_b09_draining_ends_when_the_connection_ends() {
    check("9 drain × call × disconnect", || {
        let (remote, epoch) = connected();
        let caller = {
            let remote = remote.clone();
            thread::spawn(move || request(&remote, b"payload"))
        };
        let disconnecter = {
            let remote = remote.clone();
            thread::spawn(move || remote.detach(epoch, CloseReason::Peer))
        };
        remote.drain();
        wait(|waker| remote.poll_idle(waker));
        let outcome = caller.join().expect("no panic");
        assert!(matches!(outcome, None | Some(Err(End::Disconnected))), "{outcome:?}");
        disconnecter.join().expect("no panic");
        assert_quiescent(&remote);
    });
}

#[test]
fn q9_b05_b09_shutdown_ends_calls_and_the_task_and_notifies_watchers() {
    check("9 shutdown × call × task × watcher", || {
        let (remote, epoch) = connected();
        let (_, version) = remote.connection_state();
        let caller = {
            let remote = remote.clone();
            thread::spawn(move || request(&remote, b"payload"))
        };
        let task = {
            let remote = remote.clone();
            thread::spawn(move || Task::new(&remote, epoch).run(peer::silent))
        };
        let watcher = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut key = None;
                wait(|waker| remote.poll_changed(version, &mut key, waker))
            })
        };
        remote.shutdown();
        let seen = watcher.join().expect("it sees a change");
        assert_eq!(seen.0, ConnectionState::Shutdown, "the end is seen as one change");
        let outcome = caller.join().expect("no panic");
        assert!(matches!(outcome, None | Some(Err(End::Disconnected))), "{outcome:?}");
        assert_eq!(task.join().expect("no panic"), CloseReason::Shutdown);
        assert!(remote.attach().is_err(), "shutdown is permanent");
        assert_quiescent(&remote);
    });
}

#[test]
fn q9_b05_b09_shutdown_ends_a_stream_and_all_its_waiters() {
    check("9 shutdown × stream × message", || {
        let (remote, epoch) = connected();
        let handle = StdArc::new(opened(&remote, epoch, ONE_CREDIT_EACH_WAY));
        let sender = {
            let handle = handle.clone();
            thread::spawn(move || send(&handle, b"one").and_then(|()| send(&handle, b"two")))
        };
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let one = peer::data(1, 1, Bytes::from_static(b"one"));
                deliver(&remote, epoch, vec![one]).is_ok()
            })
        };
        let reader = {
            let handle = handle.clone();
            thread::spawn(move || receive_all(&handle))
        };
        remote.shutdown();
        let is_delivered = task.join().expect("no panic");
        let (received, end) = reader.join().expect("no panic");
        assert_eq!((received.len(), end), (usize::from(is_delivered), Some(End::Disconnected)));
        assert_eq!(sender.join().expect("no panic"), Err(disconnected(&remote)));
        assert_quiescent(&remote);
    });
}

#[test]
fn q9_b05_b09_a_waiter_is_woken_when_the_last_handler_has_ended() {
    check("9 shutdown × handlers × waiter", || {
        let (remote, epoch) = connected();
        assert_eq!(deliver(&remote, epoch, vec![peer::request(1), peer::request(2)]), Ok(2));
        let handlers: Vec<_> = (1..=2)
            .map(|mux_id| {
                let remote = remote.clone();
                let task_guard = HandlerTask::new(&remote);
                thread::spawn(move || {
                    let mut key = None;
                    wait(|waker| remote.poll_cancelled(epoch, mux_id, &mut key, waker));
                    drop(task_guard);
                })
            })
            .collect();
        remote.shutdown();
        let sleeper = Sleeper::default();
        sleeper.until(|waker| remote.poll_no_handler_tasks(waker));
        assert_eq!(remote.stats().live_handler_tasks, 0);
        for handler in handlers {
            handler.join().expect("no panic");
        }
        assert!(sleeper.is_deregistered());
        assert_quiescent(&remote);
    });
}

#[test]
fn q9_b09_two_concurrent_shutdowns_are_both_woken_when_the_last_handler_has_ended() {
    check("9 shutdown × shutdown × handler", || {
        let (remote, epoch) = connected();
        assert_eq!(deliver(&remote, epoch, vec![peer::request(1)]), Ok(1));
        let task_guard = HandlerTask::new(&remote);
        let handler = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut key = None;
                wait(|waker| remote.poll_cancelled(epoch, 1, &mut key, waker));
                drop(task_guard);
            })
        };
        let shut_down = |remote: &Remote| {
            remote.shutdown();
            wait(|waker| remote.poll_no_handler_tasks(waker));
        };
        let other = {
            let remote = remote.clone();
            thread::spawn(move || shut_down(&remote))
        };
        shut_down(&remote);
        other.join().expect("it is woken");
        handler.join().expect("no panic");
        assert_quiescent(&remote);
    });
}
