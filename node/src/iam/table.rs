//! Text output of `gridwire iam`.

use std::time::{Duration, UNIX_EPOCH};

use iam_bootstrap::model::{Status, UtcMillis};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::wire::{
    AccessDecision, CallerInfo, Changed, GroupRow, List, PolicyRow, ServiceAccountRow, UserRow,
};
use crate::cli::{GroupCommand, IamCommand, PolicyCommand, ServiceAccountCommand, UserCommand};

/// Formats the response to a command.
pub(super) fn text(command: &IamCommand, response: Value) -> Result<String, serde_json::Error> {
    let table = match command {
        IamCommand::User(UserCommand::List) => users(read(response)?),
        IamCommand::Policy(PolicyCommand::List) => policies(read(response)?),
        IamCommand::ServiceAccount(ServiceAccountCommand::List) => accounts(read(response)?),
        IamCommand::Group(GroupCommand::List) => groups(read(response)?),
        IamCommand::Whoami => caller(read(response)?),
        IamCommand::IsAllowed { .. } => return Ok(read::<AccessDecision>(response)?.why),
        IamCommand::User(_)
        | IamCommand::Policy(_)
        | IamCommand::ServiceAccount(_)
        | IamCommand::Group(_) => return changed(response),
    };
    Ok(table)
}

fn read<T: DeserializeOwned>(response: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(response)
}

fn changed(response: Value) -> Result<String, serde_json::Error> {
    let secret = response.get("secret").and_then(Value::as_str).map(str::to_owned);
    let Changed { changed, peers } = read(response)?;
    let mut lines = vec![format!("changed: {}", changed.join(", "))];
    if let Some(secret) = secret {
        lines.push(format!("secret, shown only once: {secret}"));
    }
    for peer in peers {
        lines.push(match peer.error {
            None => format!("  {}  applied", peer.peer),
            Some(why) => format!("  {}  not applied yet: {why}", peer.peer),
        });
    }
    Ok(lines.join("\n"))
}

fn users(list: List<UserRow>) -> String {
    let row =
        |row: UserRow| [row.user, status(row.status), joined(&row.policies), joined(&row.groups)];
    table(["user", "status", "policies", "groups"], list.items.into_iter().map(row))
}

fn policies(list: List<PolicyRow>) -> String {
    let row = |row: PolicyRow| [row.policy, row.statements.to_string()];
    table(["policy", "statements"], list.items.into_iter().map(row))
}

fn accounts(list: List<ServiceAccountRow>) -> String {
    let row = |row: ServiceAccountRow| {
        let policy = if row.has_session_policy { "yes" } else { "-" };
        let expires = row.expires_at.map_or_else(|| "-".to_owned(), time);
        [
            row.access_key,
            row.parent,
            status(row.status),
            policy.to_owned(),
            expires,
            row.description,
        ]
    };
    let head = ["access key", "parent", "status", "session policy", "expires", "description"];
    table(head, list.items.into_iter().map(row))
}

fn groups(list: List<GroupRow>) -> String {
    let row = |row: GroupRow| {
        [row.group, status(row.status), joined(&row.policies), joined(&row.members)]
    };
    table(["group", "status", "policies", "members"], list.items.into_iter().map(row))
}

fn caller(caller: CallerInfo) -> String {
    let deployment = caller.deployment.unwrap_or_else(|| "unknown".to_owned());
    let rows = [
        ["access key".to_owned(), caller.access_key],
        ["kind".to_owned(), caller.kind],
        ["acts for".to_owned(), caller.user],
        ["server".to_owned(), caller.server],
        ["deployment".to_owned(), deployment],
        ["content".to_owned(), caller.content_hash],
    ];
    lines(&rows)
}

fn status(status: Status) -> String {
    match status {
        Status::Enabled => "enabled".to_owned(),
        Status::Disabled => "disabled".to_owned(),
    }
}

fn joined(names: &[String]) -> String {
    match names {
        [] => "-".to_owned(),
        names => names.join(", "),
    }
}

fn time(at: UtcMillis) -> String {
    let since = Duration::from_millis(u64::try_from(at.get()).unwrap_or(0));
    match UNIX_EPOCH.checked_add(since) {
        Some(at) => humantime::format_rfc3339_seconds(at).to_string(),
        None => "never".to_owned(),
    }
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    lines(&rows)
}

/// Aligns cells in columns. The last column is not padded.
fn lines<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let cells: Vec<_> = cells.collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b62_response_to_a_change_lists_the_result_of_each_peer() {
        let response = serde_json::json!({
            "changed": ["user alice"],
            "peers": [
                {"peer": "http://b:1", "error": null},
                {"peer": "http://c:1", "error": "not connected to http://c:1"},
            ],
        });
        let text = changed(response).expect("it is a response to a change");
        assert_eq!(
            text,
            "changed: user alice\n  http://b:1  applied\n  \
             http://c:1  not applied yet: not connected to http://c:1"
        );
    }
}
