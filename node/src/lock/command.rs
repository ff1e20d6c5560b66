//! The command that runs while the lock is held: started, signalled, ended.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What a command that was asked to end gets before it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What shells add to the number of the signal that ended a command.
const KILLED_BY: i32 = 128;

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {program:?}: {cause}")]
pub(crate) struct SpawnError {
    program: OsString,
    cause: io::Error,
}

impl SpawnError {
    /// As `env` and shells have it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.cause.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The command and all that it started, which are a process group of their own.
    Group,
    /// The command alone, because it shares this tool's group: one of its own could not read from
    /// the terminal.
    Process,
}

impl Reach {
    /// What suits the standard input.
    pub(crate) fn of_stdin() -> Self {
        match io::stdin().is_terminal() {
            true => Self::Process,
            false => Self::Group,
        }
    }
}

/// A command that was started. Killed if it is dropped before it has ended.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pid: Option<Pid>,
    reach: Reach,
}

impl Running {
    /// Starts the first word with the others as its arguments.
    pub(crate) fn start<'a>(
        command: &[OsString],
        environment: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
        reach: Reach,
    ) -> Result<Self, SpawnError> {
        let [program, arguments @ ..] = command else {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "it is empty");
            return Err(SpawnError { program: OsString::new(), cause });
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(environment).kill_on_drop(true);
        if reach == Reach::Group {
            command.process_group(0);
        }
        let child =
            command.spawn().map_err(|cause| SpawnError { program: program.clone(), cause })?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Self { child, pid, reach })
    }

    /// Waits for its end. Dropping the future changes nothing.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        // Once it was waited for, its number may be another's.
        if let (Some(pid), Some(_)) = (self.pid, self.child.id()) {
            self.send(pid, signal);
        }
    }

    /// Passes on a signal that this tool got.
    pub(crate) fn pass_on(&self, signal: Signal) {
        // What is typed at a terminal it sends to all of the group, and so the command has it: a
        // second one would tell many programs to hurry.
        let has_it = self.reach == Reach::Process && [Signal::INT, Signal::QUIT].contains(&signal);
        if !has_it {
            self.signal(signal);
        }
    }

    fn send(&self, pid: Pid, signal: Signal) {
        let sent = match self.reach {
            Reach::Group => kill_process_group(pid, signal),
            Reach::Process => kill_process(pid, signal),
        };
        // Most likely it has just ended.
        if let Err(error) = sent {
            tracing::debug!(?pid, ?signal, %error, "a signal was not sent");
        }
    }

    /// Asks it to end, and makes it end if it does not. What it started is not asked twice: it is
    /// killed when the command has ended.
    pub(crate) async fn end(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        // One that is stopped would find the signal only when it goes on.
        self.signal(Signal::CONT);
        let status = match timeout(END_WITHIN, self.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                self.signal(Signal::KILL);
                self.wait().await?
            }
        };
        if let (Reach::Group, Some(pid)) = (self.reach, self.pid) {
            // As long as one of the group is left, nobody else gets its number.
            self.send(pid, Signal::KILL);
        }
        Ok(status)
    }
}

/// What a shell would say of it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| KILLED_BY + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Running {
        let command = ["sh", "-c", script].map(OsString::from);
        let token = OsString::from("17");
        Running::start(&command, [("GRIDWIRE_LOCK_TOKEN", token.as_os_str())], Reach::Group)
            .expect("there is a shell")
    }

    #[tokio::test]
    async fn a_command_s_exit_code_is_its_own_and_that_of_a_signal_as_in_shells() {
        let mut running = start("exit $GRIDWIRE_LOCK_TOKEN");
        assert_eq!(exit_code(running.wait().await.expect("it ends")), 17);
        let mut running = start("kill -KILL $$");
        assert_eq!(exit_code(running.wait().await.expect("it ends")), 137);
    }

    #[tokio::test]
    async fn a_command_that_cannot_be_run_is_told_from_one_that_is_not_there() {
        for (command, code) in [("/does/not/exist", 127), ("/", 126)] {
            let error = Running::start(&[command.into()], [], Reach::Group).expect_err(command);
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().contains(command), "{error}");
        }
    }

    #[tokio::test]
    async fn a_signal_reaches_what_the_command_started_too() {
        let mut running = start("trap : TERM; sh -c 'kill -TERM 0; sleep 600'; exit 3");
        assert_eq!(exit_code(running.wait().await.expect("it ends")), 3);
    }

    /// A file that a script writes its number to once it is as it should be.
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

    /// Does what TERM does not end.
    const STUBBORN: &str = "trap \"\" TERM; echo $$ > $FILE; while :; do sleep 0.05; done";

    #[tokio::test]
    async fn a_command_that_does_not_end_is_killed() {
        let ready = Ready::new("stubborn");
        let running = start(&STUBBORN.replace("$FILE", &ready.0.display().to_string()));
        ready.pid().await;
        tokio::time::pause(); // the five seconds pass at once
        assert_eq!(exit_code(running.end().await.expect("it ends")), 137);
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_killed() {
        let ready = Ready::new("left");
        let left = STUBBORN.replace("$FILE", &ready.0.display().to_string());
        let running = start(&format!("sh -c '{left}' & wait"));
        let pid = ready.pid().await;
        assert_eq!(exit_code(running.end().await.expect("it ends")), 143, "the command obeys");
        let stat = format!("/proc/{pid}/stat");
        let is_alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while is_alive() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
