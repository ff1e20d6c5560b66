//! The handle on this server's deployment, and the attempts to decide its id.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grid::{CallError, CallOptions, Connection, Manager, TypedCallError};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::builder::DeploymentBuilder;
use super::cell::DeploymentCell;
use super::conflict::Conflict;
use super::id::DeploymentId;
use super::keeper::{KeepError, Question};
use super::proto::proposer::{NoAnswer, Output, Proposer, Timing};
use super::proto::{Answer, Request};
use super::serve::Inner;
use super::store::{DeploymentStore, DeploymentStoreError};
use super::wire::{DEPLOYMENT, DeploymentArgs};
use crate::limits::AGREE_ATTEMPTS_PER_LOG;

/// Why there will be no deployment id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreeError {
    /// What was kept cannot be used.
    #[error(transparent)]
    Store(DeploymentStoreError),
    /// The manager was shut down.
    #[error("this server is shutting down")]
    ShuttingDown,
}

/// This server's part in a deployment.
///
/// Keeps its manager alive. Dropped, it tells and asks no more; the handler goes on answering as long as
/// the manager lives.
#[derive(Debug)]
pub struct Deployment {
    pub(crate) inner: Arc<Inner>,
    /// This server's index among the servers.
    pub(crate) me: usize,
    /// To each server, in the order of their names; none to this one.
    pub(crate) connections: Vec<Option<Connection>>,
    pub(crate) timing: Timing,
    pub(crate) rng: Mutex<SmallRng>,
    /// Ended with it.
    pub(crate) _tellers: JoinSet<()>,
}

/// What came of a question.
#[derive(Debug)]
enum Done {
    Claimed(Result<Answer, NoAnswer>),
    Asked(usize, Request, Result<Answer, NoAnswer>),
    Ended(AgreeError),
}

impl Deployment {
    /// A part for the server of `manager`, which keeps what it has promised in `store`.
    pub fn builder(manager: &Manager, store: impl DeploymentStore) -> DeploymentBuilder {
        DeploymentBuilder::new(manager, Arc::new(store))
    }

    /// Where the id is read, once it is known.
    pub fn cell(&self) -> &Arc<DeploymentCell> {
        &self.inner.cell
    }

