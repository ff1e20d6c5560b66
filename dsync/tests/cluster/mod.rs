//! A cluster of servers in this process, over loopback sockets.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::time::Duration;

use dsync::{DRWMutex, Dsync, Limits, LockOptions};
use grid::{Auth, LOCK_GRID_PATH, Manager};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) struct Server {
    pub(crate) manager: Manager,
    pub(crate) dsync: Dsync,
    serve_task: JoinHandle<()>,
}

pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    pub(crate) urls: Vec<String>,
}

/// Timeout of operations that complete quickly on one machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

impl Server {
    pub(crate) fn mutex(&self, name: &str) -> DRWMutex {
        DRWMutex::new(&self.dsync, [name])
    }

    /// Stops the server as a crash would: nothing is sent for its locks.
    pub(crate) async fn kill(self) {
        self.serve_task.abort();
        self.manager.shutdown(Duration::ZERO).await;
    }
}

async fn start(
    listener: TcpListener,
    url: &str,
    urls: &[String],
    lockers: &[usize],
    limits: &Limits,
) -> Server {
    let manager = Manager::builder(url)
        .servers(urls)
        .auth(Auth::shared_secret(b"what all servers know").expect("long enough"))
        .path(LOCK_GRID_PATH)
        .build()
        .expect("a valid configuration");
    let dsync = Dsync::builder(&manager)
        .lockers(lockers.iter().map(|locker| urls[*locker].clone()))
        .limits(limits.clone())
        .build()
        .expect("valid lockers");
    manager.start().expect("a runtime");
    dsync.start();
    dsync.open();
    let serve_task = tokio::spawn(manager.clone().serve(listener));
    Server { manager, dsync, serve_task }
}

impl Cluster {
    pub(crate) async fn start(servers: usize, limits: &Limits) -> Self {
        Self::start_with_lockers(servers, servers, limits).await
    }

    /// Starts `servers` servers, the first `lockers` of which are lockers.
    pub(crate) async fn start_with_lockers(
        servers: usize,
        lockers: usize,
        limits: &Limits,
    ) -> Self {
        let list: Vec<_> = (0..lockers).collect();
        let cluster = Self::start_with_lists(&vec![&list[..]; servers], limits).await;
        cluster.wait_open().await;
        cluster
    }

    /// Starts a server for each list of lockers, and does not wait until they agree.
    pub(crate) async fn start_with_lists(lists: &[&[usize]], limits: &Limits) -> Self {
        let mut listeners = Vec::new();
        for _ in lists {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        }
        let url =
            |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("bound"));
        let urls: Vec<_> = listeners.iter().map(url).collect();
        let mut servers = Vec::new();
        for ((listener, url), list) in listeners.into_iter().zip(&urls).zip(lists) {
            servers.push(start(listener, url, &urls, list, limits).await);
        }
        Self { servers, urls }
    }

    /// Ends a server as a crash would, and starts it again with this list of lockers.
    pub(crate) async fn restart(&mut self, server: usize, list: &[usize], limits: &Limits) {
        let url = self.urls[server].clone();
        let address = url.strip_prefix("http://").expect("a URL");
        let stopped = self.servers.remove(server);
        stopped.kill().await;
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        let started = start(listener, &url, &self.urls, list, limits).await;
        self.servers.insert(server, started);
    }

    pub(crate) async fn wait_open(&self) {
        eventually("every locker is open", || self.servers.iter().all(|s| s.dsync.is_open())).await;
    }

    pub(crate) fn mutex(&self, server: usize, name: &str) -> DRWMutex {
        self.servers[server].mutex(name)
    }
}

/// Waits for a condition.
pub(crate) async fn eventually(state: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("not reached: {state}"));
}

pub(crate) fn within(millis: u64) -> LockOptions {
    LockOptions::default().timeout(Duration::from_millis(millis))
}
