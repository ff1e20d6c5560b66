//! Each fault point of [`grid::buggify`] has its effect, and loses nothing.
//!
//! In each test one server dials another; faults are injected into the dialer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use grid::buggify::{Buggify, FaultPoint, MARKER};
use grid::net::transport::{ConnectFuture, Socket, TcpTransport, Transport};
use grid::proto::handshake::Dialer;
use grid::{CallError, ConnectionState, HandlerId, Limits, Manager, ManagerBuilder, Name, Route};
use support::live::{LiveCount, LiveGuard};
use support::streams::opened;
use support::{ECHO, ReservedAddress, STUCK, ScriptedPeer, Server, auth, eventually, within};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A handler that sends each message back.
const ECHO_STREAM: HandlerId = HandlerId::new(202);

/// Longer than any test waits.
const HOUR: Duration = Duration::from_secs(3600);

/// Fires one fault point a number of times, and counts how often it was evaluated.
#[derive(Clone)]
struct CountingInjector(Arc<Counts>);

struct Counts {
    point: FaultPoint,
    wait: Duration,
    remaining: AtomicUsize,
    evaluations: AtomicUsize,
    fired: AtomicUsize,
}

impl CountingInjector {
    fn new(point: FaultPoint, times: usize, wait: Duration) -> Self {
        let (evaluations, fired) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Counts {
            point,
            wait,
            remaining: AtomicUsize::new(times),
            evaluations,
            fired,
        }))
    }

    fn always(point: FaultPoint, wait: Duration) -> Self {
        Self::new(point, usize::MAX, wait)
    }

    /// Fires `times` more from now on.
    fn arm(&self, times: usize) {
        self.0.remaining.store(times, Ordering::SeqCst);
    }

    fn evaluations(&self) -> usize {
        self.0.evaluations.load(Ordering::SeqCst)
    }

    fn fired(&self) -> usize {
        self.0.fired.load(Ordering::SeqCst)
    }
}

impl Buggify for CountingInjector {
    fn inject(&self, point: FaultPoint) -> Option<Duration> {
        if point != self.0.point {
            return None;
        }
        self.0.evaluations.fetch_add(1, Ordering::SeqCst);
        let less = |left: usize| left.checked_sub(1);
        self.0.remaining.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok()?;
        self.0.fired.fetch_add(1, Ordering::SeqCst);
        Some(self.0.wait)
    }
}

/// A dialer with injected faults, and an acceptor.
async fn pair(configure: impl FnOnce(ManagerBuilder) -> ManagerBuilder) -> (Server, Server) {
    let acceptor = ReservedAddress::new().await;
    let dialer = ReservedAddress::dialed_by(Dialer::Local, &acceptor.url).await;
    let urls = [acceptor.url.clone(), dialer.url.clone()];
    let dialer = Server::start_as(dialer, &urls, configure);
    (dialer, Server::start(acceptor, &urls, Limits::default()))
}

/// Sends calls and stream messages in both directions, and asserts that all arrive in order.
async fn assert_nothing_lost(dialer: &Server, acceptor: &Server) {
    for server in [dialer, acceptor] {
        let route = Route::new(ECHO_STREAM);
        let echo = |_, _, mut input: grid::StreamReceiver, mut output: grid::StreamOutput| async move {
            while let Some(message) = input.next().await {
                output.send(message?).await?;
            }
            Ok(())
        };
        server.manager.register_stream(route, echo).expect("free");
    }
    for (from, to) in [(dialer, acceptor), (acceptor, dialer)] {
        let connection = from.wait_connected(&to.url).await;
        let calls = stream::iter(0..200_u32)
            .map(|call| connection.request(ECHO, call.to_string()).into_future())
            .buffered(4)
            .enumerate();
        let all_responses = calls.for_each(|(call, response)| async move {
            assert_eq!(response.expect("a response"), call.to_string());
        });
        within("200 calls", all_responses).await;

        let (mut sender, mut receiver) = opened(connection.stream(ECHO_STREAM, "")).await.split();
        tokio::spawn(async move {
            for message in 0..200 {
                sender.send(message.to_string()).await.expect("accepted");
            }
            sender.finish().await.expect("accepted");
        });
        for message in 0..200 {
            let next = within("a message", receiver.next()).await.expect("not the end");
            assert_eq!(next.expect("no error"), message.to_string());
        }
        assert!(within("the end", receiver.next()).await.is_none());
    }
    assert_eq!(dialer.connection(&acceptor.url).stats().connections, 1);
    dialer.assert_quiescent().await;
    acceptor.assert_quiescent().await;
    // All bytes leave, so that shutdown need not wait for the grace period to end.
    within("draining", dialer.manager.shutdown(HOUR)).await;
}

