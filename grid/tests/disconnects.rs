//! Ends of connections, under faults: tasks that are dropped or panic, sockets that are always
//! readable, peers that read late or never.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use grid::net::transport::{ConnectFuture, Socket, TcpTransport, Transport};
use grid::proto::handshake::Dialer;
use grid::proto::message::{Flags, Header, Op};
use grid::{CallError, ConnectionState, FailureKind, Limits, Manager, Name};
use support::{ECHO, ReservedAddress, STUCK, ScriptedPeer, Server, auth, eventually, within};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::Message as WsMessage;

/// The fault of the sockets of a [`FaultyTransport`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum SocketFault {
    None,
    /// The next read panics, once.
    Panic,
    /// Reads return WebSocket pongs without end.
    Flood,
}

/// TCP with a fault that a test can inject.
#[derive(Clone, Default)]
struct FaultyTransport {
    fault: Arc<AtomicUsize>,
    panics_on_connect: Arc<AtomicBool>,
}

impl FaultyTransport {
    fn inject(&self, fault: SocketFault) {
        self.fault.store(fault as usize, Ordering::SeqCst);
    }
}

impl Transport for FaultyTransport {
    fn connect(&self, remote: &Name) -> ConnectFuture {
        assert!(!self.panics_on_connect.swap(false, Ordering::SeqCst), "a bad transport");
        let dialing = TcpTransport.connect(remote);
        let fault = Arc::clone(&self.fault);
        Box::pin(async move {
            let socket = dialing.await?;
            Ok(Box::new(FaultySocket { socket, fault }) as Box<dyn Socket>)
        })
    }
}

struct FaultySocket {
    socket: Box<dyn Socket>,
    fault: Arc<AtomicUsize>,
}

