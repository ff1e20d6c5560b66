//! Inbound streams of a peer that breaks the rules: each ends for its own handler, is refused or
//! ended toward its own mux id, and no other call is affected.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use grid::proto::message::{Checksum, Flags, Header, Message, Op, Outgoing};
use grid::proto::subroute::SubrouteId;
use grid::trace::{CallTrace, TraceOutcome};
use grid::{CallError, HandlerId, Limits, Route, StreamError, Subroute};
use support::live::LiveCount;
use support::scripted_cluster::{ScriptedCluster, request};
use support::{ECHO, STUCK, ScriptedPeer, encode, eventually, merged, within};
use tokio::sync::mpsc;

/// A handler that sends its input back in capitals.
const SHOUT: HandlerId = HandlerId::new(220);

/// A handler that passes its input to a task of the test, which receives on request.
const WATCHED: HandlerId = HandlerId::new(221);

/// What the task of a watched handler received.
type Observed = Option<Result<Bytes, StreamError>>;

/// Input capacity of `WATCHED`.
const CAPACITY: u32 = 3;

struct WatchedHandler {
    cluster: ScriptedCluster,
    live: LiveCount,
    /// The handler's task receives one message for each of these.
    receive_next: mpsc::UnboundedSender<()>,
    observed: mpsc::UnboundedReceiver<Observed>,
}

impl WatchedHandler {
    async fn next(&mut self) -> Observed {
        self.receive_next.send(()).expect("the handler's task is running");
        within("a report", self.observed.recv()).await.expect("the handler's task is running")
    }
}

fn serve_shout(cluster: &ScriptedCluster) {
    cluster
        .server
        .manager
        .register_stream(Route::new(SHOUT), |_, payload, mut input, mut output| async move {
            output.send(payload.unwrap_or_default().to_ascii_uppercase()).await?;
            while let Some(message) = input.next().await {
                output.send(message?.to_ascii_uppercase()).await?;
            }
            Ok(())
        })
        .expect("free");
}

/// A cluster, and a handler that passes the input of one stream to a task of the test.
async fn watched(limits: Limits) -> WatchedHandler {
    let cluster = ScriptedCluster::new(limits).await;
    serve_shout(&cluster);
    let live = LiveCount::default();
    let counter = live.clone();
    let (receive_next, requests) = mpsc::unbounded_channel();
    let (report, observed) = mpsc::unbounded_channel();
    let requests = std::sync::Mutex::new(Some(requests));
    let route = Route::new(WATCHED).input_capacity(CAPACITY).output_capacity(CAPACITY);
    cluster
        .server
        .manager
        .register_stream(route, move |_, _, mut input, output| {
            let guard = counter.guard();
            let mut requests = requests.lock().expect("no panic").take().expect("one stream");
            let report = report.clone();
            tokio::spawn(async move {
                while requests.recv().await.is_some() {
                    report.send(input.next().await).expect("the test receives");
                }
            });
            async move {
                let (_guard, _output) = (guard, output);
                std::future::pending().await
            }
        })
        .expect("free");
    WatchedHandler { cluster, live, receive_next, observed }
}

fn open(mux_id: u64, handler: HandlerId) -> Header {
    Header { handler: handler.get(), ..Header::new(mux_id, Op::ConnectMux) }
}

fn data(mux_id: u64, sequence: u32) -> Header {
    Header { sequence, ..Header::new(mux_id, Op::MuxClientMsg) }
}

fn end(mux_id: u64, sequence: u32) -> Header {
    Header { flags: Flags::EOF, ..data(mux_id, sequence) }
}

fn credit(mux_id: u64, sequence: u32) -> Header {
    Header { sequence, ..Header::new(mux_id, Op::UnblockSrvMux) }
}

/// Receives the next message except pings of the connection.
async fn next_call_message(peer: &mut ScriptedPeer) -> Message {
    loop {
        let message = peer.next_message().await.expect("the connection stays open");
        if message.header.op != Op::Ping {
            return message;
        }
    }
}

