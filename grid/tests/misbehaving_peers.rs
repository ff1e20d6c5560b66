//! Peers that send forbidden messages, or omit required ones: the connection is closed,
//! or the message ignored, nothing is left behind and no other peer is affected.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use grid::proto::message::{Checksum, Flags, Header, Message, Op, Outgoing, parse_frame};
use grid::{CallError, FailureKind, Limits};
use support::scripted_cluster::{ScriptedCluster, request};
use support::{ECHO, STUCK, encode, eventually, within};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message as WsMessage;

#[tokio::test]
async fn p08_malformed_messages_end_their_connection_alone() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let good = encode(request(1), b"payload");
    let mut wrong_checksum = good.clone();
    *wrong_checksum.last_mut().expect("not empty") ^= 1;
    let mut behind = good.clone();
    behind.push(0);
    let mut mistyped = good.clone();
    mistyped[1] = 0xa0; // a str instead of the mux id
    let cases: [&[u8]; 8] = [
        &good[..good.len() / 2],
        &good[..1],
        &[],
        &wrong_checksum,
        &behind,
        &mistyped,
        &[0xc1; 64],
        // A merged message that announces more messages than it holds.
        &[0x97, 0, 9, 0, 0, 17, 0, 0xc4, 0],
    ];
    for case in cases {
        cluster.peer.send_bytes(case.to_vec()).await;
        cluster.peer.wait_closed().await;
        eventually("the cause is reported", || {
            let cause = cluster.connection().stats().last_failure;
            cause.is_some_and(|failure| failure.cause.starts_with("protocol error"))
        })
        .await;
        cluster.redial().await;
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn messages_before_a_malformed_one_are_handled() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let connection = cluster.connection();
    let call = tokio::spawn(connection.request(ECHO, "question").into_future());
    let mux_id = cluster.peer.next_message().await.expect("the request").header.mux_id;

    let response = Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) };
    let mut frame = vec![0x97, 0, 2, 0, 0, 17, 0, 0xc4, 0];
    let inner = encode(response, b"response");
    frame.extend([0xc4, inner.len() as u8]);
    frame.extend(inner);
    frame.extend([0xc4, 1, 0xc1]); // followed by a malformed one
    cluster.peer.send_bytes(frame).await;
    let response = within("the response", call).await.expect("no panic");
    assert_eq!(response.expect("the response was well formed"), "response");
    cluster.peer.wait_closed().await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn the_header_of_an_oversized_frame_ends_the_connection() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 64 * 1024;
    // Long ping intervals: with the usual ones the ping timeout ended it, limit or not.
    limits.ping_interval = Duration::from_secs(3600);
    let mut cluster = ScriptedCluster::new(limits).await;
    // The header of a masked binary frame of 1 GiB, and none of its bytes.
    let mut header = vec![0x82, 0xff];
    header.extend((1_u64 << 30).to_be_bytes());
    header.extend([0; 4]);
    let stream = cluster.peer.socket.get_mut();
    stream.write_all(&header).await.expect("the socket is open");
    cluster.peer.wait_closed().await;
    cluster.redial().await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b14_a_response_that_arrived_before_the_end_is_delivered() {
    for _ in 0..20 {
        let mut cluster = ScriptedCluster::new(Limits::default()).await;
        let connection = cluster.connection();
        let call = tokio::spawn(connection.request(ECHO, "question").into_future());
        let mux_id = cluster.peer.next_message().await.expect("the request").header.mux_id;
        let header = Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) };
        cluster.peer.send(header, b"response").await;
        drop(cluster.peer);
        let response = within("the response", call).await.expect("no panic");
        assert_eq!(response.expect("it arrived"), "response");
    }
}

