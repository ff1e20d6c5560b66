//! Peers are told of a change, all at once, each with its own outcome: one that is dead or slow neither
//! holds up the others nor goes unnoticed (B62).

use std::collections::BTreeMap;

use grid::{CallOptions, Connection, Name};
use serde_bytes::ByteBuf;

use crate::iam::Inner;
use crate::limits::TELL_TIMEOUT;
use crate::record::Record;
use crate::store::{ItemPath, StoreError};
use crate::wire::{self, ChangeArgs};

/// Tells all peers. Takes [`TELL_TIMEOUT`] at most.
pub(crate) async fn all(
    inner: &Inner,
    path: &ItemPath,
    record: &Record,
) -> BTreeMap<Name, Result<(), String>> {
    let peers = inner.peers();
    let args = match seal(inner, path, record) {
        Ok(args) => args,
        Err(error) => {
            let failed = |peer: Connection| (peer.remote().clone(), Err(error.to_string()));
            return peers.into_iter().map(failed).collect();
        }
    };
    let told = peers.into_iter().map(|peer| {
        let args = &args;
        async move {
            let outcome = match inner.admit(peer.remote()) {
                Ok(()) => one(&peer, path, record, args).await,
                Err(why) => Err(why),
            };
            if let Err(cause) = &outcome {
                let peer = peer.remote();
                tracing::debug!(target: "iam", %peer, %path, cause, "a peer was not told of a change");
            }
            (peer.remote().clone(), outcome)
        }
    });
    futures_util::future::join_all(told).await.into_iter().collect()
}

async fn one(
    peer: &Connection,
    path: &ItemPath,
    record: &Record,
    args: &ChangeArgs,
) -> Result<(), String> {
    let Some(kind) = path.kind() else { return Ok(()) };
    let handler = wire::tell_of(kind, record.is_deletion());
    let options = CallOptions::default().timeout(TELL_TIMEOUT);
    match handler.call_with(peer, args, options).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// A record as it travels: without the root secret nobody reads or makes one.
pub(crate) fn seal(
    inner: &Inner,
    path: &ItemPath,
    record: &Record,
) -> Result<ChangeArgs, StoreError> {
    let plain = zeroize::Zeroizing::new(record.encode());
    let record = ByteBuf::from(inner.sealer.seal(path, &plain)?);
    Ok(ChangeArgs { path: path.as_str().to_owned(), record })
}

/// What a peer sent.
///
/// # Errors
///
/// Why it is not taken for a change.
pub(crate) fn open(inner: &Inner, args: &ChangeArgs) -> Result<(ItemPath, Record), String> {
    let path: ItemPath = args.path.parse().map_err(|error| format!("no change: {error}"))?;
    let (plain, _) = inner.sealer.open(&path, &args.record).map_err(|error| match error {
        StoreError::WrongKey { .. } => {
            format!("{error} (the servers have different root secrets)")
        }
        error => error.to_string(),
    })?;
    let plain = zeroize::Zeroizing::new(plain);
    let record = Record::decode(&path, &plain).map_err(|error| error.to_string())?;
    Ok((path, record))
}
