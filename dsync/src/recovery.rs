//! Recovery of a locker after a start: queries every node which of its leases that node still
//! relies on, and grants once all have reported ([B53]).
//!
//! [B53]: crate::rules#b53

use std::sync::{Arc, Weak};
use std::time::Duration;

use grid::{CallOptions, Connection};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::dsync::{Dsync, DsyncInner};
use crate::limits::{RECOVERY_RETRY, RECOVERY_TIMEOUT};
use crate::local::LocalLocker;
use crate::proto::table::HeldLease;
use crate::proto::token::Token;
use crate::server;
use crate::wire::{HELD_LEASES, HeldLeasesArgs, HeldLeasesResponse};

/// Queries all nodes, each in its own task, until all have reported or the locker grants.
pub(crate) fn start(dsync: &Dsync, local_locker: &LocalLocker) {
    let inner = &dsync.inner;
    report_local_leases(inner, local_locker);
    for connection in dsync.manager.connections() {
        let (local_locker, rng) = (local_locker.clone(), inner.fork_rng());
        tokio::spawn(query_node(connection, local_locker, Arc::downgrade(inner), rng));
    }
    tokio::spawn(log_waiting(local_locker.clone(), Arc::downgrade(inner)));
}

/// Reports the leases that this server itself holds: none, as it has just started.
fn report_local_leases(inner: &DsyncInner, local_locker: &LocalLocker) {
    let locker = inner.locker_index(&inner.owner);
    let mut report = NodeReport::default();
    let mut after = 0;
    loop {
        let response = server::held_leases(inner, locker, after);
        after = response.next;
        report.add(response);
        if after == 0 {
            break;
        }
    }
    local_locker.handle_report(&inner.owner, report.held_leases, report.highest_token);
}

/// Leases and highest token that a node has reported.
#[derive(Debug, Default)]
struct NodeReport {
    held_leases: Vec<HeldLease>,
    highest_token: Token,
}

impl NodeReport {
    fn add(&mut self, response: HeldLeasesResponse) {
        self.highest_token = self.highest_token.max(response.highest_token);
        for args in response.held_leases {
            match args.to_held_lease() {
                Ok(held_lease) => self.held_leases.push(held_lease),
                Err(error) => {
                    let uid = args.uid;
                    tracing::warn!(
                        target: "dsync", uid, error, "ignoring a malformed lease report"
                    );
                }
            }
        }
    }
}

async fn query_node(
    connection: Connection,
    local_locker: LocalLocker,
    inner: Weak<DsyncInner>,
    mut rng: SmallRng,
) {
    // A dropped locker needs no reports.
    while inner.strong_count() > 0 && local_locker.unreported_nodes().is_some() {
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
        let pause = RECOVERY_RETRY.mul_f64(rng.random_range(0.5..1.0));
        tokio::time::sleep(pause).await;
    }
}

/// Queries all pages of a node's report, always from the first: pages of an earlier failed query
/// may be outdated.
async fn query_once(connection: &Connection) -> Result<NodeReport, grid::TypedCallError> {
    let mut report = NodeReport::default();
    let mut after = 0;
    loop {
        let (args, options) =
            (HeldLeasesArgs { after }, CallOptions::default().timeout(RECOVERY_TIMEOUT));
        let response = HELD_LEASES.call_with(connection, &args, options).await?;
        let next = response.next;
        report.add(response);
        if next <= after {
            return Ok(report);
        }
        after = next;
    }
}

/// Interval of the log line while a locker does not grant yet.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Logs why locks are not granted, until they are.
async fn log_waiting(local_locker: LocalLocker, inner: Weak<DsyncInner>) {
    tokio::time::sleep(LOG_INTERVAL / 5).await;
    while let Some((nodes, left)) =
        local_locker.unreported_nodes().filter(|_| inner.strong_count() > 0)
    {
        tracing::info!(
            target: "dsync", ?nodes, at_most = ?left,
            "recovering after restart, no grants until these nodes report their leases"
        );
        tokio::time::sleep(LOG_INTERVAL.min(left)).await;
    }
}
