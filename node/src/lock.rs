//! `gridwire lock`: a command that runs while a lock is held.
//!
//! What is said to the server is in `lock_service`. `hold` is the lock as seen from here, `certainty` how long it may
//! be believed in, `command` the command. This file is the order in which they act, and what comes of
//! it.

mod certainty;
mod command;
mod hold;

use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use rustix::process::Signal;

use self::command::{Reach, Running, SpawnError, exit_code};
use self::hold::{Hold, HoldError, Lost};
use crate::cli::LockArgs;
use crate::lock_service::wire::{HoldRequest, Refusal};
use crate::probe::{Probe, ProbeError};
use crate::signals::PassedOn;

/// The exit code when the server could not be asked: EX_UNAVAILABLE of sysexits.h.
const UNAVAILABLE: u8 = 69;

/// The exit code when the lock was lost: EX_TEMPFAIL of sysexits.h, "try again".
const LOST: u8 = 75;

/// What shells add to the number of a signal.
const KILLED_BY: u8 = 128;

/// Why there was no command, or it did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockFailure {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("{} is not locked: {error}", list(.resources))]
    NotHeld { resources: Vec<String>, error: HoldError, conflict_exit_code: u8 },
    #[error("given up by {0:?} before there was a lock")]
    GivenUp(Signal),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("{} is locked no more, and the command was ended: {lost}", list(.resources))]
    Lost { resources: Vec<String>, lost: Lost },
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("cannot wait for the command: {0}")]
    Wait(io::Error),
}

impl LockFailure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Probe(error) if error.exit_code() == 2 => 2,
            Self::Probe(_) | Self::Signals(_) | Self::Wait(_) => UNAVAILABLE,
            Self::NotHeld { error, conflict_exit_code, .. } => match error {
                HoldError::Refused { reason: Refusal::TimedOut, .. } => *conflict_exit_code,
                HoldError::Refused { reason: Refusal::Invalid, .. } => 2,
                HoldError::LostAtOnce(_) => LOST,
                _ => UNAVAILABLE,
            },
            Self::GivenUp(signal) => {
                KILLED_BY.saturating_add(u8::try_from(signal.as_raw()).unwrap_or(u8::MAX))
            }
            Self::Spawn(error) => error.exit_code(),
            Self::Lost { .. } => LOST,
        }
    }
}

fn list(resources: &[String]) -> String {
    resources.join(", ")
}

/// Takes the lock, runs the command, lets go. Returns the command's exit code.
pub(crate) fn run(arguments: &LockArgs) -> Result<u8, LockFailure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(ProbeError::Runtime)?;
    runtime.block_on(async {
        let mut signals = PassedOn::new().map_err(LockFailure::Signals)?;
        let LockArgs { peer, entry, connect_timeout, .. } = arguments;
        let probe = tokio::select! {
            biased;
            signal = signals.next() => return Err(LockFailure::GivenUp(signal)),
            probe = Probe::connect(peer, entry, *connect_timeout) => probe?,
        };
        let result = lock_and_run(arguments, &probe, &mut signals).await;
        probe.leave().await;
        result
    })
}

async fn lock_and_run(
    arguments: &LockArgs,
    probe: &Probe,
    signals: &mut PassedOn,
) -> Result<u8, LockFailure> {
    let request = HoldRequest {
        resources: arguments.resources.clone(),
        read: arguments.read,
        timeout_ms: milliseconds(arguments.timeout),
        source: source(arguments),
    };
    let held = tokio::select! {
        biased;
        signal = signals.next() => return Err(LockFailure::GivenUp(signal)),
        held = Hold::acquire(&probe.connection, &request) => held,
    };
    let mut hold = held.map_err(|error| LockFailure::NotHeld {
        resources: request.resources.clone(),
        error,
        conflict_exit_code: arguments.conflict_exit_code,
    })?;
    let ended = match start(arguments, &hold) {
        Ok(running) => supervise(&mut hold, running, signals).await?,
        Err(error) => Ended::Never(error),
    };
    match ended {
        Ended::Lost(lost) => Err(LockFailure::Lost { resources: request.resources, lost }),
        Ended::ByItself(code) => {
            hold.release().await;
            Ok(code)
        }
        Ended::Never(error) => {
            hold.release().await;
            Err(error.into())
        }
    }
}

fn start(arguments: &LockArgs, hold: &Hold) -> Result<Running, SpawnError> {
    let token = OsString::from(hold.grant.token.to_string());
    let resources = OsString::from(arguments.resources.join("\n"));
    let environment = [
        ("GRIDWIRE_LOCK_TOKEN", token.as_os_str()),
        ("GRIDWIRE_LOCK_UID", OsStr::new(&hold.grant.uid)),
        ("GRIDWIRE_LOCK_RESOURCES", resources.as_os_str()),
    ];
    Running::start(&arguments.command, environment, Reach::of_stdin())
}

/// How a command ended.
enum Ended {
    /// With this exit code.
    ByItself(u8),
    /// Because the lock was lost.
    Lost(Lost),
    /// It did not even start.
    Never(SpawnError),
}

/// Waits for the end of the command, or of the lock, which ends the command.
async fn supervise(
    hold: &mut Hold,
    mut running: Running,
    signals: &mut PassedOn,
) -> Result<Ended, LockFailure> {
    let lost = {
        let lost = hold.until_lost();
        tokio::pin!(lost);
        loop {
            tokio::select! {
                biased;
                lost = &mut lost => break lost,
                status = running.wait() => {
                    return Ok(Ended::ByItself(exit_code(status.map_err(LockFailure::Wait)?)));
                }
                signal = signals.next() => running.pass_on(signal),
            }
        }
    };
    running.end().await.map_err(LockFailure::Wait)?;
    Ok(Ended::Lost(lost))
}

/// Who asks, as it is shown to those who list locks.
fn source(arguments: &LockArgs) -> String {
    let program = arguments.command.first().map(|program| program.to_string_lossy());
    format!("gridwire lock, process {}: {}", std::process::id(), program.unwrap_or_default())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
