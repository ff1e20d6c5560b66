//! Valid dials, wrong dials, and sockets that send nothing, over real sockets.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use futures_util::SinkExt;
use grid::proto::handshake::{ConnectResponse, Dialer, InstanceId};
use grid::proto::message::{Header, Op};
use grid::time::Timestamp;
use grid::{ConnectionState, FailureKind, Limits, Manager};
use support::{
    Dial, ECHO, ReservedAddress, ScriptedPeer, Server, auth, encode, eventually, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

/// Starts a server, and reserves the name of a scripted peer that may dial it.
async fn server_and_dialer(limits: Limits) -> (Server, ReservedAddress) {
    let address = ReservedAddress::new().await;
    let dialer = ReservedAddress::dialed_by(Dialer::Local, &address.url).await;
    let urls = [address.url.clone(), dialer.url.clone()];
    (Server::start(address, &urls, limits), dialer)
}

async fn rejection(server: &Server, dial: &Dial) -> String {
    let mut peer = ScriptedPeer::upgrade(&server.url, dial).await.expect("the upgrade is right");
    let response = peer.handshake(dial).await;
    assert!(!response.accepted);
    peer.wait_closed().await;
    response.rejected_reason
}

#[tokio::test]
async fn b02_a_wrong_dial_is_rejected_with_its_reason_and_leaves_nothing_behind() {
    let (server, dialer) = server_and_dialer(Limits::default()).await;
    let right = Dial::valid(&dialer.url);

    let unknown = Dial { host: "http://10.9.9.9:9".into(), ..right.clone() };
    assert!(rejection(&server, &unknown).await.starts_with("unknown incoming host"));

    let itself = Dial { host: server.url.clone(), ..right.clone() };
    assert!(rejection(&server, &itself).await.starts_with("unknown incoming host"));

    let late = Dial { time: Timestamp::new(right.time.seconds() - 301, 0), ..right.clone() };
    assert!(rejection(&server, &late).await.starts_with("time difference too large"));

    let forged = Dial { token: "forged".into(), ..right.clone() };
    assert!(rejection(&server, &forged).await.starts_with("auth token"));

    let elsewhere = Dial { http_host: Some("10.1.1.1:9".into()), ..right.clone() };
    assert!(rejection(&server, &elsewhere).await.starts_with("wrong host"));

    let mut peer = ScriptedPeer::upgrade(&server.url, &right).await.expect("upgrades");
    peer.send(Header::new(1, Op::Request), b"no Connect before").await;
    let response = peer.next_frame().await.expect("a response");
    let response = ConnectResponse::parse(&response).expect("a ConnectResponse");
    assert_eq!(response.rejected_reason, "expected op Connect, got Request");

    // After all of them a valid dial is accepted, and nothing is left of the others.
    let _peer = ScriptedPeer::dial(&server.url, &dialer.url).await;
    eventually("connected", || {
        server.connection(&dialer.url).state() == ConnectionState::Connected
    })
    .await;
    server.assert_quiescent().await;
}

#[tokio::test]
async fn b02_a_dial_from_the_wrong_side_is_rejected() {
    let address = ReservedAddress::new().await;
    let dialed = ReservedAddress::dialed_by(Dialer::Remote, &address.url).await;
    let urls = [address.url.clone(), dialed.url.clone()];
    let server = Server::start(address, &urls, Limits::default());
    assert!(rejection(&server, &Dial::valid(&dialed.url)).await.starts_with("wrong direction"));
    server.assert_quiescent().await;
}

#[tokio::test]
async fn p02_a_request_that_must_not_upgrade_gets_the_right_status() {
    let (server, dialer) = server_and_dialer(Limits::default()).await;
    let status = |result: Result<ScriptedPeer, WsError>| match result {
        Err(WsError::Http(response)) => {
            let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or(b""));
            (response.status().as_u16(), body.into_owned())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the upgrade must be refused"),
    };
    let right = Dial::valid(&dialer.url);

    let forged = Dial { bearer: "forged".into(), ..right.clone() };
    let (code, body) = status(ScriptedPeer::upgrade(&server.url, &forged).await);
    assert_eq!((code, body.as_str()), (403, "auth token: not a JSON Web Token\n"));

    let lost = Dial { path: "/minio/grid/v2".into(), ..right };
    let (code, body) = status(ScriptedPeer::upgrade(&server.url, &lost).await);
    assert_eq!((code, body.as_str()), (404, "the grid is at /minio/grid/v1\n"));

    let authority = server.url.strip_prefix("http://").expect("a base URL");
    let mut plain = TcpStream::connect(authority).await.expect("the port is open");
    let get =
        format!("GET /minio/grid/v1 HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    plain.write_all(get.as_bytes()).await.expect("it reads");
    let mut response = String::new();
    within("a response", plain.read_to_string(&mut response)).await.expect("a whole response");
    assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
    server.assert_quiescent().await;
}

#[tokio::test]
async fn a_socket_without_a_handshake_is_closed_after_the_handshake_timeout() {
    let mut limits = Limits::default();
    limits.handshake_timeout = Duration::from_millis(100);
    let (server, dialer) = server_and_dialer(limits).await;
    let authority = server.url.strip_prefix("http://").expect("a base URL");

    let mut silent = TcpStream::connect(authority).await.expect("the port is open");
    let mut half = TcpStream::connect(authority).await.expect("the port is open");
    half.write_all(b"GET /minio/grid/v1 HTTP/1.1\r\nHost:").await.expect("it reads");
    let mut upgraded =
        ScriptedPeer::upgrade(&server.url, &Dial::valid(&dialer.url)).await.expect("upgrades");

    let mut rest = Vec::new();
    let _ = within("the end", silent.read_to_end(&mut rest)).await;
    let _ = within("the end", half.read_to_end(&mut rest)).await;
    upgraded.wait_closed().await;
    server.assert_quiescent().await;
}

#[tokio::test]
async fn unauthenticated_sockets_are_limited_and_release_their_permits() {
    let mut limits = Limits::default();
    limits.unauthenticated_max = 2;
    let (server, dialer) = server_and_dialer(limits).await;
    let authority = server.url.strip_prefix("http://").expect("a base URL").to_owned();

    let first = TcpStream::connect(&authority).await.expect("the port is open");
    let second = TcpStream::connect(&authority).await.expect("the port is open");
    eventually("both are counted", || server.manager.unauthenticated_sockets() == 2).await;
    let mut third = TcpStream::connect(&authority).await.expect("the port is open");
    let mut rest = Vec::new();
    // Closed at once, long before the handshake timeout.
    let _ = within("the third to be closed", third.read_to_end(&mut rest)).await;

    drop((first, second));
    eventually("both permits are released", || server.manager.unauthenticated_sockets() == 0).await;
    ScriptedPeer::dial(&server.url, &dialer.url).await;
    server.assert_quiescent().await;
}

#[tokio::test]
async fn an_oversized_or_malformed_first_message_is_rejected() {
    let (server, dialer) = server_and_dialer(Limits::default()).await;
    let right = Dial::valid(&dialer.url);
    for first in [
        vec![0xff; 100],
        vec![],
        encode(Header::new(0, Op::Connect), b"not a map"),
        encode(Header::new(0, Op::Connect), &vec![0x80; 20 * 1024]),
    ] {
        let mut peer = ScriptedPeer::upgrade(&server.url, &right).await.expect("upgrades");
        peer.send_bytes(first).await;
        let response = peer.next_frame().await.expect("a response");
        let response = ConnectResponse::parse(&response).expect("a ConnectResponse");
        assert!(!response.accepted && !response.rejected_reason.is_empty());
        peer.wait_closed().await;
    }
    // A larger one still is not read, let alone rejected with a response.
    let mut peer = ScriptedPeer::upgrade(&server.url, &right).await.expect("upgrades");
    let first = encode(Header::new(0, Op::Connect), &vec![0x80; 8 << 20]);
    let _ = peer.socket.send(WsMessage::Binary(first.into())).await;
    peer.wait_closed().await;
    server.assert_quiescent().await;
}

#[tokio::test]
async fn p11_a_manager_that_is_not_started_accepts_no_connection() {
    let address = ReservedAddress::new().await;
    let dialer = ReservedAddress::dialed_by(Dialer::Local, &address.url).await;
    let manager = Manager::builder(&address.url)
        .servers([address.url.clone(), dialer.url.clone()])
        .auth(auth())
        .build()
        .expect("right");
    tokio::spawn(manager.clone().serve(address.listener));
    let dial = Dial::valid(&dialer.url);
    let mut peer = ScriptedPeer::upgrade(&address.url, &dial).await.expect("upgrades");
    assert_eq!(peer.handshake(&dial).await.rejected_reason, "this server is not ready yet");
    manager.start().expect("in a runtime");
    ScriptedPeer::dial(&address.url, &dialer.url).await;
}

#[tokio::test]
async fn b03_a_second_connection_from_the_same_host_supersedes_the_first() {
    let (server, dialer) = server_and_dialer(Limits::default()).await;
    let connection = server.connection(&dialer.url);

    let mut first = ScriptedPeer::dial(&server.url, &dialer.url).await;
    within("connecting", connection.wait_connected()).await.expect("not shut down");
    let call = tokio::spawn({
        let connection = connection.clone();
        async move { connection.request(ECHO, "to the first").await }
    });
    assert_eq!(first.next_message().await.expect("the request").header.op, Op::Request);

    let mut second = ScriptedPeer::dial(&server.url, &dialer.url).await;
    first.wait_closed().await;
    let error =
        within("the call", call).await.expect("no panic").expect_err("its connection ended");
    assert!(matches!(error, grid::CallError::Disconnected { .. }), "{error}");

    // The second one works in both directions.
    second.send(Header { handler: ECHO.get(), ..Header::new(7, Op::Request) }, b"hello").await;
    let response = second.next_message().await.expect("a response");
    assert_eq!((response.header.op, &response.payload[..]), (Op::Response, &b"hello"[..]));
    assert_eq!(connection.stats().connections, 2);
    server.assert_quiescent().await;
}

#[tokio::test]
async fn b02_b04_a_rejected_dialer_learns_the_reason_and_retries() {
    let address = ReservedAddress::new().await;
    let acceptor = ReservedAddress::dialed_by(Dialer::Remote, &address.url).await;
    let urls = [address.url.clone(), acceptor.url.clone()];
    let server = Server::start(address, &urls, Limits::default());
    let connection = server.connection(&acceptor.url);

    let mut peer = ScriptedPeer::accept_without_response(&acceptor.listener).await;
    let response = ConnectResponse::rejected(InstanceId::default(), "not today");
    peer.send_bytes(response.encode().expect("encodes")).await;
    eventually("the reason is reported", || {
        connection.stats().last_failure.is_some_and(|failure| {
            failure.kind == FailureKind::Refused && &*failure.cause == "rejected: not today"
        })
    })
    .await;

    let _peer = ScriptedPeer::accept(&acceptor.listener).await;
    within("connecting", connection.wait_connected()).await.expect("not shut down");
}

#[tokio::test]
async fn a_dialer_limits_its_wait_for_the_connect_response() {
    let mut limits = Limits::default();
    limits.handshake_timeout = Duration::from_millis(100);
    let address = ReservedAddress::new().await;
    let acceptor = ReservedAddress::dialed_by(Dialer::Remote, &address.url).await;
    let urls = [address.url.clone(), acceptor.url.clone()];
    let server = Server::start(address, &urls, limits);

    let _silent = ScriptedPeer::accept_without_response(&acceptor.listener).await;
    let _second = ScriptedPeer::accept(&acceptor.listener).await;
    let connection = server.connection(&acceptor.url);
    within("connecting", connection.wait_connected()).await.expect("not shut down");
}

#[tokio::test]
async fn b02_servers_with_different_secrets_do_not_connect_and_both_report_why() {
    let (one, two) = (ReservedAddress::new().await, ReservedAddress::new().await);
    let urls = [one.url.clone(), two.url.clone()];
    let other_secret = grid::Auth::shared_secret(b"another secret").expect("long enough");
    let mut managers = Vec::new();
    for (address, auth) in [(one, auth()), (two, other_secret)] {
        let manager = Manager::builder(&address.url)
            .servers(urls.to_vec())
            .auth(auth)
            .build()
            .expect("right");
        manager.start().expect("in a runtime");
        tokio::spawn(manager.clone().serve(address.listener));
        managers.push(manager);
    }
    eventually("the dialer reports the reason", || {
        managers.iter().flat_map(Manager::stats).any(|stats| {
            stats.last_failure.is_some_and(|failure| {
                failure.kind == FailureKind::Refused
                    && failure.cause.contains("signed with another secret")
            })
        })
    })
    .await;
    assert!(managers.iter().flat_map(Manager::stats).all(|stats| stats.connections == 0));
}

#[tokio::test]
async fn b01_wrong_addresses_are_errors_at_construction() {
    let build = |local: &str, servers: &[&str]| {
        let built = Manager::builder(local).servers(servers.iter().copied()).auth(auth()).build();
        built.map(|_| ()).expect_err("must be refused").to_string()
    };
    assert!(build("nonsense", &["nonsense"]).contains("malformed"));
    assert!(build("http://a:1", &["http://a:1", "nonsense"]).contains("malformed"));
    assert!(build("http://a:1", &["http://b:1"]).contains("must be listed"));
    assert!(build("http://a:1", &[]).contains("must be listed"));
    assert!(build("http://a:1", &["http://a:1", "http://a:1"]).contains("more than once"));
    assert!(
        build("http://a:1", &["http://a:1", "http://b:1", "http://b:1"]).contains("http://b:1")
    );

    let no_auth = Manager::builder("http://a:1").servers(["http://a:1"]).build();
    assert!(no_auth.expect_err("no auth").to_string().contains("auth"));
    for path in ["", "grid", "/a b", "/a?b", "/a#b"] {
        let built =
            Manager::builder("http://a:1").servers(["http://a:1"]).auth(auth()).path(path).build();
        assert!(built.is_err(), "{path:?}");
    }
}
