//! Snapshots of users and permissions: decisions with their reasons, and derived snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use iam_bootstrap::limits::FINDINGS_MAX;
use iam_bootstrap::model::{
    AccessKey, Group, GroupName, PolicyMapping, PolicyName, Secret, ServiceAccount, Status,
    TemporaryCredential, User, UserName, UtcMillis,
};
use iam_bootstrap::policy::{Context, Policy};
use iam_bootstrap::snapshot::{
    AllowReason, Decision, DenyReason, Item, ItemKey, KeyOwner, Snapshot, SnapshotBuilder,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

const NOW: i64 = 1_769_860_800_000;
const OBJECT: &str = "arn:aws:s3:::photos/a.jpg";

fn user_name(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn policy_name(name: &str) -> PolicyName {
    PolicyName::new(name).unwrap()
}

fn key(key: &str) -> AccessKey {
    AccessKey::new(key).unwrap()
}

fn secret() -> Secret {
    Secret::new("correct horse").unwrap()
}

fn user(name: &str, status: Status) -> Item {
    let mut user = User::new(user_name(name), secret());
    user.status = status;
    Item::User(user)
}

fn group(name: &str, members: &[&str], status: Status) -> Item {
    let members = members.iter().map(|member| user_name(member));
    Item::Group(Group::new(GroupName::new(name).unwrap(), members).unwrap().with_status(status))
}

fn document(effect: &str, action: &str) -> Arc<Policy> {
    let statement = json!({"Sid": action, "Effect": effect, "Action": action, "Resource": "*"});
    Policy::parse(json!({ "Statement": statement }).to_string().as_bytes()).unwrap().into()
}

fn policy(name: &str, effect: &str, action: &str) -> Item {
    Item::Policy(policy_name(name), document(effect, action))
}

fn mapping(policies: &[&str]) -> PolicyMapping {
    PolicyMapping::new(policies.iter().map(|name| policy_name(name))).unwrap()
}

fn of_user(user: &str, policies: &[&str]) -> Item {
    Item::UserPolicies(user_name(user), mapping(policies))
}

fn of_group(group: &str, policies: &[&str]) -> Item {
    Item::GroupPolicies(GroupName::new(group).unwrap(), mapping(policies))
}

fn account(access_key: &str, parent: &str, session_policy: Option<Arc<Policy>>) -> ServiceAccount {
    let mut account = ServiceAccount::new(key(access_key), secret(), user_name(parent));
    account.session_policy = session_policy;
    account
}

fn temporary(access_key: &str, parent: &str, expires_at: i64) -> Item {
    let expires_at = UtcMillis::new(expires_at);
    let (access_key, parent) = (key(access_key), user_name(parent));
    Item::Temporary(TemporaryCredential::new(access_key, secret(), secret(), parent, expires_at))
}

/// Alice may read; readers may list; writers are a disabled group; Carol is disabled.
fn snapshot() -> Snapshot {
    let items = [
        user("alice", Status::Enabled),
        user("bob", Status::Enabled),
        user("carol", Status::Disabled),
        policy("read", "Allow", "s3:Get*"),
        policy("list", "Allow", "s3:List*"),
        policy("write", "Allow", "s3:Put*"),
        policy("frozen", "Deny", "s3:GetSecret"),
        of_user("alice", &["read"]),
        of_user("carol", &["read"]),
        group("readers", &["alice", "bob"], Status::Enabled),
        of_group("readers", &["list", "frozen"]),
        group("writers", &["alice"], Status::Disabled),
        of_group("writers", &["write"]),
    ];
    let mut builder = SnapshotBuilder::new(user_name("root"));
    for item in items {
        assert!(!builder.put(item));
    }
    builder.build()
}

fn decide<'s>(snapshot: &'s Snapshot, access_key: &str, action: &str) -> Decision<'s> {
    snapshot.is_allowed(access_key, action, OBJECT, &Context::new(UtcMillis::new(NOW)))
}

fn reason_of(snapshot: &Snapshot, access_key: &str, action: &str) -> String {
    decide(snapshot, access_key, action).to_string()
}

#[test]
fn b61_decision_states_its_reason() {
    let snapshot = snapshot();
    let cases = [
        ("root", "s3:GetObject", "allowed: the root account"),
        (
            "alice",
            "s3:GetObject",
            "allowed by statement 1 (\"s3:Get*\") of policy read, attached to user alice",
        ),
        (
            "alice",
            "s3:ListBucket",
            "allowed by statement 1 (\"s3:List*\") of policy list, attached to group readers",
        ),
        (
            "alice",
            "s3:GetSecret",
            "denied by statement 1 (\"s3:GetSecret\") of policy frozen, attached to group readers",
        ),
        ("alice", "s3:PutObject", "denied: no statement of user alice allows it"),
        ("bob", "s3:GetObject", "denied: no statement of user bob allows it"),
        ("carol", "s3:GetObject", "denied: user carol is disabled"),
        ("dave", "s3:GetObject", "denied: unknown access key"),
    ];
    for (access_key, action, reason) in cases {
        assert_eq!(reason_of(&snapshot, access_key, action), reason);
    }
}

