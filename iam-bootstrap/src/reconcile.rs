//! Finds changes that this server missed and applies them: at startup, when a peer reconnects, and
//! periodically ([B62]).
//!
//! One task for each peer, so at most one reconciliation with a peer is in flight, however often it
//! reconnects. Each side pulls what is newer at the other; no side pushes.
//!
//! [B62]: crate::rules#b62

use std::sync::Arc;
use std::time::Duration;

use grid::backoff::jittered;
use grid::env::Env;
use grid::{CallOptions, Connection, ConnectionState, TypedCallError};
use rand::rngs::SmallRng;
use serde_bytes::ByteBuf;
use tokio::sync::Notify;

use crate::limits::{
    CATCH_UP_TIMEOUT, RECONCILE_SPACING, RECONCILE_TIMEOUT, RECORDS_PER_RESPONSE, RETRY_MAX,
};
use crate::peers::Peers;
use crate::record::Version;
use crate::record_sealer::RecordSealer;
use crate::replica::Digest;
use crate::state::IamState;
use crate::store::ItemPath;
use crate::tasks::Tasks;
use crate::time::unix_micros;
use crate::wire::{self, DigestArgs, RecordsArgs, RecordsResponse, VersionsArgs, VersionsResponse};
use crate::writer::WriterHandle;

/// Error of one reconciliation with a peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error(transparent)]
    Call(#[from] TypedCallError),
    #[error("not admitted: {0}")]
    NotAdmitted(String),
    #[error("the peer has not loaded IAM yet")]
    NotLoaded,
    #[error("malformed response: {0}")]
    Malformed(String),
    #[error("not applied: {0}")]
    NotApplied(String),
}

/// Pulls missed changes from the peers.
pub(crate) struct Reconciler {
    pub(crate) state: Arc<IamState>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) sealer: Arc<RecordSealer>,
    pub(crate) writer: WriterHandle,
    pub(crate) env: Env,
    pub(crate) refresh_interval: Duration,
    /// Wakes the reconcile tasks after a change could not be applied.
    pub(crate) reconcile_now: Arc<Notify>,
}

impl Reconciler {
    /// Reconciles once with all connected peers, before this server reports that it is ready:
    /// items that were deleted while it was down must not be used.
    pub(crate) async fn catch_up(&self) {
        let peers = self.peers.connections().into_iter().map(|peer| async move {
            if peer.state() != ConnectionState::Connected {
                return;
            }
            if let Err(error) = self.reconcile_once(&peer).await {
                tracing::debug!(
                    target: "iam", peer = %peer.remote(), %error,
                    "catch-up with a peer failed"
                );
            }
        });
        let all = futures_util::future::join_all(peers);
        if tokio::time::timeout(CATCH_UP_TIMEOUT, all).await.is_err() {
            tracing::warn!(
                target: "iam", timeout = ?CATCH_UP_TIMEOUT,
                "catch-up timed out: ready without the changes of some peers"
            );
        }
    }

    /// Starts the reconcile task of each peer.
    pub(crate) fn start(self: &Arc<Self>, tasks: &Tasks) {
        for peer in self.peers.connections() {
            let rng = self.env.fork();
            tasks.spawn(Arc::clone(self).reconcile_task(peer, rng));
        }
    }

    async fn reconcile_task(self: Arc<Self>, peer: Connection, mut rng: SmallRng) {
        let mut states = peer.watch();
        loop {
            if peer.wait_connected().await.is_err() {
                return; // The manager was shut down.
            }
            // Registered before the reconciliation: a change that is missed while it runs may not
            // be part of it.
            let reconcile_now = self.reconcile_now.notified();
            tokio::pin!(reconcile_now);
            reconcile_now.as_mut().enable();
            let wait = match self.reconcile_once(&peer).await {
                Ok(applied) => {
                    if applied > 0 {
                        tracing::debug!(
                            target: "iam", peer = %peer.remote(), applied,
                            "missed changes applied"
                        );
                    }
                    self.refresh_interval
                }
                Err(error) => {
                    tracing::debug!(
                        target: "iam", peer = %peer.remote(), %error,
                        "reconcile failed"
                    );
                    RETRY_MAX
                }
            };
            // Servers that were started together drift apart.
            let wait = jittered(wait, &mut rng);
            let spacing = tokio::time::sleep(RECONCILE_SPACING);
            tokio::select! {
                biased;
                _ = reconnected(&mut states) => {}
                () = reconcile_now => {}
                () = tokio::time::sleep(wait) => {}
            }
            spacing.await;
        }
    }

