//! Copies on several servers are loaded, changed, and become the same: over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{Cluster, NEVER, SOON, eventually, key, user};
use iam_bootstrap::store::memory::{DelayHook, Health, Operation};
use iam_bootstrap::store::{ItemKind, ItemPath, MemoryStore};
use iam_bootstrap::{ChangeError, Phase, ReadyError};
use tokio::sync::Semaphore;

fn path(name: &str) -> ItemPath {
    ItemPath::new(ItemKind::User, name).expect("a name")
}

#[tokio::test]
async fn b62_a_change_is_known_everywhere_when_it_has_returned() {
    let cluster = Cluster::ready(3, NEVER).await;
    let changed = cluster.iam(0).put(user("alice")).await.expect("kept");
    assert_eq!(changed.peers.len(), 2);
    assert!(changed.peers.values().all(Result::is_ok), "{changed:?}");
    for server in 0..3 {
        assert!(cluster.knows(server, "alice"), "server {server}");
        let kept = cluster.pools[server].contents();
        let bytes = kept.get(&path("alice")).expect("in the pool too");
        let secret = b"secret of alice";
        assert!(!bytes.windows(secret.len()).any(|part| part == secret), "it is sealed");
    }
    // Whoever knows it may change it, and delete it.
    cluster.iam(1).delete(key("alice")).await.expect("it is there");
    assert!((0..3).all(|server| !cluster.knows(server, "alice")));
    let error = cluster.iam(2).delete(key("alice")).await.expect_err("it is gone");
    assert_eq!(error, ChangeError::NotFound { key: key("alice") });
    assert_eq!(error.to_string(), "there is no user alice");
}

#[tokio::test]
async fn b62_a_dead_peer_neither_holds_up_a_change_nor_hides_behind_the_others() {
    let mut cluster = Cluster::ready(3, NEVER).await;
    cluster.kill(2).await;
    let changed = cluster.iam(0).put(user("alice")).await.expect("kept");
    let failed: Vec<_> = changed.peers.values().filter_map(|told| told.as_ref().err()).collect();
    assert_eq!((changed.peers.len(), failed.len()), (2, 1), "{changed:?}");
    assert!(cluster.knows(1, "alice"));
}

#[tokio::test]
async fn b62_a_server_that_was_away_takes_what_it_missed_before_it_is_ready() {
    let mut cluster = Cluster::ready(3, NEVER).await;
    for name in ["alice", "bob"] {
        cluster.iam(0).put(user(name)).await.expect("kept");
    }
    cluster.kill(2).await;
    cluster.iam(0).delete(key("alice")).await.expect("it is there");
    cluster.iam(1).put(user("carol")).await.expect("kept");
    cluster.revive(2).await;
    assert!(cluster.pools[2].contents().contains_key(&path("alice")), "as it was left");
    cluster.iam(2).start();
    cluster.wait_ready(2).await;
    assert!(!cluster.knows(2, "alice"), "a deletion that was missed holds");
    assert!(cluster.knows(2, "bob") && cluster.knows(2, "carol"));
    cluster.wait_same().await;
}

#[tokio::test]
async fn b62_what_was_deleted_is_not_brought_back_by_a_server_that_missed_it() {
    let mut cluster = Cluster::ready(2, NEVER).await;
    cluster.iam(0).put(user("alice")).await.expect("kept");
    cluster.kill(1).await;
    cluster.iam(0).delete(key("alice")).await.expect("it is there");
    cluster.revive(1).await;
    cluster.iam(1).start();
    cluster.wait_ready(1).await;
    cluster.wait_same().await;
    // And not when both are started again either: deletions are kept.
    for server in 0..2 {
        cluster.kill(server).await;
    }
    for server in 0..2 {
        cluster.revive(server).await;
        cluster.iam(server).start();
        cluster.wait_ready(server).await;
    }
    cluster.wait_same().await;
    assert!(!cluster.knows(0, "alice") && !cluster.knows(1, "alice"));
}

