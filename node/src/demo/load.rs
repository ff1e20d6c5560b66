//! The load of the demo: starts and stops the workers of `calls`, `streams` and `locks`, on every
//! server and toward every other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use super::calls::{CALL_TIMEOUT, CallWorker};
use super::cluster::Cluster;
use super::counters::Counters;
use super::locks::LockWorker;
use super::streams::StreamWorker;

/// Concurrent calls from one server to another.
const WORKERS_PER_PAIR: u32 = 8;

/// Calls per second of all servers together. Enough to keep every connection busy, and few enough
/// that a laptop stays usable.
const CALLS_PER_SECOND: u32 = 30_000;

/// Shortest time between two calls of a worker: the resolution of timers.
const PERIOD_MIN: Duration = Duration::from_millis(1);

/// All workers.
pub(super) struct Load {
    is_stopping: Arc<AtomicBool>,
    /// Number of ordered pairs of servers.
    pairs: u32,
    period: Duration,
    /// Random bytes; payloads are slices of them.
    random_bytes: Bytes,
    tasks: Vec<JoinHandle<()>>,
}

/// The result of stopping the load.
pub(super) struct StoppedLoad {
    /// Workers that did not end in time, because a call hangs.
    pub(super) hanging: usize,
    pub(super) panicked: usize,
}

impl Load {
    pub(super) fn new(nodes: usize) -> Self {
        let mut random_bytes = vec![0; 64 * 1_024];
        SmallRng::seed_from_u64(0).fill_bytes(&mut random_bytes);
        let pairs = u32::try_from(nodes * (nodes - 1)).unwrap_or(u32::MAX);
        let workers = pairs.saturating_mul(WORKERS_PER_PAIR);
        Self {
            is_stopping: Arc::default(),
            pairs,
            period: (Duration::from_secs(1) * workers / CALLS_PER_SECOND).max(PERIOD_MIN),
            random_bytes: random_bytes.into(),
            tasks: Vec::new(),
        }
    }

    /// Starts the workers of one server. They run until the load is stopped or the server is
    /// killed.
    pub(super) fn start_from(&mut self, from: usize, cluster: &Cluster, counters: &Counters) {
        let Some(runtime) = cluster.runtime(from) else { return };
        for pair in counters.pairs().iter().filter(|pair| pair.from == from) {
            let Some(connection) = cluster.connection(from, pair.to) else { continue };
            for number in 0..WORKERS_PER_PAIR {
                let seed = (pair.from << 16 | pair.to << 8) as u64 | u64::from(number);
                let worker = CallWorker {
                    connection: connection.clone(),
                    pair: Arc::clone(pair),
                    rng: SmallRng::seed_from_u64(seed),
                    random_bytes: self.random_bytes.clone(),
                    period: self.period,
                    is_stopping: Arc::clone(&self.is_stopping),
                };
                self.tasks.push(runtime.spawn(worker.work()));
            }
            let Self { pairs, random_bytes, is_stopping, .. } = self;
            for worker in
                StreamWorker::of_pair(*pairs, pair, &connection, random_bytes, is_stopping)
            {
                self.tasks.push(runtime.spawn(worker.work()));
            }
        }
        if let Some(dsync) = cluster.dsync(from) {
            for worker in LockWorker::of_node(from, dsync, &counters.locks, &self.is_stopping) {
                self.tasks.push(runtime.spawn(worker.work()));
            }
        }
    }

    /// Starts no more calls and streams, and waits for the outstanding ones.
    pub(super) async fn stop(&mut self) -> StoppedLoad {
        self.is_stopping.store(true, Ordering::Relaxed);
        let mut stopped = StoppedLoad { hanging: 0, panicked: 0 };
        // Each call has a deadline, so a worker that needs twice as long hangs. Streams only have
        // to finish.
        let hang_timeout = tokio::time::sleep(2 * CALL_TIMEOUT);
        tokio::pin!(hang_timeout);
        for mut task in std::mem::take(&mut self.tasks) {
            tokio::select! {
                biased;
                ended = &mut task => match ended {
                    Err(error) if error.is_panic() => stopped.panicked += 1,
                    Ok(()) | Err(_) => {}
                },
                () = &mut hang_timeout => stopped.hanging += 1,
            }
        }
        stopped
    }
}
