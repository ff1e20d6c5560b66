//! The handle on this server's deployment, and its attempts to decide the id.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use grid::env::Env;
use grid::{CallError, CallOptions, Connection, Name, TypedCallError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::acceptor_task::{AcceptorError, AcceptorRequest};
use super::cell::DeploymentCell;
use super::conflict::Conflict;
use super::id::DeploymentId;
use super::proto::proposer::{NoResponse, Output, Proposer, Timing};
use super::proto::{PaxosRequest, PaxosResponse};
use super::serve::DeploymentInner;
use super::store::DeploymentStoreError;
use super::wire::{DEPLOYMENT, DeploymentArgs};
use crate::limits::AGREE_ATTEMPTS_PER_LOG;

/// Permanent error of [`Deployment::agree`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreeError {
    /// The stored state cannot be used.
    #[error(transparent)]
    Store(DeploymentStoreError),
    /// The manager was shut down.
    #[error("this server is shutting down")]
    ShuttingDown,
}

/// This server's membership in a deployment.
///
/// Keeps its manager alive. When dropped, it makes no further attempts or announcements; the
/// handler continues to respond as long as the manager lives.
#[derive(Debug)]
pub struct Deployment {
    pub(crate) inner: Arc<DeploymentInner>,
    /// This server's index among the servers.
    pub(crate) local_index: usize,
    /// Connection to each server, in the order of their names; `None` for this one.
    pub(crate) connections: Vec<Option<Connection>>,
    pub(crate) timing: Timing,
    pub(crate) env: Env,
    /// Announcer tasks, aborted on drop.
    pub(crate) _announcers: JoinSet<()>,
}

/// Outcome of a request to the local acceptor or to another server.
#[derive(Debug)]
enum RpcOutcome {
    Claimed(Result<PaxosResponse, NoResponse>),
    Responded(usize, PaxosRequest, Result<PaxosResponse, NoResponse>),
    Failed(AgreeError),
}

impl Deployment {
    /// Returns the cell from which the id is read.
    pub fn cell(&self) -> &Arc<DeploymentCell> {
        &self.inner.cell
    }

    /// Returns the servers known to belong to other deployments, in the order of their names.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.inner.conflicts.all()
    }

    /// Subscribes to the conflicts.
    pub(crate) fn conflict_changes(&self) -> watch::Receiver<BTreeMap<Name, Conflict>> {
        self.inner.conflicts.changes()
    }

    /// Returns the number of servers among which a majority decides.
    pub(crate) fn servers(&self) -> usize {
        self.inner.servers.len()
    }

    /// Checks whether data may be exchanged with a peer.
    ///
    /// # Errors
    ///
    /// [`Conflict`] if it belongs to another deployment.
    pub fn check(&self, peer: &str) -> Result<(), Conflict> {
        self.inner.conflicts.of(peer).map_or(Ok(()), Err)
    }

    /// Waits until the id is known, and on disk here: the stored id, the id that other servers
    /// know, or the id that a majority decides now. Retries for as long as no majority can be
    /// reached.
    ///
    /// A server with a stored id returns that one, whatever other servers report: see
    /// [`conflicts`](Self::conflicts).
    ///
    /// # Errors
    ///
    /// [`AgreeError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the attempt; promises of this server stay. May be called again,
    /// also concurrently.
    pub async fn agree(&self) -> Result<DeploymentId, AgreeError> {
        tokio::select! {
            biased;
            id = self.inner.cell.wait() => Ok(id),
            end = Box::pin(self.propose()) => end,
        }
    }

    async fn propose(&self) -> Result<DeploymentId, AgreeError> {
        let servers = self.connections.len();
        let rng = self.env.fork();
        let mut proposer = Proposer::new(self.local_index, servers, self.timing.clone(), rng);
        let mut rpcs = JoinSet::new();
        let mut timer = Timer::default();
        let mut attempts: u32 = 0;
        loop {
            while let Some(output) = proposer.poll_output() {
                if matches!(output, Output::Claim { .. }) {
                    rpcs.abort_all(); // requests of earlier attempts
                    self.log_attempt(attempts);
                    attempts = attempts.saturating_add(1);
                }
                self.spawn_output(output, &mut rpcs);
            }
            if let Some(id) = proposer.decided() {
                return self.persist_decision(id).await;
            }
            timer.set(proposer.poll_timeout());
            tokio::select! {
                biased;
                Some(outcome) = rpcs.join_next() => match outcome {
                    Ok(RpcOutcome::Claimed(response)) => proposer.handle_claim(response),
                    Ok(RpcOutcome::Responded(from, request, response)) => {
                        proposer.handle_response(from, &request, &response);
                    }
                    Ok(RpcOutcome::Failed(error)) => return Err(error),
                    Err(_aborted) => {}
                },
                epoch = timer.expired() => proposer.handle_timeout(epoch),
            }
        }
    }

    /// Logs at intervals that the id is still undecided.
    fn log_attempt(&self, attempts: u32) {
        if attempts > 0 && attempts.is_multiple_of(AGREE_ATTEMPTS_PER_LOG) {
            let is_connected =
                |connection: &&Connection| connection.state() == grid::ConnectionState::Connected;
            let connected = self.connections.iter().flatten().filter(is_connected).count();
            let servers = self.connections.len();
            tracing::info!(
                target: "bootstrap", attempts, connected, servers,
                "no majority for a deployment id yet, retrying"
            );
        }
    }

    /// Spawns the request that the proposer asks for.
    fn spawn_output(&self, output: Output, rpcs: &mut JoinSet<RpcOutcome>) {
        let inner = Arc::clone(&self.inner);
        let (to, request) = match output {
            Output::Claim { above } => {
                rpcs.spawn(async move {
                    match inner.acceptor.request(AcceptorRequest::Claim { above }).await {
                        Ok(response) => RpcOutcome::Claimed(Ok(response)),
                        Err(error) => {
                            no_response(error).map_or_else(RpcOutcome::Failed, RpcOutcome::Claimed)
                        }
                    }
                });
                return;
            }
            Output::Send { to, request } => (to, request),
        };
        match self.connections.get(to).cloned().flatten() {
            Some(connection) => {
                let limit = self.timing.attempt_timeout;
                rpcs.spawn(async move {
                    match send_request(&connection, &request, inner.members, limit).await {
                        Ok(response) => RpcOutcome::Responded(to, request, response),
                        Err(error) => RpcOutcome::Failed(error),
                    }
                });
            }
            None => {
                rpcs.spawn(async move {
                    match inner.acceptor.request(AcceptorRequest::Paxos(request.clone())).await {
                        Ok(response) => RpcOutcome::Responded(to, request, Ok(response)),
                        Err(error) => no_response(error).map_or_else(RpcOutcome::Failed, |none| {
                            RpcOutcome::Responded(to, request, none)
                        }),
                    }
                });
            }
        }
    }

    /// Persists the decided id, retrying until it succeeds.
    async fn persist_decision(&self, id: DeploymentId) -> Result<DeploymentId, AgreeError> {
        loop {
            match self
                .inner
                .acceptor
                .request(AcceptorRequest::Paxos(PaxosRequest::Learn { id }))
                .await
            {
                Ok(PaxosResponse::Decided { id } | PaxosResponse::Conflict { ours: id }) => {
                    return Ok(id);
                }
                Ok(
                    PaxosResponse::Promised { .. }
                    | PaxosResponse::Accepted
                    | PaxosResponse::Refused { .. },
                ) => {}
                Err(error) => {
                    let _ = no_response(error)?;
                }
            }
            tokio::time::sleep(self.timing.retry_max).await;
        }
    }
}

