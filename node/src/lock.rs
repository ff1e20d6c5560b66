//! `gridwire lock`: runs a command while a lock is held.
//!
//! `lock_service` has the protocol with the server. `hold` is this end of the held lock, `validity`
//! how long it may be considered held, `deadlines` when the command must end, `command` the
//! command. This file runs them in order, and maps the result to exit codes.
//!
//! The command must not outlive the lock, whichever process dies or is stopped:
//!
//! ```text
//!   gridwire lock ──── confirmations ────► watchdog (`watch`), leads the process group
//!     │ holds the lock, and ends the         │ ends the group when the confirmations end
//!     │ command when it is lost              ▼ and the command's own, if it leads one
//!     └── starts ──► `exec` ── becomes ──► the command, in the watchdog's process group
//!                      └ gets SIGTERM from the kernel when the tool dies
//! ```
//!
//! If the tool dies or is stopped, the server keeps the lock until the end of the validity that it
//! last confirmed, which the watchdog knows too.

mod command;
mod deadlines;
mod exec;
mod hold;
mod validity;
mod watch;
mod watchdog;

use std::io;
use std::time::Duration;

use self::command::{RunningCommand, SignalTarget, SpawnError, exit_code};
use self::deadlines::SharedClock;
pub(crate) use self::exec::ExecError;
use self::hold::{HoldError, LockHold, LossCause, ReleaseWait};
use self::watchdog::{Watchdog, WatchdogError};
use crate::cli::{ExecArgs, LockArgs};
use crate::client::{Client, ClientError};
use crate::lock_service::wire::{HoldRequest, Refusal};
use crate::signals::ForwardedSignals;
use rustix::process::Signal;

/// Exit code if the server could not be reached: EX_UNAVAILABLE of sysexits.h.
const UNAVAILABLE: u8 = 69;

/// Exit code if the lock was lost: EX_TEMPFAIL of sysexits.h, "try again".
const LOST: u8 = 75;

/// Variable with the fencing token; not set without one, so that no command mistakes it for one.
const TOKEN_VARIABLE: &str = "GRIDWIRE_LOCK_TOKEN";

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
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Watchdog(#[from] WatchdogError),
    #[error("cannot watch: {0}")]
    Watch(io::Error),
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
            Self::Watchdog(_) | Self::Watch(_) => UNAVAILABLE,
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
            Self::Exec(error) => error.exit_code(),
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
        timeout_ms: milliseconds(arguments.wait_max()),
        source: source(arguments),
    };
    let watchdog = Watchdog::start().await?;
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
    let ended = match start(arguments, &hold, &watchdog) {
        Ok(running) => supervise(&mut hold, running, &watchdog, signals).await,
        Err(failure) => Err(failure),
    };
    watchdog.end().await;
    // The command has ended, or was never started. A server that still holds the lock, because it
    // has only reported the loss, waits for that.
    let waits = match &ended {
        Ok(CommandEnd::LockLost(_)) => ReleaseWait::Short,
        Ok(CommandEnd::Exited(_)) | Err(_) => ReleaseWait::Long,
    };
    hold.release(waits).await;
    match ended? {
        CommandEnd::Exited(code) => Ok(code),
        CommandEnd::LockLost(lost) => Err(LockFailure::Lost { resources: request.resources, lost }),
    }
}

fn start(
    arguments: &LockArgs,
    hold: &LockHold,
    watchdog: &Watchdog,
) -> Result<RunningCommand, LockFailure> {
    let deadlines = hold.deadlines().ok_or(WatchdogError::Unconfirmed)?;
    let target = SignalTarget::of_stdin(watchdog.group());
    let failed = |cause| {
        let program = arguments.command.first().cloned().unwrap_or_default();
        SpawnError { program, cause }
    };
    let mut command = exec::command_line(&arguments.command).map_err(failed)?;
    command
        .env_remove(TOKEN_VARIABLE)
        .envs(hold.grant.token.map(|token| (TOKEN_VARIABLE, token.to_string())))
        .env("GRIDWIRE_LOCK_UID", &hold.grant.uid)
        .env("GRIDWIRE_LOCK_RESOURCES", arguments.resources.join("\n"));
    watchdog.command_starts(deadlines).map_err(WatchdogError::Start)?;
    // On the main thread, which lives as long as this process: so does the command (`exec`).
    let running = RunningCommand::start(command, target).map_err(failed)?;
    if let Some(pid) = running.pid() {
        watchdog.command_is(pid).map_err(WatchdogError::Start)?;
    }
    Ok(running)
}

/// How a command ended.
enum CommandEnd {
    /// It exited, with this exit code.
    Exited(u8),
    /// It was terminated because the lock was lost.
    LockLost(LossCause),
}

/// Waits for the end of the command. If the lock is lost first, terminates the command.
async fn supervise(
    hold: &mut LockHold,
    mut running: RunningCommand,
    watchdog: &Watchdog,
    signals: &mut ForwardedSignals,
) -> Result<CommandEnd, LockFailure> {
    let lost = {
        let (confirmed, watchdog_ended) = watchdog.split();
        let lost = hold.wait_lost(|deadlines| confirmed.confirm(deadlines));
        tokio::pin!(lost, watchdog_ended);
        loop {
            tokio::select! {
                biased;
                lost = &mut lost => break lost,
                status = running.wait() => {
                    return Ok(CommandEnd::Exited(exit_code(status.map_err(LockFailure::Wait)?)));
                }
                _ = &mut watchdog_ended => break LossCause::NoWatchdog,
                signal = signals.next() => running.forward(signal),
            }
        }
    };
    let kill_at = hold.deadlines().map_or_else(SharedClock::now, |deadlines| deadlines.kill_at);
    running.terminate(kill_at).await.map_err(LockFailure::Wait)?;
    Ok(CommandEnd::LockLost(lost))
}

/// Becomes the command. Returns only if that fails.
pub(crate) fn exec(arguments: &ExecArgs) -> LockFailure {
    exec::run(arguments.parent, &arguments.command).into()
}

/// Runs the watchdog. Returns its exit code.
pub(crate) fn watch() -> Result<u8, LockFailure> {
    let is_signalled = watch::run().map_err(LockFailure::Watch)?;
    Ok(if is_signalled { LOST } else { 0 })
}

/// Identifies this tool in lists of locks.
fn source(arguments: &LockArgs) -> String {
    let program = arguments.command.first().map(|program| program.to_string_lossy());
    format!("gridwire lock, process {}: {}", std::process::id(), program.unwrap_or_default())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
