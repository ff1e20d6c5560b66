//! Executes the requests of `gridwire iam` on a server: authorises the caller, then reads or
//! changes IAM.
//!
//! Changes that depend on the current state (attaching, removing) are serialised on each server. Of
//! concurrent changes on two servers the later one wins, as for all changes of IAM.

use std::sync::Arc;

use grid::Name;
use grid::env::Env;
use iam_bootstrap::model::{Group, PolicyMapping, ServiceAccount, User, UserName, UtcMillis};
use iam_bootstrap::policy::{Context, Policy};
use iam_bootstrap::snapshot::{Decision, DenyReason, Item, ItemKey, KeyOwner, Snapshot};
use iam_bootstrap::{ChangeError, StoreError};
use tokio::sync::Semaphore;

use super::permissions::RequiredPermission;
use super::show;
use super::wire::{
    AccessDecision, AddServiceAccount, AddUser, Attach, CallerInfo, Changed, IamRequest,
    IamResponse, IsAllowed, PeerResult, Principal, SetGroup, SetPolicy,
};
use crate::startup::Startup;

/// Why a request was not executed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    #[error("this server is not ready: {0}")]
    NotReady(String),
    #[error("access key or secret is wrong, or the clocks differ by minutes")]
    Unauthorized,
    #[error("{0}")]
    Forbidden(String),
    #[error("there is no such operation; is this server another version?")]
    UnknownPath,
    #[error("POST only")]
    MethodNotAllowed,
    #[error("the body must be complete, and have at most {max} bytes")]
    InvalidBody { max: usize },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Unavailable(String),
}

impl From<ChangeError> for OperationError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound { .. } => Self::NotFound(error.to_string()),
            ChangeError::Store(StoreError::TooLarge { .. }) => Self::Invalid(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Executes requests. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    startup: Startup,
    server: Name,
    env: Env,
    /// One permit, so that read-modify-write changes are serialised.
    change_permit: Arc<Semaphore>,
}

impl Operations {
    pub(crate) fn new(startup: Startup, server: Name, env: Env) -> Self {
        Self { startup, server, env, change_permit: Arc::new(Semaphore::new(1)) }
    }

