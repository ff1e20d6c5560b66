//! Dials that are right, dials that are wrong, and sockets that say nothing, over real sockets.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use futures_util::SinkExt;
use grid::proto::handshake::{ConnectResponse, Dialler, InstanceId};
use grid::proto::message::{Header, Op};
use grid::time::Timestamp;
use grid::{ConnectionState, FailureKind, Limits, Manager};
use support::{Dial, ECHO, Place, ScriptedPeer, Server, auth, encode, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

/// A server, and the name of a scripted peer that may dial it.
async fn server_and_dialler(limits: Limits) -> (Server, Place) {
    let place = Place::new().await;
    let dialler = Place::that(Dialler::Local, &place.url).await;
    let urls = [place.url.clone(), dialler.url.clone()];
    (Server::start(place, &urls, limits), dialler)
}

async fn rejection(server: &Server, dial: &Dial) -> String {
    let mut peer = ScriptedPeer::upgrade(&server.url, dial).await.expect("the upgrade is right");
    let response = peer.introduce(dial).await;
    assert!(!response.accepted);
    peer.is_closed().await;
    response.rejected_reason
}

#[tokio::test]
async fn b02_a_wrong_dial_is_rejected_with_its_reason_and_leaves_nothing_behind() {
    let (server, dialler) = server_and_dialler(Limits::default()).await;
    let right = Dial::right(&dialler.url);

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
    let answer = peer.next_frame().await.expect("an answer");
    let answer = ConnectResponse::parse(&answer).expect("a ConnectResponse");
    assert_eq!(answer.rejected_reason, "expected op Connect, got Request");

    // After all that a right dial is taken, and nothing is left of the others.
    let _peer = ScriptedPeer::dial(&server.url, &dialler.url).await;
    eventually("connected", || {
        server.connection(&dialler.url).state() == ConnectionState::Connected
    })
    .await;
    server.is_quiescent().await;
}

#[tokio::test]
async fn b02_a_dial_from_the_wrong_side_is_rejected() {
    let place = Place::new().await;
    let dialled = Place::that(Dialler::Remote, &place.url).await;
    let urls = [place.url.clone(), dialled.url.clone()];
    let server = Server::start(place, &urls, Limits::default());
    assert!(rejection(&server, &Dial::right(&dialled.url)).await.starts_with("wrong direction"));
    server.is_quiescent().await;
}

#[tokio::test]
async fn p02_a_request_that_must_not_upgrade_is_answered_with_the_right_status() {
    let (server, dialler) = server_and_dialler(Limits::default()).await;
    let status = |result: Result<ScriptedPeer, WsError>| match result {
        Err(WsError::Http(response)) => {
            let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or(b""));
            (response.status().as_u16(), body.into_owned())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the upgrade must be refused"),
    };
    let right = Dial::right(&dialler.url);

    let forged = Dial { bearer: "forged".into(), ..right.clone() };
    let (code, body) = status(ScriptedPeer::upgrade(&server.url, &forged).await);
    assert_eq!((code, body.as_str()), (403, "auth token: not a JSON Web Token\n"));

    let lost = Dial { path: "/minio/grid/v2".into(), ..right };
    let (code, body) = status(ScriptedPeer::upgrade(&server.url, &lost).await);
    assert_eq!((code, body.as_str()), (404, "the grid is at /minio/grid/v1\n"));

    let authority = server.url.strip_prefix("http://").expect("a base URL");
    let mut plain = TcpStream::connect(authority).await.expect("it listens");
    let get =
        format!("GET /minio/grid/v1 HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    plain.write_all(get.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    within("an answer", plain.read_to_string(&mut answer)).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    server.is_quiescent().await;
}

#[tokio::test]
async fn what_never_introduces_itself_is_closed_after_the_handshakes_time() {
    let mut limits = Limits::default();
    limits.handshake_timeout = Duration::from_millis(100);
    let (server, dialler) = server_and_dialler(limits).await;
    let authority = server.url.strip_prefix("http://").expect("a base URL");

    let mut silent = TcpStream::connect(authority).await.expect("it listens");
    let mut half = TcpStream::connect(authority).await.expect("it listens");
    half.write_all(b"GET /minio/grid/v1 HTTP/1.1\r\nHost:").await.expect("it reads");
    let mut upgraded =
        ScriptedPeer::upgrade(&server.url, &Dial::right(&dialler.url)).await.expect("upgrades");

    let mut rest = Vec::new();
    let _ = within("the end", silent.read_to_end(&mut rest)).await;
    let _ = within("the end", half.read_to_end(&mut rest)).await;
    upgraded.is_closed().await;
    server.is_quiescent().await;
}

#[tokio::test]
async fn unauthenticated_sockets_are_limited_and_give_their_places_back() {
    let mut limits = Limits::default();
    limits.unauthenticated_max = 2;
    let (server, dialler) = server_and_dialler(limits).await;
    let authority = server.url.strip_prefix("http://").expect("a base URL").to_owned();

    let first = TcpStream::connect(&authority).await.expect("it listens");
    let second = TcpStream::connect(&authority).await.expect("it listens");
    eventually("both have a place", || server.manager.unauthenticated() == 2).await;
    let mut third = TcpStream::connect(&authority).await.expect("it listens");
    let mut rest = Vec::new();
    // Closed at once, long before the handshake's time is over.
    let _ = within("the third to be closed", third.read_to_end(&mut rest)).await;

    drop((first, second));
    eventually("the places are free", || server.manager.unauthenticated() == 0).await;
    ScriptedPeer::dial(&server.url, &dialler.url).await;
    server.is_quiescent().await;
}

#[tokio::test]
async fn a_first_message_that_is_too_large_or_garbage_is_rejected() {
    let (server, dialler) = server_and_dialler(Limits::default()).await;
    let right = Dial::right(&dialler.url);
    for first in [
        vec![0xff; 100],
        vec![],
        encode(Header::new(0, Op::Connect), b"not a map"),
        encode(Header::new(0, Op::Connect), &vec![0x80; 20 * 1024]),
    ] {
        let mut peer = ScriptedPeer::upgrade(&server.url, &right).await.expect("upgrades");
        peer.send_bytes(first).await;
        let answer = peer.next_frame().await.expect("an answer");
        let answer = ConnectResponse::parse(&answer).expect("a ConnectResponse");
        assert!(!answer.accepted && !answer.rejected_reason.is_empty());
        peer.is_closed().await;
    }
    // One that is larger still is not even taken in, let alone answered.
    let mut peer = ScriptedPeer::upgrade(&server.url, &right).await.expect("upgrades");
    let first = encode(Header::new(0, Op::Connect), &vec![0x80; 8 << 20]);
    let _ = peer.socket.send(WsMessage::Binary(first.into())).await;
    peer.is_closed().await;
    server.is_quiescent().await;
}

#[tokio::test]
async fn p11_a_manager_that_is_not_started_takes_no_connection() {
    let place = Place::new().await;
    let dialler = Place::that(Dialler::Local, &place.url).await;
    let manager = Manager::builder(&place.url)
        .servers([place.url.clone(), dialler.url.clone()])
        .auth(auth())
        .build()
        .expect("right");
    tokio::spawn(manager.clone().serve(place.listener));
    let dial = Dial::right(&dialler.url);
    let mut peer = ScriptedPeer::upgrade(&place.url, &dial).await.expect("upgrades");
    assert_eq!(peer.introduce(&dial).await.rejected_reason, "this server is not ready yet");
    manager.start().expect("in a runtime");
    ScriptedPeer::dial(&place.url, &dialler.url).await;
}

#[tokio::test]
async fn b03_a_second_connection_from_the_same_host_supersedes_the_first() {
    let (server, dialler) = server_and_dialler(Limits::default()).await;
    let connection = server.connection(&dialler.url);

    let mut first = ScriptedPeer::dial(&server.url, &dialler.url).await;
    within("connecting", connection.wait_connected()).await.expect("not shut down");
    let call = tokio::spawn({
        let connection = connection.clone();
        async move { connection.request(ECHO, "to the first").await }
    });
    assert_eq!(first.next_message().await.expect("the request").header.op, Op::Request);

    let mut second = ScriptedPeer::dial(&server.url, &dialler.url).await;
    first.is_closed().await;
    let error =
        within("the call", call).await.expect("no panic").expect_err("its connection ended");
    assert!(matches!(error, grid::CallError::Disconnected { .. }), "{error}");

    // The second one works, in both directions.
    second.send(Header { handler: ECHO.get(), ..Header::new(7, Op::Request) }, b"hello").await;
    let answer = second.next_message().await.expect("an answer");
    assert_eq!((answer.header.op, &answer.payload[..]), (Op::Response, &b"hello"[..]));
    assert_eq!(connection.stats().connections, 2);
    server.is_quiescent().await;
}

#[tokio::test]
async fn b02_b04_a_dialler_that_is_rejected_learns_why_and_tries_again() {
    let place = Place::new().await;
    let acceptor = Place::that(Dialler::Remote, &place.url).await;
    let urls = [place.url.clone(), acceptor.url.clone()];
    let server = Server::start(place, &urls, Limits::default());
    let connection = server.connection(&acceptor.url);

    let mut peer = ScriptedPeer::accept_silently(&acceptor.listener).await;
    let answer = ConnectResponse::rejected(InstanceId::default(), "not today");
    peer.send_bytes(answer.encode().expect("encodes")).await;
    eventually("the reason is known", || {
        connection.stats().last_failure.is_some_and(|failure| {
            failure.kind == FailureKind::Refused && &*failure.cause == "rejected: not today"
        })
    })
    .await;

    let _peer = ScriptedPeer::accept(&acceptor.listener).await;
    within("connecting", connection.wait_connected()).await.expect("not shut down");
}

#[tokio::test]
async fn a_dialler_does_not_wait_for_ever_for_the_answer_to_its_connect() {
    let mut limits = Limits::default();
    limits.handshake_timeout = Duration::from_millis(100);
    let place = Place::new().await;
    let acceptor = Place::that(Dialler::Remote, &place.url).await;
    let urls = [place.url.clone(), acceptor.url.clone()];
    let server = Server::start(place, &urls, limits);

    let _silent = ScriptedPeer::accept_silently(&acceptor.listener).await;
    let _second = ScriptedPeer::accept(&acceptor.listener).await;
    let connection = server.connection(&acceptor.url);
    within("connecting", connection.wait_connected()).await.expect("not shut down");
}

#[tokio::test]
async fn b02_with_another_secret_nobody_connects_and_both_sides_say_why() {
    let (one, two) = (Place::new().await, Place::new().await);
    let urls = [one.url.clone(), two.url.clone()];
    let other_secret = grid::Auth::shared_secret(b"another secret").expect("long enough");
    let mut managers = Vec::new();
    for (place, auth) in [(one, auth()), (two, other_secret)] {
        let manager =
            Manager::builder(&place.url).servers(urls.to_vec()).auth(auth).build().expect("right");
        manager.start().expect("in a runtime");
        tokio::spawn(manager.clone().serve(place.listener));
        managers.push(manager);
    }
    eventually("the dialler learns why", || {
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
