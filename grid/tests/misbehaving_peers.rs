//! Peers that send what they must not, or do not do what they must: a clean close, or nothing at
//! all, with nothing left behind and everybody else unaffected.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use grid::proto::message::{Checksum, Flags, Header, Message, Op, Outgoing, parse_frame};
use grid::{CallError, FailureKind, Limits};
use support::scene::{Scene, request};
use support::{ECHO, STUCK, encode, eventually, within};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message as WsMessage;

#[tokio::test]
async fn p08_malformed_messages_end_their_connection_alone() {
    let mut scene = Scene::new(Limits::default()).await;
    let good = encode(request(1), b"payload");
    let mut wrong_checksum = good.clone();
    *wrong_checksum.last_mut().expect("not empty") ^= 1;
    let mut behind = good.clone();
    behind.push(0);
    let mut mistyped = good.clone();
    mistyped[1] = 0xa0; // a text where the mux id must be
    let cases: [&[u8]; 8] = [
        &good[..good.len() / 2],
        &good[..1],
        &[],
        &wrong_checksum,
        &behind,
        &mistyped,
        &[0xc1; 64],
        // A merged message that promises more messages than there are.
        &[0x97, 0, 9, 0, 0, 17, 0, 0xc4, 0],
    ];
    for case in cases {
        scene.peer.send_bytes(case.to_vec()).await;
        scene.peer.is_closed().await;
        eventually("the cause is known", || {
            let cause = scene.connection().stats().last_failure;
            cause.is_some_and(|failure| failure.cause.starts_with("protocol error"))
        })
        .await;
        scene.dial_again().await;
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn what_came_whole_before_a_malformed_message_still_counts() {
    let mut scene = Scene::new(Limits::default()).await;
    let connection = scene.connection();
    let call = tokio::spawn(connection.request(ECHO, "question").into_future());
    let mux_id = scene.peer.next_message().await.expect("the request").header.mux_id;

    let answer = Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) };
    let mut frame = vec![0x97, 0, 2, 0, 0, 17, 0, 0xc4, 0];
    let inner = encode(answer, b"answer");
    frame.extend([0xc4, inner.len() as u8]);
    frame.extend(inner);
    frame.extend([0xc4, 1, 0xc1]); // and then one that is none
    scene.peer.send_bytes(frame).await;
    let answer = within("the answer", call).await.expect("no panic");
    assert_eq!(answer.expect("it was whole"), "answer");
    scene.peer.is_closed().await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection_by_its_header() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 64 * 1024;
    // Nothing else may end it: with the usual pings this passed also without a limit.
    limits.ping_interval = Duration::from_secs(3600);
    let mut scene = Scene::new(limits).await;
    // The header of a masked binary frame of 1 GiB, and none of its bytes.
    let mut header = vec![0x82, 0xff];
    header.extend((1_u64 << 30).to_be_bytes());
    header.extend([0; 4]);
    let stream = scene.peer.socket.get_mut();
    stream.write_all(&header).await.expect("the socket is open");
    scene.peer.is_closed().await;
    scene.dial_again().await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b14_an_answer_that_arrived_before_the_end_is_delivered() {
    for _ in 0..20 {
        let mut scene = Scene::new(Limits::default()).await;
        let connection = scene.connection();
        let call = tokio::spawn(connection.request(ECHO, "question").into_future());
        let mux_id = scene.peer.next_message().await.expect("the request").header.mux_id;
        let header = Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) };
        scene.peer.send(header, b"answer").await;
        drop(scene.peer);
        let answer = within("the answer", call).await.expect("no panic");
        assert_eq!(answer.expect("it arrived"), "answer");
    }
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_discarded() {
    let mut scene = Scene::new(Limits::default()).await;
    let connection = scene.connection();
    let call = tokio::spawn(connection.request(ECHO, "question").into_future());
    let asked = scene.peer.next_message().await.expect("the request").header.mux_id;

    for mux_id in [0, 77, u64::MAX] {
        for op in [Op::Response, Op::MuxConnectError, Op::DisconnectClientMux] {
            let header = Header { flags: Flags::EOF, ..Header::new(mux_id, op) };
            scene.peer.send(header, b"what?").await;
        }
    }
    let answer = Header { flags: Flags::EOF, ..Header::new(asked, Op::Response) };
    scene.peer.send(answer, b"the first").await;
    scene.peer.send(answer, b"the second").await;
    let answer = within("the answer", call).await.expect("no panic");
    assert_eq!(answer.expect("it was asked for"), "the first");
    scene.peer_is_served().await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p07_what_is_not_known_is_skipped() {
    let mut scene = Scene::new(Limits::default()).await;
    for op in [Op::Unknown(0), Op::Unknown(18), Op::Unknown(255), Op::Connect, Op::ConnectResponse]
    {
        scene.peer.send(Header::new(5, op), b"?").await;
    }
    let flags = Flags::from_bits(0b1100_0000).with(Flags::EOF);
    scene.peer.send(Header { flags, ..request(6) }, b"unknown flags").await;
    let answer = scene.peer.next_message().await.expect("an answer");
    assert_eq!(answer.payload, &b"unknown flags"[..]);
    eventually("all are counted", || scene.connection().stats().messages_skipped == 5).await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p03_text_is_ignored_and_control_frames_are_answered() {
    let mut scene = Scene::new(Limits::default()).await;
    scene.peer.socket.send(WsMessage::text("hello")).await.expect("open");
    scene.peer.socket.send(WsMessage::Ping(Bytes::from_static(b"ping"))).await.expect("open");
    let pong = loop {
        match within("a pong", scene.peer.socket.next()).await.expect("open").expect("open") {
            WsMessage::Pong(payload) => break payload,
            WsMessage::Binary(_) => {}
            other => panic!("{other}"),
        }
    };
    assert_eq!(pong, &b"ping"[..]);
    scene.peer_is_served().await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p20_merged_requests_are_all_answered() {
    let mut scene = Scene::new(Limits::default()).await;
    let mut frame = vec![0x97, 0, 100, 0, 0, 17, 0, 0xc4, 0];
    for mux_id in 1..=100 {
        let inner = encode(request(mux_id), &mux_id.to_be_bytes());
        frame.extend([0xc4, inner.len() as u8]);
        frame.extend(inner);
    }
    scene.peer.send_bytes(frame).await;
    for mux_id in 1..=100_u64 {
        let answer = scene.peer.next_message().await.expect("an answer");
        assert_eq!(answer.header.mux_id, mux_id);
        assert_eq!(answer.payload, &mux_id.to_be_bytes()[..]);
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p08_a_request_without_a_checksum_is_served_and_answered_with_one() {
    let mut scene = Scene::new(Limits::default()).await;
    let header = request(3);
    let bare = Outgoing { header, payload: b"bare", subroute: None, checksum: Checksum::Off };
    let mut bytes = Vec::new();
    bare.encode(&mut bytes);
    scene.peer.send_bytes(bytes).await;
    let answer = scene.peer.next_message().await.expect("an answer");
    assert!(answer.header.flags.contains(Flags::CRC));
    assert_eq!(answer.payload, &b"bare"[..]);
}

#[tokio::test]
async fn a_number_in_use_is_not_served_twice() {
    let mut scene = Scene::new(Limits::default()).await;
    let stuck = Header { handler: STUCK.get(), ..request(4) };
    scene.peer.send(stuck, b"").await;
    scene.peer.send(request(4), b"the same number").await;
    scene.peer_is_served().await; // and no answer with number 4 came before that
    assert_eq!(scene.connection().stats().live_served, 1);
    scene.peer.send(Header::new(4, Op::DisconnectServerMux), b"").await;
    scene.peer.send(request(4), b"free again").await;
    let answer = scene.peer.next_message().await.expect("an answer");
    assert_eq!(answer.payload, &b"free again"[..]);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p13_a_stream_that_no_handler_serves_is_refused() {
    let mut scene = Scene::new(Limits::default()).await;
    for (flags, text) in [
        (Flags::NONE, "Invalid Handler for type: 200"),
        (Flags::STATELESS, "Stateless streams not supported"),
    ] {
        let open = Header { flags, op: Op::ConnectMux, ..request(5) };
        scene.peer.send(open, b"").await;
        let refusal = scene.peer.next_message().await.expect("a refusal");
        assert_eq!(refusal.header.op, Op::MuxConnectError);
        assert!(String::from_utf8_lossy(&refusal.payload).contains(text));
    }
    scene.nothing_happened().await;
}

fn quick_pings() -> Limits {
    let mut limits = Limits::default();
    limits.ping_interval = Duration::from_millis(400);
    limits
}

#[tokio::test]
async fn b07_a_peer_that_answers_no_ping_is_found() {
    let scene = Scene::new(quick_pings()).await;
    let connection = scene.connection();
    let call = tokio::spawn(connection.request(ECHO, "question").into_future());
    // The peer's socket stays open, but nobody reads or writes it.
    let error = within("the end", call).await.expect("no panic").expect_err("no answer");
    assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
    let cause = connection.stats().last_failure.expect("it is known");
    assert_eq!(cause.kind, FailureKind::Ended);
    assert_eq!(&*cause.cause, "2 pings in a row went unanswered");
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b06_b07_a_peer_that_stops_reading_is_found_with_both_directions_full() {
    let mut limits = quick_pings();
    limits.message_bytes_max = 1 << 20;
    limits.queue_bytes_max = 2 << 20;
    let scene = Scene::new(limits).await;
    let connection = scene.connection();
    // More than the queue and the socket's buffers hold: most of these wait for room.
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let payload = Bytes::from(vec![0; (1 << 20) - 100]);
            tokio::spawn(connection.request(ECHO, payload).into_future())
        })
        .collect();
    eventually("the queue is full", || connection.stats().blocked_messages > 0).await;
    assert!(connection.stats().queued_bytes <= (2 << 20) + 100);

    // One that waits in line can be given up at once (B06, B11).
    let waiting = connection.stats().blocked_messages;
    calls.last().expect("many").abort();
    eventually("it left the line", || connection.stats().blocked_messages < waiting).await;

    for call in calls {
        match within("the end", call).await {
            Ok(result) => {
                let error = result.expect_err("no answer");
                assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
            }
            Err(aborted) => assert!(aborted.is_cancelled()),
        }
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn a_peer_that_makes_us_answer_and_does_not_read_is_closed() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 32 << 10;
    limits.queue_bytes_max = 64 << 10;
    limits.control_bytes_max = 16 << 10;
    limits.calls_made_max = 256;
    let scene = Scene::new(limits).await;
    let connection = scene.connection();
    let Scene { mut peer, .. } = scene;
    // Each of these is answered with a refusal, which nobody reads.
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
    eventually("the cause is known", || {
        let cause = connection.stats().last_failure;
        cause.is_some_and(|failure| {
            failure.cause.contains("does not read") || failure.cause.contains("reset")
        })
    })
    .await;
    assert!(connection.stats().is_quiescent());
}

#[tokio::test]
async fn a_peer_that_sends_byte_by_byte_is_understood() {
    let mut scene = Scene::new(Limits::default()).await;
    // By hand, so that the frame can be cut: masked with zeros, as a client must.
    let inner = encode(request(9), b"slowly");
    let mut frame = vec![0x82, 0x80 | inner.len() as u8, 0, 0, 0, 0];
    frame.extend(inner);
    let stream = scene.peer.socket.get_mut();
    for byte in frame {
        stream.write_all(&[byte]).await.expect("open");
        tokio::task::yield_now().await;
    }
    let answer = scene.peer.next_message().await.expect("an answer");
    assert_eq!(answer.payload, &b"slowly"[..]);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p03_a_message_in_fragments_is_joined() {
    let mut scene = Scene::new(Limits::default()).await;
    let inner = encode(request(10), b"in three parts");
    let mut frames = Vec::new();
    let parts: Vec<_> = inner.chunks(inner.len().div_ceil(3)).collect();
    for (at, part) in parts.iter().enumerate() {
        let opcode = if at == 0 { 0x02 } else { 0x00 };
        let fin = if at + 1 == parts.len() { 0x80 } else { 0x00 };
        frames.extend([fin | opcode, 0x80 | part.len() as u8, 0, 0, 0, 0]);
        frames.extend(*part);
    }
    scene.peer.socket.get_mut().write_all(&frames).await.expect("open");
    let answer = scene.peer.next_message().await.expect("an answer");
    assert_eq!(answer.payload, &b"in three parts"[..]);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn random_frames_never_harm_anybody_else() {
    use rand::rngs::SmallRng;
    use rand::{Rng, RngExt, SeedableRng};
    let mut rng = SmallRng::seed_from_u64(7);
    let mut scene = Scene::new(Limits::default()).await;
    for _ in 0..100 {
        let mut frame = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut frame);
        if rng.random() {
            // Looks like a message for a while.
            frame.splice(0..0, [0x97, 0x01, 0x00]);
        }
        let mut messages: Vec<Message> = Vec::new();
        let is_message = parse_frame(&frame.clone().into(), &mut messages).is_ok();
        scene.peer.send_bytes(frame).await;
        if !is_message {
            scene.peer.is_closed().await;
            scene.dial_again().await;
        }
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn the_masks_of_the_dialling_side_are_required() {
    let mut scene = Scene::new(Limits::default()).await;
    let inner = encode(request(11), b"unmasked");
    let mut frame = vec![0x82, inner.len() as u8];
    frame.extend(inner);
    scene.peer.socket.get_mut().write_all(&frame).await.expect("open");
    scene.peer.is_closed().await;
    scene.dial_again().await;
    scene.nothing_happened().await;
}
