//! What travels between servers about the deployment: msgpack maps, of which unknown keys are skipped and
//! missing ones have a meaning, so that they can grow.

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

use super::id::DeploymentId;
use super::proto::{Answer, Ballot, Request, Vote};

/// Agrees on the deployment's id, and tells it.
pub const DEPLOYMENT: SingleHandler<DeploymentArgs, DeploymentAnswer> =
    SingleHandler::new(HandlerId::new(143), "Deployment");

/// What a server is asked: one of the `ASK_` constants.
pub const ASK_PREPARE: u8 = 1;
/// To accept an id in a ballot.
pub const ASK_ACCEPT: u8 = 2;
/// To take note of the id that was decided.
pub const ASK_LEARN: u8 = 3;

/// It will accept nothing in a lower ballot.
pub const SAY_PROMISED: u8 = 1;
/// It has accepted the id.
pub const SAY_ACCEPTED: u8 = 2;
/// It has promised a higher ballot.
pub const SAY_REFUSED: u8 = 3;
/// The id is decided.
pub const SAY_DECIDED: u8 = 4;
/// It refuses the id: it belongs to another deployment, whose id it says.
pub const SAY_CONFLICT: u8 = 5;

/// A ballot as it travels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BallotArgs {
    /// Its round.
    #[serde(rename = "Round")]
    pub round: u64,
    /// The server whose attempt it is.
    #[serde(rename = "Node")]
    pub node: String,
}

/// A question about the deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentArgs {
    /// One of the `ASK_` constants.
    #[serde(rename = "Ask")]
    pub ask: u8,
    /// To prepare or accept: the ballot.
    #[serde(rename = "Ballot", skip_serializing_if = "Option::is_none")]
    pub ballot: Option<BallotArgs>,
    /// To accept or learn: the id.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<DeploymentId>,
    /// To prepare or accept: [`members`] of the servers among which a majority is sought.
    #[serde(rename = "Members", skip_serializing_if = "is_default")]
    pub members: u64,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentAnswer {
    /// One of the `SAY_` constants.
    #[serde(rename = "Say")]
    pub say: u8,
    /// What is promised, or was accepted last.
    #[serde(rename = "Ballot", skip_serializing_if = "Option::is_none")]
    pub ballot: Option<BallotArgs>,
    /// The id that was accepted, is decided, or is this server's own.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<DeploymentId>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A number that is the same for the same list of servers. A majority of one list says nothing about
/// that of another.
pub fn members<'a>(sorted_names: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for name in sorted_names {
        hasher.update(name.as_bytes());
        hasher.update(b"\n");
    }
    hasher.digest().max(1) // 0 is left for whoever says nothing
}

impl BallotArgs {
    fn of(ballot: &Ballot) -> Self {
        Self { round: ballot.round, node: ballot.node.to_string() }
    }
}

impl From<BallotArgs> for Ballot {
    fn from(args: BallotArgs) -> Self {
        Self { round: args.round, node: args.node.into() }
    }
}

impl DeploymentArgs {
    /// As a question travels.
    pub fn of(request: &Request, members: u64) -> Self {
        let (ask, ballot, id) = match request {
            Request::Prepare { ballot } => (ASK_PREPARE, Some(ballot), None),
            Request::Accept(vote) => (ASK_ACCEPT, Some(&vote.ballot), Some(vote.id)),
            Request::Learn { id } => (ASK_LEARN, None, Some(*id)),
        };
        let members = if ballot.is_some() { members } else { 0 };
        Self { ask, ballot: ballot.map(BallotArgs::of), id, members }
    }

    /// What it means.
    ///
    /// # Errors
    ///
    /// A text for whoever asked, if it means nothing.
    pub fn to_request(self) -> Result<Request, String> {
        let ballot = self.ballot.map(Ballot::from);
        match (self.ask, ballot, self.id) {
            (ASK_PREPARE, Some(ballot), _) => Ok(Request::Prepare { ballot }),
            (ASK_ACCEPT, Some(ballot), Some(id)) => Ok(Request::Accept(Vote { ballot, id })),
            (ASK_LEARN, _, Some(id)) => Ok(Request::Learn { id }),
            (ASK_PREPARE | ASK_ACCEPT | ASK_LEARN, _, _) => {
                Err("a ballot or an id is missing in a question about the deployment".to_owned())
            }
            (ask, _, _) => Err(format!("there is no question {ask} about the deployment")),
        }
    }
}

impl DeploymentAnswer {
    /// As an answer travels.
    pub fn of(answer: &Answer) -> Self {
        let (say, ballot, id) = match answer {
            Answer::Promised { accepted: None, .. } => (SAY_PROMISED, None, None),
            Answer::Promised { accepted: Some(vote), .. } => {
                (SAY_PROMISED, Some(&vote.ballot), Some(vote.id))
            }
            Answer::Accepted => (SAY_ACCEPTED, None, None),
            Answer::Refused { promised } => (SAY_REFUSED, Some(promised), None),
            Answer::Decided { id } => (SAY_DECIDED, None, Some(*id)),
            Answer::Conflict { ours } => (SAY_CONFLICT, None, Some(*ours)),
        };
        Self { say, ballot: ballot.map(BallotArgs::of), id }
    }

    /// What it means, as the answer to `asked`.
    ///
    /// # Errors
    ///
    /// A text, if it means nothing.
    pub fn to_answer(self, asked: &Request) -> Result<Answer, String> {
        let known = self.ballot.map(Ballot::from);
        match (self.say, known, self.id, asked) {
            (SAY_PROMISED, None, None, Request::Prepare { ballot }) => {
                Ok(Answer::Promised { ballot: ballot.clone(), accepted: None })
            }
            (SAY_PROMISED, Some(before), Some(id), Request::Prepare { ballot }) => {
                let accepted = Some(Vote { ballot: before, id });
                Ok(Answer::Promised { ballot: ballot.clone(), accepted })
            }
            (SAY_ACCEPTED, _, _, Request::Accept(_)) => Ok(Answer::Accepted),
            (SAY_REFUSED, Some(promised), _, Request::Prepare { .. } | Request::Accept(_)) => {
                Ok(Answer::Refused { promised })
            }
            (SAY_DECIDED, _, Some(id), _) => Ok(Answer::Decided { id }),
            (SAY_CONFLICT, _, Some(ours), Request::Learn { .. }) => Ok(Answer::Conflict { ours }),
            (say, ballot, id, _) => Err(format!(
                "{say} is no answer to that question (ballot {}, id {})",
                if ballot.is_some() { "given" } else { "missing" },
                if id.is_some() { "given" } else { "missing" },
            )),
        }
    }
}
