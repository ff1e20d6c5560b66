//! The hidden subcommand that becomes the command.
//!
//! It runs between the tool and the command, in the command's process: it has the kernel send
//! SIGTERM when its parent dies, checks that the parent still lives, and executes the command, which
//! keeps that setting. The tool cannot prepare this between `fork` and `exec` without `unsafe`.
//!
//! The setting ends when the command is a set-user-ID program; then the watchdog alone remains.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use rustix::process::{Signal, getppid};
use tokio::process::Command;

/// Name of the subcommand.
pub(super) const SUBCOMMAND: &str = "__exec";

/// Why a command was not executed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("cannot run {program:?}: {cause}")]
    NotExecuted { program: OsString, cause: io::Error },
    #[error("cannot have the command end with this tool: {0}")]
    DeathSignal(io::Error),
    #[error("the tool that was to run the command has ended")]
    Orphaned,
    #[error("no command to run")]
    Empty,
}

impl ExecError {
    /// Returns the exit code that `env` and shells use.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotExecuted { cause, .. } if cause.kind() == io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }
}

/// Returns this program, to run one of its subcommands.
///
/// # Errors
///
/// On other systems than Linux: that the program's path is unknown.
pub(super) fn own_program() -> io::Result<PathBuf> {
    // Not its path: an upgrade may have replaced the file.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Ok(PathBuf::from("/proc/self/exe"));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    std::env::current_exe()
}

/// Returns a command line that executes `command`, given as the program and its arguments, as long
/// as the calling process lives.
///
/// It must be spawned by a thread that lives as long as the process: the kernel considers the
/// thread the parent.
pub(super) fn command_line(command: &[OsString]) -> io::Result<Command> {
    let mut line = Command::new(own_program()?);
    line.arg0("gridwire").arg(SUBCOMMAND).arg(std::process::id().to_string());
    line.arg("--").args(command);
    Ok(line)
}

/// Executes the command. Returns only if that fails.
pub(crate) fn run(parent: i32, command: &[OsString]) -> ExecError {
    let [program, arguments @ ..] = command else { return ExecError::Empty };
    if let Err(error) = end_with_parent() {
        return ExecError::DeathSignal(error);
    }
    // The parent may have died before the kernel knew that this process wants to know.
    if getppid().is_none_or(|actual| actual.as_raw_nonzero().get() != parent) {
        return ExecError::Orphaned;
    }
    let cause = std::process::Command::new(program).args(arguments).exec();
    ExecError::NotExecuted { program: program.clone(), cause }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn end_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn end_with_parent() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_of_a_dead_parent_is_not_executed() {
        // No process is its own parent.
        let parent = std::process::id().try_into().expect("small");
        let error = run(parent, &["/does/not/exist".into()]);
        // The setting is this test process's own.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        rustix::process::set_parent_process_death_signal(None).expect("it was set before");
        assert!(matches!(error, ExecError::Orphaned), "{error}");
    }
}
