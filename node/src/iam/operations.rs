//! What a server does for `gridwire iam`: whether the caller may, and then the change or the question.
//!
//! Changes that depend on what is there (attaching, removing) go one after the other on a server. Made
//! on two servers at once, the later one counts, as for all changes.

use std::sync::Arc;

use grid::Name;
use grid::net::clock::SystemClock;
use grid::time::Clock;
use iam_bootstrap::model::{Group, PolicyMapping, ServiceAccount, User, UserName, UtcMillis};
use iam_bootstrap::policy::{Context, Policy};
use iam_bootstrap::snapshot::{Decision, Holder, Item, ItemKey, Refusal, Snapshot};
use iam_bootstrap::{ChangeError, StoreError};
use tokio::sync::Semaphore;

use super::rights::Wanted;
use super::show;
use super::wire::{
    AddServiceAccount, AddUser, Answer, Attach, Caller, Changed, IsAllowed, Peer, Request,
    SetGroup, SetPolicy, Verdict, Whom,
};
use crate::startup::Startup;

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("this server is not ready: {0}")]
    NotReady(String),
    #[error("access key or secret is wrong, or the clocks differ by minutes")]
    Unauthorized,
    #[error("{0}")]
    Forbidden(String),
    #[error("there is no such operation; is this server another version?")]
    Path,
    #[error("POST only")]
    Method,
    #[error("the body must be whole, and have at most {max} bytes")]
    Body { max: usize },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Unavailable(String),
}

impl From<ChangeError> for Fault {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound { .. } => Self::NotFound(error.to_string()),
            ChangeError::Store(StoreError::TooLarge { .. }) => Self::Invalid(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Does what is asked. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    startup: Startup,
    server: Name,
    /// Whoever looks and then changes has the one place.
    turn: Arc<Semaphore>,
}

impl Operations {
    pub(crate) fn new(startup: Startup, server: Name) -> Self {
        Self { startup, server, turn: Arc::new(Semaphore::new(1)) }
    }

    /// All that is known, once the server is ready.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, Fault> {
        let snapshot = self.startup.iam().snapshot().filter(|_| self.startup.is_ready());
        snapshot.ok_or_else(|| {
            let status = self.startup.status();
            Fault::NotReady(format!("{}: {}", status.phase, status.waiting.unwrap_or_default()))
        })
    }

    /// What the holder of this access key signs with. Temporary credentials would have to bring their
    /// session tokens, and have no business here.
    pub(crate) fn secret_of(&self, snapshot: &Snapshot, access_key: &str) -> Option<Vec<u8>> {
        match snapshot.holder(access_key)? {
            Holder::Root => Some(self.startup.root_secret().expose().to_vec()),
            Holder::Temporary(_) => None,
            holder => holder.secret().map(|secret| secret.expose().as_bytes().to_vec()),
        }
    }

    /// Does it, if the caller may.
    pub(crate) async fn run(&self, caller: &str, request: Request) -> Result<Answer, Fault> {
        // Never closed. Whoever only asks waits for nobody.
        let turn = match request.is_change() {
            true => self.turn.acquire().await.ok(),
            false => None,
        };
        let snapshot = self.snapshot()?;
        authorise(&snapshot, caller, &request)?;
        let answer = match request {
            Request::ListUsers(_) => Answer::Users(show::users(&snapshot)),
            Request::ListPolicies(_) => Answer::Policies(show::policies(&snapshot)),
            Request::ListServiceAccounts(_) => {
                Answer::ServiceAccounts(show::service_accounts(&snapshot))
            }
            Request::ListGroups(_) => Answer::Groups(show::groups(&snapshot)),
            Request::WhoAmI(_) => Answer::Caller(self.caller(&snapshot, caller)?),
            Request::IsAllowed(asked) => Answer::Verdict(verdict(&snapshot, &asked)),
            change => Answer::Changed(self.change(changes(&snapshot, caller, change)?).await?),
        };
        drop(turn);
        Ok(answer)
    }

    fn caller(&self, snapshot: &Snapshot, access_key: &str) -> Result<Caller, Fault> {
        let (kind, user) = match snapshot.holder(access_key).ok_or(Fault::Unauthorized)? {
            Holder::Root => ("root", access_key),
            Holder::User(user) => ("user", user.name.as_str()),
            Holder::ServiceAccount(account) => ("service account", account.parent.as_str()),
            _ => return Err(Fault::Unauthorized),
        };
        Ok(Caller {
            access_key: access_key.to_owned(),
            kind: kind.to_owned(),
            user: user.to_owned(),
            server: self.server.to_string(),
            deployment: self.startup.deployment().map(|id| id.to_string()),
            content_hash: snapshot.content_hash().to_string(),
        })
    }

