//! The tool's side of the watchdog, which ends the command when the tool no longer can.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::command::wait_ended;
use super::deadlines::Deadlines;
use super::exec::own_program;
use super::watch::{self, Message};

/// Longest wait until the watchdog runs.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no watchdog. The command is not started without one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchdogError {
    #[error("cannot start the watchdog process: {0}")]
    Start(#[from] io::Error),
    #[error("the watchdog process does not respond within {START_TIMEOUT:?}")]
    Silent,
    #[error("the watchdog process has ended")]
    Ended,
    #[error("the lock is not confirmed")]
    Unconfirmed,
}

/// The watchdog process. If this is dropped, the watchdog considers the tool dead.
pub(super) struct Watchdog {
    /// Not killed on drop: it outlives a tool that panics.
    child: Child,
    pid: Pid,
    messages: pipe::Sender,
}

impl Watchdog {
    /// Starts the watchdog, in a process group of its own.
    pub(super) async fn start() -> Result<Self, WatchdogError> {
        let mut child = Command::new(own_program()?)
            .arg0("gridwire")
            .arg(watch::SUBCOMMAND)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let (Some(pid), Some(input), Some(output)) = (id, child.stdin.take(), child.stdout.take())
        else {
            return Err(WatchdogError::Ended);
        };
        let messages = pipe::Sender::from_owned_fd(input.into_owned_fd()?)?;
        let output = pipe::Receiver::from_owned_fd(output.into_owned_fd()?)?;
        let starting = async {
            ready(&output).await?;
            Ok::<_, WatchdogError>(messages.writable().await?)
        };
        timeout(START_TIMEOUT, starting).await.map_err(|_| WatchdogError::Silent)??;
        Ok(Self { child, pid, messages })
    }

    /// Returns the id of its process group, for the command to join.
    pub(super) fn group(&self) -> Pid {
        self.pid
    }

    /// Reports that a command is about to be started, in the watchdog's group, under a lock that is
    /// valid as long as these deadlines say.
    pub(super) fn command_starts(&self, deadlines: Deadlines) -> io::Result<()> {
        self.send(Message::Confirmed(deadlines))?;
        self.send(Message::Started)
    }

    /// Reports the command's process, which may leave the watchdog's group.
    pub(super) fn command_is(&self, pid: Pid) -> io::Result<()> {
        self.send(Message::Command(pid))
    }

    fn send(&self, message: Message) -> io::Result<()> {
        send(&self.messages, message)
    }

    /// Returns the part that reports confirmations, and a future that resolves when the watchdog
    /// has ended, which is not expected before the command's end.
    pub(super) fn split(&self) -> (Reporter<'_>, impl Future<Output = ()>) {
        let Self { pid, messages, .. } = self;
        let pid = *pid;
        let ended = async move {
            // It is not reaped: the id of its group, which the command may have left, stays its own.
            if let Err(error) = wait_ended(pid).await {
                tracing::debug!(%error, "cannot wait for the watchdog");
            }
        };
        (Reporter(messages), ended)
    }

    /// Ends the watchdog: the command has ended, or was never started.
    pub(super) async fn end(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "watchdog not killed");
        }
    }
}

/// Reports to the watchdog that the lock is confirmed.
pub(super) struct Reporter<'a>(&'a pipe::Sender);

impl Reporter<'_> {
    /// Reports that the lock is confirmed.
    pub(super) fn confirm(&self, deadlines: Deadlines) {
        // A watchdog that has ended is noticed elsewhere. One that is stopped for so long that the
        // pipe is full ends the command when it continues.
        if let Err(error) = send(self.0, Message::Confirmed(deadlines)) {
            tracing::debug!(%error, "confirmation not sent to the watchdog");
        }
    }
}

/// Sends a message without waiting: a watchdog that is stopped must not stop the tool.
fn send(messages: &pipe::Sender, message: Message) -> io::Result<()> {
    // A short write to a pipe is all or nothing.
    messages.try_write(format!("{message}\n").as_bytes()).map(|_| ())
}

/// Waits until the watchdog has written that it is ready.
async fn ready(output: &pipe::Receiver) -> Result<(), WatchdogError> {
    let mut received = Vec::new();
    loop {
        output.readable().await?;
        let mut chunk = [0; 64];
        match output.try_read(&mut chunk) {
            Ok(0) => return Err(WatchdogError::Ended),
            Ok(count) => received.extend(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if received.strip_suffix(b"\n") == Some(watch::READY.as_bytes()) {
            return Ok(());
        }
    }
}
