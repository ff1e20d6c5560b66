//! Which right a request needs: an action such as `admin:CreateUser`, on a resource such as
//! `arn:aws:iam:::user/alice`. The root account has all of them.

use iam_bootstrap::Snapshot;
use iam_bootstrap::model::UserName;
use iam_bootstrap::snapshot::Holder;

use super::wire::{Request, Whom};

/// What the caller must be allowed to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) action: &'static str,
    pub(super) resource: String,
}

/// The user for whom an access key acts.
pub(super) fn acts_for(snapshot: &Snapshot, access_key: &str) -> Option<UserName> {
    match snapshot.holder(access_key)? {
        Holder::Root => Some(snapshot.root().clone()),
        Holder::User(user) => Some(user.name.clone()),
        Holder::ServiceAccount(account) => Some(account.parent.clone()),
        _ => None,
    }
}

impl Wanted {
    pub(super) fn of(request: &Request, caller: &str, snapshot: &Snapshot) -> Self {
        let (action, kind, name) = match request {
            Request::AddUser(add) => ("admin:CreateUser", "user", add.user.as_str()),
            Request::ListUsers(_) => ("admin:ListUsers", "user", "*"),
            Request::RemoveUser(of) => ("admin:DeleteUser", "user", of.user.as_str()),
            Request::SetPolicy(set) => ("admin:CreatePolicy", "policy", set.policy.as_str()),
            Request::ListPolicies(_) => ("admin:ListPolicies", "policy", "*"),
            Request::RemovePolicy(of) => ("admin:DeletePolicy", "policy", of.policy.as_str()),
            Request::AttachPolicy(attach) => of_whom("admin:AttachPolicy", &attach.to),
            Request::DetachPolicy(detach) => of_whom("admin:DetachPolicy", &detach.to),
            Request::AddServiceAccount(add) => {
                let parent = add.parent.clone().or_else(|| acts_for(snapshot, caller));
                let parent = parent.as_ref().map_or(caller, |parent| parent.as_str());
                return Self::new("admin:CreateServiceAccount", "user", parent);
            }
            Request::ListServiceAccounts(_) => ("admin:ListServiceAccounts", "user", "*"),
            Request::RemoveServiceAccount(of) => {
                let account = snapshot.service_account(&of.access_key);
                let parent = account.map_or("*", |account| account.parent.as_str());
                ("admin:DeleteServiceAccount", "user", parent)
            }
            Request::SetGroup(set) => ("admin:CreateGroup", "group", set.group.as_str()),
            Request::ListGroups(_) => ("admin:ListGroups", "group", "*"),
            Request::RemoveGroup(of) => ("admin:DeleteGroup", "group", of.group.as_str()),
            Request::WhoAmI(_) => ("admin:WhoAmI", "user", caller),
            Request::IsAllowed(asked) => ("admin:SimulatePolicy", "user", &*asked.access_key),
        };
        Self::new(action, kind, name)
    }

    fn new(action: &'static str, kind: &str, name: &str) -> Self {
        Self { action, resource: format!("arn:aws:iam:::{kind}/{name}") }
    }
}

fn of_whom<'w>(action: &'static str, whom: &'w Whom) -> (&'static str, &'static str, &'w str) {
    match whom {
        Whom::User(user) => (action, "user", user.as_str()),
        Whom::Group(group) => (action, "group", group.as_str()),
    }
}
