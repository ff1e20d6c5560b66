//! Servers lock only once they are opened, and while a majority has the same list of lockers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::{Cluster, TIMEOUT, eventually};
use dsync::proto::hold::{Request, Response};
use dsync::proto::quorum::{ListId, LockKind};
use dsync::proto::resources::Resources;
use dsync::proto::table::{LockRequest, Refusal};
use dsync::proto::token::Token;
use dsync::{
    DRWMutex, Dsync, Guard, Limits, LocalLocker, LockError, LockOptions, Locker, NotReadyReason,
};
use grid::time::{Clock, Instant, Timestamp};
use grid::{Auth, Env, LOCK_GRID_PATH, Manager};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// Limits of a cluster: even if the machine is busy, refreshes and reports arrive in time.
fn limits() -> Limits {
    Limits::with_lease(Duration::from_secs(6))
}

/// Limits of a server that runs alone.
fn short() -> Limits {
    Limits::with_lease(Duration::from_secs(3))
}

fn once() -> LockOptions {
    LockOptions::default().try_once()
}

fn reason(result: Result<Guard, LockError>) -> NotReadyReason {
    match result {
        Err(LockError::NotReady { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

/// Tries to lock until the refusal has the expected reason. Fails if a try is granted.
async fn refused_because(mutex: &DRWMutex, is_expected: impl Fn(&NotReadyReason) -> bool) {
    let mut latest = None;
    let refused = async {
        loop {
            let reason = reason(mutex.lock(once()).await);
            if is_expected(&reason) {
                return;
            }
            latest = Some(reason);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let refused = tokio::time::timeout(TIMEOUT, refused).await;
    assert!(refused.is_ok(), "it is refused for another reason: {latest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b65_no_timer_opens_a_server_that_has_not_verified_the_cluster() {
    let url = "http://127.0.0.1:1";
    let manager = Manager::builder(url)
        .servers([url])
        .auth(Auth::shared_secret(b"what all servers know").expect("long enough"))
        .path(LOCK_GRID_PATH)
        .build()
        .expect("a valid configuration");
    let dsync = Dsync::builder(&manager).limits(short()).build().expect("one locker");
    let mutex = DRWMutex::new(&dsync, ["a"]);
    assert_eq!(reason(mutex.lock(once()).await), NotReadyReason::NotVerified, "it is not started");
    manager.start().expect("a runtime");
    dsync.start();
    let is_recovered = || dsync.locker().is_some_and(|own| own.unreported_nodes().is_none());
    eventually("the locker has recovered", is_recovered).await;
    // A wait that ends with its timeout, which is longer than all periods of the gate.
    let waiting = mutex.lock(LockOptions::default().timeout(short().lease * 2));
    assert_eq!(reason(waiting.await), NotReadyReason::NotVerified);
    assert_eq!(reason(mutex.lock(once()).await), NotReadyReason::NotVerified);
    assert!(!dsync.is_open());

    let waiting = tokio::spawn({
        let mutex = mutex.clone();
        async move { mutex.lock(LockOptions::default().timeout(TIMEOUT)).await }
    });
    dsync.open();
    let guard = waiting.await.expect("no panic").expect("it waited for this");
    assert!(guard.is_held() && dsync.is_open() && dsync.not_ready().is_none());

    dsync.close("another deployment");
    let reason = reason(mutex.lock(once()).await);
    assert_eq!(reason.to_string(), "closed: another deployment");
    guard.lost().await;
    assert!(!guard.is_held(), "a held lock runs out");
}

#[tokio::test(flavor = "multi_thread")]
async fn b65_server_with_a_list_of_its_own_never_opens_and_stops_no_other() {
    let lists: [&[usize]; 3] = [&[0], &[0, 1, 2], &[0, 1, 2]];
    let cluster = Cluster::start_with_lists(&lists, &limits()).await;
    eventually("the others agree", || {
        cluster.servers[1..].iter().all(|server| server.dsync.not_ready().is_none())
    })
    .await;
    let options = LockOptions::default().timeout(TIMEOUT);
    let held = cluster.mutex(1, "a").lock(options).await.expect("two of three lockers");
    let urls = &cluster.urls;
    let expected = NotReadyReason::NoMajority {
        equal: 1,
        needed: 2,
        servers: 3,
        differing: {
            let mut others: Vec<_> = urls[1..].iter().map(|url| url.as_str().into()).collect();
            others.sort();
            others
        },
        unconfirmed: Vec::new(),
    };
    refused_because(&cluster.mutex(0, "a"), |reason| *reason == expected).await;
    assert!(held.is_held());
}

fn has_two_servers(reason: &NotReadyReason) -> bool {
    matches!(reason, NotReadyReason::NoMajority { equal: 2, .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn b65_of_two_lists_only_that_of_the_majority_locks() {
    let (first, second): (&[usize], &[usize]) = (&[0, 1, 2], &[2, 3, 4]);
    let cluster =
        Cluster::start_with_lists(&[first, first, first, second, second], &limits()).await;
    eventually("the majority agrees", || {
        cluster.servers[..3].iter().all(|server| server.dsync.not_ready().is_none())
    })
    .await;
    let options = LockOptions::default().timeout(TIMEOUT);
    let held = cluster.mutex(0, "a").lock(options).await.expect("a quorum of the first list");
    for minority in [3, 4] {
        refused_because(&cluster.mutex(minority, "a"), has_two_servers).await;
    }
    assert!(held.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn b65_rolling_change_of_the_list_stops_locks_instead_of_doubling_them() {
    let (first, second): (&[usize], &[usize]) = (&[0, 1, 2], &[2, 3, 4]);
    let limits = limits();
    let mut cluster = Cluster::start_with_lists(&[first; 5], &limits).await;
    cluster.wait_open().await;
    let options = || LockOptions::default().timeout(TIMEOUT);
    let held = cluster.mutex(0, "a").lock(options()).await.expect("all agree");
    // Its lockers 0 and 1 run on; the second list has a quorum without them.
    for server in [4, 3, 2] {
        cluster.restart(server, second, &limits).await;
    }
    let later =
        cluster.mutex(3, "a").lock(options()).await.expect("a majority has the second list");
    assert!(!held.is_held(), "two writers at once");
    assert!(later.is_held());
    refused_because(&cluster.mutex(1, "b"), has_two_servers).await;
    for server in [1, 0] {
        cluster.restart(server, second, &limits).await;
    }
    cluster.wait_open().await;
    assert!(later.is_held(), "it is held by the second list throughout");
}

/// A clock that the test sets, in milliseconds.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl Clock for SetClock {
    fn now(&self) -> Instant {
        Instant::default() + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::default()
    }
}

#[tokio::test]
async fn b65_locker_that_was_suspended_beyond_its_admission_grants_nothing_when_it_resumes() {
    let clock = SetClock::default();
    let env = Env::new(clock.clone(), &mut SmallRng::seed_from_u64(1));
    let locker = LocalLocker::new("n", ["n".into()], &short(), env);
    let lock = async |uid: &str| {
        let request = LockRequest {
            uid: uid.into(),
            resources: Resources::new(["a"]).expect("valid"),
            kind: LockKind::Read,
            owner: "n".into(),
            source: "test".into(),
            quorum: 1,
            proposed_token: Token::default(),
            ticket: None,
            supports_leases: true,
            list: ListId::default(),
        };
        let response = locker.call(Request::Lock(request), TIMEOUT).await.expect("it responds");
        match response.response {
            Response::Lock(result) => result.map(drop),
            other => panic!("{other:?}"),
        }
    };
    clock.0.store(10_000, Ordering::Relaxed);
    locker.set_admitted_until(clock.now() + Duration::from_millis(500));
    clock.0.store(10_499, Ordering::Relaxed);
    assert_eq!(lock("1").await, Ok(()));
    // No timer has run meanwhile.
    clock.0.store(10_500, Ordering::Relaxed);
    assert_eq!(lock("2").await, Err(Refusal::NotReady));
    locker.set_admitted_until(clock.now() + Duration::from_millis(500));
    assert_eq!(lock("3").await, Ok(()));
}