#[tokio::test]
async fn responses_without_a_request_are_discarded() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let connection = cluster.connection();
    let call = tokio::spawn(connection.request(ECHO, "question").into_future());
    let requested = cluster.peer.next_message().await.expect("the request").header.mux_id;

    for mux_id in [0, 77, u64::MAX] {
        for op in [Op::Response, Op::MuxConnectError, Op::DisconnectClientMux] {
            let header = Header { flags: Flags::EOF, ..Header::new(mux_id, op) };
            cluster.peer.send(header, b"what?").await;
        }
    }
    let response = Header { flags: Flags::EOF, ..Header::new(requested, Op::Response) };
    cluster.peer.send(response, b"the first").await;
    cluster.peer.send(response, b"the second").await;
    let response = within("the response", call).await.expect("no panic");
    assert_eq!(response.expect("the first response"), "the first");
    cluster.assert_peer_is_served().await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p07_unknown_ops_and_flags_are_skipped() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    for op in [Op::Unknown(0), Op::Unknown(18), Op::Unknown(255), Op::Connect, Op::ConnectResponse]
    {
        cluster.peer.send(Header::new(5, op), b"?").await;
    }
    let flags = Flags::from_bits(0b1100_0000).with(Flags::EOF);
    cluster.peer.send(Header { flags, ..request(6) }, b"unknown flags").await;
    let response = cluster.peer.next_message().await.expect("a response");
    assert_eq!(response.payload, &b"unknown flags"[..]);
    eventually("all are counted", || cluster.connection().stats().messages_skipped == 5).await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p03_text_is_ignored_and_pings_get_pongs() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    cluster.peer.socket.send(WsMessage::text("hello")).await.expect("open");
    cluster.peer.socket.send(WsMessage::Ping(Bytes::from_static(b"ping"))).await.expect("open");
    let pong = loop {
        match within("a pong", cluster.peer.socket.next()).await.expect("open").expect("open") {
            WsMessage::Pong(payload) => break payload,
            WsMessage::Binary(_) => {}
            other => panic!("{other}"),
        }
    };
    assert_eq!(pong, &b"ping"[..]);
    cluster.assert_peer_is_served().await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p20_merged_requests_all_get_their_responses() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let mut frame = vec![0x97, 0, 100, 0, 0, 17, 0, 0xc4, 0];
    for mux_id in 1..=100 {
        let inner = encode(request(mux_id), &mux_id.to_be_bytes());
        frame.extend([0xc4, inner.len() as u8]);
        frame.extend(inner);
    }
    cluster.peer.send_bytes(frame).await;
    for mux_id in 1..=100_u64 {
        let response = cluster.peer.next_message().await.expect("a response");
        assert_eq!(response.header.mux_id, mux_id);
        assert_eq!(response.payload, &mux_id.to_be_bytes()[..]);
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p08_a_request_without_a_checksum_gets_a_response_with_one() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let header = request(3);
    let bare = Outgoing { header, payload: b"bare", subroute: None, checksum: Checksum::Off };
    let mut bytes = Vec::new();
    bare.encode(&mut bytes);
    cluster.peer.send_bytes(bytes).await;
    let response = cluster.peer.next_message().await.expect("a response");
    assert!(response.header.flags.contains(Flags::CRC));
    assert_eq!(response.payload, &b"bare"[..]);
}

#[tokio::test]
async fn a_second_request_with_a_mux_id_in_use_is_skipped() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let stuck = Header { handler: STUCK.get(), ..request(4) };
    cluster.peer.send(stuck, b"").await;
    cluster.peer.send(request(4), b"the same number").await;
    cluster.assert_peer_is_served().await; // no response with mux id 4 came before
    assert_eq!(cluster.connection().stats().live_inbound_calls, 1);
    cluster.peer.send(Header::new(4, Op::DisconnectServerMux), b"").await;
    cluster.peer.send(request(4), b"free again").await;
    let response = cluster.peer.next_message().await.expect("a response");
    assert_eq!(response.payload, &b"free again"[..]);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p13_a_stream_without_a_handler_is_refused() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    for (flags, text) in [
        (Flags::NONE, "Invalid Handler for type: 200"),
        (Flags::STATELESS, "Stateless streams not supported"),
    ] {
        let open = Header { flags, op: Op::ConnectMux, ..request(5) };
        cluster.peer.send(open, b"").await;
        let refusal = cluster.peer.next_message().await.expect("a refusal");
        assert_eq!(refusal.header.op, Op::MuxConnectError);
        assert!(String::from_utf8_lossy(&refusal.payload).contains(text));
    }
    cluster.assert_unaffected().await;
}

fn quick_pings() -> Limits {
    let mut limits = Limits::default();
    limits.ping_interval = Duration::from_millis(400);
    limits
}

