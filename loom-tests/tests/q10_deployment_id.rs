//! The deployment id: readers, writers, waiters and cancelled waiters race (B63).
//!
//! Guards against failures seen in production: a reader gets half of an id, or an empty one, while
//! it is set; two writers both succeed with different ids; a server's start hangs, because the id
//! was set just before its task slept.
#![cfg(grid_loom)]
#![allow(clippy::expect_used)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc as StdArc;
use std::task::{Context, Waker};

use loom::thread;
use loom_tests::cell::{AlreadySet, DeploymentCell};
use loom_tests::id::DeploymentId;
use loom_tests::{Sleeper, check};

/// An id whose halves are equal, so that a torn read shows.
fn id(half: u64) -> DeploymentId {
    DeploymentId::from_bits(u128::from(half) << 64 | u128::from(half)).expect("not nil")
}

fn cell() -> StdArc<DeploymentCell> {
    StdArc::new(DeploymentCell::new())
}

/// Waits as a task that awaits it does.
fn wait(cell: &DeploymentCell) -> DeploymentId {
    let mut wait = cell.wait();
    Sleeper::default().until(|waker| Pin::new(&mut wait).poll(&mut Context::from_waker(waker)))
}

#[test]
fn q10_b63_a_reader_sees_the_whole_id_or_that_it_is_not_known_yet() {
    check("10 set × two reads × read", || {
        let cell = cell();
        let writer = {
            let cell = cell.clone();
            thread::spawn(move || cell.set(id(7)))
        };
        let reader = {
            let cell = cell.clone();
            thread::spawn(move || [cell.get(), cell.get()])
        };
        assert!([None, Some(id(7))].contains(&cell.get()), "never half of an id");
        let [first, second] = reader.join().expect("no panic");
        assert!([None, Some(id(7))].contains(&second), "never half of an id");
        assert!(first.is_none() || first == second, "a set id stays set");
        assert_eq!(writer.join().expect("no panic"), Ok(()));
        assert_eq!(cell.get(), Some(id(7)));
    });
}

#[test]
fn q10_b63_the_second_of_two_writers_gets_the_id_of_the_first() {
    check("10 set × set × read", || {
        let cell = cell();
        let other = {
            let cell = cell.clone();
            thread::spawn(move || cell.set(id(1)))
        };
        let reader = {
            let cell = cell.clone();
            thread::spawn(move || cell.get())
        };
        let mine = cell.set(id(2));
        let theirs = other.join().expect("no panic");
        let known = cell.get().expect("it is set");
        let lost = Err(AlreadySet { ours: known });
        let expected = if known == id(2) { (Ok(()), lost) } else { (lost, Ok(())) };
        assert_eq!((mine, theirs), expected);
        let seen = reader.join().expect("no panic");
        assert!(seen.is_none_or(|seen| seen == known), "{seen:?}, and then {known:?}");
    });
}

#[test]
fn q10_b63_a_waiter_gets_the_id_whenever_it_is_set() {
    check("10 set × wait × wait", || {
        let cell = cell();
        let waiter = {
            let cell = cell.clone();
            thread::spawn(move || wait(&cell))
        };
        let writer = {
            let cell = cell.clone();
            thread::spawn(move || cell.set(id(7)))
        };
        assert_eq!(wait(&cell), id(7));
        assert_eq!(waiter.join().expect("it is woken"), id(7));
        assert_eq!(writer.join().expect("no panic"), Ok(()));
    });
}

#[test]
fn q10_b63_a_cancelled_waiter_removes_no_other_waiter() {
    check("10 set × wait × cancelled wait", || {
        let cell = cell();
        let waiter = {
            let cell = cell.clone();
            thread::spawn(move || wait(&cell))
        };
        let cancelled = {
            let cell = cell.clone();
            thread::spawn(move || {
                let mut wait = cell.wait();
                let _ = Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
            })
        };
        assert_eq!(cell.set(id(7)), Ok(()));
        assert_eq!(waiter.join().expect("it is woken"), id(7));
        cancelled.join().expect("no panic");
    });
}