/// Receives the next message of this stream, and asserts its op and sequence.
async fn expect_message(peer: &mut ScriptedPeer, mux_id: u64, op: Op, sequence: u32) -> Bytes {
    let Message { header, payload, .. } = next_call_message(peer).await;
    assert_eq!((header.mux_id, header.op, header.sequence), (mux_id, op, sequence));
    payload
}

/// Asserts that the stream ends with an error of this text.
async fn expect_stream_error(peer: &mut ScriptedPeer, mux_id: u64, text: &str) {
    let Message { header, payload, .. } = next_call_message(peer).await;
    assert_eq!((header.mux_id, header.op), (mux_id, Op::MuxServerMsg));
    assert!(header.flags.contains(Flags::EOF.with(Flags::ERROR)), "{header:?}");
    let payload = String::from_utf8_lossy(&payload);
    assert!(payload.contains(text), "{payload}");
}

#[tokio::test]
async fn p15_p16_p17_an_inbound_stream_from_its_acknowledgement_to_its_end() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    serve_shout(&cluster);
    cluster.peer.send(open(7, SHOUT), b"payload").await;
    expect_message(&mut cluster.peer, 7, Op::AckMux, 0).await;
    assert_eq!(expect_message(&mut cluster.peer, 7, Op::MuxServerMsg, 1).await, "PAYLOAD");
    cluster.peer.send(data(7, 1), b"message").await;
    expect_message(&mut cluster.peer, 7, Op::UnblockClMux, 2).await;
    assert_eq!(expect_message(&mut cluster.peer, 7, Op::MuxServerMsg, 3).await, "MESSAGE");
    cluster.peer.send(end(7, 2), b"").await;
    let Message { header, payload, .. } = next_call_message(&mut cluster.peer).await;
    assert_eq!((header.op, header.sequence, payload.len()), (Op::MuxServerMsg, 4, 0));
    assert_eq!(header.flags, Flags::EOF.with(Flags::CRC));
    // The last message may be merged with the end, and the end with the opening.
    cluster.peer.send(open(8, SHOUT), b"a").await;
    expect_message(&mut cluster.peer, 8, Op::AckMux, 0).await;
    cluster.peer.send(Header { flags: Flags::EOF, ..data(8, 1) }, b"last").await;
    let mut texts = Vec::new();
    loop {
        let Message { header, payload, .. } = next_call_message(&mut cluster.peer).await;
        if header.flags.contains(Flags::EOF) {
            break;
        }
        texts.push(payload);
    }
    assert_eq!(texts, ["A", "LAST"]);
    cluster.peer.send(Header { flags: Flags::EOF, ..open(9, SHOUT) }, b"b").await;
    expect_message(&mut cluster.peer, 9, Op::AckMux, 0).await;
    assert_eq!(expect_message(&mut cluster.peer, 9, Op::MuxServerMsg, 1).await, "B");
    expect_message(&mut cluster.peer, 9, Op::MuxServerMsg, 2).await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b16_late_messages_of_500_cancelled_streams_end_none_of_500_outbound_calls() {
    const COUNT: u64 = 500;
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let live = LiveCount::default();
    let counter = live.clone();
    cluster
        .server
        .manager
        .register_stream(Route::new(WATCHED), move |_, _, input, output| {
            let guard = counter.guard();
            async move {
                let _halves = (guard, input, output);
                std::future::pending().await
            }
        })
        .expect("free");
    let connection = cluster.connection();
    let calls: Vec<_> = (1..=COUNT)
        .map(|_| tokio::spawn(connection.request(STUCK, "question").into_future()))
        .collect();
    for _ in 0..COUNT {
        assert_eq!(next_call_message(&mut cluster.peer).await.header.op, Op::Request);
    }
    for mux_id in 1..=COUNT {
        cluster.peer.send(open(mux_id, WATCHED), b"").await;
        expect_message(&mut cluster.peer, mux_id, Op::AckMux, 0).await;
    }
    assert_eq!(live.count(), COUNT as usize);
    for mux_id in 1..=COUNT {
        cluster.peer.send(Header::new(mux_id, Op::DisconnectServerMux), b"").await;
        cluster.peer.send(data(mux_id, 1), b"late").await;
        expect_message(&mut cluster.peer, mux_id, Op::DisconnectClientMux, 0).await;
        // An end gets no reply, nor does a credit.
        cluster.peer.send(end(mux_id, 2), b"late").await;
        cluster.peer.send(credit(mux_id, 3), b"").await;
    }
    cluster.assert_peer_is_served().await;
    eventually("the handlers are dropped", || live.count() == 0).await;
    assert_eq!(connection.stats().live_outbound_calls, COUNT as usize);
    for mux_id in 1..=COUNT {
        let response = Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) };
        cluster.peer.send(response, b"response").await;
    }
    for call in calls {
        let response = within("the response", call).await.expect("no panic");
        assert_eq!(response.expect("no other message ended it"), "response");
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b21_a_callers_overrun_is_an_error_after_the_messages_within_its_credit() {
    let mut watched = watched(Limits::default()).await;
    watched.cluster.peer.send(open(1, SHOUT), b"other").await;
    expect_message(&mut watched.cluster.peer, 1, Op::AckMux, 0).await;
    expect_message(&mut watched.cluster.peer, 1, Op::MuxServerMsg, 1).await;
    let peer = &mut watched.cluster.peer;
    peer.send(open(2, WATCHED), b"").await;
    expect_message(peer, 2, Op::AckMux, 0).await;
    for number in 1..=CAPACITY + 1 {
        peer.send(data(2, number), &[number as u8]).await;
    }
    expect_stream_error(peer, 2, "handler blocked").await;
    for number in 1..=CAPACITY {
        assert_eq!(watched.next().await, Some(Ok(vec![number as u8].into())));
    }
    let error = watched.next().await.expect("an error").expect_err("an error");
    assert!(matches!(error, StreamError::Overrun { .. }), "{error}");
    assert_eq!(watched.next().await, None);
    eventually("the handler is dropped", || watched.live.count() == 0).await;

    let peer = &mut watched.cluster.peer;
    peer.send(data(1, 1), b"goes on").await;
    expect_message(peer, 1, Op::UnblockClMux, 2).await;
    assert_eq!(expect_message(peer, 1, Op::MuxServerMsg, 3).await, "GOES ON");
    peer.send(Header::new(1, Op::DisconnectServerMux), b"").await;
    watched.cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b26_a_message_to_a_handler_without_input_is_an_error_of_that_stream() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    cluster
        .server
        .manager
        .register_stream(Route::new(WATCHED).input_capacity(0), |_, _, input, output| async move {
            let _halves = (input, output);
            std::future::pending().await
        })
        .expect("free");
    cluster.peer.send(open(3, WATCHED), b"").await;
    expect_message(&mut cluster.peer, 3, Op::AckMux, 0).await;
    cluster.peer.send(data(3, 1), b"?").await;
    expect_stream_error(&mut cluster.peer, 3, "takes no input").await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b22_a_callers_gap_or_duplicate_ends_its_stream_after_the_messages_in_order() {
    for (wrong, op) in [
        (1, Op::MuxClientMsg),
        (3, Op::MuxClientMsg),
        (0, Op::UnblockSrvMux),
        (9, Op::UnblockSrvMux),
        (5, Op::Ping),
    ] {
        let mut watched = watched(Limits::default()).await;
        let peer = &mut watched.cluster.peer;
        peer.send(open(2, WATCHED), b"").await;
        expect_message(peer, 2, Op::AckMux, 0).await;
        peer.send(data(2, 1), b"one").await;
        peer.send(Header { sequence: wrong, ..Header::new(2, op) }, b"").await;
        let text = format!("incorrect sequence: expected 2, received {wrong}");
        let mut message = next_call_message(peer).await;
        if message.header.op == Op::Pong {
            message = next_call_message(peer).await;
        }
        assert_eq!(message.header.op, Op::MuxServerMsg, "{message:?}");
        assert!(message.header.flags.contains(Flags::EOF.with(Flags::ERROR)));
        assert_eq!(String::from_utf8_lossy(&message.payload), text);
        assert_eq!(watched.next().await, Some(Ok("one".into())));
        let error = watched.next().await.expect("an error").expect_err("out of sequence");
        let is_it = matches!(error, StreamError::IncorrectSequence { expected: 2, received, .. }
            if received == wrong);
        assert!(is_it, "{error}");
        eventually("the handler is dropped", || watched.live.count() == 0).await;
        watched.cluster.assert_unaffected().await;
    }
}

#[tokio::test]
async fn p15_a_message_before_the_acknowledgement_ends_its_stream_before_its_handler_runs() {
    let watched = watched(Limits::default()).await;
    let mut cluster = watched.cluster;
    let early: [(Header, &[u8]); 2] = [(open(2, WATCHED), b""), (data(2, 1), b"early")];
    cluster.peer.send_bytes(merged(&early)).await;
    expect_stream_error(&mut cluster.peer, 2, "incorrect sequence").await;
    cluster.assert_peer_is_served().await;
    assert_eq!(watched.live.count(), 0);
    // A stream that is cancelled before its handler runs never runs it.
    let gone = Header::new(3, Op::DisconnectServerMux);
    let (seen, mut traces) = mpsc::unbounded_channel();
    cluster.server.manager.trace(std::sync::Arc::new(move |trace: &CallTrace| {
        seen.send(trace.clone()).expect("the test receives");
    }));
    cluster.peer.send_bytes(merged(&[(open(3, WATCHED), b""), (gone, b"")])).await;
    let trace = within("a trace", traces.recv()).await.expect("the subscriber is registered");
    assert_eq!(trace.outcome, TraceOutcome::Cancelled, "it is traced all the same (B42)");
    cluster.assert_peer_is_served().await;
    assert_eq!(watched.live.count(), 0);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn a_second_stream_with_a_mux_id_in_use_is_skipped() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    serve_shout(&cluster);
    cluster.peer.send(open(4, SHOUT), b"first").await;
    expect_message(&mut cluster.peer, 4, Op::AckMux, 0).await;
    assert_eq!(expect_message(&mut cluster.peer, 4, Op::MuxServerMsg, 1).await, "FIRST");
    cluster.peer.send(open(4, SHOUT), b"second").await;
    cluster.peer.send(request(4), b"third").await;
    // The repeated openings are skipped, and the first stream goes on.
    cluster.peer.send(data(4, 1), b"still").await;
    expect_message(&mut cluster.peer, 4, Op::UnblockClMux, 2).await;
    assert_eq!(expect_message(&mut cluster.peer, 4, Op::MuxServerMsg, 3).await, "STILL");
    cluster.peer.send(Header { handler: STUCK.get(), ..request(5) }, b"").await;
    cluster.peer.send(open(5, SHOUT), b"").await;
    cluster.peer.send(data(5, 1), b"").await; // mux id 5 is a single request, not a stream
    cluster.assert_peer_is_served().await;
    let stats = cluster.connection().stats();
    assert_eq!(
        (stats.live_inbound_calls, stats.live_inbound_streams, stats.messages_skipped),
        (2, 1, 4)
    );
    for mux_id in [4, 5] {
        cluster.peer.send(Header::new(mux_id, Op::DisconnectServerMux), b"").await;
    }
    cluster.peer.send(open(4, SHOUT), b"free again").await;
    expect_message(&mut cluster.peer, 4, Op::AckMux, 0).await;
    cluster.peer.send(Header::new(4, Op::DisconnectServerMux), b"").await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn a_stream_with_mux_id_0_is_skipped() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    serve_shout(&cluster);
    cluster.peer.send(open(0, SHOUT), b"zero").await;
    for op in [Op::MuxClientMsg, Op::MuxServerMsg, Op::AckMux, Op::UnblockSrvMux, Op::UnblockClMux]
    {
        cluster.peer.send(Header { flags: Flags::EOF, ..Header::new(0, op) }, b"zero").await;
    }
    cluster.peer.send(open(u64::MAX, SHOUT), b"max").await;
    expect_message(&mut cluster.peer, u64::MAX, Op::AckMux, 0).await;
    assert_eq!(expect_message(&mut cluster.peer, u64::MAX, Op::MuxServerMsg, 1).await, "MAX");
    assert_eq!(cluster.connection().stats().live_inbound_streams, 1);
    cluster.peer.send(Header::new(u64::MAX, Op::DisconnectServerMux), b"").await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p06_p13_an_opening_that_no_handler_takes_is_refused_with_its_own_fields() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    serve_shout(&cluster);
    for (handler, flags, text) in [
        (HandlerId::new(99), Flags::NONE, "Invalid Handler for type: 99"),
        (ECHO, Flags::NONE, "it serves single requests"),
        (SHOUT, Flags::STATELESS, "Stateless streams not supported"),
    ] {
        let opening = Header { flags, deadline_ms: 5_000, ..open(6, handler) };
        cluster.peer.send(opening, b"").await;
        let Message { header, payload, .. } = next_call_message(&mut cluster.peer).await;
        let expected = Header { op: Op::MuxConnectError, flags: flags.with(Flags::CRC), ..opening };
        assert_eq!(header, expected);
        assert!(String::from_utf8_lossy(&payload).contains(text), "{payload:?}");
    }
    let drive = Subroute::new("drive-1").expect("valid");
    let id: SubrouteId = drive.id(SHOUT.get());
    let header = open(6, SHOUT);
    let message = Outgoing { header, payload: b"", subroute: Some(&id), checksum: Checksum::On };
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    cluster.peer.send_bytes(bytes).await;
    assert_eq!(next_call_message(&mut cluster.peer).await.header.op, Op::MuxConnectError);
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b24_an_error_reaches_a_caller_that_returns_no_credit() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let route = Route::new(WATCHED).output_capacity(2);
    cluster
        .server
        .manager
        .register_stream(route, |_, _, _, mut output| async move {
            output.send("one").await?;
            output.send("two").await?;
            Err("failed".into())
        })
        .expect("free");
    cluster.peer.send(open(2, WATCHED), b"").await;
    expect_message(&mut cluster.peer, 2, Op::AckMux, 0).await;
    expect_message(&mut cluster.peer, 2, Op::MuxServerMsg, 1).await;
    expect_message(&mut cluster.peer, 2, Op::MuxServerMsg, 2).await;
    let Message { header, payload, .. } = next_call_message(&mut cluster.peer).await;
    assert_eq!((header.mux_id, header.op), (2, Op::DisconnectClientMux));
    assert!(header.flags.contains(Flags::ERROR));
    assert_eq!(payload, "failed");
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn p17_a_flood_of_credits_lets_a_handler_send_no_more_than_its_capacity() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    let route = Route::new(WATCHED).output_capacity(2);
    cluster
        .server
        .manager
        .register_stream(route, |_, _, mut input, mut output| async move {
            while input.next().await.is_some() {}
            loop {
                output.send("x").await?;
            }
        })
        .expect("free");
    cluster.peer.send(open(2, WATCHED), b"").await;
    expect_message(&mut cluster.peer, 2, Op::AckMux, 0).await;
    for sequence in 1..1_000 {
        cluster.peer.send(credit(2, sequence), b"").await;
    }
    cluster.peer.send(end(2, 1_000), b"").await;
    for sequence in 1..=2 {
        expect_message(&mut cluster.peer, 2, Op::MuxServerMsg, sequence).await;
    }
    cluster.peer.send(request(9), b"and nothing else").await;
    expect_message(&mut cluster.peer, 9, Op::Response, 0).await;
    cluster.peer.send(credit(2, 1_001), b"").await;
    expect_message(&mut cluster.peer, 2, Op::MuxServerMsg, 3).await;
    cluster.peer.send(Header::new(2, Op::DisconnectServerMux), b"").await;
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b10_the_callee_enforces_the_deadline_of_a_caller_that_stops_sending() {
    let mut watched = watched(Limits::default()).await;
    let opening = Header { deadline_ms: 100, ..open(2, WATCHED) };
    watched.cluster.peer.send(opening, b"").await;
    expect_message(&mut watched.cluster.peer, 2, Op::AckMux, 0).await;
    let error = watched.next().await.expect("an error").expect_err("not a clean end");
    assert!(matches!(error, StreamError::Call(CallError::DeadlineExceeded { .. })), "{error}");
    eventually("the handler is dropped", || watched.live.count() == 0).await;
    watched.cluster.assert_unaffected().await;
}

fn quick_stream_pings() -> Limits {
    let mut limits = Limits::default();
    limits.stream_ping_interval = Duration::from_millis(100);
    limits
}

#[tokio::test]
async fn b07_the_pong_of_a_stream_repeats_the_sequence_of_its_ping() {
    let mut cluster = ScriptedCluster::new(Limits::default()).await;
    serve_shout(&cluster);
    cluster.peer.send(open(2, SHOUT), b"").await;
    expect_message(&mut cluster.peer, 2, Op::AckMux, 0).await;
    expect_message(&mut cluster.peer, 2, Op::MuxServerMsg, 1).await;
    cluster.peer.send(data(2, 1), b"a").await;
    cluster.peer.send(Header { sequence: 2, ..Header::new(2, Op::Ping) }, b"").await;
    cluster.peer.send(data(2, 3), b"b").await;
    let mut received = Vec::new();
    for _ in 0..5 {
        received.push(next_call_message(&mut cluster.peer).await);
    }
    let pong = received.iter().find(|message| message.header.op == Op::Pong).expect("a pong");
    assert_eq!((pong.header.mux_id, pong.header.sequence), (2, 2));
    assert!(!pong.payload.windows(4).any(|window| window == b"\xa2nf\xc3"), "{:?}", pong.payload);
    let count = |op: Op| received.iter().filter(|message| message.header.op == op).count();
    assert_eq!((count(Op::UnblockClMux), count(Op::MuxServerMsg)), (2, 2));

    // A ping of an unknown stream gets `nf` true, whether or not the stream ever existed.
    cluster.peer.send(Header::new(2, Op::DisconnectServerMux), b"").await;
    for mux_id in [2, 3] {
        cluster.peer.send(Header { sequence: 4, ..Header::new(mux_id, Op::Ping) }, b"").await;
        let payload = expect_message(&mut cluster.peer, mux_id, Op::Pong, 4).await;
        assert!(payload.windows(4).any(|window| window == b"\xa2nf\xc3"), "{payload:?}");
    }
    cluster.assert_unaffected().await;
}

#[tokio::test]
async fn b07_an_inbound_stream_whose_caller_stops_pinging_is_cancelled_with_a_reason() {
    let mut watched = watched(quick_stream_pings()).await;
    let peer = &mut watched.cluster.peer;
    peer.send(open(2, WATCHED), b"").await;
    expect_message(peer, 2, Op::AckMux, 0).await;
    for sequence in 1..=5 {
        peer.send(Header { sequence, ..Header::new(2, Op::Ping) }, b"").await;
        expect_message(peer, 2, Op::Pong, sequence).await;
    }
    let Message { header, payload, .. } = next_call_message(peer).await;
    assert_eq!((header.mux_id, header.op), (2, Op::DisconnectClientMux));
    assert!(header.flags.contains(Flags::ERROR));
    assert!(payload.starts_with(b"no ping for"), "{payload:?}");
    let error = watched.next().await.expect("an error").expect_err("not a clean end");
    assert!(matches!(error, StreamError::PingTimeout { missed: 4, .. }), "{error}");
    eventually("the handler is dropped", || watched.live.count() == 0).await;
    assert_eq!(watched.cluster.connection().stats().connections, 1);
    watched.cluster.assert_unaffected().await;
}

#[tokio::test]
async fn a_malformed_message_ends_the_connection_and_the_handler_sees_no_clean_end() {
    let mut watched = watched(Limits::default()).await;
    let peer = &mut watched.cluster.peer;
    peer.send(open(2, WATCHED), b"").await;
    expect_message(peer, 2, Op::AckMux, 0).await;
    peer.send(data(2, 1), b"one").await;
    let mut torn = encode(data(2, 2), b"torn");
    *torn.last_mut().expect("a checksum") ^= 1;
    peer.send_bytes(torn).await;
    peer.wait_closed().await;
    assert_eq!(watched.next().await, Some(Ok("one".into())));
    let error = watched.next().await.expect("an error").expect_err("not a clean end");
    assert!(matches!(error, StreamError::Call(CallError::Disconnected { .. })), "{error}");
    eventually("the handler is dropped", || watched.live.count() == 0).await;
    watched.cluster.assert_unaffected().await;
}
