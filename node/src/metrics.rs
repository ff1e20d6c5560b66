//! `gridwire metrics`: metrics of the drives, network, CPU and memory of all servers, as a
//! table.
//!
//! Requests them over plain HTTP with a bearer token, like a scraper. It needs no client name.

mod table;

use std::io;
use std::path::Path;
use std::time::Duration;

use ::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use grid::Name;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use resource_metrics::Collection;
use tokio::net::TcpStream;

use self::table::MetricsTable;
use crate::cli::MetricsArgs;
use crate::{http, metrics_access, output};

/// Largest response. The largest cluster's, with as many drives as allowed, is smaller.
const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsError {
    #[error("token_file = {path:?}: {problem}; it must be {}", metrics_access::allowed())]
    Token { path: String, problem: String },
    #[error("{0} needs TLS, which gridwire does not have; use an address that begins with http://")]
    Secure(Name),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot reach {server}: {cause}; is it running?")]
    Unreachable { server: Name, cause: io::Error },
    #[error("the request to {server} failed: {cause}")]
    Http { server: Name, cause: String },
    #[error("{server} did not respond within {waited:?}")]
    Timeout { server: Name, waited: Duration },
    #[error("{server} requires another token: use its --metrics-token-file as --token-file")]
    Unauthorized { server: Name },
    #[error("{server} responded {status}: {text}")]
    Refused { server: Name, status: StatusCode, text: String },
    #[error("unexpected response of {server}: {cause}; does it run another version?")]
    Response { server: Name, cause: String },
    #[error("cannot write the result: {0}")]
    Write(#[from] io::Error),
}

impl MetricsError {
    /// Returns 2 for invalid arguments, 1 for other failures.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Token { .. } | Self::Secure(_) => 2,
            _ => 1,
        }
    }
}

/// Requests the metrics, and prints them.
pub(crate) fn run(arguments: &MetricsArgs) -> Result<(), MetricsError> {
    let server = &arguments.server;
    if server.is_secure() {
        return Err(MetricsError::Secure(server.clone()));
    }
    let token = arguments.token_file.as_deref().map(read_token).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MetricsError::Runtime)?;
    let fetching = async {
        let fetching = fetch(server, token.as_deref());
        tokio::time::timeout(arguments.timeout, fetching).await.unwrap_or_else(|_| {
            Err(MetricsError::Timeout { server: server.clone(), waited: arguments.timeout })
        })
    };
    let body = runtime.block_on(fetching)?;
    let collection: Collection = serde_json::from_slice(&body).map_err(|cause| {
        MetricsError::Response { server: server.clone(), cause: cause.to_string() }
    })?;
    match arguments.json {
        true => output::print_line(&serde_json::json!(collection))?,
        false => output::print_line(&MetricsTable(&collection))?,
    }
    Ok(())
}

fn read_token(path: &Path) -> Result<String, MetricsError> {
    metrics_access::read(path)
        .map_err(|problem| MetricsError::Token { path: path.display().to_string(), problem })
}

/// Returns the body of a successful response.
async fn fetch(server: &Name, token: Option<&str>) -> Result<Bytes, MetricsError> {
    let connecting = TcpStream::connect(server.host_port()).await;
    let socket =
        connecting.map_err(|cause| MetricsError::Unreachable { server: server.clone(), cause })?;
    let response = exchange(socket, server, token).await;
    let (status, body) = response
        .map_err(|cause| MetricsError::Http { server: server.clone(), cause: cause.to_string() })?;
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::UNAUTHORIZED => Err(MetricsError::Unauthorized { server: server.clone() }),
        status => {
            let text: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
            let text = output::printable(&text).into_owned();
            Err(MetricsError::Refused { server: server.clone(), status, text })
        }
    }
}

async fn exchange(
    socket: TcpStream,
    server: &Name,
    token: Option<&str>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let authority = server.as_str().trim_start_matches("http://");
    let mut request = Request::get(http::METRICS_PATH)
        .header(header::HOST, authority)
        .header(header::ACCEPT, http::JSON);
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await?;
    Ok((status, body.to_bytes()))
}
