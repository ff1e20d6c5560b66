//! Common policies, and their expected decisions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use iam_bootstrap::model::UtcMillis;
use iam_bootstrap::policy::{Context, Policy, PrincipalKind, Request, Subject, Verdict};
use serde_json::{Value, json};

/// 2026-01-31T12:00:00Z
const NOW: UtcMillis = UtcMillis::new(1_769_860_800_000);

#[expect(clippy::needless_pass_by_value, reason = "so that json! stands where it is used")]
fn policy(statements: Value) -> Policy {
    let document = json!({"Version": "2012-10-17", "Statement": statements});
    Policy::parse(document.to_string().as_bytes()).unwrap()
}

fn verdict(policy: &Policy, action: &str, resource: &str, context: &Context<'_>) -> Verdict {
    let subject = Subject { username: "alice", kind: PrincipalKind::User };
    policy.evaluate(&Request::new(subject, action, resource, context))
}

fn allows(policy: &Policy, action: &str, resource: &str) -> bool {
    let context = Context::new(NOW);
    matches!(verdict(policy, action, resource, &context), Verdict::Allowed(_))
}

#[test]
fn b61_readonly_policy_allows_only_reads() {
    let readonly = policy(json!({
        "Effect": "Allow",
        "Action": ["s3:GetBucketLocation", "s3:GetObject"],
        "Resource": "arn:aws:s3:::*",
    }));
    assert!(allows(&readonly, "s3:GetObject", "arn:aws:s3:::photos/a.jpg"));
    assert!(allows(&readonly, "s3:getobject", "arn:aws:s3:::photos/a.jpg"), "case does not matter");
    for action in
        ["s3:PutObject", "s3:DeleteObject", "s3:GetObjectTagging", "s3:GetObjec", "GetObject"]
    {
        assert!(!allows(&readonly, action, "arn:aws:s3:::photos/a.jpg"), "{action}");
    }
}

#[test]
fn b61_writeonly_policy_allows_only_writes() {
    let writeonly = policy(json!([{
        "Effect": "Allow",
        "Action": ["s3:PutObject"],
        "Resource": ["arn:aws:s3:::inbox/*"],
    }]));
    assert!(allows(&writeonly, "s3:PutObject", "arn:aws:s3:::inbox/new"));
    assert!(!allows(&writeonly, "s3:GetObject", "arn:aws:s3:::inbox/new"));
    for elsewhere in ["arn:aws:s3:::inbox", "arn:aws:s3:::inbox2/new", "arn:aws:s3:::INBOX/new", ""]
    {
        assert!(!allows(&writeonly, "s3:PutObject", elsewhere), "{elsewhere}");
    }
}

#[test]
fn b61_admin_actions_need_no_resource() {
    let diagnostics = policy(json!({
        "Effect": "Allow",
        "Action": ["admin:ServerTrace", "admin:Profiling", "admin:ServerInfo"],
    }));
    assert!(allows(&diagnostics, "admin:ServerInfo", ""));
    assert!(!allows(&diagnostics, "admin:CreateUser", ""));
    assert!(!allows(&diagnostics, "s3:GetObject", "arn:aws:s3:::photos/a.jpg"));
}

#[test]
fn b61_bucket_resource_does_not_cover_admin_actions() {
    let bucket =
        policy(json!({"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::mine*"}));
    assert!(allows(&bucket, "s3:PutObject", "arn:aws:s3:::mine/a"));
    assert!(!allows(&bucket, "admin:CreateUser", ""));
    let everything = policy(json!({"Effect": "Allow", "Action": "*", "Resource": "*"}));
    assert!(allows(&everything, "admin:CreateUser", ""));
}

