//! What an operator can see of one remote, at any time and without disturbing it (B08).

use std::sync::Arc;
use std::time::Duration;

use crate::name::Name;
use crate::shared::ConnectionState;

/// A snapshot of one remote. Sums are since the manager was built, over all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// This server.
    pub local: Name,
    /// The other one.
    pub remote: Name,
    /// Where the connection stands.
    pub state: ConnectionState,
    /// Bytes of WebSocket messages received.
    pub bytes_in: u64,
    /// Bytes of WebSocket messages sent.
    pub bytes_out: u64,
    /// Grid messages received.
    pub messages_in: u64,
    /// Grid messages sent.
    pub messages_out: u64,
    /// Received messages that meant nothing here and were skipped.
    pub messages_skipped: u64,
    /// Calls that this side started.
    pub outbound_calls: u64,
    /// Calls of the remote that were taken.
    pub inbound_calls: u64,
    /// Calls of this side that are not over.
    pub live_outbound_calls: usize,
    /// Calls of the remote that are not answered.
    pub live_inbound_calls: usize,
    /// Streams that this side opened so far. They count as calls too.
    pub outbound_streams: u64,
    /// Streams of the remote that were taken so far. They count as calls too.
    pub inbound_streams: u64,
    /// Streams of this side that are not over.
    pub live_outbound_streams: usize,
    /// Streams of the remote that are not over.
    pub live_inbound_streams: usize,
    /// Tasks that run handlers for the remote.
    pub live_handler_tasks: usize,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
    /// Messages that wait for room in the queue.
    pub blocked_messages: usize,
    /// Connections so far: one more than reconnects.
    pub connections: u64,
    /// Round trip of the last answered ping.
    pub ping_round_trip: Option<Duration>,
    /// Why the last attempt to connect failed, or the last connection ended.
    pub last_failure: Option<Failure>,
}

/// Why a remote is, or was, not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of trouble it was.
    pub kind: FailureKind,
    /// What happened, for a person to read.
    pub cause: Arc<str>,
}

/// Kinds of trouble with a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// It was not reached, or did not answer as a grid does. Trying again may help.
    Unreachable,
    /// It was reached and refused the connection. Trying again will not help before somebody
    /// changes something.
    Refused,
    /// There was a connection, and it ended.
    Ended,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cause)
    }
}

impl ConnectionStats {
    /// How often the connection was lost and found again.
    pub fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
    }

    /// Whether nothing is under way and nothing was left behind (B05).
    pub fn is_quiescent(&self) -> bool {
        self.live_outbound_calls == 0
            && self.live_inbound_calls == 0
            && self.live_handler_tasks == 0
            && self.queued_bytes == 0
            && self.blocked_messages == 0
    }
}
