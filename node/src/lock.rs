//! `gridwire lock`: runs a command while a lock is held.
//!
//! `lock_service` has the protocol with the server. `hold` is this end of the held lock, `validity`
//! how long it may be considered held, `command` the command. This file runs them in order, and
//! maps the result to exit codes.

mod command;
mod hold;
mod validity;

use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use rustix::process::Signal;

use self::command::{RunningCommand, SignalTarget, SpawnError, exit_code};
use self::hold::{HoldError, LockHold, LossCause};
use crate::cli::LockArgs;
use crate::client::{Client, ClientError};
use crate::lock_service::wire::{HoldRequest, Refusal};
use crate::signals::ForwardedSignals;

/// Exit code if the server could not be reached: EX_UNAVAILABLE of sysexits.h.
const UNAVAILABLE: u8 = 69;

/// Exit code if the lock was lost: EX_TEMPFAIL of sysexits.h, "try again".
const LOST: u8 = 75;

/// Offset of the exit code of a command that a signal terminated, as in shells.
const SIGNAL_OFFSET: u8 = 128;

/// Why the command was not started or did not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockFailure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{} is not locked: {error}", list(.resources))]
    NotHeld { resources: Vec<String>, error: HoldError, conflict_exit_code: u8 },
    #[error("cancelled by {0:?} before the lock was acquired")]
    Cancelled(Signal),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("{} is no longer locked, and the command was terminated: {lost}", list(.resources))]
    Lost { resources: Vec<String>, lost: LossCause },
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("cannot wait for the command: {0}")]
    Wait(io::Error),
}

impl LockFailure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) if error.exit_code() == 2 => 2,
            Self::Client(_) | Self::Signals(_) | Self::Wait(_) => UNAVAILABLE,
            Self::NotHeld { error, conflict_exit_code, .. } => match error {
                HoldError::Refused { reason: Refusal::TimedOut, .. } => *conflict_exit_code,
                HoldError::Refused { reason: Refusal::Invalid, .. } => 2,
                HoldError::LostBeforeStart(_) => LOST,
                _ => UNAVAILABLE,
            },
            Self::Cancelled(signal) => {
                SIGNAL_OFFSET.saturating_add(u8::try_from(signal.as_raw()).unwrap_or(u8::MAX))
            }
            Self::Spawn(error) => error.exit_code(),
            Self::Lost { .. } => LOST,
        }
    }
}

fn list(resources: &[String]) -> String {
    resources.join(", ")
}

/// Acquires the lock, runs the command, and releases the lock. Returns the command's exit code.
pub(crate) fn run(arguments: &LockArgs) -> Result<u8, LockFailure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    runtime.block_on(async {
        let mut signals = ForwardedSignals::new().map_err(LockFailure::Signals)?;
        let LockArgs { peer, identity, connect_timeout, .. } = arguments;
        let client = tokio::select! {
            biased;
            signal = signals.next() => return Err(LockFailure::Cancelled(signal)),
            client = Client::connect(peer, identity, *connect_timeout) => client?,
        };
        let result = lock_and_run(arguments, &client, &mut signals).await;
        client.shutdown().await;
        result
    })
}

async fn lock_and_run(
    arguments: &LockArgs,
    client: &Client,
    signals: &mut ForwardedSignals,
) -> Result<u8, LockFailure> {
    let request = HoldRequest {
        resources: arguments.resources.clone(),
        read: arguments.read,
        timeout_ms: milliseconds(arguments.timeout),
        source: source(arguments),
    };
    let held = tokio::select! {
        biased;
        signal = signals.next() => return Err(LockFailure::Cancelled(signal)),
        held = LockHold::acquire(&client.connection, &request) => held,
    };
    let mut hold = held.map_err(|error| LockFailure::NotHeld {
        resources: request.resources.clone(),
        error,
        conflict_exit_code: arguments.conflict_exit_code,
    })?;
    let ended = match start(arguments, &hold) {
        Ok(running) => supervise(&mut hold, running, signals).await?,
        Err(error) => CommandEnd::NotStarted(error),
    };
    match ended {
        CommandEnd::LockLost(lost) => Err(LockFailure::Lost { resources: request.resources, lost }),
        CommandEnd::Exited(code) => {
            hold.release().await;
            Ok(code)
        }
        CommandEnd::NotStarted(error) => {
            hold.release().await;
            Err(error.into())
        }
    }
}

fn start(arguments: &LockArgs, hold: &LockHold) -> Result<RunningCommand, SpawnError> {
    let token = OsString::from(hold.grant.token.to_string());
    let resources = OsString::from(arguments.resources.join("\n"));
    let environment = [
        ("GRIDWIRE_LOCK_TOKEN", token.as_os_str()),
        ("GRIDWIRE_LOCK_UID", OsStr::new(&hold.grant.uid)),
        ("GRIDWIRE_LOCK_RESOURCES", resources.as_os_str()),
    ];
    RunningCommand::start(&arguments.command, environment, SignalTarget::of_stdin())
}

/// How a command ended.
enum CommandEnd {
    /// It exited, with this exit code.
    Exited(u8),
    /// It was terminated because the lock was lost.
    LockLost(LossCause),
    /// It could not be started.
    NotStarted(SpawnError),
}

/// Waits for the end of the command. If the lock is lost first, terminates the command.
async fn supervise(
    hold: &mut LockHold,
    mut running: RunningCommand,
    signals: &mut ForwardedSignals,
) -> Result<CommandEnd, LockFailure> {
    let lost = {
        let lost = hold.wait_lost();
        tokio::pin!(lost);
        loop {
            tokio::select! {
                biased;
                lost = &mut lost => break lost,
                status = running.wait() => {
                    return Ok(CommandEnd::Exited(exit_code(status.map_err(LockFailure::Wait)?)));
                }
                signal = signals.next() => running.forward(signal),
            }
        }
    };
    running.terminate().await.map_err(LockFailure::Wait)?;
    Ok(CommandEnd::LockLost(lost))
}

/// Identifies this tool in lists of locks.
fn source(arguments: &LockArgs) -> String {
    let program = arguments.command.first().map(|program| program.to_string_lossy());
    format!("gridwire lock, process {}: {}", std::process::id(), program.unwrap_or_default())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
