//! Handlers for requests of peers.

use std::sync::{Arc, Weak};

use grid::{HandlerError, RegisterError, RequestContext};
use tokio::sync::oneshot;

use crate::broadcast;
use crate::iam::{Iam, IamInner};
use crate::limits::{RECORDS_BYTES_MAX, RECORDS_PER_RESPONSE, VERSIONS_PER_RESPONSE};
use crate::load::with_store_timeout;
use crate::record::Record;
use crate::store::{self, ItemKind, ItemPath, StoreError};
use crate::wire::{
    self, ChangeArgs, ChangeResponse, DigestResponse, RecordsArgs, RecordsResponse, VersionsArgs,
    VersionsResponse,
};
use crate::writer::WriterJob;

/// Registers all handlers.
pub(crate) fn register(iam: &Iam) -> Result<(), RegisterError> {
    let manager = &iam.inner.manager;
    for (handler, kinds) in wire::CHANGE_HANDLERS {
        let inner = Arc::downgrade(&iam.inner);
        handler.register(manager, move |context, args| {
            let inner = admit_caller(&inner, &context);
            async move { handle_change(&*inner?, kinds, &args).await }
        })?;
    }
    let inner = Arc::downgrade(&iam.inner);
    wire::DIGEST.register(manager, move |context, _args| {
        let response = admit_caller(&inner, &context).map(|inner| {
            let digest = inner.with_replica(|replica| replica.digest().to_bytes());
            let is_loaded = digest.is_some();
            DigestResponse { is_loaded, digest: digest.unwrap_or_default().into() }
        });
        async move { response }
    })?;
    let inner = Arc::downgrade(&iam.inner);
    wire::VERSIONS.register(manager, move |context, args| {
        let response = admit_caller(&inner, &context)
            .and_then(|inner| versions(&inner, &args).map_err(HandlerError::from));
        async move { response }
    })?;
    let inner = Arc::downgrade(&iam.inner);
    wire::RECORDS.register(manager, move |context, args| {
        let inner = admit_caller(&inner, &context);
        async move { records(&*inner?, &args).await.map_err(HandlerError::from) }
    })
}

/// Returns this server's replica if the caller is admitted to replication.
fn admit_caller(
    inner: &Weak<IamInner>,
    context: &RequestContext,
) -> Result<Arc<IamInner>, HandlerError> {
    let inner = inner.upgrade().ok_or("the server is shutting down")?;
    inner.admit(context.caller()).map_err(HandlerError::from)?;
    Ok(inner)
}

async fn handle_change(
    inner: &IamInner,
    kinds: &[ItemKind],
    args: &ChangeArgs,
) -> Result<ChangeResponse, HandlerError> {
    let (path, record) = broadcast::open(inner, args).map_err(HandlerError::from)?;
    if !path.kind().is_some_and(|kind| kinds.contains(&kind)) {
        return Err(HandlerError::from(format!("{path} is told to another handler")));
    }
    match apply_records(inner, vec![(path, record)]).await {
        Ok(applied) => Ok(ChangeResponse { is_newer: applied > 0 }),
        Err(error) => {
            // The change is not sent again: this server fetches it by reconciling.
            inner.reconcile_now.notify_waiters();
            Err(error)
        }
    }
}

/// Applies the records of a peer. Returns how many were newer.
pub(crate) async fn apply_records(
    inner: &IamInner,
    records: Vec<(ItemPath, Record)>,
) -> Result<usize, HandlerError> {
    if !inner.is_loaded() {
        return Err("this server has not loaded IAM yet, and will ask for it when it has".into());
    }
    let (reply, outcome) = oneshot::channel();
    let job = WriterJob::Remote { records, reply };
    inner.writer_jobs.send(job).await.map_err(|_| "the server is shutting down")?;
    let applied = outcome.await.map_err(|_| "the server is shutting down")?;
    applied.map_err(|error| HandlerError::from(error.to_string()))
}

fn versions(inner: &IamInner, args: &VersionsArgs) -> Result<VersionsResponse, String> {
    let after = match args.after.as_str() {
        "" => None,
        path => Some(path.parse::<ItemPath>().map_err(|error| error.to_string())?),
    };
    let examined = inner.with_replica(|replica| {
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
async fn records(inner: &IamInner, args: &RecordsArgs) -> Result<RecordsResponse, String> {
    let mut response = RecordsResponse::default();
    let mut bytes = 0;
    for path in args.paths.iter().take(RECORDS_PER_RESPONSE) {
        if bytes >= RECORDS_BYTES_MAX {
            break;
        }
        response.examined += 1;
        let path: ItemPath = path.parse().map_err(|error: store::PathError| error.to_string())?;
        let Some(known) = inner.with_replica(|replica| replica.get(&path)).flatten() else {
            continue;
        };
        let Some(pool) = inner.pools.get(known.pool) else { continue };
        match read(&**pool, &path).await {
            Ok(record) => {
                let sealed =
                    broadcast::seal(inner, &path, &record).map_err(|error| error.to_string())?;
                bytes += sealed.record.len() + sealed.path.len();
                response.records.push(sealed);
            }
            // An item that is damaged here is skipped; the peer still gets all others.
            Err(error) if error.affects_one_item() => {
                tracing::debug!(target: "iam", %path, %error, "unreadable item not sent to a peer");
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(response)
}

async fn read(pool: &dyn store::IamStore, path: &ItemPath) -> Result<Record, StoreError> {
    let bytes = zeroize::Zeroizing::new(with_store_timeout(pool, pool.read(path)).await?);
    Record::decode(path, &bytes)
}
