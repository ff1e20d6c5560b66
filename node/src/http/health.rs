//! What an orchestrator asks: is the process alive, and should it get traffic.

use ::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use grid::{ConnectionState, ConnectionStats};
use http_body_util::Full;
use serde::Serialize;

use super::text;
use crate::grids::Grids;
use crate::startup::{Startup, Status};

/// The process answers, that is all.
pub(super) fn live() -> Response<Full<Bytes>> {
    text(StatusCode::OK, "live\n")
}

/// Whether this server can be of use: it has come through its startup, and is connected. With half of its peers or more it can, as every quorum that
/// it may take part in can then be had. One on its own always is. Clients do not count, and the grid of
/// the locks is shown but does not decide.
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
    /// How far the startup is.
    phase: &'static str,
    /// What is waited for, if it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<String>,
    /// Servers that belong to other deployments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<String>,
    connected: usize,
    /// How many must be connected.
    needed: usize,
    peers: Vec<Peer>,
    locks: Locks,
}

/// The same peers on the grid of the locks.
#[derive(Debug, Serialize)]
struct Locks {
    /// Whether this server grants locks, or is not to: for a while after its start it does not.
    open: bool,
    connected: usize,
    peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
struct Peer {
    remote: String,
    state: &'static str,
    reconnects: u64,
}

impl Readiness {
    fn new(grids: &Grids, startup: &Startup) -> Self {
        let (connected, peers) = peers(&grids.peer_stats());
        let Status { phase, mut waiting } = startup.status();
        let needed = peers_needed(peers.len());
        let name = grids.main.local().to_string();
        let is_ready = startup.is_ready();
        if is_ready && connected < needed {
            waiting = Some(format!("{connected} peers are connected, {needed} are needed"));
        }
        let conflicts = startup.conflicts();
        Self {
            ready: is_ready && connected >= needed,
            name,
            phase,
            waiting,
            deployment: startup.deployment().map(|id| id.to_string()),
            conflicts: conflicts.iter().map(ToString::to_string).collect(),
            connected,
            needed,
            peers,
            locks: Locks::new(grids),
        }
    }
}

impl Locks {
    fn new(grids: &Grids) -> Self {
        let (connected, peers) = peers(&grids.locks.stats());
        Self { open: grids.dsync.is_open(), connected, peers }
    }
}

/// All peers, and how many of them are connected.
fn peers(stats: &[ConnectionStats]) -> (usize, Vec<Peer>) {
    let peers: Vec<_> = stats.iter().map(Peer::new).collect();
    (peers.iter().filter(|peer| peer.state == CONNECTED).count(), peers)
}

const fn peers_needed(peers: usize) -> usize {
    peers.div_ceil(2)
}

const CONNECTED: &str = "connected";

impl Peer {
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
    fn half_of_the_peers_are_enough_and_none_need_none() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(peers_needed), [0, 1, 1, 2, 2, 3]);
    }
}
