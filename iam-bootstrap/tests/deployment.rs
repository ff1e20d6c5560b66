//! Deployments over real sockets: cold starts, late servers, restarts, failing stores, and servers
//! of two clusters in one list.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grid::{Auth, CallError, Manager, TypedCallError};
use iam_bootstrap::deployment::proto::{Ballot, PaxosRequest, PaxosResponse, Vote};
use iam_bootstrap::deployment::wire::{self, DEPLOYMENT, DeploymentArgs, DeploymentResponse};
use iam_bootstrap::deployment::{
    AgreeError, Conflict, Deployment, DeploymentId, DeploymentStore, DeploymentStoreError,
    DeploymentStoreFuture, MemoryDeploymentStore, StartError, Timing,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::subscriber::DefaultGuard;

/// Long enough for every expected event on one machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

type Store = Arc<MemoryDeploymentStore>;

struct Server {
    manager: Manager,
    deployment: Deployment,
    serving: JoinHandle<()>,
}

impl Server {
    fn start(listener: TcpListener, urls: &[String], store: impl DeploymentStore) -> Self {
        let manager = manager(&url(&listener), urls);
        let deployment = Deployment::builder(&manager, store)
            .timing(short_timing())
            .start()
            .expect("deployment starts");
        manager.start().expect("runtime");
        let serving = tokio::spawn(manager.clone().serve(listener));
        Self { manager, deployment, serving }
    }

    async fn agree(&self) -> Result<DeploymentId, AgreeError> {
        in_time(self.deployment.agree()).await
    }

    fn name(&self) -> &str {
        self.manager.local().as_str()
    }

    /// Shuts the server down and frees its port.
    async fn kill(self) {
        self.serving.abort();
        let _ = self.serving.await;
        self.manager.shutdown(Duration::ZERO).await;
    }
}

fn manager(url: &str, urls: &[String]) -> Manager {
    Manager::builder(url)
        .servers(urls)
        .auth(Auth::shared_secret(b"the servers' shared secret").expect("valid length"))
        .build()
        .expect("valid configuration")
}

/// Short waits that suit one machine. Tests wait for conditions, never for a time.
fn short_timing() -> Timing {
    Timing {
        attempt_timeout: Duration::from_secs(1),
        retry_first: Duration::from_millis(10),
        retry_max: Duration::from_millis(200),
        ..Timing::default()
    }
}

fn url(listener: &TcpListener) -> String {
    format!("http://{}", listener.local_addr().expect("listener address"))
}

async fn listeners(count: usize) -> (Vec<TcpListener>, Vec<String>) {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("port bound"));
    }
    let urls = listeners.iter().map(url).collect();
    (listeners, urls)
}

fn stores(count: usize) -> Vec<Store> {
    (0..count).map(|_| Store::default()).collect()
}

/// Starts a cluster with these stores.
async fn cluster(stores: &[Store]) -> Vec<Server> {
    let (listeners, urls) = listeners(stores.len()).await;
    let start = |(listener, store): (_, &Store)| Server::start(listener, &urls, store.clone());
    listeners.into_iter().zip(stores).map(start).collect()
}

/// Returns the one id that all servers agree on.
async fn agreed(servers: &[Server]) -> DeploymentId {
    let mut ids = Vec::new();
    for server in servers {
        ids.push(server.agree().await.expect("agreement succeeds"));
        assert_eq!(server.deployment.cell().get(), ids.last().copied());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids[0]
}

async fn kill_all(servers: Vec<Server>) {
    for server in servers {
        server.kill().await;
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, future).await.expect("completes before the timeout")
}

/// Waits for a condition.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, wait)
        .await
        .unwrap_or_else(|_| panic!("not reached: {what}"));
}

/// Returns the stores of a cluster that has agreed.
async fn stores_of_a_cluster(count: usize) -> (Vec<Store>, DeploymentId) {
    let stores = stores(count);
    let servers = cluster(&stores).await;
    let id = agreed(&servers).await;
    kill_all(servers).await;
    (stores, id)
}

// ---- agreement ----

