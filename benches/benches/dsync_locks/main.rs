//! Locks between four servers over loopback TCP: what one costs alone, and who waits how long where 64
//! want the same.
//!
//! Being told is measured against asking now and then in one run and in turns, because the figures of
//! a shared machine compare with nothing but those of the same minute. The servers share one process
//! and one tokio runtime, with a socket between any two; each is a locker.
//!
//! Nothing is asserted about time. With `--test`, and wherever `cargo bench` did not start it, there is
//! one short round and no figures.
#![expect(clippy::expect_used, reason = "a figure of locks that failed would mean nothing")]
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod servers;
mod table;

use std::time::{Duration, Instant};

use dsync::{DRWMutex, LockOptions, Waiting};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use self::servers::Servers;
use self::table::{Contended, Figures};

/// Who want the same lock: sixteen on each server.
const CONTENDERS: usize = 64;

/// How often each takes it. All take it as often, so that nobody's long wait is missing in the figures.
const LOCKS_EACH: usize = 10;

/// Odd, so that there is a median.
const ROUNDS: usize = 5;

/// Locks of which nobody else wants one, and how many come before them.
const ALONE: usize = 4_000;
const WARM_UP: usize = 400;

/// Of the runtime.
const WORKERS: usize = 2;

fn main() {
    let runtime: Runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .expect("the system has threads");
    runtime.block_on(async {
        let told = Servers::start(Waiting::Told).await;
        let polling = Servers::start(Waiting::Polling).await;
        if is_smoke() {
            smoke(&told, &polling).await;
        } else {
            measure(&told, &polling).await;
        }
    });
}

/// As criterion decides it: `cargo bench` says `--bench`, `cargo test` does not.
fn is_smoke() -> bool {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    has("--test") || !has("--bench")
}

async fn smoke(told: &Servers, polling: &Servers) {
    alone(told, 10).await;
    println!("Testing dsync_locks/alone\nSuccess");
    for (name, servers) in [("told", told), ("polling", polling)] {
        contended(servers, 4, 1).await;
        println!("Testing dsync_locks/contended/{name}\nSuccess");
    }
}

async fn measure(told: &Servers, polling: &Servers) {
    alone(told, WARM_UP).await;
    println!("{}", table::alone(&alone(told, ALONE).await));
    let mut rounds = Contended::default();
    for round in 1..=ROUNDS {
        rounds.told.push(contended(told, CONTENDERS, LOCKS_EACH).await);
        rounds.polling.push(contended(polling, CONTENDERS, LOCKS_EACH).await);
        println!("round {round} of {ROUNDS}: {}", rounds.last());
    }
    println!("{}", table::contended(&rounds));
}

/// One lock after the other, each of another resource, as a request of a user takes it: from asking
/// until it can be had again.
async fn alone(servers: &Servers, count: usize) -> Figures {
    let begun = Instant::now();
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let mutex = DRWMutex::new(&servers.dsyncs[0], [format!("bucket/object-{number}")]);
        let asked = Instant::now();
        let guard = mutex.lock(LockOptions::default()).await.expect("it is free");
        guard.unlock().await;
        times.push(asked.elapsed());
    }
    Figures::new(times, begun.elapsed())
}

/// All want one lock, hold it for no time, and want it again.
async fn contended(servers: &Servers, contenders: usize, locks_each: usize) -> Figures {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for contender in 0..contenders {
        let dsync = &servers.dsyncs[contender % servers.dsyncs.len()];
        tasks.spawn(wait_in_turn(DRWMutex::new(dsync, ["contended"]), locks_each));
    }
    let times = tasks.join_all().await.concat();
    Figures::new(times, begun.elapsed())
}

async fn wait_in_turn(mutex: DRWMutex, locks: usize) -> Vec<Duration> {
    let mut waits = Vec::with_capacity(locks);
    for _ in 0..locks {
        let asked = Instant::now();
        let guard = mutex.lock(LockOptions::default().forever()).await.expect("its turn comes");
        waits.push(asked.elapsed());
        drop(guard);
    }
    waits
}
