//! Broadcasts a change to all peers in parallel, each with its own outcome: a peer that is down or
//! slow neither delays the others nor goes unnoticed ([B62]).
//!
//! [B62]: crate::rules#b62

use std::collections::BTreeMap;

use grid::{CallOptions, Connection, Name};
use serde_bytes::ByteBuf;

use crate::iam::IamInner;
use crate::limits::BROADCAST_TIMEOUT;
use crate::record::Record;
use crate::store::{ItemPath, StoreError};
use crate::wire::{self, ChangeArgs};

/// Sends a change to all peers. Takes [`BROADCAST_TIMEOUT`] at most.
pub(crate) async fn broadcast(
    inner: &IamInner,
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
    let sends = peers.into_iter().map(|peer| {
        let args = &args;
        async move {
            let outcome = match inner.admit(peer.remote()) {
                Ok(()) => send_to_peer(&peer, path, record, args).await,
                Err(cause) => Err(cause),
            };
            if let Err(cause) = &outcome {
                let peer = peer.remote();
                tracing::debug!(
                    target: "iam", %peer, %path, error = cause,
                    "change broadcast failed"
                );
            }
            (peer.remote().clone(), outcome)
        }
    });
    futures_util::future::join_all(sends).await.into_iter().collect()
}

async fn send_to_peer(
    peer: &Connection,
    path: &ItemPath,
    record: &Record,
    args: &ChangeArgs,
) -> Result<(), String> {
    let Some(kind) = path.kind() else { return Ok(()) };
    let handler = wire::change_handler(kind, record.is_deletion());
    let options = CallOptions::default().timeout(BROADCAST_TIMEOUT);
    match handler.call_with(peer, args, options).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Seals a record for the wire. Without the root secret it can be neither read nor forged.
pub(crate) fn seal(
    inner: &IamInner,
    path: &ItemPath,
    record: &Record,
) -> Result<ChangeArgs, StoreError> {
    let plain = zeroize::Zeroizing::new(record.encode());
    let record = ByteBuf::from(inner.sealer.seal(path, &plain)?);
    Ok(ChangeArgs { path: path.as_str().to_owned(), record })
}

/// Opens a record that a peer sent.
///
/// # Errors
///
/// The reason why it is not a valid change.
pub(crate) fn open(inner: &IamInner, args: &ChangeArgs) -> Result<(ItemPath, Record), String> {
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
