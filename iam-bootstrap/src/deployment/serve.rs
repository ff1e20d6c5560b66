//! Handler for Paxos requests of other servers.

use std::collections::BTreeSet;
use std::sync::Arc;

use grid::{HandlerError, Manager, Name, RegisterError, RequestContext};

use super::acceptor_task::{AcceptorHandle, AcceptorRequest};
use super::cell::DeploymentCell;
use super::conflict::{Conflict, Conflicts};
use super::id::DeploymentId;
use super::proto::{Ballot, PaxosRequest, PaxosResponse, Vote};
use super::wire::{DEPLOYMENT, DeploymentArgs, DeploymentResponse};

/// State shared by this server's own attempts and the handler.
#[derive(Debug)]
pub(crate) struct DeploymentInner {
    pub(crate) cell: Arc<DeploymentCell>,
    pub(crate) acceptor: AcceptorHandle,
    pub(crate) conflicts: Conflicts,
    /// Servers among which a majority decides, this one included.
    pub(crate) servers: BTreeSet<Name>,
    /// Hash of the servers' names; see [`members`](super::wire::members).
    pub(crate) members: u64,
}

/// Registers the handler. It does not keep the manager alive.
pub(crate) fn register(
    manager: &Manager,
    inner: &Arc<DeploymentInner>,
) -> Result<(), RegisterError> {
    let inner = Arc::clone(inner);
    DEPLOYMENT.register(manager, move |context: RequestContext, args| {
        let (inner, caller) = (Arc::clone(&inner), context.caller().clone());
        async move { inner.handle_request(&caller, args).await }
    })
}

impl DeploymentInner {
    async fn handle_request(
        &self,
        caller: &Name,
        args: DeploymentArgs,
    ) -> Result<DeploymentResponse, HandlerError> {
        let request = self.check_request(caller, args)?;
        let response = self
            .acceptor
            .request(AcceptorRequest::Paxos(request.clone()))
            .await
            .map_err(|error| HandlerError::from(error.to_string()))?;
        if let PaxosRequest::Learn { id } = request {
            self.update_conflict(caller, id, &response);
        }
        Ok(DeploymentResponse::of(&response))
    }

    /// Updates the recorded conflict after an exchange of ids with a peer.
    pub(crate) fn update_conflict(
        &self,
        peer: &Name,
        theirs: DeploymentId,
        response: &PaxosResponse,
    ) {
        match response {
            PaxosResponse::Conflict { ours } => {
                self.conflicts.record_conflict(&Conflict {
                    ours: *ours,
                    theirs,
                    peer: peer.clone(),
                });
            }
            PaxosResponse::Decided { id } if *id == theirs => self.conflicts.resolve(peer),
            PaxosResponse::Decided { .. }
            | PaxosResponse::Promised { .. }
            | PaxosResponse::Accepted
            | PaxosResponse::Refused { .. } => {}
        }
    }

    /// Parses a request and checks that the caller may send it.
    fn check_request(
        &self,
        caller: &Name,
        args: DeploymentArgs,
    ) -> Result<PaxosRequest, HandlerError> {
        if !self.servers.contains(caller) {
            return Err(format!("{caller} is not one of the servers of this deployment").into());
        }
        let members = args.members;
        let request = args.to_request()?;
        match &request {
            PaxosRequest::Learn { .. } => {}
            PaxosRequest::Prepare { ballot } | PaxosRequest::Accept(Vote { ballot, .. }) => {
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
