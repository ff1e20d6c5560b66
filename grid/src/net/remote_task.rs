//! The task of one remote: connect, run the connection, back off, repeat ([B03], [B04]).
//!
//! The task owns the remote's connections, one after the other. Connections begin and end nowhere
//! else, so nothing else can cause a reconnect, and connections supersede each other in order.
//!
//! [B03]: crate::rules#b03
//! [B04]: crate::rules#b04

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;

use super::dial;
use super::dispatch::{Dispatcher, panic_text};
use super::driver::Driver;
use super::manager_state::{AcceptedConnection, ManagerState};
use super::websocket::{self, WebSocket};
use crate::backoff::Backoff;
use crate::buggify::FaultPoint;
use crate::proto::connection::CloseReason;
use crate::proto::handshake::{Dialer, InstanceId};
use crate::shared::SharedRef;
use crate::stats::{ConnectionState, Failure, FailureKind};

/// State of one remote's task.
pub(crate) struct RemoteTask {
    pub(crate) state: Arc<ManagerState>,
    pub(crate) shared: SharedRef,
    /// Direction in which connections are dialed.
    pub(crate) dialer: Dialer,
    pub(crate) accepted: mpsc::Receiver<AcceptedConnection>,
    pub(crate) seed: u64,
    /// Sequence number of the newest accepted connection.
    pub(crate) newest_seq: Option<u64>,
}

/// Receives the next accepted connection that is newer than `newest_seq`. Discards older ones,
/// which their dialer has abandoned for the newer one. Never resolves once all senders are dropped.
async fn recv_newer(
    accepted: &mut mpsc::Receiver<AcceptedConnection>,
    newest_seq: Option<u64>,
) -> AcceptedConnection {
    while let Some(next) = accepted.recv().await {
        if newest_seq.is_none_or(|newest| next.dial_seq > newest) {
            return next;
        }
    }
    std::future::pending().await
}