    /// Returns the current snapshot, once the server is ready.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, OperationError> {
        let snapshot = self.startup.iam().snapshot().filter(|_| self.startup.is_ready());
        snapshot.ok_or_else(|| {
            let status = self.startup.status();
            OperationError::NotReady(format!(
                "{}: {}",
                status.phase,
                status.waiting.unwrap_or_default()
            ))
        })
    }

    /// Returns the secret that this access key signs with. `None` for temporary credentials: they
    /// need session tokens, and may not administer IAM.
    pub(crate) fn secret_of(&self, snapshot: &Snapshot, access_key: &str) -> Option<Vec<u8>> {
        match snapshot.key_owner(access_key)? {
            KeyOwner::Root => Some(self.startup.root_secret().expose().to_vec()),
            KeyOwner::Temporary(_) => None,
            holder => holder.secret().map(|secret| secret.expose().as_bytes().to_vec()),
        }
    }

    /// Executes a request, if the caller is allowed to.
    pub(crate) async fn run(
        &self,
        caller: &str,
        request: IamRequest,
    ) -> Result<IamResponse, OperationError> {
        // The semaphore is never closed. Reads need no permit.
        let change_permit = match request.is_change() {
            true => self.change_permit.acquire().await.ok(),
            false => None,
        };
        let snapshot = self.snapshot()?;
        authorise(&snapshot, caller, &request, &context(&self.env))?;
        let response = match request {
            IamRequest::ListUsers(_) => IamResponse::Users(show::users(&snapshot)),
            IamRequest::ListPolicies(_) => IamResponse::Policies(show::policies(&snapshot)),
            IamRequest::ListServiceAccounts(_) => {
                IamResponse::ServiceAccounts(show::service_accounts(&snapshot))
            }
            IamRequest::ListGroups(_) => IamResponse::Groups(show::groups(&snapshot)),
            IamRequest::WhoAmI(_) => IamResponse::CallerInfo(self.caller(&snapshot, caller)?),
            IamRequest::IsAllowed(query) => {
                let decision = decide(&snapshot, &query, &context(&self.env));
                IamResponse::AccessDecision(decision)
            }
            change => IamResponse::Changed(self.change(changes(&snapshot, caller, change)?).await?),
        };
        drop(change_permit);
        Ok(response)
    }

    fn caller(&self, snapshot: &Snapshot, access_key: &str) -> Result<CallerInfo, OperationError> {
        let (kind, user) =
            match snapshot.key_owner(access_key).ok_or(OperationError::Unauthorized)? {
                KeyOwner::Root => ("root", access_key),
                KeyOwner::User(user) => ("user", user.name.as_str()),
                KeyOwner::ServiceAccount(account) => ("service account", account.parent.as_str()),
                _ => return Err(OperationError::Unauthorized),
            };
        Ok(CallerInfo {
            access_key: access_key.to_owned(),
            kind: kind.to_owned(),
            user: user.to_owned(),
            server: self.server.to_string(),
            deployment: self.startup.deployment().map(|id| id.to_string()),
            content_hash: snapshot.content_hash().to_string(),
        })
    }

    /// Makes all changes in order. For each peer, the first error is reported.
    async fn change(&self, changes: Vec<Change>) -> Result<Changed, OperationError> {
        let mut done = Changed::default();
        for change in changes {
            let (text, result) = match change {
                Change::Put(item) => (item.key().to_string(), self.startup.iam().put(*item).await?),
                Change::Delete(key) => {
                    (format!("{key} removed"), self.startup.iam().delete(key).await?)
                }
            };
            done.changed.push(text);
            for (peer, outcome) in result.peers {
                let peer = PeerResult { peer: peer.to_string(), error: outcome.err() };
                match done.peers.iter_mut().find(|known| known.peer == peer.peer) {
                    Some(known) => known.error = known.error.take().or(peer.error),
                    None => done.peers.push(peer),
                }
            }
        }
        Ok(done)
    }
}

/// One change.
enum Change {
    Put(Box<Item>),
    Delete(ItemKey),
}

fn put(item: Item) -> Change {
    Change::Put(Box::new(item))
}

/// The context of an administrative request: only the time.
fn context(env: &Env) -> Context<'static> {
    let millis = env.wall().unix_nanos() / 1_000_000;
    Context::new(UtcMillis::new(i64::try_from(millis).unwrap_or(i64::MAX)))
}

fn authorise(
    snapshot: &Snapshot,
    caller: &str,
    request: &IamRequest,
    context: &Context<'_>,
) -> Result<(), OperationError> {
    let RequiredPermission { action, resource } = RequiredPermission::of(request, caller, snapshot);
    let decision = snapshot.is_allowed(caller, action, &resource, context);
    // Every known caller may ask about itself.
    let is_about_caller = match request {
        IamRequest::WhoAmI(_) => true,
        IamRequest::IsAllowed(query) => query.access_key == caller,
        _ => false,
    };
    match decision {
        Decision::Allowed(_) => {}
        Decision::Denied(DenyReason::NoStatement { .. } | DenyReason::Statement(_))
            if is_about_caller => {}
        denied @ Decision::Denied(_) => {
            return Err(OperationError::Forbidden(format!("{action} on {resource} is {denied}")));
        }
    }
    // A service account of root has root's permissions, so only root itself may create one.
    if let IamRequest::AddServiceAccount(AddServiceAccount { parent: Some(parent), .. }) = request
        && parent == snapshot.root()
        && !matches!(snapshot.key_owner(caller), Some(KeyOwner::Root))
    {
        return Err(OperationError::Forbidden(format!(
            "only {parent} itself may create service accounts for {parent}"
        )));
    }
    Ok(())
}

