//! Replicas on several servers load, change, and converge, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{Cluster, NEVER, TEST_TIMEOUT, eventually, key, user};
use iam_bootstrap::store::memory::{DelayHook, Health, Operation};
use iam_bootstrap::store::{ItemKind, ItemPath, MemoryStore};
use iam_bootstrap::{ChangeError, Phase, ReadyError};
use tokio::sync::Semaphore;

fn path(name: &str) -> ItemPath {
    ItemPath::new(ItemKind::User, name).expect("valid name")
}

#[tokio::test]
async fn b62_returned_change_is_visible_on_all_servers() {
    let cluster = Cluster::ready(3, NEVER).await;
    let change = cluster.iam(0).put(user("alice")).await.expect("stored");
    assert_eq!(change.peers.len(), 2);
    assert!(change.peers.values().all(Result::is_ok), "{change:?}");
    for server in 0..3 {
        assert!(cluster.has_user(server, "alice"), "server {server}");
        let stored = cluster.pools[server].contents();
        let bytes = stored.get(&path("alice")).expect("stored in the pool");
        let secret = b"secret of alice";
        assert!(!bytes.windows(secret.len()).any(|part| part == secret), "secret is encrypted");
    }
    // Every server with the item may change and delete it.
    cluster.iam(1).delete(key("alice")).await.expect("item exists");
    assert!((0..3).all(|server| !cluster.has_user(server, "alice")));
    let error = cluster.iam(2).delete(key("alice")).await.expect_err("directory was removed");
    assert_eq!(error, ChangeError::NotFound { key: key("alice") });
    assert_eq!(error.to_string(), "there is no user alice");
}

#[tokio::test]
async fn b62_dead_peer_neither_delays_a_change_nor_goes_unreported() {
    let mut cluster = Cluster::ready(3, NEVER).await;
    cluster.kill(2).await;
    let change = cluster.iam(0).put(user("alice")).await.expect("stored");
    let failed: Vec<_> =
        change.peers.values().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!((change.peers.len(), failed.len()), (2, 1), "{change:?}");
    assert!(cluster.has_user(1, "alice"));
}

#[tokio::test]
async fn b62_restarted_server_catches_up_before_it_is_ready() {
    let mut cluster = Cluster::ready(3, NEVER).await;
    for name in ["alice", "bob"] {
        cluster.iam(0).put(user(name)).await.expect("stored");
    }
    cluster.kill(2).await;
    cluster.iam(0).delete(key("alice")).await.expect("item exists");
    cluster.iam(1).put(user("carol")).await.expect("stored");
    cluster.restart(2).await;
    assert!(cluster.pools[2].contents().contains_key(&path("alice")), "pool is unchanged");
    cluster.iam(2).start();
    cluster.wait_ready(2).await;
    assert!(!cluster.has_user(2, "alice"), "missed deletion is applied");
    assert!(cluster.has_user(2, "bob") && cluster.has_user(2, "carol"));
    cluster.wait_converged().await;
}

#[tokio::test]
async fn b62_deleted_item_is_not_restored_by_a_server_that_missed_the_deletion() {
    let mut cluster = Cluster::ready(2, NEVER).await;
    cluster.iam(0).put(user("alice")).await.expect("stored");
    cluster.kill(1).await;
    cluster.iam(0).delete(key("alice")).await.expect("item exists");
    cluster.restart(1).await;
    cluster.iam(1).start();
    cluster.wait_ready(1).await;
    cluster.wait_converged().await;
    // Nor after a restart of both servers: tombstones are stored.
    for server in 0..2 {
        cluster.kill(server).await;
    }
    for server in 0..2 {
        cluster.restart(server).await;
        cluster.iam(server).start();
        cluster.wait_ready(server).await;
    }
    cluster.wait_converged().await;
    assert!(!cluster.has_user(0, "alice") && !cluster.has_user(1, "alice"));
}

