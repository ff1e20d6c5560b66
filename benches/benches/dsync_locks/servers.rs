//! Four servers, connected and open.

use dsync::{Dsync, Waiting};
use grid::{Auth, LOCK_GRID_PATH, Manager};
use tokio::net::TcpListener;

const SERVERS: usize = 4;

/// What is measured.
pub(crate) struct Servers {
    pub(crate) dsyncs: Vec<Dsync>,
}

impl Servers {
    pub(crate) async fn start(waiting: Waiting) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..SERVERS {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports"));
        }
        let url = |listener: &TcpListener| {
            format!("http://{}", listener.local_addr().expect("it is bound"))
        };
        let urls: Vec<_> = listeners.iter().map(url).collect();
        let listeners = listeners.into_iter().zip(&urls);
        let start = |(listener, url): (_, &String)| start(listener, url, &urls, waiting);
        let servers = Self { dsyncs: listeners.map(start).collect() };
        // A locker has to hear of all that they hold nothing.
        while !servers.dsyncs.iter().all(Dsync::is_open) {
            tokio::task::yield_now().await;
        }
        servers
    }
}

fn start(listener: TcpListener, url: &str, urls: &[String], waiting: Waiting) -> Dsync {
    let auth = Auth::shared_secret(b"what all servers know").expect("long enough");
    let builder = Manager::builder(url).servers(urls).auth(auth).path(LOCK_GRID_PATH);
    let manager = builder.build().expect("four servers");
    let dsync = Dsync::builder(&manager).waiting(waiting).build().expect("all are lockers");
    manager.start().expect("in a runtime");
    dsync.start();
    tokio::spawn(manager.serve(listener));
    dsync
}
