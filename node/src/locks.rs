//! `gridwire locks`: who holds and who waits for which locks, and taking them away.

mod table;

use std::io;
use std::time::Duration;

use dsync::{ForceReport, Forced};
use grid::{CallOptions, TypedCallError};

use self::table::{Forcing, Table};
use crate::cli::LocksArgs;
use crate::lock_service::wire::{FORCE_UNLOCK, ForceRequest, GET_LOCKS, GetLocksRequest};
use crate::probe::{Probe, ProbeError};
use crate::stdout;

/// Why there is no list, or no lock was taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocksError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Call(#[from] TypedCallError),
    #[error(
        "none of the lockers that answered has such a lock: see `gridwire locks` for those there are"
    )]
    NoSuchLock,
    #[error(
        "too few lockers answered to take the lock away: it lasts until its holder releases it; try \
         again when they do"
    )]
    NotForced,
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

impl LocksError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Probe(error) => error.exit_code(),
            _ => 1,
        }
    }
}

/// Asks, and prints what comes of it.
pub(crate) fn run(arguments: &LocksArgs) -> Result<(), LocksError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(ProbeError::Runtime)?;
    runtime.block_on(async {
        let probe =
            Probe::connect(&arguments.peer, &arguments.probe.entry, arguments.probe.timeout)
                .await?;
        let done = match what(arguments) {
            Some(what) => force(arguments, &probe, what).await,
            None => list(arguments, &probe).await,
        };
        probe.leave().await;
        done
    })
}

fn what(arguments: &LocksArgs) -> Option<Forced> {
    let by_id = arguments.unlock.clone().map(Forced::Uid);
    by_id.or_else(|| arguments.unlock_resource.clone().map(Forced::Resource))
}

async fn list(arguments: &LocksArgs, probe: &Probe) -> Result<(), LocksError> {
    let request = GetLocksRequest { timeout_ms: for_lockers(arguments) };
    let options = CallOptions::default().timeout(arguments.probe.timeout);
    let listing = GET_LOCKS.call_with(&probe.connection, &request, options).await?;
    match arguments.json {
        true => stdout::line(&serde_json::json!(listing))?,
        false => stdout::line(&Table(&listing))?,
    }
    Ok(())
}

async fn force(arguments: &LocksArgs, probe: &Probe, what: Forced) -> Result<(), LocksError> {
    let request = ForceRequest { what, timeout_ms: for_lockers(arguments) };
    let options = CallOptions::default().timeout(arguments.probe.timeout);
    let report = FORCE_UNLOCK.call_with(&probe.connection, &request, options).await?;
    match arguments.json {
        true => stdout::line(&serde_json::json!(report))?,
        false => stdout::line(&Forcing(&report))?,
    }
    judge(&report)
}

fn judge(report: &ForceReport) -> Result<(), LocksError> {
    match (report.is_effective, report.forced.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => Err(LocksError::NoSuchLock),
        (false, false) => Err(LocksError::NotForced),
    }
}

/// What the server gets to wait for lockers, so that it can still say what it knows while this tool
/// waits for it: half of the time, in milliseconds.
fn for_lockers(arguments: &LocksArgs) -> u64 {
    let half: Duration = arguments.probe.timeout / 2;
    u64::try_from(half.as_millis()).unwrap_or(u64::MAX)
}
