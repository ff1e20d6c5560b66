//! Tells another server the id, each time that it connects: it adopts it, or says that it has another.

use std::sync::Arc;
use std::time::Duration;

use grid::{CallOptions, Connection, ConnectionState};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::id::DeploymentId;
use super::proto::proposer::Timing;
use super::proto::{Answer, Request};
use super::serve::Inner;
use super::wire::{DEPLOYMENT, DeploymentArgs};

/// One server, who is told.
pub(crate) struct Teller {
    pub(crate) connection: Connection,
    pub(crate) inner: Arc<Inner>,
    pub(crate) timing: Timing,
    pub(crate) rng: SmallRng,
}

impl Teller {
    /// Goes on until the manager is shut down.
    pub(crate) async fn run(mut self) {
        let id = self.inner.cell.wait().await;
        let mut watch = self.connection.watch();
        loop {
            match watch.state() {
                ConnectionState::Connected => {
                    tokio::select! {
                        biased;
                        // Another connection may lead to a server that has restarted: it is told again.
                        _ = watch.changed() => continue,
                        () = self.tell(id) => {}
                    }
                }
                ConnectionState::Shutdown => return,
                ConnectionState::Connecting | ConnectionState::Backoff => {}
            }
            watch.changed().await;
        }
    }

    /// Tells until it is answered.
    async fn tell(&mut self, id: DeploymentId) {
        let mut ceiling = self.timing.retry_first;
        while let Err(error) = self.tell_once(id).await {
            let peer = self.connection.remote();
            tracing::debug!(target: "bootstrap", %peer, error, "a server was not told the deployment id");
            tokio::time::sleep(self.jittered(ceiling)).await;
            ceiling = (ceiling * 2).min(self.timing.retry_max);
        }
    }

    async fn tell_once(&self, id: DeploymentId) -> Result<(), String> {
        let request = Request::Learn { id };
        let options = CallOptions::default().timeout(self.timing.attempt_timeout);
        let args = DeploymentArgs::of(&request, self.inner.members);
        let answer = DEPLOYMENT.call_with(&self.connection, &args, options).await;
        let answer = answer.map_err(|error| error.to_string())?.to_answer(&request)?;
        let peer = self.connection.remote();
        match answer {
            // What is theirs to them is ours here.
            Answer::Conflict { ours: theirs } => {
                self.inner.note(peer, theirs, &Answer::Conflict { ours: id });
                Ok(())
            }
            Answer::Decided { id: theirs } => {
                self.inner.note(peer, theirs, &Answer::Decided { id });
                Ok(())
            }
            Answer::Promised { .. } | Answer::Accepted | Answer::Refused { .. } => {
                Err("the answer is to another question".to_owned())
            }
        }
    }

    fn jittered(&mut self, ceiling: Duration) -> Duration {
        ceiling.mul_f64(0.5 + 0.5 * self.rng.random::<f64>())
    }
}
