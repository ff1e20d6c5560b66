//! Outbound streams to a peer with the defects of MinIO peers, or worse: each ends for its own
//! caller with the right result, and no other call is affected.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use grid::proto::message::{Flags, Header, Message, Op};
use grid::{HandlerId, Limits, OpenStream, Route, SendError, Stream, StreamError};
use support::scripted_cluster::{ScriptedCluster, request};
use support::streams::{
    collect_rest, is_deadline, is_disconnected, is_unknown_handler, message, remote_text,
};
use support::{STUCK, ScriptedPeer, eventually, merged, within};
use tokio::sync::watch;

/// A handler of the scripted peer.
const PEER_HANDLER: HandlerId = HandlerId::new(220);

/// The header of a message of this stream, as a callee sends it.
fn callee_header(mux_id: u64, op: Op, sequence: u32) -> Header {
    Header { sequence, ..Header::new(mux_id, op) }
}

fn data(mux_id: u64, sequence: u32) -> Header {
    callee_header(mux_id, Op::MuxServerMsg, sequence)
}

fn end(mux_id: u64, sequence: u32) -> Header {
    Header { flags: Flags::EOF, ..data(mux_id, sequence) }
}

fn failure(mux_id: u64, sequence: u32) -> Header {
    Header { flags: Flags::EOF.with(Flags::ERROR), ..data(mux_id, sequence) }
}

/// Receives the next message except pings of the connection.
async fn next_call_message(peer: &mut ScriptedPeer) -> Message {
    loop {
        let message = peer.next_message().await.expect("the connection stays open");
        if message.header.op != Op::Ping || message.header.mux_id != 0 {
            return message;
        }
    }
}

async fn expect_message(peer: &mut ScriptedPeer, op: Op) -> Header {
    let header = next_call_message(peer).await.header;
    assert_eq!(header.op, op, "{header:?}");
    header
}

fn peer_stream(cluster: &ScriptedCluster) -> OpenStream {
    cluster.connection().stream(PEER_HANDLER, "payload")
}

/// Opens a stream that the peer acknowledges. Returns it with its mux id.
async fn acknowledged(cluster: &mut ScriptedCluster, open: OpenStream) -> (Stream, u64) {
    let opening = tokio::spawn(open.into_future());
    let mux_id = expect_message(&mut cluster.peer, Op::ConnectMux).await.mux_id;
    cluster.peer.send(callee_header(mux_id, Op::AckMux, 0), b"").await;
    let stream = within("opening", opening).await.expect("no panic").expect("it opens");
    (stream, mux_id)
}