#[tokio::test]
async fn b62_changes_of_one_item_on_both_sides_end_in_the_later_one() {
    let mut cluster = Cluster::ready(2, NEVER).await;
    cluster.iam(0).put(user("alice")).await.expect("kept");
    cluster.kill(1).await;
    cluster.iam(0).delete(key("alice")).await.expect("it is there");
    let again = cluster.iam(0).put(user("alice")).await.expect("kept");
    cluster.revive(1).await;
    cluster.iam(1).start();
    cluster.wait_ready(1).await;
    let deleted = cluster.iam(1).delete(key("alice")).await.expect("it is there");
    assert!(deleted.version > again.version, "whoever knows a change makes a later one");
    cluster.wait_same().await;
    assert!(!cluster.knows(0, "alice"));
}

#[tokio::test]
async fn b62_a_peer_whose_pool_failed_asks_for_what_it_could_not_take() {
    let cluster = Cluster::ready(2, NEVER).await;
    cluster.pools[1].set_health(Health::Offline("its disk is away".into()));
    let changed = cluster.iam(0).put(user("alice")).await.expect("kept");
    let told = changed.peers.into_values().next().expect("one peer");
    let cause = told.expect_err("not taken");
    assert!(cause.contains("pool-1 is unavailable: its disk is away"), "{cause}");
    assert!(!cluster.knows(1, "alice"), "it is kept first and known then");
    cluster.pools[1].set_health(Health::Online);
    cluster.wait_same().await;
    assert!(cluster.knows(1, "alice"));
}

#[tokio::test]
async fn b62_copies_that_differ_are_found_at_an_interval() {
    let cluster = Cluster::ready(2, Duration::from_millis(50)).await;
    cluster.pools[1].set_health(Health::Offline("its disk is away".into()));
    for number in 0..20 {
        cluster.iam(0).put(user(&format!("user-{number}"))).await.expect("kept");
    }
    cluster.pools[1].set_health(Health::Online);
    cluster.wait_same().await;
}

#[tokio::test]
async fn b61_pools_that_are_not_there_yet_are_waited_for() {
    let cluster = Cluster::connected(1, NEVER).await;
    cluster.pools[0].set_health(Health::NotInitialised);
    cluster.iam(0).start();
    eventually("it says what it waits for", || match cluster.iam(0).phase() {
        Phase::Loading(progress) => progress
            .waiting
            .get("pool-0")
            .is_some_and(|cause| cause.contains("pool-0 is not initialised")),
        _ => false,
    })
    .await;
    assert!(cluster.iam(0).snapshot().is_none(), "nobody is answered from nothing");
    let error = cluster.iam(0).put(user("alice")).await.expect_err("not yet");
    assert!(matches!(error, ChangeError::NotReady { .. }), "{error}");
    cluster.pools[0].set_health(Health::Offline("it is being mounted".into()));
    cluster.pools[0].set_health(Health::Online);
    cluster.wait_ready(0).await;
}

#[tokio::test]
async fn b61_whoever_waits_for_a_copy_is_told_that_it_will_not_be_loaded() {
    let cluster = Cluster::connected(1, NEVER).await;
    cluster.pools[0].set_health(Health::NotInitialised);
    cluster.iam(0).start();
    let iam = cluster.iam(0).clone();
    let waits = tokio::spawn(async move { iam.ready().await });
    cluster.iam(0).shutdown();
    let told = tokio::time::timeout(SOON, waits).await.expect("in time").expect("no panic");
    assert_eq!(told, Err(ReadyError::ShuttingDown));
}