#[tokio::test]
async fn nothing_is_lost_when_each_flush_is_delayed() {
    let faults = CountingInjector::always(FaultPoint::DelayFlush, Duration::from_millis(5));
    let (dialer, acceptor) = pair(|builder| builder.buggify(faults.clone())).await;
    assert_nothing_lost(&dialer, &acceptor).await;
    assert!(faults.fired() >= 100, "{} delays", faults.fired());
}

#[tokio::test]
async fn nothing_is_lost_when_the_socket_is_full_before_each_frame() {
    let faults = CountingInjector::always(FaultPoint::FullSocket, Duration::from_millis(5));
    let (dialer, acceptor) = pair(|builder| builder.buggify(faults.clone())).await;
    assert_nothing_lost(&dialer, &acceptor).await;
    assert!(faults.fired() >= 100, "{} times full", faults.fired());
}

#[tokio::test]
async fn nothing_is_lost_when_a_connection_is_always_woken() {
    let faults = CountingInjector::always(FaultPoint::SpuriousWake, Duration::ZERO);
    let (dialer, acceptor) = pair(|builder| builder.buggify(faults.clone())).await;
    assert_nothing_lost(&dialer, &acceptor).await;
}

/// Fires `point` once, for longer than the test waits. Nothing leaves any more, but messages are
/// still read and timers run. Returns how many bytes are queued then.
async fn block_socket(point: FaultPoint) -> usize {
    let faults = CountingInjector::new(point, 0, HOUR);
    let (dialer, acceptor) = pair(|builder| builder.buggify(faults.clone())).await;
    let to_acceptor = dialer.wait_connected(&acceptor.url).await;
    let to_dialer = acceptor.wait_connected(&dialer.url).await;
    to_acceptor.request(ECHO, "before").await.expect("a response");
    assert!(faults.evaluations() > 0);

    let live = LiveCount::default();
    let (counter, counted) = (live.clone(), HandlerId::new(203));
    dialer
        .manager
        .register(Route::new(counted), move |_, _| {
            let guard = counter.guard();
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .expect("free");

    faults.arm(1);
    let held = tokio::spawn(to_acceptor.request(ECHO, "held").into_future());
    eventually("the fault", || faults.fired() == 1).await;
    let queued_bytes = to_acceptor.stats().queued_bytes;

    let incoming = tokio::spawn(to_dialer.request(counted, "inbound").into_future());
    eventually("the inbound call is served", || live.count() == 1).await;

    let late = to_acceptor.request(ECHO, "late").timeout(Duration::from_millis(20)).await;
    assert!(matches!(late, Err(CallError::DeadlineExceeded { .. })), "{late:?}");
    assert!(!held.is_finished(), "the request has not left, so it has no response");

    // The held socket does not delay the server's shutdown.
    within("the end", dialer.manager.shutdown(Duration::ZERO)).await;
    for call in [held, incoming] {
        call.await.expect("no panic").expect_err("its connection ended");
    }
    queued_bytes
}

#[tokio::test]
async fn a_delayed_flush_holds_back_written_bytes() {
    assert_eq!(block_socket(FaultPoint::DelayFlush).await, 0);
}

#[tokio::test]
async fn a_full_socket_leaves_frames_in_the_queue() {
    assert_ne!(block_socket(FaultPoint::FullSocket).await, 0);
}

#[tokio::test]
async fn a_spurious_wake_wakes_an_idle_connection() {
    let faults = CountingInjector::always(FaultPoint::SpuriousWake, Duration::from_millis(1));
    let (dialer, acceptor) = pair(|builder| builder.buggify(faults.clone())).await;
    let connection = dialer.wait_connected(&acceptor.url).await;
    let (evaluations, sent) = (faults.evaluations(), connection.stats().messages_out);
    // Each wake-up is followed by another sleep and evaluation. Pings are too rare to explain 50.
    eventually("50 wake-ups", || faults.evaluations() >= evaluations + 50).await;
    assert!(connection.stats().messages_out <= sent + 5, "idle wake-ups send nothing");
    assert_eq!(connection.request(ECHO, "hello").await.expect("a response"), "hello");
}

#[tokio::test]
async fn a_tiny_queue_makes_calls_wait_and_all_get_their_responses() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 64 * 1024;
    let faults = CountingInjector::always(FaultPoint::TinyQueue, Duration::ZERO);
    let (dialer, acceptor) = pair(|builder| builder.limits(limits).buggify(faults.clone())).await;
    assert_eq!(faults.evaluations(), 1, "once for each remote");
    let connection = dialer.wait_connected(&acceptor.url).await;

    let payload = |call: u8| Bytes::from(vec![call; 60_000]);
    let mut calls: stream::FuturesOrdered<_> =
        (0..100).map(|call| connection.request(ECHO, payload(call)).into_future()).collect();
    // Polling the first polls all, before the connection's task runs.
    assert!(calls.poll_next_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    let stats = connection.stats();
    assert!(stats.queued_bytes <= 128 * 1024, "{} bytes in the queue", stats.queued_bytes);
    assert_eq!(stats.blocked_messages, 98);

    for call in 0..100 {
        let response = within("a response", calls.next()).await.expect("100 calls");
        assert_eq!(response.expect("no error"), payload(call));
    }
}

#[tokio::test]
async fn an_early_timeout_abandons_a_dial_and_the_next_one_connects() {
    let scripted = ReservedAddress::new().await;
    let dialer = ReservedAddress::dialed_by(Dialer::Local, &scripted.url).await;
    let urls = [scripted.url.clone(), dialer.url.clone()];
    let faults = CountingInjector::new(FaultPoint::EarlyTimeout, 1, Duration::from_millis(10));
    let mut limits = Limits::default();
    limits.handshake_timeout = HOUR;
    let configure = |builder: ManagerBuilder| builder.limits(limits).buggify(faults.clone());
    let server = Server::start_as(dialer, &urls, configure);

    // The peer does not respond, and the handshake timeout is an hour.
    let connection = server.connection(&scripted.url);
    eventually("the dial fails", || connection.stats().last_failure.is_some()).await;
    let failure = connection.stats().last_failure.expect("there is one");
    assert_eq!(&*failure.cause, "no response within 10ms");
    drop(within("the first dial", scripted.listener.accept()).await.expect("the port is open"));

    let _peer = ScriptedPeer::accept(&scripted.listener).await;
    within("connecting", connection.wait_connected()).await.expect("not shut down");
    assert_eq!((faults.evaluations(), faults.fired()), (2, 1));
}

/// A TCP transport that counts its open sockets, and records how many were open at each dial.
#[derive(Clone, Default)]
struct CountingTransport {
    open: LiveCount,
    at_dial: Arc<Mutex<Vec<usize>>>,
}

impl Transport for CountingTransport {
    fn connect(&self, remote: &Name) -> ConnectFuture {
        self.at_dial.lock().expect("no panic").push(self.open.count());
        let (dialing, _guard) = (TcpTransport.connect(remote), self.open.guard());
        Box::pin(async move { Ok(Box::new(CountedSocket { socket: dialing.await?, _guard }) as _) })
    }
}

struct CountedSocket {
    socket: Box<dyn Socket>,
    _guard: LiveGuard,
}

impl AsyncRead for CountedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CountedSocket {
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

#[tokio::test]
async fn b03_a_forgotten_connection_stays_open_until_the_next_one_supersedes_it() {
    let faults = CountingInjector::new(FaultPoint::Supersede, 1, Duration::from_millis(50));
    let counting = CountingTransport::default();
    let configure =
        |builder: ManagerBuilder| builder.transport(counting.clone()).buggify(faults.clone());
    let (dialer, acceptor) = pair(configure).await;
    let to_acceptor = dialer.wait_connected(&acceptor.url).await;

    // The dialer's calls end with it. The acceptor still reports it as connected, and its calls get
    // no response.
    let call = within("the end", to_acceptor.request(STUCK, "").into_future()).await;
    assert!(matches!(call, Err(CallError::Disconnected { .. })), "{call:?}");
    let to_dialer = acceptor.connection(&dialer.url);
    assert_eq!(to_dialer.state(), ConnectionState::Connected);
    let call = within("superseding", to_dialer.request(STUCK, "").into_future()).await;
    assert!(matches!(call, Err(CallError::Disconnected { .. })), "{call:?}");
    assert_eq!(*counting.at_dial.lock().expect("no panic"), [0, 1]);

    for (from, to) in [(&dialer, &acceptor), (&acceptor, &dialer)] {
        let connection = from.wait_connected(&to.url).await;
        assert_eq!(connection.request(ECHO, "again").await.expect("a response"), "again");
        let stats = connection.stats();
        assert_eq!(stats.connections, 2);
        let failure = stats.last_failure.expect("the first connection ended");
        assert_eq!(failure.cause.as_ref(), "superseded by a newer connection");
    }
    assert_eq!((faults.evaluations(), faults.fired()), (2, 1));
    eventually("the forgotten socket's end", || counting.open.count() == 1).await;
}

#[test]
fn each_fault_is_logged_with_the_marker_that_no_server_contains() {
    let log: Arc<Mutex<Vec<u8>>> = Arc::default();
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_writer(move || Writer(Arc::clone(&writer)))
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        Manager::builder("http://a:1")
            .servers(["http://a:1", "http://b:1"])
            .auth(auth())
            .buggify(CountingInjector::always(FaultPoint::TinyQueue, Duration::ZERO))
            .build()
            .expect("right");
    });
    let log = String::from_utf8(log.lock().expect("no panic").clone()).expect("logs are text");
    let line = format!("DEBUG grid::buggify: {MARKER} fired point=tiny-queue");
    assert!(log.contains(&line), "{log}");
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
