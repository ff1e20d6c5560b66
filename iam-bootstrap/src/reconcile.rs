//! Finds changes that this server missed and applies them: at startup, when a peer reconnects, and
//! periodically ([B62]).
//!
//! One task for each peer, so at most one reconciliation with a peer is in flight, however often it
//! reconnects. Each side pulls what is newer at the other; no side pushes.
//!
//! [B62]: crate::rules#b62

use std::sync::Arc;
use std::time::Duration;

use grid::{CallOptions, Connection, ConnectionState, TypedCallError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_bytes::ByteBuf;

use crate::iam::IamInner;
use crate::limits::{
    CATCH_UP_TIMEOUT, RECONCILE_SPACING, RECONCILE_TIMEOUT, RECORDS_PER_RESPONSE, RETRY_MAX,
};
use crate::record::Version;
use crate::replica::Digest;
use crate::store::ItemPath;
use crate::wire::{self, DigestArgs, RecordsArgs, RecordsResponse, VersionsArgs, VersionsResponse};
use crate::writer::WriterJob;
use crate::{broadcast, serve};

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

/// Reconciles once with all connected peers, before this server reports that it is ready: items
/// that were deleted while it was down must not be used.
pub(crate) async fn catch_up(inner: &Arc<IamInner>) {
    let peers = inner.peers().into_iter().map(|peer| async move {
        if peer.state() != ConnectionState::Connected {
            return;
        }
        if let Err(error) = reconcile_once(inner, &peer).await {
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

/// Starts the reconcile task of each peer and the sweep task.
pub(crate) fn start(inner: &Arc<IamInner>) {
    for peer in inner.peers() {
        let rng = SmallRng::seed_from_u64(inner.fork_seed());
        inner.spawn(reconcile_task(Arc::clone(inner), peer, rng));
    }
    inner.spawn(sweep_task(Arc::clone(inner)));
}

async fn reconcile_task(inner: Arc<IamInner>, peer: Connection, mut rng: SmallRng) {
    let mut states = peer.watch();
    loop {
        if peer.wait_connected().await.is_err() {
            return; // The manager was shut down.
        }
        // Registered before the reconciliation: a change that is missed while it runs may not be
        // part of it.
        let reconcile_now = inner.reconcile_now.notified();
        tokio::pin!(reconcile_now);
        reconcile_now.as_mut().enable();
        let wait = match reconcile_once(&inner, &peer).await {
            Ok(applied) => {
                if applied > 0 {
                    tracing::debug!(
                        target: "iam", peer = %peer.remote(), applied,
                        "missed changes applied"
                    );
                }
                inner.refresh_interval
            }
            Err(error) => {
                tracing::debug!(target: "iam", peer = %peer.remote(), %error, "reconcile failed");
                RETRY_MAX
            }
        };
        // Random between half and all of it, so that servers that were started together drift
        // apart.
        let wait = wait.mul_f64(rng.random_range(0.5..1.0));
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

/// Waits until the connection was lost and is connected again, or is shut down.
async fn reconnected(states: &mut grid::StateWatch) {
    loop {
        match states.changed().await {
            ConnectionState::Connected | ConnectionState::Shutdown => return,
            ConnectionState::Connecting | ConnectionState::Backoff => {}
        }
    }
}

/// Pulls from a peer what is newer there. Returns the number of records applied.
async fn reconcile_once(inner: &IamInner, peer: &Connection) -> Result<usize, ReconcileError> {
    inner.admit(peer.remote()).map_err(ReconcileError::NotAdmitted)?;
    let options = || CallOptions::default().timeout(RECONCILE_TIMEOUT);
    let response = wire::DIGEST.call_with(peer, &DigestArgs {}, options()).await?;
    if !response.is_loaded {
        return Err(ReconcileError::NotLoaded);
    }
    let theirs = Digest::from_bytes(&response.digest).ok_or_else(|| {
        ReconcileError::Malformed(format!("a digest of {} bytes", response.digest.len()))
    })?;
    let buckets =
        inner.with_replica(|replica| replica.digest().differing(&theirs)).unwrap_or_default();
    if buckets.is_empty() {
        return Ok(0);
    }
    let mut applied = 0;
    let mut args = VersionsArgs { buckets: ByteBuf::from(buckets), after: String::new() };
    loop {
        let VersionsResponse { versions, next } =
            wire::VERSIONS.call_with(peer, &args, options()).await?;
        let wall = inner.wall_micros();
        let versions = parse(versions)?;
        let newer =
            inner.with_replica(|replica| replica.newer_in(&versions, wall)).unwrap_or_default();
        applied += fetch_records(inner, peer, &newer).await?;
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

fn parse(versions: Vec<(String, u64, u64)>) -> Result<Vec<(ItemPath, Version)>, ReconcileError> {
    let parsed = versions.into_iter().map(|(path, micros, node)| {
        let path = path.parse().map_err(|error: crate::store::PathError| {
            ReconcileError::Malformed(error.to_string())
        })?;
        Ok((path, Version { micros, node }))
    });
    parsed.collect()
}

async fn fetch_records(
    inner: &IamInner,
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
            records.iter().map(|args| broadcast::open(inner, args)).collect::<Result<_, _>>();
        let records: Vec<_> = records.map_err(ReconcileError::NotApplied)?;
        applied += serve::apply_records(inner, records)
            .await
            .map_err(|error| ReconcileError::NotApplied(error.to_string()))?;
        newer = newer.get(examined..).unwrap_or_default();
    }
    Ok(applied)
}

/// Interval between two sweeps of items past their retention.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);

async fn sweep_task(inner: Arc<IamInner>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        if inner.writer_jobs.send(WriterJob::Sweep).await.is_err() {
            return;
        }
    }
}
