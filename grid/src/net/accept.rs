//! The accepting end of a handshake, in two forms: [`GridService`] answers upgrade requests beside
//! an application's own routes, and [`Manager::accept`](crate::Manager::accept) takes a raw socket
//! and serves nothing but the grid on it.

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

use super::remote_task::AcceptedConnection;
use super::transport::Socket;
use super::websocket::{self, FirstMessageError, Metered, WebSocket};
use crate::manager_state::{ManagerState, Phase};
use crate::proto::handshake::{Acceptor, ConnectResponse, Refusal};

/// Answers the upgrade requests of other servers: a `tower::Service` for hyper and axum.
///
/// Mount it at [`Manager::path`](crate::Manager::path). The connection that carries the request
/// must be served with upgrades enabled (`axum::serve` does that).
///
/// What is no upgrade is answered with 426, a refused token with 403, another path with 404, and
/// too many sockets that have not proved who they are with 503, each with the reason as its body.
#[derive(Debug, Clone)]
pub struct GridService {
    state: Arc<ManagerState>,
    /// The place of the socket that is served, where it has one already.
    place: Option<Arc<Unauthenticated>>,
}

impl GridService {
    pub(crate) fn new(state: Arc<ManagerState>) -> Self {
        Self { state, place: None }
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
            log_refusal(state, "a token", &reason);
            return refuse(StatusCode::FORBIDDEN, &reason);
        }
        let Some(place) = self.place.clone().or_else(|| Unauthenticated::enter(state)) else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many unauthenticated connections");
        };
        let dialled = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .map(str::to_owned);
        let on_upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(upgraded(Arc::clone(state), on_upgrade, dialled, place));
        upgrade
    }
}

/// The response that agrees to an upgrade, or what keeps the request from being one.
fn upgrade_response<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, String> {
    let mut bare = Request::new(());
    *bare.method_mut() = request.method().clone();
    *bare.version_mut() = request.version();
    *bare.headers_mut() = request.headers().clone();
    let response = create_response(&bare).map_err(|error| error.to_string())?;
    Ok(response.map(|()| Full::default()))
}

fn check_bearer<B>(state: &ManagerState, request: &Request<B>) -> Result<(), String> {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or("auth token: no bearer token")?;
    state.auth
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

/// Once the response is on its way: the WebSocket, within the handshake's time.
async fn upgraded(
    state: Arc<ManagerState>,
    on_upgrade: OnUpgrade,
    dialled: Option<String>,
    place: Arc<Unauthenticated>,
) {
    let limit = state.limits.handshake_timeout;
    let handshake = async {
        let io = on_upgrade.await.map_err(|error| error.to_string())?;
        let io = Metered::new(Box::new(TokioIo::new(io)));
        let config = websocket::config(&state.limits);
        let socket = WebSocket::from_raw_socket(io, Role::Server, Some(config)).await;
        introduce(&state, socket, dialled.as_deref()).await
    };
    let problem = match timeout(limit, handshake).await {
        Ok(Ok(())) => None,
        Ok(Err(problem)) => Some(problem),
        Err(_) => Some(format!("no Connect within {limit:?}")),
    };
    if let Some(problem) = problem {
        tracing::debug!(target: "grid", %problem, "an incoming connection came to nothing");
    }
    drop(place);
}

/// Takes the dialler's Connect, judges it, answers it, and hands the connection to its peer.
async fn introduce(
    state: &ManagerState,
    mut socket: WebSocket,
    dialled: Option<&str>,
) -> Result<(), String> {
    let taken = match websocket::receive_first(&mut socket).await {
        Ok(first) => take(state, &first, dialled),
        Err(error @ FirstMessageError::TooLarge(_)) => {
            return reject(state, socket, error.to_string()).await;
        }
        Err(error) => return Err(error.to_string()),
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err((host, refusal)) => {
            let reason = refusal.to_string();
            log_refusal(state, &host, &reason);
            return reject(state, socket, reason).await;
        }
    };
    let answer = ConnectResponse::accepted(state.instance);
    let answer = answer.encode().map_err(|error| error.to_string())?;
    websocket::send(&mut socket, answer).await.map_err(|error| error.to_string())?;
    socket.get_mut().lift();
    let Taken { permit, order, instance } = taken;
    permit.send(AcceptedConnection { socket, instance, order });
    Ok(())
}

/// A dial that is accepted, with its place in its peer's line.
struct Taken<'a> {
    permit: mpsc::Permit<'a, AcceptedConnection>,
    order: u64,
    instance: crate::proto::handshake::InstanceId,
}