#[test]
fn b61_decision_names_group_policy_and_statement() {
    let snapshot = snapshot();
    let Decision::Allowed(AllowReason::Statement(statement)) =
        decide(&snapshot, "bob", "s3:ListBucket")
    else {
        panic!("expected an allowed decision")
    };
    assert_eq!(statement.group().map(GroupName::as_str), Some("readers"));
    assert_eq!(statement.policy_name().map(PolicyName::as_str), Some("list"));
    assert_eq!(statement.index(), 0);
    assert_eq!(statement.statement().unwrap().sid(), Some("s3:List*"));
}

#[test]
fn b61_account_needs_its_parent_and_its_session_policy_to_allow() {
    let gets = Some(document("Allow", "s3:Get*"));
    let everything = Some(document("Allow", "*"));
    let never = Some(document("Deny", "s3:GetObject"));
    let snapshot = snapshot()
        .with(Item::ServiceAccount(account("plain", "alice", None)))
        .with(Item::ServiceAccount(account("gets", "alice", gets.clone())))
        .with(Item::ServiceAccount(account("everything", "alice", everything)))
        .with(Item::ServiceAccount(account("never", "alice", never)))
        .with(Item::ServiceAccount(account("roots", "root", None)))
        .with(Item::ServiceAccount(account("roots-gets", "root", gets)));
    let may = |access_key, action| decide(&snapshot, access_key, action).is_allowed();
    for (access_key, get, list, put, get_secret) in [
        ("plain", true, true, false, false),
        ("gets", true, false, false, false),
        ("everything", true, true, false, false),
        ("never", false, false, false, false),
        ("roots", true, true, true, true),
        ("roots-gets", true, false, false, true),
    ] {
        assert_eq!(may(access_key, "s3:GetObject"), get, "{access_key} get");
        assert_eq!(may(access_key, "s3:ListBucket"), list, "{access_key} list");
        assert_eq!(may(access_key, "s3:PutObject"), put, "{access_key} put");
        assert_eq!(may(access_key, "s3:GetSecret"), get_secret, "{access_key} get secret");
    }
    let reasons = [
        ("gets", "s3:ListBucket", "denied: no statement of the session policy allows it"),
        ("gets", "s3:PutObject", "denied: no statement of user alice allows it"),
        ("never", "s3:GetObject", "denied by statement 1 (\"s3:GetObject\") of the session policy"),
    ];
    for (access_key, action, reason) in reasons {
        assert_eq!(reason_of(&snapshot, access_key, action), reason);
    }
}

#[test]
fn b61_account_is_denied_without_its_parent() {
    let snapshot = snapshot()
        .with(Item::ServiceAccount(account("alices", "alice", None)))
        .with(temporary("alices-too", "alice", NOW + 1))
        .with(Item::ServiceAccount(account("carols", "carol", None)));
    assert!(decide(&snapshot, "alices", "s3:GetObject").is_allowed());
    assert!(decide(&snapshot, "alices-too", "s3:GetObject").is_allowed());
    assert_eq!(reason_of(&snapshot, "carols", "s3:GetObject"), "denied: user carol is disabled");
    let orphaned = snapshot.without(&ItemKey::User(user_name("alice")));
    for access_key in ["alices", "alices-too"] {
        assert_eq!(
            decide(&orphaned, access_key, "s3:GetObject"),
            Decision::Denied(DenyReason::NoParent { user: "alice" }),
        );
    }
}

#[test]
fn b61_expired_and_disabled_keys_are_denied() {
    let mut expiring = account("expiring", "alice", None);
    expiring.expires_at = Some(UtcMillis::new(NOW));
    let mut disabled = account("disabled", "alice", None);
    disabled.status = Status::Disabled;
    let snapshot = snapshot()
        .with(temporary("brief", "alice", NOW))
        .with(Item::ServiceAccount(expiring))
        .with(Item::ServiceAccount(disabled));
    for access_key in ["brief", "expiring"] {
        let at = |millis| {
            let context = Context::new(UtcMillis::new(millis));
            snapshot.is_allowed(access_key, "s3:GetObject", OBJECT, &context)
        };
        assert!(at(NOW - 1).is_allowed());
        assert_eq!(at(NOW), Decision::Denied(DenyReason::Expired));
    }
    assert_eq!(
        decide(&snapshot, "disabled", "s3:GetObject"),
        Decision::Denied(DenyReason::AccountDisabled),
    );
}

