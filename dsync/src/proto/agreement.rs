//! Gate by agreement: locks are granted and taken only while more than half of all servers are known
//! to run with the same list of lockers ([B65]).
//!
//! ```text
//!   report: the same list ──► counted, for half a lease from when its query was sent
//!   report: another list  ──► not counted
//!   report: other servers ──► closes the gate until that server reports the same
//! ```
//!
//! Two lists have no quorum in common, so leases of one must have ended before locks of the other are
//! granted. A server that changes its list restarts. So a server counts if its process
//!
//! - has been up for at least one and a half leases: what it confirmed in an earlier process, with
//!   another list, is half a lease old at most, and was the basis of leases that have ended; or
//! - took part in a *full agreement*, in which all servers were known to run with the same list:
//!   then no process with another list was left to hold anything.
//!
//! This server itself counts, and may open the gate, under the same condition. A gate that is open
//! closes by time alone: the instant is known when it opens.
//!
//! [B65]: crate::rules#b65

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use crate::error::NotReadyReason;
use crate::limits::{CONFIRMATIONS_PER_LEASE, Limits};
use grid::check_schedule::CheckSchedule;

#[cfg(test)]
mod tests;

/// Hashes of what all servers must have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListHashes {
    /// Of the lockers, the servers and the lease.
    pub list: u64,
    /// Of the servers alone.
    pub servers: u64,
}

impl ListHashes {
    /// Returns the hashes of these lists, each sorted. Neither is 0, which stands for no list.
    pub fn of<'a>(
        lockers: impl IntoIterator<Item = &'a str>,
        servers: impl IntoIterator<Item = &'a str>,
        lease: Duration,
    ) -> Self {
        let servers = hash_names(b"gridwire servers\0", servers).digest().max(1);
        let mut list = hash_names(b"gridwire lockers\0", lockers);
        list.update(&servers.to_be_bytes());
        list.update(&lease.as_nanos().to_be_bytes());
        Self { list: list.digest().max(1), servers }
    }
}

fn hash_names<'a>(domain: &[u8], names: impl IntoIterator<Item = &'a str>) -> Xxh3 {
    let mut hasher = Xxh3::new();
    hasher.update(domain);
    for name in names {
        // No name contains it.
        hasher.update(name.as_bytes());
        hasher.update(b"\n");
    }
    hasher
}

/// Report of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeReport {
    /// Its hashes, and its process.
    Hashes {
        /// The hashes.
        hashes: ListHashes,
        /// Random id of its process.
        process: u64,
        /// How long its process has been running, at least.
        up_for: Duration,
    },
    /// It responds, but does not know the question: a MinIO server, or one of the previous release.
    /// Its list cannot be compared, and counts as the same.
    Plain,
}

/// Parameters of an [`Agreement`].
#[derive(Debug, Clone)]
pub struct AgreementConfig {
    /// All servers except this one.
    pub others: Vec<Arc<str>>,
    /// This server's hashes.
    pub hashes: ListHashes,
    /// How long a report counts, from when its query was sent.
    pub confirmation_period: Duration,
    /// How long a process has to be up before it counts without a full agreement.
    pub settling_period: Duration,
}

impl AgreementConfig {
    /// Returns the parameters of a server with these limits.
    pub fn new(others: Vec<Arc<str>>, hashes: ListHashes, limits: &Limits) -> Self {
        Self {
            others,
            hashes,
            confirmation_period: limits.confirmation_period(),
            settling_period: limits.settling_period(),
        }
    }
}

/// Agreement of the servers on one list of lockers, as one of them sees it.
#[derive(Debug)]
pub struct Agreement {
    config: AgreementConfig,
    started_at: Instant,
    /// Whether this process has seen a full agreement.
    has_joined: bool,
    nodes: BTreeMap<Arc<str>, Confirmation>,
    checks: CheckSchedule,
}

