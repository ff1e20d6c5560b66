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

/// Signals that end a process by default, and that it can handle. Not among them are those that
/// report a defect of this process itself, such as SIGABRT, and the real-time signals.
#[cfg(unix)]
const FORWARDED: &[rustix::process::Signal] = {
    use rustix::process::Signal;
    &[
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::SYS,
        Signal::XCPU,
        Signal::XFSZ,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Signal::POWER,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Signal::STKFLT,
    ]
};

/// Signals that stop a process by default, and that it can handle.
#[cfg(unix)]
const STOPPING: [rustix::process::Signal; 3] = {
    use rustix::process::Signal;
    [Signal::TSTP, Signal::TTIN, Signal::TTOU]
};

#[cfg(unix)]
fn handle(signal: rustix::process::Signal) -> io::Result<tokio::signal::unix::Signal> {
    let kind = tokio::signal::unix::SignalKind::from_raw(signal.as_raw());
    tokio::signal::unix::signal(kind)
}

/// Signals that a tool forwards to its child process instead of terminating.
#[cfg(unix)]
pub(crate) struct ForwardedSignals(Vec<(rustix::process::Signal, tokio::signal::unix::Signal)>);

#[cfg(unix)]
impl ForwardedSignals {
    /// Installs the handlers: from now on, none of these signals terminates this process.
    pub(crate) fn new() -> io::Result<Self> {
        let handled = FORWARDED.iter().map(|signal| Ok((*signal, handle(*signal)?)));
        Ok(Self(handled.collect::<io::Result<_>>()?))
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

/// Signals that have no effect on this process: those that a tool forwards, and those that stop it.
#[cfg(unix)]
pub(crate) struct SurvivedSignals {
    /// The handlers need a runtime, which does nothing.
    _runtime: tokio::runtime::Runtime,
}

#[cfg(unix)]
impl SurvivedSignals {
    /// Installs the handlers, which stay until the process ends.
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        for signal in FORWARDED.iter().chain(&STOPPING) {
            drop(handle(*signal)?); // the handler stays
        }
        drop(entered);
        Ok(Self { _runtime: runtime })
    }
}
