//! Servers in this process, on loopback sockets, each with a pool of its own.

use std::sync::Arc;
use std::time::Duration;

use grid::env::Env;
use grid::{Auth, Manager, Name};
use iam_bootstrap::model::{Secret, User, UserName};
use iam_bootstrap::snapshot::{ContentHash, Item, ItemKey};
use iam_bootstrap::store::sealed::Keys;
use iam_bootstrap::store::{MemoryStore, Sealed};
use iam_bootstrap::{Iam, Phase};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const SECRET: &[u8] = b"the servers' shared secret";

/// Longer than any test: repairs must not depend on the interval.
pub(crate) const NEVER: Duration = Duration::from_secs(86_400);

pub(crate) struct Server {
    pub(crate) manager: Manager,
    pub(crate) iam: Iam,
    serving: JoinHandle<()>,
}

pub(crate) struct Cluster {
    pub(crate) servers: Vec<Option<Server>>,
    pub(crate) pools: Vec<MemoryStore>,
    urls: Vec<String>,
    refresh: Duration,
    admission: Admission,
}

pub(crate) fn keys() -> Keys {
    Keys::new(SECRET).expect("valid length")
}

/// Admission filter: the server (by URL) and the peer; an error refuses the peer.
type Admission = Arc<dyn Fn(&str, &Name) -> Result<(), String> + Send + Sync>;

fn build(
    url: &str,
    urls: &[String],
    pool: &MemoryStore,
    (refresh, admission): (Duration, &Admission),
) -> (Manager, Iam) {
    let (own, admission) = (url.to_owned(), Arc::clone(admission));
    let manager = Manager::builder(url)
        .servers(urls)
        .auth(Auth::shared_secret(SECRET).expect("valid length"))
        .build()
        .expect("valid configuration");
    let root = UserName::new("root").expect("valid name");
    let iam = Iam::builder(&manager, root, keys())
        .pool(Sealed::new(pool.clone(), keys(), &Env::system()))
        .refresh_interval(refresh)
        .admission(move |peer| admission(&own, peer))
        .build()
        .expect("IAM builds");
    (manager, iam)
}

impl Cluster {
    /// Returns connected servers, none of which has started to load its replica.
    pub(crate) async fn connected(count: usize, refresh: Duration) -> Self {
        Self::connected_with(count, refresh, Arc::new(|_, _| Ok(()))).await
    }

    async fn connected_with(count: usize, refresh: Duration, admission: Admission) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("port bound"));
        }
        let url = |listener: &TcpListener| {
            format!("http://{}", listener.local_addr().expect("listener address"))
        };
        let urls: Vec<_> = listeners.iter().map(url).collect();
        let pools: Vec<_> =
            (0..count).map(|number| MemoryStore::new(&format!("pool-{number}"))).collect();
        let mut servers = Vec::new();
        for ((listener, url), pool) in listeners.into_iter().zip(&urls).zip(&pools) {
            let (manager, iam) = build(url, &urls, pool, (refresh, &admission));
            manager.start().expect("runtime");
            let serving = tokio::spawn(manager.clone().serve(listener));
            servers.push(Some(Server { manager, iam, serving }));
        }
        let cluster = Self { servers, pools, urls, refresh, admission };
        for server in 0..count {
            cluster.wait_connected(server).await;
        }
        cluster
    }

    /// Returns servers that are ready.
    pub(crate) async fn ready(count: usize, refresh: Duration) -> Self {
        Self::ready_with(count, refresh, |_, _| Ok(())).await
    }

    /// Returns servers that are ready and use this admission filter.
    pub(crate) async fn ready_with(
        count: usize,
        refresh: Duration,
        admission: impl Fn(&str, &Name) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let cluster = Self::connected_with(count, refresh, Arc::new(admission)).await;
        for server in 0..count {
            cluster.iam(server).start();
            cluster.wait_ready(server).await;
        }
        cluster
    }

    async fn wait_connected(&self, server: usize) {
        let server = self.servers[server].as_ref().expect("server is running");
        for (index, url) in self.urls.iter().enumerate() {
            if let Some(peer) = server.manager.connection(url)
                && self.servers[index].is_some()
            {
                let connected = tokio::time::timeout(TEST_TIMEOUT, peer.wait_connected()).await;
                connected.expect("before the timeout").expect("not shut down");
            }
        }
    }

    pub(crate) async fn wait_ready(&self, server: usize) {
        let ready = tokio::time::timeout(TEST_TIMEOUT, self.iam(server).ready()).await;
        ready.expect("before the timeout").expect("loaded");
        assert_eq!(self.iam(server).phase(), Phase::Ready);
    }

    pub(crate) fn iam(&self, server: usize) -> &Iam {
        &self.servers[server].as_ref().expect("server is running").iam
    }

    pub(crate) fn url(&self, server: usize) -> &str {
        &self.urls[server]
    }

    /// Shuts a server down, as far as its peers can see.
    pub(crate) async fn kill(&mut self, server: usize) {
        let gone = self.servers[server].take().expect("server is running");
        gone.serving.abort();
        gone.manager.shutdown(Duration::ZERO).await;
    }

    /// Restarts a server with the same pool; connected to all peers, but not loading yet.
    pub(crate) async fn restart(&mut self, server: usize) {
        let url = &self.urls[server];
        let (manager, iam) =
            build(url, &self.urls, &self.pools[server], (self.refresh, &self.admission));
        manager.start().expect("runtime");
        let address = url.trim_start_matches("http://");
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let serving = tokio::spawn(manager.clone().serve(listener));
        self.servers[server] = Some(Server { manager, iam, serving });
        self.wait_connected(server).await;
    }

    pub(crate) fn hashes(&self) -> Vec<Option<ContentHash>> {
        let running = self.servers.iter().flatten();
        running.map(|server| server.iam.snapshot().map(|all| all.content_hash())).collect()
    }

    /// Waits until all running servers have the same items.
    pub(crate) async fn wait_converged(&self) {
        eventually("all replicas are equal", || {
            let hashes = self.hashes();
            hashes.iter().all(|hash| hash.is_some() && *hash == hashes[0])
        })
        .await;
    }

    pub(crate) fn has_user(&self, server: usize, user: &str) -> bool {
        self.iam(server).snapshot().expect("loaded").user(user).is_some()
    }
}

pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, wait)
        .await
        .unwrap_or_else(|_| panic!("not reached: {what}"));
}

pub(crate) fn user(name: &str) -> Item {
    let secret = Secret::new(&format!("secret of {name}")).expect("valid length");
    Item::User(User::new(UserName::new(name).expect("valid name"), secret))
}

pub(crate) fn key(name: &str) -> ItemKey {
    ItemKey::User(UserName::new(name).expect("valid name"))
}
