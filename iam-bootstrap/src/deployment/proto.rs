//! Agreement on one deployment id, forever: single-decree Paxos, without any I/O.
//!
//! Every server is an [`acceptor`], whose [`AcceptorState`](acceptor::AcceptorState) is on disk
//! before it responds; a server that does not know the id is a [`proposer`] as well. An id is
//! decided when a majority of all servers has accepted it in one ballot. A proposer of a later
//! ballot first prepares it at a majority; at least one acceptor of that majority has accepted the
//! id and reports it, so the proposer proposes the same id. Lost, late or duplicated messages and
//! crashes therefore never lead to two ids, as long as the list of servers stays the same until one
//! is decided.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::DeploymentId;

pub mod acceptor;
pub mod proposer;

/// One attempt to decide. The higher ballot wins; no two servers, and no two attempts of one
/// server, use the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with each attempt. Attempts use rounds from 1: the default is below all of them.
    pub round: u64,
    /// Name of the proposing server, not its index: lists of servers may differ by mistake.
    pub node: Arc<str>,
}

/// An accepted id and its ballot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Ballot in which the id was accepted.
    pub ballot: Ballot,
    /// The id.
    pub id: DeploymentId,
}

/// Request to an acceptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaxosRequest {
    /// Promise to accept nothing in lower ballots, and report the last accepted vote.
    Prepare {
        /// Ballot of the attempt.
        ballot: Ballot,
    },
    /// Accept an id.
    Accept(Vote),
    /// Record the decided id.
    Learn {
        /// The id.
        id: DeploymentId,
    },
}

/// Response of an acceptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaxosResponse {
    /// The acceptor will accept nothing in a ballot lower than this.
    Promised {
        /// Ballot of the request.
        ballot: Ballot,
        /// Vote that was accepted last.
        accepted: Option<Vote>,
    },
    /// The acceptor has accepted the id.
    Accepted,
    /// The acceptor has promised a higher ballot than that of the request.
    Refused {
        /// The promised ballot.
        promised: Ballot,
    },
    /// The id is decided.
    Decided {
        /// The id.
        id: DeploymentId,
    },
    /// The acceptor knows another id than that of the request.
    Conflict {
        /// The id that it knows.
        ours: DeploymentId,
    },
}