#[tokio::test]
async fn b62_later_of_two_concurrent_changes_wins() {
    let mut cluster = Cluster::ready(2, NEVER).await;
    cluster.iam(0).put(user("alice")).await.expect("stored");
    cluster.kill(1).await;
    cluster.iam(0).delete(key("alice")).await.expect("item exists");
    let again = cluster.iam(0).put(user("alice")).await.expect("stored");
    cluster.restart(1).await;
    cluster.iam(1).start();
    cluster.wait_ready(1).await;
    let deleted = cluster.iam(1).delete(key("alice")).await.expect("item exists");
    assert!(deleted.version > again.version, "a change made with knowledge of another is later");
    cluster.wait_converged().await;
    assert!(!cluster.has_user(0, "alice"));
}

#[tokio::test]
async fn b62_peer_whose_pool_failed_fetches_the_change_later() {
    let cluster = Cluster::ready(2, NEVER).await;
    cluster.pools[1].set_health(Health::Offline("its disk is away".into()));
    let change = cluster.iam(0).put(user("alice")).await.expect("stored");
    let outcome = change.peers.into_values().next().expect("one peer outcome");
    let cause = outcome.expect_err("peer reports an error");
    assert!(cause.contains("pool-1 is unavailable: its disk is away"), "{cause}");
    assert!(!cluster.has_user(1, "alice"), "a change is visible only once it is stored");
    cluster.pools[1].set_health(Health::Online);
    cluster.wait_converged().await;
    assert!(cluster.has_user(1, "alice"));
}

#[tokio::test]
async fn b62_differing_replicas_are_reconciled_at_an_interval() {
    let cluster = Cluster::ready(2, Duration::from_millis(50)).await;
    cluster.pools[1].set_health(Health::Offline("its disk is away".into()));
    for number in 0..20 {
        cluster.iam(0).put(user(&format!("user-{number}"))).await.expect("stored");
    }
    cluster.pools[1].set_health(Health::Online);
    cluster.wait_converged().await;
}

#[tokio::test]
async fn b61_load_waits_for_unavailable_pools() {
    let cluster = Cluster::connected(1, NEVER).await;
    cluster.pools[0].set_health(Health::NotInitialised);
    cluster.iam(0).start();
    eventually("phase names the missing pool", || match cluster.iam(0).phase() {
        Phase::Loading(progress) => progress
            .waiting
            .get("pool-0")
            .is_some_and(|cause| cause.contains("pool-0 is not initialised")),
        _ => false,
    })
    .await;
    assert!(cluster.iam(0).snapshot().is_none(), "no snapshot before the load");
    let error = cluster.iam(0).put(user("alice")).await.expect_err("change before the load fails");
    assert!(matches!(error, ChangeError::NotReady { .. }), "{error}");
    cluster.pools[0].set_health(Health::Offline("it is being mounted".into()));
    cluster.pools[0].set_health(Health::Online);
    cluster.wait_ready(0).await;
}

#[tokio::test]
async fn b61_ready_fails_when_shut_down_during_the_load() {
    let cluster = Cluster::connected(1, NEVER).await;
    cluster.pools[0].set_health(Health::NotInitialised);
    cluster.iam(0).start();
    let iam = cluster.iam(0).clone();
    let waits = tokio::spawn(async move { iam.ready().await });
    cluster.iam(0).shutdown();
    let outcome = tokio::time::timeout(TEST_TIMEOUT, waits)
        .await
        .expect("before the timeout")
        .expect("task did not panic");
    assert_eq!(outcome, Err(ReadyError::ShuttingDown));
}

#[tokio::test]
async fn b61_damaged_item_is_skipped_and_fetched_from_a_peer() {
    let mut cluster = Cluster::ready(2, NEVER).await;
    for name in ["alice", "bob"] {
        cluster.iam(0).put(user(name)).await.expect("stored");
    }
    cluster.kill(1).await;
    cluster.pools[1].overwrite_raw(&path("alice"), b"neither sealed nor whole".to_vec());
    cluster.restart(1).await;
    cluster.iam(1).start();
    cluster.wait_ready(1).await;
    assert!(cluster.has_user(1, "bob"), "undamaged items are loaded");
    cluster.wait_converged().await;
    assert!(cluster.has_user(1, "alice"), "item is fetched from a peer");
}

