//! Lost wake-ups: a credit that returns while the sender goes to sleep; likewise a message and the
//! receiver, and a queued message and the connection task (B06, B21).
//!
//! Guards against a failure seen in production: a task checks its condition, finds it false,
//! and goes to sleep; the condition becomes true in between. The task sleeps until an unrelated
//! event wakes it, or for ever.
#![cfg(grid_loom)]

use std::sync::Arc as StdArc;

use bytes::Bytes;
use grid::proto::connection::Capacities;
use grid::proto::message::{Flags, Message, Op};
use grid::shared::Shared;
use loom::thread;
use loom_tests::{
    ONE_CREDIT_EACH_WAY, Task, check, connected, deliver, new_stream, opened, peer, receive_all,
    request, send, wait,
};

#[test]
fn q8_b21_a_sender_that_goes_to_sleep_is_woken_by_the_credit() {
    check("8 credit × sender", || {
        let (remote, epoch) = connected();
        let handle = opened(&remote, epoch, ONE_CREDIT_EACH_WAY);
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let mut sequence = 0;
                let crediting = |written: &Message| {
                    sequence += 1;
                    assert_eq!(written.header.op, Op::MuxClientMsg);
                    vec![peer::credit(1, sequence)]
                };
                let both = |written: &[Message]| written.len() == 2;
                Task::new(&remote, epoch).run_until(crediting, both).expect("open");
            })
        };
        assert_eq!(send(&handle, b"one"), Ok(()));
        assert_eq!(send(&handle, b"two"), Ok(()));
        task.join().expect("the task has received both messages");
    });
}

#[test]
fn q8_b20_a_sender_that_goes_to_sleep_is_woken_by_the_acknowledgement() {
    check("8 acknowledgement × sender", || {
        let (remote, epoch) = connected();
        let handle = Shared::open(&remote, new_stream(ONE_CREDIT_EACH_WAY)).expect("connected");
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let acknowledging = |written: &Message| match written.header.op {
                    Op::ConnectMux => vec![peer::ack(1)],
                    _ => vec![],
                };
                let both = |written: &[Message]| written.len() == 2;
                let mut task = Task::new(&remote, epoch);
                task.run_until(acknowledging, both).expect("open");
                assert_eq!(task.written[1].header.op, Op::MuxClientMsg);
            })
        };
        assert_eq!(send(&handle, b"one"), Ok(()));
        task.join().expect("the task has received both messages");
    });
}

#[test]
fn q8_b21_a_reader_that_goes_to_sleep_is_woken_by_the_message_and_its_credit_is_sent() {
    check("8 message × reader", || {
        let (remote, epoch) = connected();
        let handle = opened(&remote, epoch, Capacities { input: 0, output: 1 });
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let one = peer::data(1, 1, Bytes::from_static(b"one"));
                deliver(&remote, epoch, vec![one]).expect("open");
                // The second message is not allowed before the credit of the first returned.
                let next = |written: &Message| match written.header.op {
                    Op::UnblockSrvMux => {
                        let two = peer::data(1, 2, Bytes::from_static(b"two"));
                        vec![two, peer::end(1, 3)]
                    }
                    _ => vec![],
                };
                let credit = |written: &[Message]| written.len() == 1;
                Task::new(&remote, epoch).run_until(next, credit).expect("open");
            })
        };
        assert_eq!(receive_all(&handle), (vec!["one".into(), "two".into()], None));
        task.join().expect("no panic");
    });
}

#[test]
fn q8_b21_both_halves_of_a_stream_sleep_and_wake_independently() {
    check("8 message and credit × both halves", || {
        let (remote, epoch) = connected();
        let handle = StdArc::new(opened(&remote, epoch, ONE_CREDIT_EACH_WAY));
        assert_eq!(send(&handle, b"one"), Ok(())); // takes the only credit
        let sender = {
            let handle = handle.clone();
            thread::spawn(move || send(&handle, b"two"))
        };
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let data = peer::data(1, 2, Bytes::from_static(b"one"));
                deliver(&remote, epoch, vec![peer::credit(1, 1)]).expect("open");
                deliver(&remote, epoch, vec![data]).expect("open");
            })
        };
        let received = wait(|waker| handle.poll_receive(waker));
        assert_eq!(received, Some(Ok(Bytes::from_static(b"one"))));
        assert_eq!(sender.join().expect("no panic"), Ok(()));
        task.join().expect("no panic");
    });
}

#[test]
fn q8_b06_a_connection_task_that_goes_to_sleep_is_woken_by_a_queued_message() {
    check("8 requests × task", || {
        let (remote, epoch) = connected();
        let task = {
            let remote = remote.clone();
            thread::spawn(move || {
                let both = |written: &[Message]| {
                    written.iter().filter(|m| m.header.flags.contains(Flags::EOF)).count() == 2
                };
                Task::new(&remote, epoch).run_until(peer::responding, both).expect("open");
            })
        };
        let other = {
            let remote = remote.clone();
            thread::spawn(move || request(&remote, b"two"))
        };
        let response = Some(Ok(Bytes::from_static(b"response")));
        assert_eq!(request(&remote, b"one"), response);
        assert_eq!(other.join().expect("no panic"), response);
        task.join().expect("the task has received both messages");
    });
}