    /// Makes all of them, in order. Of a peer the first error counts.
    async fn change(&self, changes: Vec<Change>) -> Result<Changed, Fault> {
        let mut done = Changed::default();
        for change in changes {
            let (text, told) = match change {
                Change::Put(item) => (item.key().to_string(), self.startup.iam().put(*item).await?),
                Change::Delete(key) => {
                    (format!("{key} removed"), self.startup.iam().delete(key).await?)
                }
            };
            done.changed.push(text);
            for (peer, outcome) in told.peers {
                let peer = Peer { peer: peer.to_string(), error: outcome.err() };
                match done.peers.iter_mut().find(|known| known.peer == peer.peer) {
                    Some(known) => known.error = known.error.take().or(peer.error),
                    None => done.peers.push(peer),
                }
            }
        }
        Ok(done)
    }
}

/// One change to be made.
enum Change {
    Put(Box<Item>),
    Delete(ItemKey),
}

fn put(item: Item) -> Change {
    Change::Put(Box::new(item))
}

/// The context of what an administrator does: there is no more than the time.
fn now() -> Context<'static> {
    let millis = SystemClock::new().wall().unix_nanos() / 1_000_000;
    Context::new(UtcMillis::new(i64::try_from(millis).unwrap_or(i64::MAX)))
}

fn authorise(snapshot: &Snapshot, caller: &str, request: &Request) -> Result<(), Fault> {
    let Wanted { action, resource } = Wanted::of(request, caller, snapshot);
    let decision = snapshot.is_allowed(caller, action, &resource, &now());
    // Who one is may everybody know who is anybody.
    let is_about_oneself = match request {
        Request::WhoAmI(_) => true,
        Request::IsAllowed(asked) => asked.access_key == caller,
        _ => false,
    };
    match decision {
        Decision::Allowed(_) => {}
        Decision::Denied(Refusal::NoStatement { .. } | Refusal::Statement(_))
            if is_about_oneself => {}
        denied @ Decision::Denied(_) => {
            return Err(Fault::Forbidden(format!("{action} on {resource} is {denied}")));
        }
    }
    // Whoever makes keys of the root account has its rights: only it may, never who acts for it.
    if let Request::AddServiceAccount(AddServiceAccount { parent: Some(parent), .. }) = request
        && parent == snapshot.root()
        && !matches!(snapshot.holder(caller), Some(Holder::Root))
    {
        return Err(Fault::Forbidden(format!("only {parent} itself may make accounts of its own")));
    }
    Ok(())
}

fn verdict(snapshot: &Snapshot, asked: &IsAllowed) -> Verdict {
    let IsAllowed { access_key, action, resource } = asked;
    let context = now();
    let decision = snapshot.is_allowed(access_key, action, resource, &context);
    Verdict { allowed: decision.is_allowed(), why: decision.to_string() }
}

/// What has to be done for a request that changes something.
fn changes(snapshot: &Snapshot, caller: &str, request: Request) -> Result<Vec<Change>, Fault> {
    match request {
        Request::AddUser(add) => add_user(snapshot, add),
        Request::RemoveUser(of) => remove_user(snapshot, &of.user),
        Request::SetPolicy(SetPolicy { policy, document }) => {
            let document = parse(&document)?;
            Ok(vec![put(Item::Policy(policy, Arc::new(document)))])
        }
        Request::RemovePolicy(of) => {
            if let Some(whom) = show::attached_to(snapshot, &of.policy) {
                let policy = of.policy;
                return Err(Fault::Conflict(format!(
                    "policy {policy} is attached to {whom}: detach it first"
                )));
            }
            Ok(vec![Change::Delete(ItemKey::Policy(of.policy))])
        }
        Request::AttachPolicy(attach) => {
            if snapshot.policy(&attach.policy).is_none() {
                return Err(Fault::NotFound(format!("there is no policy {}", attach.policy)));
            }
            mapping(snapshot, attach, true)
        }
        Request::DetachPolicy(detach) => mapping(snapshot, detach, false),
        Request::AddServiceAccount(add) => add_service_account(snapshot, caller, add),
        Request::RemoveServiceAccount(of) => {
            Ok(vec![Change::Delete(ItemKey::ServiceAccount(of.access_key))])
        }
        Request::SetGroup(SetGroup { group, members, status }) => {
            let is_missing = |member: &&UserName| snapshot.user(member).is_none();
            if let Some(missing) = members.iter().find(is_missing) {
                return Err(Fault::NotFound(format!("there is no user {missing}")));
            }
            let group = Group::new(group, members).map_err(|error| invalid(&error))?;
            Ok(vec![put(Item::Group(group.with_status(status)))])
        }
        Request::RemoveGroup(of) => {
            let parts =
                [ItemKey::Group(of.group.clone()), ItemKey::GroupPolicies(of.group.clone())];
            let changes = parts.into_iter().filter(|key| snapshot.contains(key));
            let changes: Vec<_> = changes.map(Change::Delete).collect();
            match changes.is_empty() {
                true => Err(Fault::NotFound(format!("there is no group {}", of.group))),
                false => Ok(changes),
            }
        }
        Request::ListUsers(_)
        | Request::ListPolicies(_)
        | Request::ListServiceAccounts(_)
        | Request::ListGroups(_)
        | Request::WhoAmI(_)
        | Request::IsAllowed(_) => Ok(Vec::new()), // Questions: nothing is to be done.
    }
}

