//! The deployment's id × readers, writers, whoever waits for it and whoever gives up waiting (B63).
//!
//! Guards against these failures of servers in the field: a reader that gets half of an id, or an empty
//! one, while it is being set; two that set it and both believe that theirs is in force; and a start that
//! never goes on, because the id came while its task was about to wait for it.
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

/// Both halves tell which id they belong to.
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
        assert!([None, Some(id(7))].contains(&cell.get()), "never half of it");
        let [first, second] = reader.join().expect("it ends");
        assert!([None, Some(id(7))].contains(&second), "never half of it");
        assert!(first.is_none() || first == second, "what is known stays known");
        assert_eq!(writer.join().expect("it ends"), Ok(()));
        assert_eq!(cell.get(), Some(id(7)));
    });
}

#[test]
fn q10_b63_of_two_who_set_it_one_is_told_the_others_id() {
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
        let theirs = other.join().expect("it ends");
        let known = cell.get().expect("it is set");
        let lost = Err(AlreadySet { ours: known });
        let expected = if known == id(2) { (Ok(()), lost) } else { (lost, Ok(())) };
        assert_eq!((mine, theirs), expected);
        let seen = reader.join().expect("it ends");
        assert!(seen.is_none_or(|seen| seen == known), "{seen:?}, and then {known:?}");
    });
}

#[test]
fn q10_b63_whoever_waits_learns_the_id_whenever_it_comes() {
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
        assert_eq!(writer.join().expect("it ends"), Ok(()));
    });
}

#[test]
fn q10_b63_whoever_gives_up_takes_nobody_elses_place() {
    check("10 set × wait × wait that is given up", || {
        let cell = cell();
        let waiter = {
            let cell = cell.clone();
            thread::spawn(move || wait(&cell))
        };
        let giver_up = {
            let cell = cell.clone();
            thread::spawn(move || {
                let mut wait = cell.wait();
                let _ = Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
            })
        };
        assert_eq!(cell.set(id(7)), Ok(()));
        assert_eq!(waiter.join().expect("it is woken"), id(7));
        giver_up.join().expect("it ends");
    });
}