fn take<'a>(
    state: &'a ManagerState,
    first: &Bytes,
    dialled: Option<&str>,
) -> Result<Taken<'a>, (String, Refusal)> {
    let now = state.clock.0.wall();
    let acceptor = Acceptor {
        local: &state.local,
        find_remote: &|host| state.find_remote(host),
        check_token: &|token| state.auth.check_token(token, now).map_err(|error| error.to_string()),
        now,
        clock_skew_max: state.limits.clock_skew_max,
        dialled,
    };
    let (host, request) =
        acceptor.judge(first).map_err(|refusal| ("an unknown host".to_owned(), refusal))?;
    let named = |refusal| (host.to_string(), refusal);
    match state.phase() {
        Phase::Built => return Err(named(Refusal::NotReady)),
        Phase::Started => {}
        Phase::Ending => return Err(named(Refusal::Shutdown)),
    }
    let Some(remote) = state.remotes.get(&host) else {
        return Err(named(Refusal::UnknownHost { host: host.to_string() }));
    };
    let order = remote.next_order.fetch_add(1, Ordering::Relaxed);
    match remote.accepted.try_reserve() {
        Ok(permit) => Ok(Taken { permit, order, instance: request.id }),
        Err(mpsc::error::TrySendError::Full(())) => {
            Err(named(Refusal::TooMany { host: host.clone() }))
        }
        Err(mpsc::error::TrySendError::Closed(())) => Err(named(Refusal::Shutdown)),
    }
}

/// Tells the dialler why not, and closes.
async fn reject(state: &ManagerState, mut socket: WebSocket, reason: String) -> Result<(), String> {
    let answer = ConnectResponse::rejected(state.instance, reason.as_str());
    let answer = answer.encode().map_err(|error| error.to_string())?;
    websocket::send(&mut socket, answer).await.map_err(|error| error.to_string())?;
    websocket::close(socket, state.limits.close_timeout).await;
    Err(format!("rejected: {reason}"))
}

/// Once per remote and hour, not once per attempt (B02).
fn log_refusal(state: &ManagerState, host: &str, reason: &str) {
    if state.log_throttle.allows(&format!("refused {host}"), state.clock.0.now()) {
        tracing::warn!(target: "grid", host, reason, "refused an incoming connection");
    } else {
        tracing::debug!(target: "grid", host, reason, "refused an incoming connection");
    }
}

/// A place among the sockets that have not proved who they are.
#[derive(Debug)]
struct Unauthenticated {
    state: Arc<ManagerState>,
}

impl Unauthenticated {
    fn enter(state: &Arc<ManagerState>) -> Option<Arc<Self>> {
        let count: &AtomicUsize = &state.unauthenticated;
        let max = state.limits.unauthenticated_max;
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < max).then_some(count + 1)
            })
            .ok()
            .map(|_| Arc::new(Self { state: Arc::clone(state) }))
    }
}

impl Drop for Unauthenticated {
    fn drop(&mut self) {
        self.state.unauthenticated.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves HTTP on a raw socket, with the grid as its only route.
pub(crate) async fn serve_socket(state: Arc<ManagerState>, socket: Box<dyn Socket>) {
    let Some(place) = Unauthenticated::enter(&state) else {
        return; // closing it is all the answer that is affordable
    };
    let service =
        TowerToHyperService::new(GridService { state: Arc::clone(&state), place: Some(place) });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.limits.handshake_timeout)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    match timeout(state.limits.handshake_timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(target: "grid", %error, "an incoming connection was no HTTP");
        }
        Err(_) => {
            tracing::debug!(target: "grid", "an incoming connection did not ask for anything");
        }
    }
}