#[test]
fn b61_username_variable_of_an_account_is_its_parent() {
    let home = json!({
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::home/${aws:username}",
            "Condition": {"StringEquals": {"aws:PrincipalType": ["User", "AssumedRole"]}},
        },
    });
    let home = Policy::parse(home.to_string().as_bytes()).unwrap();
    let snapshot = snapshot()
        .with(Item::Policy(policy_name("home"), home.into()))
        .with(of_user("bob", &["home"]))
        .with(Item::ServiceAccount(account("bobs", "bob", None)));
    let context = Context::new(UtcMillis::new(NOW));
    for access_key in ["bob", "bobs"] {
        let may = |object| snapshot.is_allowed(access_key, "s3:GetObject", object, &context);
        assert!(may("arn:aws:s3:::home/bob").is_allowed());
        assert!(!may("arn:aws:s3:::home/bobs").is_allowed());
    }
}

#[test]
fn b61_access_key_has_one_owner_and_shadowed_accounts_are_reported() {
    let snapshot = snapshot()
        .with(user("root", Status::Enabled))
        .with(Item::ServiceAccount(account("bob", "alice", None)))
        .with(temporary("bob", "alice", NOW + 1))
        .with(Item::ServiceAccount(account("twice", "alice", None)))
        .with(temporary("twice", "alice", NOW + 1));
    assert_eq!(snapshot.key_owner("root"), Some(KeyOwner::Root));
    assert!(
        matches!(snapshot.key_owner("bob"), Some(KeyOwner::User(user)) if &*user.name == "bob")
    );
    assert!(matches!(snapshot.key_owner("twice"), Some(KeyOwner::ServiceAccount(_))));
    let findings: Vec<_> = snapshot.findings().listed.iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        [
            "user root cannot be used: its access key is that of the root account",
            "service account bob cannot be used: its access key is that of user bob",
            "temporary credential bob cannot be used: its access key is that of user bob",
            "temporary credential twice cannot be used: its access key is that of service account \
             twice",
        ],
    );
}

#[test]
fn b61_dangling_references_are_reported_and_have_no_effect() {
    assert_eq!(snapshot().findings().count, 0);
    let snapshot = snapshot()
        .with(group("ghosts", &["eve"], Status::Enabled))
        .with(of_group("gone", &["read"]))
        .with(of_user("frank", &["read", "missing"]))
        .with(Item::ServiceAccount(account("evesdrop", "eve", None)))
        .with(Item::ServiceAccount(account("roots", "root", None)))
        .with(temporary("eve-brief", "eve", NOW + 1));
    let findings = snapshot.findings();
    let listed: Vec<_> = findings.listed.iter().map(ToString::to_string).collect();
    assert_eq!(
        listed,
        [
            "group ghosts refers to user eve, which does not exist",
            "service account evesdrop refers to user eve, which does not exist",
            "temporary credential eve-brief refers to user eve, which does not exist",
            "policies of user frank refers to user frank, which does not exist",
            "policies of user frank refers to policy missing, which does not exist",
            "policies of group gone refers to group gone, which does not exist",
        ],
    );
    assert_eq!(findings.count, 6);
    let with_frank = snapshot.with(user("frank", Status::Enabled));
    assert!(decide(&with_frank, "frank", "s3:GetObject").is_allowed(), "existing policies apply");
}

#[test]
fn b61_findings_are_listed_up_to_a_limit() {
    let names: Vec<_> = (0..FINDINGS_MAX + 10).map(|index| format!("ghost-{index:04}")).collect();
    let members: Vec<_> = names.iter().map(String::as_str).collect();
    let findings = snapshot().with(group("ghosts", &members, Status::Enabled)).findings();
    assert_eq!((findings.listed.len(), findings.count), (FINDINGS_MAX, FINDINGS_MAX + 10));
    let [first, .., last] = &findings.listed[..] else { panic!("expected several findings") };
    assert!(first.to_string().contains("ghost-0000") && last.to_string().contains("ghost-0999"));
}

#[test]
fn b61_derived_snapshot_does_not_change_its_origin() {
    let before = snapshot();
    let hash = before.content_hash();
    let after = before
        .with(of_user("bob", &["read"]))
        .without(&ItemKey::Group(GroupName::new("readers").unwrap()));
    assert!(decide(&after, "bob", "s3:GetObject").is_allowed());
    assert!(!decide(&after, "bob", "s3:ListBucket").is_allowed());
    assert!(!decide(&before, "bob", "s3:GetObject").is_allowed());
    assert!(decide(&before, "bob", "s3:ListBucket").is_allowed());
    assert_eq!((before.content_hash(), before.len()), (hash, 13));
    assert_ne!(after.content_hash(), hash);
}