/// Latest report of one server.
#[derive(Debug, Clone, Default)]
enum Confirmation {
    /// No report.
    #[default]
    None,
    /// It runs with the same list.
    Equal {
        /// When the query was sent.
        sent_at: Instant,
        /// Its process; 0 of a plain server.
        process: u64,
        /// Whether its process had been up for long enough.
        is_settled: bool,
        /// Whether this process of it took part in a full agreement.
        has_joined: bool,
    },
    /// It runs with another list of lockers, or another lease.
    OtherList { sent_at: Instant },
    /// It runs with another list of servers.
    OtherServers { sent_at: Instant },
}

impl Confirmation {
    fn sent_at(&self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Equal { sent_at, .. }
            | Self::OtherList { sent_at }
            | Self::OtherServers { sent_at } => Some(*sent_at),
        }
    }
}

/// Change that a report made, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeChange {
    /// Nothing that an operator should see.
    None,
    /// The server runs with another list of lockers, and did not before.
    OtherList,
    /// The server runs with another list of servers, and did not before.
    OtherServers,
    /// The server runs with the same list, and did not before.
    Equal,
}

impl Agreement {
    /// Returns the agreement of a process that starts at `now`, and knows nothing of the others.
    pub fn new(config: AgreementConfig, now: Instant) -> Self {
        let nodes = config.others.iter().map(|node| (Arc::clone(node), Confirmation::None));
        let mut agreement = Self {
            nodes: nodes.collect(),
            config,
            started_at: now,
            has_joined: false,
            checks: CheckSchedule::default(),
        };
        agreement.update_full_agreement(now);
        agreement.check_after_change();
        agreement
    }

    /// Returns this server's hashes.
    pub fn hashes(&self) -> ListHashes {
        self.config.hashes
    }

    /// Returns how long this process has been running.
    pub fn up_for(&self, now: Instant) -> Duration {
        now.since(self.started_at)
    }

    /// Handles the report of a server to a query that was sent at `sent_at`.
    pub fn handle_report(
        &mut self,
        node: &str,
        report: NodeReport,
        sent_at: Instant,
        now: Instant,
    ) -> NodeChange {
        let (hashes, settling_period) = (self.config.hashes, self.config.settling_period);
        let Some(known) = self.nodes.get_mut(node) else { return NodeChange::None };
        if known.sent_at().is_some_and(|latest| latest > sent_at) {
            return NodeChange::None; // It was overtaken by a later one.
        }
        let reported = match report {
            NodeReport::Plain => (hashes, 0, Duration::MAX),
            NodeReport::Hashes { hashes, process, up_for } => (hashes, process, up_for),
        };
        let (theirs, process, up_for) = reported;
        let next = if theirs.servers != hashes.servers {
            Confirmation::OtherServers { sent_at }
        } else if theirs.list != hashes.list {
            Confirmation::OtherList { sent_at }
        } else {
            let has_joined = matches!(
                known,
                Confirmation::Equal { process: earlier, has_joined: true, .. }
                    if *earlier == process
            );
            let is_settled = up_for >= settling_period;
            Confirmation::Equal { sent_at, process, is_settled, has_joined }
        };
        let change = match (&*known, &next) {
            (Confirmation::OtherList { .. }, Confirmation::OtherList { .. })
            | (Confirmation::OtherServers { .. }, Confirmation::OtherServers { .. })
            | (Confirmation::None | Confirmation::Equal { .. }, Confirmation::Equal { .. })
            | (_, Confirmation::None) => NodeChange::None,
            (_, Confirmation::OtherList { .. }) => NodeChange::OtherList,
            (_, Confirmation::OtherServers { .. }) => NodeChange::OtherServers,
            (_, Confirmation::Equal { .. }) => NodeChange::Equal,
        };
        *known = next;
        self.update_full_agreement(now);
        self.check_after_change();
        change
    }

    /// Records a full agreement, if there is one now.
    fn update_full_agreement(&mut self, now: Instant) {
        if !self.nodes.values().all(|node| self.is_fresh(node, now)) {
            return;
        }
        self.has_joined = true;
        for node in self.nodes.values_mut() {
            if let Confirmation::Equal { has_joined, .. } = node {
                *has_joined = true;
            }
        }
    }