fn invalid(error: &dyn std::fmt::Display) -> Fault {
    Fault::Invalid(error.to_string())
}

fn parse(document: &str) -> Result<Policy, Fault> {
    Policy::parse(document.as_bytes()).map_err(|error| invalid(&error))
}

fn add_user(snapshot: &Snapshot, add: AddUser) -> Result<Vec<Change>, Fault> {
    let AddUser { user, secret, replace, status } = add;
    match snapshot.holder(&user) {
        None => {}
        Some(Holder::User(_)) if replace => {}
        Some(Holder::User(_)) => {
            return Err(Fault::Conflict(format!(
                "there is a user {user} already: say --replace to give it this secret"
            )));
        }
        Some(_) => {
            return Err(Fault::Conflict(format!("{user} is the access key of another account")));
        }
    }
    let mut user = User::new(user, secret);
    user.status = status;
    Ok(vec![put(Item::User(user))])
}

/// With everything that would be another's who gets the name later. First of all the user, since all
/// rights end with it.
fn remove_user(snapshot: &Snapshot, user: &UserName) -> Result<Vec<Change>, Fault> {
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
    // What an attempt that failed half-way has left is removed by the next.
    match changes.is_empty() {
        true => Err(Fault::NotFound(format!("there is no user {user}"))),
        false => Ok(changes),
    }
}

fn mapping(snapshot: &Snapshot, change: Attach, attach: bool) -> Result<Vec<Change>, Fault> {
    let Attach { policy, to } = change;
    let (is_there, known) = match &to {
        Whom::User(user) => (snapshot.user(user).is_some(), snapshot.user_policies(user)),
        Whom::Group(group) => (snapshot.group(group).is_some(), snapshot.group_policies(group)),
    };
    let whom = show::whom(&to);
    if attach && !is_there {
        return Err(Fault::NotFound(format!("there is no {whom}")));
    }
    let mut policies = known.map(|known| known.policies().clone()).unwrap_or_default();
    match attach {
        true => {
            policies.insert(policy);
        }
        false if !policies.remove(&policy) => {
            return Err(Fault::NotFound(format!("policy {policy} is not attached to {whom}")));
        }
        false => {}
    }
    let is_empty = policies.is_empty();
    let mapping = PolicyMapping::new(policies).map_err(|error| invalid(&error))?;
    Ok(vec![match (to, is_empty) {
        (Whom::User(user), true) => Change::Delete(ItemKey::UserPolicies(user)),
        (Whom::Group(group), true) => Change::Delete(ItemKey::GroupPolicies(group)),
        (Whom::User(user), false) => put(Item::UserPolicies(user, mapping)),
        (Whom::Group(group), false) => put(Item::GroupPolicies(group, mapping)),
    }])
}

fn add_service_account(
    snapshot: &Snapshot,
    caller: &str,
    add: AddServiceAccount,
) -> Result<Vec<Change>, Fault> {
    let AddServiceAccount { access_key, secret, parent, session_policy, expires_at, description } =
        add;
    if snapshot.holder(&access_key).is_some() {
        return Err(Fault::Conflict(format!("there is an account with {access_key} already")));
    }
    let parent = match parent {
        Some(parent) => parent,
        None => super::rights::acts_for(snapshot, caller).ok_or(Fault::Unauthorized)?,
    };
    if parent != *snapshot.root() && snapshot.user(&parent).is_none() {
        return Err(Fault::NotFound(format!("there is no user {parent}")));
    }
    let mut account = ServiceAccount::new(access_key, secret, parent);
    account.session_policy = session_policy.as_deref().map(parse).transpose()?.map(Arc::new);
    account.expires_at = expires_at;
    account.description = description;
    Ok(vec![put(Item::ServiceAccount(account))])
}