#[tokio::test]
async fn b61_a_damaged_item_is_skipped_and_taken_from_a_peer() {
    let mut cluster = Cluster::ready(2, NEVER).await;
    for name in ["alice", "bob"] {
        cluster.iam(0).put(user(name)).await.expect("kept");
    }
    cluster.kill(1).await;
    cluster.pools[1].overwrite_raw(&path("alice"), b"neither sealed nor whole".to_vec());
    cluster.revive(1).await;
    cluster.iam(1).start();
    cluster.wait_ready(1).await;
    assert!(cluster.knows(1, "bob"), "the rest is loaded");
    cluster.wait_same().await;
    assert!(cluster.knows(1, "alice"), "a peer had it");
}

#[tokio::test]
async fn b61_nobody_sees_a_part_of_what_is_being_loaded() {
    let cluster = Cluster::connected(1, NEVER).await;
    let gate = Arc::new(Semaphore::new(0));
    fill(&cluster.pools[0], 30).await;
    let pace: DelayHook = {
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
    cluster.pools[0].set_delay_hook(Some(pace));
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
async fn b62_a_copy_that_was_shut_down_answers_and_changes_nothing_and_keeps_nothing_alive() {
    let cluster = Cluster::ready(2, NEVER).await;
    cluster.iam(0).put(user("alice")).await.expect("kept");
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    cluster.iam(0).shutdown();
    // Of one peer: what compares with it, what changes the copy, and what forgets.
    eventually("its tasks are over", || {
        tokio::runtime::Handle::current().metrics().num_alive_tasks() == tasks - 3
    })
    .await;
    assert!(cluster.knows(0, "alice"));
    assert_eq!(cluster.iam(0).put(user("bob")).await, Err(ChangeError::ShuttingDown));
    let told = cluster.iam(1).put(user("bob")).await.expect("kept there").peers;
    assert!(told.values().all(Result::is_err), "{told:?}");
}

/// Puts users into a pool, as a server does.
async fn fill(pool: &MemoryStore, count: usize) {
    let cluster = Cluster::ready(1, NEVER).await;
    for number in 0..count {
        cluster.iam(0).put(user(&format!("user-{number}"))).await.expect("kept");
    }
    for (path, bytes) in cluster.pools[0].contents() {
        pool.overwrite_raw(&path, bytes);
    }
}

/// Only one of the two refuses, so that what it does when it tells and what it does when it is told
/// are each seen alone: the other would tell, ask and answer.
#[tokio::test]
async fn b63_a_server_of_another_deployment_is_neither_told_nor_asked_nor_answered() {
    let refuses = Arc::new(Mutex::new(None::<String>));
    let refusals = Arc::new(AtomicUsize::new(0));
    let cluster = Cluster::ready_with(2, Duration::from_millis(50), {
        let (refuses, refusals) = (Arc::clone(&refuses), Arc::clone(&refusals));
        move |own, peer| match refuses.lock().expect("no panic").as_deref() == Some(own) {
            true => {
                refusals.fetch_add(1, Ordering::Relaxed);
                Err(format!("{peer} belongs to another deployment"))
            }
            false => Ok(()),
        }
    })
    .await;
    cluster.iam(0).put(user("alice")).await.expect("kept");
    cluster.wait_same().await;
    *refuses.lock().expect("no panic") = Some(cluster.url(0).to_owned());
    for (teller, name) in [(0, "bob"), (1, "carol")] {
        let changed = cluster.iam(teller).put(user(name)).await.expect("kept");
        let told = changed.peers.into_values().next().expect("one peer");
        let cause = told.expect_err("it is refused");
        assert!(cause.contains("belongs to another deployment"), "told by {teller}: {cause}");
    }
    // Both go on to compare themselves, at their interval.
    let so_far = refusals.load(Ordering::Relaxed);
    eventually("both tried more", || refusals.load(Ordering::Relaxed) > so_far + 3).await;
    assert!(!cluster.knows(1, "bob") && !cluster.knows(0, "carol"));
    // Once they have one id, they become the same.
    *refuses.lock().expect("no panic") = None;
    cluster.wait_same().await;
    assert!(cluster.knows(1, "bob") && cluster.knows(0, "carol"));
}
