//! Time to evaluate whether a user is allowed an action, and to change a snapshot.
//!
//! A hundred thousand users and a thousand policies. Each user has two policies and is in one
//! group, which has a third. Each request is for another user, so that the data is not in the CPU
//! cache from the previous decision.
#![expect(clippy::expect_used, reason = "a benchmark's own inputs are valid")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use iam_bootstrap::model::{
    AccessKey, Group, GroupName, PolicyMapping, PolicyName, Secret, ServiceAccount, User, UserName,
    UtcMillis,
};
use iam_bootstrap::policy::{Context, Policy};
use iam_bootstrap::snapshot::{Item, Snapshot, SnapshotBuilder};

const USERS: usize = 100_000;
const POLICIES: usize = 1_000;
const GROUPS: usize = 1_000;
/// Service accounts of the first users, with a session policy each.
const ACCOUNTS: usize = 10_000;
const NOW: UtcMillis = UtcMillis::new(1_769_860_800_000);

criterion_group!(iam_evaluate, decide, change);
criterion_main!(iam_evaluate);

fn decide(criterion: &mut Criterion) {
    let snapshot = build();
    let context = Context::new(NOW)
        .with("aws:SourceIp", "10.1.2.3")
        .with("aws:SecureTransport", "true")
        .with("s3:prefix", "");
    let users = shuffled(USERS).map(user_text).collect::<Vec<_>>();
    let objects = shuffled(USERS)
        .map(|user| format!("arn:aws:s3:::bucket-{}/{}/a.jpg", user % POLICIES, user_text(user)))
        .collect::<Vec<_>>();
    let accounts = shuffled(ACCOUNTS).map(account_text).collect::<Vec<_>>();
    let account_objects = shuffled(ACCOUNTS)
        .map(|user| format!("arn:aws:s3:::bucket-{}/{}/a.jpg", user % POLICIES, user_text(user)))
        .collect::<Vec<_>>();

    let mut group = criterion.benchmark_group("iam_evaluate");
    group.throughput(Throughput::Elements(1));
    for (name, keys, objects, action, is_allowed) in [
        ("user_allowed", &users, &objects, "s3:GetObject", true),
        ("user_denied", &users, &objects, "s3:PutBucketPolicy", false),
        ("service_account_allowed", &accounts, &account_objects, "s3:GetObject", true),
    ] {
        let mut requests = keys.iter().zip(objects).cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (key, object) = requests.next().expect("a cycle never ends");
                let decision = snapshot.is_allowed(key, action, object, &context);
                assert_eq!(decision.is_allowed(), is_allowed);
            });
        });
    }
    group.finish();
}

fn change(criterion: &mut Criterion) {
    let snapshot = build();
    let mut group = criterion.benchmark_group("iam_change");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_user", |bencher| {
        let mut names = shuffled(USERS).map(user).cycle();
        let next = || names.next().expect("a cycle never ends");
        bencher.iter_batched(next, |user| snapshot.with(user), BatchSize::SmallInput);
    });
    group.finish();

    let mut group = criterion.benchmark_group("iam_build");
    group.sample_size(10);
    group.throughput(Throughput::Elements(snapshot.len() as u64));
    group.bench_function("all", |bencher| bencher.iter_with_large_drop(build));
    group.finish();
}

/// Returns all numbers below `count`, in an order that a prefetcher does not predict.
fn shuffled(count: usize) -> impl Iterator<Item = usize> + Clone {
    // The step is prime and greater than any count, so each number is visited once.
    (0..count).map(move |index| index * 1_000_003 % count)
}

fn build() -> Snapshot {
    let mut builder = SnapshotBuilder::new(UserName::new("root").expect("a name"));
    let items = (0..POLICIES).map(policy).chain((0..USERS).map(user));
    let items = items.chain((0..USERS).map(mapping)).chain((0..ACCOUNTS).map(account));
    for item in items.chain((0..GROUPS).flat_map(group)) {
        builder.put(item);
    }
    builder.build()
}

fn user_text(index: usize) -> String {
    format!("user-{index:06}")
}

fn account_text(index: usize) -> String {
    format!("AKIA{index:016}")
}

fn user_name(index: usize) -> UserName {
    UserName::new(&user_text(index)).expect("a name")
}

fn policy_name(index: usize) -> PolicyName {
    PolicyName::new(&format!("policy-{:03}", index % POLICIES)).expect("a name")
}

fn user(index: usize) -> Item {
    let secret = Secret::new(&format!("secret of {index}")).expect("a secret");
    Item::User(User::new(user_name(index), secret))
}

/// A policy that allows a user its own directory of a bucket, over an encrypted connection.
fn policy(index: usize) -> Item {
    let document = format!(
        r#"{{
            "Version": "2012-10-17",
            "Statement": [
                {{
                    "Effect": "Allow",
                    "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
                    "Resource": "arn:aws:s3:::bucket-{index}/${{aws:username}}/*"
                }},
                {{
                    "Effect": "Allow",
                    "Action": ["s3:ListBucket", "s3:GetBucketLocation"],
                    "Resource": "arn:aws:s3:::bucket-{index}",
                    "Condition": {{"StringLike": {{"s3:prefix": ["", "${{aws:username}}/*"]}}}}
                }},
                {{
                    "Effect": "Deny",
                    "Action": "s3:*",
                    "Resource": "arn:aws:s3:::bucket-{index}/*",
                    "Condition": {{"Bool": {{"aws:SecureTransport": "false"}}}}
                }}
            ]
        }}"#
    );
    let policy = Policy::parse(document.as_bytes()).expect("a policy");
    Item::Policy(policy_name(index), policy.into())
}

fn mapping(index: usize) -> Item {
    let policies = [policy_name(index), policy_name(index + 1)];
    Item::UserPolicies(user_name(index), PolicyMapping::new(policies).expect("two policies"))
}

/// A group of every thousandth user, with its policy.
fn group(index: usize) -> [Item; 2] {
    let name = GroupName::new(&format!("group-{index}")).expect("a name");
    let members = (index..USERS).step_by(GROUPS).map(user_name);
    let policies = PolicyMapping::new([policy_name(index + 2)]).expect("one policy");
    let group = Group::new(name.clone(), members).expect("a hundred members");
    [Item::Group(group), Item::GroupPolicies(name, policies)]
}

fn account(index: usize) -> Item {
    let document =
        br#"{"Statement": {"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::*"}}"#;
    let key = AccessKey::new(&account_text(index)).expect("an access key");
    let secret = Secret::new(&format!("secret of {index}")).expect("a secret");
    let mut account = ServiceAccount::new(key, secret, user_name(index));
    account.session_policy = Some(Policy::parse(document).expect("a policy").into());
    Item::ServiceAccount(account)
}
