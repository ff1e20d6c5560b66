//! The one task that answers what this server has promised: it asks the acceptor, saves, and only then
//! tells.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::cell::DeploymentCell;
use super::proto::acceptor::{State, Step};
use super::proto::{Answer, Request};
use super::store::{self, DeploymentStore, DeploymentStoreError};
use crate::limits::{DEPLOYMENT_LOAD_RETRY, DEPLOYMENT_LOAD_TRIES_PER_LOG, DEPLOYMENT_QUEUE_MAX};

/// What the keeper is asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// Promise this server's own next attempt.
    Claim { above: u64 },
    /// A server's question.
    Asked(Request),
}

/// Why there is no answer. Whether anything was promised is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(
        "{DEPLOYMENT_QUEUE_MAX} questions about the deployment wait already, which is the limit"
    )]
    Overloaded,
    #[error("this server is shutting down")]
    Gone,
    #[error(transparent)]
    Store(#[from] DeploymentStoreError),
}

struct Job {
    question: Question,
    answer: oneshot::Sender<Result<Answer, KeepError>>,
}

/// Asks the keeper. It goes on as long as anybody has one of these.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(mpsc::Sender<Job>);

impl Keeper {
    /// Begins to keep what `node` has promised, and makes the id known in `cell`. Must be called inside a
    /// tokio runtime.
    pub(crate) fn start(
        node: Arc<str>,
        store: Arc<dyn DeploymentStore>,
        cell: Arc<DeploymentCell>,
    ) -> Self {
        let (sender, jobs) = mpsc::channel(DEPLOYMENT_QUEUE_MAX);
        tokio::spawn(Keeping { node, store, cell, jobs }.keep());
        Self(sender)
    }

    /// The answer, once what it promises is on disk.
    pub(crate) async fn ask(&self, question: Question) -> Result<Answer, KeepError> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Job { question, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => KeepError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => KeepError::Gone,
        })?;
        answered.await.unwrap_or(Err(KeepError::Gone))
    }
}

struct Keeping {
    node: Arc<str>,
    store: Arc<dyn DeploymentStore>,
    cell: Arc<DeploymentCell>,
    jobs: mpsc::Receiver<Job>,
}

impl Keeping {
    async fn keep(mut self) {
        let mut state = match self.load().await {
            Ok(state) => state,
            Err(KeepError::Gone | KeepError::Overloaded) => return,
            Err(error) => return self.refuse(error).await,
        };
        self.publish(&state);
        while let Some(Job { question, answer }) = self.jobs.recv().await {
            if answer.is_closed() {
                continue; // whoever asked has given up, and shall not find something promised
            }
            let done = self.answer(&mut state, &question).await;
            let _ = answer.send(done); // or given up meanwhile
        }
    }

    async fn answer(&self, state: &mut State, question: &Question) -> Result<Answer, KeepError> {
        let Step { save, answer } = match question {
            Question::Claim { above } => state.claim(&self.node, *above),
            Question::Asked(request) => state.handle(request),
        };
        if let Some(next) = save {
            self.store.save(store::encode(&next)?).await?;
            *state = next;
            self.publish(state);
        }
        Ok(answer)
    }

    fn publish(&self, state: &State) {
        if let Some(id) = state.decided
            && let Err(error) = self.cell.set(id)
        {
            // Somebody else has set the cell: what is kept is what other servers count on.
            tracing::error!(target: "bootstrap", kept = %id, %error, "two deployment ids in one server");
        }
    }

    /// What was kept, however long it takes until the store can tell.
    async fn load(&self) -> Result<State, KeepError> {
        let mut tries: u32 = 0;
        loop {
            let cause = match self.store.load().await {
                Ok(Some(bytes)) => return Ok(store::decode(&bytes)?),
                Ok(None) => return Ok(State::default()),
                Err(DeploymentStoreError::Unavailable { cause }) => cause,
                Err(error) => return Err(error.into()),
            };
            if self.jobs.is_closed() {
                return Err(KeepError::Gone);
            }
            if tries.is_multiple_of(DEPLOYMENT_LOAD_TRIES_PER_LOG) {
                tracing::warn!(
                    target: "bootstrap", %cause, "the deployment's store is unavailable; trying again"
                );
            }
            tries = tries.saturating_add(1);
            tokio::time::sleep(DEPLOYMENT_LOAD_RETRY).await;
        }
    }

    /// Nothing can be promised: everybody is told why.
    async fn refuse(mut self, error: KeepError) {
        tracing::error!(target: "bootstrap", %error, "this server cannot tell its deployment");
        while let Some(job) = self.jobs.recv().await {
            let _ = job.answer.send(Err(error.clone()));
        }
    }
}