#[tokio::test]
async fn p15_an_opening_has_its_handler_payload_and_flags() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    for (open, payload, flags, has_deadline) in [
        (peer_stream(&cluster), &b"payload"[..], Flags::NONE, false),
        (cluster.connection().stream(PEER_HANDLER, ""), b"", Flags::ZERO, false),
        (peer_stream(&cluster).without_payload(), b"", Flags::NONE, false),
        (peer_stream(&cluster).input_capacity(0), b"payload", Flags::EOF, false),
        (peer_stream(&cluster).timeout(Duration::from_secs(60)), b"payload", Flags::NONE, true),
    ] {
        let opening = tokio::spawn(open.into_future());
        let Message { header, payload: received, .. } = next_call_message(&mut cluster.peer).await;
        assert_eq!((header.op, header.handler, header.sequence), (Op::ConnectMux, 220, 0));
        assert_eq!((&received[..], header.flags.without(Flags::CRC)), (payload, flags));
        assert_eq!(header.deadline_ms > 59_000 && header.deadline_ms <= 60_000, has_deadline);
        opening.abort();
        let cancelled = expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
        assert_eq!(cancelled.mux_id, header.mux_id);
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b16_cancelling_500_streams_ends_none_of_500_inbound_requests_with_the_same_mux_ids() {
    const COUNT: u64 = 500;
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let (release, released) = watch::channel(false);
    cluster
        .server
        .manager
        .register(Route::new(PEER_HANDLER), move |_, payload: Bytes| {
            let mut released = released.clone();
            async move {
                released.wait_for(|released| *released).await.expect("the test is running");
                Ok(payload)
            }
        })
        .expect("free");
    for mux_id in 1..=COUNT {
        let header = Header { handler: PEER_HANDLER.get(), ..request(mux_id) };
        cluster.peer.send(header, &mux_id.to_be_bytes()).await;
    }
    let connection = cluster.connection();
    eventually("all run", || connection.stats().live_inbound_calls == COUNT as usize).await;

    let opening: Vec<_> =
        (0..COUNT).map(|_| tokio::spawn(peer_stream(&cluster).into_future())).collect();
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        let mux_id = expect_message(&mut cluster.peer, Op::ConnectMux).await.mux_id;
        cluster.peer.send(callee_header(mux_id, Op::AckMux, 0), b"").await;
        ids.push(mux_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=COUNT).collect::<Vec<_>>(), "the same mux ids");
    for opening in opening {
        drop(within("opening", opening).await.expect("no panic").expect("it opens"));
    }
    for _ in 0..COUNT {
        expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
    }
    // Messages of the peer that were in flight arrive late, and get replies toward its own streams
    // only.
    for mux_id in 1..=COUNT {
        for op in [Op::AckMux, Op::MuxServerMsg, Op::Pong] {
            cluster.peer.send(callee_header(mux_id, op, 1), b"").await;
            let response = expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
            assert_eq!(response.mux_id, mux_id);
        }
        // An end gets no reply, nor does a credit.
        cluster.peer.send(end(mux_id, 2), b"").await;
        cluster.peer.send(failure(mux_id, 2), b"context canceled").await;
        cluster.peer.send(callee_header(mux_id, Op::UnblockClMux, 2), b"").await;
        cluster.peer.send(callee_header(mux_id, Op::DisconnectClientMux, 2), b"").await;
    }
    cluster.assert_peer_is_served().await; // no other message came before
    assert_eq!(connection.stats().live_inbound_calls, COUNT as usize);

    release.send_replace(true);
    let mut responded = Vec::new();
    for _ in 0..COUNT {
        let Message { header, payload, .. } = next_call_message(&mut cluster.peer).await;
        assert_eq!(header.op, Op::Response);
        assert_eq!(payload, &header.mux_id.to_be_bytes()[..]);
        responded.push(header.mux_id);
    }
    responded.sort_unstable();
    assert_eq!(responded, ids);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b23_a_complete_stream_ends_cleanly_whatever_minio_peers_send_after_it() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    for round in 0..300_u32 {
        let opening = tokio::spawn(peer_stream(&cluster).into_future());
        let mux_id = expect_message(&mut cluster.peer, Op::ConnectMux).await.mux_id;
        let cancelled =
            Header { flags: Flags::ERROR, ..callee_header(mux_id, Op::DisconnectClientMux, 0) };
        let all: [(Header, &[u8]); 6] = [
            (callee_header(mux_id, Op::AckMux, 0), b""),
            (data(mux_id, 1), b"one"),
            (data(mux_id, 2), b"two"),
            (end(mux_id, 3), b""),
            (callee_header(mux_id, Op::DisconnectClientMux, 0), b""),
            (cancelled, b"context canceled"),
        ];
        match round % 3 {
            // Merged, one by one, or with a receiver that already waits.
            0 => cluster.peer.send_bytes(merged(&all)).await,
            1 => {
                for (header, payload) in all {
                    cluster.peer.send(header, payload).await;
                }
            }
            _ => {
                cluster.peer.send_bytes(merged(&all[..2])).await;
                tokio::task::yield_now().await;
                cluster.peer.send_bytes(merged(&all[2..])).await;
            }
        }
        let connection = cluster.connection();
        eventually("all messages arrived", || connection.stats().live_outbound_streams == 0).await;
        let stream = within("opening", opening).await.expect("no panic").expect("it opens");
        let (mut sender, mut receiver) = stream.split();
        assert_eq!(sender.send("late").await, Err(SendError::Finished));
        let (messages, ended) = collect_rest(&mut receiver).await;
        assert_eq!((messages, ended), (vec!["one".into(), "two".into()], Ok(())));
        assert_eq!(sender.finish().await, Ok(()));
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b23_a_complete_stream_ends_cleanly_when_its_connection_ends_right_after() {
    for op in [Some(Op::Disconnect), None] {
        let mut cluster = ScriptedCluster::new(Limits::default()).await;
        let (stream, mux_id) = {
            let open = peer_stream(&cluster);
            acknowledged(&mut cluster, open).await
        };
        cluster.peer.send(data(mux_id, 1), b"one").await;
        cluster.peer.send(end(mux_id, 2), b"").await;
        match op {
            Some(op) => cluster.peer.send(Header::new(0, op), b"").await,
            None => drop(cluster.peer),
        }
        let connection = cluster.server.connection(&cluster.peer_url);
        eventually("the end", || connection.state() != grid::ConnectionState::Connected).await;
        let (_sender, mut receiver) = stream.split();
        assert_eq!(collect_rest(&mut receiver).await, (vec!["one".into()], Ok(())));
        cluster.server.assert_quiescent().await;
    }
}

#[tokio::test]
async fn b05_b14_a_disconnected_stream_delivers_what_arrived_and_then_disconnected() {
    for round in 0..20 {
        let mut cluster = ScriptedCluster::new(Limits::default()).await;
        let open = peer_stream(&cluster).input_capacity(1);
        let (stream, mux_id) = acknowledged(&mut cluster, open).await;
        let (mut sender, mut receiver) = stream.split();
        sender.send("x").await.expect("there is credit");
        let waiting = tokio::spawn(async move { sender.send("waits").await });
        cluster.peer.send(data(mux_id, 1), b"one").await;
        cluster.peer.send(data(mux_id, 2), b"two").await;
        let reading = round % 2 == 0;
        if reading {
            assert_eq!(message(&mut receiver).await, "one");
        }
        drop(cluster.peer);
        let error = within("the end", waiting).await.expect("no panic").expect_err("cut off");
        assert!(matches!(&error, SendError::Stream(error) if is_disconnected(error)), "{error}");
        let (messages, ended) = collect_rest(&mut receiver).await;
        assert_eq!(messages.len(), 2 - usize::from(reading));
        assert!(is_disconnected(&ended.expect_err("cut off")));
        cluster.server.assert_quiescent().await;
    }
}

#[tokio::test]
async fn b24_the_last_message_before_an_error_reaches_a_slow_receiver() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    for round in 0..100_u32 {
        let capacity = 1 + round % 4;
        let open = peer_stream(&cluster).output_capacity(capacity);
        let (stream, mux_id) = acknowledged(&mut cluster, open).await;
        for number in 1..=capacity {
            cluster.peer.send(data(mux_id, number), &[number as u8]).await;
        }
        match round % 3 {
            0 => cluster.peer.send(failure(mux_id, capacity + 1), b"failed").await,
            1 => {
                let gone = callee_header(mux_id, Op::DisconnectClientMux, capacity + 1);
                cluster.peer.send(Header { flags: Flags::ERROR, ..gone }, b"failed").await;
            }
            _ => {
                let pong = b"\x82\xa2nf\xc2\xa1e\xa6failed";
                cluster.peer.send(callee_header(mux_id, Op::Pong, 1), pong).await;
            }
        }
        let connection = cluster.connection();
        eventually("the error arrived", || connection.stats().live_outbound_streams == 0).await;
        let (_sender, mut receiver) = stream.split();
        let (messages, ended) = collect_rest(&mut receiver).await;
        let expected: Vec<_> =
            (1..=capacity).map(|number| Bytes::from(vec![number as u8])).collect();
        assert_eq!(messages, expected);
        assert_eq!(remote_text(ended), "failed");
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b21_a_handlers_overrun_is_an_error_of_its_stream_after_the_messages_within_its_credit() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let open = peer_stream(&cluster);
    let (mut other, other_id) = acknowledged(&mut cluster, open).await;
    for capacity in [1, 3] {
        let open = peer_stream(&cluster).output_capacity(capacity);
        let (stream, mux_id) = acknowledged(&mut cluster, open).await;
        for number in 1..=capacity + 1 {
            cluster.peer.send(data(mux_id, number), b"x").await;
        }
        let gone = expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
        assert_eq!(gone.mux_id, mux_id);
        let (mut sender, mut receiver) = stream.split();
        let (messages, ended) = collect_rest(&mut receiver).await;
        assert_eq!(messages.len(), capacity as usize);
        assert!(matches!(ended, Err(StreamError::Overrun { .. })), "{ended:?}");
        let error = sender.send("x").await;
        assert!(matches!(error, Err(SendError::Stream(StreamError::Overrun { .. }))), "{error:?}");
    }
    cluster.peer.send(data(other_id, 1), b"goes on").await;
    assert_eq!(within("a message", other.next()).await, Some(Ok("goes on".into())));
    drop(other);
    expect_message(&mut cluster.peer, Op::UnblockSrvMux).await;
    expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b22_a_gap_or_a_duplicate_is_an_incorrect_sequence() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    for wrong in [0, 1, 3, u32::MAX] {
        let open = peer_stream(&cluster);
        let (stream, mux_id) = acknowledged(&mut cluster, open).await;
        cluster.peer.send(data(mux_id, 1), b"one").await;
        cluster.peer.send(data(mux_id, wrong), b"wrong").await;
        let (_sender, mut receiver) = stream.split();
        assert_eq!(message(&mut receiver).await, "one");
        let error = collect_rest(&mut receiver).await.1.expect_err("out of sequence");
        let StreamError::IncorrectSequence { expected: 2, received, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(received, wrong);
        loop {
            match next_call_message(&mut cluster.peer).await.header {
                Header { op: Op::UnblockSrvMux, .. } => {}
                header => break assert_eq!(header, disconnected(mux_id)),
            }
        }
    }
    cluster.assert_unaffected().await;
}

fn disconnected(mux_id: u64) -> Header {
    let header = Header::new(mux_id, Op::DisconnectServerMux);
    Header { flags: Flags::CRC, ..header }
}

#[tokio::test]
async fn each_kind_of_end_keeps_its_kind() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let refusal =
        |text: &str| [&b"\x81\xa5Error"[..], &[0xa0 | text.len() as u8], text.as_bytes()].concat();
    type Check = fn(&StreamError) -> bool;
    let remote: Check = |error| {
        matches!(error, StreamError::Call(grid::CallError::Remote { message, .. })
            if &**message == "disconnected from x: Invalid Handler for type: 7")
    };
    let refused: Check =
        |error| matches!(error, StreamError::Call(grid::CallError::Refused { .. }));
    let not_found: Check = |error| matches!(error, StreamError::NotFound { .. });
    let same_words = b"disconnected from x: Invalid Handler for type: 7";
    let cases: [(Op, Flags, Vec<u8>, Check); 5] = [
        (
            Op::MuxConnectError,
            Flags::NONE,
            refusal("Invalid Handler for type: 7"),
            is_unknown_handler,
        ),
        (Op::MuxConnectError, Flags::NONE, refusal("overloaded"), refused),
        // An error of the handler with the same text stays an error of the handler.
        (Op::MuxServerMsg, Flags::EOF.with(Flags::ERROR), same_words.to_vec(), remote),
        (Op::DisconnectClientMux, Flags::ERROR, same_words.to_vec(), remote),
        (Op::Pong, Flags::NONE, b"\x82\xa2nf\xc3\xa1e\xc0".to_vec(), not_found),
    ];
    for (op, flags, payload, check) in cases {
        let opening = tokio::spawn(peer_stream(&cluster).into_future());
        let mux_id = expect_message(&mut cluster.peer, Op::ConnectMux).await.mux_id;
        cluster.peer.send(Header { flags, ..callee_header(mux_id, op, 0) }, &payload).await;
        let error = within("the end", opening).await.expect("no panic").expect_err("no stream");
        assert!(check(&error), "{op:?}: {error:?}");
    }
    let opening = tokio::spawn(peer_stream(&cluster).into_future());
    expect_message(&mut cluster.peer, Op::ConnectMux).await;
    cluster.peer.send(Header::new(0, Op::Disconnect), b"").await;
    let error = within("the end", opening).await.expect("no panic").expect_err("no stream");
    assert!(is_disconnected(&error), "{error}");
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p17_credits_before_the_acknowledgement_neither_block_nor_count() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    for credits in [1, 1_000] {
        let opening = tokio::spawn(peer_stream(&cluster).input_capacity(2).into_future());
        let mux_id = expect_message(&mut cluster.peer, Op::ConnectMux).await.mux_id;
        for sequence in 0..credits {
            cluster.peer.send(callee_header(mux_id, Op::UnblockClMux, sequence), b"").await;
        }
        cluster.assert_peer_is_served().await;
        assert!(!opening.is_finished(), "a credit does not acknowledge");
        cluster.peer.send(callee_header(mux_id, Op::AckMux, credits), b"").await;
        let mut stream = within("opening", opening).await.expect("no panic").expect("it opens");
        for sequence in 1..=2 {
            stream.send("x").now_or_never().expect("granted").expect("accepted");
            assert_eq!(
                expect_message(&mut cluster.peer, Op::MuxClientMsg).await.sequence,
                sequence
            );
        }
        assert!(stream.send("x").now_or_never().is_none(), "no credit beyond the capacity");
        drop(stream);
        expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p17_a_flood_of_credits_or_a_second_acknowledgement_grants_nothing_more() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let open = peer_stream(&cluster).input_capacity(3);
    let (mut stream, mux_id) = acknowledged(&mut cluster, open).await;
    stream.send("one").now_or_never().expect("there is credit").expect("accepted");
    for sequence in 1..2_000 {
        cluster.peer.send(callee_header(mux_id, Op::UnblockClMux, sequence), b"").await;
    }
    cluster.peer.send(callee_header(mux_id, Op::AckMux, 2_000), b"").await;
    expect_message(&mut cluster.peer, Op::MuxClientMsg).await;
    cluster.assert_peer_is_served().await;
    for _ in 0..3 {
        stream.send("x").now_or_never().expect("there is credit").expect("accepted");
    }
    cluster.peer.send(callee_header(mux_id, Op::AckMux, 2_001), b"").await;
    for _ in 0..3 {
        expect_message(&mut cluster.peer, Op::MuxClientMsg).await;
    }
    cluster.assert_peer_is_served().await;
    assert!(stream.send("x").now_or_never().is_none(), "a second acknowledgement grants nothing");
    cluster.peer.send(callee_header(mux_id, Op::UnblockClMux, 2_002), b"").await;
    within("a credit", stream.send("y")).await.expect("accepted");
    drop(stream);
    expect_message(&mut cluster.peer, Op::MuxClientMsg).await;
    expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p15_a_message_instead_of_the_acknowledgement_opens_the_stream_but_grants_nothing() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let opening = tokio::spawn(peer_stream(&cluster).into_future());
    let mux_id = expect_message(&mut cluster.peer, Op::ConnectMux).await.mux_id;
    cluster.peer.send(data(mux_id, 0), b"one").await;
    let mut stream = within("opening", opening).await.expect("no panic").expect("it opens");
    assert_eq!(within("a message", stream.next()).await, Some(Ok("one".into())));
    expect_message(&mut cluster.peer, Op::UnblockSrvMux).await;
    assert!(stream.send("x").now_or_never().is_none(), "no credit yet");
    cluster.peer.send(end(mux_id, 1), b"").await;
    assert_eq!(within("the end", stream.next()).await, None);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b11_an_opening_that_is_never_acknowledged_can_be_cancelled_and_times_out() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let opening = tokio::spawn(peer_stream(&cluster).into_future());
    let first = expect_message(&mut cluster.peer, Op::ConnectMux).await.mux_id;
    cluster.assert_peer_is_served().await;
    assert!(!opening.is_finished());
    opening.abort();
    assert_eq!(expect_message(&mut cluster.peer, Op::DisconnectServerMux).await.mux_id, first);

    let opening = peer_stream(&cluster).timeout(Duration::from_millis(50)).into_future();
    let error = within("the deadline", opening).await.expect_err("no stream");
    assert!(is_deadline(&error), "{error}");
    let second = expect_message(&mut cluster.peer, Op::ConnectMux).await.mux_id;
    assert_eq!(expect_message(&mut cluster.peer, Op::DisconnectServerMux).await.mux_id, second);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn messages_of_the_wrong_kind_or_direction_on_stream_ids_are_skipped() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let open = peer_stream(&cluster);
    let (mut stream, mux_id) = acknowledged(&mut cluster, open).await;
    // None of these fits a stream of that callee: wrong direction, wrong kind, or an unknown id.
    for op in [Op::Response, Op::Unknown(99), Op::Connect, Op::ConnectResponse] {
        cluster.peer.send(Header { flags: Flags::EOF, ..callee_header(mux_id, op, 1) }, b"?").await;
    }
    cluster.peer.send(callee_header(mux_id, Op::DisconnectServerMux, 1), b"").await;
    cluster.peer.send(callee_header(mux_id, Op::UnblockSrvMux, 1), b"").await;
    cluster.peer.send(callee_header(mux_id, Op::MuxClientMsg, 1), b"").await;
    let response = expect_message(&mut cluster.peer, Op::DisconnectClientMux).await;
    assert_eq!(response.mux_id, mux_id, "MuxClientMsg names a stream of the peer");
    cluster.peer.send(Header { handler: STUCK.get(), ..request(mux_id) }, b"").await;
    cluster.peer.send(data(mux_id, 1), b"still here").await;
    assert_eq!(within("a message", stream.next()).await, Some(Ok("still here".into())));
    expect_message(&mut cluster.peer, Op::UnblockSrvMux).await;
    drop(stream);
    expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
    cluster.peer.send(callee_header(mux_id, Op::DisconnectServerMux, 0), b"").await;
    cluster.assert_unaffected().await;
}

fn quick_stream_pings() -> Limits {
    let mut limits = Limits::default();
    limits.stream_ping_interval = Duration::from_millis(150);
    limits
}

#[tokio::test]
async fn b07_a_stream_without_pongs_ends_alone() {
    let mut cluster = ScriptedCluster::new(quick_stream_pings()).await;
    let open = peer_stream(&cluster);
    let (stream, mux_id) = acknowledged(&mut cluster, open).await;
    let (mut sender, mut receiver) = stream.split();
    // A stream whose pings get pongs lives on.
    for sequence in 1..=6 {
        let ping = next_call_message(&mut cluster.peer).await;
        assert_eq!(
            ping.header,
            Header { flags: Flags::CRC, ..callee_header(mux_id, Op::Ping, sequence) }
        );
        assert!(ping.payload.is_empty());
        cluster.peer.send(callee_header(mux_id, Op::Pong, sequence), b"\x81\xa2nf\xc2").await;
    }
    for _ in 0..2 {
        expect_message(&mut cluster.peer, Op::Ping).await;
    }
    let gone = expect_message(&mut cluster.peer, Op::DisconnectServerMux).await;
    assert_eq!(gone.mux_id, mux_id);
    let ended = collect_rest(&mut receiver).await.1;
    assert!(matches!(ended, Err(StreamError::PingTimeout { missed: 2, .. })), "{ended:?}");
    let error = sender.send("x").await;
    assert!(matches!(error, Err(SendError::Stream(StreamError::PingTimeout { .. }))), "{error:?}");
    cluster.assert_peer_is_served().await;
    assert_eq!(cluster.connection().stats().connections, 1);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b07_a_stream_with_a_near_deadline_is_not_pinged() {
    let mut limits = Limits::default();
    limits.stream_ping_interval = Duration::from_secs(2);
    let mut cluster = ScriptedCluster::new(limits).await;
    let open = peer_stream(&cluster).timeout(Duration::from_secs(1));
    let (stream, mux_id) = acknowledged(&mut cluster, open).await;
    let (_sender, mut receiver) = stream.split();
    let ended = collect_rest(&mut receiver).await.1.expect_err("too late");
    assert!(is_deadline(&ended), "{ended}");
    // No ping came before the end.
    assert_eq!(expect_message(&mut cluster.peer, Op::DisconnectServerMux).await.mux_id, mux_id);
    cluster.assert_unaffected().await;
}
