//! The life of one remote: connect, run, back off, again (B03, B04).
//!
//! One task for each remote owns its connections, one after the other. It is the only place where a
//! connection begins or ends, so nothing else can cause a reconnect, and a connection that
//! supersedes another does so in order.

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
use super::websocket::{self, WebSocket};
use crate::buggify::Point;
use crate::manager_state::ManagerState;
use crate::proto::backoff::Backoff;
use crate::proto::connection::CloseReason;
use crate::proto::handshake::{Dialler, InstanceId};
use crate::shared::{ConnectionState, SharedRef};
use crate::stats::{Failure, FailureKind};

/// A connection whose handshake is done, from the accepting end.
pub(crate) struct AcceptedConnection {
    pub(crate) socket: WebSocket,
    pub(crate) instance: InstanceId,
    /// Place among the dials of this remote: one that was overtaken by a later one is stale.
    pub(crate) order: u64,
}

/// What one remote's task works with.
pub(crate) struct RemoteTask {
    pub(crate) state: Arc<ManagerState>,
    pub(crate) shared: SharedRef,
    pub(crate) dialler: Dialler,
    pub(crate) accepted: mpsc::Receiver<AcceptedConnection>,
    pub(crate) seed: u64,
    /// Order of the newest connection that was accepted.
    pub(crate) newest: Option<u64>,
}

/// The next accepted connection that is newer than `newest`. An older one came late: its dialler has
/// given it up for the one that is known. Never resolves once nobody can accept any more.
async fn newer_than(accepted: &mut mpsc::Receiver<AcceptedConnection>, newest: Option<u64>) -> AcceptedConnection {
    while let Some(next) = accepted.recv().await {
        if newest.is_none_or(|newest| next.order > newest) {
            return next;
        }
    }
    std::future::pending().await
}

impl RemoteTask {
    /// Lives until the manager shuts down. An open connection ends by itself then, in good order;
    /// every other wait is cut short.
    pub(crate) async fn live(mut self) {
        // A transport, an authenticator or a socket of the application may panic. That must not
        // cost the remote: it is one more failure, to be tried again after the longest wait.
        while let Err(panic) = AssertUnwindSafe(self.live_once()).catch_unwind().await {
            let cause = format!("panicked: {}", panic_text(panic));
            tracing::error!(target: "grid", remote = %self.shared.remote(), cause, "a connection");
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

    async fn live_once(&mut self) {
        match self.dialler {
            Dialler::Local => self.dial_forever().await,
            Dialler::Remote => self.accept_forever().await,
        }
    }

    async fn dial_forever(&mut self) {
        let mut rng = SmallRng::seed_from_u64(self.seed);
        let mut backoff = Backoff::new(&self.state.limits);
        let mut shutdown = self.state.shutdown.subscribe();
        loop {
            self.shared.set_disconnected_state(ConnectionState::Connecting);
            let dialled = tokio::select! {
                biased;
                _ = shutdown.wait_for(|ended| *ended) => return,
                dialled = dial::dial(&self.state, self.shared.remote()) => dialled,
            };
            match dialled {
                Ok((socket, instance)) => {
                    let connected_at = self.shared.now();
                    if self.run(socket, instance).await == CloseReason::Shutdown {
                        return;
                    }
                    backoff.connection_ended(connected_at, self.shared.now());
                }
                Err(error) => {
                    self.shared.record_failure(error.failure());
                    self.log_failure(&error);
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
                        accepted = newer_than(&mut self.accepted, self.newest) => accepted,
                    }
                }
            };
            let AcceptedConnection { socket, instance, order } = accepted;
            self.newest = Some(order);
            let (reason, newer) = self.run_until_superseded(socket, instance).await;
            if reason == CloseReason::Shutdown {
                return;
            }
            next = newer;
        }
    }

    /// Runs a connection that was dialled here, to its end.
    async fn run(&self, socket: WebSocket, instance: InstanceId) -> CloseReason {
        let Ok(mut driver) = self.attach(socket, instance) else {
            return CloseReason::Shutdown;
        };
        if let Some(wait) = self.state.rare.strike(Point::Supersede) {
            return self.run_until_forgotten(driver, wait).await;
        }
        let reason = (&mut driver).await;
        self.finish(driver, &reason).await;
        reason
    }

    /// Runs a connection to its end, or forgets about it after `wait`, as a host that lost its state
    /// would: the other end hears nothing of that before the next dial.
    async fn run_until_forgotten(&self, mut driver: Driver, wait: Duration) -> CloseReason {
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
                self.log_failure(&CloseReason::Superseded);
                return CloseReason::Superseded;
            }
        };
        self.finish(driver, &reason).await;
        reason
    }

    /// Runs a connection that was accepted, to its end or until a newer one is there (B03).
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
            newer = newer_than(&mut self.accepted, self.newest) => {
                (CloseReason::Superseded, Some(newer))
            }
        };
        self.finish(driver, &reason).await;
        (reason, newer)
    }

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
        Ok(Driver::new(socket, dispatcher, &self.state.rare))
    }

    /// Ends the socket of a connection that is over.
    async fn finish(&self, driver: Driver, reason: &CloseReason) {
        let closing = websocket::close(driver.end(reason.clone()), self.state.limits.close_timeout);
        match reason {
            CloseReason::Shutdown => return closing.await,
            // The peer may still listen. Nothing here waits for it: the next connection must not.
            CloseReason::Peer | CloseReason::Protocol(_) | CloseReason::Superseded => {
                tokio::spawn(closing);
            }
            // Nobody listens, or nothing can be said.
            CloseReason::PingTimeout { .. }
            | CloseReason::ControlOverrun { .. }
            | CloseReason::Transport(_) => drop(closing),
        }
        self.log_failure(reason);
    }

    /// The network fails; that is expected, and no error of this server (B41).
    fn log_failure(&self, cause: &dyn std::fmt::Display) {
        let remote = self.shared.remote();
        if self.state.log_throttle.allows(remote.as_str(), self.shared.now()) {
            tracing::warn!(
                target: "grid", %remote, %cause,
                "not connected; trying again, without further word for an hour"
            );
        } else {
            tracing::debug!(target: "grid", %remote, %cause, "not connected");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::net::websocket::Metered;

    async fn accepted(order: u64) -> AcceptedConnection {
        let socket = Metered::new(Box::new(tokio::io::duplex(64).0));
        let socket = WebSocket::from_raw_socket(socket, Role::Server, None).await;
        AcceptedConnection { socket, instance: InstanceId::default(), order }
    }

    #[tokio::test]
    async fn b03_a_connection_that_comes_late_supersedes_no_newer_one() {
        let (sender, mut receiver) = mpsc::channel(4);
        for order in [5, 3, 6] {
            sender.send(accepted(order).await).await.expect("there is room");
        }
        assert_eq!(newer_than(&mut receiver, None).await.order, 5);
        assert_eq!(newer_than(&mut receiver, Some(5)).await.order, 6);
    }
}
