//! The command that runs while the lock is held.
//!
//! It starts in a group that it does not lead, so that it can leave it, as `timeout` and `setsid` do.
//! A signal then also goes to the group that it leads now, or to it alone. Its process id is its own
//! until it is reaped, and thus its signals precede that.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgid, kill_process, kill_process_group, waitid,
};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::deadlines::{SharedClock, TERMINATE_TIMEOUT};

/// Offset of the exit code of a command that a signal terminated, as in shells.
const SIGNAL_OFFSET: i32 = 128;

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {program:?}: {cause}")]
pub(crate) struct SpawnError {
    pub(super) program: OsString,
    pub(super) cause: io::Error,
}

impl SpawnError {
    /// Returns the exit code of a command that cannot be executed.
    pub(crate) fn exit_code(&self) -> u8 {
        126
    }
}

/// The processes that get a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalTarget {
    /// The command and its descendants: a process group that exists before the command runs.
    Group(Pid),
    /// The command alone. It shares this tool's process group, because a background group could not
    /// read from the terminal.
    Process,
}

impl SignalTarget {
    /// Chooses the target: the process alone if the standard input is a terminal.
    pub(crate) fn of_stdin(group: Pid) -> Self {
        match io::stdin().is_terminal() {
            true => Self::Process,
            false => Self::Group(group),
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
    /// Starts a command.
    pub(crate) fn start(mut command: Command, target: SignalTarget) -> io::Result<Self> {
        command.kill_on_drop(true);
        if let SignalTarget::Group(group) = target {
            command.process_group(group.as_raw_nonzero().get());
        }
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Self { child, pid, target })
    }

    /// Returns the process id; `None` once the command was reaped.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.child.id().and(self.pid)
    }

    /// Waits for the end of the command, and reaps it. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends a signal, unless the command was reaped.
    pub(crate) fn signal(&self, signal: Signal) {
        // After it was reaped, another process may have its pid.
        let Some(pid) = self.pid() else { return };
        let group = match self.target {
            SignalTarget::Group(group) => Some(group),
            SignalTarget::Process => None,
        };
        match signal {
            // Ends the watchdog too, which ends the command if this tool is stopped before.
            Signal::KILL => {
                signal_command(pid, None, signal);
                signal_group(group, signal);
            }
            // A command that leaves the group just now gets two signals, not none.
            _ => {
                signal_group(group, signal);
                signal_command(pid, group, signal);
            }
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

    /// Sends SIGTERM, and SIGKILL if the command does not end in time: within five seconds, and by
    /// `kill_at`. Its descendants get one SIGTERM, and are killed when the command has ended.
    pub(crate) async fn terminate(mut self, kill_at: SharedClock) -> io::Result<ExitStatus> {
        let kill_at = kill_at.min(SharedClock::now().after(TERMINATE_TIMEOUT));
        self.signal(Signal::TERM);
        // A stopped process handles the signal only once it continues.
        self.signal(Signal::CONT);
        if let Some(pid) = self.pid() {
            let has_ended = tokio::select! {
                biased;
                _ = wait_ended(pid) => true,
                () = kill_at.sleep_until() => false,
            };
            self.signal(Signal::KILL);
            if !has_ended {
                let _ = wait_ended(pid).await;
                // A killed command starts no further processes.
                self.signal(Signal::KILL);
            }
        }
        self.wait().await
    }
}

/// Signals the group that the command leads, or the command alone if it is in another than `group`,
/// which has the signal.
fn signal_command(pid: Pid, group: Option<Pid>, signal: Signal) {
    let actual = getpgid(Some(pid)).ok();
    if actual == Some(pid) {
        signal_group(Some(pid), signal);
    } else if group.is_none() || actual != group {
        log_unsent(pid, signal, kill_process(pid, signal));
    }
}

fn signal_group(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        log_unsent(group, signal, kill_process_group(group, signal));
    }
}

fn log_unsent(pid: Pid, signal: Signal, sent: Result<(), Errno>) {
    // Most likely the processes have just ended.
    if let Err(error) = sent {
        tracing::debug!(?pid, ?signal, %error, "signal not sent");
    }
}

/// Waits until a child process has ended. Does not reap it: its id stays its own. Cancel safe.
pub(super) async fn wait_ended(pid: Pid) -> io::Result<()> {
    let mut child_events = signal(SignalKind::child())?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::Pid(pid), options) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        // The stream lasts as long as the runtime.
        let _ = child_events.recv().await;
    }
}