#[test]
fn b61_home_directory_is_restricted_by_prefix() {
    let home = policy(json!([
        {
            "Sid": "list",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": "arn:aws:s3:::home",
            "Condition": {"StringLike": {"s3:prefix": ["", "${aws:username}/*"]}},
        },
        {
            "Sid": "use",
            "Effect": "Allow",
            "Action": "s3:*Object",
            "Resource": "arn:aws:s3:::home/${aws:username}/*",
        },
    ]));
    let list = |prefix| {
        let context = Context::new(NOW).with("s3:prefix", prefix);
        verdict(&home, "s3:ListBucket", "arn:aws:s3:::home", &context)
    };
    assert_eq!(list(""), Verdict::Allowed(0));
    assert_eq!(list("alice/2026"), Verdict::Allowed(0));
    assert_eq!(list("bob/"), Verdict::NoMatch);
    assert_eq!(list("alice"), Verdict::NoMatch);
    assert!(!allows(&home, "s3:ListBucket", "arn:aws:s3:::home"), "without a prefix");

    assert!(allows(&home, "s3:GetObject", "arn:aws:s3:::home/alice/a"));
    assert!(!allows(&home, "s3:GetObject", "arn:aws:s3:::home/bob/a"));
    assert!(!allows(&home, "s3:GetObjectAcl", "arn:aws:s3:::home/alice/a"));
}

#[test]
fn b61_request_cannot_override_its_username() {
    let home = policy(json!({
        "Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::home/${aws:username}/*",
    }));
    let context = Context::new(NOW).with("aws:username", "bob").with("AWS:UserName", "*");
    assert_eq!(
        verdict(&home, "s3:GetObject", "arn:aws:s3:::home/bob/a", &context),
        Verdict::NoMatch
    );
}

#[test]
fn b61_wildcard_in_a_variable_value_is_literal() {
    let tagged = policy(json!({
        "Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::${x:team}/*",
    }));
    let star = Context::new(NOW).with("x:team", "*");
    assert_eq!(verdict(&tagged, "s3:GetObject", "arn:aws:s3:::red/a", &star), Verdict::NoMatch);
    assert_eq!(verdict(&tagged, "s3:GetObject", "arn:aws:s3:::*/a", &star), Verdict::Allowed(0));
    let two = Context::new(NOW).with("x:team", "red").with("x:team", "blue");
    assert_eq!(verdict(&tagged, "s3:GetObject", "arn:aws:s3:::red/a", &two), Verdict::NoMatch);
}

#[test]
fn b61_variable_without_a_value_allows_nothing() {
    let others = |effect| {
        policy(json!({
            "Effect": effect, "Action": "s3:*", "NotResource": "arn:aws:s3:::${x:team}/*",
        }))
    };
    let red = Context::new(NOW).with("x:team", "red");
    let none = Context::new(NOW);
    let decide = |effect, context: &Context<'_>| {
        verdict(&others(effect), "s3:GetObject", "arn:aws:s3:::blue/a", context)
    };
    assert_eq!(decide("Allow", &red), Verdict::Allowed(0));
    assert_eq!(decide("Allow", &none), Verdict::NoMatch);
    assert_eq!(decide("Deny", &none), Verdict::Denied(0));
}

#[test]
fn b61_deny_overrides_allow_in_any_order() {
    let allow = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    let deny = json!({"Effect": "Deny", "Action": "s3:Delete*", "Resource": "arn:aws:s3:::kept/*"});
    let context = Context::new(NOW);
    for (statements, denying) in [(json!([allow, deny]), 1), (json!([deny, allow]), 0)] {
        let policy = policy(statements);
        let decide = |action, resource| verdict(&policy, action, resource, &context);
        assert_eq!(decide("s3:DeleteObject", "arn:aws:s3:::kept/a"), Verdict::Denied(denying));
        assert_eq!(
            decide("s3:DeleteObject", "arn:aws:s3:::other/a"),
            Verdict::Allowed(1 - denying)
        );
    }
}

