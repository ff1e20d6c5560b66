//! Locks between four processes over loopback TCP: what one costs alone, and who waits how long where
//! 64 want the same.
//!
//! Being told is measured against asking now and then in one run and in turns, because the figures of
//! a shared machine compare with nothing but those of the same minute. There are four processes for
//! each of the two, every one a locker with a tokio runtime of its own; those whose turn it is not do
//! nothing but answer pings. They are this program once more, and end with it, however it ends.
//!
//! Nothing is asserted about time. With `--test`, and wherever `cargo bench` did not start it, there is
//! one short round and no figures.
#![expect(clippy::expect_used, reason = "a figure of locks that failed would mean nothing")]
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod cluster;
mod order;
mod server;
mod table;

use self::cluster::{Cluster, PROCESSES, SERVER_FLAG};
use self::order::{Mode, Order};
use self::table::{Figures, Rounds};

/// Who want the same lock: sixteen in each process.
const CONTENDERS: usize = 64;

/// How often each takes it. All take it as often, so that nobody's long wait is missing in the figures.
const LOCKS_EACH: usize = 10;

/// Odd, so that there is a median.
const ROUNDS: usize = 5;

/// Locks of which nobody else wants one, and how many come before them.
const ALONE: usize = 4_000;
const WARM_UP: usize = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, mode] = &arguments[..]
        && flag == SERVER_FLAG
    {
        return server::run(Mode::parse(mode));
    }
    let told = Cluster::start(Mode::Told);
    let polling = Cluster::start(Mode::Polling);
    // As criterion decides it: `cargo bench` says `--bench`, `cargo test` does not.
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--test") || !has("--bench") {
        smoke(told, polling);
    } else {
        measure(told, polling);
    }
}

fn smoke(mut told: Cluster, mut polling: Cluster) {
    alone(&mut told, 10);
    println!("Testing dsync_locks/alone\nSuccess");
    for (name, cluster) in [("told", &mut told), ("polling", &mut polling)] {
        contended(cluster, 4, 1);
        println!("Testing dsync_locks/contended/{name}\nSuccess");
    }
}

fn measure(mut told: Cluster, mut polling: Cluster) {
    let mut rounds = Rounds::default();
    for round in 1..=ROUNDS {
        alone(&mut told, WARM_UP);
        rounds.alone.push(alone(&mut told, ALONE));
        rounds.told.push(contended(&mut told, CONTENDERS, LOCKS_EACH));
        rounds.polling.push(contended(&mut polling, CONTENDERS, LOCKS_EACH));
        println!("round {round} of {ROUNDS}");
    }
    println!("{}", table::text(&rounds));
}

/// Of what nobody else wants.
fn alone(cluster: &mut Cluster, locks: usize) -> Figures {
    cluster.one(Order::Alone { locks })
}

/// As many in each process.
fn contended(cluster: &mut Cluster, contenders: usize, locks_each: usize) -> Figures {
    cluster.all(Order::Contended { tasks: contenders / PROCESSES, locks_each })
}
