//! Echo through grid: two managers, one connection, all settings at their defaults.

use std::time::Duration;

use bytes::Bytes;
use grid::{Auth, Connection, HandlerId, Manager, Route};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::load::EchoClient;

const ECHO: HandlerId = HandlerId::new(200);

/// Grace period of the shutdown. No call is outstanding then.
const GRACE: Duration = Duration::from_secs(5);

/// A client's connection to its server.
#[derive(Clone)]
pub(crate) struct GridClient {
    connection: Connection,
    managers: [Manager; 2],
}

impl GridClient {
    /// Starts both managers. Their names determine which one dials, which does not affect the
    /// calls.
    pub(crate) fn connect(server: &Runtime, client: &Runtime) -> Self {
        let (server_listener, server_url) = server.block_on(listen());
        let (client_listener, client_url) = client.block_on(listen());
        let urls = [server_url, client_url];
        let managers = [
            start(server, server_listener, &urls[0], &urls),
            start(client, client_listener, &urls[1], &urls),
        ];
        let connection =
            managers[1].connection(&urls[0]).expect("each is configured with the other");
        client.block_on(connection.wait_connected()).expect("no manager shuts down");
        Self { connection, managers }
    }

    pub(crate) fn shutdown(self, client: &Runtime) {
        for manager in self.managers {
            client.block_on(manager.shutdown(GRACE));
        }
    }
}

impl EchoClient for GridClient {
    const NAME: &'static str = "grid";

    async fn echo(&mut self, payload: Bytes) -> Bytes {
        self.connection.request(ECHO, payload).await.expect("an echo does not fail")
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
    let url = format!("http://{}", listener.local_addr().expect("the listener is bound"));
    (listener, url)
}

fn start(runtime: &Runtime, listener: TcpListener, url: &str, urls: &[String; 2]) -> Manager {
    let auth = Auth::shared_secret(b"the cluster's secret").expect("long enough");
    let manager = Manager::builder(url)
        .servers(urls.clone())
        .auth(auth)
        .build()
        .expect("a valid configuration");
    manager
        .register(Route::new(ECHO).name("Echo"), |_context, payload| async { Ok(payload) })
        .expect("nothing else is registered");
    let _entered = runtime.enter();
    manager.start().expect("inside a runtime");
    runtime.spawn(manager.clone().serve(listener));
    manager
}
