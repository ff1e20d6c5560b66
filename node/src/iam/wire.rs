//! What travels as JSON between `gridwire iam` and a server's `/v2/iam/…`.

use iam_bootstrap::model::{
    AccessKey, Description, GroupName, PolicyName, Secret, Status, UserName, UtcMillis,
};
use serde::{Deserialize, Serialize};

/// What is asked of a server. The path names it, the body is what it holds.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Request {
    AddUser(AddUser),
    ListUsers(Nothing),
    RemoveUser(OfUser),
    SetPolicy(SetPolicy),
    ListPolicies(Nothing),
    RemovePolicy(OfPolicy),
    AttachPolicy(Attach),
    DetachPolicy(Attach),
    AddServiceAccount(AddServiceAccount),
    ListServiceAccounts(Nothing),
    RemoveServiceAccount(OfServiceAccount),
    SetGroup(SetGroup),
    ListGroups(Nothing),
    RemoveGroup(OfGroup),
    WhoAmI(Nothing),
    IsAllowed(IsAllowed),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddUser {
    pub(crate) user: UserName,
    pub(crate) secret: Secret,
    /// Whether one of this name may be there, and gets this secret.
    #[serde(default)]
    pub(crate) replace: bool,
    #[serde(default = "enabled")]
    pub(crate) status: Status,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfUser {
    pub(crate) user: UserName,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetPolicy {
    pub(crate) policy: PolicyName,
    /// The text of the policy.
    pub(crate) document: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfPolicy {
    pub(crate) policy: PolicyName,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attach {
    pub(crate) policy: PolicyName,
    pub(crate) to: Whom,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Whom {
    User(UserName),
    Group(GroupName),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddServiceAccount {
    pub(crate) access_key: AccessKey,
    pub(crate) secret: Secret,
    /// For whom it acts; for who asks, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<UserName>,
    /// The text of a policy that it is held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<UtcMillis>,
    #[serde(default, skip_serializing_if = "Description::is_empty")]
    pub(crate) description: Description,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfServiceAccount {
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
pub(crate) struct OfGroup {
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

impl Request {
    /// The last part of its path.
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

    /// Whether it changes something.
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

    /// What a path and a body ask; `None` if there is no such path.
    pub(crate) fn read(path: &str, body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        let from = body;
        Some(match path {
            "add-user" => serde_json::from_slice(from).map(Self::AddUser),
            "list-users" => serde_json::from_slice(from).map(Self::ListUsers),
            "remove-user" => serde_json::from_slice(from).map(Self::RemoveUser),
            "set-policy" => serde_json::from_slice(from).map(Self::SetPolicy),
            "list-policies" => serde_json::from_slice(from).map(Self::ListPolicies),
            "remove-policy" => serde_json::from_slice(from).map(Self::RemovePolicy),
            "attach-policy" => serde_json::from_slice(from).map(Self::AttachPolicy),
            "detach-policy" => serde_json::from_slice(from).map(Self::DetachPolicy),
            "add-service-account" => serde_json::from_slice(from).map(Self::AddServiceAccount),
            "list-service-accounts" => serde_json::from_slice(from).map(Self::ListServiceAccounts),
            "remove-service-account" => {
                serde_json::from_slice(from).map(Self::RemoveServiceAccount)
            }
            "set-group" => serde_json::from_slice(from).map(Self::SetGroup),
            "list-groups" => serde_json::from_slice(from).map(Self::ListGroups),
            "remove-group" => serde_json::from_slice(from).map(Self::RemoveGroup),
            "whoami" => serde_json::from_slice(from).map(Self::WhoAmI),
            "is-allowed" => serde_json::from_slice(from).map(Self::IsAllowed),
            _ => return None,
        })
    }
}

/// What a server answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Changed(Changed),
    Users(List<UserRow>),
    Policies(List<PolicyRow>),
    ServiceAccounts(List<ServiceAccountRow>),
    Groups(List<GroupRow>),
    Caller(Caller),
    Verdict(Verdict),
}

/// A change that is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// What was changed, in words.
    pub(crate) changed: Vec<String>,
    /// What each peer made of it.
    pub(crate) peers: Vec<Peer>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) peer: String,
    /// Why it has not taken it; it will find out by itself.
    pub(crate) error: Option<String>,
}

/// Items of one kind, in order.
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

/// Who asks, and whom.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Caller {
    pub(crate) access_key: String,
    /// root, user or service account.
    pub(crate) kind: String,
    /// For whom it acts.
    pub(crate) user: String,
    pub(crate) server: String,
    pub(crate) deployment: Option<String>,
    /// The hash of all that the server knows: the same on two servers that know the same.
    pub(crate) content_hash: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    pub(crate) why: String,
}

/// What went wrong.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// For programs: unauthorized, forbidden, invalid, not-found, conflict, unavailable.
    pub(crate) error: String,
    pub(crate) message: String,
}
