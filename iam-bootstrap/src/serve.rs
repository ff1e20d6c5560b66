//! What this server answers to its peers.

use std::sync::{Arc, Weak};

use grid::{HandlerError, RegisterError, RequestContext};
use tokio::sync::oneshot;

use crate::iam::{Iam, Inner};
use crate::limits::{RECORDS_BYTES_MAX, RECORDS_PER_ANSWER, VERSIONS_PER_ANSWER};
use crate::load::within;
use crate::record::Record;
use crate::store::{self, ItemPath, Kind, StoreError};
use crate::tell;
use crate::wire::{
    self, ChangeAnswer, ChangeArgs, DigestAnswer, RecordsAnswer, RecordsArgs, VersionsAnswer,
    VersionsArgs,
};
use crate::writer::Job;

/// Registers all handlers.
pub(crate) fn register(iam: &Iam) -> Result<(), RegisterError> {
    let manager = &iam.inner.manager;
    for (handler, kinds) in wire::TELLS {
        let inner = Arc::downgrade(&iam.inner);
        handler.register(manager, move |context, args| {
            let inner = admitted(&inner, &context);
            async move { told(&*inner?, kinds, &args).await }
        })?;
    }
    let inner = Arc::downgrade(&iam.inner);
    wire::DIGEST.register(manager, move |context, _args| {
        let answer = admitted(&inner, &context).map(|inner| {
            let digest = inner.with_copy(|copy| copy.digest().to_bytes());
            let is_loaded = digest.is_some();
            DigestAnswer { is_loaded, digest: digest.unwrap_or_default().into() }
        });
        async move { answer }
    })?;
    let inner = Arc::downgrade(&iam.inner);
    wire::VERSIONS.register(manager, move |context, args| {
        let answer = admitted(&inner, &context)
            .and_then(|inner| versions(&inner, &args).map_err(HandlerError::from));
        async move { answer }
    })?;
    let inner = Arc::downgrade(&iam.inner);
    wire::RECORDS.register(manager, move |context, args| {
        let inner = admitted(&inner, &context);
        async move { records(&*inner?, &args).await.map_err(HandlerError::from) }
    })
}

/// This server's copy, for who keeps the same.
fn admitted(inner: &Weak<Inner>, context: &RequestContext) -> Result<Arc<Inner>, HandlerError> {
    let inner = inner.upgrade().ok_or("the server is shutting down")?;
    inner.admit(context.caller()).map_err(HandlerError::from)?;
    Ok(inner)
}

async fn told(
    inner: &Inner,
    kinds: &[Kind],
    args: &ChangeArgs,
) -> Result<ChangeAnswer, HandlerError> {
    let (path, record) = tell::open(inner, args).map_err(HandlerError::from)?;
    if !path.kind().is_some_and(|kind| kinds.contains(&kind)) {
        return Err(HandlerError::from(format!("{path} is told to another handler")));
    }
    match take(inner, vec![(path, record)]).await {
        Ok(news) => Ok(ChangeAnswer { is_news: news > 0 }),
        Err(error) => {
            // Nobody tells it again: this server asks for it.
            inner.missed.notify_waiters();
            Err(error)
        }
    }
}

/// Takes records of a peer. Returns how many were news.
pub(crate) async fn take(
    inner: &Inner,
    records: Vec<(ItemPath, Record)>,
) -> Result<usize, HandlerError> {
    if !inner.is_loaded() {
        return Err("this server has not loaded IAM yet, and will ask for it when it has".into());
    }
    let (done, outcome) = oneshot::channel();
    let job = Job::Remote { records, done };
    inner.jobs.send(job).await.map_err(|_| "the server is shutting down")?;
    let taken = outcome.await.map_err(|_| "the server is shutting down")?;
    taken.map_err(|error| HandlerError::from(error.to_string()))
}

fn versions(inner: &Inner, args: &VersionsArgs) -> Result<VersionsAnswer, String> {
    let after = match args.after.as_str() {
        "" => None,
        path => Some(path.parse::<ItemPath>().map_err(|error| error.to_string())?),
    };
    let looked =
        inner.with_copy(|copy| copy.versions_in(&args.parts, after.as_ref(), VERSIONS_PER_ANSWER));
    let (versions, next) = looked.ok_or("this server has not loaded IAM yet")?;
    let versions = versions.into_iter();
    Ok(VersionsAnswer {
        versions: versions
            .map(|(path, version)| (path.as_str().to_owned(), version.micros, version.node))
            .collect(),
        next: next.map(|path| path.as_str().to_owned()).unwrap_or_default(),
    })
}

/// Records as they are kept, whatever fields of a newer version they have.
async fn records(inner: &Inner, args: &RecordsArgs) -> Result<RecordsAnswer, String> {
    let mut answer = RecordsAnswer::default();
    let mut bytes = 0;
    for path in args.paths.iter().take(RECORDS_PER_ANSWER) {
        if bytes >= RECORDS_BYTES_MAX {
            break;
        }
        answer.looked += 1;
        let path: ItemPath = path.parse().map_err(|error: store::PathError| error.to_string())?;
        let Some(known) = inner.with_copy(|copy| copy.get(&path)).flatten() else { continue };
        let Some(pool) = inner.pools.get(known.pool) else { continue };
        match read(&**pool, &path).await {
            Ok(record) => {
                let sealed =
                    tell::seal(inner, &path, &record).map_err(|error| error.to_string())?;
                bytes += sealed.record.len() + sealed.path.len();
                answer.records.push(sealed);
            }
            // The peer is not helped by what is damaged here, but by all others.
            Err(error) if error.is_of_one_item() => {
                tracing::debug!(target: "iam", %path, %error, "an item cannot be passed on");
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(answer)
}

async fn read(pool: &dyn store::IamStore, path: &ItemPath) -> Result<Record, StoreError> {
    let bytes = zeroize::Zeroizing::new(within(pool, pool.read(path)).await?);
    Record::decode(path, &bytes)
}