#[test]
fn b61_source_network_and_encryption_can_be_required() {
    let guarded = policy(json!([
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"NotIpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:db8::/32"]}},
        },
        {
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
    ]));
    let from = |address, secure| {
        let context =
            Context::new(NOW).with("aws:SourceIp", address).with("aws:SecureTransport", secure);
        verdict(&guarded, "s3:GetObject", "arn:aws:s3:::a/b", &context)
    };
    assert_eq!(from("192.0.2.7", "true"), Verdict::Allowed(0));
    assert_eq!(from("2001:db8::7", "true"), Verdict::Allowed(0));
    assert_eq!(from("::ffff:192.0.2.7", "true"), Verdict::Allowed(0));
    assert_eq!(from("198.51.100.1", "true"), Verdict::Denied(1));
    assert_eq!(from("no address", "true"), Verdict::Denied(1));
    assert_eq!(from("192.0.2.7", "False"), Verdict::Denied(2));
}

#[test]
fn b61_statement_can_be_limited_in_time() {
    let until = policy(json!({
        "Effect": "Allow",
        "Action": "s3:*",
        "Resource": "*",
        "Condition": {
            "DateLessThan": {"aws:CurrentTime": "2026-01-31T12:00:00Z"},
            "NumericGreaterThanEquals": {"aws:EpochTime": 1_769_860_799},
        },
    }));
    let at = |millis| {
        let context = Context::new(UtcMillis::new(NOW.get() + millis));
        verdict(&until, "s3:GetObject", "arn:aws:s3:::a/b", &context)
    };
    assert_eq!(at(-1_001), Verdict::NoMatch);
    assert_eq!(at(-1_000), Verdict::Allowed(0));
    assert_eq!(at(-1), Verdict::Allowed(0));
    assert_eq!(at(0), Verdict::NoMatch);
}

#[test]
fn b61_quantifiers_compare_sets_of_values() {
    let with = |operator: &str| {
        policy(json!({
            "Effect": "Allow", "Action": "s3:*", "Resource": "*",
            "Condition": {operator: {"s3:RequestObjectTagKeys": ["team", "cost"]}},
        }))
    };
    let tagged = |operator, tags: &[&'static str]| {
        let mut context = Context::new(NOW);
        tags.iter().for_each(|tag| context.insert("s3:RequestObjectTagKeys", *tag));
        let verdict = verdict(&with(operator), "s3:PutObject", "arn:aws:s3:::a/b", &context);
        verdict == Verdict::Allowed(0)
    };
    let all = ["team", "cost"];
    let some = ["team", "secret"];
    let other = ["secret"];
    for (operator, of_all, of_some, of_other, of_none) in [
        ("StringEquals", true, true, false, false),
        ("StringNotEquals", false, false, true, true),
        ("StringEqualsIfExists", true, true, false, true),
        ("ForAnyValue:StringEquals", true, true, false, false),
        ("ForAnyValue:StringNotEquals", false, true, true, false),
        ("ForAllValues:StringEquals", true, false, false, true),
        ("ForAllValues:StringNotEquals", false, false, true, true),
        ("ForAnyValue:StringEqualsIfExists", true, true, false, true),
    ] {
        assert_eq!(tagged(operator, &all), of_all, "{operator}, all");
        assert_eq!(tagged(operator, &some), of_some, "{operator}, some");
        assert_eq!(tagged(operator, &other), of_other, "{operator}, other");
        assert_eq!(tagged(operator, &[]), of_none, "{operator}, none");
    }
}

#[test]
fn b61_overlong_action_is_not_allowed() {
    let all = policy(json!({"Effect": "Allow", "NotAction": "s3:x", "Resource": "*"}));
    assert!(allows(&all, &format!("s3:{}", "a".repeat(125)), ""));
    assert!(!allows(&all, &format!("s3:{}", "a".repeat(126)), ""));
}

/// Two hundred wildcards would take longer than the age of the universe with backtracking.
#[test]
fn b61_many_wildcards_are_matched_without_backtracking() {
    let stars = format!("arn:aws:s3:::{}c", "*a?".repeat(200));
    let policy = policy(json!({"Effect": "Allow", "Action": "s3:*", "Resource": stars}));
    let text = format!("arn:aws:s3:::{}", "ab".repeat(4_000));
    assert!(!allows(&policy, "s3:GetObject", &text));
    assert!(allows(&policy, "s3:GetObject", &format!("{text}c")));
}