    /// Pulls from a peer what is newer there. Returns the number of records applied.
    async fn reconcile_once(&self, peer: &Connection) -> Result<usize, ReconcileError> {
        self.peers.admit(peer.remote()).map_err(ReconcileError::NotAdmitted)?;
        let options = || CallOptions::default().timeout(RECONCILE_TIMEOUT);
        let response = wire::DIGEST.call_with(peer, &DigestArgs {}, options()).await?;
        if !response.is_loaded {
            return Err(ReconcileError::NotLoaded);
        }
        let theirs = Digest::from_bytes(&response.digest).ok_or_else(|| {
            ReconcileError::Malformed(format!("a digest of {} bytes", response.digest.len()))
        })?;
        let buckets = self
            .state
            .with_replica(|replica| replica.digest().differing(&theirs))
            .unwrap_or_default();
        if buckets.is_empty() {
            return Ok(0);
        }
        let mut applied = 0;
        let mut args = VersionsArgs { buckets: ByteBuf::from(buckets), after: String::new() };
        loop {
            let VersionsResponse { versions, next } =
                wire::VERSIONS.call_with(peer, &args, options()).await?;
            let wall = unix_micros(self.env.wall());
            let versions = parse(versions)?;
            let newer = self
                .state
                .with_replica(|replica| replica.newer_in(&versions, wall))
                .unwrap_or_default();
            applied += self.fetch_records(peer, &newer).await?;
            if next.is_empty() {
                return Ok(applied);
            }
            if next <= args.after {
                return Err(ReconcileError::Malformed(format!(
                    "next path {next} is not after {}",
                    args.after
                )));
            }
            args.after = next;
        }
    }

    async fn fetch_records(
        &self,
        peer: &Connection,
        mut newer: &[ItemPath],
    ) -> Result<usize, ReconcileError> {
        let mut applied = 0;
        while !newer.is_empty() {
            let part = newer.get(..RECORDS_PER_RESPONSE).unwrap_or(newer);
            let paths = part.iter().map(|path| path.as_str().to_owned()).collect();
            let options = CallOptions::default().timeout(RECONCILE_TIMEOUT);
            let RecordsResponse { records, examined } =
                wire::RECORDS.call_with(peer, &RecordsArgs { paths }, options).await?;
            let examined = usize::try_from(examined).unwrap_or(usize::MAX);
            if examined == 0 || examined > part.len() {
                return Err(ReconcileError::Malformed(format!(
                    "{examined} of {} records examined",
                    part.len()
                )));
            }
            let records =
                records.iter().map(|args| self.sealer.open(args)).collect::<Result<_, _>>();
            let records: Vec<_> = records.map_err(ReconcileError::NotApplied)?;
            let written = self.writer.apply_remote(records).await;
            applied += written.map_err(|error| ReconcileError::NotApplied(error.to_string()))?;
            newer = newer.get(examined..).unwrap_or_default();
        }
        Ok(applied)
    }
}

/// Waits until the connection was lost and is connected again, or is shut down.
async fn reconnected(states: &mut grid::StateWatch) {
    loop {
        match states.changed().await {
            ConnectionState::Connected | ConnectionState::Shutdown => return,
            ConnectionState::Connecting | ConnectionState::Backoff => {}
        }
    }
}

fn parse(versions: Vec<(String, u64, u64)>) -> Result<Vec<(ItemPath, Version)>, ReconcileError> {
    let parsed = versions.into_iter().map(|(path, micros, node)| {
        let path = path.parse().map_err(|error: crate::store::PathError| {
            ReconcileError::Malformed(error.to_string())
        })?;
        Ok((path, Version { micros, node }))
    });
    parsed.collect()
}
