//! What all servers have to say, asked at once (B71).
//!
//! A server that does not answer in time is reported as down, with the reason; nobody waits for it any
//! longer. Who else wants the same meanwhile, or within a second, shares it (`flight`).

pub(crate) mod flight;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use grid::{CallError, CallOptions, Connection, TypedCallError};
use serde::{Deserialize, Serialize};

use crate::limits::CAUSE_BYTES_MAX;
use crate::report::{GET_RESOURCE_METRICS, Report, ReportRequest};

/// What all servers have said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// By their names.
    pub servers: BTreeMap<String, Answer>,
}

/// What became of asking one server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It said this.
    Up(Box<Report>),
    /// It said nothing that counts.
    Down(Down),
}

/// Why a server did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// What kind of trouble it is.
    pub reason: Reason,
    /// What happened, for a person to read.
    pub cause: String,
}

/// Kinds of trouble: few, as they become values of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// There is no connection to it.
    NotConnected,
    /// The connection ended before the answer came.
    Disconnected,
    /// The answer did not come in time.
    Timeout,
    /// It answers no such question, or in a way that means nothing here: another version.
    Incompatible,
    /// It could not answer, or would not.
    Failed,
    /// The server that asks is shutting down.
    ShuttingDown,
}

impl Reason {
    /// As the label has it.
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
    fn new(reason: Reason, cause: &str) -> Self {
        let end = cause.floor_char_boundary(CAUSE_BYTES_MAX);
        Self { reason, cause: cause[..end].to_owned() }
    }
}

impl From<TypedCallError> for Down {
    fn from(error: TypedCallError) -> Self {
        let reason = match &error {
            TypedCallError::Decode { .. } => Reason::Incompatible,
            TypedCallError::Call(error) => match error {
                CallError::NotConnected { .. } => Reason::NotConnected,
                CallError::Disconnected { .. } => Reason::Disconnected,
                CallError::DeadlineExceeded { .. } => Reason::Timeout,
                CallError::UnknownHandler { .. } => Reason::Incompatible,
                CallError::Shutdown => Reason::ShuttingDown,
                _ => Reason::Failed,
            },
            _ => Reason::Failed,
        };
        Self::new(reason, &error.to_string())
    }
}

type Asking<'a> = Pin<Box<dyn Future<Output = Result<Report, Down>> + Send + 'a>>;

/// Another server.
pub(crate) trait Peer: Send + Sync + 'static {
    fn name(&self) -> &str;

    /// Asks it once.
    fn ask(&self, within: Duration) -> Asking<'_>;
}

impl Peer for Connection {
    fn name(&self) -> &str {
        self.remote().as_str()
    }

    fn ask(&self, within: Duration) -> Asking<'_> {
        Box::pin(async move {
            let options = CallOptions::default().timeout(within);
            let asked = GET_RESOURCE_METRICS.call_with(self, &ReportRequest {}, options);
            asked.await.map_err(Down::from)
        })
    }
}

/// Asks all at once. Whoever has not answered by then is down.
pub(crate) async fn gather<P: Peer>(peers: &[P], within: Duration) -> BTreeMap<String, Answer> {
    let asking = peers.iter().map(|peer| async move {
        // The call has a deadline too, but by a clock that may not be the one that waits here.
        let answer = match tokio::time::timeout(within, peer.ask(within)).await {
            Ok(Ok(report)) => Answer::Up(Box::new(report)),
            Ok(Err(down)) => Answer::Down(down),
            Err(_) => {
                let cause = format!("{} did not answer within {within:?}", peer.name());
                Answer::Down(Down::new(Reason::Timeout, &cause))
            }
        };
        (peer.name().to_owned(), answer)
    });
    join_all(asking).await.into_iter().collect()
}

#[cfg(test)]
mod tests;
