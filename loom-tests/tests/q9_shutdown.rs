//! Shutdown × everything: calls, streams, handlers, whoever waits for the end, watchers (B05, B09).
//!
//! Guards against this failure of grids in the field: a server that should stop waits for a task that
//! is over, because the last one to go and whoever waits for it missed each other; or it stops and
//! leaves callers behind who wait for ever.
#![cfg(grid_loom)]

use std::sync::Arc as StdArc;

use bytes::Bytes;
use grid::ConnectionState;
use grid::proto::connection::{CloseReason, Outcome, StreamEnd};
use grid::shared::{HandlerTask, SendFailure};
use loom::thread;
use loom_tests::{
    ONE_EACH, Remote, Sleeper, Task, assert_quiescent, check, connected, deliver, opened, peer,
    receive_all, request, send, wait,
};

#[test]
fn q9_b09_whoever_drains_learns_that_the_last_answer_has_left() {
    check("9 drain × answer × task", || {
        let (remote, epoch) = connected();
        assert_eq!(deliver(&remote, epoch, vec![peer::request(1)]), Ok(1));
        let task = {
            let remote = remote.clone();
            thread::spawn(move || Task::new(&remote, epoch).run(peer::silent))
        };
        let handler = {
            let remote = remote.clone();
            thread::spawn(move || remote.answer(epoch, &[(1, Ok(Bytes::new()))]))
        };
        remote.drain();
        let sleeper = Sleeper::default();
        sleeper.until(|waker| remote.poll_idle(waker));
        assert_quiescent(&remote);
        assert_eq!(remote.stats().messages_out, 1, "the answer has left");
        handler.join().expect("it ends");
        remote.shutdown();
        assert_eq!(task.join().expect("it ends"), CloseReason::Shutdown);
        assert!(sleeper.is_forgotten());
    });
}

#[test]
fn q9_b09_whoever_drains_learns_that_the_connection_ended() {
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
        let outcome = caller.join().expect("it ends");
        assert!(matches!(outcome, None | Some(Outcome::Disconnected)), "{outcome:?}");
        disconnecter.join().expect("it ends");
        assert_quiescent(&remote);
    });
}

#[test]
fn q9_b05_b09_shutdown_ends_calls_and_the_task_and_watchers_see_it() {
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
        let outcome = caller.join().expect("it ends");
        assert!(matches!(outcome, None | Some(Outcome::Disconnected)), "{outcome:?}");
        assert_eq!(task.join().expect("it ends"), CloseReason::Shutdown);
        assert!(remote.attach().is_err(), "for good");
        assert_quiescent(&remote);
    });
}

#[test]
fn q9_b05_b09_shutdown_ends_a_stream_with_whatever_waits_for_it() {
    check("9 shutdown × stream × message", || {
        let (remote, epoch) = connected();
        let handle = StdArc::new(opened(&remote, epoch, ONE_EACH));
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
        let has_come = task.join().expect("it ends");
        let (received, end) = reader.join().expect("it ends");
        assert_eq!((received.len(), end), (usize::from(has_come), Some(StreamEnd::Disconnected)));
        let over = SendFailure::StreamOver(StreamEnd::Disconnected);
        assert_eq!(sender.join().expect("it ends"), Err(over));
        assert_quiescent(&remote);
    });
}

#[test]
fn q9_b05_b09_whoever_waits_for_the_handlers_learns_that_the_last_is_gone() {
    check("9 shutdown × handlers × whoever waits", || {
        let (remote, epoch) = connected();
        assert_eq!(deliver(&remote, epoch, vec![peer::request(1), peer::request(2)]), Ok(2));
        let handlers: Vec<_> = (1..=2)
            .map(|mux_id| {
                let remote = remote.clone();
                let counted = HandlerTask::counted(&remote);
                thread::spawn(move || {
                    let mut key = None;
                    wait(|waker| remote.poll_unwanted(epoch, mux_id, &mut key, waker));
                    drop(counted);
                })
            })
            .collect();
        remote.shutdown();
        let sleeper = Sleeper::default();
        sleeper.until(|waker| remote.poll_handlers_gone(waker));
        assert_eq!(remote.stats().live_handler_tasks, 0);
        for handler in handlers {
            handler.join().expect("it ends");
        }
        assert!(sleeper.is_forgotten());
        assert_quiescent(&remote);
    });
}

#[test]
fn q9_b09_two_who_shut_down_at_once_both_learn_that_the_last_handler_is_gone() {
    check("9 shutdown × shutdown × handler", || {
        let (remote, epoch) = connected();
        assert_eq!(deliver(&remote, epoch, vec![peer::request(1)]), Ok(1));
        let counted = HandlerTask::counted(&remote);
        let handler = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut key = None;
                wait(|waker| remote.poll_unwanted(epoch, 1, &mut key, waker));
                drop(counted);
            })
        };
        let shut_down = |remote: &Remote| {
            remote.shutdown();
            wait(|waker| remote.poll_handlers_gone(waker));
        };
        let other = {
            let remote = remote.clone();
            thread::spawn(move || shut_down(&remote))
        };
        shut_down(&remote);
        other.join().expect("it learns of it");
        handler.join().expect("it ends");
        assert_quiescent(&remote);
    });
}
