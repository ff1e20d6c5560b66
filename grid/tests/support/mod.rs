//! Helpers for tests over real sockets: `Server`, `ScriptedPeer`, `eventually`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod live;
pub mod scripted_cluster;
pub mod streams;

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use grid::proto::handshake::{ConnectRequest, ConnectResponse, Dialer, InstanceId};
use grid::proto::message::{Checksum, Header, Message, Outgoing, parse_frame};
use grid::time::Timestamp;
use grid::{Auth, Connection, GRID_PATH, HandlerId, Limits, Manager, ManagerBuilder, Name, Route};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// The shared secret of all test servers.
pub const SECRET: &[u8] = b"shared by all servers";

/// A handler that returns its payload.
pub const ECHO: HandlerId = HandlerId::new(200);

/// A handler that never responds.
pub const STUCK: HandlerId = HandlerId::new(201);

/// How long a test waits for an event that must happen before it fails. Not a measurement.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Waits for `future`, at most [`WAIT_MAX`].
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(WAIT_MAX, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {WAIT_MAX:?}"),
    }
}

/// A loopback address that is reserved for a server by its open listener.
pub struct ReservedAddress {
    pub listener: TcpListener,
    pub url: String,
}

impl ReservedAddress {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        Self { listener, url }
    }

    /// Reserves an address for which [`Dialer::between`] this one and `other` is `dialer`.
    pub async fn dialed_by(dialer: Dialer, other: &str) -> Self {
        loop {
            let address = Self::new().await;
            let (own, other) = (name(&address.url), name(other));
            if Dialer::between(&own, &other) == dialer {
                return address;
            }
        }
    }
}

pub fn name(url: &str) -> Name {
    url.parse().expect("a base URL")
}

pub fn auth() -> Auth {
    Auth::shared_secret(SECRET).expect("long enough")
}

/// A manager with a real listener.
pub struct Server {
    pub manager: Manager,
    pub url: String,
}

impl Server {
    /// Starts a server at `address`, in a cluster of `urls`.
    pub fn start(address: ReservedAddress, urls: &[String], limits: Limits) -> Self {
        Self::start_as(address, urls, |builder| builder.limits(limits))
    }

    /// Starts a server with the builder that `configure` returns.
    pub fn start_as(
        address: ReservedAddress,
        urls: &[String],
        configure: impl FnOnce(ManagerBuilder) -> ManagerBuilder,
    ) -> Self {
        let ReservedAddress { listener, url } = address;
        let builder = Manager::builder(&url).servers(urls.to_vec()).auth(auth());
        let manager = configure(builder).build().expect("valid configuration");
        manager
            .register(Route::new(ECHO).name("Echo"), |_, payload: Bytes| async move { Ok(payload) })
            .expect("free");
        manager
            .register(Route::new(STUCK).name("Stuck"), |_, _| std::future::pending())
            .expect("free");
        manager.start().expect("in a runtime");
        tokio::spawn(manager.clone().serve(listener));
        Self { manager, url }
    }

    /// Starts a cluster of `count` servers.
    pub async fn cluster(count: usize, limits: &Limits) -> Vec<Self> {
        let mut addresses = Vec::new();
        for _ in 0..count {
            addresses.push(ReservedAddress::new().await);
        }
        let urls: Vec<_> = addresses.iter().map(|address| address.url.clone()).collect();
        addresses.into_iter().map(|address| Self::start(address, &urls, limits.clone())).collect()
    }

    /// Starts two servers and waits until both report the connection.
    pub async fn pair(limits: &Limits) -> (Self, Self) {
        let mut servers = Self::cluster(2, limits).await.into_iter();
        let (one, two) = (servers.next().expect("two"), servers.next().expect("two"));
        one.wait_connected(&two.url).await;
        two.wait_connected(&one.url).await;
        (one, two)
    }

    pub fn connection(&self, other: &str) -> Connection {
        self.manager.connection(other).expect("a server of the cluster")
    }

    /// Waits until the connection to `other` is open.
    pub async fn wait_connected(&self, other: &str) -> Connection {
        let connection = self.connection(other);
        within("connecting", connection.wait_connected()).await.expect("not shut down");
        connection
    }

    /// Waits until nothing is in flight and nothing is left behind (B05).
    pub async fn assert_quiescent(&self) {
        eventually("quiescence", || {
            self.manager.stats().iter().all(grid::ConnectionStats::is_quiescent)
                && self.manager.unauthenticated_sockets() == 0
        })
        .await;
        assert_eq!(grid::bug::count(), 0, "a bug was reported; see the log");
    }
}

/// The other end of a connection, which sends whatever the test scripts.
pub struct ScriptedPeer {
    pub socket: WebSocketStream<TcpStream>,
    received: Vec<Message>,
}

/// The fields of a dial, each of which a test may set to a wrong value.
#[derive(Clone)]
pub struct Dial {
    pub host: String,
    pub path: String,
    pub bearer: String,
    pub token: String,
    pub time: Timestamp,
    pub http_host: Option<String>,
}

