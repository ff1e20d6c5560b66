//! What each point of [`grid::buggify`] makes happen, and that nothing is lost by it.
//!
//! In all of these one server dials another; rare things happen to the one that dials.
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
use grid::buggify::{Buggify, MARKER, Point};
use grid::net::transport::{Dialling, Socket, TcpTransport, Transport};
use grid::proto::handshake::Dialler;
use grid::{CallError, ConnectionState, HandlerId, Limits, Manager, ManagerBuilder, Name, Route};
use support::live::{Live, LiveGuard};
use support::streams::opened;
use support::{ECHO, Place, STUCK, ScriptedPeer, Server, auth, eventually, within};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Sends each message back.
const ECHO_STREAM: HandlerId = HandlerId::new(202);

/// Longer than any test waits.
const HOUR: Duration = Duration::from_secs(3600);

/// Strikes one point a number of times, and counts how often that was asked for.
#[derive(Clone)]
struct Strikes(Arc<Counts>);

struct Counts {
    point: Point,
    wait: Duration,
    left: AtomicUsize,
    asked: AtomicUsize,
    struck: AtomicUsize,
}

impl Strikes {
    fn new(point: Point, times: usize, wait: Duration) -> Self {
        let (asked, struck) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Counts { point, wait, left: AtomicUsize::new(times), asked, struck }))
    }

    fn always(point: Point, wait: Duration) -> Self {
        Self::new(point, usize::MAX, wait)
    }

    /// Strikes `times` more from now on.
    fn strike(&self, times: usize) {
        self.0.left.store(times, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    fn struck(&self) -> usize {
        self.0.struck.load(Ordering::SeqCst)
    }
}

impl Buggify for Strikes {
    fn strike(&self, point: Point) -> Option<Duration> {
        if point != self.0.point {
            return None;
        }
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let less = |left: usize| left.checked_sub(1);
        self.0.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok()?;
        self.0.struck.fetch_add(1, Ordering::SeqCst);
        Some(self.0.wait)
    }
}

/// A server that dials, to which rare things happen, and one that accepts.
async fn pair(configure: impl FnOnce(ManagerBuilder) -> ManagerBuilder) -> (Server, Server) {
    let acceptor = Place::new().await;
    let dialler = Place::that(Dialler::Local, &acceptor.url).await;
    let urls = [acceptor.url.clone(), dialler.url.clone()];
    let dialler = Server::start_as(dialler, &urls, configure);
    (dialler, Server::start(acceptor, &urls, Limits::default()))
}

/// Calls and messages of a stream, both ways and in order.
async fn all_comes_through(dialler: &Server, acceptor: &Server) {
    for server in [dialler, acceptor] {
        let route = Route::new(ECHO_STREAM);
        let echo = |_, _, mut input: grid::StreamReceiver, mut output: grid::StreamOutput| async move {
            while let Some(message) = input.next().await {
                output.send(message?).await?;
            }
            Ok(())
        };
        server.manager.register_stream(route, echo).expect("free");
    }
    for (from, to) in [(dialler, acceptor), (acceptor, dialler)] {
        let connection = from.connected(&to.url).await;
        let calls = stream::iter(0..200_u32)
            .map(|call| connection.request(ECHO, call.to_string()).into_future())
            .buffered(4)
            .enumerate();
        let answered = calls.for_each(|(call, answer)| async move {
            assert_eq!(answer.expect("an answer"), call.to_string());
        });
        within("200 calls", answered).await;

        let (mut sender, mut receiver) = opened(connection.stream(ECHO_STREAM, "")).await.split();
        tokio::spawn(async move {
            for message in 0..200 {
                sender.send(message.to_string()).await.expect("it is taken");
            }
            sender.finish().await.expect("it is taken");
        });
        for message in 0..200 {
            let next = within("a message", receiver.next()).await.expect("not the end");
            assert_eq!(next.expect("well"), message.to_string());
        }
        assert!(within("the end", receiver.next()).await.is_none());
    }
    assert_eq!(dialler.connection(&acceptor.url).stats().connections, 1);
    dialler.is_quiescent().await;
    acceptor.is_quiescent().await;
    // It gets to the point where all has left, and so need not wait for the grace to be over.
    within("draining", dialler.manager.shutdown(HOUR)).await;
}

#[tokio::test]
async fn nothing_is_lost_when_each_flush_is_delayed() {
    let strikes = Strikes::always(Point::DelayFlush, Duration::from_millis(5));
    let (dialler, acceptor) = pair(|builder| builder.buggify(strikes.clone())).await;
    all_comes_through(&dialler, &acceptor).await;
    assert!(strikes.struck() >= 100, "{} delays", strikes.struck());
}

#[tokio::test]
async fn nothing_is_lost_when_the_socket_is_full_before_each_frame() {
    let strikes = Strikes::always(Point::FullSocket, Duration::from_millis(5));
    let (dialler, acceptor) = pair(|builder| builder.buggify(strikes.clone())).await;
    all_comes_through(&dialler, &acceptor).await;
    assert!(strikes.struck() >= 100, "{} times full", strikes.struck());
}

#[tokio::test]
async fn nothing_is_lost_when_a_connection_never_rests() {
    let strikes = Strikes::always(Point::SpuriousWake, Duration::ZERO);
    let (dialler, acceptor) = pair(|builder| builder.buggify(strikes.clone())).await;
    all_comes_through(&dialler, &acceptor).await;
}

/// Strikes `point` once, for longer than the test waits. Nothing leaves any more, but what comes in
/// is read and timers run. Returns how many bytes still wait in the queue then.
async fn holds_up_the_socket(point: Point) -> usize {
    let strikes = Strikes::new(point, 0, HOUR);
    let (dialler, acceptor) = pair(|builder| builder.buggify(strikes.clone())).await;
    let to_acceptor = dialler.connected(&acceptor.url).await;
    let to_dialler = acceptor.connected(&dialler.url).await;
    to_acceptor.request(ECHO, "before").await.expect("an answer");
    assert!(strikes.asked() > 0);

    let live = Live::default();
    let (noted, note) = (live.clone(), HandlerId::new(203));
    dialler
        .manager
        .register(Route::new(note), move |_, _| {
            let guard = noted.guard();
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .expect("free");

    strikes.strike(1);
    let held = tokio::spawn(to_acceptor.request(ECHO, "held").into_future());
    eventually("the strike", || strikes.struck() == 1).await;
    let queued_bytes = to_acceptor.stats().queued_bytes;

    let incoming = tokio::spawn(to_dialler.request(note, "comes in").into_future());
    eventually("reading on", || live.count() == 1).await;

    let late = to_acceptor.request(ECHO, "late").timeout(Duration::from_millis(20)).await;
    assert!(matches!(late, Err(CallError::DeadlineExceeded { .. })), "{late:?}");
    assert!(!held.is_finished(), "it has not left, so nobody can have answered it");

    // Nor does it keep its server from ending.
    within("the end", dialler.manager.shutdown(Duration::ZERO)).await;
    for call in [held, incoming] {
        call.await.expect("no panic").expect_err("its connection has ended");
    }
    queued_bytes
}

#[tokio::test]
async fn a_delayed_flush_holds_up_what_was_written() {
    assert_eq!(holds_up_the_socket(Point::DelayFlush).await, 0);
}

#[tokio::test]
async fn a_full_socket_leaves_frames_in_the_queue() {
    assert_ne!(holds_up_the_socket(Point::FullSocket).await, 0);
}

#[tokio::test]
async fn a_spurious_wake_wakes_a_connection_that_has_nothing_to_do() {
    let strikes = Strikes::always(Point::SpuriousWake, Duration::from_millis(1));
    let (dialler, acceptor) = pair(|builder| builder.buggify(strikes.clone())).await;
    let connection = dialler.connected(&acceptor.url).await;
    let (asked, sent) = (strikes.asked(), connection.stats().messages_out);
    // Each goes to sleep again, and is asked anew. Its pings come too seldom to explain that.
    eventually("50 wake-ups", || strikes.asked() >= asked + 50).await;
    assert!(connection.stats().messages_out <= sent + 5, "it was woken for nothing");
    assert_eq!(connection.request(ECHO, "hello").await.expect("an answer"), "hello");
}

#[tokio::test]
async fn a_tiny_queue_makes_calls_wait_that_would_fit_and_all_are_answered() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 64 * 1024;
    let strikes = Strikes::always(Point::TinyQueue, Duration::ZERO);
    let (dialler, acceptor) = pair(|builder| builder.limits(limits).buggify(strikes.clone())).await;
    assert_eq!(strikes.asked(), 1, "once for each remote");
    let connection = dialler.connected(&acceptor.url).await;

    let payload = |call: u8| Bytes::from(vec![call; 60_000]);
    let mut calls: stream::FuturesOrdered<_> =
        (0..100).map(|call| connection.request(ECHO, payload(call)).into_future()).collect();
    // Polling the first polls all, before the connection's task has a turn.
    assert!(calls.poll_next_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    let stats = connection.stats();
    assert!(stats.queued_bytes <= 128 * 1024, "{} bytes in the queue", stats.queued_bytes);
    assert_eq!(stats.blocked_messages, 98);

    for call in 0..100 {
        let answer = within("an answer", calls.next()).await.expect("100 calls");
        assert_eq!(answer.expect("well"), payload(call));
    }
}

#[tokio::test]
async fn an_early_timeout_gives_a_dial_up_and_the_next_one_connects() {
    let scripted = Place::new().await;
    let dialler = Place::that(Dialler::Local, &scripted.url).await;
    let urls = [scripted.url.clone(), dialler.url.clone()];
    let strikes = Strikes::new(Point::EarlyTimeout, 1, Duration::from_millis(10));
    let mut limits = Limits::default();
    limits.handshake_timeout = HOUR;
    let configure = |builder: ManagerBuilder| builder.limits(limits).buggify(strikes.clone());
    let server = Server::start_as(dialler, &urls, configure);

    // Nobody answers, and the server would be content to wait for an hour.
    let connection = server.connection(&scripted.url);
    eventually("giving up", || connection.stats().last_failure.is_some()).await;
    let failure = connection.stats().last_failure.expect("there is one");
    assert_eq!(&*failure.cause, "no answer within 10ms");
    drop(within("the first dial", scripted.listener.accept()).await.expect("it listens"));

    let _peer = ScriptedPeer::accept(&scripted.listener).await;
    within("connecting", connection.wait_connected()).await.expect("not shut down");
    assert_eq!((strikes.asked(), strikes.struck()), (2, 1));
}

/// TCP that counts its open sockets, and notes how many were open at each dial.
#[derive(Clone, Default)]
struct Counting {
    open: Live,
    at_dial: Arc<Mutex<Vec<usize>>>,
}

impl Transport for Counting {
    fn connect(&self, remote: &Name) -> Dialling {
        self.at_dial.lock().expect("no panic").push(self.open.count());
        let (dialling, _guard) = (TcpTransport.connect(remote), self.open.guard());
        Box::pin(async move { Ok(Box::new(Counted { socket: dialling.await?, _guard }) as _) })
    }
}

struct Counted {
    socket: Box<dyn Socket>,
    _guard: LiveGuard,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
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
    let strikes = Strikes::new(Point::Supersede, 1, Duration::from_millis(50));
    let counting = Counting::default();
    let configure =
        |builder: ManagerBuilder| builder.transport(counting.clone()).buggify(strikes.clone());
    let (dialler, acceptor) = pair(configure).await;
    let to_acceptor = dialler.connected(&acceptor.url).await;

    // Its own calls end with it; the other end knows of nothing, and calls into the void.
    let call = within("the end", to_acceptor.request(STUCK, "").into_future()).await;
    assert!(matches!(call, Err(CallError::Disconnected { .. })), "{call:?}");
    let to_dialler = acceptor.connection(&dialler.url);
    assert_eq!(to_dialler.state(), ConnectionState::Connected);
    let call = within("superseding", to_dialler.request(STUCK, "").into_future()).await;
    assert!(matches!(call, Err(CallError::Disconnected { .. })), "{call:?}");
    assert_eq!(*counting.at_dial.lock().expect("no panic"), [0, 1]);

    for (from, to) in [(&dialler, &acceptor), (&acceptor, &dialler)] {
        let connection = from.connected(&to.url).await;
        assert_eq!(connection.request(ECHO, "again").await.expect("an answer"), "again");
        let stats = connection.stats();
        assert_eq!(stats.connections, 2);
        let failure = stats.last_failure.expect("the first connection ended");
        assert_eq!(failure.cause.as_ref(), "superseded by a newer connection");
    }
    assert_eq!((strikes.asked(), strikes.struck()), (2, 1));
    eventually("the forgotten socket's end", || counting.open.count() == 1).await;
}

#[test]
fn each_strike_is_logged_by_the_words_that_no_server_contains() {
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
            .buggify(Strikes::always(Point::TinyQueue, Duration::ZERO))
            .build()
            .expect("right");
    });
    let log = String::from_utf8(log.lock().expect("no panic").clone()).expect("logs are text");
    let line = format!("DEBUG grid::buggify: {MARKER} struck point=tiny-queue");
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
