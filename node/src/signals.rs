//! Signals that stop the process, or that it forwards to its child process.

use std::io;

/// Waits for the first SIGINT or SIGTERM (Ctrl-C on other systems than Unix). Returns its name.
pub(crate) async fn wait_for_stop_signal() -> io::Result<&'static str> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            biased;
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await?;
        Ok("Ctrl-C")
    }
}

/// Signals that a tool forwards to its child process instead of terminating.
#[cfg(unix)]
pub(crate) struct ForwardedSignals([(rustix::process::Signal, tokio::signal::unix::Signal); 4]);

#[cfg(unix)]
impl ForwardedSignals {
    /// Installs the handlers: from now on, none of these signals terminates this process.
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::process::Signal;
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([
            (Signal::TERM, signal(SignalKind::terminate())?),
            (Signal::INT, signal(SignalKind::interrupt())?),
            (Signal::HUP, signal(SignalKind::hangup())?),
            (Signal::QUIT, signal(SignalKind::quit())?),
        ]))
    }

    /// Returns the next signal. Cancel safe: dropping the future loses no signal.
    pub(crate) async fn next(&mut self) -> rustix::process::Signal {
        std::future::poll_fn(|cx| {
            for (number, signals) in &mut self.0 {
                if signals.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
