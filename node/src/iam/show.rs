//! Rows of the lists in responses: all items without their secrets, sorted.

use iam_bootstrap::Snapshot;
use iam_bootstrap::model::PolicyMapping;

use super::wire::{GroupRow, List, PolicyRow, Principal, ServiceAccountRow, UserRow};

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn mapped(mapping: Option<&PolicyMapping>) -> Vec<String> {
    mapping.map(|mapping| texts(mapping.policies())).unwrap_or_default()
}

/// All users, sorted by name.
pub(super) fn users(snapshot: &Snapshot) -> List<UserRow> {
    let row = |user: &iam_bootstrap::model::User| UserRow {
        user: user.name.to_string(),
        status: user.status,
        policies: mapped(snapshot.user_policies(&user.name)),
        groups: texts(snapshot.groups_of(&user.name)),
    };
    let mut items: Vec<_> = snapshot.users().map(row).collect();
    items.sort_unstable_by(|a, b| a.user.cmp(&b.user));
    List { items }
}

/// All policies, sorted by name.
pub(super) fn policies(snapshot: &Snapshot) -> List<PolicyRow> {
    let rows = snapshot.policies().map(|(name, policy)| PolicyRow {
        policy: name.to_string(),
        statements: policy.statements().len(),
    });
    let mut items: Vec<_> = rows.collect();
    items.sort_unstable_by(|a, b| a.policy.cmp(&b.policy));
    List { items }
}

/// All service accounts, sorted by access key.
pub(super) fn service_accounts(snapshot: &Snapshot) -> List<ServiceAccountRow> {
    let rows = snapshot.service_accounts().map(|account| ServiceAccountRow {
        access_key: account.access_key.to_string(),
        parent: account.parent.to_string(),
        status: account.status,
        has_session_policy: account.session_policy.is_some(),
        expires_at: account.expires_at,
        description: account.description.as_str().to_owned(),
    });
    let mut items: Vec<_> = rows.collect();
    items.sort_unstable_by(|a, b| a.access_key.cmp(&b.access_key));
    List { items }
}

/// All groups, sorted by name.
pub(super) fn groups(snapshot: &Snapshot) -> List<GroupRow> {
    let rows = snapshot.groups().map(|group| GroupRow {
        group: group.name().to_string(),
        status: group.status(),
        members: texts(group.members()),
        policies: mapped(snapshot.group_policies(group.name())),
    });
    let mut items: Vec<_> = rows.collect();
    items.sort_unstable_by(|a, b| a.group.cmp(&b.group));
    List { items }
}

/// Formats a user or a group for messages.
pub(super) fn principal(principal: &Principal) -> String {
    match principal {
        Principal::User(user) => format!("user {user}"),
        Principal::Group(group) => format!("group {group}"),
    }
}

/// Returns a user or group that this policy is attached to.
pub(super) fn attached_to(snapshot: &Snapshot, policy: &str) -> Option<String> {
    let has = |mapping: Option<&PolicyMapping>| {
        mapping.is_some_and(|mapping| mapping.policies().contains(policy))
    };
    let user = snapshot.users().find(|user| has(snapshot.user_policies(&user.name)));
    let group = || snapshot.groups().find(|group| has(snapshot.group_policies(group.name())));
    user.map(|user| format!("user {}", user.name))
        .or_else(|| group().map(|group| format!("group {}", group.name())))
}
