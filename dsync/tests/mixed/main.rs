//! Clusters of our servers and MinIO's, under contention: B59.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;

use std::time::Duration;

use cluster::Kind::{Minio, Ours};
use cluster::{Cluster, eventually};
use dsync::testing::MinioTiming;
use dsync::{DRWMutex, ForceTarget, LockError, LockKind, LockOptions};

/// Timeout of operations that complete quickly.
const TIMEOUT: Duration = Duration::from_secs(20);

fn default() -> LockOptions {
    LockOptions::default().timeout(TIMEOUT)
}

/// Locks of each contender: forty in all with four of them.
const LOCKS: usize = 10;

async fn assert_all_granted(cluster: &Cluster, servers: [usize; 4]) {
    let granted = cluster.contend(&servers, LOCKS).await;
    assert_eq!(granted, servers.len() * LOCKS, "contended locks");
    eventually("no locker has a grant left", || cluster.grants() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_holders_contend_at_minio_lockers() {
    let cluster = Cluster::start(&[Minio, Minio, Minio], &[Minio]).await;
    assert_all_granted(&cluster, [0, 1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_minio_holders_contend_at_our_lockers() {
    let cluster = Cluster::start(&[Ours, Ours, Ours], &[Minio, Minio, Minio, Minio]).await;
    assert_all_granted(&cluster, [3, 4, 5, 6]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_our_holders_contend_at_minio_lockers() {
    let cluster = Cluster::start(&[Minio, Minio, Minio], &[Ours, Ours, Ours, Ours]).await;
    assert_all_granted(&cluster, [3, 4, 5, 6]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_holders_of_both_kinds_contend_at_one_minio_locker_among_ours() {
    let cluster = Cluster::start(&[Ours, Ours, Minio], &[Minio]).await;
    assert_all_granted(&cluster, [0, 1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_holders_of_both_kinds_contend_at_lockers_of_both_kinds() {
    let cluster = Cluster::start(&[Ours, Ours, Minio, Minio], &[]).await;
    assert_all_granted(&cluster, [0, 1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_readers_share_and_exclude_writers_across_kinds() {
    let cluster = Cluster::start(&[Ours, Ours, Minio, Minio], &[]).await;
    let ours = DRWMutex::new(cluster.dsync(0), ["a"]).read_lock(default()).await.expect("free");
    let reader = cluster.minio(2).mutex(&["a"]);
    let theirs = reader.lock(LockKind::Read, TIMEOUT).await.expect("readers share");
    let short = Duration::from_millis(50);
    let writer = cluster.minio(3).mutex(&["a"]);
    assert!(writer.lock(LockKind::Write, short).await.is_none(), "it is read-locked");
    let tried = DRWMutex::new(cluster.dsync(1), ["a"]);
    let refused = tried.lock(LockOptions::default().try_once()).await;
    let refused = refused.expect_err("it is read-locked");
    assert!(refused.to_string().contains("others hold it"), "{refused}");
    drop(ours);
    assert!(theirs.unlock().await, "the lockers confirm it");
    let writer = writer.lock(LockKind::Write, TIMEOUT).await.expect("it is free");
    assert!(writer.unlock().await, "the lockers confirm it");
    eventually("no locker has a grant left", || cluster.grants() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_refreshed_locks_outlive_their_lease_across_kinds() {
    let timing = MinioTiming::scaled(cluster::SCALE);
    let cluster = Cluster::start_with(&[Ours, Minio, Minio], &[], timing).await;
    let ours = DRWMutex::new(cluster.dsync(0), ["ours"]).lock(default()).await.expect("free");
    let mutex = cluster.minio(1).mutex(&["theirs"]);
    let theirs = mutex.lock(LockKind::Write, TIMEOUT).await.expect("free");
    // Two leases, and two sweeps.
    let extended = ours.valid_until() + 2 * dsync::limits::LEASE / cluster::SCALE;
    eventually("two leases have passed", || ours.valid_until() >= extended).await;
    assert!(ours.is_held() && !theirs.is_lost());
    ours.unlock();
    assert!(theirs.unlock().await, "the lockers confirm it");
    eventually("no locker has a grant left", || cluster.grants() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_locks_are_forced_open_by_uid_across_kinds() {
    let cluster = Cluster::start(&[Ours, Minio, Minio], &[]).await;
    let ours = DRWMutex::new(cluster.dsync(0), ["ours"]).lock(default()).await.expect("free");
    let mutex = cluster.minio(1).mutex(&["theirs"]);
    let theirs = mutex.lock(LockKind::Write, TIMEOUT).await.expect("free");
    for uid in [ours.uid(), theirs.uid()] {
        let report =
            cluster.dsync(0).force_unlock(&ForceTarget::Uid(uid.to_owned()), TIMEOUT).await;
        assert!(report.is_effective, "{report:?}");
    }
    ours.lost().await;
    drop(ours);
    eventually("the MinIO holder detects it", || theirs.is_lost()).await;
    eventually("no locker has a grant left", || cluster.grants() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_read_lock_of_several_resources_fails_at_once_with_the_reason() {
    let cluster = Cluster::start(&[Minio, Minio, Minio], &[Ours]).await;
    let mutex = DRWMutex::new(cluster.dsync(3), ["a", "b"]);
    let refused = mutex.read_lock(default()).await.expect_err("two names");
    // Two refusals are enough: the third is not waited for.
    assert!(
        matches!(refused, LockError::PlainLockers { plain: 2..=3, lockers: 3, .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("more than one resource"), "{refused}");
    drop(mutex.lock(default()).await.expect("a write lock of several is granted"));
    eventually("no locker has a grant left", || cluster.grants() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b59_guard_has_a_token_only_with_a_quorum_of_ours() {
    for (kinds, has_token) in [([Ours, Ours, Minio], true), ([Ours, Minio, Minio], false)] {
        let cluster = Cluster::start(&kinds, &[]).await;
        let guard = DRWMutex::new(cluster.dsync(0), ["a"]).lock(default()).await.expect("free");
        assert_eq!(guard.token().is_some(), has_token, "{kinds:?}");
    }
}
