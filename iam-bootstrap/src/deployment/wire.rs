//! Messages between servers about the deployment: msgpack maps. They can grow: unknown keys are
//! skipped, and missing keys have a default.

use grid::{HandlerId, SingleHandler};
use serde::{Deserialize, Serialize};

use super::id::DeploymentId;
use super::proto::{Ballot, PaxosRequest, PaxosResponse, Vote};

/// Carries the agreement on the deployment id, and its announcement.
pub const DEPLOYMENT: SingleHandler<DeploymentArgs, DeploymentResponse> =
    SingleHandler::new(HandlerId::new(143), "Deployment");

/// Promise a ballot: [`PaxosRequest::Prepare`].
pub const REQUEST_PREPARE: u8 = 1;
/// Accept an id in a ballot: [`PaxosRequest::Accept`].
pub const REQUEST_ACCEPT: u8 = 2;
/// Record the decided id: [`PaxosRequest::Learn`].
pub const REQUEST_LEARN: u8 = 3;

/// The server will accept nothing in a lower ballot.
pub const RESPONSE_PROMISED: u8 = 1;
/// The server has accepted the id.
pub const RESPONSE_ACCEPTED: u8 = 2;
/// The server has promised a higher ballot.
pub const RESPONSE_REFUSED: u8 = 3;
/// The id is decided.
pub const RESPONSE_DECIDED: u8 = 4;
/// The server belongs to another deployment, whose id it returns.
pub const RESPONSE_CONFLICT: u8 = 5;

/// Wire form of a ballot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BallotArgs {
    /// Round of the ballot.
    #[serde(rename = "Round")]
    pub round: u64,
    /// Name of the proposing server.
    #[serde(rename = "Node")]
    pub node: String,
}

/// Request about the deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentArgs {
    /// One of the `REQUEST_` constants.
    #[serde(rename = "Ask")]
    pub request_kind: u8,
    /// Prepare and accept: the ballot.
    #[serde(rename = "Ballot", skip_serializing_if = "Option::is_none")]
    pub ballot: Option<BallotArgs>,
    /// Accept and learn: the id.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<DeploymentId>,
    /// Prepare and accept: [`members`] of the servers among which a majority is sought.
    #[serde(rename = "Members", skip_serializing_if = "is_default")]
    pub members: u64,
}

/// Response about the deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentResponse {
    /// One of the `RESPONSE_` constants.
    #[serde(rename = "Say")]
    pub response_kind: u8,
    /// Promised ballot, or ballot of the last accepted vote.
    #[serde(rename = "Ballot", skip_serializing_if = "Option::is_none")]
    pub ballot: Option<BallotArgs>,
    /// Accepted id, decided id, or this server's own id.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<DeploymentId>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Returns a hash of a list of servers. A majority of one list means nothing for another list.
pub fn members<'a>(sorted_names: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for name in sorted_names {
        hasher.update(name.as_bytes());
        hasher.update(b"\n");
    }
    hasher.digest().max(1) // 0 means that the sender did not set it
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
    /// Converts a request to its wire form.
    pub fn of(request: &PaxosRequest, members: u64) -> Self {
        let (request_kind, ballot, id) = match request {
            PaxosRequest::Prepare { ballot } => (REQUEST_PREPARE, Some(ballot), None),
            PaxosRequest::Accept(vote) => (REQUEST_ACCEPT, Some(&vote.ballot), Some(vote.id)),
            PaxosRequest::Learn { id } => (REQUEST_LEARN, None, Some(*id)),
        };
        let members = if ballot.is_some() { members } else { 0 };
        Self { request_kind, ballot: ballot.map(BallotArgs::of), id, members }
    }

    /// Parses the request.
    ///
    /// # Errors
    ///
    /// A text for the caller if the request is malformed.
    pub fn to_request(self) -> Result<PaxosRequest, String> {
        let ballot = self.ballot.map(Ballot::from);
        match (self.request_kind, ballot, self.id) {
            (REQUEST_PREPARE, Some(ballot), _) => Ok(PaxosRequest::Prepare { ballot }),
            (REQUEST_ACCEPT, Some(ballot), Some(id)) => {
                Ok(PaxosRequest::Accept(Vote { ballot, id }))
            }
            (REQUEST_LEARN, _, Some(id)) => Ok(PaxosRequest::Learn { id }),
            (REQUEST_PREPARE | REQUEST_ACCEPT | REQUEST_LEARN, _, _) => {
                Err("a ballot or an id is missing in a question about the deployment".to_owned())
            }
            (request_kind, _, _) => {
                Err(format!("there is no question {request_kind} about the deployment"))
            }
        }
    }
}

impl DeploymentResponse {
    /// Converts a response to its wire form.
    pub fn of(response: &PaxosResponse) -> Self {
        let (response_kind, ballot, id) = match response {
            PaxosResponse::Promised { accepted: None, .. } => (RESPONSE_PROMISED, None, None),
            PaxosResponse::Promised { accepted: Some(vote), .. } => {
                (RESPONSE_PROMISED, Some(&vote.ballot), Some(vote.id))
            }
            PaxosResponse::Accepted => (RESPONSE_ACCEPTED, None, None),
            PaxosResponse::Refused { promised } => (RESPONSE_REFUSED, Some(promised), None),
            PaxosResponse::Decided { id } => (RESPONSE_DECIDED, None, Some(*id)),
            PaxosResponse::Conflict { ours } => (RESPONSE_CONFLICT, None, Some(*ours)),
        };
        Self { response_kind, ballot: ballot.map(BallotArgs::of), id }
    }

    /// Parses the response to `request`.
    ///
    /// # Errors
    ///
    /// A text if the response is malformed.
    pub fn to_response(self, request: &PaxosRequest) -> Result<PaxosResponse, String> {
        let known = self.ballot.map(Ballot::from);
        match (self.response_kind, known, self.id, request) {
            (RESPONSE_PROMISED, None, None, PaxosRequest::Prepare { ballot }) => {
                Ok(PaxosResponse::Promised { ballot: ballot.clone(), accepted: None })
            }
            (RESPONSE_PROMISED, Some(before), Some(id), PaxosRequest::Prepare { ballot }) => {
                let accepted = Some(Vote { ballot: before, id });
                Ok(PaxosResponse::Promised { ballot: ballot.clone(), accepted })
            }
            (RESPONSE_ACCEPTED, _, _, PaxosRequest::Accept(_)) => Ok(PaxosResponse::Accepted),
            (
                RESPONSE_REFUSED,
                Some(promised),
                _,
                PaxosRequest::Prepare { .. } | PaxosRequest::Accept(_),
            ) => Ok(PaxosResponse::Refused { promised }),
            (RESPONSE_DECIDED, _, Some(id), _) => Ok(PaxosResponse::Decided { id }),
            (RESPONSE_CONFLICT, _, Some(ours), PaxosRequest::Learn { .. }) => {
                Ok(PaxosResponse::Conflict { ours })
            }
            (response_kind, ballot, id, _) => Err(format!(
                "response kind {response_kind} does not match the request (ballot {}, id {})",
                if ballot.is_some() { "given" } else { "missing" },
                if id.is_some() { "given" } else { "missing" },
            )),
        }
    }
}
