//! Announces the id to another server on each connect: the server adopts it, or responds with its
//! own.

use std::sync::Arc;

use grid::backoff::Backoff;
use grid::{CallOptions, Connection, ConnectionState};
use rand::rngs::SmallRng;

use super::id::DeploymentId;
use super::proto::proposer::Timing;
use super::proto::{PaxosRequest, PaxosResponse};
use super::serve::DeploymentInner;
use super::wire::{DEPLOYMENT, DeploymentArgs};

/// Announces the id to one server.
pub(crate) struct Announcer {
    pub(crate) connection: Connection,
    pub(crate) inner: Arc<DeploymentInner>,
    pub(crate) timing: Timing,
    pub(crate) rng: SmallRng,
}

impl Announcer {
    /// Runs until the manager is shut down.
    pub(crate) async fn run(mut self) {
        let id = self.inner.cell.wait().await;
        let mut watch = self.connection.watch();
        loop {
            match watch.state() {
                ConnectionState::Connected => {
                    tokio::select! {
                        biased;
                        // A new connection may lead to a server that has restarted: announce again.
                        _ = watch.changed() => continue,
                        () = self.announce(id) => {}
                    }
                }
                ConnectionState::Shutdown => return,
                ConnectionState::Connecting | ConnectionState::Backoff => {}
            }
            watch.changed().await;
        }
    }

    /// Retries until the server responds.
    async fn announce(&mut self, id: DeploymentId) {
        let mut backoff = Backoff::new(self.timing.retry_first, self.timing.retry_max);
        while let Err(error) = self.announce_once(id).await {
            let peer = self.connection.remote();
            tracing::debug!(target: "bootstrap", %peer, error, "deployment id announcement failed");
            tokio::time::sleep(backoff.next_wait(&mut self.rng)).await;
        }
    }

    async fn announce_once(&self, id: DeploymentId) -> Result<(), String> {
        let request = PaxosRequest::Learn { id };
        let options = CallOptions::default().timeout(self.timing.attempt_timeout);
        let args = DeploymentArgs::of(&request, self.inner.members);
        let response = DEPLOYMENT.call_with(&self.connection, &args, options).await;
        let response = response.map_err(|error| error.to_string())?.to_response(&request)?;
        let peer = self.connection.remote();
        match response {
            // The peer's "ours" is the other deployment's id from this server's point of view.
            PaxosResponse::Conflict { ours: theirs } => {
                self.inner.update_conflict(peer, theirs, &PaxosResponse::Conflict { ours: id });
                Ok(())
            }
            PaxosResponse::Decided { id: theirs } => {
                self.inner.update_conflict(peer, theirs, &PaxosResponse::Decided { id });
                Ok(())
            }
            PaxosResponse::Promised { .. }
            | PaxosResponse::Accepted
            | PaxosResponse::Refused { .. } => {
                Err("the response does not match the request".to_owned())
            }
        }
    }
}
