//! JSON bodies between `gridwire iam` and a server's `/v2/iam/…`.

use iam_bootstrap::model::{
    AccessKey, Description, GroupName, PolicyName, Secret, Status, UserName, UtcMillis,
};
use serde::{Deserialize, Serialize};

/// Prefix of the paths of all requests.
pub(crate) const PREFIX: &str = "/v2/iam/";

/// A request. The path names the operation, the body has its parameters.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum IamRequest {
    AddUser(AddUser),
    ListUsers(Empty),
    RemoveUser(UserRef),
    SetPolicy(SetPolicy),
    ListPolicies(Empty),
    RemovePolicy(PolicyRef),
    AttachPolicy(Attach),
    DetachPolicy(Attach),
    AddServiceAccount(AddServiceAccount),
    ListServiceAccounts(Empty),
    RemoveServiceAccount(ServiceAccountRef),
    SetGroup(SetGroup),
    ListGroups(Empty),
    RemoveGroup(GroupRef),
    WhoAmI(Empty),
    IsAllowed(IsAllowed),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Empty {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddUser {
    pub(crate) user: UserName,
    pub(crate) secret: Secret,
    /// Whether to replace the secret of an existing user.
    #[serde(default)]
    pub(crate) replace: bool,
    #[serde(default = "enabled")]
    pub(crate) status: Status,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserRef {
    pub(crate) user: UserName,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetPolicy {
    pub(crate) policy: PolicyName,
    /// JSON text of the policy.
    pub(crate) document: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyRef {
    pub(crate) policy: PolicyName,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attach {
    pub(crate) policy: PolicyName,
    pub(crate) to: Principal,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Principal {
    User(UserName),
    Group(GroupName),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddServiceAccount {
    pub(crate) access_key: AccessKey,
    pub(crate) secret: Secret,
    /// User that the account acts for; default the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<UserName>,
    /// JSON text of a policy that restricts the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<UtcMillis>,
    #[serde(default, skip_serializing_if = "Description::is_empty")]
    pub(crate) description: Description,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceAccountRef {
    pub(crate) access_key: AccessKey,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetGroup {
    pub(crate) group: GroupName,
    pub(crate) members: Vec<UserName>,
    #[serde(default = "enabled")]
    pub(crate) status: Status,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupRef {
    pub(crate) group: GroupName,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IsAllowed {
    pub(crate) access_key: String,
    pub(crate) action: String,
    pub(crate) resource: String,
}

const fn enabled() -> Status {
    Status::Enabled
}

impl IamRequest {
    /// Returns the operation, which is the last segment of the path.
    pub(crate) const fn path(&self) -> &'static str {
        match self {
            Self::AddUser(_) => "add-user",
            Self::ListUsers(_) => "list-users",
            Self::RemoveUser(_) => "remove-user",
            Self::SetPolicy(_) => "set-policy",
            Self::ListPolicies(_) => "list-policies",
            Self::RemovePolicy(_) => "remove-policy",
            Self::AttachPolicy(_) => "attach-policy",
            Self::DetachPolicy(_) => "detach-policy",
            Self::AddServiceAccount(_) => "add-service-account",
            Self::ListServiceAccounts(_) => "list-service-accounts",
            Self::RemoveServiceAccount(_) => "remove-service-account",
            Self::SetGroup(_) => "set-group",
            Self::ListGroups(_) => "list-groups",
            Self::RemoveGroup(_) => "remove-group",
            Self::WhoAmI(_) => "whoami",
            Self::IsAllowed(_) => "is-allowed",
        }
    }

    /// Whether the request changes IAM.
    pub(crate) const fn is_change(&self) -> bool {
        !matches!(
            self,
            Self::ListUsers(_)
                | Self::ListPolicies(_)
                | Self::ListServiceAccounts(_)
                | Self::ListGroups(_)
                | Self::WhoAmI(_)
                | Self::IsAllowed(_)
        )
    }

    /// Parses a path and a body; `None` if there is no such path.
    pub(crate) fn parse(path: &str, body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        Some(match path {
            "add-user" => serde_json::from_slice(body).map(Self::AddUser),
            "list-users" => serde_json::from_slice(body).map(Self::ListUsers),
            "remove-user" => serde_json::from_slice(body).map(Self::RemoveUser),
            "set-policy" => serde_json::from_slice(body).map(Self::SetPolicy),
            "list-policies" => serde_json::from_slice(body).map(Self::ListPolicies),
            "remove-policy" => serde_json::from_slice(body).map(Self::RemovePolicy),
            "attach-policy" => serde_json::from_slice(body).map(Self::AttachPolicy),
            "detach-policy" => serde_json::from_slice(body).map(Self::DetachPolicy),
            "add-service-account" => serde_json::from_slice(body).map(Self::AddServiceAccount),
            "list-service-accounts" => serde_json::from_slice(body).map(Self::ListServiceAccounts),
            "remove-service-account" => {
                serde_json::from_slice(body).map(Self::RemoveServiceAccount)
            }
            "set-group" => serde_json::from_slice(body).map(Self::SetGroup),
            "list-groups" => serde_json::from_slice(body).map(Self::ListGroups),
            "remove-group" => serde_json::from_slice(body).map(Self::RemoveGroup),
            "whoami" => serde_json::from_slice(body).map(Self::WhoAmI),
            "is-allowed" => serde_json::from_slice(body).map(Self::IsAllowed),
            _ => return None,
        })
    }
}

/// The body of a successful response.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum IamResponse {
    Changed(Changed),
    Users(List<UserRow>),
    Policies(List<PolicyRow>),
    ServiceAccounts(List<ServiceAccountRow>),
    Groups(List<GroupRow>),
    CallerInfo(CallerInfo),
    AccessDecision(AccessDecision),
}

/// A change that was persisted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// The changed items.
    pub(crate) changed: Vec<String>,
    /// The result at each peer.
    pub(crate) peers: Vec<PeerResult>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PeerResult {
    pub(crate) peer: String,
    /// Why the peer has not applied the change yet. It applies it at the next reconciliation.
    pub(crate) error: Option<String>,
}

/// Items of one type, sorted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UserRow {
    pub(crate) user: String,
    pub(crate) status: Status,
    pub(crate) policies: Vec<String>,
    pub(crate) groups: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PolicyRow {
    pub(crate) policy: String,
    pub(crate) statements: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceAccountRow {
    pub(crate) access_key: String,
    pub(crate) parent: String,
    pub(crate) status: Status,
    pub(crate) has_session_policy: bool,
    pub(crate) expires_at: Option<UtcMillis>,
    pub(crate) description: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GroupRow {
    pub(crate) group: String,
    pub(crate) status: Status,
    pub(crate) members: Vec<String>,
    pub(crate) policies: Vec<String>,
}

/// The caller of `whoami`, and the server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CallerInfo {
    pub(crate) access_key: String,
    /// root, user or service account.
    pub(crate) kind: String,
    /// User that the access key acts for.
    pub(crate) user: String,
    pub(crate) server: String,
    pub(crate) deployment: Option<String>,
    /// Hash of the server's IAM content: equal on servers with equal content.
    pub(crate) content_hash: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AccessDecision {
    pub(crate) allowed: bool,
    pub(crate) why: String,
}

/// The body of an error response.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// Machine-readable: unauthorized, forbidden, invalid, not-found, conflict, unavailable.
    pub(crate) error: String,
    pub(crate) message: String,
}