    /// Returns whether a server was confirmed to run with the same list, not too long ago.
    fn is_fresh(&self, node: &Confirmation, now: Instant) -> bool {
        matches!(node, Confirmation::Equal { sent_at, .. } if now < self.expiry(*sent_at))
    }

    fn expiry(&self, sent_at: Instant) -> Instant {
        sent_at + self.config.confirmation_period
    }

    /// Returns until when the gate is open, if no further report arrives.
    ///
    /// # Errors
    ///
    /// [`NotReadyReason`] says why it is closed.
    pub fn open_until(&self, now: Instant) -> Result<Instant, NotReadyReason> {
        let differing = self.names(|node| matches!(node, Confirmation::OtherServers { .. }));
        if !differing.is_empty() {
            return Err(NotReadyReason::ServersDiffer { nodes: differing });
        }
        let servers = self.nodes.len() + 1;
        let needed = servers / 2 + 1;
        let fresh = self.nodes.values().filter(|node| self.is_fresh(node, now)).count() + 1;
        if fresh < needed {
            let is_other = |node: &Confirmation| matches!(node, Confirmation::OtherList { .. });
            return Err(NotReadyReason::NoMajority {
                equal: fresh,
                needed,
                servers,
                differing: self.names(is_other),
                unconfirmed: self.names(|node| !is_other(node) && !self.is_fresh(node, now)),
            });
        }
        let settles_at = self.started_at + self.config.settling_period;
        let mut expiries: Vec<_> =
            self.nodes.values().filter_map(|node| self.counted(node)).collect();
        expiries.retain(|expiry| now < *expiry);
        let is_settled = self.has_joined || settles_at <= now;
        if !is_settled || expiries.len() + 1 < needed {
            let own_left = settles_at.since(now);
            return Err(NotReadyReason::Settling {
                // It is not known since when the others have been up.
                within: if is_settled { self.config.settling_period } else { own_left },
                missing: self.names(|node| !self.is_fresh(node, now)),
            });
        }
        // The gate closes when one too few is left.
        expiries.sort_unstable_by(|first, second| second.cmp(first));
        Ok(match needed.checked_sub(2) {
            Some(last) => expiries.get(last).copied().unwrap_or_default(),
            None => FOREVER,
        })
    }

    /// Returns until when a server counts, if it does.
    fn counted(&self, node: &Confirmation) -> Option<Instant> {
        match node {
            Confirmation::Equal { sent_at, is_settled, has_joined, .. }
                if *is_settled || *has_joined =>
            {
                Some(self.expiry(*sent_at))
            }
            Confirmation::Equal { .. }
            | Confirmation::None
            | Confirmation::OtherList { .. }
            | Confirmation::OtherServers { .. } => None,
        }
    }

    fn names(&self, is_wanted: impl Fn(&Confirmation) -> bool) -> Vec<Arc<str>> {
        let wanted = self.nodes.iter().filter(|(_, node)| is_wanted(node));
        wanted.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Checks that the servers are those of the configuration, and that none has joined a full
    /// agreement that this process has not seen.
    ///
    /// # Panics
    ///
    /// If one of these does not hold. The message names the field and both values.
    pub fn check_invariants(&self) {
        let (nodes, others) = (self.nodes.len(), self.config.others.len());
        assert_eq!(nodes, others, "nodes.len(), and config.others.len()");
        for (name, node) in &self.nodes {
            if let Confirmation::Equal { has_joined, .. } = node {
                let own = self.has_joined;
                assert!(own || !has_joined, "nodes[{name}].has_joined is {has_joined}, own {own}");
            }
        }
    }

    fn check_after_change(&self) {
        self.checks.record();
        if self.checks.is_due(self.nodes.len()) {
            self.check_invariants();
        }
    }
}

/// The gate of a server alone closes at no time.
pub const FOREVER: Instant = Instant::from_nanos(u64::MAX);

const _: () = assert!(CONFIRMATIONS_PER_LEASE > 2, "a report must be renewed before it expires");