impl Dial {
    /// Makes a valid dial by the server named `host`.
    pub fn valid(host: &str) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the server checks it against the real clock"
        )]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let time = Timestamp::new(since.as_secs() as i64, since.subsec_nanos());
        let token = auth().make_token(time).expect("makes");
        Self {
            host: host.to_owned(),
            path: GRID_PATH.to_owned(),
            bearer: token.clone(),
            token,
            time,
            http_host: None,
        }
    }
}

impl ScriptedPeer {
    /// Upgrades to a WebSocket with the server at `url`, and sends nothing more.
    pub async fn upgrade(url: &str, dial: &Dial) -> Result<Self, WsError> {
        let authority = url.strip_prefix("http://").expect("a base URL");
        let stream = TcpStream::connect(authority).await.expect("the port is open");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut request =
            format!("ws://{authority}{}", dial.path).into_client_request().expect("a URL");
        let bearer = format!("Bearer {}", dial.bearer).parse().expect("a header");
        request.headers_mut().insert("authorization", bearer);
        if let Some(host) = &dial.http_host {
            request.headers_mut().insert("host", host.parse().expect("a header"));
        }
        let (socket, _) = client_async(request, stream).await?;
        Ok(Self { socket, received: Vec::new() })
    }

    /// Sends the Connect and returns the response.
    pub async fn handshake(&mut self, dial: &Dial) -> ConnectResponse {
        let connect = ConnectRequest {
            id: InstanceId::from_bytes([9; 16]),
            host: dial.host.clone(),
            time: dial.time,
            token: dial.token.clone(),
        };
        self.send_bytes(connect.encode().expect("encodes")).await;
        let response = self.next_frame().await.expect("a response before the end");
        ConnectResponse::parse(&response).expect("a ConnectResponse")
    }

    /// Dials the server at `url` as `host`, and is accepted.
    pub async fn dial(url: &str, host: &str) -> Self {
        let dial = Dial::valid(host);
        let mut peer = Self::upgrade(url, &dial).await.expect("an upgrade");
        let response = peer.handshake(&dial).await;
        assert!(response.accepted, "{}", response.rejected_reason);
        peer
    }

    /// Accepts the next dial at `listener`.
    pub async fn accept(listener: &TcpListener) -> Self {
        let mut peer = Self::accept_without_response(listener).await;
        let response = ConnectResponse::accepted(InstanceId::from_bytes([8; 16]));
        peer.send_bytes(response.encode().expect("encodes")).await;
        peer
    }

    /// Reads the Connect of the next dial at `listener` without a response.
    pub async fn accept_without_response(listener: &TcpListener) -> Self {
        let (stream, _) = within("a dial", listener.accept()).await.expect("the port is open");
        stream.set_nodelay(true).expect("a TCP socket");
        let socket = accept_async(stream).await.expect("an upgrade");
        let mut peer = Self { socket, received: Vec::new() };
        let connect = peer.next_frame().await.expect("a Connect");
        ConnectRequest::parse(&connect).expect("a Connect");
        peer
    }

    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.socket.send(WsMessage::Binary(bytes.into())).await.expect("the socket is open");
    }

    /// Sends a message with a checksum.
    pub async fn send(&mut self, header: Header, payload: &[u8]) {
        self.send_bytes(encode(header, payload)).await;
    }

    /// Returns the next frame, `None` at the end.
    pub async fn next_frame(&mut self) -> Option<Bytes> {
        loop {
            match within("a frame", self.socket.next()).await {
                Some(Ok(WsMessage::Binary(bytes))) => return Some(bytes),
                Some(Ok(WsMessage::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Returns the next message, `None` at the end.
    pub async fn next_message(&mut self) -> Option<Message> {
        if self.received.is_empty() {
            let frame = self.next_frame().await?;
            parse_frame(&frame, &mut self.received).expect("the server sends valid frames");
            self.received.reverse();
        }
        self.received.pop()
    }

    /// Reads until the server ends the connection.
    pub async fn wait_closed(&mut self) {
        while self.next_frame().await.is_some() {}
    }
}

pub fn encode(header: Header, payload: &[u8]) -> Vec<u8> {
    let message = Outgoing { header, payload, subroute: None, checksum: Checksum::On };
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// Encodes several messages as one merged frame (P20).
pub fn merged(messages: &[(Header, &[u8])]) -> Vec<u8> {
    let count = u8::try_from(messages.len()).expect("few");
    assert!(count < 128, "a fixint");
    let mut frame = vec![0x97, 0, count, 0, 0, 17, 0, 0xc4, 0];
    for (header, payload) in messages {
        let inner = encode(*header, payload);
        let length = u16::try_from(inner.len()).expect("small");
        frame.push(0xc5);
        frame.extend(length.to_be_bytes());
        frame.extend(inner);
    }
    frame
}
