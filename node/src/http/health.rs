//! Liveness and readiness endpoints for orchestrators.

use ::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use grid::{ConnectionState, ConnectionStats};
use http_body_util::Full;
use iam_bootstrap::BootstrapStatus;
use serde::Serialize;

use super::text;
use crate::grids::Grids;
use crate::startup::Startup;

/// Responds 200: the process is alive.
pub(super) fn live() -> Response<Full<Bytes>> {
    text(StatusCode::OK, "live\n")
}

/// Responds 200 if this server is ready for traffic: its startup is complete, and at least half of
/// its peers are connected, so that every quorum that it takes part in is reachable. A single
/// server needs no peers. Clients do not count; the lock grid is reported but does not decide.
pub(super) fn ready(grids: &Grids, startup: &Startup) -> Response<Full<Bytes>> {
    let readiness = Readiness::new(grids, startup);
    let mut response = Response::new(Full::from(serde_json::json!(readiness).to_string() + "\n"));
    if !readiness.ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    name: String,
    /// Current phase of the startup.
    phase: &'static str,
    /// What the server waits for, if it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<String>,
    /// Servers that belong to other deployments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<String>,
    /// Peers that run with another build or environment. They gate nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variations: Vec<String>,
    connected: usize,
    /// Number of peers that must be connected.
    needed: usize,
    peers: Vec<PeerHealth>,
    locks: LocksHealth,
}

/// The same peers on the lock grid.
#[derive(Debug, Serialize)]
struct LocksHealth {
    /// Whether this server grants and takes locks. After its start it does not for a while.
    open: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
    connected: usize,
    peers: Vec<PeerHealth>,
}

#[derive(Debug, Serialize)]
struct PeerHealth {
    remote: String,
    state: &'static str,
    reconnects: u64,
}

impl Readiness {
    fn new(grids: &Grids, startup: &Startup) -> Self {
        let (connected, peers) = peers(&grids.peer_stats());
        let BootstrapStatus { phase, mut waiting, variations } = startup.status();
        let needed = peers_needed(peers.len());
        let name = grids.main.local().to_string();
        let is_ready = startup.is_ready();
        if is_ready && connected < needed {
            waiting = Some(format!("{connected} peers are connected, {needed} are required"));
        }
        let conflicts = startup.conflicts();
        Self {
            ready: is_ready && connected >= needed,
            name,
            phase,
            waiting,
            deployment: startup.deployment().map(|id| id.to_string()),
            conflicts: conflicts.iter().map(ToString::to_string).collect(),
            variations,
            connected,
            needed,
            peers,
            locks: LocksHealth::new(grids),
        }
    }
}

impl LocksHealth {
    fn new(grids: &Grids) -> Self {
        let (connected, peers) = peers(&grids.locks.stats());
        let dsync = &grids.dsync;
        let recovering = || {
            let (nodes, within) = dsync.locker()?.unreported_nodes()?;
            let nodes = nodes.join(", ");
            Some(format!("recovering: {nodes} must report their locks, at most for {within:?}"))
        };
        let waiting = dsync.not_ready().map(|reason| reason.to_string()).or_else(recovering);
        Self { open: waiting.is_none(), waiting, connected, peers }
    }
}

/// Returns all peers, and the number of connected ones.
fn peers(stats: &[ConnectionStats]) -> (usize, Vec<PeerHealth>) {
    let peers: Vec<_> = stats.iter().map(PeerHealth::new).collect();
    (peers.iter().filter(|peer| peer.state == CONNECTED).count(), peers)
}

const fn peers_needed(peers: usize) -> usize {
    peers.div_ceil(2)
}

const CONNECTED: &str = "connected";

impl PeerHealth {
    fn new(stats: &ConnectionStats) -> Self {
        let state = match stats.state {
            ConnectionState::Connecting => "connecting",
            ConnectionState::Connected => CONNECTED,
            ConnectionState::Backoff => "backoff",
            ConnectionState::Shutdown => "shutdown",
        };
        Self { remote: stats.remote.to_string(), state, reconnects: stats.reconnects() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_peers_suffice() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(peers_needed), [0, 1, 1, 2, 2, 3]);
    }
}
