//! The HTTP side of a server: the grids' upgrades, and what an orchestrator asks.
//!
//! ```text
//! GET <main.path()>    the main grid: upgrades of other servers and of tools (grid::GridService)
//! GET <locks.path()>   the grid of the locks: upgrades of other servers
//! GET /health/live     200 as long as the process answers
//! GET /health/ready    200 when this server is ready and enough peers are connected, else 503; JSON
//!                      says what is waited for
//! POST /v2/iam/…       users and their rights: `admin`
//! GET /v2/metrics/resource   what all servers' drives, network, processors and memory do
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
pub(crate) use self::admin::PREFIX as IAM_PREFIX;
pub(crate) use self::metrics::{JSON, Metrics, PATH as METRICS_PATH};
use crate::grids::Grids;
use crate::startup::Startup;

/// HTTP connections at once. A connection that became the grid's counts no more. Further ones wait
/// in the kernel's backlog.
const HTTP_CONNECTIONS_MAX: usize = 1_024;

/// Longest time from the beginning of a connection, or its last answer, to a whole request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait after the system could not accept, out of file descriptors for example.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Accepts and serves connections until it is dropped.
pub(crate) async fn accept(listener: TcpListener, routes: Routes) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        // Never closed, so there is always a place in the end.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, from)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_connection(socket, routes).await {
                        tracing::debug!(%from, %error, "an HTTP connection failed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
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

/// Returns when the connection is over, or has been handed to the grid.
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

/// Who answers what. Cheap to clone.
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
        let admin = Admin::new(startup.clone(), grids.main.local().clone());
        Self { main, locks, grids, metrics: None, startup, admin }
    }

    /// And metrics.
    pub(crate) fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let answer: fn(&Self) -> Response<Full<Bytes>> = match path {
            "/health/live" => |_| health::live(),
            "/health/ready" => |routes| health::ready(&routes.grids, &routes.startup),
            _ => return nothing_here(),
        };
        match *method {
            Method::GET | Method::HEAD => answer(self),
            _ => wrong_method(),
        }
    }
}

/// An answer that is on its way.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

impl HyperService<Request<Incoming>> for Routes {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match request.uri().path() {
            path if path == self.grids.main.path() => Box::pin(self.main.clone().call(request)),
            path if path == self.grids.locks.path() => Box::pin(self.locks.clone().call(request)),
            METRICS_PATH => match (request.method(), self.metrics.clone()) {
                (&Method::GET | &Method::HEAD, Some(metrics)) => {
                    Box::pin(async move { Ok(metrics.respond(request.headers()).await) })
                }
                (_, Some(_)) => Box::pin(ready(Ok(wrong_method()))),
                (_, None) => Box::pin(ready(Ok(nothing_here()))),
            },
            path if path.starts_with(IAM_PREFIX) => {
                let admin = self.admin.clone();
                Box::pin(async move { Ok(admin.respond(request).await) })
            }
            path => Box::pin(ready(Ok(self.respond(request.method(), path)))),
        }
    }
}

fn nothing_here() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "there is nothing here\n")
}

fn wrong_method() -> Response<Full<Bytes>> {
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
