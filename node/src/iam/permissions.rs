//! The permission that each request requires: an action such as `admin:CreateUser`, on a resource
//! such as `arn:aws:iam:::user/alice`. The root account has all permissions.

use iam_bootstrap::Snapshot;
use iam_bootstrap::model::UserName;
use iam_bootstrap::snapshot::KeyOwner;

use super::wire::{IamRequest, Principal};

/// A permission that the caller must have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequiredPermission {
    pub(super) action: &'static str,
    pub(super) resource: String,
}

/// Returns the user that an access key acts for.
pub(super) fn acts_for(snapshot: &Snapshot, access_key: &str) -> Option<UserName> {
    match snapshot.key_owner(access_key)? {
        KeyOwner::Root => Some(snapshot.root().clone()),
        KeyOwner::User(user) => Some(user.name.clone()),
        KeyOwner::ServiceAccount(account) => Some(account.parent.clone()),
        _ => None,
    }
}

impl RequiredPermission {
    pub(super) fn of(request: &IamRequest, caller: &str, snapshot: &Snapshot) -> Self {
        let (action, kind, name) = match request {
            IamRequest::AddUser(add) => ("admin:CreateUser", "user", add.user.as_str()),
            IamRequest::ListUsers(_) => ("admin:ListUsers", "user", "*"),
            IamRequest::RemoveUser(target) => ("admin:DeleteUser", "user", target.user.as_str()),
            IamRequest::SetPolicy(set) => ("admin:CreatePolicy", "policy", set.policy.as_str()),
            IamRequest::ListPolicies(_) => ("admin:ListPolicies", "policy", "*"),
            IamRequest::RemovePolicy(target) => {
                ("admin:DeletePolicy", "policy", target.policy.as_str())
            }
            IamRequest::AttachPolicy(attach) => {
                principal_permission("admin:AttachPolicy", &attach.to)
            }
            IamRequest::DetachPolicy(detach) => {
                principal_permission("admin:DetachPolicy", &detach.to)
            }
            IamRequest::AddServiceAccount(add) => {
                let parent = add.parent.clone().or_else(|| acts_for(snapshot, caller));
                let parent = parent.as_ref().map_or(caller, |parent| parent.as_str());
                return Self::new("admin:CreateServiceAccount", "user", parent);
            }
            IamRequest::ListServiceAccounts(_) => ("admin:ListServiceAccounts", "user", "*"),
            IamRequest::RemoveServiceAccount(target) => {
                let account = snapshot.service_account(&target.access_key);
                let parent = account.map_or("*", |account| account.parent.as_str());
                ("admin:DeleteServiceAccount", "user", parent)
            }
            IamRequest::SetGroup(set) => ("admin:CreateGroup", "group", set.group.as_str()),
            IamRequest::ListGroups(_) => ("admin:ListGroups", "group", "*"),
            IamRequest::RemoveGroup(target) => {
                ("admin:DeleteGroup", "group", target.group.as_str())
            }
            IamRequest::WhoAmI(_) => ("admin:WhoAmI", "user", caller),
            IamRequest::IsAllowed(query) => ("admin:SimulatePolicy", "user", &*query.access_key),
        };
        Self::new(action, kind, name)
    }

    fn new(action: &'static str, kind: &str, name: &str) -> Self {
        Self { action, resource: format!("arn:aws:iam:::{kind}/{name}") }
    }
}

fn principal_permission<'w>(
    action: &'static str,
    principal: &'w Principal,
) -> (&'static str, &'static str, &'w str) {
    match principal {
        Principal::User(user) => (action, "user", user.as_str()),
        Principal::Group(group) => (action, "group", group.as_str()),
    }
}
