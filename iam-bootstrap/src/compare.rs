//! What was missed is found by comparing copies, and taken: when a server starts, when a peer is reached
//! again, and now and then (B62).
//!
//! One task for each peer, so a peer is compared with once at a time however often it reconnects. Each
//! side takes what is newer at the other; nobody pushes.

use std::sync::Arc;
use std::time::Duration;

use grid::{CallOptions, Connection, ConnectionState, TypedCallError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_bytes::ByteBuf;

use crate::iam::Inner;
use crate::limits::{
    CATCH_UP_TIMEOUT, COMPARE_SPACING, COMPARE_TIMEOUT, RECORDS_PER_ANSWER, RETRY_MAX,
};
use crate::record::Version;
use crate::replica::Digest;
use crate::store::ItemPath;
use crate::wire::{self, DigestArgs, RecordsAnswer, RecordsArgs, VersionsAnswer, VersionsArgs};
use crate::writer::Job;
use crate::{serve, tell};

/// Why a peer was not compared with to the end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    #[error(transparent)]
    Call(#[from] TypedCallError),
    #[error("not asked: {0}")]
    NotAdmitted(String),
    #[error("it has not loaded IAM yet")]
    NotLoaded,
    #[error("it answers what cannot be understood: {0}")]
    Nonsense(String),
    #[error("not taken: {0}")]
    NotTaken(String),
}

/// Compares once with all peers that are there, before this server says that it is ready: what was
/// deleted while it was down must not be used.
pub(crate) async fn catch_up(inner: &Arc<Inner>) {
    let peers = inner.peers().into_iter().map(|peer| async move {
        if peer.state() != ConnectionState::Connected {
            return;
        }
        if let Err(error) = once(inner, &peer).await {
            tracing::debug!(target: "iam", peer = %peer.remote(), %error, "not compared yet");
        }
    });
    let all = futures_util::future::join_all(peers);
    if tokio::time::timeout(CATCH_UP_TIMEOUT, all).await.is_err() {
        tracing::warn!(
            target: "iam",
            "some peers took longer than {CATCH_UP_TIMEOUT:?} to tell what this server missed: it goes on without"
        );
    }
}

/// From now on, each peer is compared with whenever there is reason to.
pub(crate) fn start(inner: &Arc<Inner>) {
    for peer in inner.peers() {
        let rng = SmallRng::seed_from_u64(inner.fork_seed());
        inner.spawn(repeatedly(Arc::clone(inner), peer, rng));
    }
    inner.spawn(sweep(Arc::clone(inner)));
}

async fn repeatedly(inner: Arc<Inner>, peer: Connection, mut rng: SmallRng) {
    let mut states = peer.watch();
    loop {
        if peer.wait_connected().await.is_err() {
            return; // The manager was shut down.
        }
        // From before the comparison: what is missed while it runs may not be part of it.
        let missed = inner.missed.notified();
        tokio::pin!(missed);
        missed.as_mut().enable();
        let wait = match once(&inner, &peer).await {
            Ok(taken) => {
                if taken > 0 {
                    tracing::debug!(target: "iam", peer = %peer.remote(), taken, "took what was missed");
                }
                inner.refresh_interval
            }
            Err(error) => {
                tracing::debug!(target: "iam", peer = %peer.remote(), %error, "not compared");
                RETRY_MAX
            }
        };
        // Between half and all of it: servers that were started together drift apart.
        let wait = wait.mul_f64(rng.random_range(0.5..1.0));
        let spacing = tokio::time::sleep(COMPARE_SPACING);
        tokio::select! {
            biased;
            _ = reconnected(&mut states) => {}
            () = missed => {}
            () = tokio::time::sleep(wait) => {}
        }
        spacing.await;
    }
}

/// Waits until the connection was away and is there again, or is over for good.
async fn reconnected(states: &mut grid::StateWatch) {
    loop {
        match states.changed().await {
            ConnectionState::Connected | ConnectionState::Shutdown => return,
            ConnectionState::Connecting | ConnectionState::Backoff => {}
        }
    }
}

/// Takes from a peer what is newer there. Returns how much it was.
async fn once(inner: &Inner, peer: &Connection) -> Result<usize, CompareError> {
    inner.admit(peer.remote()).map_err(CompareError::NotAdmitted)?;
    let options = || CallOptions::default().timeout(COMPARE_TIMEOUT);
    let answer = wire::DIGEST.call_with(peer, &DigestArgs {}, options()).await?;
    if !answer.is_loaded {
        return Err(CompareError::NotLoaded);
    }
    let theirs = Digest::from_bytes(&answer.digest).ok_or_else(|| {
        CompareError::Nonsense(format!("a digest of {} bytes", answer.digest.len()))
    })?;
    let parts = inner.with_copy(|copy| copy.digest().differing(&theirs)).unwrap_or_default();
    if parts.is_empty() {
        return Ok(0);
    }
    let mut taken = 0;
    let mut args = VersionsArgs { parts: ByteBuf::from(parts), after: String::new() };
    loop {
        let VersionsAnswer { versions, next } =
            wire::VERSIONS.call_with(peer, &args, options()).await?;
        let wall = inner.wall_micros();
        let versions = parse(versions)?;
        let wanted = inner.with_copy(|copy| copy.wanted(&versions, wall)).unwrap_or_default();
        taken += fetch(inner, peer, &wanted).await?;
        if next.is_empty() {
            return Ok(taken);
        }
        if next <= args.after {
            return Err(CompareError::Nonsense(format!("after {} comes {next}", args.after)));
        }
        args.after = next;
    }
}

fn parse(versions: Vec<(String, u64, u64)>) -> Result<Vec<(ItemPath, Version)>, CompareError> {
    let parsed = versions.into_iter().map(|(path, micros, node)| {
        let path = path
            .parse()
            .map_err(|error: crate::store::PathError| CompareError::Nonsense(error.to_string()))?;
        Ok((path, Version { micros, node }))
    });
    parsed.collect()
}

async fn fetch(
    inner: &Inner,
    peer: &Connection,
    mut wanted: &[ItemPath],
) -> Result<usize, CompareError> {
    let mut taken = 0;
    while !wanted.is_empty() {
        let part = wanted.get(..RECORDS_PER_ANSWER).unwrap_or(wanted);
        let paths = part.iter().map(|path| path.as_str().to_owned()).collect();
        let options = CallOptions::default().timeout(COMPARE_TIMEOUT);
        let RecordsAnswer { records, looked } =
            wire::RECORDS.call_with(peer, &RecordsArgs { paths }, options).await?;
        let looked = usize::try_from(looked).unwrap_or(usize::MAX);
        if looked == 0 || looked > part.len() {
            return Err(CompareError::Nonsense(format!("{looked} of {} records", part.len())));
        }
        let records = records.iter().map(|args| tell::open(inner, args)).collect::<Result<_, _>>();
        let records: Vec<_> = records.map_err(CompareError::NotTaken)?;
        taken += serve::take(inner, records)
            .await
            .map_err(|error| CompareError::NotTaken(error.to_string()))?;
        wanted = wanted.get(looked..).unwrap_or_default();
    }
    Ok(taken)
}

/// How often what is long over is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

async fn sweep(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        if inner.jobs.send(Job::Sweep).await.is_err() {
            return;
        }
    }
}
