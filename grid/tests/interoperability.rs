//! The connection and typed payloads, as a peer of another implementation sees them (P1, P21).
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use grid::proto::handshake::Dialer;
use grid::proto::message::{Flags, Header, Op};
use grid::{GRID_PATH, HandlerId, LOCK_GRID_PATH, Limits, SingleHandler};
use serde::{Deserialize, Serialize};
use support::{Dial, ECHO, ReservedAddress, ScriptedPeer, Server, within};
use tokio_tungstenite::tungstenite::Error as WsError;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Range {
    from: u8,
    to: u8,
}

const ECHO_RANGE: SingleHandler<Range, Range> =
    SingleHandler::new(HandlerId::new(214), "EchoRange");

/// Starts a server on `path`, and a peer that is accepted there.
async fn server_and_peer(path: &str) -> (Server, ScriptedPeer, Dial) {
    let address = ReservedAddress::new().await;
    let scripted = ReservedAddress::dialed_by(Dialer::Local, &address.url).await;
    let urls = [address.url.clone(), scripted.url.clone()];
    let server = Server::start_as(address, &urls, |builder| builder.path(path));
    let dial = Dial { path: path.to_owned(), ..Dial::valid(&scripted.url) };
    let mut peer = ScriptedPeer::upgrade(&server.url, &dial).await.expect("an upgrade");
    let response = peer.handshake(&dial).await;
    assert!(response.accepted, "{}", response.rejected_reason);
    server.wait_connected(&scripted.url).await;
    (server, peer, dial)
}

async fn upgrade_status(server: &Server, dial: &Dial) -> u16 {
    match ScriptedPeer::upgrade(&server.url, dial).await {
        Err(WsError::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the upgrade must be refused"),
    }
}

#[tokio::test]
async fn p01_two_servers_share_one_connection_for_the_calls_of_both() {
    let (one, two) = Server::pair(&Limits::default()).await;
    for (from, to) in [(&one, &two), (&two, &one), (&one, &two)] {
        let call = from.connection(&to.url).request(ECHO, Bytes::from_static(b"payload"));
        assert_eq!(within("a response", async { call.await }).await.expect("served"), "payload");
    }
    for (server, other) in [(&one, &two), (&two, &one)] {
        let stats = server.connection(&other.url).stats();
        assert_eq!(stats.connections, 1, "one connection, whichever server dialed");
        assert!(stats.outbound_calls > 0 && stats.inbound_calls > 0, "calls in both directions");
    }
}

#[tokio::test]
async fn p01_each_grid_has_a_path_of_its_own_that_ends_with_the_version() {
    assert_eq!((GRID_PATH, LOCK_GRID_PATH), ("/minio/grid/v1", "/minio/grid/lock/v1"));
    for (path, other) in [(GRID_PATH, LOCK_GRID_PATH), (LOCK_GRID_PATH, GRID_PATH)] {
        let (server, _peer, dial) = server_and_peer(path).await;
        for wrong in [other, "/minio/grid/v2"] {
            let dial = Dial { path: wrong.to_owned(), ..dial.clone() };
            assert_eq!(upgrade_status(&server, &dial).await, 404, "{wrong} at {path}");
        }
    }
}

#[tokio::test]
async fn p21_typed_payloads_are_maps_by_name_in_any_order_with_unknown_keys_skipped() {
    let (server, mut peer, _) = server_and_peer(GRID_PATH).await;
    ECHO_RANGE.register(&server.manager, |_, range| async move { Ok(range) }).expect("free");

    // {"to": 9, "unknown": [1, nil], "from": 2}
    let request = b"\x83\xa2to\x09\xa7unknown\x92\x01\xc0\xa4from\x02";
    let header =
        Header { handler: ECHO_RANGE.id().get(), flags: Flags::EOF, ..Header::new(1, Op::Request) };
    peer.send(header, request).await;
    let response = peer.next_message().await.expect("a response");
    assert!(!response.header.flags.contains(Flags::ERROR), "{:?}", response.payload);
    // {"from": 2, "to": 9}
    assert_eq!(&response.payload[..], b"\x82\xa4from\x02\xa2to\x09");
}