#[tokio::test]
async fn b63_cold_start_of_four_agrees_on_one_id_and_a_restart_loads_it() {
    let stores = stores(4);
    let servers = cluster(&stores).await;
    assert_eq!(servers[0].deployment.cell().get(), None, "id is still unknown");
    let id = agreed(&servers).await;
    kill_all(servers).await;
    // On other ports, and with no known server reachable: it needs no request.
    let (mut listeners, urls) = listeners(4).await;
    let server = Server::start(listeners.remove(0), &urls, stores[2].clone());
    assert_eq!(server.agree().await, Ok(id));
    server.kill().await;
}

#[tokio::test]
async fn b63_late_server_adopts_the_decided_id() {
    let stores = stores(4);
    let (mut listeners, urls) = listeners(4).await;
    let late = listeners.pop().expect("four servers");
    let start = |(listener, store): (_, &Store)| Server::start(listener, &urls, store.clone());
    let mut servers: Vec<_> = listeners.into_iter().zip(&stores).map(start).collect();
    let id = agreed(&servers).await;
    servers.push(start((late, &stores[3])));
    assert_eq!(agreed(&servers).await, id);
    kill_all(servers).await;
}

#[tokio::test]
async fn b63_passive_server_receives_the_announced_id() {
    let servers = cluster(&stores(3)).await;
    let id = servers[0].agree().await.expect("majority responds");
    let is_known = |server: &Server| server.deployment.cell().get() == Some(id);
    eventually("all servers know the id", || servers.iter().all(is_known)).await;
    kill_all(servers).await;
}

#[tokio::test]
async fn b63_single_server_decides_and_half_a_cluster_does_not() {
    let servers = cluster(&stores(1)).await;
    agreed(&servers).await;
    kill_all(servers).await;

    let (mut listeners, urls) = listeners(2).await;
    let other = listeners.pop().expect("two listeners");
    let store = Store::default();
    let half = Server::start(listeners.remove(0), &urls, store.clone());
    let mut agreeing = Box::pin(half.deployment.agree());
    // Its own promise is on disk, so the attempt has begun; there is no majority to continue with.
    in_time(async {
        loop {
            tokio::select! {
                biased;
                id = &mut agreeing => panic!("half of the servers decided on {id:?}"),
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
            if store.load().await.expect("in memory").is_some() {
                return;
            }
        }
    })
    .await;
    assert_eq!(half.deployment.cell().get(), None);
    let other = Server::start(other, &urls, Store::default());
    let id = in_time(agreeing).await.expect("majority is available");
    assert_eq!(other.agree().await, Ok(id));
    kill_all(vec![half, other]).await;
}

#[tokio::test]
async fn b63_dropped_attempt_can_be_repeated_and_concurrent_ones_agree() {
    let servers = cluster(&stores(3)).await;
    let _ = tokio::time::timeout(Duration::from_millis(5), servers[0].deployment.agree()).await;
    let both = async { tokio::join!(servers[0].agree(), servers[0].agree()) };
    let (one, two) = both.await;
    assert!(one.is_ok() && one == two, "{one:?} {two:?}");
    kill_all(servers).await;
}

#[tokio::test]
async fn agreement_ends_when_the_manager_is_shut_down() {
    let (mut listeners, urls) = listeners(3).await;
    let server = Server::start(listeners.remove(0), &urls, Store::default());
    let (end, ()) = in_time(async {
        tokio::join!(server.deployment.agree(), server.manager.shutdown(Duration::ZERO))
    })
    .await;
    assert_eq!(end, Err(AgreeError::ShuttingDown));
}

// ---- failing stores ----

/// A store that is unavailable until its flags are cleared.
#[derive(Default)]
struct Faulty {
    store: MemoryDeploymentStore,
    fails_to_load: AtomicBool,
    fails_to_save: AtomicBool,
}

impl Faulty {
    fn check(flag: &AtomicBool) -> Result<(), DeploymentStoreError> {
        if flag.load(Ordering::Relaxed) {
            return Err(DeploymentStoreError::Unavailable { cause: "unplugged".into() });
        }
        Ok(())
    }
}

impl DeploymentStore for Faulty {
    fn load(&self) -> DeploymentStoreFuture<'_, Option<Vec<u8>>> {
        Box::pin(async {
            Self::check(&self.fails_to_load)?;
            self.store.load().await
        })
    }

    fn save(&self, state: Vec<u8>) -> DeploymentStoreFuture<'_, ()> {
        Box::pin(async {
            Self::check(&self.fails_to_save)?;
            self.store.save(state).await
        })
    }
}

