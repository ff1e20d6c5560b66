//! Agreement on one deployment id, for ever: single-decree Paxos, without any I/O.
//!
//! Every server is an [`acceptor`], whose [`State`](acceptor::State) is on disk before it answers; a server
//! that does not know the id is a [`proposer`] as well. An id is decided when a majority of all servers
//! has accepted it in one ballot. Whoever proposes in a later ballot has asked a majority first, one of
//! which has accepted that id and says so: it proposes the same. So nothing that is lost, late, doubled or
//! crashes can make two ids of one, as long as the list of servers stays the same until one is decided.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::DeploymentId;

pub mod acceptor;
pub mod proposer;

/// One attempt to decide. Higher ones win; no two servers, and no two attempts of one, have the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with each attempt. Attempts are in rounds from 1: the default is below all of them.
    pub round: u64,
    /// The server whose attempt it is, by name and not by number: lists may differ by mistake.
    pub node: Arc<str>,
}

/// An id that was accepted, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The ballot that it was accepted in.
    pub ballot: Ballot,
    /// The id.
    pub id: DeploymentId,
}

/// What a server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// To accept nothing in lower ballots any more, and to say what it has accepted so far.
    Prepare {
        /// The attempt.
        ballot: Ballot,
    },
    /// To accept an id.
    Accept(Vote),
    /// To take note of what was decided.
    Learn {
        /// The id.
        id: DeploymentId,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It will accept nothing in a ballot lower than this.
    Promised {
        /// The ballot that it was asked about.
        ballot: Ballot,
        /// What it accepted last.
        accepted: Option<Vote>,
    },
    /// It has accepted the id.
    Accepted,
    /// It has promised a higher ballot than it was asked about.
    Refused {
        /// That ballot.
        promised: Ballot,
    },
    /// The id is decided.
    Decided {
        /// The id.
        id: DeploymentId,
    },
    /// It was told another id than it knows.
    Conflict {
        /// The id that it knows.
        ours: DeploymentId,
    },
}