#[test]
fn b61_content_hash_is_stable_across_servers_and_versions() {
    assert_eq!(
        snapshot().content_hash().to_string(),
        "9c87e491fbfa523795f74bbab57c35e396a7539713e233613998135f9a102a68",
    );
}

#[test]
fn b61_items_round_trip_through_json() {
    let session = Some(document("Allow", "s3:Get*"));
    let account = account("AKIA1", "alice", session);
    let stored = serde_json::to_string(&account).unwrap();
    assert_eq!(serde_json::from_str::<ServiceAccount>(&stored).unwrap(), account);
    let newer = stored.replacen('{', "{\"from_the_future\":[1],", 1);
    assert_eq!(serde_json::from_str::<ServiceAccount>(&newer).unwrap(), account);
    assert_eq!(
        stored,
        "{\"access_key\":\"AKIA1\",\"secret\":\"correct horse\",\"parent\":\"alice\",\
         \"status\":\"enabled\",\"session_policy\":{\"Statement\":[{\"Sid\":\"s3:Get*\",\
         \"Effect\":\"Allow\",\"Action\":[\"s3:Get*\"],\"Resource\":[\"*\"]}]}}",
    );
    let broken = stored.replace("\"Allow\"", "\"allow\"");
    let error = serde_json::from_str::<ServiceAccount>(&broken).unwrap_err().to_string();
    assert!(error.contains("statement 1 (\"s3:Get*\"), Effect: must be"), "{error}");
    assert!(!format!("{account:?}").contains("horse"));
}

// ---- any order of changes ----

fn any_item() -> impl Strategy<Value = Item> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let status = || prop::sample::select(vec![Status::Enabled, Status::Disabled]);
    let names = || prop::sample::subsequence(vec!["a", "b", "c"], 0..=3);
    prop_oneof![
        (name(), status()).prop_map(|(name, status)| user(name, status)),
        (name(), names(), status())
            .prop_map(|(name, members, status)| group(name, &members, status)),
        (name(), prop::sample::select(vec!["s3:*", "s3:Get*"]))
            .prop_map(|(name, action)| policy(name, "Allow", action)),
        (name(), names()).prop_map(|(name, policies)| of_user(name, &policies)),
        (name(), names()).prop_map(|(name, policies)| of_group(name, &policies)),
        (name(), name()).prop_map(|(k, parent)| Item::ServiceAccount(account(k, parent, None))),
        (name(), name()).prop_map(|(k, parent)| temporary(k, parent, NOW + 1)),
    ]
}

fn build<'a>(items: impl IntoIterator<Item = &'a Item>) -> Snapshot {
    let start = SnapshotBuilder::new(user_name("root"));
    items.into_iter().cloned().fold(start, SnapshotBuilder::with).build()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn b61_snapshot_depends_on_its_items_and_not_on_their_history(
        changes in vec((any_item(), any::<bool>()), 0..30),
    ) {
        let mut items = BTreeMap::new();
        let mut changed = Snapshot::empty(user_name("root"));
        for (item, is_put) in changes {
            let key = item.key();
            if is_put {
                changed = changed.with(item.clone());
                items.insert(key.clone(), item);
            } else {
                changed = changed.without(&key);
                items.remove(&key);
            }
            prop_assert_eq!(changed.contains(&key), is_put);
        }
        let forwards = build(items.values());
        let backwards = build(items.values().rev());
        prop_assert_eq!(changed.content_hash(), forwards.content_hash());
        prop_assert_eq!(changed.content_hash(), backwards.content_hash());
        prop_assert_eq!(changed.len(), items.len());
        for name in ["a", "b", "c"] {
            prop_assert!(changed.groups_of(name).eq(forwards.groups_of(name)));
            let members = items.values().filter_map(|item| match item {
                Item::Group(group) if group.members().contains(name) => Some(group.name()),
                _ => None,
            });
            prop_assert!(changed.groups_of(name).eq(members));
            for action in ["s3:GetObject", "s3:PutObject"] {
                prop_assert_eq!(decide(&changed, name, action), decide(&backwards, name, action));
            }
        }
    }

    #[test]
    fn b61_content_hashes_are_equal_exactly_for_equal_items(
        one in vec(any_item(), 0..6), other in vec(any_item(), 0..6),
    ) {
        let by_key = |items: &[Item]| -> BTreeMap<_, _> {
            items.iter().map(|item| (item.key(), item.clone())).collect()
        };
        let are_same = by_key(&one) == by_key(&other);
        prop_assert_eq!(build(&one).content_hash() == build(&other).content_hash(), are_same);
    }
}
