//! Echoes over loopback TCP through grid and through tonic: how many a second, and the ratio.
//!
//! The two are measured in one run and in turns (grid, tonic, grid, tonic, …), because the figures
//! of a shared machine compare with nothing but those of the same minute. Criterion would measure
//! one after the other, so this is a program of its own. The client and the server have a tokio
//! runtime of two workers each, in this one process; `node bench` measures two processes.
//!
//! Each answer is compared with its question; nothing is asserted about time. With `--test`, and
//! wherever `cargo bench` did not start it, there is one short round and no figures.
#![expect(clippy::expect_used, reason = "a figure of echoes that failed would mean nothing")]
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod grid_peer;
mod load;
mod table;
mod tonic_peer;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use self::grid_peer::GridPeer;
use self::load::{Peer, calls_per_second};
use self::table::Level;
use self::tonic_peer::TonicPeer;

/// Calls under way: alone, where each waits for the kernel to wake a thread four times; a usual
/// load; and more than any batch takes.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Odd, so that there is a median; and as many as fit into a minute.
const ROUNDS: usize = 7;

/// Of each peer at each level in each round. Long beside what starting and ending the callers
/// takes, short beside the moods of a shared machine.
const MEASURED: Duration = Duration::from_secs(1);

/// Before each of these. The tables, buffers and caches of the other peer have just been in use.
const WARM_UP: Duration = Duration::from_millis(250);

/// With `--test`. Each caller makes at least one call however short it is.
const SMOKE: Duration = Duration::from_millis(20);

/// Of the client's runtime, and of the server's. As in the figures of the project's design; most
/// of the work is one task's at each end.
const WORKERS: usize = 2;

fn main() {
    let server = runtime("server");
    let client = runtime("client");
    let grid = GridPeer::connect(&server, &client);
    let tonic = TonicPeer::connect(&server, &client);
    if is_smoke() {
        smoke(&client, &grid);
        smoke(&client, &tonic);
    } else {
        println!("{}", table::text(&measure(&client, &grid, &tonic)));
    }
    grid.shutdown(&client);
}

/// As criterion decides it: `cargo bench` says `--bench`, `cargo test` does not.
fn is_smoke() -> bool {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    has("--test") || !has("--bench")
}

fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name(name)
        .enable_all()
        .build()
        .expect("the system has threads")
}

fn smoke<P: Peer>(client: &Runtime, peer: &P) {
    for in_flight in IN_FLIGHT {
        client.block_on(calls_per_second(peer, in_flight, SMOKE));
        println!("Testing echo/{}/{in_flight}\nSuccess", P::NAME);
    }
}

fn measure(client: &Runtime, grid: &GridPeer, tonic: &TonicPeer) -> Vec<Level> {
    let mut levels: Vec<_> = IN_FLIGHT.map(Level::new).into();
    for round in 1..=ROUNDS {
        for level in &mut levels {
            level.grid.push(measure_one(client, grid, level.in_flight));
            level.tonic.push(measure_one(client, tonic, level.in_flight));
        }
        println!("round {round} of {ROUNDS}");
    }
    levels
}

fn measure_one(client: &Runtime, peer: &impl Peer, in_flight: usize) -> f64 {
    client.block_on(async {
        calls_per_second(peer, in_flight, WARM_UP).await;
        calls_per_second(peer, in_flight, MEASURED).await
    })
}
