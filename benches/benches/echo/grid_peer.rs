//! An echo through grid: two managers, one connection, everything as it is by default.

use std::time::Duration;

use bytes::Bytes;
use grid::{Auth, Connection, HandlerId, Manager, Route};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::load::Peer;

const ECHO: HandlerId = HandlerId::new(200);

/// Nothing is under way when it ends.
const GRACE: Duration = Duration::from_secs(5);

/// A client's connection to its server.
#[derive(Clone)]
pub(crate) struct GridPeer {
    connection: Connection,
    managers: [Manager; 2],
}

impl GridPeer {
    /// Which of the two dials is decided by their names; it makes no difference afterwards.
    pub(crate) fn connect(server: &Runtime, client: &Runtime) -> Self {
        let (server_listener, server_url) = server.block_on(listen());
        let (client_listener, client_url) = client.block_on(listen());
        let urls = [server_url, client_url];
        let managers = [
            start(server, server_listener, &urls[0], &urls),
            start(client, client_listener, &urls[1], &urls),
        ];
        let connection = managers[1].connection(&urls[0]).expect("both know each other");
        client.block_on(connection.wait_connected()).expect("nobody shuts down");
        Self { connection, managers }
    }

    pub(crate) fn shutdown(self, client: &Runtime) {
        for manager in self.managers {
            client.block_on(manager.shutdown(GRACE));
        }
    }
}

impl Peer for GridPeer {
    const NAME: &'static str = "grid";

    async fn echo(&mut self, payload: Bytes) -> Bytes {
        self.connection.request(ECHO, payload).await.expect("an echo does not fail")
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    (listener, url)
}

fn start(runtime: &Runtime, listener: TcpListener, url: &str, urls: &[String; 2]) -> Manager {
    let auth = Auth::shared_secret(b"what all servers know").expect("long enough");
    let manager =
        Manager::builder(url).servers(urls.clone()).auth(auth).build().expect("two servers");
    manager
        .register(Route::new(ECHO).name("Echo"), |_context, payload| async { Ok(payload) })
        .expect("nothing else is registered");
    let _inside = runtime.enter();
    manager.start().expect("in a runtime");
    runtime.spawn(manager.clone().serve(listener));
    manager
}