/// Returns the final error, or [`NoResponse`] if a retry of the local acceptor may succeed.
fn no_response(error: AcceptorError) -> Result<Result<PaxosResponse, NoResponse>, AgreeError> {
    match error {
        AcceptorError::Gone => Err(AgreeError::ShuttingDown),
        AcceptorError::Store(error @ DeploymentStoreError::Corrupt { .. }) => {
            Err(AgreeError::Store(error))
        }
        AcceptorError::Overloaded
        | AcceptorError::Store(DeploymentStoreError::Unavailable { .. }) => {
            tracing::warn!(target: "bootstrap", %error, "local acceptor request failed, retrying");
            Ok(Err(NoResponse))
        }
    }
}

/// Sends a request to another server as soon as it is connected.
async fn send_request(
    connection: &Connection,
    request: &PaxosRequest,
    members: u64,
    limit: Duration,
) -> Result<Result<PaxosResponse, NoResponse>, AgreeError> {
    let args = DeploymentArgs::of(request, members);
    let reply = tokio::time::timeout(limit, async {
        connection.wait_connected().await?;
        let options = CallOptions::default().timeout(limit);
        DEPLOYMENT.call_with(connection, &args, options).await
    });
    let response = match reply.await {
        Ok(Ok(response)) => response.to_response(request),
        Ok(Err(TypedCallError::Call(CallError::Shutdown))) => return Err(AgreeError::ShuttingDown),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => return Ok(Err(NoResponse)),
    };
    Ok(response.map_err(|error| {
        let peer = connection.remote();
        tracing::debug!(target: "bootstrap", %peer, error, "deployment request failed");
        NoResponse
    }))
}

/// The proposer's one timer.
#[derive(Debug, Default)]
struct Timer(Option<(u64, Pin<Box<Sleep>>)>);

impl Timer {
    fn set(&mut self, wait: Option<(u64, Duration)>) {
        if self.0.as_ref().map(|(epoch, _)| *epoch) != wait.map(|(epoch, _)| epoch) {
            self.0 = wait.map(|(epoch, wait)| (epoch, Box::pin(tokio::time::sleep(wait))));
        }
    }

    /// Returns the epoch whose wait has elapsed; never resolves without a timer.
    async fn expired(&mut self) -> u64 {
        match &mut self.0 {
            Some((epoch, sleep)) => {
                sleep.as_mut().await;
                *epoch
            }
            None => std::future::pending().await,
        }
    }
}
