//! Measures how long a killed server's connections take to come back, at both ends.

use std::sync::Arc;
use std::time::Instant;

use grid::{Connection, StateWatch};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::counters::{Counters, Pair};

/// Watches the pairs of the killed server, each in its own task.
pub(super) struct Recovery {
    killed: usize,
    /// From the other servers to the killed one; each task ends when reconnected.
    survivors: JoinSet<(Arc<Pair>, Instant)>,
    /// From the restarted server to the others.
    returned: JoinSet<(Arc<Pair>, Instant)>,
    restarted_at: Option<Instant>,
}

impl Recovery {
    /// Must be called before the kill, so that each task sees the loss of its connection.
    pub(super) fn watch(killed: usize, cluster: &Cluster, counters: &Counters) -> Self {
        let mut survivors = JoinSet::new();
        for pair in counters.pairs().iter().filter(|pair| pair.to == killed) {
            if let Some(connection) = cluster.connection(pair.from, killed) {
                // Created here, not when the task first runs, so that it cannot miss the loss.
                let watch = connection.watch();
                survivors.spawn(wait_reconnected(Arc::clone(pair), connection, watch));
            }
        }
        Self { killed, survivors, returned: JoinSet::new(), restarted_at: None }
    }

    /// Starts to watch the restarted server's own ends.
    pub(super) fn restarted(&mut self, cluster: &Cluster, counters: &Counters) {
        self.restarted_at = Some(Instant::now());
        for pair in counters.pairs().iter().filter(|pair| pair.from == self.killed) {
            if let Some(connection) = cluster.connection(self.killed, pair.to) {
                self.returned.spawn(wait_connected(Arc::clone(pair), connection));
            }
        }
    }

    /// Records the times of all ends that are connected again.
    pub(super) fn record(&mut self) {
        let Some(restarted_at) = self.restarted_at else { return };
        for tasks in [&mut self.survivors, &mut self.returned] {
            while let Some(ended) = tasks.try_join_next() {
                if let Ok((pair, at)) = ended {
                    pair.recovered(at.saturating_duration_since(restarted_at));
                }
            }
        }
    }
}

async fn wait_reconnected(
    pair: Arc<Pair>,
    connection: Connection,
    mut watch: StateWatch,
) -> (Arc<Pair>, Instant) {
    // It was connected, so the first change is the loss, even if it is already connected again.
    watch.changed().await;
    wait_connected(pair, connection).await
}

async fn wait_connected(pair: Arc<Pair>, connection: Connection) -> (Arc<Pair>, Instant) {
    // Fails only at shutdown, and then the time is not used.
    let _ = connection.wait_connected().await;
    (pair, Instant::now())
}