    /// The servers that belong to other deployments, as far as is known, in the order of their names.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.inner.conflicts.all()
    }

    /// Whether something may be taken from this server, or given to it.
    ///
    /// # Errors
    ///
    /// [`Conflict`] if it belongs to another deployment.
    pub fn check(&self, peer: &str) -> Result<(), Conflict> {
        self.inner.conflicts.of(peer).map_or(Ok(()), Err)
    }

    /// Waits until the id is known, and on disk here: what was kept of it, what other servers know, or
    /// what a majority of them decides now. Goes on for as long as no majority can be reached.
    ///
    /// A server whose store knew the id gets that one, whatever others say: see
    /// [`conflicts`](Self::conflicts).
    ///
    /// # Errors
    ///
    /// [`AgreeError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the attempt; what this server has promised it keeps. It may be called
    /// again, also several times at once.
    pub async fn agree(&self) -> Result<DeploymentId, AgreeError> {
        tokio::select! {
            biased;
            id = self.inner.cell.wait() => Ok(id),
            end = Box::pin(self.propose()) => end,
        }
    }

    async fn propose(&self) -> Result<DeploymentId, AgreeError> {
        let rng = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            SmallRng::from_rng(&mut *rng)
        };
        let servers = self.connections.len();
        let mut proposer = Proposer::new(self.me, servers, self.timing.clone(), rng);
        let mut calls = JoinSet::new();
        let mut timer = Timer::default();
        let mut attempts: u32 = 0;
        loop {
            while let Some(output) = proposer.poll_output() {
                if matches!(output, Output::Claim { .. }) {
                    calls.abort_all(); // those of earlier attempts
                    self.log_attempt(attempts);
                    attempts = attempts.saturating_add(1);
                }
                self.begin(output, &mut calls);
            }
            if let Some(id) = proposer.decided() {
                return self.learn(id).await;
            }
            timer.set(proposer.poll_timeout());
            tokio::select! {
                biased;
                Some(done) = calls.join_next() => match done {
                    Ok(Done::Claimed(answer)) => proposer.handle_claim(answer),
                    Ok(Done::Asked(from, asked, answer)) => {
                        proposer.handle_answer(from, &asked, &answer);
                    }
                    Ok(Done::Ended(error)) => return Err(error),
                    Err(_aborted) => {}
                },
                epoch = timer.expired() => proposer.handle_timeout(epoch),
            }
        }
    }

    /// Says once in a while why there is no id yet.
    fn log_attempt(&self, attempts: u32) {
        if attempts > 0 && attempts.is_multiple_of(AGREE_ATTEMPTS_PER_LOG) {
            let is_connected =
                |connection: &&Connection| connection.state() == grid::ConnectionState::Connected;
            let connected = self.connections.iter().flatten().filter(is_connected).count();
            let servers = self.connections.len();
            tracing::info!(
                target: "bootstrap", attempts, connected,
                "no majority of {servers} servers has decided on a deployment id yet; trying again"
            );
        }
    }

    /// Does what the proposer wants.
    fn begin(&self, output: Output, calls: &mut JoinSet<Done>) {
        let inner = Arc::clone(&self.inner);
        let (to, request) = match output {
            Output::Claim { above } => {
                calls.spawn(async move {
                    match inner.keeper.ask(Question::Claim { above }).await {
                        Ok(answer) => Done::Claimed(Ok(answer)),
                        Err(error) => no_answer(error).map_or_else(Done::Ended, Done::Claimed),
                    }
                });
                return;
            }
            Output::Send { to, request } => (to, request),
        };
        match self.connections.get(to).cloned().flatten() {
            Some(connection) => {
                let limit = self.timing.attempt_timeout;
                calls.spawn(async move {
                    match ask(&connection, &request, inner.members, limit).await {
                        Ok(answer) => Done::Asked(to, request, answer),
                        Err(error) => Done::Ended(error),
                    }
                });
            }
            None => {
                calls.spawn(async move {
                    match inner.keeper.ask(Question::Asked(request.clone())).await {
                        Ok(answer) => Done::Asked(to, request, Ok(answer)),
                        Err(error) => no_answer(error)
                            .map_or_else(Done::Ended, |none| Done::Asked(to, request, none)),
                    }
                });
            }
        }
    }

    /// Keeps what was decided, however often that must be tried.
    async fn learn(&self, id: DeploymentId) -> Result<DeploymentId, AgreeError> {
        loop {
            match self.inner.keeper.ask(Question::Asked(Request::Learn { id })).await {
                Ok(Answer::Decided { id } | Answer::Conflict { ours: id }) => return Ok(id),
                Ok(Answer::Promised { .. } | Answer::Accepted | Answer::Refused { .. }) => {}
                Err(error) => {
                    let _ = no_answer(error)?;
                }
            }
            tokio::time::sleep(self.timing.retry_max).await;
        }
    }
}

/// Whether a failure of this server's own memory leaves anything to hope for.
fn no_answer(error: KeepError) -> Result<Result<Answer, NoAnswer>, AgreeError> {
    match error {
        KeepError::Gone => Err(AgreeError::ShuttingDown),
        KeepError::Store(error @ DeploymentStoreError::Corrupt { .. }) => {
            Err(AgreeError::Store(error))
        }
        KeepError::Overloaded | KeepError::Store(DeploymentStoreError::Unavailable { .. }) => {
            tracing::warn!(target: "bootstrap", %error, "nothing can be promised now; trying again");
            Ok(Err(NoAnswer))
        }
    }
}

/// Asks another server, as soon as it is connected.
async fn ask(
    connection: &Connection,
    request: &Request,
    members: u64,
    limit: Duration,
) -> Result<Result<Answer, NoAnswer>, AgreeError> {
    let args = DeploymentArgs::of(request, members);
    let asked = tokio::time::timeout(limit, async {
        connection.wait_connected().await?;
        let options = CallOptions::default().timeout(limit);
        DEPLOYMENT.call_with(connection, &args, options).await
    });
    let answer = match asked.await {
        Ok(Ok(answer)) => answer.to_answer(request),
        Ok(Err(TypedCallError::Call(CallError::Shutdown))) => return Err(AgreeError::ShuttingDown),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => return Ok(Err(NoAnswer)),
    };
    Ok(answer.map_err(|error| {
        let peer = connection.remote();
        tracing::debug!(target: "bootstrap", %peer, error, "no answer about the deployment id");
        NoAnswer
    }))
}

/// The proposer's one wait.
#[derive(Debug, Default)]
struct Timer(Option<(u64, Pin<Box<Sleep>>)>);

impl Timer {
    fn set(&mut self, wait: Option<(u64, Duration)>) {
        if self.0.as_ref().map(|(epoch, _)| *epoch) != wait.map(|(epoch, _)| epoch) {
            self.0 = wait.map(|(epoch, wait)| (epoch, Box::pin(tokio::time::sleep(wait))));
        }
    }

    /// Whose wait is over; never, if there is none.
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
