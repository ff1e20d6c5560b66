//! The acceptor's handshake, in two forms: [`GridService`] accepts upgrade requests beside an
//! application's own routes, and [`Manager::accept`](crate::Manager::accept) serves only the grid
//! on a raw socket.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::Role;
use tower_service::Service;

use super::manager_state::{AcceptedConnection, ManagerPhase, ManagerState};
use super::transport::Socket;
use super::websocket::{self, FirstMessageError, ReadLimited, WebSocket};
use crate::proto::handshake::{Acceptor, ConnectResponse, InstanceId, Refusal};

/// Accepts the upgrade requests of other servers: a `tower::Service` for hyper and axum.
///
/// Mount it at [`Manager::path`](crate::Manager::path). The connection that carries the request
/// must be served with upgrades enabled (`axum::serve` does that).
///
/// Responds with 426 to a request that is no upgrade, with 403 to a refused token, with 404 to
/// another path, and with 503 if too many sockets are unauthenticated. The body is the reason.
#[derive(Debug, Clone)]
pub struct GridService {
    state: Arc<ManagerState>,
    /// Slot that the raw socket acquired; `None` if the application serves the socket.
    slot: Option<Arc<UnauthenticatedSlot>>,
}

impl GridService {
    pub(crate) fn new(state: Arc<ManagerState>) -> Self {
        Self { state, slot: None }
    }
}

impl<B> Service<Request<B>> for GridService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.respond(request)))
    }
}

impl GridService {
    fn respond<B>(&self, mut request: Request<B>) -> Response<Full<Bytes>> {
        let state = &self.state;
        if request.uri().path() != state.path {
            return refuse(StatusCode::NOT_FOUND, &format!("the grid is at {}", state.path));
        }
        let upgrade = match upgrade_response(&request) {
            Ok(response) => response,
            Err(problem) => {
                return refuse(
                    StatusCode::UPGRADE_REQUIRED,
                    &format!("this path takes WebSocket upgrades only: {problem}"),
                );
            }
        };
        if let Err(reason) = check_bearer(state, &request) {
            log_refusal(state, "unauthenticated", &reason);
            return refuse(StatusCode::FORBIDDEN, &reason);
        }
        let Some(slot) = self.slot.clone().or_else(|| UnauthenticatedSlot::acquire(state)) else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many unauthenticated connections");
        };
        let dialed_host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .map(str::to_owned);
        let on_upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(upgraded(Arc::clone(state), on_upgrade, dialed_host, slot));
        upgrade
    }
}

/// Returns the response that accepts an upgrade, or why the request is no valid upgrade.
fn upgrade_response<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, String> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    let response = create_response(&head).map_err(|error| error.to_string())?;
    Ok(response.map(|()| Full::default()))
}

fn check_bearer<B>(state: &ManagerState, request: &Request<B>) -> Result<(), String> {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or("auth token: no bearer token")?;
    state
        .auth
        .check_token(token, state.clock.0.wall())
        .map_err(|error| format!("auth token: {error}"))
}

fn refuse(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{reason}\n")));
    *response.status_mut() = status;
    if status == StatusCode::UPGRADE_REQUIRED {
        let websocket = header::HeaderValue::from_static("websocket");
        response.headers_mut().insert(header::UPGRADE, websocket);
    }
    response
}

/// Completes the handshake over the WebSocket within the handshake timeout, after the upgrade
/// response is sent.
async fn upgraded(
    state: Arc<ManagerState>,
    on_upgrade: OnUpgrade,
    dialed_host: Option<String>,
    slot: Arc<UnauthenticatedSlot>,
) {
    let limit = state.limits.handshake_timeout;
    let handshake = async {
        let io = on_upgrade.await.map_err(|error| error.to_string())?;
        let io = ReadLimited::new(Box::new(TokioIo::new(io)));
        let config = websocket::config(&state.limits);
        let socket = WebSocket::from_raw_socket(io, Role::Server, Some(config)).await;
        accept_handshake(&state, socket, dialed_host.as_deref()).await
    };
    let problem = match timeout(limit, handshake).await {
        Ok(Ok(())) => None,
        Ok(Err(problem)) => Some(problem),
        Err(_) => Some(format!("no Connect within {limit:?}")),
    };
    if let Some(problem) = problem {
        tracing::debug!(target: "grid", error = %problem, "incoming handshake failed");
    }
    drop(slot);
}

