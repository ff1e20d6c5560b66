//! Collection of all servers' reports, concurrently ([B71]).
//!
//! A server that does not respond in time is reported as down, with the reason, and delays the
//! collection no further. Concurrent callers, and those within a second, share it
//! (`single_flight`).
//!
//! [B71]: crate::rules#b71

pub(crate) mod single_flight;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use grid::{CallError, CallOptions, Connection, TypedCallError};
use serde::{Deserialize, Serialize};

use crate::limits::CAUSE_BYTES_MAX;
use crate::report::{GET_RESOURCE_METRICS, Report, ReportRequest};

/// Reports of all servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// Status of each server, by name.
    pub servers: BTreeMap<String, ServerStatus>,
}

/// Result of the call to one server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerStatus {
    /// It responded with this report.
    Up(Box<Report>),
    /// It sent no valid report.
    Down(Down),
}

/// Why a server did not report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Kind of failure.
    pub reason: DownReason,
    /// Description for operators.
    pub cause: String,
}

/// Kinds of failure. Few, because each becomes a label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DownReason {
    /// There is no connection to the server.
    NotConnected,
    /// The connection ended before the response.
    Disconnected,
    /// The response did not come in time.
    Timeout,
    /// The server has no such handler, or its response cannot be decoded: another version.
    Incompatible,
    /// The server failed or refused to respond.
    Failed,
    /// The collecting server is shutting down.
    ShuttingDown,
}

impl DownReason {
    /// Returns the label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::Incompatible => "incompatible",
            Self::Failed => "failed",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

impl Down {
    fn new(reason: DownReason, cause: &str) -> Self {
        let end = cause.floor_char_boundary(CAUSE_BYTES_MAX);
        Self { reason, cause: cause[..end].to_owned() }
    }
}

impl From<TypedCallError> for Down {
    fn from(error: TypedCallError) -> Self {
        let reason = match &error {
            TypedCallError::Decode { .. } => DownReason::Incompatible,
            TypedCallError::Call(error) => match error {
                CallError::NotConnected { .. } => DownReason::NotConnected,
                CallError::Disconnected { .. } => DownReason::Disconnected,
                CallError::DeadlineExceeded { .. } => DownReason::Timeout,
                CallError::UnknownHandler { .. } => DownReason::Incompatible,
                CallError::Shutdown => DownReason::ShuttingDown,
                _ => DownReason::Failed,
            },
            _ => DownReason::Failed,
        };
        Self::new(reason, &error.to_string())
    }
}

type ReportFuture<'a> = Pin<Box<dyn Future<Output = Result<Report, Down>> + Send + 'a>>;

/// A server whose report can be fetched.
pub(crate) trait Peer: Send + Sync + 'static {
    fn name(&self) -> &str;

    /// Fetches the report with one call.
    fn fetch_report(&self, timeout: Duration) -> ReportFuture<'_>;
}

impl Peer for Connection {
    fn name(&self) -> &str {
        self.remote().as_str()
    }

    fn fetch_report(&self, timeout: Duration) -> ReportFuture<'_> {
        Box::pin(async move {
            let options = CallOptions::default().timeout(timeout);
            let call = GET_RESOURCE_METRICS.call_with(self, &ReportRequest {}, options);
            call.await.map_err(Down::from)
        })
    }
}

/// Calls all servers concurrently. A server without a response by the deadline is down.
pub(crate) async fn gather<P: Peer>(
    peers: &[P],
    timeout: Duration,
) -> BTreeMap<String, ServerStatus> {
    let pending = peers.iter().map(|peer| async move {
        // The call has a deadline too, but its clock may not be the one that runs here.
        let status = match tokio::time::timeout(timeout, peer.fetch_report(timeout)).await {
            Ok(Ok(report)) => ServerStatus::Up(Box::new(report)),
            Ok(Err(down)) => ServerStatus::Down(down),
            Err(_) => {
                let cause = format!("{} did not respond within {timeout:?}", peer.name());
                ServerStatus::Down(Down::new(DownReason::Timeout, &cause))
            }
        };
        (peer.name().to_owned(), status)
    });
    join_all(pending).await.into_iter().collect()
}

#[cfg(test)]
mod tests;
