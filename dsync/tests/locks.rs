//! Locks between servers, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::{Cluster, TIMEOUT, eventually, within};
use dsync::wire::{self, LockArgs};
use dsync::{DRWMutex, ForceTarget, Limits, LockError, LockKind, LockOptions, LossReason, Token};

fn default() -> LockOptions {
    LockOptions::default().timeout(TIMEOUT)
}

#[tokio::test(flavor = "multi_thread")]
async fn b50_a_writer_excludes_all_and_readers_share() {
    let cluster = Cluster::start(4, &Limits::default()).await;
    let writer = cluster.mutex(0, "a").lock(default()).await.expect("free");
    assert!(writer.is_held());
    for server in 0..4 {
        let refused = cluster.mutex(server, "a").read_lock(within(30)).await;
        assert!(matches!(refused, Err(LockError::TimedOut { .. })), "{refused:?}");
        drop(cluster.mutex(server, "b").lock(default()).await.expect("another resource is free"));
    }
    writer.unlock().await;
    let first = cluster.mutex(1, "a").read_lock(default()).await.expect("free");
    let second = cluster.mutex(2, "a").read_lock(default()).await.expect("readers share");
    let refused =
        cluster.mutex(3, "a").lock(within(30)).await.expect_err("readers exclude writers");
    assert!(refused.to_string().contains("others hold it"), "{refused}");
    drop((first, second));
    drop(cluster.mutex(3, "a").lock(default()).await.expect("free again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn b51_contenders_hold_one_at_a_time_and_b54_tokens_grow() {
    let cluster = Cluster::start(3, &Limits::default()).await;
    let (holders, last) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for task in 0..12 {
        let mutex = cluster.mutex(task % 3, "contended");
        let (holders, last) = (Arc::clone(&holders), Arc::clone(&last));
        tasks.push(tokio::spawn(async move {
            for _ in 0..5 {
                let guard = mutex.lock(default()).await.expect("in turn");
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                let token = guard.token().expect("tokens are known").get();
                assert!(last.swap(token, Ordering::SeqCst) < token, "a token that does not grow");
                tokio::task::yield_now().await;
                holders.fetch_sub(1, Ordering::SeqCst);
                drop(guard);
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    for server in &cluster.servers {
        eventually("nothing is left", || server.dsync.stats().live == 0).await;
        let stats = server.dsync.stats();
        assert_eq!((stats.lost, stats.locked), (0, 20));
        // Notified waiters do not retry in vain: two attempts a lock, with few exceptions.
        assert!(stats.notifications > 0 && stats.attempts < 100, "B55: {stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_resources_are_acquired_all_or_none_in_any_order() {
    let cluster = Cluster::start(3, &Limits::default()).await;
    let both = |server: usize, resources: [&str; 2]| {
        let mutex = DRWMutex::new(&cluster.servers[server].dsync, resources);
        async move {
            for _ in 0..10 {
                mutex.lock(default()).await.expect("no deadlock").unlock().await;
            }
        }
    };
    tokio::join!(both(0, ["x", "y"]), both(1, ["y", "x"]), both(2, ["y", "z"]));
    let x = cluster.mutex(0, "x").lock(default()).await.expect("free");
    DRWMutex::new(&cluster.servers[1].dsync, ["x", "y"])
        .lock(within(30))
        .await
        .expect_err("x is taken");
    let y = cluster.mutex(2, "y").lock(default()).await.expect("y was not kept");
    drop((x, y));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_takes_as_many_resources_as_the_limit() {
    let cluster = Cluster::start(3, &Limits::default()).await;
    let resources =
        |count: usize| (0..count).map(|n| format!("bucket/object-{n}")).collect::<Vec<_>>();
    let all = DRWMutex::new(&cluster.servers[0].dsync, resources(1_000));
    let guard = all.lock(default()).await.expect("all are free");
    for name in ["bucket/object-0", "bucket/object-999"] {
        cluster.mutex(1, name).read_lock(within(30)).await.expect_err("it is one of them");
    }
    guard.unlock().await;
    drop(cluster.mutex(1, "bucket/object-999").lock(default()).await.expect("free again"));
    let more = DRWMutex::new(&cluster.servers[0].dsync, resources(1_001));
    let refused = more.lock(default()).await.expect_err("one too many");
    assert_eq!(refused.to_string(), "a lock may take 1000 resources, not 1001");
}

#[tokio::test(flavor = "multi_thread")]
async fn lockers_may_be_fewer_than_servers() {
    let cluster = Cluster::start_with_lockers(4, 1, &Limits::default()).await;
    assert!(cluster.servers[0].dsync.locker().is_some());
    assert!(cluster.servers[3].dsync.locker().is_none());
    let held = cluster.mutex(3, "a").lock(default()).await.expect("one locker is enough");
    cluster.mutex(2, "a").lock(within(30)).await.expect_err("it is the only locker");
    let listing = cluster.servers[1].dsync.locks(TIMEOUT).await;
    assert_eq!(listing.locks[0].granted_by, [cluster.urls[0].clone()]);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn lock_with_can_run_in_a_spawned_task() {
    let cluster = Cluster::start(1, &Limits::default()).await;
    let mutex = cluster.mutex(0, "a");
    let work = async move {
        let read = mutex.read_lock_with(default(), async |guard| guard.token()).await?;
        let written = mutex.lock_with(default(), async |guard| {
            tokio::task::yield_now().await;
            guard.token()
        });
        Ok::<_, LockError>((read, written.await?))
    };
    let (read, written) = tokio::spawn(work).await.expect("no panic").expect("free");
    assert!(read < written);
}

#[tokio::test(flavor = "multi_thread")]
async fn b56_a_lock_that_is_cancelled_or_dropped_leaves_no_grant_or_waiter() {
    let cluster = Cluster::start(3, &Limits::default()).await;
    let held = cluster.mutex(0, "a").lock(default()).await.expect("free");
    let mutex = cluster.mutex(1, "a");
    let acquisition =
        tokio::spawn(async move { mutex.lock(LockOptions::default().forever()).await });
    let waiters = || {
        let stats = cluster.servers.iter().map(|server| server.dsync.stats());
        stats.filter_map(|stats| stats.locker).map(|locker| locker.waiters).sum::<usize>()
    };
    eventually("it waits", || waiters() > 0).await;
    acquisition.abort();
    eventually("its waiters have left", || waiters() == 0).await;
    drop(held);
    let left = || {
        let grants = |stats: dsync::Stats| stats.live + stats.locker.map_or(0, |own| own.grants);
        cluster.servers.iter().map(|server| grants(server.dsync.stats())).sum::<usize>()
    };
    eventually("nothing is left", || left() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b52_a_holder_without_reachable_lockers_is_notified_of_the_loss_before_its_lease_ends() {
    let limits = Limits::with_lease(Duration::from_secs(2));
    let mut cluster = Cluster::start(3, &limits).await;
    let guard = cluster.mutex(0, "a").lock(default()).await.expect("free");
    let (lost, token) = (guard.lost(), guard.token());
    for server in cluster.servers.drain(1..) {
        server.kill().await;
    }
    let lost = tokio::time::timeout(TIMEOUT, lost).await.expect("notified");
    assert_eq!(lost, LossReason::Expired);
    assert!(!guard.is_held() && guard.token() == token);
    let refused = cluster.mutex(0, "a").lock(within(100)).await.expect_err("no quorum");
    assert!(refused.to_string().contains("1 of 3 servers are known"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b52_work_under_a_lock_is_dropped_when_it_is_lost() {
    let limits = Limits::with_lease(Duration::from_secs(2));
    let mut cluster = Cluster::start(3, &limits).await;
    let mutex = cluster.mutex(0, "a");
    let done = mutex.lock_with(default(), async |guard| guard.token()).await.expect("quick work");
    let others: Vec<_> = cluster.servers.drain(1..).collect();
    let work = mutex.lock_with(default(), async |guard| {
        assert!(guard.token() > done);
        for server in others {
            server.kill().await;
        }
        std::future::pending::<()>().await;
    });
    let ended = tokio::time::timeout(TIMEOUT, work).await.expect("it ends");
    assert_eq!(ended, Err(LockError::Lost(LossReason::Expired)));
}

#[tokio::test(flavor = "multi_thread")]
async fn b56_operators_see_holders_and_waiters_and_force_a_lock_open_safely() {
    let cluster = Cluster::start(3, &Limits::default()).await;
    let options = default().source("put_object");
    let held = cluster.mutex(0, "a").lock(options).await.expect("free");
    let waiter = cluster.mutex(1, "a");
    let next = tokio::spawn(async move { waiter.lock(default()).await });
    let listing = loop {
        let listing = cluster.servers[2].dsync.locks(TIMEOUT).await;
        if !listing.waiters.is_empty() {
            break listing;
        }
    };
    let lock = listing.locks.iter().find(|lock| lock.uid == held.uid()).expect("it is listed");
    assert_eq!(
        (&*lock.resources, lock.kind, &*lock.source),
        (&["a".to_owned()][..], LockKind::Write, "put_object")
    );
    assert_eq!((&lock.owner, lock.quorum, lock.is_stale), (&cluster.urls[0], 2, false));
    assert_eq!(listing.waiters[0].owner, cluster.urls[1]);
    assert!(listing.unreachable.is_empty() && listing.closed.is_empty());

    let forced = ForceTarget::Resource("a".to_owned());
    let report = cluster.servers[2].dsync.force_unlock(&forced, TIMEOUT).await;
    assert!(report.is_effective, "{report:?}");
    assert_eq!(held.lost().await, LossReason::Revoked);
    assert!(!held.is_held());
    // Its guard is not dropped yet: no other holder has the lock.
    let listing = cluster.servers[2].dsync.locks(TIMEOUT).await;
    assert!(!next.is_finished() && listing.locks.iter().any(|lock| lock.uid == held.uid()));
    let token = held.token();
    drop(held);
    let next = next.await.expect("no panic").expect("it is free");
    assert!(next.token() > token);
    let missing =
        cluster.servers[2].dsync.force_unlock(&ForceTarget::Uid("x".to_owned()), TIMEOUT).await;
    assert!(!missing.is_effective && missing.not_found.len() == 3, "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b54_tokens_need_one_round_once_the_lockers_clocks_are_known() {
    let cluster = Cluster::start(4, &Limits::default()).await;
    let mut last = Some(Token::default());
    for round in 0..40 {
        let server = if round < 20 { 0 } else { round % 4 };
        let guard = cluster.mutex(server, "a").lock(default()).await.expect("free");
        assert!(guard.token() > last);
        last = guard.token();
        guard.unlock().await;
        if round == 19 {
            // Only the first lock needed a second round: the clocks were unknown.
            assert_eq!(cluster.servers[0].dsync.stats().second_rounds, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b51_a_server_with_another_locker_list_gets_no_locks() {
    let cluster = Cluster::start(3, &Limits::default()).await;
    let manager = &cluster.servers[1].manager;
    let connection = manager.connection(&cluster.urls[0]).expect("a server");
    connection.wait_connected().await.expect("both are up");
    let args = |quorum| LockArgs {
        uid: "1".to_owned(),
        resources: vec!["a".to_owned()],
        quorum: Some(quorum),
        leased: true,
        ..LockArgs::default()
    };
    let response = wire::LOCK.call(&connection, &args(1)).await.expect("a response");
    assert_eq!(response.code, wire::CODE_ERROR);
    assert_eq!(
        response.error,
        "with 3 lockers a write lock needs 2 of them, not 1: is the list of lockers the same on all \
         servers?"
    );
    let response = wire::LOCK.call(&connection, &args(2)).await.expect("a response");
    assert_eq!(response.code, wire::CODE_OK);
}

#[tokio::test]
async fn invalid_locks_are_refused_with_the_reason() {
    let cluster = Cluster::start(1, &Limits::default()).await;
    let empty = cluster.mutex(0, "").lock(default()).await.expect_err("no name");
    assert_eq!(empty.to_string(), "a resource's name must not be empty");
    let source = LockOptions::default().source(&"x".repeat(2_000));
    let long = cluster.mutex(0, "a").lock(source).await.expect_err("a long text");
    assert_eq!(long.to_string(), "a lock's source may have 1024 bytes, not 2000");
    cluster.servers[0].dsync.shutdown(TIMEOUT).await;
    let late = cluster.mutex(0, "a").lock(default()).await.expect_err("shut down");
    assert_eq!(late, LockError::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn b65_a_server_that_is_closed_loses_its_locks_and_gets_none() {
    let cluster = Cluster::start(3, &Limits::with_lease(Duration::from_secs(4))).await;
    let held = cluster.mutex(0, "held").lock(default()).await.expect("free");
    let other = cluster.mutex(1, "other").lock(default()).await.expect("free");
    let waiting = tokio::spawn({
        let mutex = cluster.mutex(0, "other");
        async move { mutex.lock(default()).await }
    });
    let servers = &cluster.servers;
    let waiters = || servers[1].dsync.stats().locker.map_or(0, |locker| locker.waiters);
    eventually("the second lock is waited for", || waiters() > 0).await;
    servers[0].dsync.close("it belongs to another deployment");
    // The other two are open and have its list: they would extend the one, and grant the other.
    let lost = tokio::time::timeout(TIMEOUT, held.lost()).await.expect("it is lost");
    assert_eq!(lost, LossReason::Expired);
    drop(other);
    let refused = waiting.await.expect("no panic").expect_err("a closed server takes no lock");
    assert!(matches!(refused, LockError::NotReady { .. }), "{refused}");
    drop(cluster.mutex(2, "other").lock(default()).await.expect("it is free for others"));
}
