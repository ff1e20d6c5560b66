//! State and statistics of one remote, which can be read at any time without disturbing it ([B08]).
//!
//! [B08]: crate::rules#b08

use std::sync::Arc;
use std::time::Duration;

use crate::name::Name;

/// The state of the connection to a remote ([B08]).
///
/// [B08]: crate::rules#b08
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// Dialing, or waiting to be dialed.
    Connecting,
    /// Open: calls can be made.
    Connected,
    /// Waiting before the next attempt.
    Backoff,
    /// Ended for good.
    Shutdown,
}

/// A snapshot of one remote. Totals count from when the manager was built, over all reconnects.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// This server.
    pub local: Name,
    /// The server at the other end.
    pub remote: Name,
    /// Current state of the connection.
    pub state: ConnectionState,
    /// Bytes of WebSocket messages received.
    pub bytes_in: u64,
    /// Bytes of WebSocket messages sent.
    pub bytes_out: u64,
    /// Grid messages received.
    pub messages_in: u64,
    /// Grid messages sent.
    pub messages_out: u64,
    /// Received messages ignored because they have no meaning in the current state.
    pub messages_skipped: u64,
    /// Calls made to the remote, streams included.
    pub outbound_calls: u64,
    /// Calls accepted from the remote, streams included.
    pub inbound_calls: u64,
    /// Outstanding calls to the remote, streams included.
    pub live_outbound_calls: usize,
    /// Outstanding calls from the remote, streams included.
    pub live_inbound_calls: usize,
    /// Streams opened to the remote.
    pub outbound_streams: u64,
    /// Streams accepted from the remote.
    pub inbound_streams: u64,
    /// Open streams to the remote.
    pub live_outbound_streams: usize,
    /// Open streams from the remote.
    pub live_inbound_streams: usize,
    /// Tasks that currently run handlers for the remote.
    pub live_handler_tasks: usize,
    /// Bytes queued for writing.
    pub queued_bytes: usize,
    /// Messages blocked until the queue has room.
    pub blocked_messages: usize,
    /// Connections established: one more than reconnects.
    pub connections: u64,
    /// Round-trip time of the last ping that received a pong.
    pub ping_round_trip: Option<Duration>,
    /// Reason why the last connect failed or the last connection ended.
    pub last_failure: Option<Failure>,
}

/// Why a remote is, or was, not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind of failure.
    pub kind: FailureKind,
    /// Error text for the operator.
    pub cause: Arc<str>,
}

/// Kinds of connection failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The remote was not reached, or the handshake failed. A retry may succeed.
    Unreachable,
    /// The remote refused the connection. Retries fail until the configuration of either server is
    /// changed.
    Refused,
    /// An established connection ended.
    Ended,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cause)
    }
}

impl ConnectionStats {
    /// Returns how often the connection was lost and re-established.
    pub fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
    }

    /// Returns whether no call, handler task or message is left ([B05]).
    ///
    /// [B05]: crate::rules#b05
    #[must_use]
    pub fn is_quiescent(&self) -> bool {
        self.live_outbound_calls == 0
            && self.live_inbound_calls == 0
            && self.live_handler_tasks == 0
            && self.queued_bytes == 0
            && self.blocked_messages == 0
    }
}
