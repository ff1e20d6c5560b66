//! Handlers for requests of peers.

use std::sync::{Arc, Weak};

use grid::{HandlerError, Manager, RegisterError, RequestContext};
use tokio::sync::Notify;

use crate::limits::{RECORDS_BYTES_MAX, RECORDS_PER_RESPONSE, VERSIONS_PER_RESPONSE};
use crate::peers::Peers;
use crate::pools::Pools;
use crate::record_sealer::RecordSealer;
use crate::state::IamState;
use crate::store::{ItemKind, ItemPath, PathError};
use crate::wire::{
    self, ChangeArgs, ChangeResponse, DigestResponse, RecordsArgs, RecordsResponse, VersionsArgs,
    VersionsResponse,
};
use crate::writer::WriterHandle;

/// Handles the requests of peers.
pub(crate) struct PeerHandlers {
    pub(crate) state: Arc<IamState>,
    pub(crate) pools: Pools,
    pub(crate) peers: Arc<Peers>,
    pub(crate) sealer: Arc<RecordSealer>,
    pub(crate) writer: WriterHandle,
    /// Wakes the reconcile tasks after a change could not be applied.
    pub(crate) reconcile_now: Arc<Notify>,
}

impl PeerHandlers {
    /// Registers all handlers. They keep neither the manager nor the replica alive.
    pub(crate) fn register(self: &Arc<Self>, manager: &Manager) -> Result<(), RegisterError> {
        for (handler, kinds) in wire::CHANGE_HANDLERS {
            let handlers = Arc::downgrade(self);
            handler.register(manager, move |context, args| {
                let handlers = admit_caller(&handlers, &context);
                async move { handlers?.handle_change(kinds, &args).await }
            })?;
        }
        let handlers = Arc::downgrade(self);
        wire::DIGEST.register(manager, move |context, _args| {
            let response = admit_caller(&handlers, &context).map(|handlers| handlers.digest());
            async move { response }
        })?;
        let handlers = Arc::downgrade(self);
        wire::VERSIONS.register(manager, move |context, args| {
            let response = admit_caller(&handlers, &context)
                .and_then(|handlers| handlers.versions(&args).map_err(HandlerError::from));
            async move { response }
        })?;
        let handlers = Arc::downgrade(self);
        wire::RECORDS.register(manager, move |context, args| {
            let handlers = admit_caller(&handlers, &context);
            async move { handlers?.records(&args).await.map_err(HandlerError::from) }
        })
    }

    async fn handle_change(
        &self,
        kinds: &[ItemKind],
        args: &ChangeArgs,
    ) -> Result<ChangeResponse, HandlerError> {
        let (path, record) = self.sealer.open(args).map_err(HandlerError::from)?;
        if !path.kind().is_some_and(|kind| kinds.contains(&kind)) {
            return Err(HandlerError::from(format!("{path} is told to another handler")));
        }
        match self.writer.apply_remote(vec![(path, record)]).await {
            Ok(applied) => Ok(ChangeResponse { is_newer: applied > 0 }),
            Err(error) => {
                // The change is not sent again: this server fetches it by reconciling.
                self.reconcile_now.notify_waiters();
                Err(HandlerError::from(error.to_string()))
            }
        }
    }

    fn digest(&self) -> DigestResponse {
        let digest = self.state.with_replica(|replica| replica.digest().to_bytes());
        let is_loaded = digest.is_some();
        DigestResponse { is_loaded, digest: digest.unwrap_or_default().into() }
    }

    fn versions(&self, args: &VersionsArgs) -> Result<VersionsResponse, String> {
        let after = match args.after.as_str() {
            "" => None,
            path => Some(path.parse::<ItemPath>().map_err(|error| error.to_string())?),
        };
        let examined = self.state.with_replica(|replica| {
            replica.versions_in(&args.buckets, after.as_ref(), VERSIONS_PER_RESPONSE)
        });
        let (versions, next) = examined.ok_or("this server has not loaded IAM yet")?;
        let versions = versions.into_iter();
        Ok(VersionsResponse {
            versions: versions
                .map(|(path, version)| (path.as_str().to_owned(), version.micros, version.node))
                .collect(),
            next: next.map(|path| path.as_str().to_owned()).unwrap_or_default(),
        })
    }

    /// Returns records as stored, including fields of newer versions.
    async fn records(&self, args: &RecordsArgs) -> Result<RecordsResponse, String> {
        let mut response = RecordsResponse::default();
        let mut bytes = 0;
        for path in args.paths.iter().take(RECORDS_PER_RESPONSE) {
            if bytes >= RECORDS_BYTES_MAX {
                break;
            }
            response.examined += 1;
            let path: ItemPath = path.parse().map_err(|error: PathError| error.to_string())?;
            let Some(known) = self.state.with_replica(|replica| replica.get(&path)).flatten()
            else {
                continue;
            };
            match self.pools.read(known.pool, &path).await {
                Ok(record) => {
                    let sealed = self.sealer.seal(&path, &record);
                    let sealed = sealed.map_err(|error| error.to_string())?;
                    bytes += sealed.record.len() + sealed.path.len();
                    response.records.push(sealed);
                }
                // An item that is damaged here is skipped; the peer still gets all others.
                Err(error) if error.affects_one_item() => {
                    tracing::debug!(
                        target: "iam", %path, %error,
                        "unreadable item not sent to a peer"
                    );
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(response)
    }
}

/// Returns this server's handlers if the caller is admitted to replication.
fn admit_caller(
    handlers: &Weak<PeerHandlers>,
    context: &RequestContext,
) -> Result<Arc<PeerHandlers>, HandlerError> {
    let handlers = handlers.upgrade().ok_or("the server is shutting down")?;
    handlers.peers.admit(context.caller()).map_err(HandlerError::from)?;
    Ok(handlers)
}
