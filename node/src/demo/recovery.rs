//! How long a killed server's connections take to come back, seen from both ends.

use std::sync::Arc;
use std::time::Instant;

use grid::{Connection, StateWatch};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::ledger::{Ledger, Pair};

/// Watches the pairs of the killed server, each in a task of its own.
pub(super) struct Recovery {
    killed: usize,
    /// From the survivors to the killed one: each ends when it is connected again.
    survivors: JoinSet<(Arc<Pair>, Instant)>,
    /// From the restarted one to the survivors.
    returned: JoinSet<(Arc<Pair>, Instant)>,
    restarted_at: Option<Instant>,
}

impl Recovery {
    /// To be called before the kill, so that the loss of each connection is seen.
    pub(super) fn watch(killed: usize, cluster: &Cluster, ledger: &Ledger) -> Self {
        let mut survivors = JoinSet::new();
        for pair in ledger.pairs().iter().filter(|pair| pair.to == killed) {
            if let Some(connection) = cluster.connection(pair.from, killed) {
                // From here on, not from when the task begins to run.
                let watch = connection.watch();
                survivors.spawn(lost_and_found(Arc::clone(pair), connection, watch));
            }
        }
        Self { killed, survivors, returned: JoinSet::new(), restarted_at: None }
    }

    /// The killed server listens again.
    pub(super) fn restarted(&mut self, cluster: &Cluster, ledger: &Ledger) {
        self.restarted_at = Some(Instant::now());
        for pair in ledger.pairs().iter().filter(|pair| pair.from == self.killed) {
            if let Some(connection) = cluster.connection(self.killed, pair.to) {
                self.returned.spawn(found(Arc::clone(pair), connection));
            }
        }
    }

    /// Writes down who was seen to come back.
    pub(super) fn write_down(&mut self) {
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

async fn lost_and_found(
    pair: Arc<Pair>,
    connection: Connection,
    mut watch: StateWatch,
) -> (Arc<Pair>, Instant) {
    // It was connected, so the first change is its loss, even if it is already back.
    watch.changed().await;
    found(pair, connection).await
}

async fn found(pair: Arc<Pair>, connection: Connection) -> (Arc<Pair>, Instant) {
    // An error means that it never will be; then nobody reads the time either.
    let _ = connection.wait_connected().await;
    (pair, Instant::now())
}
