//! Sends requests to a server over plain HTTP, with a token signed with the caller's secret.

use std::time::Duration;

use bytes::Bytes;
use grid::Name;
use grid::env::SystemClock;
use grid::time::Clock;
use http::{HeaderValue, Request as HttpRequest, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::wire::{IamRequest, PREFIX, Problem};
use super::{IamError, token};
use crate::secret::SecretBytes;

/// Largest response. A list of hundreds of thousands of users is smaller.
const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Displayed length of an error message of a server.
const MESSAGE_CHARACTERS_MAX: usize = 1_000;

/// A server, and the caller's credentials.
pub(super) struct AdminClient<'a> {
    pub(super) server: Name,
    pub(super) access_key: &'a str,
    pub(super) secret: SecretBytes,
}

impl AdminClient<'_> {
    /// Sends a request. Returns the body of a successful response.
    pub(super) async fn send_request(
        &self,
        request: &IamRequest,
        timeout: Duration,
    ) -> Result<Bytes, IamError> {
        let result = tokio::time::timeout(timeout, self.exchange(request)).await;
        let timed_out = || IamError::Timeout { server: self.server.clone(), waited: timeout };
        let (status, body) = result.map_err(|_| timed_out())??;
        match status {
            StatusCode::OK => Ok(body),
            status => {
                let message = match serde_json::from_slice::<Problem>(&body) {
                    Ok(problem) => problem.message,
                    Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
                };
                // No control characters of the server reach the terminal.
                let message = message.chars().take(MESSAGE_CHARACTERS_MAX);
                let is_printable = |c: &char| !c.is_control();
                let message = message.filter(is_printable).collect();
                Err(IamError::Refused { server: self.server.clone(), status, message })
            }
        }
    }

    pub(super) fn invalid_response(&self, cause: &serde_json::Error) -> IamError {
        IamError::Response { server: self.server.clone(), cause: cause.to_string() }
    }

    async fn exchange(&self, request: &IamRequest) -> Result<(StatusCode, Bytes), IamError> {
        let server = &self.server;
        let connecting = TcpStream::connect(server.host_port()).await;
        let socket =
            connecting.map_err(|cause| IamError::Unreachable { server: server.clone(), cause })?;
        let now = SystemClock::new().wall();
        let token = token::sign(self.access_key, self.secret.expose(), now);
        let token = token.map_err(IamError::Sign)?;
        send(socket, server, request, &token)
            .await
            .map_err(|cause| IamError::Http { server: server.clone(), cause: cause.to_string() })
    }
}

async fn send(
    socket: TcpStream,
    server: &Name,
    request: &IamRequest,
    token: &str,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))?;
    bearer.set_sensitive(true);
    let body = serde_json::to_vec(request)?;
    let request = HttpRequest::post(format!("{PREFIX}{}", request.path()))
        .header(header::HOST, server.as_str().trim_start_matches("http://"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, bearer)
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await?;
    Ok((status, body.to_bytes()))
}
