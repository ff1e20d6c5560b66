//! What operators see of a locker, and do to it (B56).

use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use serde::{Deserialize, Serialize};

use super::Table;
use crate::proto::names::Names;
use crate::proto::quorum::Kind;

/// A grant, as one locker knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantInfo {
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
    /// How many lockers must have granted it for the lock to be held.
    pub quorum: u32,
    /// How long ago it was granted, in milliseconds.
    pub age_ms: u64,
    /// How long ago it was last refreshed, in milliseconds.
    pub refreshed_ms: u64,
    /// When its lease ends unless it is refreshed, in milliseconds from now.
    pub expires_ms: u64,
    /// Whether it was forced open and is only waited for.
    pub is_revoked: bool,
}

/// A waiter, as one locker knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaiterInfo {
    /// Its id.
    pub id: String,
    /// What it waits for.
    pub resources: Vec<String>,
    /// How.
    pub kind: Kind,
    /// The server that waits.
    pub owner: String,
    /// Where in its code.
    pub source: String,
    /// For how long it has been waiting here, in milliseconds.
    pub age_ms: u64,
}

/// What is to be forced open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forced {
    /// The grant with this id.
    Uid(String),
    /// Every grant of this resource.
    Resource(String),
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether these names fit into what is `left`.
fn take(left: &mut usize, names: &Names) -> bool {
    let fits = names.bytes() <= *left;
    *left = left.saturating_sub(names.bytes());
    fits
}

impl Table {
    /// Grants that stand, the oldest first: so many, or about so many bytes of names, at most.
    pub fn grants(&mut self, now: Instant, count: usize, bytes: usize) -> Vec<GrantInfo> {
        self.handle_timeout(now);
        let mut grants: Vec<_> = self.grants.iter().map(|(_, grant)| grant).collect();
        grants.sort_by_key(|grant| grant.serial);
        let mut left = bytes;
        let grants =
            grants.into_iter().take(count).take_while(|grant| take(&mut left, &grant.ask.names));
        let info = |grant: &super::Grant| GrantInfo {
            uid: grant.ask.uid.to_string(),
            resources: grant.ask.names.to_vec(),
            kind: grant.ask.kind,
            owner: grant.ask.owner.to_string(),
            source: grant.ask.source.to_string(),
            quorum: u32::try_from(grant.ask.quorum).unwrap_or(u32::MAX),
            age_ms: millis(now.since(grant.since)),
            refreshed_ms: millis(now.since(grant.refreshed)),
            expires_ms: millis(grant.expires.since(now)),
            is_revoked: grant.is_revoked,
        };
        grants.map(info).collect()
    }

    /// Waiters, in their order, with the same limits.
    pub fn waiters(&mut self, now: Instant, count: usize, bytes: usize) -> Vec<WaiterInfo> {
        self.handle_timeout(now);
        let mut left = bytes;
        let info = |(place, waiter): (&super::Place, &super::Waiter)| WaiterInfo {
            id: place.id.to_string(),
            resources: waiter.names.to_vec(),
            kind: waiter.kind,
            owner: waiter.owner.to_string(),
            source: waiter.source.to_string(),
            age_ms: millis(now.since(waiter.since)),
        };
        let waiters = self.waiters.iter().take(count);
        waiters.take_while(|(_, waiter)| take(&mut left, &waiter.names)).map(info).collect()
    }

    /// Forces grants open: they are refreshed no more, so that their holders let go. Whoever knows
    /// nothing of leases, as holders of existing clusters, is out at once. Returns the ids, and the
    /// servers that hold them.
    pub fn force_unlock(&mut self, what: &Forced, now: Instant) -> Vec<(Arc<str>, Arc<str>)> {
        self.handle_timeout(now);
        let keys: Vec<usize> = match what {
            Forced::Uid(uid) => self.by_uid.get(uid.as_str()).copied().into_iter().collect(),
            Forced::Resource(name) => {
                let holds = |names: &Names| names.contains(name);
                let grants = self.grants.iter().filter(|(_, grant)| holds(&grant.ask.names));
                grants.map(|(key, _)| key).collect()
            }
        };
        let mut forced = Vec::new();
        for key in keys {
            let grant = &mut self.grants[key];
            if grant.is_revoked {
                continue;
            }
            self.counts.forced += 1;
            grant.is_revoked = true;
            forced.push((Arc::clone(&grant.ask.uid), Arc::clone(&grant.ask.owner)));
            if !grant.ask.knows_leases {
                self.tombstones.insert(Arc::clone(&self.grants[key].ask.uid));
                let names = self.remove(key);
                self.call(&names, now);
            }
        }
        forced
    }
}
