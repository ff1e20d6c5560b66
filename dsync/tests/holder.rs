//! Holders: one attempt, order among waiters, releases, refreshes in batches. Over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{Cluster, TIMEOUT, eventually};
use dsync::proto::table::RefreshRequest;
use dsync::wire::{self, LockArgs, LockResponse};
use dsync::{Limits, LockError, LockOptions, Locker, RemoteLocker};
use grid::{Auth, LOCK_GRID_PATH, Manager};
use tokio::net::TcpListener;

fn default() -> LockOptions {
    LockOptions::default().timeout(TIMEOUT)
}

#[tokio::test(flavor = "multi_thread")]
async fn b55_a_try_takes_a_free_lock_and_says_of_a_held_one_that_it_is_held() {
    let cluster = Cluster::start(4, &Limits::default()).await;
    for number in 0..20 {
        let options = match number % 2 {
            0 => LockOptions::default().timeout(Duration::ZERO),
            _ => LockOptions::default().try_once(),
        };
        let guard = cluster.mutex(number % 4, &format!("free-{number}")).lock(options).await;
        drop(guard.expect("it is free"));
    }
    let held = cluster.mutex(0, "held").lock(default()).await.expect("free");
    let refused = cluster.mutex(1, "held").lock(LockOptions::default().try_once()).await;
    let error = refused.expect_err("it is held");
    let LockError::NotAcquired { stats } = &error else { panic!("{error:?}") };
    assert_eq!((stats.attempts, stats.lockers, stats.unreachable), (1, 4, 0));
    assert!(stats.in_conflict >= 2, "{stats:?}");
    let text = error.to_string();
    assert!(text.contains("said that others hold it") && !text.contains("reached"), "{text}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn b56_unlock_returns_at_once_and_reports_whether_all_lockers_confirmed() {
    let mut cluster = Cluster::start(3, &Limits::default()).await;
    let guard = cluster.mutex(0, "a").lock(default()).await.expect("free");
    let report = guard.unlock().await;
    assert!(report.is_confirmed() && report.lockers == 3, "{report:?}");
    let guard = cluster.mutex(0, "a").lock(default()).await.expect("free");
    for server in cluster.servers.drain(1..) {
        server.kill().await;
    }
    // Two of three lockers are gone: this would take a lease if it waited for them.
    drop(guard.unlock());
    let stats = || cluster.servers[0].dsync.stats();
    assert_eq!(stats().held, 0);
    eventually("only its release goes on", || stats().live == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b58_waiters_are_granted_in_the_order_of_their_tickets() {
    // Each notified waiter has all the time that it needs, on a busy machine too.
    let mut limits = Limits::default();
    limits.reservation = Duration::from_secs(10);
    let cluster = Cluster::start(3, &limits).await;
    let held = cluster.mutex(0, "a").lock(default()).await.expect("free");
    let queued = |count: usize| {
        cluster
            .servers
            .iter()
            .all(|server| server.dsync.stats().locker.is_some_and(|locker| locker.waiters == count))
    };
    let granted = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for number in 0..12 {
        let (mutex, granted) = (cluster.mutex(number % 3, "a"), Arc::clone(&granted));
        tasks.push(tokio::spawn(async move {
            let guard = mutex.lock(default()).await.expect("in turn");
            granted.lock().expect("no panic").push(number);
            drop(guard);
        }));
        eventually("all lockers have its ticket", || queued(number + 1)).await;
    }
    drop(held);
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(*granted.lock().expect("no panic"), (0..12).collect::<Vec<_>>());
    eventually("no ticket is left", || queued(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b52_held_locks_are_extended() {
    let limits = Limits::with_lease(Duration::from_secs(12));
    let cluster = Cluster::start(3, &limits).await;
    let mut guards = Vec::new();
    for number in 0..300 {
        let guard = cluster.mutex(0, &format!("{number}")).lock(default()).await.expect("free");
        guards.push((guard.valid_until(), guard));
    }
    let is_extended = || guards.iter().all(|(first, guard)| guard.valid_until() > *first);
    eventually("all locks are extended", is_extended).await;
    assert!(guards.iter().all(|(_, guard)| guard.is_held()));
}

async fn manager(url: &str, urls: &[String]) -> Manager {
    Manager::builder(url)
        .servers(urls)
        .auth(Auth::shared_secret(b"what all servers know").expect("long enough"))
        .path(LOCK_GRID_PATH)
        .build()
        .expect("a valid configuration")
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_a_locker_that_knows_no_batches_gets_none_after_the_first() {
    let listeners =
        [TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await];
    let listeners = listeners.map(|listener| listener.expect("a port"));
    let urls = listeners
        .each_ref()
        .map(|listener| format!("http://{}", listener.local_addr().expect("bound")));
    let (holder, locker) = (manager(&urls[0], &urls).await, manager(&urls[1], &urls).await);
    // As the previous release: it has no handler of batches.
    wire::REFRESH
        .register(&locker, |_, _: LockArgs| async { Ok(LockResponse::default()) })
        .expect("it is free");
    for (manager, listener) in [&holder, &locker].into_iter().zip(listeners) {
        manager.start().expect("a runtime");
        tokio::spawn(manager.clone().serve(listener));
    }
    let connection = holder.connection(&urls[1]).expect("a server");
    connection.wait_connected().await.expect("both are up");
    let remote = RemoteLocker::new(connection);
    assert!(remote.accepts_batches());
    let refresh = || RefreshRequest { uid: "1".into(), claim: None };
    let batch = remote.refresh_batch(vec![refresh(), refresh()], TIMEOUT).await;
    assert!(batch.is_err_and(|error| !error.may_have_run), "it has not run");
    assert!(!remote.accepts_batches());
    let single = dsync::proto::hold::Request::Refresh(refresh());
    remote.call(single, TIMEOUT).await.expect("single refreshes work");
}
