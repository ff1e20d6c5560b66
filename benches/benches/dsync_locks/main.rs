//! Locks between four processes over loopback TCP: the cost of an uncontended lock, and the waiting
//! times of 64 contenders for one lock.
//!
//! Notified and polling waiters are measured alternately in one run, because measurements on a
//! shared machine are comparable only within the same minute. There are four processes for each
//! wait mode, every one a locker with a tokio runtime of its own; while the other mode is measured
//! they only exchange pings. They run this program too, and exit when it does.
//!
//! No duration is asserted. With `--test`, and unless `cargo bench` started the program, one short
//! round runs and no figures are printed.
#![expect(clippy::expect_used, reason = "failed locks would invalidate the figures")]
#![expect(clippy::print_stdout, reason = "the output is a table")]

mod cluster;
mod command;
mod server;
mod table;

use self::cluster::{Cluster, PROCESSES, SERVER_FLAG};
use self::command::{Mode, ServerCommand};
use self::table::{Measurement, Rounds};

/// Tasks that contend for one lock: sixteen in each process.
const CONTENDERS: usize = 64;

/// Acquisitions per contender: the same for all, so that no long wait is left out.
const LOCKS_EACH: usize = 10;

/// Number of rounds: odd, so that there is a median.
const ROUNDS: usize = 5;

/// Uncontended locks per round.
const UNCONTENDED: usize = 4_000;
/// Uncontended locks before the measured ones.
const WARM_UP: usize = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, mode] = &arguments[..]
        && flag == SERVER_FLAG
    {
        return server::run(Mode::parse(mode));
    }
    let notified = Cluster::start(Mode::Notified);
    let polling = Cluster::start(Mode::Polling);
    // As criterion does: `cargo bench` passes `--bench`, `cargo test` does not.
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--test") || !has("--bench") {
        smoke(notified, polling);
    } else {
        measure(notified, polling);
    }
}

fn smoke(mut notified: Cluster, mut polling: Cluster) {
    uncontended(&mut notified, 10);
    println!("Testing dsync_locks/uncontended\nSuccess");
    for (name, cluster) in [("notified", &mut notified), ("polling", &mut polling)] {
        contended(cluster, 4, 1);
        println!("Testing dsync_locks/contended/{name}\nSuccess");
    }
}

fn measure(mut notified: Cluster, mut polling: Cluster) {
    let mut rounds = Rounds::default();
    for round in 1..=ROUNDS {
        uncontended(&mut notified, WARM_UP);
        rounds.uncontended.push(uncontended(&mut notified, UNCONTENDED));
        rounds.notified.push(contended(&mut notified, CONTENDERS, LOCKS_EACH));
        rounds.polling.push(contended(&mut polling, CONTENDERS, LOCKS_EACH));
        println!("round {round} of {ROUNDS}");
    }
    println!("{}", table::text(&rounds));
}

/// Measures uncontended locks in one process.
fn uncontended(cluster: &mut Cluster, locks: usize) -> Measurement {
    cluster.run_in_one(ServerCommand::Uncontended { locks })
}

/// Measures one contended lock, with the same number of contenders in each process.
fn contended(cluster: &mut Cluster, contenders: usize, locks_each: usize) -> Measurement {
    cluster.run_in_all(ServerCommand::Contended { tasks: contenders / PROCESSES, locks_each })
}
