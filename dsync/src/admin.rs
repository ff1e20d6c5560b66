//! Listing and forced release of locks, for operators ([B56]).
//!
//! [B56]: crate::rules#b56

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dsync::Dsync;
use crate::locker::{Locker, ResponseFuture};
use crate::proto::quorum::{LockKind, quorum};
use crate::proto::table::{ForceTarget, WaiterInfo};
use crate::wire::LockerListing;

/// Locks of the cluster, merged from the lockers that responded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Locks, the oldest first.
    pub locks: Vec<LockInfo>,
    /// Waiters, the longest wait first.
    pub waiters: Vec<WaiterInfo>,
    /// Lockers that did not respond, and why.
    #[serde(rename = "silent")]
    pub unreachable: Vec<(String, String)>,
    /// Lockers that have restarted and do not grant yet.
    pub closed: Vec<String>,
    /// Whether a locker has more grants or waiters than its listing.
    #[serde(rename = "is_cut")]
    pub is_truncated: bool,
}

/// One lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockInfo {
    /// Id of the lock.
    pub uid: String,
    /// Resources that are locked.
    pub resources: Vec<String>,
    /// Read or write.
    pub kind: LockKind,
    /// Name of the server that holds it.
    pub owner: String,
    /// Call site in the holder's code.
    pub source: String,
    /// Lockers that have granted it.
    pub granted_by: Vec<String>,
    /// Number of lockers that it needs.
    pub quorum: u32,
    /// Time since it was granted, in milliseconds.
    pub age_ms: u64,
    /// Time since its last refresh at any locker, in milliseconds.
    pub refreshed_ms: u64,
    /// Time until the last of its leases ends unless refreshed, in milliseconds.
    pub expires_ms: u64,
    /// Whether it was forced open, and its holder has not released it yet.
    pub is_revoked: bool,
    /// Whether fewer lockers than it needs have granted it: it is being acquired or released, or
    /// its holder is gone.
    pub is_stale: bool,
}

/// Result of forcing locks open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceReport {
    /// Lockers that had such a grant, whose refreshes now fail.
    pub forced: Vec<String>,
    /// Lockers without such a grant.
    pub not_found: Vec<String>,
    /// Lockers that did not respond, and why.
    pub failed: Vec<(String, String)>,
    /// Whether too few lockers keep the grant for its holder to keep the lock.
    pub is_effective: bool,
}

impl Dsync {
    /// Lists grants and waiters of all lockers, waiting at most `timeout` for each.
    pub async fn locks(&self, timeout: Duration) -> Listing {
        let lockers = self.peers.lockers().iter();
        let pending: Vec<_> =
            lockers.map(|locker| (locker.name().to_owned(), locker.list(timeout))).collect();
        let responses = join_all(pending, timeout).await;
        let mut merge = ListingMerge { lockers: self.lockers(), ..ListingMerge::default() };
        for (name, response) in responses {
            match response {
                Ok(listing) => merge.add(name, listing),
                Err(message) => merge.listing.unreachable.push((name, message)),
            }
        }
        merge.finish()
    }

    /// Forces locks open at all lockers. A holder with leases stops at once if the notice reaches
    /// it, else at its next refresh, and at the end of its lease at the latest. No other holder is
    /// granted the lock before.
    pub async fn force_unlock(&self, target: &ForceTarget, timeout: Duration) -> ForceReport {
        let mut pending = Vec::new();
        for locker in self.peers.lockers() {
            let name = locker.name().to_owned();
            match self.locker() {
                // A direct call does not notify the holders, as the RPC handler does.
                Some(local_locker) if name == local_locker.name() => {
                    let forced = local_locker.force(target);
                    let count = forced.len();
                    self.notifier().notify(forced);
                    pending.push((name, Box::pin(async move { Ok(count) }) as ResponseFuture<_>));
                }
                _ => pending.push((name, locker.force_unlock(target, timeout))),
            }
        }
        let lockers = self.lockers();
        let mut report = ForceReport::default();
        for (name, response) in join_all(pending, timeout).await {
            match response {
                Ok(0) => report.not_found.push(name),
                Ok(_) => report.forced.push(name),
                Err(message) => report.failed.push((name, message)),
            }
        }
        // The rest must be fewer than a reader needs, and so fewer than a writer needs.
        debug_assert!(report.forced.len() + report.not_found.len() <= lockers);
        let left = lockers - report.forced.len() - report.not_found.len();
        report.is_effective = !report.forced.is_empty() && left < quorum(lockers, LockKind::Read);
        report
    }
}