impl AsyncRead for FaultySocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let panic = SocketFault::Panic as usize;
        let panics =
            self.fault.compare_exchange(panic, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        assert!(!panics, "a bad socket");
        if self.fault.load(Ordering::SeqCst) == SocketFault::Flood as usize {
            buffer.put_slice(&[0x8a, 0]); // an empty pong, unmasked, as from an acceptor
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for FaultySocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Starts a manager over a faulty transport, which dials an ordinary server.
async fn faulty_pair(transport: &FaultyTransport) -> (Manager, Server) {
    let address = ReservedAddress::new().await;
    let acceptor = ReservedAddress::dialed_by(Dialer::Remote, &address.url).await;
    let urls = [address.url.clone(), acceptor.url.clone()];
    let manager = Manager::builder(&address.url)
        .servers(urls.to_vec())
        .auth(auth())
        .transport(transport.clone())
        .limits(quick())
        .build()
        .expect("valid configuration");
    (manager, Server::start(acceptor, &urls, Limits::default()))
}

fn quick() -> Limits {
    let mut limits = Limits::default();
    limits.backoff_min = Duration::from_millis(10);
    limits.backoff_max = Duration::from_millis(20);
    limits
}

#[tokio::test]
async fn b05_a_socket_that_panics_ends_its_connection_and_the_next_one_works() {
    let transport = FaultyTransport::default();
    let (manager, server) = faulty_pair(&transport).await;
    manager.start().expect("in a runtime");
    let connection = manager.connection(&server.url).expect("a server");
    within("connecting", connection.wait_connected()).await.expect("not shut down");
    let call = tokio::spawn(connection.request(STUCK, "").into_future());
    eventually("the call is in flight", || connection.stats().live_outbound_calls == 1).await;

    transport.inject(SocketFault::Panic);
    // A response to read, so that the socket is polled.
    let poke = tokio::spawn(connection.request(ECHO, "").into_future());
    for call in [call, poke] {
        let error = within("the end", call).await.expect("no panic").expect_err("no response");
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
    }
    within("reconnecting", connection.wait_connected()).await.expect("not shut down");
    assert_eq!(connection.request(ECHO, "again").await.expect("an echo"), "again");
    let failure = connection.stats().last_failure.expect("it is known");
    assert!(failure.cause.contains("a bad socket"), "{failure}");
}

#[tokio::test]
async fn b04_a_transport_that_panics_is_a_failed_dial() {
    let transport = FaultyTransport::default();
    transport.panics_on_connect.store(true, Ordering::SeqCst);
    let (manager, server) = faulty_pair(&transport).await;
    manager.start().expect("in a runtime");
    let connection = manager.connection(&server.url).expect("a server");
    within("connecting", connection.wait_connected()).await.expect("not shut down");
    let failure = connection.stats().last_failure.expect("it is known");
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.cause.contains("a bad transport"), "{failure}");
}

#[tokio::test]
async fn b10_a_deadline_fires_while_the_socket_is_always_readable() {
    let transport = FaultyTransport::default();
    let (manager, server) = faulty_pair(&transport).await;
    manager.start().expect("in a runtime");
    let connection = manager.connection(&server.url).expect("a server");
    within("connecting", connection.wait_connected()).await.expect("not shut down");
    let call = connection.request(STUCK, "").timeout(Duration::from_millis(300));
    let call = tokio::spawn(call.into_future());
    eventually("the call is in flight", || connection.stats().live_outbound_calls == 1).await;
    transport.inject(SocketFault::Flood);
    // Wakes the task, which from now on always finds a frame to read.
    let poke = connection.request(ECHO, "").timeout(Duration::from_millis(300));
    let poke = tokio::spawn(poke.into_future());
    for call in [call, poke] {
        let error = within("the deadline", call).await.expect("no panic").expect_err("no response");
        assert!(matches!(error, CallError::DeadlineExceeded { .. }), "{error}");
    }
    within("the shutdown", manager.shutdown(Duration::ZERO)).await;
    assert_eq!(connection.state(), ConnectionState::Shutdown);
    transport.inject(SocketFault::None);
}

#[tokio::test]
async fn b05_calls_end_with_the_runtime_of_their_manager() {
    let transport = FaultyTransport::default();
    let (manager, server) = faulty_pair(&transport).await;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let handle = manager.clone();
    runtime.spawn(async move { handle.start().expect("in a runtime") }).await.expect("no panic");
    let connection = manager.connection(&server.url).expect("a server");
    within("connecting", connection.wait_connected()).await.expect("not shut down");
    let call = tokio::spawn(connection.request(STUCK, "").into_future());
    eventually("the call is in flight", || connection.stats().live_outbound_calls == 1).await;
    runtime.shutdown_background();
    let error = within("the end", call).await.expect("no panic").expect_err("no response");
    assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
}

/// Starts a server and a scripted peer that is connected to it.
async fn server_and_peer(limits: Limits) -> (Server, ScriptedPeer, String) {
    let address = ReservedAddress::new().await;
    let scripted = ReservedAddress::dialed_by(Dialer::Local, &address.url).await;
    let urls = [address.url.clone(), scripted.url.clone()];
    let server = Server::start(address, &urls, limits);
    let peer = ScriptedPeer::dial(&server.url, &scripted.url).await;
    server.wait_connected(&scripted.url).await;
    (server, peer, scripted.url)
}

#[tokio::test]
async fn b09_the_grace_period_covers_a_response_that_its_caller_reads_late() {
    let mut limits = Limits::default();
    limits.close_timeout = Duration::from_millis(20);
    let (server, mut peer, peer_url) = server_and_peer(limits).await;
    let payload = vec![7; 15 << 20];
    let header = Header { handler: ECHO.get(), flags: Flags::EOF, ..Header::new(1, Op::Request) };
    peer.send(header, &payload).await;
    let connection = server.connection(&peer_url);
    eventually("the response is written to the socket", || {
        let stats = connection.stats();
        stats.inbound_calls == 1 && stats.queued_bytes == 0 && stats.live_inbound_calls == 0
    })
    .await;

    let manager = server.manager.clone();
    let shutdown = tokio::spawn(async move { manager.shutdown(support::WAIT_MAX).await });
    // Longer than closing may take: only the grace period can cover it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!shutdown.is_finished());
    let response = peer.next_message().await.expect("the whole response");
    assert_eq!(response.payload.len(), payload.len());
    peer.wait_closed().await;
    within("the shutdown", shutdown).await.expect("no panic");
}

#[tokio::test]
async fn p03_a_close_gets_a_close() {
    let (server, mut peer, peer_url) = server_and_peer(Limits::default()).await;
    peer.socket.send(WsMessage::Close(None)).await.expect("open");
    let response = within("the response", peer.socket.next()).await;
    assert!(matches!(response, Some(Ok(WsMessage::Close(_)))), "{response:?}");
    let failure = server.connection(&peer_url).stats().last_failure.expect("a failure");
    assert_eq!(failure.to_string(), "the peer closed the connection");
}

#[tokio::test]
async fn a_socket_closed_without_a_close_frame_is_not_a_protocol_error() {
    let (server, peer, peer_url) = server_and_peer(Limits::default()).await;
    drop(peer);
    let connection = server.connection(&peer_url);
    eventually("the end", || connection.state() != ConnectionState::Connected).await;
    let failure = connection.stats().last_failure.expect("a failure");
    assert_eq!(failure.to_string(), "the peer closed the connection");
}

#[tokio::test]
async fn pongs_for_a_peer_that_does_not_read_do_not_pile_up() {
    const PINGS: usize = 400_000;
    let mut limits = Limits::default();
    limits.message_bytes_max = 32 << 10;
    let (_server, mut peer, _) = server_and_peer(limits).await;
    let ping = WsMessage::Ping(Bytes::from(vec![0; 125])); // 50 MB of them
    for _ in 0..PINGS {
        peer.socket.feed(ping.clone()).await.expect("open");
    }
    let header = Header { handler: ECHO.get(), flags: Flags::EOF, ..Header::new(1, Op::Request) };
    peer.send(header, b"after all").await;
    let mut pongs = 0;
    loop {
        match within("the response", peer.socket.next()).await.expect("open").expect("open") {
            WsMessage::Pong(_) => pongs += 1,
            WsMessage::Binary(_) => break,
            other => panic!("{other}"),
        }
    }
    // What the sockets' own buffers hold, and no more: the other pongs were dropped.
    assert!(pongs < PINGS / 2, "{pongs} pongs were kept");
}
