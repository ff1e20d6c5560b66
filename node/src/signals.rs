//! When somebody wants the process to stop, or the command that it runs.

use std::io;

/// Returns at the first SIGINT or SIGTERM (Ctrl-C elsewhere than on Unix), with its name.
pub(crate) async fn stop_requested() -> io::Result<&'static str> {
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

/// The signals that a tool which runs a command passes on to it, and does not end by itself.
#[cfg(unix)]
pub(crate) struct PassedOn([(rustix::process::Signal, tokio::signal::unix::Signal); 4]);

#[cfg(unix)]
impl PassedOn {
    /// From now on, none of them ends this process.
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

    /// The next one. Dropping the future loses none.
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
