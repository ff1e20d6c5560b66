//! The start of servers, in order, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grid::{Auth, Manager};
use iam_bootstrap::deployment::{Deployment, DeploymentId, DeploymentStore, MemoryDeploymentStore};
use iam_bootstrap::model::UserName;
use iam_bootstrap::store::sealed::Keys;
use iam_bootstrap::{Bootstrap, ClusterLocks, HashKey, Iam, MemoryStore, SystemConfig};
use tokio::net::TcpListener;

const SECRET: &[u8] = b"what all servers know";
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Locks that record whether they are open, and how often that changed.
#[derive(Clone, Default)]
struct RecordedLocks(Arc<Mutex<Vec<Result<(), String>>>>);

impl RecordedLocks {
    fn changes(&self) -> Vec<Result<(), String>> {
        self.0.lock().expect("no panic").clone()
    }
}

impl ClusterLocks for RecordedLocks {
    fn open(&self) {
        self.0.lock().expect("no panic").push(Ok(()));
    }

    fn close(&self, reason: &str) {
        self.0.lock().expect("no panic").push(Err(reason.to_owned()));
    }
}

struct Server {
    bootstrap: Bootstrap,
    locks: RecordedLocks,
    _manager: Manager,
}

/// Starts a server for each list of lockers, with this deployment in its store.
async fn start(servers: &[(&str, Option<u128>)]) -> Vec<Server> {
    let mut listeners = Vec::new();
    for _ in servers {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("bound"));
    let urls: Vec<_> = listeners.iter().map(url).collect();
    let mut started = Vec::new();
    for ((listener, url), (lockers, stored)) in listeners.into_iter().zip(&urls).zip(servers) {
        let manager = Manager::builder(url)
            .servers(&urls)
            .auth(Auth::shared_secret(SECRET).expect("valid length"))
            .build()
            .expect("valid configuration");
        let system = SystemConfig::collect(&HashKey::from_shared_secret(SECRET))
            .endpoints(&urls)
            .arguments([format!("--lockers={lockers}")])
            .finish();
        let store = MemoryDeploymentStore::new();
        if let Some(bits) = stored {
            decide(&store, DeploymentId::from_bits(*bits).expect("not nil")).await;
        }
        let keys = Keys::new(b"the root secret of all servers").expect("long enough");
        let root = UserName::new("root").expect("a valid name");
        let locks = RecordedLocks::default();
        let bootstrap = Bootstrap::builder(&manager, system)
            .deployment(Deployment::builder(&manager, store))
            .iam(Iam::builder(&manager, root, keys).pool(MemoryStore::new("memory")))
            .locks(locks.clone())
            .register()
            .expect("first registration");
        let connected: Result<(), Infallible> = bootstrap.start(|| {
            manager.start().expect("runtime");
            Ok(())
        });
        connected.expect("it cannot fail");
        tokio::spawn(manager.clone().serve(listener));
        started.push(Server { bootstrap, locks, _manager: manager });
    }
    started
}

/// Stores an id, as an earlier process does.
async fn decide(store: &MemoryDeploymentStore, id: DeploymentId) {
    let state = format!(r#"{{"version":1,"decided":"{id}"}}"#);
    store.save(state.into_bytes()).await.expect("memory");
}

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

#[tokio::test]
async fn b65_locks_open_once_when_peers_are_verified_and_the_deployment_is_known() {
    let servers = start(&[("all", None), ("all", None)]).await;
    for server in &servers {
        // On one thread, no task has run yet.
        assert_eq!(server.locks.changes(), [], "nothing is verified yet");
    }
    for server in &servers {
        assert!(server.bootstrap.wait_ready(TEST_TIMEOUT).await);
        assert_eq!(server.locks.changes(), [Ok(())]);
        assert!(server.bootstrap.deployment().is_some());
    }
}

#[tokio::test]
async fn b65_locks_of_a_server_that_is_not_verified_stay_closed() {
    let servers = start(&[("a", None), ("all", None), ("all", None)]).await;
    for server in &servers[1..] {
        assert!(server.bootstrap.wait_ready(TEST_TIMEOUT).await);
    }
    let outlier = &servers[0];
    eventually("it says why it waits", || {
        let status = outlier.bootstrap.status();
        status.phase == "verifying"
            && status.waiting.is_some_and(|waiting| waiting.contains("--lockers is a here"))
    })
    .await;
    assert_eq!(outlier.locks.changes(), []);
}

#[tokio::test]
async fn b65_conflict_closes_the_locks_of_the_minority_alone() {
    let servers = start(&[("all", Some(7)), ("all", Some(8)), ("all", Some(8))]).await;
    let minority = &servers[0];
    eventually("it belongs to the deployment of no other", || {
        matches!(minority.locks.changes().last(), Some(Err(reason)) if reason.contains("belongs to deployment"))
    })
    .await;
    for server in &servers[1..] {
        eventually("the conflict is known", || !server.bootstrap.conflicts().is_empty()).await;
        eventually("its locks are open", || !server.locks.changes().is_empty()).await;
        assert_eq!(server.locks.changes(), [Ok(())]);
    }
}
