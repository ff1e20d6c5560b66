//! The command that runs while the lock is held.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Time between SIGTERM and SIGKILL.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Offset of the exit code of a command that a signal terminated, as in shells.
const SIGNAL_OFFSET: i32 = 128;

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {program:?}: {cause}")]
pub(crate) struct SpawnError {
    program: OsString,
    cause: io::Error,
}

impl SpawnError {
    /// Returns the exit code that `env` and shells use.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.cause.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }
}

/// The processes that get a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalTarget {
    /// The command and its descendants, in their own process group.
    Group,
    /// The command alone. It shares this tool's process group, because a background group could not
    /// read from the terminal.
    Process,
}

impl SignalTarget {
    /// Chooses the target: the process alone if the standard input is a terminal.
    pub(crate) fn of_stdin() -> Self {
        match io::stdin().is_terminal() {
            true => Self::Process,
            false => Self::Group,
        }
    }
}

/// A running command. Dropping it before its end kills it.
#[derive(Debug)]
pub(crate) struct RunningCommand {
    child: Child,
    pid: Option<Pid>,
    target: SignalTarget,
}

impl RunningCommand {
    /// Starts a command, given as the program and its arguments.
    pub(crate) fn start<'a>(
        command: &[OsString],
        environment: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
        target: SignalTarget,
    ) -> Result<Self, SpawnError> {
        let [program, arguments @ ..] = command else {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "it is empty");
            return Err(SpawnError { program: OsString::new(), cause });
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(environment).kill_on_drop(true);
        if target == SignalTarget::Group {
            command.process_group(0);
        }
        let child =
            command.spawn().map_err(|cause| SpawnError { program: program.clone(), cause })?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Self { child, pid, target })
    }

    /// Waits for the end of the command. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends a signal, unless the command has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        // After it was waited for, another process may have its pid.
        if let (Some(pid), Some(_)) = (self.pid, self.child.id()) {
            self.send(pid, signal);
        }
    }

    /// Forwards a signal that this tool received.
    pub(crate) fn forward(&self, signal: Signal) {
        // The terminal signals the whole group, so the command has it already. A second signal
        // would make many programs abort.
        let has_it =
            self.target == SignalTarget::Process && [Signal::INT, Signal::QUIT].contains(&signal);
        if !has_it {
            self.signal(signal);
        }
    }

    fn send(&self, pid: Pid, signal: Signal) {
        let sent = match self.target {
            SignalTarget::Group => kill_process_group(pid, signal),
            SignalTarget::Process => kill_process(pid, signal),
        };
        // Most likely the command has just ended.
        if let Err(error) = sent {
            tracing::debug!(?pid, ?signal, %error, "signal not sent");
        }
    }

    /// Sends SIGTERM, and SIGKILL if the command does not end in time. Its descendants get one
    /// SIGTERM, and are killed when the command has ended.
    pub(crate) async fn terminate(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        // A stopped process handles the signal only once it continues.
        self.signal(Signal::CONT);
        let status = match timeout(TERMINATE_TIMEOUT, self.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                self.signal(Signal::KILL);
                self.wait().await?
            }
        };
        if let (SignalTarget::Group, Some(pid)) = (self.target, self.pid) {
            // The group's id is not reused as long as it has members.
            self.send(pid, Signal::KILL);
        }
        Ok(status)
    }
}

/// Returns the exit code that a shell would return.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNAL_OFFSET + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> RunningCommand {
        let command = ["sh", "-c", script].map(OsString::from);
        let token = OsString::from("17");
        let target = SignalTarget::Group;
        RunningCommand::start(&command, [("GRIDWIRE_LOCK_TOKEN", token.as_os_str())], target)
            .expect("there is a shell")
    }

    #[tokio::test]
    async fn exit_codes_pass_through_and_signals_map_as_in_shells() {
        let mut running = start("exit $GRIDWIRE_LOCK_TOKEN");
        assert_eq!(exit_code(running.wait().await.expect("it ends")), 17);
        let mut running = start("kill -KILL $$");
        assert_eq!(exit_code(running.wait().await.expect("it ends")), 137);
    }

    #[tokio::test]
    async fn missing_and_unexecutable_commands_have_distinct_exit_codes() {
        for (command, code) in [("/does/not/exist", 127), ("/", 126)] {
            let error = RunningCommand::start(&[command.into()], [], SignalTarget::Group)
                .expect_err(command);
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().contains(command), "{error}");
        }
    }

    #[tokio::test]
    async fn signal_reaches_the_whole_process_group() {
        let mut running = start("trap : TERM; sh -c 'kill -TERM 0; sleep 600'; exit 3");
        assert_eq!(exit_code(running.wait().await.expect("it ends")), 3);
    }

    /// A file to which a script writes its pid once it is set up.
    struct Ready(std::path::PathBuf);

    impl Ready {
        fn new(name: &str) -> Self {
            let file = std::env::temp_dir().join(format!("gridwire-{}-{name}", std::process::id()));
            let _ = std::fs::remove_file(&file);
            Self(file)
        }

        async fn pid(&self) -> i32 {
            loop {
                let written = std::fs::read_to_string(&self.0).unwrap_or_default();
                if let Some(pid) = written.strip_suffix('\n') {
                    return pid.parse().expect("a number");
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    impl Drop for Ready {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// A script that ignores SIGTERM.
    const IGNORES_SIGTERM: &str = "trap \"\" TERM; echo $$ > $FILE; while :; do sleep 0.05; done";

    #[tokio::test]
    async fn command_that_ignores_sigterm_is_killed() {
        let ready = Ready::new("stubborn");
        let running = start(&IGNORES_SIGTERM.replace("$FILE", &ready.0.display().to_string()));
        ready.pid().await;
        tokio::time::pause(); // the five seconds pass at once
        assert_eq!(exit_code(running.terminate().await.expect("it ends")), 137);
    }

    #[tokio::test]
    async fn remaining_descendants_are_killed() {
        let ready = Ready::new("left");
        let left = IGNORES_SIGTERM.replace("$FILE", &ready.0.display().to_string());
        let running = start(&format!("sh -c '{left}' & wait"));
        let pid = ready.pid().await;
        let status = running.terminate().await.expect("it ends");
        assert_eq!(exit_code(status), 143, "the command handles SIGTERM");
        let stat = format!("/proc/{pid}/stat");
        let is_alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while is_alive() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
