//! Streams that a peer opens here and does not keep to the rules of: each ends for its own handler,
//! is answered toward its own number, and nobody else notices.
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
use support::live::Live;
use support::scene::{Scene, request};
use support::{ECHO, STUCK, ScriptedPeer, encode, eventually, merged, within};
use tokio::sync::mpsc;

/// Says what it is sent, in capitals.
const SHOUT: HandlerId = HandlerId::new(220);

/// Reports what its input says, when it is told to look.
const WATCHED: HandlerId = HandlerId::new(221);

/// What the task of a watched handler saw.
type Saw = Option<Result<Bytes, StreamError>>;

/// How many messages to `WATCHED` may be under way.
const CAPACITY: u32 = 3;

struct Watched {
    scene: Scene,
    live: Live,
    /// The handler's task takes one more for each of these.
    look: mpsc::UnboundedSender<()>,
    saw: mpsc::UnboundedReceiver<Saw>,
}

impl Watched {
    async fn next(&mut self) -> Saw {
        self.look.send(()).expect("the handler's task listens");
        within("a report", self.saw.recv()).await.expect("the handler's task reports")
    }
}

fn serve_shout(scene: &Scene) {
    scene
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

/// A peer, and a handler that hands its input to a task of the test's, for one stream.
async fn watched(limits: Limits) -> Watched {
    let scene = Scene::new(limits).await;
    serve_shout(&scene);
    let live = Live::default();
    let counter = live.clone();
    let (look, looks) = mpsc::unbounded_channel();
    let (report, saw) = mpsc::unbounded_channel();
    let looks = std::sync::Mutex::new(Some(looks));
    let route = Route::new(WATCHED).input_capacity(CAPACITY).output_capacity(CAPACITY);
    scene
        .server
        .manager
        .register_stream(route, move |_, _, mut input, output| {
            let guard = counter.guard();
            let mut looks = looks.lock().expect("no panic").take().expect("one stream");
            let report = report.clone();
            tokio::spawn(async move {
                while looks.recv().await.is_some() {
                    report.send(input.next().await).expect("the test listens");
                }
            });
            async move {
                let (_guard, _output) = (guard, output);
                std::future::pending().await
            }
        })
        .expect("free");
    Watched { scene, live, look, saw }
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

/// The next message that is no ping of the connection.
async fn heard(peer: &mut ScriptedPeer) -> Message {
    loop {
        let message = peer.next_message().await.expect("the connection goes on");
        if message.header.op != Op::Ping {
            return message;
        }
    }
}

/// The next message is this one, of this stream.
async fn hears(peer: &mut ScriptedPeer, mux_id: u64, op: Op, sequence: u32) -> Bytes {
    let Message { header, payload, .. } = heard(peer).await;
    assert_eq!((header.mux_id, header.op, header.sequence), (mux_id, op, sequence));
    payload
}

/// The stream ends with an error of this text, and only the stream.
async fn fails(peer: &mut ScriptedPeer, mux_id: u64, text: &str) {
    let Message { header, payload, .. } = heard(peer).await;
    assert_eq!((header.mux_id, header.op), (mux_id, Op::MuxServerMsg));
    assert!(header.flags.contains(Flags::EOF.with(Flags::ERROR)), "{header:?}");
    let payload = String::from_utf8_lossy(&payload);
    assert!(payload.contains(text), "{payload}");
}

#[tokio::test]
async fn p15_p16_p17_a_served_stream_from_its_acknowledgement_to_its_end() {
    let mut scene = Scene::new(Limits::default()).await;
    serve_shout(&scene);
    scene.peer.send(open(7, SHOUT), b"payload").await;
    hears(&mut scene.peer, 7, Op::AckMux, 0).await;
    assert_eq!(hears(&mut scene.peer, 7, Op::MuxServerMsg, 1).await, "PAYLOAD");
    scene.peer.send(data(7, 1), b"message").await;
    hears(&mut scene.peer, 7, Op::UnblockClMux, 2).await;
    assert_eq!(hears(&mut scene.peer, 7, Op::MuxServerMsg, 3).await, "MESSAGE");
    scene.peer.send(end(7, 2), b"").await;
    let Message { header, payload, .. } = heard(&mut scene.peer).await;
    assert_eq!((header.op, header.sequence, payload.len()), (Op::MuxServerMsg, 4, 0));
    assert_eq!(header.flags, Flags::EOF.with(Flags::CRC));
    // The last message may come with the end, and the end with the opening.
    scene.peer.send(open(8, SHOUT), b"a").await;
    hears(&mut scene.peer, 8, Op::AckMux, 0).await;
    scene.peer.send(Header { flags: Flags::EOF, ..data(8, 1) }, b"last").await;
    let mut said = Vec::new();
    loop {
        let Message { header, payload, .. } = heard(&mut scene.peer).await;
        if header.flags.contains(Flags::EOF) {
            break;
        }
        said.push(payload);
    }
    assert_eq!(said, ["A", "LAST"]);
    scene.peer.send(Header { flags: Flags::EOF, ..open(9, SHOUT) }, b"b").await;
    hears(&mut scene.peer, 9, Op::AckMux, 0).await;
    assert_eq!(hears(&mut scene.peer, 9, Op::MuxServerMsg, 1).await, "B");
    hears(&mut scene.peer, 9, Op::MuxServerMsg, 2).await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b16_late_messages_of_500_cancelled_streams_end_none_of_our_500_calls() {
    const COUNT: u64 = 500;
    let mut scene = Scene::new(Limits::default()).await;
    let live = Live::default();
    let counter = live.clone();
    scene
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
    let connection = scene.connection();
    let calls: Vec<_> = (1..=COUNT)
        .map(|_| tokio::spawn(connection.request(STUCK, "question").into_future()))
        .collect();
    for _ in 0..COUNT {
        assert_eq!(heard(&mut scene.peer).await.header.op, Op::Request);
    }
    for mux_id in 1..=COUNT {
        scene.peer.send(open(mux_id, WATCHED), b"").await;
        hears(&mut scene.peer, mux_id, Op::AckMux, 0).await;
    }
    assert_eq!(live.count(), COUNT as usize);
    for mux_id in 1..=COUNT {
        scene.peer.send(Header::new(mux_id, Op::DisconnectServerMux), b"").await;
        scene.peer.send(data(mux_id, 1), b"late").await;
        hears(&mut scene.peer, mux_id, Op::DisconnectClientMux, 0).await;
        // An end is not answered, nor is a credit.
        scene.peer.send(end(mux_id, 2), b"late").await;
        scene.peer.send(credit(mux_id, 3), b"").await;
    }
    scene.peer_is_served().await;
    eventually("the handlers are dropped", || live.count() == 0).await;
    assert_eq!(connection.stats().live_calls, COUNT as usize);
    for mux_id in 1..=COUNT {
        let answer = Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) };
        scene.peer.send(answer, b"answer").await;
    }
    for call in calls {
        let answer = within("the answer", call).await.expect("no panic");
        assert_eq!(answer.expect("nothing else ended it"), "answer");
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b21_a_caller_beyond_its_credit_is_an_error_behind_what_was_within() {
    let mut watched = watched(Limits::default()).await;
    watched.scene.peer.send(open(1, SHOUT), b"other").await;
    hears(&mut watched.scene.peer, 1, Op::AckMux, 0).await;
    hears(&mut watched.scene.peer, 1, Op::MuxServerMsg, 1).await;
    let peer = &mut watched.scene.peer;
    peer.send(open(2, WATCHED), b"").await;
    hears(peer, 2, Op::AckMux, 0).await;
    for number in 1..=CAPACITY + 1 {
        peer.send(data(2, number), &[number as u8]).await;
    }
    fails(peer, 2, "handler blocked").await;
    for number in 1..=CAPACITY {
        assert_eq!(watched.next().await, Some(Ok(vec![number as u8].into())));
    }
    let error = watched.next().await.expect("an error").expect_err("an error");
    assert!(matches!(error, StreamError::Overrun { .. }), "{error}");
    assert_eq!(watched.next().await, None);
    eventually("the handler is dropped", || watched.live.count() == 0).await;

    let peer = &mut watched.scene.peer;
    peer.send(data(1, 1), b"goes on").await;
    hears(peer, 1, Op::UnblockClMux, 2).await;
    assert_eq!(hears(peer, 1, Op::MuxServerMsg, 3).await, "GOES ON");
    peer.send(Header::new(1, Op::DisconnectServerMux), b"").await;
    watched.scene.nothing_happened().await;
}

#[tokio::test]
async fn b26_a_message_to_a_handler_without_input_is_an_error_of_that_stream() {
    let mut scene = Scene::new(Limits::default()).await;
    scene
        .server
        .manager
        .register_stream(Route::new(WATCHED).input_capacity(0), |_, _, input, output| async move {
            let _halves = (input, output);
            std::future::pending().await
        })
        .expect("free");
    scene.peer.send(open(3, WATCHED), b"").await;
    hears(&mut scene.peer, 3, Op::AckMux, 0).await;
    scene.peer.send(data(3, 1), b"?").await;
    fails(&mut scene.peer, 3, "takes no input").await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b22_a_callers_gap_or_duplicate_ends_its_stream_behind_what_was_right() {
    for (wrong, op) in [
        (1, Op::MuxClientMsg),
        (3, Op::MuxClientMsg),
        (0, Op::UnblockSrvMux),
        (9, Op::UnblockSrvMux),
        (5, Op::Ping),
    ] {
        let mut watched = watched(Limits::default()).await;
        let peer = &mut watched.scene.peer;
        peer.send(open(2, WATCHED), b"").await;
        hears(peer, 2, Op::AckMux, 0).await;
        peer.send(data(2, 1), b"one").await;
        peer.send(Header { sequence: wrong, ..Header::new(2, op) }, b"").await;
        let text = format!("incorrect sequence: expected 2, received {wrong}");
        let mut message = heard(peer).await;
        if message.header.op == Op::Pong {
            message = heard(peer).await;
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
        watched.scene.nothing_happened().await;
    }
}

#[tokio::test]
async fn p15_a_message_before_the_acknowledgement_ends_its_stream_before_its_handler_runs() {
    let watched = watched(Limits::default()).await;
    let mut scene = watched.scene;
    let early: [(Header, &[u8]); 2] = [(open(2, WATCHED), b""), (data(2, 1), b"early")];
    scene.peer.send_bytes(merged(&early)).await;
    fails(&mut scene.peer, 2, "incorrect sequence").await;
    scene.peer_is_served().await;
    assert_eq!(watched.live.count(), 0);
    // And one that is given up before its handler runs never does.
    let gone = Header::new(3, Op::DisconnectServerMux);
    let (seen, mut traces) = mpsc::unbounded_channel();
    scene.server.manager.trace(std::sync::Arc::new(move |trace: &CallTrace| {
        seen.send(trace.clone()).expect("the test is there");
    }));
    scene.peer.send_bytes(merged(&[(open(3, WATCHED), b""), (gone, b"")])).await;
    let trace = within("a trace", traces.recv()).await.expect("the subscriber lives");
    assert_eq!(trace.outcome, TraceOutcome::Cancelled, "it is seen all the same (B42)");
    scene.peer_is_served().await;
    assert_eq!(watched.live.count(), 0);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn a_stream_with_a_number_in_use_is_not_served_twice() {
    let mut scene = Scene::new(Limits::default()).await;
    serve_shout(&scene);
    scene.peer.send(open(4, SHOUT), b"first").await;
    hears(&mut scene.peer, 4, Op::AckMux, 0).await;
    assert_eq!(hears(&mut scene.peer, 4, Op::MuxServerMsg, 1).await, "FIRST");
    scene.peer.send(open(4, SHOUT), b"second").await;
    scene.peer.send(request(4), b"third").await;
    // Nothing came of them, and the first goes on.
    scene.peer.send(data(4, 1), b"still").await;
    hears(&mut scene.peer, 4, Op::UnblockClMux, 2).await;
    assert_eq!(hears(&mut scene.peer, 4, Op::MuxServerMsg, 3).await, "STILL");
    scene.peer.send(Header { handler: STUCK.get(), ..request(5) }, b"").await;
    scene.peer.send(open(5, SHOUT), b"").await;
    scene.peer.send(data(5, 1), b"").await; // that is a call, and no stream
    scene.peer_is_served().await;
    let stats = scene.connection().stats();
    assert_eq!((stats.live_served, stats.live_streams_served, stats.messages_skipped), (2, 1, 4));
    for mux_id in [4, 5] {
        scene.peer.send(Header::new(mux_id, Op::DisconnectServerMux), b"").await;
    }
    scene.peer.send(open(4, SHOUT), b"free again").await;
    hears(&mut scene.peer, 4, Op::AckMux, 0).await;
    scene.peer.send(Header::new(4, Op::DisconnectServerMux), b"").await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn the_number_of_the_connection_is_no_stream() {
    let mut scene = Scene::new(Limits::default()).await;
    serve_shout(&scene);
    scene.peer.send(open(0, SHOUT), b"zero").await;
    for op in [Op::MuxClientMsg, Op::MuxServerMsg, Op::AckMux, Op::UnblockSrvMux, Op::UnblockClMux]
    {
        scene.peer.send(Header { flags: Flags::EOF, ..Header::new(0, op) }, b"zero").await;
    }
    scene.peer.send(open(u64::MAX, SHOUT), b"max").await;
    hears(&mut scene.peer, u64::MAX, Op::AckMux, 0).await;
    assert_eq!(hears(&mut scene.peer, u64::MAX, Op::MuxServerMsg, 1).await, "MAX");
    assert_eq!(scene.connection().stats().live_streams_served, 1);
    scene.peer.send(Header::new(u64::MAX, Op::DisconnectServerMux), b"").await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p06_p13_what_is_no_stream_of_ours_is_refused_with_its_own_fields() {
    let mut scene = Scene::new(Limits::default()).await;
    serve_shout(&scene);
    for (handler, flags, text) in [
        (HandlerId::new(99), Flags::NONE, "Invalid Handler for type: 99"),
        (ECHO, Flags::NONE, "it serves single requests"),
        (SHOUT, Flags::STATELESS, "Stateless streams not supported"),
    ] {
        let opening = Header { flags, deadline_ms: 5_000, ..open(6, handler) };
        scene.peer.send(opening, b"").await;
        let Message { header, payload, .. } = heard(&mut scene.peer).await;
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
    scene.peer.send_bytes(bytes).await;
    assert_eq!(heard(&mut scene.peer).await.header.op, Op::MuxConnectError);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b24_an_error_reaches_a_caller_that_gives_no_credit_back() {
    let mut scene = Scene::new(Limits::default()).await;
    let route = Route::new(WATCHED).output_capacity(2);
    scene
        .server
        .manager
        .register_stream(route, |_, _, _, mut output| async move {
            output.send("one").await?;
            output.send("two").await?;
            Err("failed".into())
        })
        .expect("free");
    scene.peer.send(open(2, WATCHED), b"").await;
    hears(&mut scene.peer, 2, Op::AckMux, 0).await;
    hears(&mut scene.peer, 2, Op::MuxServerMsg, 1).await;
    hears(&mut scene.peer, 2, Op::MuxServerMsg, 2).await;
    let Message { header, payload, .. } = heard(&mut scene.peer).await;
    assert_eq!((header.mux_id, header.op), (2, Op::DisconnectClientMux));
    assert!(header.flags.contains(Flags::ERROR));
    assert_eq!(payload, "failed");
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p17_credits_without_end_let_a_handler_send_no_more_than_its_capacity() {
    let mut scene = Scene::new(Limits::default()).await;
    let route = Route::new(WATCHED).output_capacity(2);
    scene
        .server
        .manager
        .register_stream(route, |_, _, mut input, mut output| async move {
            while input.next().await.is_some() {}
            loop {
                output.send("x").await?;
            }
        })
        .expect("free");
    scene.peer.send(open(2, WATCHED), b"").await;
    hears(&mut scene.peer, 2, Op::AckMux, 0).await;
    for sequence in 1..1_000 {
        scene.peer.send(credit(2, sequence), b"").await;
    }
    scene.peer.send(end(2, 1_000), b"").await;
    for sequence in 1..=2 {
        hears(&mut scene.peer, 2, Op::MuxServerMsg, sequence).await;
    }
    scene.peer.send(request(9), b"and nothing else").await;
    hears(&mut scene.peer, 9, Op::Response, 0).await;
    scene.peer.send(credit(2, 1_001), b"").await;
    hears(&mut scene.peer, 2, Op::MuxServerMsg, 3).await;
    scene.peer.send(Header::new(2, Op::DisconnectServerMux), b"").await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b10_a_deadline_is_kept_here_also_if_its_caller_says_nothing_more() {
    let mut watched = watched(Limits::default()).await;
    let opening = Header { deadline_ms: 100, ..open(2, WATCHED) };
    watched.scene.peer.send(opening, b"").await;
    hears(&mut watched.scene.peer, 2, Op::AckMux, 0).await;
    let error = watched.next().await.expect("an error").expect_err("no clean end");
    assert!(matches!(error, StreamError::Call(CallError::DeadlineExceeded { .. })), "{error}");
    eventually("the handler is dropped", || watched.live.count() == 0).await;
    watched.scene.nothing_happened().await;
}

fn quick_stream_pings() -> Limits {
    let mut limits = Limits::default();
    limits.stream_ping_interval = Duration::from_millis(100);
    limits
}

#[tokio::test]
async fn b07_the_ping_of_a_stream_is_answered_with_its_own_sequence() {
    let mut scene = Scene::new(Limits::default()).await;
    serve_shout(&scene);
    scene.peer.send(open(2, SHOUT), b"").await;
    hears(&mut scene.peer, 2, Op::AckMux, 0).await;
    hears(&mut scene.peer, 2, Op::MuxServerMsg, 1).await;
    scene.peer.send(data(2, 1), b"a").await;
    scene.peer.send(Header { sequence: 2, ..Header::new(2, Op::Ping) }, b"").await;
    scene.peer.send(data(2, 3), b"b").await;
    let mut heard_of = Vec::new();
    for _ in 0..5 {
        heard_of.push(heard(&mut scene.peer).await);
    }
    let pong = heard_of.iter().find(|message| message.header.op == Op::Pong).expect("a pong");
    assert_eq!((pong.header.mux_id, pong.header.sequence), (2, 2));
    assert!(!pong.payload.windows(4).any(|window| window == b"\xa2nf\xc3"), "{:?}", pong.payload);
    let count = |op: Op| heard_of.iter().filter(|message| message.header.op == op).count();
    assert_eq!((count(Op::UnblockClMux), count(Op::MuxServerMsg)), (2, 2));

    // One that is not known is told so, whether or not it was here.
    scene.peer.send(Header::new(2, Op::DisconnectServerMux), b"").await;
    for mux_id in [2, 3] {
        scene.peer.send(Header { sequence: 4, ..Header::new(mux_id, Op::Ping) }, b"").await;
        let payload = hears(&mut scene.peer, mux_id, Op::Pong, 4).await;
        assert!(payload.windows(4).any(|window| window == b"\xa2nf\xc3"), "{payload:?}");
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b07_a_served_stream_whose_caller_stops_pinging_is_cancelled_with_a_reason() {
    let mut watched = watched(quick_stream_pings()).await;
    let peer = &mut watched.scene.peer;
    peer.send(open(2, WATCHED), b"").await;
    hears(peer, 2, Op::AckMux, 0).await;
    for sequence in 1..=5 {
        peer.send(Header { sequence, ..Header::new(2, Op::Ping) }, b"").await;
        hears(peer, 2, Op::Pong, sequence).await;
    }
    let Message { header, payload, .. } = heard(peer).await;
    assert_eq!((header.mux_id, header.op), (2, Op::DisconnectClientMux));
    assert!(header.flags.contains(Flags::ERROR));
    assert!(payload.starts_with(b"no ping for"), "{payload:?}");
    let error = watched.next().await.expect("an error").expect_err("no clean end");
    assert!(matches!(error, StreamError::Silent { missed: 4, .. }), "{error}");
    eventually("the handler is dropped", || watched.live.count() == 0).await;
    assert_eq!(watched.scene.connection().stats().connections, 1);
    watched.scene.nothing_happened().await;
}

#[tokio::test]
async fn a_malformed_message_ends_the_connection_and_the_handler_sees_no_clean_end() {
    let mut watched = watched(Limits::default()).await;
    let peer = &mut watched.scene.peer;
    peer.send(open(2, WATCHED), b"").await;
    hears(peer, 2, Op::AckMux, 0).await;
    peer.send(data(2, 1), b"one").await;
    let mut torn = encode(data(2, 2), b"torn");
    *torn.last_mut().expect("a checksum") ^= 1;
    peer.send_bytes(torn).await;
    peer.is_closed().await;
    assert_eq!(watched.next().await, Some(Ok("one".into())));
    let error = watched.next().await.expect("an error").expect_err("no clean end");
    assert!(matches!(error, StreamError::Call(CallError::Disconnected { .. })), "{error}");
    eventually("the handler is dropped", || watched.live.count() == 0).await;
    watched.scene.nothing_happened().await;
}