#[tokio::test]
async fn b63_no_promise_before_the_store_is_readable_and_writable() {
    let store = Arc::new(Faulty::default());
    store.fails_to_load.store(true, Ordering::Relaxed);
    store.fails_to_save.store(true, Ordering::Relaxed);
    let (mut listeners, urls) = listeners(2).await;
    let caller = manager(&urls[1], &urls);
    caller.start().expect("runtime");
    tokio::spawn(caller.clone().serve(listeners.pop().expect("two listeners")));
    let server = Server::start(listeners.remove(0), &urls, store.clone());
    let connection = caller.connection(server.name()).expect("known server");
    in_time(connection.wait_connected()).await.expect("connection succeeds");
    let ballot = Ballot { round: 1, node: urls[1].as_str().into() };
    let args = DeploymentArgs::of(&PaxosRequest::Prepare { ballot }, members(&urls));
    let request_kind = || DEPLOYMENT.call(&connection, &args);

    let mut waiting = Box::pin(request_kind());
    tokio::select! {
        biased;
        response = &mut waiting => panic!("responded before the store was loaded: {response:?}"),
        () = tokio::time::sleep(Duration::from_millis(20)) => {}
    }
    store.fails_to_load.store(false, Ordering::Relaxed);
    let error = in_time(waiting).await.expect_err("save fails");
    assert!(error.to_string().contains("unplugged"), "{error}");
    assert_eq!(store.load().await, Ok(None));
    store.fails_to_save.store(false, Ordering::Relaxed);
    let response = in_time(request_kind()).await.expect("save succeeds");
    assert_eq!(response.response_kind, wire::RESPONSE_PROMISED);
    assert_ne!(store.load().await, Ok(None));
    server.kill().await;
    caller.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn b63_corrupt_store_is_a_permanent_error_and_not_treated_as_empty() {
    let store = Store::default();
    store.save(b"{\"version\":1,\"promi".to_vec()).await.expect("in memory");
    let servers = cluster(std::slice::from_ref(&store)).await;
    let error = servers[0].agree().await.expect_err("corrupt store is an error");
    assert!(matches!(error, AgreeError::Store(DeploymentStoreError::Corrupt { .. })), "{error}");
    assert!(error.to_string().contains("restore it"), "{error}");
    assert_eq!(servers[0].deployment.cell().get(), None);
    kill_all(servers).await;
}

// ---- two deployments in one list ----

/// Captured log output.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Captures the log of this thread from now on.
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines_with(&self, text: &str) -> usize {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

fn members(urls: &[String]) -> u64 {
    let mut names: Vec<_> = urls.iter().map(String::as_str).collect();
    names.sort_unstable();
    wire::members(names)
}

#[tokio::test]
async fn b63_servers_of_two_deployments_refuse_each_other_and_log_it_once() {
    let (mut stores, ours) = stores_of_a_cluster(2).await;
    let (foreign_stores, theirs) = stores_of_a_cluster(2).await;
    stores.extend(foreign_stores);
    let (log, _guard) = Log::begin();
    let (listeners, urls) = listeners(4).await;
    let start = |(listener, store): (_, &Store)| Server::start(listener, &urls, store.clone());
    let mut servers: Vec<_> = listeners.into_iter().zip(&stores).map(start).collect();
    for (server, id) in servers.iter().zip([ours, ours, theirs, theirs]) {
        assert_eq!(server.agree().await, Ok(id), "each server keeps its own id");
    }
    let is_found = |server: &Server| server.deployment.conflicts().len() == 2;
    eventually("each server found two conflicts", || servers.iter().all(is_found)).await;
    for (index, server) in servers.iter().enumerate() {
        let (own, other) = if index < 2 { (ours, theirs) } else { (theirs, ours) };
        for (peer_index, peer) in servers.iter().enumerate().filter(|(at, _)| *at != index) {
            let checked = server.deployment.check(peer.name());
            if (peer_index < 2) == (index < 2) {
                assert_eq!(checked, Ok(()));
                continue;
            }
            let peer = peer.manager.local().clone();
            assert_eq!(checked, Err(Conflict { ours: own, theirs: other, peer }));
        }
    }

    // The refusal on the wire.
    let connection = servers[0].manager.connection(&urls[3]).expect("known server");
    let learn = PaxosRequest::Learn { id: ours };
    let args = DeploymentArgs::of(&learn, 0);
    let response = in_time(DEPLOYMENT.call(&connection, &args)).await.expect("response");
    assert_eq!(response.response_kind, wire::RESPONSE_CONFLICT);
    assert_eq!(response.to_response(&learn), Ok(PaxosResponse::Conflict { ours: theirs }));

    // A restart adds only its own lines: conflicts are logged once per process, however often the
    // servers reconnect.
    let line = "belongs to deployment";
    let other = servers.pop().expect("four servers");
    let name = other.manager.local().clone();
    let address = name.as_str().strip_prefix("http://").expect("base URL").to_owned();
    other.kill().await;
    let listener = TcpListener::bind(&address).await.expect("port is free again");
    servers.push(start((listener, &stores[3])));
    eventually("conflicts are found again", || is_found(&servers[3])).await;
    assert_eq!(log.lines_with(line), 8 + 2, "eight lines, and two of the restarted process");

    // Its disk is replaced: it adopts the first id that it receives, and servers with that id
    // accept it.
    servers.pop().expect("four servers").kill().await;
    stores[3] = Store::default();
    let listener = TcpListener::bind(&address).await.expect("port is free again");
    servers.push(start((listener, &stores[3])));
    let adopted = servers[3].agree().await.expect("an id is adopted");
    let own_servers = if adopted == ours { 0..2 } else { 2..3 };
    let is_accepted =
        || own_servers.clone().all(|at| servers[at].deployment.check(name.as_str()).is_ok());
    eventually("servers with the same id accept it", is_accepted).await;
    kill_all(servers).await;
}

// ---- wire ----

#[tokio::test]
async fn refused_requests_state_the_reason() {
    let (mut listeners, urls) = listeners(2).await;
    let client = manager(&urls[1], &urls);
    client.start().expect("runtime");
    tokio::spawn(client.clone().serve(listeners.pop().expect("two listeners")));
    let host = manager(&urls[0], &urls);
    let deployment = Deployment::builder(&host, Store::default())
        .servers([urls[0].as_str()])
        .start()
        .expect("single-server deployment starts");
    host.start().expect("runtime");
    tokio::spawn(host.clone().serve(listeners.pop().expect("one")));
    let connection = client.connection(&urls[0]).expect("known server");
    in_time(connection.wait_connected()).await.expect("connection succeeds");
    let args = DeploymentArgs::of(&PaxosRequest::Learn { id: DeploymentId::from_random(1) }, 0);
    let error =
        in_time(DEPLOYMENT.call(&connection, &args)).await.expect_err("a client is refused");
    assert!(error.to_string().contains("not one of the servers"), "{error}");
    assert!(in_time(deployment.agree()).await.is_ok(), "single server decides");

    // Between servers: differing lists, the ballot of another server, and malformed requests.
    let duplicate = Deployment::builder(&host, Store::default())
        .start()
        .expect_err("handler is already registered");
    assert!(matches!(duplicate, StartError::Register(_)), "{duplicate}");
    let servers = cluster(&stores(2)).await;
    let connection = servers[0].manager.connection(servers[1].name()).expect("known server");
    in_time(connection.wait_connected()).await.expect("connection succeeds");
    let urls: Vec<_> = servers.iter().map(|server| server.name().to_owned()).collect();
    let prepare = |node: &str, members| {
        let ballot = Ballot { round: 1, node: node.into() };
        DeploymentArgs::of(&PaxosRequest::Prepare { ballot }, members)
    };
    for (args, text) in [
        (prepare(&urls[0], members(&urls[1..])), "lists of servers differ"),
        (prepare(&urls[1], members(&urls)), "ballot of another server"),
        (DeploymentArgs { request_kind: 9, ..DeploymentArgs::default() }, "no question 9"),
        (DeploymentArgs { request_kind: 2, ..DeploymentArgs::default() }, "is missing"),
    ] {
        let error = in_time(DEPLOYMENT.call(&connection, &args)).await.expect_err(text);
        let TypedCallError::Call(CallError::Remote { message, .. }) = &error else {
            panic!("{error}");
        };
        assert!(message.contains(text), "{message}");
    }
    kill_all(servers).await;
    host.shutdown(Duration::ZERO).await;
    client.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn invalid_configuration_is_reported_before_anything_starts() {
    let urls = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
    let manager = manager(&urls[0], &urls);
    let builder = || Deployment::builder(&manager, Store::default());
    let no_wait = Timing { retry_first: Duration::ZERO, ..Timing::default() };
    for (builder, text) in [
        (builder().servers(["http://127.0.0.1:3"]), "one of those that the manager knows"),
        (builder().servers([&urls[1]]), "must be among the servers of the deployment"),
        (builder().servers(["nonsense"]), "malformed"),
        (builder().timing(no_wait), "retry_first must be more than zero"),
    ] {
        let error = builder.start().expect_err(text);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn requests_and_responses_are_extensible_maps() {
    let encode = |value: &DeploymentArgs| rmp_serde::to_vec_named(value).expect("encodes");
    let id: DeploymentId = "00112233-4455-4677-8899-aabbccddeeff".parse().expect("valid UUID");
    let learn = DeploymentArgs::of(&PaxosRequest::Learn { id }, 7);
    let bytes = b"\x82\xa3Ask\x03\xa2ID\xd9\x2400112233-4455-4677-8899-aabbccddeeff";
    assert_eq!(encode(&learn), bytes);
    let ballot = Ballot { round: 5, node: "n".into() };
    let prepare = DeploymentArgs::of(&PaxosRequest::Prepare { ballot: ballot.clone() }, 7);
    let bytes = b"\x83\xa3Ask\x01\xa6Ballot\x82\xa5Round\x05\xa4Node\xa1n\xa7Members\x07";
    assert_eq!(encode(&prepare), bytes);
    let more = [b"\x84\xa4More\x81\xa1x\x92\x01\xc3", &bytes[1..]].concat();
    let read: DeploymentArgs = rmp_serde::from_slice(&more).expect("unknown keys are skipped");
    assert_eq!(read, prepare);

    let vote = Vote { ballot: ballot.clone(), id };
    let prepare = PaxosRequest::Prepare { ballot: ballot.clone() };
    let accept = PaxosRequest::Accept(vote.clone());
    let learn = PaxosRequest::Learn { id };
    for (request, response) in [
        (&prepare, PaxosResponse::Promised { ballot: ballot.clone(), accepted: None }),
        (&prepare, PaxosResponse::Promised { ballot: ballot.clone(), accepted: Some(vote) }),
        (&accept, PaxosResponse::Accepted),
        (&accept, PaxosResponse::Refused { promised: ballot }),
        (&learn, PaxosResponse::Decided { id }),
        (&learn, PaxosResponse::Conflict { ours: id }),
    ] {
        assert_eq!(DeploymentArgs::of(request, 7).to_request().as_ref(), Ok(request));
        let bytes = rmp_serde::to_vec_named(&DeploymentResponse::of(&response)).expect("encodes");
        let read: DeploymentResponse = rmp_serde::from_slice(&bytes).expect("decodes");
        assert_eq!(read.to_response(request), Ok(response));
    }
    assert!(
        DeploymentResponse::default().to_response(&accept).is_err(),
        "empty response is malformed"
    );
    let promise = DeploymentResponse {
        response_kind: wire::RESPONSE_PROMISED,
        ..DeploymentResponse::default()
    };
    assert!(promise.to_response(&accept).is_err(), "response kind does not match the request");
}