#[tokio::test]
async fn b61_partial_load_is_never_visible() {
    let cluster = Cluster::connected(1, NEVER).await;
    let gate = Arc::new(Semaphore::new(0));
    fill(&cluster.pools[0], 30).await;
    let delay_hook: DelayHook = {
        let gate = Arc::clone(&gate);
        Arc::new(move |operation: Operation| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                if matches!(operation, Operation::Read(_)) {
                    gate.acquire().await.expect("open").forget();
                }
            })
        })
    };
    cluster.pools[0].set_delay_hook(Some(delay_hook));
    cluster.iam(0).start();
    for _ in 0..30 {
        assert!(cluster.iam(0).snapshot().is_none());
        gate.add_permits(1);
        tokio::task::yield_now().await;
    }
    gate.add_permits(1_000);
    cluster.wait_ready(0).await;
    assert_eq!(cluster.iam(0).snapshot().expect("loaded").users().count(), 30);
}

#[tokio::test]
async fn b62_shut_down_replica_is_readable_but_immutable_and_keeps_no_task_alive() {
    let cluster = Cluster::ready(2, NEVER).await;
    cluster.iam(0).put(user("alice")).await.expect("stored");
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    cluster.iam(0).shutdown();
    // For one peer: the reconcile task, the writer, and the sweep task.
    eventually("background tasks have ended", || {
        tokio::runtime::Handle::current().metrics().num_alive_tasks() == tasks - 3
    })
    .await;
    assert!(cluster.has_user(0, "alice"));
    assert_eq!(cluster.iam(0).put(user("bob")).await, Err(ChangeError::ShuttingDown));
    let outcome = cluster.iam(1).put(user("bob")).await.expect("stored there").peers;
    assert!(outcome.values().all(Result::is_err), "{outcome:?}");
}

/// Puts users into a pool, as a server does.
async fn fill(pool: &MemoryStore, count: usize) {
    let cluster = Cluster::ready(1, NEVER).await;
    for number in 0..count {
        cluster.iam(0).put(user(&format!("user-{number}"))).await.expect("stored");
    }
    for (path, bytes) in cluster.pools[0].contents() {
        pool.overwrite_raw(&path, bytes);
    }
}

/// Only one of the two refuses, so that its outbound and inbound paths are tested separately: the
/// other server still broadcasts, reconciles and responds.
#[tokio::test]
async fn b63_server_of_another_deployment_gets_no_broadcast_request_or_response() {
    let refuses = Arc::new(Mutex::new(None::<String>));
    let refusals = Arc::new(AtomicUsize::new(0));
    let cluster = Cluster::ready_with(2, Duration::from_millis(50), {
        let (refuses, refusals) = (Arc::clone(&refuses), Arc::clone(&refusals));
        move |own, peer| match refuses.lock().expect("task did not panic").as_deref() == Some(own) {
            true => {
                refusals.fetch_add(1, Ordering::Relaxed);
                Err(format!("{peer} belongs to another deployment"))
            }
            false => Ok(()),
        }
    })
    .await;
    cluster.iam(0).put(user("alice")).await.expect("stored");
    cluster.wait_converged().await;
    *refuses.lock().expect("task did not panic") = Some(cluster.url(0).to_owned());
    for (sender, name) in [(0, "bob"), (1, "carol")] {
        let change = cluster.iam(sender).put(user(name)).await.expect("stored");
        let outcome = change.peers.into_values().next().expect("one peer outcome");
        let cause = outcome.expect_err("peer is refused");
        assert!(cause.contains("belongs to another deployment"), "sent by {sender}: {cause}");
    }
    // Both still attempt to reconcile, at their interval.
    let so_far = refusals.load(Ordering::Relaxed);
    eventually("both servers retried", || refusals.load(Ordering::Relaxed) > so_far + 3).await;
    assert!(!cluster.has_user(1, "bob") && !cluster.has_user(0, "carol"));
    // Once both have the same id, they converge.
    *refuses.lock().expect("task did not panic") = None;
    cluster.wait_converged().await;
    assert!(cluster.has_user(1, "bob") && cluster.has_user(0, "carol"));
}
