//! Recovery of a locker after a start: queries every node which of its leases that node still
//! relies on, and grants once all have reported ([B53]).
//!
//! [B53]: crate::rules#b53

use std::sync::Weak;

use grid::backoff::jittered;
use grid::{Connection, Env};
use rand::rngs::SmallRng;

use crate::error::LockerError;
use crate::limits::{RECOVERY_LOG_INTERVAL, RECOVERY_RETRY, RECOVERY_TIMEOUT};
use crate::live_locks::{LeasePage, LiveLocks};
use crate::local::LocalLocker;
use crate::locker::Locker;
use crate::operation::{HeldLeases, HolderParts, call};
use crate::peers::Peers;
use crate::proto::table::HeldLease;
use crate::proto::token::Token;

/// Queries all nodes, each in its own task, until all have reported or the locker grants.
pub(crate) fn start(local_locker: &LocalLocker, peers: &Peers, holder: &HolderParts, env: &Env) {
    report_local_leases(local_locker, holder);
    for connection in peers.connections() {
        let (connection, local_locker) = (connection.clone(), local_locker.clone());
        let locks = Weak::clone(&holder.locks);
        tokio::spawn(query_node(connection, local_locker, locks, env.fork()));
    }
    tokio::spawn(log_waiting(local_locker.clone(), Weak::clone(&holder.locks)));
}

/// Reports the leases that this server itself holds: none, as it has just started.
fn report_local_leases(local_locker: &LocalLocker, holder: &HolderParts) {
    let mut report = NodeReport::default();
    let mut after = 0;
    while let Some(page) = holder.leases_from(local_locker.name(), after) {
        after = page.next;
        report.add(page);
        if after == 0 {
            break;
        }
    }
    local_locker.handle_report(local_locker.name(), report.held_leases, report.highest_token);
}

/// Leases and highest token that a node has reported.
#[derive(Debug, Default)]
struct NodeReport {
    held_leases: Vec<HeldLease>,
    highest_token: Token,
}

impl NodeReport {
    fn add(&mut self, page: LeasePage) {
        self.highest_token = self.highest_token.max(page.highest_token);
        self.held_leases.extend(page.held_leases);
    }
}

async fn query_node(
    connection: Connection,
    local_locker: LocalLocker,
    locks: Weak<LiveLocks>,
    mut rng: SmallRng,
) {
    // A dropped locker needs no reports.
    while locks.strong_count() > 0 && local_locker.unreported_nodes().is_some() {
        let connected = tokio::time::timeout(RECOVERY_TIMEOUT, connection.wait_connected()).await;
        if let Ok(Ok(())) = connected {
            match query_once(&connection).await {
                Ok(report) => {
                    let node = connection.remote().as_str();
                    return local_locker.handle_report(
                        node,
                        report.held_leases,
                        report.highest_token,
                    );
                }
                Err(error) => tracing::debug!(
                    target: "dsync", node = %connection.remote(), %error, "lease query failed"
                ),
            }
        }
        tokio::time::sleep(jittered(RECOVERY_RETRY, &mut rng)).await;
    }
}

/// Queries all pages of a node's report, always from the first: pages of an earlier failed query
/// may be outdated.
async fn query_once(connection: &Connection) -> Result<NodeReport, LockerError> {
    let mut report = NodeReport::default();
    let mut after = 0;
    loop {
        let page = call::<HeldLeases>(connection, &after, RECOVERY_TIMEOUT).await?;
        let next = page.next;
        report.add(page);
        if next <= after {
            return Ok(report);
        }
        after = next;
    }
}

/// Logs why locks are not granted, until they are.
async fn log_waiting(local_locker: LocalLocker, locks: Weak<LiveLocks>) {
    tokio::time::sleep(RECOVERY_LOG_INTERVAL / 5).await;
    while let Some((nodes, left)) =
        local_locker.unreported_nodes().filter(|_| locks.strong_count() > 0)
    {
        tracing::info!(
            target: "dsync", ?nodes, at_most = ?left,
            "recovering after restart, no grants until these nodes report their leases"
        );
        tokio::time::sleep(RECOVERY_LOG_INTERVAL.min(left)).await;
    }
}
