//! The one task that owns this server's acceptor: it computes the response, saves the new state,
//! and only then responds.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::cell::DeploymentCell;
use super::proto::acceptor::{AcceptorState, Transition};
use super::proto::{PaxosRequest, PaxosResponse};
use super::store::{self, DeploymentStore, DeploymentStoreError};
use crate::limits::{
    DEPLOYMENT_LOAD_ATTEMPTS_PER_LOG, DEPLOYMENT_LOAD_RETRY, DEPLOYMENT_QUEUE_MAX,
};

/// Request to the acceptor task.
#[derive(Debug)]
pub(crate) enum AcceptorRequest {
    /// Promise this server's own next attempt.
    Claim { above: u64 },
    /// A Paxos request of a server.
    Paxos(PaxosRequest),
}

/// Error of a request to the acceptor task. Whether a promise was made is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AcceptorError {
    #[error(
        "{DEPLOYMENT_QUEUE_MAX} questions about the deployment wait already, which is the limit"
    )]
    Overloaded,
    #[error("this server is shutting down")]
    Gone,
    #[error(transparent)]
    Store(#[from] DeploymentStoreError),
}

struct AcceptorJob {
    request: AcceptorRequest,
    response: oneshot::Sender<Result<PaxosResponse, AcceptorError>>,
}

/// Handle on the acceptor task, which runs as long as a handle exists.
#[derive(Debug, Clone)]
pub(crate) struct AcceptorHandle(mpsc::Sender<AcceptorJob>);

impl AcceptorHandle {
    /// Starts the acceptor task of server `node`; a decided id is published in `cell`. Must be
    /// called inside a tokio runtime.
    pub(crate) fn start(
        node: Arc<str>,
        store: Arc<dyn DeploymentStore>,
        cell: Arc<DeploymentCell>,
    ) -> Self {
        let (sender, jobs) = mpsc::channel(DEPLOYMENT_QUEUE_MAX);
        tokio::spawn(AcceptorTask { node, store, cell, jobs }.run());
        Self(sender)
    }

    /// Returns the response once its promise is on disk.
    pub(crate) async fn request(
        &self,
        request: AcceptorRequest,
    ) -> Result<PaxosResponse, AcceptorError> {
        let (response, response_rx) = oneshot::channel();
        self.0.try_send(AcceptorJob { request, response }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AcceptorError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => AcceptorError::Gone,
        })?;
        response_rx.await.unwrap_or(Err(AcceptorError::Gone))
    }
}

struct AcceptorTask {
    node: Arc<str>,
    store: Arc<dyn DeploymentStore>,
    cell: Arc<DeploymentCell>,
    jobs: mpsc::Receiver<AcceptorJob>,
}

impl AcceptorTask {
    async fn run(mut self) {
        let mut state = match self.load().await {
            Ok(state) => state,
            Err(AcceptorError::Gone | AcceptorError::Overloaded) => return,
            Err(error) => return self.refuse(error).await,
        };
        self.publish(&state);
        while let Some(AcceptorJob { request, response }) = self.jobs.recv().await {
            if response.is_closed() {
                continue; // cancelled: a promise that no caller learns of would only block others
            }
            let outcome = self.handle(&mut state, &request).await;
            let _ = response.send(outcome); // the caller may have cancelled meanwhile
        }
    }

    async fn handle(
        &self,
        state: &mut AcceptorState,
        request: &AcceptorRequest,
    ) -> Result<PaxosResponse, AcceptorError> {
        let Transition { save, response } = match request {
            AcceptorRequest::Claim { above } => state.claim(&self.node, *above),
            AcceptorRequest::Paxos(request) => state.handle(request),
        };
        if let Some(next) = save {
            self.store.save(store::encode(&next)?).await?;
            *state = next;
            self.publish(state);
        }
        Ok(response)
    }

    fn publish(&self, state: &AcceptorState) {
        if let Some(id) = state.decided
            && let Err(error) = self.cell.set(id)
        {
            // The cell was set to another id elsewhere: other servers rely on the stored one.
            tracing::error!(
                target: "bootstrap", kept = %id, %error,
                "stored deployment id differs from the one in memory"
            );
        }
    }

    /// Loads the stored state, retrying until the store is available.
    async fn load(&self) -> Result<AcceptorState, AcceptorError> {
        let mut attempts: u32 = 0;
        loop {
            let cause = match self.store.load().await {
                Ok(Some(bytes)) => return Ok(store::decode(&bytes)?),
                Ok(None) => return Ok(AcceptorState::default()),
                Err(DeploymentStoreError::Unavailable { cause }) => cause,
                Err(error) => return Err(error.into()),
            };
            if self.jobs.is_closed() {
                return Err(AcceptorError::Gone);
            }
            if attempts.is_multiple_of(DEPLOYMENT_LOAD_ATTEMPTS_PER_LOG) {
                tracing::warn!(
                    target: "bootstrap", error = %cause, "deployment store unavailable, retrying"
                );
            }
            attempts = attempts.saturating_add(1);
            tokio::time::sleep(DEPLOYMENT_LOAD_RETRY).await;
        }
    }

    /// Refuses all requests with the error: no promise can be made.
    async fn refuse(mut self, error: AcceptorError) {
        tracing::error!(
            target: "bootstrap", %error,
            "deployment state unreadable, refusing all deployment requests"
        );
        while let Some(job) = self.jobs.recv().await {
            let _ = job.response.send(Err(error.clone()));
        }
    }
}
