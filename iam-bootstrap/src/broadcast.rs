//! Broadcasts a change to all peers in parallel, each with its own outcome: a peer that is down or
//! slow neither delays the others nor goes unnoticed ([B62]).
//!
//! [B62]: crate::rules#b62

use std::collections::BTreeMap;
use std::sync::Arc;

use grid::{CallOptions, Connection, Name};

use crate::limits::BROADCAST_TIMEOUT;
use crate::peers::Peers;
use crate::record::Record;
use crate::record_sealer::RecordSealer;
use crate::store::ItemPath;
use crate::wire::{self, ChangeArgs};

/// Sends changes to the peers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Broadcaster {
    pub(crate) peers: Arc<Peers>,
    pub(crate) sealer: Arc<RecordSealer>,
}

impl Broadcaster {
    /// Sends a change to all peers. Takes [`BROADCAST_TIMEOUT`] at most.
    pub(crate) async fn broadcast(
        &self,
        path: &ItemPath,
        record: &Record,
    ) -> BTreeMap<Name, Result<(), String>> {
        let peers = self.peers.connections();
        let args = match self.sealer.seal(path, record) {
            Ok(args) => args,
            Err(error) => {
                let failed = |peer: Connection| (peer.remote().clone(), Err(error.to_string()));
                return peers.into_iter().map(failed).collect();
            }
        };
        let sends = peers.into_iter().map(|peer| {
            let args = &args;
            async move {
                let outcome = match self.peers.admit(peer.remote()) {
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
