//! The log: events, targets, and how often (B02, B04, B41, B42).
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grid::proto::handshake::{ConnectResponse, Dialer, InstanceId};
use grid::{Limits, Name};
use support::{Dial, ECHO, ReservedAddress, ScriptedPeer, Server, eventually};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// The log of this thread, which runs everything in these tests.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture(filter: &str) -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .without_time()
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self, containing: &str) -> Vec<String> {
        let bytes = self.0.lock().expect("no panic").clone();
        let text = String::from_utf8(bytes).expect("logs are text");
        text.lines().filter(|line| line.contains(containing)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn b02_refused_dials_are_logged_once_per_remote_and_not_once_per_attempt() {
    let (log, _guard) = Log::capture("info");
    let address = ReservedAddress::new().await;
    let dialed = ReservedAddress::dialed_by(Dialer::Remote, &address.url).await;
    let urls = [address.url.clone(), dialed.url.clone()];
    let server = Server::start(address, &urls, Limits::default());
    for _ in 0..5 {
        let dial = Dial::valid(&dialed.url);
        let mut peer = ScriptedPeer::upgrade(&server.url, &dial).await.expect("upgrades");
        assert!(!peer.handshake(&dial).await.accepted);
    }
    let refusals = log.lines("incoming connection refused");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].trim_start().starts_with("WARN grid:"), "{refusals:?}");
    assert!(refusals[0].contains("wrong direction"), "{refusals:?}");
}

#[tokio::test]
async fn b04_an_unreachable_remote_is_logged_once_and_not_as_an_error() {
    let (log, _guard) = Log::capture("info");
    let address = ReservedAddress::new().await;
    let acceptor = ReservedAddress::dialed_by(Dialer::Remote, &address.url).await;
    let urls = [address.url.clone(), acceptor.url.clone()];
    let mut limits = Limits::default();
    limits.backoff_min = Duration::from_millis(1);
    limits.backoff_max = Duration::from_millis(2);
    let server = Server::start(address, &urls, limits);
    for attempt in 0..5 {
        let mut peer = ScriptedPeer::accept_without_response(&acceptor.listener).await;
        let reason = format!("attempt {attempt}");
        let response = ConnectResponse::rejected(InstanceId::default(), reason);
        peer.send_bytes(response.encode().expect("encodes")).await;
    }
    eventually("the last attempt failed", || {
        let failure = server.connection(&acceptor.url).stats().last_failure;
        failure.is_some_and(|failure| failure.cause.contains("attempt 4"))
    })
    .await;
    let failures = log.lines("connect failed");
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("rejected: attempt 0"), "{failures:?}");
    assert!(failures[0].contains(&acceptor.url), "{failures:?}");
    assert!(log.lines("ERROR").is_empty());
}

#[tokio::test]
async fn b42_calls_can_be_logged_with_the_field_names_of_opentelemetry() {
    let (log, _guard) = Log::capture("grid::call=debug");
    let servers = Server::cluster(2, &Limits::default()).await;
    servers[0].manager.trace(grid::trace::log_calls());
    servers[1].manager.trace(grid::trace::log_calls());
    let connection = servers[0].wait_connected(&servers[1].url).await;
    connection.request(ECHO, "four").await.expect("an echo");

    let calls = log.lines("call");
    assert_eq!(calls.len(), 2, "{calls:?}");
    let server_address =
        format!("server.address={}", servers[1].url.parse::<Name>().expect("a name"));
    for (line, kind) in calls.iter().zip(["server", "client"]) {
        for field in [
            "DEBUG grid::call:",
            &format!("otel.kind=\"{kind}\""),
            "rpc.system=\"grid\"",
            "rpc.method=",
            &server_address,
            "bytes_out=4",
            "bytes_in=4",
            "outcome=ok",
        ] {
            assert!(line.contains(field), "{field} in {line}");
        }
    }
}