impl RemoteTask {
    /// Runs until the manager shuts down. An open connection then closes by itself, gracefully;
    /// every other wait is interrupted.
    pub(crate) async fn run(mut self) {
        // The application's transport, authenticator or socket may panic. The remote must survive
        // that: it is handled as a failed connection, with the longest backoff.
        while let Err(panic) = AssertUnwindSafe(self.connect_forever()).catch_unwind().await {
            let cause = format!("panicked: {}", panic_text(panic));
            tracing::error!(
                target: "grid", remote = %self.shared.remote(), error = cause,
                retry_in = ?self.state.limits.backoff_max,
                "connection task panicked, reconnecting"
            );
            let kind = FailureKind::Unreachable;
            self.shared.record_failure(Failure { kind, cause: cause.into() });
            self.shared.set_disconnected_state(ConnectionState::Backoff);
            let mut shutdown = self.state.shutdown.subscribe();
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(self.state.limits.backoff_max) => {}
            }
        }
    }

    async fn connect_forever(&mut self) {
        match self.dialer {
            Dialer::Local => self.dial_forever().await,
            Dialer::Remote => self.accept_forever().await,
        }
    }

    async fn dial_forever(&mut self) {
        let mut rng = SmallRng::seed_from_u64(self.seed);
        let limits = self.state.limits.clone();
        let mut backoff = Backoff::new(limits.backoff_min, limits.backoff_max);
        let mut shutdown = self.state.shutdown.subscribe();
        loop {
            self.shared.set_disconnected_state(ConnectionState::Connecting);
            let dialed = tokio::select! {
                biased;
                _ = shutdown.wait_for(|ended| *ended) => return,
                dialed = dial::dial(&self.state, self.shared.remote()) => dialed,
            };
            match dialed {
                Ok((socket, instance)) => {
                    let connected_at = self.shared.now();
                    if self.run_dialed(socket, instance).await == CloseReason::Shutdown {
                        return;
                    }
                    // Only a connection that lasted resets the waits: a remote that accepts and then
                    // fails at once is backed off from as well (B04).
                    if self.shared.now().since(connected_at) >= limits.backoff_reset_after {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    self.shared.record_failure(error.failure());
                    self.log_failure("connect failed, retrying", &error);
                }
            }
            self.shared.set_disconnected_state(ConnectionState::Backoff);
            let wait = backoff.next_wait(&mut rng);
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn accept_forever(&mut self) {
        let mut shutdown = self.state.shutdown.subscribe();
        let mut next = None;
        loop {
            let accepted = match next.take() {
                Some(accepted) => accepted,
                None => {
                    self.shared.set_disconnected_state(ConnectionState::Connecting);
                    tokio::select! {
                        biased;
                        _ = shutdown.wait_for(|ended| *ended) => return,
                        accepted = recv_newer(&mut self.accepted, self.newest_seq) => accepted,
                    }
                }
            };
            let AcceptedConnection { socket, instance, dial_seq } = accepted;
            self.newest_seq = Some(dial_seq);
            let (reason, newer) = self.run_until_superseded(socket, instance).await;
            if reason == CloseReason::Shutdown {
                return;
            }
            next = newer;
        }
    }

    /// Runs a connection that this server dialed, to its end.
    async fn run_dialed(&self, socket: WebSocket, instance: InstanceId) -> CloseReason {
        let Ok(mut driver) = self.attach(socket, instance) else {
            return CloseReason::Shutdown;
        };
        if let Some(wait) = self.state.fault_injector.inject(FaultPoint::Supersede) {
            return self.run_until_abandoned(driver, wait).await;
        }
        let reason = (&mut driver).await;
        self.finish(driver, &reason).await;
        reason
    }

    /// Runs a connection to its end, or abandons it after `wait`, like a host that lost its state:
    /// the other end is not notified before the next dial.
    async fn run_until_abandoned(&self, mut driver: Driver, wait: Duration) -> CloseReason {
        let reason = tokio::select! {
            biased;
            reason = &mut driver => reason,
            () = tokio::time::sleep(wait) => {
                let socket = driver.end(CloseReason::Superseded);
                let open_for = self.state.limits.handshake_timeout;
                tokio::spawn(async move {
                    tokio::time::sleep(open_for).await;
                    drop(socket);
                });
                self.log_failure("connection lost, reconnecting", &CloseReason::Superseded);
                return CloseReason::Superseded;
            }
        };
        self.finish(driver, &reason).await;
        reason
    }

    /// Runs an accepted connection to its end or until a newer one supersedes it ([B03]).
    ///
    /// [B03]: crate::rules#b03
    async fn run_until_superseded(
        &mut self,
        socket: WebSocket,
        instance: InstanceId,
    ) -> (CloseReason, Option<AcceptedConnection>) {
        let Ok(mut driver) = self.attach(socket, instance) else {
            return (CloseReason::Shutdown, None);
        };
        let (reason, newer) = tokio::select! {
            biased;
            reason = &mut driver => (reason, None),
            newer = recv_newer(&mut self.accepted, self.newest_seq) => {
                (CloseReason::Superseded, Some(newer))
            }
        };
        self.finish(driver, &reason).await;
        (reason, newer)
    }

    /// Makes a socket the remote's current connection.
    fn attach(&self, socket: WebSocket, instance: InstanceId) -> Result<Driver, CloseReason> {
        let epoch = self.shared.attach()?;
        tracing::info!(
            target: "grid", remote = %self.shared.remote(), ?instance, "connected"
        );
        let dispatcher = Dispatcher {
            registry: Arc::clone(&self.state.registry),
            tracer: Arc::clone(&self.state.tracer),
            shared: SharedRef::clone(&self.shared),
            epoch,
        };
        Ok(Driver::new(socket, dispatcher, &self.state.fault_injector))
    }

    /// Closes the socket of a connection that has ended.
    async fn finish(&self, driver: Driver, reason: &CloseReason) {
        let closing = websocket::close(driver.end(reason.clone()), self.state.limits.close_timeout);
        match reason {
            CloseReason::Shutdown => return closing.await,
            // The peer may still read the close. In the background: the next connection must not
            // wait.
            CloseReason::Peer | CloseReason::Protocol(_) | CloseReason::Superseded => {
                tokio::spawn(closing);
            }
            // The peer does not read, or the socket cannot be written to.
            CloseReason::PingTimeout { .. }
            | CloseReason::ControlOverrun { .. }
            | CloseReason::Transport(_) => drop(closing),
        }
        self.log_failure("connection lost, reconnecting", reason);
    }

    /// Logs a failure, throttled. WARN, not ERROR: network failures are expected ([B41]).
    ///
    /// [B41]: crate::rules#b41
    fn log_failure(&self, event: &str, error: &dyn std::fmt::Display) {
        let remote = self.shared.remote();
        if self.state.log_decision(remote.as_str()).is_log() {
            tracing::warn!(
                target: "grid", %remote, %error, "{event} (next log in 1 h)"
            );
        } else {
            tracing::debug!(target: "grid", %remote, %error, "{event}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::net::websocket::ReadLimited;

    async fn accepted(dial_seq: u64) -> AcceptedConnection {
        let socket = ReadLimited::new(Box::new(tokio::io::duplex(64).0));
        let socket = WebSocket::from_raw_socket(socket, Role::Server, None).await;
        AcceptedConnection { socket, instance: InstanceId::default(), dial_seq }
    }

    #[tokio::test]
    async fn b03_a_stale_connection_never_supersedes_a_newer_one() {
        let (sender, mut receiver) = mpsc::channel(4);
        for dial_seq in [5, 3, 6] {
            sender.send(accepted(dial_seq).await).await.expect("there is room");
        }
        assert_eq!(recv_newer(&mut receiver, None).await.dial_seq, 5);
        assert_eq!(recv_newer(&mut receiver, Some(5)).await.dial_seq, 6);
    }
}
