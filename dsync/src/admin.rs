//! What operators see and do (B56).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dsync::Dsync;
use crate::locker::Answering;
use crate::proto::quorum::{Kind, quorum};
use crate::proto::table::{Forced, WaiterInfo};
use crate::server;
use crate::wire::LockerListing;

/// All locks of the cluster, as far as its lockers answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Locks, the oldest first.
    pub locks: Vec<LockInfo>,
    /// Waiters, those first who have waited longest.
    pub waiters: Vec<WaiterInfo>,
    /// Lockers that did not answer, and why.
    pub silent: Vec<(String, String)>,
    /// Lockers that have restarted and do not grant yet.
    pub closed: Vec<String>,
    /// Whether there are more locks or waiters than lockers list.
    pub is_cut: bool,
}

/// One lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockInfo {
    /// Its id.
    pub uid: String,
    /// What is locked.
    pub resources: Vec<String>,
    /// How.
    pub kind: Kind,
    /// The server that holds it.
    pub owner: String,
    /// Where in its code.
    pub source: String,
    /// The lockers that have granted it.
    pub granted_by: Vec<String>,
    /// How many must have.
    pub quorum: u32,
    /// How long ago it was granted, in milliseconds.
    pub age_ms: u64,
    /// How long ago a locker last heard of its holder, in milliseconds.
    pub refreshed_ms: u64,
    /// When the last of its leases ends unless it is refreshed, in milliseconds from now.
    pub expires_ms: u64,
    /// Whether it was forced open and its holder has not let go yet.
    pub is_revoked: bool,
    /// Whether fewer lockers than it needs have granted it: it is being taken or released, or what is
    /// left of a lock whose holder is gone.
    pub is_stale: bool,
}

/// What came of forcing locks open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceReport {
    /// Lockers that had such a grant, and refresh it no more.
    pub forced: Vec<String>,
    /// Lockers that had none.
    pub not_found: Vec<String>,
    /// Lockers that did not answer, and why.
    pub failed: Vec<(String, String)>,
    /// Whether so many lockers let go of it that its holder must.
    pub is_effective: bool,
}

impl Dsync {
    /// Asks all lockers for their grants and waiters, each for so long at most.
    pub async fn locks(&self, timeout: Duration) -> Listing {
        let lockers = self.inner.lockers.iter();
        let asked: Vec<_> =
            lockers.map(|locker| (locker.name().to_owned(), locker.list(timeout))).collect();
        let answers = all(asked, timeout).await;
        let mut merge = Merge { lockers: self.inner.lockers.len(), ..Merge::default() };
        for (name, answer) in answers {
            match answer {
                Ok(listing) => merge.add(name, listing),
                Err(text) => merge.listing.silent.push((name, text)),
            }
        }
        merge.finish()
    }

    /// Forces locks open, at all lockers. A holder that knows of leases lets go at once if it is
    /// reached, at its next refresh if not, and at the end of its lease at the latest; nobody else gets
    /// the lock before.
    pub async fn force_unlock(&self, what: &Forced, timeout: Duration) -> ForceReport {
        let mut asked = Vec::new();
        for locker in &self.inner.lockers {
            let name = locker.name().to_owned();
            match &self.inner.own {
                // Asked directly, it does not tell the holders.
                Some(own) if *name == *self.inner.owner => {
                    let forced = own.force(what);
                    let count = forced.len();
                    server::tell_holders(&self.inner, forced);
                    asked.push((name, Box::pin(async move { Ok(count) }) as Answering<_>));
                }
                _ => asked.push((name, locker.force_unlock(what, timeout))),
            }
        }
        let lockers = self.inner.lockers.len();
        let mut report = ForceReport::default();
        for (name, answer) in all(asked, timeout).await {
            match answer {
                Ok(0) => report.not_found.push(name),
                Ok(_) => report.forced.push(name),
                Err(text) => report.failed.push((name, text)),
            }
        }
        // What is left is less than a reader needs, and than a writer.
        let left = lockers - report.forced.len() - report.not_found.len();
        report.is_effective = !report.forced.is_empty() && left < quorum(lockers, Kind::Read);
        report
    }
}

/// Waits for all answers, for so long at most.
async fn all<T>(
    asked: Vec<(String, Answering<T>)>,
    timeout: Duration,
) -> Vec<(String, Result<T, String>)> {
    let mut answers = Vec::new();
    let mut tasks: Vec<_> = asked
        .into_iter()
        .map(|(name, answering)| (name, Box::pin(tokio::time::timeout(timeout, answering))))
        .collect();
    // All of them are polled with each turn, so none waits for another.
    poll_fn(|cx| {
        tasks.retain_mut(|(name, task)| match task.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(answer) => {
                let answer = match answer {
                    Ok(answer) => answer.map_err(|error| error.text),
                    Err(_) => Err(format!("no answer within {timeout:?}")),
                };
                answers.push((std::mem::take(name), answer));
                false
            }
        });
        if tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers.sort_by(|(a, _), (b, _)| a.cmp(b));
    answers
}

#[derive(Debug, Default)]
struct Merge {
    lockers: usize,
    listing: Listing,
    locks: BTreeMap<String, LockInfo>,
    waiters: BTreeMap<String, WaiterInfo>,
}

impl Merge {
    fn add(&mut self, name: String, answer: LockerListing) {
        let total = answer.grants_total + answer.waiters_total;
        self.listing.is_cut |= (answer.grants.len() + answer.waiters.len()) as u64 != total;
        for grant in answer.grants {
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
        for waiter in answer.waiters {
            let known = self.waiters.entry(waiter.id.clone()).or_insert_with(|| waiter.clone());
            known.age_ms = known.age_ms.max(waiter.age_ms);
        }
        if !answer.is_open {
            self.listing.closed.push(name);
        }
    }

    fn finish(mut self) -> Listing {
        let mut locks: Vec<_> = self.locks.into_values().collect();
        for lock in &mut locks {
            // Holders of existing clusters need not say how many they need.
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