/// Waits for all responses, at most `timeout` for each.
async fn join_all<T>(
    pending: Vec<(String, ResponseFuture<T>)>,
    timeout: Duration,
) -> Vec<(String, Result<T, String>)> {
    let mut responses = Vec::new();
    let mut tasks: Vec<_> = pending
        .into_iter()
        .map(|(name, response)| (name, Box::pin(tokio::time::timeout(timeout, response))))
        .collect();
    // All are polled on each wake-up, so they progress concurrently.
    poll_fn(|cx| {
        tasks.retain_mut(|(name, task)| match task.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(response) => {
                let response = match response {
                    Ok(response) => response.map_err(|error| error.message),
                    Err(_) => Err(format!("no response within {timeout:?}")),
                };
                responses.push((std::mem::take(name), response));
                false
            }
        });
        if tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    responses.sort_by(|(a, _), (b, _)| a.cmp(b));
    responses
}

#[derive(Debug, Default)]
struct ListingMerge {
    lockers: usize,
    listing: Listing,
    locks: BTreeMap<String, LockInfo>,
    waiters: BTreeMap<String, WaiterInfo>,
}

impl ListingMerge {
    fn add(&mut self, name: String, response: LockerListing) {
        let total = response.grants_total + response.waiters_total;
        self.listing.is_truncated |=
            (response.grants.len() + response.waiters.len()) as u64 != total;
        for grant in response.grants {
            let lock = self.locks.entry(grant.uid.clone()).or_insert_with(|| LockInfo {
                uid: grant.uid,
                resources: grant.resources,
                kind: grant.kind,
                owner: grant.owner,
                source: grant.source,
                granted_by: Vec::new(),
                quorum: grant.quorum,
                age_ms: 0,
                refreshed_ms: u64::MAX,
                expires_ms: 0,
                is_revoked: false,
                is_stale: false,
            });
            lock.granted_by.push(name.clone());
            lock.age_ms = lock.age_ms.max(grant.age_ms);
            lock.refreshed_ms = lock.refreshed_ms.min(grant.refreshed_ms);
            lock.expires_ms = lock.expires_ms.max(grant.expires_ms);
            lock.is_revoked |= grant.is_revoked;
        }
        for waiter in response.waiters {
            let known = self.waiters.entry(waiter.id.clone()).or_insert_with(|| waiter.clone());
            known.age_ms = known.age_ms.max(waiter.age_ms);
            known.state = known.state.max(waiter.state);
        }
        if !response.is_open {
            self.listing.closed.push(name);
        }
    }

    fn finish(mut self) -> Listing {
        let mut locks: Vec<_> = self.locks.into_values().collect();
        for lock in &mut locks {
            // MinIO holders need not state their quorum.
            let quorum = match lock.quorum {
                0 => quorum(self.lockers, lock.kind),
                quorum => quorum as usize,
            };
            lock.is_stale = lock.granted_by.len() < quorum;
        }
        locks.sort_by_key(|lock| Reverse(lock.age_ms));
        let mut waiters: Vec<_> = self.waiters.into_values().collect();
        waiters.sort_by_key(|waiter| Reverse(waiter.age_ms));
        (self.listing.locks, self.listing.waiters) = (locks, waiters);
        self.listing
    }
}