/// Returns the exit code that a shell would return.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNAL_OFFSET + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The leader of the command's process group, as the watchdog is. It survives SIGTERM.
    struct Leader(Child);

    impl Leader {
        async fn start() -> Self {
            let mut command = Command::new("sh");
            command.args(["-c", "trap : TERM; echo; while :; do read line; done"]);
            command.process_group(0).kill_on_drop(true);
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let mut child = command.spawn().expect("there is a shell");
            // It has set its trap once it has written a line.
            let output = child.stdout.take().expect("it is piped").into_owned_fd().expect("a pipe");
            let output = tokio::net::unix::pipe::Receiver::from_owned_fd(output).expect("a pipe");
            output.readable().await.expect("it writes");
            Self(child)
        }

        fn target(&self) -> SignalTarget {
            let pid = self.0.id().expect("it runs").try_into().expect("small");
            SignalTarget::Group(Pid::from_raw(pid).expect("not 0"))
        }
    }

    async fn start(script: &str) -> (RunningCommand, Leader) {
        let leader = Leader::start().await;
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("GRIDWIRE_LOCK_TOKEN", "17");
        (RunningCommand::start(command, leader.target()).expect("there is a shell"), leader)
    }

    fn later() -> SharedClock {
        SharedClock::now().after(2 * TERMINATE_TIMEOUT)
    }

    #[tokio::test]
    async fn exit_codes_pass_through_and_signals_map_as_in_shells() {
        let (mut running, _leader) = start("exit $GRIDWIRE_LOCK_TOKEN").await;
        assert_eq!(exit_code(running.wait().await.expect("it ends")), 17);
        let (mut running, _leader) = start("kill -KILL $$").await;
        assert_eq!(exit_code(running.wait().await.expect("it ends")), 137);
    }

    #[tokio::test]
    async fn signal_reaches_the_whole_process_group() {
        let script = "trap : TERM; sh -c 'kill -TERM 0; sleep 600'; exit 3";
        let (mut running, _leader) = start(script).await;
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
        let script = IGNORES_SIGTERM.replace("$FILE", &ready.0.display().to_string());
        let (running, _leader) = start(&script).await;
        ready.pid().await;
        let kill_at = SharedClock::now().after(Duration::from_millis(50));
        assert_eq!(exit_code(running.terminate(kill_at).await.expect("it ends")), 137);
    }

    #[tokio::test]
    async fn command_in_a_group_of_its_own_is_killed_with_it() {
        let ready = Ready::new("own-group");
        let left = IGNORES_SIGTERM.replace("$FILE", &ready.0.display().to_string());
        for wrapper in ["timeout 600", "setsid"] {
            let (running, _leader) = start(&format!("exec {wrapper} sh -c '{left}'")).await;
            let pid = ready.pid().await;
            let kill_at = SharedClock::now().after(Duration::from_millis(50));
            let status = running.terminate(kill_at).await.expect("it ends");
            assert_eq!(exit_code(status), 137, "{wrapper}");
            wait_dead(pid).await;
            std::fs::remove_file(&ready.0).expect("it was written");
        }
    }

    #[tokio::test]
    async fn descendants_in_the_commands_own_group_are_killed_when_it_ends() {
        let ready = Ready::new("own-left");
        let left = IGNORES_SIGTERM.replace("$FILE", &ready.0.display().to_string());
        // The innermost script is a parameter, because it has quotes.
        let script = format!("set -- '{left}'; exec setsid sh -c 'sh -c \"$0\" & wait' \"$1\"");
        let (running, _leader) = start(&script).await;
        let pid = ready.pid().await;
        let status = running.terminate(later()).await.expect("it ends");
        assert_eq!(exit_code(status), 143, "the command handles SIGTERM");
        wait_dead(pid).await;
    }

    #[tokio::test]
    async fn remaining_descendants_are_killed() {
        let ready = Ready::new("left");
        let left = IGNORES_SIGTERM.replace("$FILE", &ready.0.display().to_string());
        let (running, _leader) = start(&format!("sh -c '{left}' & wait")).await;
        let pid = ready.pid().await;
        let status = running.terminate(later()).await.expect("it ends");
        assert_eq!(exit_code(status), 143, "the command handles SIGTERM");
        wait_dead(pid).await;
    }

    async fn wait_dead(pid: i32) {
        let stat = format!("/proc/{pid}/stat");
        let is_alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while is_alive() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
