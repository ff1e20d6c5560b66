//! The HTTP endpoints of a server.
//!
//! ```text
//! GET <main.path()>    main grid: upgrades of other servers and of clients (grid::GridService)
//! GET <locks.path()>   lock grid: upgrades of other servers
//! GET /health/live     200 while the process responds
//! GET /health/ready    200 when this server is ready and enough peers are connected, else 503;
//!                      the JSON body has the phase and what it waits for
//! POST /v2/iam/…       administration of IAM: `admin`
//! GET /v2/metrics/resource   metrics of all servers' drives, network, CPU and memory
//! ```

mod admin;
mod health;
mod metrics;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use grid::GridService;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_service::Service as _;

use self::admin::Admin;
pub(crate) use self::metrics::{JSON, Metrics, PATH as METRICS_PATH};
use crate::grids::Grids;
use crate::iam::wire::PREFIX as IAM_PREFIX;
use crate::startup::Startup;

/// Maximum number of HTTP connections. Connections that were upgraded to the grid do not count.
/// Further ones wait in the kernel's backlog.
const HTTP_CONNECTIONS_MAX: usize = 1_024;

/// Longest time from the start of a connection, or its last response, to a complete request header.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept, for example without free file descriptors.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Accepts and serves connections until it is dropped.
pub(crate) async fn accept(listener: TcpListener, routes: Routes) {
    let permits = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, from)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_connection(socket, routes).await {
                        tracing::debug!(%from, %error, "HTTP connection failed");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, retry_in = ?PAUSE_AFTER_FAILURE, "accept failed");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// Serves one connection. Returns when it is closed, or was handed over to the grid.
async fn serve_connection(socket: TcpStream, routes: Routes) -> Result<(), ConnectionError> {
    socket.set_nodelay(true)?;
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(socket), routes)
        .with_upgrades()
        .await?;
    Ok(())
}

/// Routes requests to their handlers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    grids: Grids,
    main: GridService,
    locks: GridService,
    metrics: Option<Metrics>,
    startup: Startup,
    admin: Admin,
}

impl Routes {
    pub(crate) fn new(grids: Grids, startup: Startup) -> Self {
        let (main, locks) = (grids.main.service(), grids.locks.service());
        let admin = Admin::new(startup.clone(), grids.main.local().clone(), grids.env.clone());
        Self { main, locks, grids, metrics: None, startup, admin }
    }

    /// Adds the metrics endpoint.
    pub(crate) fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let respond: fn(&Self) -> Response<Full<Bytes>> = match path {
            "/health/live" => |_| health::live(),
            "/health/ready" => |routes| health::ready(&routes.grids, &routes.startup),
            _ => return not_found(),
        };
        match *method {
            Method::GET | Method::HEAD => respond(self),
            _ => method_not_allowed(),
        }
    }
}

/// A response in progress.
type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

impl HyperService<Request<Incoming>> for Routes {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match request.uri().path() {
            path if path == self.grids.main.path() => Box::pin(self.main.clone().call(request)),
            path if path == self.grids.locks.path() => Box::pin(self.locks.clone().call(request)),
            METRICS_PATH => match (request.method(), self.metrics.clone()) {
                (&Method::GET | &Method::HEAD, Some(metrics)) => {
                    Box::pin(async move { Ok(metrics.respond(request.headers()).await) })
                }
                (_, Some(_)) => Box::pin(ready(Ok(method_not_allowed()))),
                (_, None) => Box::pin(ready(Ok(not_found()))),
            },
            path if path.starts_with(IAM_PREFIX) => {
                let admin = self.admin.clone();
                Box::pin(async move { Ok(admin.respond(request).await) })
            }
            path => Box::pin(ready(Ok(self.respond(request.method(), path)))),
        }
    }
}

fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "not found\n")
}

fn method_not_allowed() -> Response<Full<Bytes>> {
    let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
    refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    refusal
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
