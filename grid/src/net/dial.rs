//! The dialer's handshake: connect, upgrade, send Connect ([P2], [P10]).
//!
//! [P2]: crate::protocol#p2
//! [P10]: crate::protocol#p10

use std::io;

use http::{HeaderValue, Request, StatusCode, header};
use tokio::time::timeout;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::manager_state::ManagerState;
use super::websocket::{self, FirstMessageError, ReadLimited, WebSocket};
use crate::auth::AuthError;
use crate::buggify::FaultPoint;
use crate::limits::REASON_BYTES_MAX;
use crate::name::Name;
use crate::proto::handshake::{ConnectRequest, ConnectResponse, HandshakeError, InstanceId};
use crate::stats::{Failure, FailureKind};

/// Header with the dialer's wall clock, in nanoseconds since 1970 (P2).
pub(super) const TIME_HEADER: &str = "x-minio-time";

/// Why a dial failed. It is retried after a backoff.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("no response within {0:?}")]
    TimedOut(std::time::Duration),
    #[error("no token: {0}")]
    Token(#[from] AuthError),
    #[error("the upgrade was refused with {status}: {reason}")]
    Upgrade { status: StatusCode, reason: String },
    #[error("{0}")]
    WebSocket(#[from] Box<WsError>),
    #[error("malformed upgrade request: {0}")]
    Request(String),
    #[error("{0}")]
    FirstMessage(#[from] FirstMessageError),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("rejected: {0}")]
    Rejected(String),
}

impl DialError {
    /// Converts the error for the statistics.
    pub(super) fn failure(&self) -> Failure {
        let kind = match self {
            Self::Upgrade { .. } | Self::Rejected(_) => FailureKind::Refused,
            _ => FailureKind::Unreachable,
        };
        Failure { kind, cause: self.to_string().into() }
    }
}

/// Opens a connection to `remote` within the handshake timeout.
pub(super) async fn dial(
    state: &ManagerState,
    remote: &Name,
) -> Result<(WebSocket, InstanceId), DialError> {
    let mut limit = state.limits.handshake_timeout;
    if let Some(early) = state.fault_injector.inject(FaultPoint::EarlyTimeout) {
        limit = limit.min(early);
    }
    timeout(limit, dial_without_timeout(state, remote))
        .await
        .map_err(|_| DialError::TimedOut(limit))?
}

async fn dial_without_timeout(
    state: &ManagerState,
    remote: &Name,
) -> Result<(WebSocket, InstanceId), DialError> {
    let socket = ReadLimited::new(state.transport.connect(remote).await?);
    let time = state.clock.0.wall();
    let token = state.auth.make_token(time)?;
    let request = upgrade_request(remote, &state.path, &token, time.unix_nanos())?;
    let config = websocket::config(&state.limits);
    let (mut socket, _) =
        client_async_with_config(request, socket, Some(config)).await.map_err(upgrade_error)?;
    let connect = ConnectRequest { id: state.instance, host: state.local.to_string(), time, token };
    websocket::send(&mut socket, connect.encode()?).await?;
    let response = ConnectResponse::parse(&websocket::receive_first(&mut socket).await?)?;
    if !response.accepted {
        return Err(DialError::Rejected(response.rejected_reason));
    }
    socket.get_mut().lift_limit();
    Ok((socket, response.id))
}

fn upgrade_request(
    remote: &Name,
    path: &str,
    token: &str,
    unix_nanos: i128,
) -> Result<Request<()>, DialError> {
    let malformed = |error: &dyn std::fmt::Display| DialError::Request(error.to_string());
    let scheme = if remote.is_secure() { "wss" } else { "ws" };
    let mut request = format!("{scheme}://{}{path}", remote.authority())
        .into_client_request()
        .map_err(|error| malformed(&error))?;
    let mut bearer =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| malformed(&error))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    request.headers_mut().insert(
        TIME_HEADER,
        HeaderValue::try_from(unix_nanos.to_string()).map_err(|error| malformed(&error))?,
    );
    Ok(request)
}

/// Converts an upgrade error. A response that is no upgrade has the reason in its body.
fn upgrade_error(error: WsError) -> DialError {
    match error {
        WsError::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(REASON_BYTES_MAX)]);
            DialError::Upgrade { status: response.status(), reason: body.trim().to_owned() }
        }
        error => DialError::WebSocket(Box::new(error)),
    }
}