fn decide(snapshot: &Snapshot, query: &IsAllowed, context: &Context<'_>) -> AccessDecision {
    let IsAllowed { access_key, action, resource } = query;
    let decision = snapshot.is_allowed(access_key, action, resource, context);
    AccessDecision { allowed: decision.is_allowed(), why: decision.to_string() }
}

/// Returns the changes that a request requires; none for a read.
fn changes(
    snapshot: &Snapshot,
    caller: &str,
    request: IamRequest,
) -> Result<Vec<Change>, OperationError> {
    match request {
        IamRequest::AddUser(add) => add_user(snapshot, add),
        IamRequest::RemoveUser(target) => remove_user(snapshot, &target.user),
        IamRequest::SetPolicy(SetPolicy { policy, document }) => {
            let document = parse(&document)?;
            Ok(vec![put(Item::Policy(policy, Arc::new(document)))])
        }
        IamRequest::RemovePolicy(target) => {
            if let Some(principal) = show::attached_to(snapshot, &target.policy) {
                let policy = target.policy;
                return Err(OperationError::Conflict(format!(
                    "policy {policy} is attached to {principal}: detach it first"
                )));
            }
            Ok(vec![Change::Delete(ItemKey::Policy(target.policy))])
        }
        IamRequest::AttachPolicy(attach) => {
            if snapshot.policy(&attach.policy).is_none() {
                return Err(OperationError::NotFound(format!(
                    "there is no policy {}",
                    attach.policy
                )));
            }
            attachment_change(snapshot, attach, true)
        }
        IamRequest::DetachPolicy(detach) => attachment_change(snapshot, detach, false),
        IamRequest::AddServiceAccount(add) => add_service_account(snapshot, caller, add),
        IamRequest::RemoveServiceAccount(target) => {
            Ok(vec![Change::Delete(ItemKey::ServiceAccount(target.access_key))])
        }
        IamRequest::SetGroup(SetGroup { group, members, status }) => {
            let is_missing = |member: &&UserName| snapshot.user(member).is_none();
            if let Some(missing) = members.iter().find(is_missing) {
                return Err(OperationError::NotFound(format!("there is no user {missing}")));
            }
            let group = Group::new(group, members).map_err(|error| invalid(&error))?;
            Ok(vec![put(Item::Group(group.with_status(status)))])
        }
        IamRequest::RemoveGroup(target) => {
            let parts = [
                ItemKey::Group(target.group.clone()),
                ItemKey::GroupPolicies(target.group.clone()),
            ];
            let changes = parts.into_iter().filter(|key| snapshot.contains(key));
            let changes: Vec<_> = changes.map(Change::Delete).collect();
            match changes.is_empty() {
                true => {
                    Err(OperationError::NotFound(format!("there is no group {}", target.group)))
                }
                false => Ok(changes),
            }
        }
        IamRequest::ListUsers(_)
        | IamRequest::ListPolicies(_)
        | IamRequest::ListServiceAccounts(_)
        | IamRequest::ListGroups(_)
        | IamRequest::WhoAmI(_)
        | IamRequest::IsAllowed(_) => Ok(Vec::new()), // reads
    }
}

fn invalid(error: &dyn std::fmt::Display) -> OperationError {
    OperationError::Invalid(error.to_string())
}

fn parse(document: &str) -> Result<Policy, OperationError> {
    Policy::parse(document.as_bytes()).map_err(|error| invalid(&error))
}

fn add_user(snapshot: &Snapshot, add: AddUser) -> Result<Vec<Change>, OperationError> {
    let AddUser { user, secret, replace, status } = add;
    match snapshot.key_owner(&user) {
        None => {}
        Some(KeyOwner::User(_)) if replace => {}
        Some(KeyOwner::User(_)) => {
            return Err(OperationError::Conflict(format!(
                "user {user} exists: use --replace to change its secret"
            )));
        }
        Some(_) => {
            return Err(OperationError::Conflict(format!(
                "{user} is the access key of another account"
            )));
        }
    }
    let mut user = User::new(user, secret);
    user.status = status;
    Ok(vec![put(Item::User(user))])
}

