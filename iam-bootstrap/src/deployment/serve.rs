//! What this server answers to others about the deployment.

use std::collections::BTreeSet;
use std::sync::Arc;

use grid::{HandlerError, Manager, Name, RegisterError, RequestContext};

use super::cell::DeploymentCell;
use super::conflict::{Conflict, Conflicts};
use super::id::DeploymentId;
use super::keeper::{Keeper, Question};
use super::proto::{Answer, Ballot, Request, Vote};
use super::wire::{DEPLOYMENT, DeploymentAnswer, DeploymentArgs};

/// What this server's own attempts and those of others share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) cell: Arc<DeploymentCell>,
    pub(crate) keeper: Keeper,
    pub(crate) conflicts: Conflicts,
    /// Those among whom a majority decides, this one among them.
    pub(crate) servers: BTreeSet<Name>,
    /// See [`members`](super::wire::members).
    pub(crate) members: u64,
}

/// Serves the handler. It does not keep the manager alive.
pub(crate) fn register(manager: &Manager, inner: &Arc<Inner>) -> Result<(), RegisterError> {
    let inner = Arc::clone(inner);
    DEPLOYMENT.register(manager, move |context: RequestContext, args| {
        let (inner, caller) = (Arc::clone(&inner), context.caller().clone());
        async move { inner.serve(&caller, args).await }
    })
}

impl Inner {
    async fn serve(
        &self,
        caller: &Name,
        args: DeploymentArgs,
    ) -> Result<DeploymentAnswer, HandlerError> {
        let request = self.check(caller, args)?;
        let answer = self
            .keeper
            .ask(Question::Asked(request.clone()))
            .await
            .map_err(|error| HandlerError::from(error.to_string()))?;
        if let Request::Learn { id } = request {
            self.note(caller, id, &answer);
        }
        Ok(DeploymentAnswer::of(&answer))
    }

    /// A server and this one have told each other their ids.
    pub(crate) fn note(&self, peer: &Name, theirs: DeploymentId, answer: &Answer) {
        match answer {
            Answer::Conflict { ours } => {
                self.conflicts.found(&Conflict { ours: *ours, theirs, peer: peer.clone() });
            }
            Answer::Decided { id } if *id == theirs => self.conflicts.settled(peer),
            Answer::Decided { .. }
            | Answer::Promised { .. }
            | Answer::Accepted
            | Answer::Refused { .. } => {}
        }
    }

    /// What a question means, if this caller may ask it.
    fn check(&self, caller: &Name, args: DeploymentArgs) -> Result<Request, HandlerError> {
        if !self.servers.contains(caller) {
            return Err(format!("{caller} is not one of the servers of this deployment").into());
        }
        let members = args.members;
        let request = args.to_request()?;
        match &request {
            Request::Learn { .. } => {}
            Request::Prepare { ballot } | Request::Accept(Vote { ballot, .. }) => {
                self.check_ballot(caller, ballot, members)?;
            }
        }
        Ok(request)
    }

    fn check_ballot(
        &self,
        caller: &Name,
        ballot: &Ballot,
        members: u64,
    ) -> Result<(), HandlerError> {
        if *ballot.node != *caller.as_str() {
            return Err(format!("{caller} cannot use a ballot of another server").into());
        }
        if members != self.members {
            let count = self.servers.len();
            return Err(format!(
                "the lists of servers differ: this server knows {count}; start all with the same list"
            )
            .into());
        }
        Ok(())
    }
}