#[tokio::test]
async fn b07_a_peer_that_sends_no_pong_is_disconnected() {
    let cluster = ScriptedCluster::new(quick_pings()).await;
    let connection = cluster.connection();
    let call = tokio::spawn(connection.request(ECHO, "question").into_future());
    // The peer's socket stays open, but is neither read nor written.
    let error = within("the end", call).await.expect("no panic").expect_err("no response");
    assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
    let cause = connection.stats().last_failure.expect("a failure");
    assert_eq!(cause.kind, FailureKind::Ended);
    assert_eq!(&*cause.cause, "2 pings in a row without a pong");
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b06_b07_a_peer_that_stops_reading_is_disconnected_with_both_directions_full() {
    let mut limits = quick_pings();
    limits.message_bytes_max = 1 << 20;
    limits.queue_bytes_max = 2 << 20;
    let cluster = ScriptedCluster::new(limits).await;
    let connection = cluster.connection();
    // More than the queue and the socket's buffers hold: most of these wait for queue space.
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let payload = Bytes::from(vec![0; (1 << 20) - 100]);
            tokio::spawn(connection.request(ECHO, payload).into_future())
        })
        .collect();
    eventually("the queue is full", || connection.stats().blocked_messages > 0).await;
    assert!(connection.stats().queued_bytes <= (2 << 20) + 100);

    // A waiting request can be cancelled at once (B06, B11).
    let waiting = connection.stats().blocked_messages;
    calls.last().expect("many").abort();
    eventually("it left the queue", || connection.stats().blocked_messages < waiting).await;

    for call in calls {
        match within("the end", call).await {
            Ok(result) => {
                let error = result.expect_err("no response");
                assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
            }
            Err(aborted) => assert!(aborted.is_cancelled()),
        }
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn a_peer_that_causes_replies_and_does_not_read_is_disconnected() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 32 << 10;
    limits.queue_bytes_max = 64 << 10;
    limits.control_bytes_max = 16 << 10;
    limits.outbound_calls_max = 256;
    let cluster = ScriptedCluster::new(limits).await;
    let connection = cluster.connection();
    let ScriptedCluster { mut peer, .. } = cluster;
    // Each of these causes a refusal, which the peer does not read.
    let unknown = encode(Header { handler: 99, ..request(8) }, b"");
    let flood = async {
        loop {
            let sent = peer.socket.feed(WsMessage::Binary(unknown.clone().into())).await;
            if sent.is_err() {
                return;
            }
        }
    };
    within("the server to close", flood).await;
    eventually("the cause is reported", || {
        let cause = connection.stats().last_failure;
        cause.is_some_and(|failure| {
            failure.cause.contains("does not read") || failure.cause.contains("reset")
        })
    })
    .await;
    assert!(connection.stats().is_quiescent());
}

#[tokio::test]
async fn a_peer_that_sends_byte_by_byte_is_served() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    // Encoded here, so that the frame can be split: masked with zeros, as a client must.
    let inner = encode(request(9), b"slowly");
    let mut frame = vec![0x82, 0x80 | inner.len() as u8, 0, 0, 0, 0];
    frame.extend(inner);
    let stream = cluster.peer.socket.get_mut();
    for byte in frame {
        stream.write_all(&[byte]).await.expect("open");
        tokio::task::yield_now().await;
    }
    let response = cluster.peer.next_message().await.expect("a response");
    assert_eq!(response.payload, &b"slowly"[..]);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p03_a_message_in_fragments_is_joined() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let inner = encode(request(10), b"in three parts");
    let mut frames = Vec::new();
    let parts: Vec<_> = inner.chunks(inner.len().div_ceil(3)).collect();
    for (at, part) in parts.iter().enumerate() {
        let opcode = if at == 0 { 0x02 } else { 0x00 };
        let fin = if at + 1 == parts.len() { 0x80 } else { 0x00 };
        frames.extend([fin | opcode, 0x80 | part.len() as u8, 0, 0, 0, 0]);
        frames.extend(*part);
    }
    cluster.peer.socket.get_mut().write_all(&frames).await.expect("open");
    let response = cluster.peer.next_message().await.expect("a response");
    assert_eq!(response.payload, &b"in three parts"[..]);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn random_frames_never_affect_other_peers() {
    use rand::rngs::SmallRng;
    use rand::{Rng, RngExt, SeedableRng};
    let mut rng = SmallRng::seed_from_u64(7);
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    for _ in 0..100 {
        let mut frame = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut frame);
        if rng.random() {
            // Begins like a valid message.
            frame.splice(0..0, [0x97, 0x01, 0x00]);
        }
        let mut messages: Vec<Message> = Vec::new();
        let is_message = parse_frame(&frame.clone().into(), &mut messages).is_ok();
        cluster.peer.send_bytes(frame).await;
        if !is_message {
            cluster.peer.wait_closed().await;
            cluster.redial().await;
        }
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn unmasked_frames_of_a_dialer_are_refused() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let inner = encode(request(11), b"unmasked");
    let mut frame = vec![0x82, inner.len() as u8];
    frame.extend(inner);
    cluster.peer.socket.get_mut().write_all(&frame).await.expect("open");
    cluster.peer.wait_closed().await;
    cluster.redial().await;
    cluster.assert_unaffected().await;
}
