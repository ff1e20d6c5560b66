//! Listing and forced release of grants, for operators ([B56]).
//!
//! [B56]: crate::rules#b56

use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use serde::{Deserialize, Serialize};

use super::{Table, TicketState};
use crate::proto::quorum::LockKind;
use crate::proto::resources::Resources;

/// A grant of one locker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantInfo {
    /// Id of the grant.
    pub uid: String,
    /// Resources that are locked.
    pub resources: Vec<String>,
    /// Read or write.
    pub kind: LockKind,
    /// Name of the server that holds it.
    pub owner: String,
    /// Call site in the holder's code.
    pub source: String,
    /// Number of lockers that the lock needs.
    pub quorum: u32,
    /// Time since it was granted, in milliseconds.
    pub age_ms: u64,
    /// Time since its last refresh, in milliseconds.
    pub refreshed_ms: u64,
    /// Time until its lease ends unless it is refreshed, in milliseconds.
    pub expires_ms: u64,
    /// Whether it was forced open and only waits for its holder to stop.
    pub is_revoked: bool,
}

/// A waiter at one locker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaiterInfo {
    /// Id of the waiter.
    pub id: String,
    /// Resources that it waits for.
    pub resources: Vec<String>,
    /// Read or write.
    pub kind: LockKind,
    /// Name of the server that waits.
    pub owner: String,
    /// Call site in the waiter's code.
    pub source: String,
    /// Time since it began to wait here, in milliseconds.
    pub age_ms: u64,
    /// Whether it waits, was notified, or missed its notification.
    #[serde(default)]
    pub state: TicketState,
}

/// What to force open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForceTarget {
    /// The grant with this id.
    Uid(String),
    /// Every grant of this resource.
    Resource(String),
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns whether these names fit into the remaining byte budget, and subtracts them.
fn fits(budget: &mut usize, resources: &Resources) -> bool {
    let is_within = resources.bytes() <= *budget;
    *budget = budget.saturating_sub(resources.bytes());
    is_within
}

impl Table {
    /// Lists the oldest grants: at most `count`, and at most about `bytes` of names.
    pub fn grants(&mut self, now: Instant, count: usize, bytes: usize) -> Vec<GrantInfo> {
        self.handle_timeout(now);
        let mut grants: Vec<_> = self.grants.iter().map(|(_, grant)| grant).collect();
        grants.sort_by_key(|grant| grant.serial);
        let mut left = bytes;
        let grants = grants
            .into_iter()
            .take(count)
            .take_while(|grant| fits(&mut left, &grant.request.resources));
        let info = |grant: &super::Grant| GrantInfo {
            uid: grant.request.uid.to_string(),
            resources: grant.request.resources.to_vec(),
            kind: grant.request.kind,
            owner: grant.request.owner.to_string(),
            source: grant.request.source.to_string(),
            quorum: u32::try_from(grant.request.quorum).unwrap_or(u32::MAX),
            age_ms: millis(now.since(grant.granted_at)),
            refreshed_ms: millis(now.since(grant.refreshed_at)),
            expires_ms: millis(grant.expires_at.since(now)),
            is_revoked: grant.is_revoked,
        };
        grants.map(info).collect()
    }

    /// Lists the first waiters, with the same limits.
    pub fn waiters(&mut self, now: Instant, count: usize, bytes: usize) -> Vec<WaiterInfo> {
        self.handle_timeout(now);
        let mut left = bytes;
        let info = |(ticket, waiter): (&super::Ticket, &super::Waiter)| WaiterInfo {
            id: ticket.id.to_string(),
            resources: waiter.resources.to_vec(),
            kind: waiter.kind,
            owner: waiter.owner.to_string(),
            source: waiter.source.to_string(),
            age_ms: millis(now.since(waiter.since)),
            state: waiter.state,
        };
        let waiters = self.waiters.iter().take(count);
        waiters.take_while(|(_, waiter)| fits(&mut left, &waiter.resources)).map(info).collect()
    }

    /// Forces grants open: their refreshes fail, so that their holders stop. Grants of holders
    /// without leases (MinIO's) end at once. Returns the ids and the servers that
    /// hold them.
    pub fn force_unlock(
        &mut self,
        target: &ForceTarget,
        now: Instant,
    ) -> Vec<(Arc<str>, Arc<str>)> {
        self.handle_timeout(now);
        let keys: Vec<usize> = match target {
            ForceTarget::Uid(uid) => self.by_uid.get(uid.as_str()).copied().into_iter().collect(),
            ForceTarget::Resource(name) => {
                let holds = |resources: &Resources| resources.contains(name);
                let grants =
                    self.grants.iter().filter(|(_, grant)| holds(&grant.request.resources));
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
            forced.push((Arc::clone(&grant.request.uid), Arc::clone(&grant.request.owner)));
            if !grant.request.supports_leases {
                let request = self.remove(key);
                self.notify_waiters(&request.resources, now);
            }
        }
        self.check_after_change();
        forced
    }
}
