//! Echo over loopback TCP through grid and through tonic: calls per second, and the ratio.
//!
//! The two are measured alternately in one run (grid, tonic, grid, tonic, …), because measurements
//! on a shared machine are comparable only within the same minute. Criterion would measure one
//! after the other, so this is a separate program. The client and the server have a tokio runtime
//! of two workers each, in this one process; `gridwire bench` measures two processes.
//!
//! Each response is compared with its request; no duration is asserted. With `--test`, and unless
//! `cargo bench` started the program, one short round runs and no figures are printed.
#![expect(clippy::expect_used, reason = "failed calls would invalidate the figures")]
#![expect(clippy::print_stdout, reason = "the output is a table")]

mod grid_client;
mod load;
mod table;
mod tonic_client;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use self::grid_client::GridClient;
use self::load::{EchoClient, calls_per_second};
use self::table::Level;
use self::tonic_client::TonicClient;

/// Calls in flight: a single one, where each waits for the kernel to wake a thread four times; a
/// usual load; and more than fits into any batch.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Number of rounds: odd, so that there is a median; and as many as fit into a minute.
const ROUNDS: usize = 7;

/// Measured time per library, level and round. Long compared to starting and stopping the callers,
/// short compared to load changes on a shared machine.
const MEASURED: Duration = Duration::from_secs(1);

/// Warm-up before each measurement: the other library has just used the caches.
const WARM_UP: Duration = Duration::from_millis(250);

/// Measured time with `--test`. Each caller makes at least one call in any case.
const SMOKE: Duration = Duration::from_millis(20);

/// Worker threads of each runtime. Most of the work is done by one task at each end.
const WORKERS: usize = 2;

fn main() {
    let server = runtime("server");
    let client = runtime("client");
    let grid = GridClient::connect(&server, &client);
    let tonic = TonicClient::connect(&server, &client);
    if is_smoke() {
        smoke(&client, &grid);
        smoke(&client, &tonic);
    } else {
        println!("{}", table::text(&measure(&client, &grid, &tonic)));
    }
    grid.shutdown(&client);
}

/// Returns whether to run a smoke test. As criterion does: `cargo bench` passes `--bench`,
/// `cargo test` does not.
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
        .expect("the runtime builds")
}

fn smoke<C: EchoClient>(runtime: &Runtime, client: &C) {
    for in_flight in IN_FLIGHT {
        runtime.block_on(calls_per_second(client, in_flight, SMOKE));
        println!("Testing echo/{}/{in_flight}\nSuccess", C::NAME);
    }
}

fn measure(runtime: &Runtime, grid: &GridClient, tonic: &TonicClient) -> Vec<Level> {
    let mut levels: Vec<_> = IN_FLIGHT.map(Level::new).into();
    for round in 1..=ROUNDS {
        for level in &mut levels {
            level.grid.push(measure_one(runtime, grid, level.in_flight));
            level.tonic.push(measure_one(runtime, tonic, level.in_flight));
        }
        println!("round {round} of {ROUNDS}");
    }
    levels
}

fn measure_one(runtime: &Runtime, client: &impl EchoClient, in_flight: usize) -> f64 {
    runtime.block_on(async {
        calls_per_second(client, in_flight, WARM_UP).await;
        calls_per_second(client, in_flight, MEASURED).await
    })
}