/// Removes the user and everything that a later user of this name would inherit. The user is
/// removed first, since that revokes all its permissions.
fn remove_user(snapshot: &Snapshot, user: &UserName) -> Result<Vec<Change>, OperationError> {
    let mut changes = Vec::new();
    if snapshot.user(user).is_some() {
        changes.push(Change::Delete(ItemKey::User(user.clone())));
    }
    if snapshot.user_policies(user).is_some() {
        changes.push(Change::Delete(ItemKey::UserPolicies(user.clone())));
    }
    let accounts = snapshot.service_accounts().filter(|account| account.parent == *user);
    let accounts = accounts.map(|account| ItemKey::ServiceAccount(account.access_key.clone()));
    changes.extend(accounts.map(Change::Delete));
    for name in snapshot.groups_of(user) {
        let Some(group) = snapshot.group(name) else { continue };
        let members = group.members().iter().filter(|member| *member != user).cloned();
        let left = Group::new(name.clone(), members).map_err(|error| invalid(&error))?;
        changes.push(put(Item::Group(left.with_status(group.status()))));
    }
    // A retry removes the items that a failed attempt did not remove.
    match changes.is_empty() {
        true => Err(OperationError::NotFound(format!("there is no user {user}"))),
        false => Ok(changes),
    }
}

fn attachment_change(
    snapshot: &Snapshot,
    change: Attach,
    attach: bool,
) -> Result<Vec<Change>, OperationError> {
    let Attach { policy, to } = change;
    let (exists, known) = match &to {
        Principal::User(user) => (snapshot.user(user).is_some(), snapshot.user_policies(user)),
        Principal::Group(group) => {
            (snapshot.group(group).is_some(), snapshot.group_policies(group))
        }
    };
    let principal = show::principal(&to);
    if attach && !exists {
        return Err(OperationError::NotFound(format!("there is no {principal}")));
    }
    let mut policies = known.map(|known| known.policies().clone()).unwrap_or_default();
    match attach {
        true => {
            policies.insert(policy);
        }
        false if !policies.remove(&policy) => {
            return Err(OperationError::NotFound(format!(
                "policy {policy} is not attached to {principal}"
            )));
        }
        false => {}
    }
    let is_empty = policies.is_empty();
    let mapping = PolicyMapping::new(policies).map_err(|error| invalid(&error))?;
    Ok(vec![match (to, is_empty) {
        (Principal::User(user), true) => Change::Delete(ItemKey::UserPolicies(user)),
        (Principal::Group(group), true) => Change::Delete(ItemKey::GroupPolicies(group)),
        (Principal::User(user), false) => put(Item::UserPolicies(user, mapping)),
        (Principal::Group(group), false) => put(Item::GroupPolicies(group, mapping)),
    }])
}

fn add_service_account(
    snapshot: &Snapshot,
    caller: &str,
    add: AddServiceAccount,
) -> Result<Vec<Change>, OperationError> {
    let AddServiceAccount { access_key, secret, parent, session_policy, expires_at, description } =
        add;
    if snapshot.key_owner(&access_key).is_some() {
        return Err(OperationError::Conflict(format!(
            "there is an account with {access_key} already"
        )));
    }
    let parent = match parent {
        Some(parent) => parent,
        None => {
            super::permissions::acts_for(snapshot, caller).ok_or(OperationError::Unauthorized)?
        }
    };
    if parent != *snapshot.root() && snapshot.user(&parent).is_none() {
        return Err(OperationError::NotFound(format!("there is no user {parent}")));
    }
    let mut account = ServiceAccount::new(access_key, secret, parent);
    account.session_policy = session_policy.as_deref().map(parse).transpose()?.map(Arc::new);
    account.expires_at = expires_at;
    account.description = description;
    Ok(vec![put(Item::ServiceAccount(account))])
}