/// Receives and checks the dialer's Connect, responds to it, and passes the connection to its
/// remote's task.
async fn accept_handshake(
    state: &ManagerState,
    mut socket: WebSocket,
    dialed_host: Option<&str>,
) -> Result<(), String> {
    let admitted = match websocket::receive_first(&mut socket).await {
        Ok(first) => admit(state, &first, dialed_host),
        Err(error @ FirstMessageError::TooLarge(_)) => {
            return reject(state, socket, error.to_string()).await;
        }
        Err(error) => return Err(error.to_string()),
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err((host, refusal)) => {
            let reason = refusal.to_string();
            log_refusal(state, &host, &reason);
            return reject(state, socket, reason).await;
        }
    };
    let response = ConnectResponse::accepted(state.instance);
    let response = response.encode().map_err(|error| error.to_string())?;
    websocket::send(&mut socket, response).await.map_err(|error| error.to_string())?;
    socket.get_mut().lift_limit();
    let Admitted { permit, dial_seq, instance } = admitted;
    permit.send(AcceptedConnection { socket, instance, dial_seq });
    Ok(())
}

/// A dial that passed all checks, with a permit for the channel to its remote's task.
struct Admitted<'a> {
    permit: mpsc::Permit<'a, AcceptedConnection>,
    dial_seq: u64,
    instance: InstanceId,
}

/// Checks a Connect and reserves its place in the channel to the remote's task.
fn admit<'a>(
    state: &'a ManagerState,
    first: &Bytes,
    dialed_host: Option<&str>,
) -> Result<Admitted<'a>, (String, Refusal)> {
    let now = state.clock.0.wall();
    let acceptor = Acceptor {
        local: &state.local,
        find_remote: &|host| state.find_remote(host),
        check_token: &|token| state.auth.check_token(token, now).map_err(|error| error.to_string()),
        now,
        clock_skew_max: state.limits.clock_skew_max,
        dialed_host,
    };
    let (host, request) =
        acceptor.check(first).map_err(|refusal| ("unknown".to_owned(), refusal))?;
    let with_host = |refusal| (host.to_string(), refusal);
    match state.phase() {
        ManagerPhase::Built => return Err(with_host(Refusal::NotReady)),
        ManagerPhase::Started => {}
        ManagerPhase::ShuttingDown => return Err(with_host(Refusal::Shutdown)),
    }
    let Some(remote) = state.remotes.get(&host) else {
        return Err(with_host(Refusal::UnknownHost { host: host.to_string() }));
    };
    let dial_seq = remote.next_dial_seq.fetch_add(1, Ordering::Relaxed);
    match remote.accepted.try_reserve() {
        Ok(permit) => Ok(Admitted { permit, dial_seq, instance: request.id }),
        Err(mpsc::error::TrySendError::Full(())) => {
            Err(with_host(Refusal::TooMany { host: host.clone() }))
        }
        Err(mpsc::error::TrySendError::Closed(())) => Err(with_host(Refusal::Shutdown)),
    }
}

/// Sends the dialer the reason for the refusal, and closes.
async fn reject(state: &ManagerState, mut socket: WebSocket, reason: String) -> Result<(), String> {
    let response = ConnectResponse::rejected(state.instance, reason.as_str());
    let response = response.encode().map_err(|error| error.to_string())?;
    websocket::send(&mut socket, response).await.map_err(|error| error.to_string())?;
    websocket::close(socket, state.limits.close_timeout).await;
    Err(format!("rejected: {reason}"))
}

/// Logs a refusal at WARN once per remote and hour, not once per attempt (B02).
fn log_refusal(state: &ManagerState, host: &str, reason: &str) {
    if state.log_decision(&format!("refused {host}")).is_log() {
        tracing::warn!(target: "grid", host, reason, "incoming connection refused");
    } else {
        tracing::debug!(target: "grid", host, reason, "incoming connection refused");
    }
}

/// One of the limited slots for unauthenticated sockets; released when dropped.
#[derive(Debug)]
struct UnauthenticatedSlot {
    state: Arc<ManagerState>,
}

impl UnauthenticatedSlot {
    fn acquire(state: &Arc<ManagerState>) -> Option<Arc<Self>> {
        let count: &AtomicUsize = &state.unauthenticated_sockets;
        let max = state.limits.unauthenticated_max;
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < max).then_some(count + 1)
            })
            .ok()
            .map(|_| Arc::new(Self { state: Arc::clone(state) }))
    }
}

impl Drop for UnauthenticatedSlot {
    fn drop(&mut self) {
        let before = self.state.unauthenticated_sockets.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "unauthenticated_sockets was {before} with a slot taken");
    }
}

/// Serves HTTP on a raw socket, with the grid as its only route.
pub(crate) async fn serve_socket(state: Arc<ManagerState>, socket: Box<dyn Socket>) {
    let Some(slot) = UnauthenticatedSlot::acquire(&state) else {
        return; // closed without a response, which would cost too much here
    };
    let service =
        TowerToHyperService::new(GridService { state: Arc::clone(&state), slot: Some(slot) });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.limits.handshake_timeout)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    match timeout(state.limits.handshake_timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(target: "grid", %error, "incoming HTTP connection failed");
        }
        Err(_) => {
            tracing::debug!(target: "grid", "incoming connection sent no request in time");
        }
    }
}
