//! `gridwire locks`: lists locks and waiters, and forces locks open.

mod table;

use std::io;
use std::time::Duration;

use dsync::{ForceReport, ForceTarget};
use grid::{CallOptions, TypedCallError};

use self::table::{ForceResult, LocksTable};
use crate::cli::LocksArgs;
use crate::client::{Client, ClientError};
use crate::lock_service::wire::{FORCE_UNLOCK, ForceRequest, GET_LOCKS, GetLocksRequest};
use crate::output;

/// Why there is no list, or no lock was forced open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocksError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Call(#[from] TypedCallError),
    #[error(
        "no locker that responded has such a lock: `gridwire locks` lists the locks that exist"
    )]
    NoSuchLock,
    #[error(
        "too few lockers responded to force the lock open: it lasts until its holder releases it; try \
         again when more lockers are connected"
    )]
    NotForced,
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

impl LocksError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => error.exit_code(),
            _ => 1,
        }
    }
}

/// Sends the request, and prints the result.
pub(crate) fn run(arguments: &LocksArgs) -> Result<(), LocksError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    runtime.block_on(async {
        let client =
            Client::connect(&arguments.peer, &arguments.client.identity, arguments.client.timeout)
                .await?;
        let done = match forced(arguments) {
            Some(forced) => force(arguments, &client, forced).await,
            None => list(arguments, &client).await,
        };
        client.shutdown().await;
        done
    })
}

fn forced(arguments: &LocksArgs) -> Option<ForceTarget> {
    let by_id = arguments.unlock.clone().map(ForceTarget::Uid);
    by_id.or_else(|| arguments.unlock_resource.clone().map(ForceTarget::Resource))
}

async fn list(arguments: &LocksArgs, client: &Client) -> Result<(), LocksError> {
    let request = GetLocksRequest { timeout_ms: locker_timeout_ms(arguments) };
    let options = CallOptions::default().timeout(arguments.client.timeout);
    let listing = GET_LOCKS.call_with(&client.connection, &request, options).await?;
    match arguments.json {
        true => output::print_line(&serde_json::json!(listing))?,
        false => output::print_line(&LocksTable(&listing))?,
    }
    Ok(())
}

async fn force(
    arguments: &LocksArgs,
    client: &Client,
    forced: ForceTarget,
) -> Result<(), LocksError> {
    let request = ForceRequest { what: forced, timeout_ms: locker_timeout_ms(arguments) };
    let options = CallOptions::default().timeout(arguments.client.timeout);
    let report = FORCE_UNLOCK.call_with(&client.connection, &request, options).await?;
    match arguments.json {
        true => output::print_line(&serde_json::json!(report))?,
        false => output::print_line(&ForceResult(&report))?,
    }
    check(&report)
}

fn check(report: &ForceReport) -> Result<(), LocksError> {
    match (report.is_effective, report.forced.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => Err(LocksError::NoSuchLock),
        (false, false) => Err(LocksError::NotForced),
    }
}

/// How long the server may wait for lockers, in milliseconds: half of this tool's timeout, so that
/// a partial result still arrives in time.
fn locker_timeout_ms(arguments: &LocksArgs) -> u64 {
    let half: Duration = arguments.client.timeout / 2;
    u64::try_from(half.as_millis()).unwrap_or(u64::MAX)
}
