//! Streams that are opened here, to a peer that serves them as existing peers do where they err, or
//! worse: each ends for its own caller in the right way, and nobody else notices.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use grid::proto::message::{Flags, Header, Message, Op};
use grid::{HandlerId, Limits, OpenStream, Route, SendError, Stream, StreamError};
use support::scene::{Scene, request};
use support::streams::{
    is_deadline, is_disconnected, is_unknown_handler, message, remote_text, rest,
};
use support::{STUCK, ScriptedPeer, eventually, merged, within};
use tokio::sync::watch;

/// Served by the scripted peer.
const FAR: HandlerId = HandlerId::new(220);

/// A message of the stream with this id, as the serving side sends it.
fn say(mux_id: u64, op: Op, sequence: u32) -> Header {
    Header { sequence, ..Header::new(mux_id, op) }
}

fn data(mux_id: u64, sequence: u32) -> Header {
    say(mux_id, Op::MuxServerMsg, sequence)
}

fn end(mux_id: u64, sequence: u32) -> Header {
    Header { flags: Flags::EOF, ..data(mux_id, sequence) }
}

fn failure(mux_id: u64, sequence: u32) -> Header {
    Header { flags: Flags::EOF.with(Flags::ERROR), ..data(mux_id, sequence) }
}

/// The next message that is no ping of the connection.
async fn heard(peer: &mut ScriptedPeer) -> Message {
    loop {
        let message = peer.next_message().await.expect("the connection goes on");
        if message.header.op != Op::Ping || message.header.mux_id != 0 {
            return message;
        }
    }
}

async fn hears(peer: &mut ScriptedPeer, op: Op) -> Header {
    let header = heard(peer).await.header;
    assert_eq!(header.op, op, "{header:?}");
    header
}

fn far(scene: &Scene) -> OpenStream {
    scene.connection().stream(FAR, "payload")
}

/// A stream to the peer that it has acknowledged, and its id.
async fn acknowledged(scene: &mut Scene, open: OpenStream) -> (Stream, u64) {
    let opening = tokio::spawn(open.into_future());
    let mux_id = hears(&mut scene.peer, Op::ConnectMux).await.mux_id;
    scene.peer.send(say(mux_id, Op::AckMux, 0), b"").await;
    let stream = within("opening", opening).await.expect("no panic").expect("it opens");
    (stream, mux_id)
}

#[tokio::test]
async fn p15_opening_says_what_it_must() {
    let mut scene = Scene::new(Limits::default()).await;
    for (open, payload, flags, has_deadline) in [
        (far(&scene), &b"payload"[..], Flags::NONE, false),
        (scene.connection().stream(FAR, ""), b"", Flags::ZERO, false),
        (far(&scene).without_payload(), b"", Flags::NONE, false),
        (far(&scene).input_capacity(0), b"payload", Flags::EOF, false),
        (far(&scene).timeout(Duration::from_secs(60)), b"payload", Flags::NONE, true),
    ] {
        let opening = tokio::spawn(open.into_future());
        let Message { header, payload: told, .. } = heard(&mut scene.peer).await;
        assert_eq!((header.op, header.handler, header.sequence), (Op::ConnectMux, 220, 0));
        assert_eq!((&told[..], header.flags.without(Flags::CRC)), (payload, flags));
        assert_eq!(header.deadline_ms > 59_000 && header.deadline_ms <= 60_000, has_deadline);
        opening.abort();
        let cancelled = hears(&mut scene.peer, Op::DisconnectServerMux).await;
        assert_eq!(cancelled.mux_id, header.mux_id);
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b16_cancelling_500_streams_ends_none_of_the_peers_500_requests_with_the_same_numbers() {
    const COUNT: u64 = 500;
    let mut scene = Scene::new(Limits::default()).await;
    let (release, released) = watch::channel(false);
    scene
        .server
        .manager
        .register(Route::new(FAR), move |_, payload: Bytes| {
            let mut released = released.clone();
            async move {
                released.wait_for(|released| *released).await.expect("the test lives");
                Ok(payload)
            }
        })
        .expect("free");
    for mux_id in 1..=COUNT {
        let asked = Header { handler: FAR.get(), ..request(mux_id) };
        scene.peer.send(asked, &mux_id.to_be_bytes()).await;
    }
    let connection = scene.connection();
    eventually("all run", || connection.stats().live_served == COUNT as usize).await;

    let opening: Vec<_> = (0..COUNT).map(|_| tokio::spawn(far(&scene).into_future())).collect();
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        let mux_id = hears(&mut scene.peer, Op::ConnectMux).await.mux_id;
        scene.peer.send(say(mux_id, Op::AckMux, 0), b"").await;
        ids.push(mux_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=COUNT).collect::<Vec<_>>(), "the same numbers");
    for opening in opening {
        drop(within("opening", opening).await.expect("no panic").expect("it opens"));
    }
    for _ in 0..COUNT {
        hears(&mut scene.peer, Op::DisconnectServerMux).await;
    }
    // What the peer had under way comes late, and is answered toward its own streams only.
    for mux_id in 1..=COUNT {
        for op in [Op::AckMux, Op::MuxServerMsg, Op::Pong] {
            scene.peer.send(say(mux_id, op, 1), b"").await;
            let answer = hears(&mut scene.peer, Op::DisconnectServerMux).await;
            assert_eq!(answer.mux_id, mux_id);
        }
        // An end is not answered, nor is a credit.
        scene.peer.send(end(mux_id, 2), b"").await;
        scene.peer.send(failure(mux_id, 2), b"context canceled").await;
        scene.peer.send(say(mux_id, Op::UnblockClMux, 2), b"").await;
        scene.peer.send(say(mux_id, Op::DisconnectClientMux, 2), b"").await;
    }
    scene.peer_is_served().await; // and nothing else was said before that
    assert_eq!(connection.stats().live_served, COUNT as usize);

    release.send_replace(true);
    let mut answered = Vec::new();
    for _ in 0..COUNT {
        let Message { header, payload, .. } = heard(&mut scene.peer).await;
        assert_eq!(header.op, Op::Response);
        assert_eq!(payload, &header.mux_id.to_be_bytes()[..]);
        answered.push(header.mux_id);
    }
    answered.sort_unstable();
    assert_eq!(answered, ids);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b23_a_whole_stream_with_everything_that_existing_peers_say_behind_it_ended_well() {
    let mut scene = Scene::new(Limits::default()).await;
    for round in 0..300_u32 {
        let opening = tokio::spawn(far(&scene).into_future());
        let mux_id = hears(&mut scene.peer, Op::ConnectMux).await.mux_id;
        let cancelled = Header { flags: Flags::ERROR, ..say(mux_id, Op::DisconnectClientMux, 0) };
        let all: [(Header, &[u8]); 6] = [
            (say(mux_id, Op::AckMux, 0), b""),
            (data(mux_id, 1), b"one"),
            (data(mux_id, 2), b"two"),
            (end(mux_id, 3), b""),
            (say(mux_id, Op::DisconnectClientMux, 0), b""),
            (cancelled, b"context canceled"),
        ];
        match round % 3 {
            // At once, or each by itself, or with its reader already there.
            0 => scene.peer.send_bytes(merged(&all)).await,
            1 => {
                for (header, payload) in all {
                    scene.peer.send(header, payload).await;
                }
            }
            _ => {
                scene.peer.send_bytes(merged(&all[..2])).await;
                tokio::task::yield_now().await;
                scene.peer.send_bytes(merged(&all[2..])).await;
            }
        }
        let connection = scene.connection();
        eventually("all came in", || connection.stats().live_streams == 0).await;
        let stream = within("opening", opening).await.expect("no panic").expect("it opens");
        let (mut sender, mut receiver) = stream.split();
        assert_eq!(sender.send("late").await, Err(SendError::Finished));
        let (messages, ended) = rest(&mut receiver).await;
        assert_eq!((messages, ended), (vec!["one".into(), "two".into()], Ok(())));
        assert_eq!(sender.finish().await, Ok(()));
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b23_a_whole_stream_whose_connection_ends_right_behind_it_ended_well() {
    for op in [Some(Op::Disconnect), None] {
        let mut scene = Scene::new(Limits::default()).await;
        let (stream, mux_id) = {
            let open = far(&scene);
            acknowledged(&mut scene, open).await
        };
        scene.peer.send(data(mux_id, 1), b"one").await;
        scene.peer.send(end(mux_id, 2), b"").await;
        match op {
            Some(op) => scene.peer.send(Header::new(0, op), b"").await,
            None => drop(scene.peer),
        }
        let connection = scene.server.connection(&scene.peer_url);
        eventually("the end", || connection.state() != grid::ConnectionState::Connected).await;
        let (_sender, mut receiver) = stream.split();
        assert_eq!(rest(&mut receiver).await, (vec!["one".into()], Ok(())));
        scene.server.is_quiescent().await;
    }
}

#[tokio::test]
async fn b05_b14_a_stream_that_is_cut_gives_what_came_and_says_disconnected() {
    for round in 0..20 {
        let mut scene = Scene::new(Limits::default()).await;
        let open = far(&scene).input_capacity(1);
        let (stream, mux_id) = acknowledged(&mut scene, open).await;
        let (mut sender, mut receiver) = stream.split();
        sender.send("x").await.expect("there is credit");
        let waiting = tokio::spawn(async move { sender.send("waits").await });
        scene.peer.send(data(mux_id, 1), b"one").await;
        scene.peer.send(data(mux_id, 2), b"two").await;
        let reading = round % 2 == 0;
        if reading {
            assert_eq!(message(&mut receiver).await, "one");
        }
        drop(scene.peer);
        let error = within("the end", waiting).await.expect("no panic").expect_err("cut off");
        assert!(matches!(&error, SendError::Stream(error) if is_disconnected(error)), "{error}");
        let (messages, ended) = rest(&mut receiver).await;
        assert_eq!(messages.len(), 2 - usize::from(reading));
        assert!(is_disconnected(&ended.expect_err("cut off")));
        scene.server.is_quiescent().await;
    }
}

#[tokio::test]
async fn b24_the_last_message_before_an_error_is_received_by_a_slow_reader() {
    let mut scene = Scene::new(Limits::default()).await;
    for round in 0..100_u32 {
        let capacity = 1 + round % 4;
        let open = far(&scene).output_capacity(capacity);
        let (stream, mux_id) = acknowledged(&mut scene, open).await;
        for number in 1..=capacity {
            scene.peer.send(data(mux_id, number), &[number as u8]).await;
        }
        match round % 3 {
            0 => scene.peer.send(failure(mux_id, capacity + 1), b"failed").await,
            1 => {
                let gone = say(mux_id, Op::DisconnectClientMux, capacity + 1);
                scene.peer.send(Header { flags: Flags::ERROR, ..gone }, b"failed").await;
            }
            _ => {
                let pong = b"\x82\xa2nf\xc2\xa1e\xa6failed";
                scene.peer.send(say(mux_id, Op::Pong, 1), pong).await;
            }
        }
        let connection = scene.connection();
        eventually("the error came in", || connection.stats().live_streams == 0).await;
        let (_sender, mut receiver) = stream.split();
        let (messages, ended) = rest(&mut receiver).await;
        let expected: Vec<_> =
            (1..=capacity).map(|number| Bytes::from(vec![number as u8])).collect();
        assert_eq!(messages, expected);
        assert_eq!(remote_text(ended), "failed");
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b21_a_handler_beyond_its_credit_is_an_error_of_that_stream_behind_what_was_within() {
    let mut scene = Scene::new(Limits::default()).await;
    let open = far(&scene);
    let (mut other, other_id) = acknowledged(&mut scene, open).await;
    for capacity in [1, 3] {
        let open = far(&scene).output_capacity(capacity);
        let (stream, mux_id) = acknowledged(&mut scene, open).await;
        for number in 1..=capacity + 1 {
            scene.peer.send(data(mux_id, number), b"x").await;
        }
        let gone = hears(&mut scene.peer, Op::DisconnectServerMux).await;
        assert_eq!(gone.mux_id, mux_id);
        let (mut sender, mut receiver) = stream.split();
        let (messages, ended) = rest(&mut receiver).await;
        assert_eq!(messages.len(), capacity as usize);
        assert!(matches!(ended, Err(StreamError::Overrun { .. })), "{ended:?}");
        let error = sender.send("x").await;
        assert!(matches!(error, Err(SendError::Stream(StreamError::Overrun { .. }))), "{error:?}");
    }
    scene.peer.send(data(other_id, 1), b"goes on").await;
    assert_eq!(within("a message", other.next()).await, Some(Ok("goes on".into())));
    drop(other);
    hears(&mut scene.peer, Op::UnblockSrvMux).await;
    hears(&mut scene.peer, Op::DisconnectServerMux).await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b22_a_gap_or_a_duplicate_is_an_incorrect_sequence() {
    let mut scene = Scene::new(Limits::default()).await;
    for wrong in [0, 1, 3, u32::MAX] {
        let open = far(&scene);
        let (stream, mux_id) = acknowledged(&mut scene, open).await;
        scene.peer.send(data(mux_id, 1), b"one").await;
        scene.peer.send(data(mux_id, wrong), b"wrong").await;
        let (_sender, mut receiver) = stream.split();
        assert_eq!(message(&mut receiver).await, "one");
        let error = rest(&mut receiver).await.1.expect_err("out of sequence");
        let StreamError::IncorrectSequence { expected: 2, received, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(received, wrong);
        loop {
            match heard(&mut scene.peer).await.header {
                Header { op: Op::UnblockSrvMux, .. } => {}
                header => break assert_eq!(header, disconnected(mux_id)),
            }
        }
    }
    scene.nothing_happened().await;
}

fn disconnected(mux_id: u64) -> Header {
    let header = Header::new(mux_id, Op::DisconnectServerMux);
    Header { flags: Flags::CRC, ..header }
}

#[tokio::test]
async fn every_kind_of_end_keeps_its_kind() {
    let mut scene = Scene::new(Limits::default()).await;
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
        // The handler may say the same words, and it is still the handler that said them.
        (Op::MuxServerMsg, Flags::EOF.with(Flags::ERROR), same_words.to_vec(), remote),
        (Op::DisconnectClientMux, Flags::ERROR, same_words.to_vec(), remote),
        (Op::Pong, Flags::NONE, b"\x82\xa2nf\xc3\xa1e\xc0".to_vec(), not_found),
    ];
    for (op, flags, payload, check) in cases {
        let opening = tokio::spawn(far(&scene).into_future());
        let mux_id = hears(&mut scene.peer, Op::ConnectMux).await.mux_id;
        scene.peer.send(Header { flags, ..say(mux_id, op, 0) }, &payload).await;
        let error = within("the end", opening).await.expect("no panic").expect_err("no stream");
        assert!(check(&error), "{op:?}: {error:?}");
    }
    let opening = tokio::spawn(far(&scene).into_future());
    hears(&mut scene.peer, Op::ConnectMux).await;
    scene.peer.send(Header::new(0, Op::Disconnect), b"").await;
    let error = within("the end", opening).await.expect("no panic").expect_err("no stream");
    assert!(is_disconnected(&error), "{error}");
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p17_credits_before_the_acknowledgement_neither_block_nor_count() {
    let mut scene = Scene::new(Limits::default()).await;
    for credits in [1, 1_000] {
        let opening = tokio::spawn(far(&scene).input_capacity(2).into_future());
        let mux_id = hears(&mut scene.peer, Op::ConnectMux).await.mux_id;
        for sequence in 0..credits {
            scene.peer.send(say(mux_id, Op::UnblockClMux, sequence), b"").await;
        }
        scene.peer_is_served().await;
        assert!(!opening.is_finished(), "a credit is no acknowledgement");
        scene.peer.send(say(mux_id, Op::AckMux, credits), b"").await;
        let mut stream = within("opening", opening).await.expect("no panic").expect("it opens");
        for sequence in 1..=2 {
            stream.send("x").now_or_never().expect("it is granted").expect("it is taken");
            assert_eq!(hears(&mut scene.peer, Op::MuxClientMsg).await.sequence, sequence);
        }
        assert!(stream.send("x").now_or_never().is_none(), "no more than that was granted");
        drop(stream);
        hears(&mut scene.peer, Op::DisconnectServerMux).await;
    }
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p17_a_flood_of_credits_or_a_second_acknowledgement_grants_nothing_more() {
    let mut scene = Scene::new(Limits::default()).await;
    let open = far(&scene).input_capacity(3);
    let (mut stream, mux_id) = acknowledged(&mut scene, open).await;
    stream.send("one").now_or_never().expect("there is credit").expect("it is taken");
    for sequence in 1..2_000 {
        scene.peer.send(say(mux_id, Op::UnblockClMux, sequence), b"").await;
    }
    scene.peer.send(say(mux_id, Op::AckMux, 2_000), b"").await;
    hears(&mut scene.peer, Op::MuxClientMsg).await;
    scene.peer_is_served().await;
    for _ in 0..3 {
        stream.send("x").now_or_never().expect("there is credit").expect("it is taken");
    }
    scene.peer.send(say(mux_id, Op::AckMux, 2_001), b"").await;
    for _ in 0..3 {
        hears(&mut scene.peer, Op::MuxClientMsg).await;
    }
    scene.peer_is_served().await;
    assert!(stream.send("x").now_or_never().is_none(), "an acknowledgement is no credit");
    scene.peer.send(say(mux_id, Op::UnblockClMux, 2_002), b"").await;
    within("a credit", stream.send("y")).await.expect("it is taken");
    drop(stream);
    hears(&mut scene.peer, Op::MuxClientMsg).await;
    hears(&mut scene.peer, Op::DisconnectServerMux).await;
    scene.nothing_happened().await;
}

#[tokio::test]
async fn p15_a_message_instead_of_the_acknowledgement_opens_the_stream_but_grants_nothing() {
    let mut scene = Scene::new(Limits::default()).await;
    let opening = tokio::spawn(far(&scene).into_future());
    let mux_id = hears(&mut scene.peer, Op::ConnectMux).await.mux_id;
    scene.peer.send(data(mux_id, 0), b"one").await;
    let mut stream = within("opening", opening).await.expect("no panic").expect("it opens");
    assert_eq!(within("a message", stream.next()).await, Some(Ok("one".into())));
    hears(&mut scene.peer, Op::UnblockSrvMux).await;
    assert!(stream.send("x").now_or_never().is_none(), "nothing was granted");
    scene.peer.send(end(mux_id, 1), b"").await;
    assert_eq!(within("the end", stream.next()).await, None);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b11_a_peer_that_never_acknowledges_can_be_given_up_and_timed_out() {
    let mut scene = Scene::new(Limits::default()).await;
    let opening = tokio::spawn(far(&scene).into_future());
    let first = hears(&mut scene.peer, Op::ConnectMux).await.mux_id;
    scene.peer_is_served().await;
    assert!(!opening.is_finished());
    opening.abort();
    assert_eq!(hears(&mut scene.peer, Op::DisconnectServerMux).await.mux_id, first);

    let opening = far(&scene).timeout(Duration::from_millis(50)).into_future();
    let error = within("the deadline", opening).await.expect_err("no stream");
    assert!(is_deadline(&error), "{error}");
    let second = hears(&mut scene.peer, Op::ConnectMux).await.mux_id;
    assert_eq!(hears(&mut scene.peer, Op::DisconnectServerMux).await.mux_id, second);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn garbage_on_the_ids_of_streams_is_skipped() {
    let mut scene = Scene::new(Limits::default()).await;
    let open = far(&scene);
    let (mut stream, mux_id) = acknowledged(&mut scene, open).await;
    // Not of a stream that is served there: each is of another direction, another kind, or nothing.
    for op in [Op::Response, Op::Unknown(99), Op::Connect, Op::ConnectResponse] {
        scene.peer.send(Header { flags: Flags::EOF, ..say(mux_id, op, 1) }, b"?").await;
    }
    scene.peer.send(say(mux_id, Op::DisconnectServerMux, 1), b"").await;
    scene.peer.send(say(mux_id, Op::UnblockSrvMux, 1), b"").await;
    scene.peer.send(say(mux_id, Op::MuxClientMsg, 1), b"").await;
    let answer = hears(&mut scene.peer, Op::DisconnectClientMux).await;
    assert_eq!(answer.mux_id, mux_id, "that one is the peer's own");
    scene.peer.send(Header { handler: STUCK.get(), ..request(mux_id) }, b"").await;
    scene.peer.send(data(mux_id, 1), b"still here").await;
    assert_eq!(within("a message", stream.next()).await, Some(Ok("still here".into())));
    hears(&mut scene.peer, Op::UnblockSrvMux).await;
    drop(stream);
    hears(&mut scene.peer, Op::DisconnectServerMux).await;
    scene.peer.send(say(mux_id, Op::DisconnectServerMux, 0), b"").await;
    scene.nothing_happened().await;
}

fn quick_stream_pings() -> Limits {
    let mut limits = Limits::default();
    limits.stream_ping_interval = Duration::from_millis(150);
    limits
}

#[tokio::test]
async fn b07_a_stream_is_pinged_and_one_that_gives_no_sign_of_life_ends_alone() {
    let mut scene = Scene::new(quick_stream_pings()).await;
    let open = far(&scene);
    let (stream, mux_id) = acknowledged(&mut scene, open).await;
    let (mut sender, mut receiver) = stream.split();
    // As long as each ping is answered it lives, however long that is.
    for sequence in 1..=6 {
        let ping = heard(&mut scene.peer).await;
        assert_eq!(ping.header, Header { flags: Flags::CRC, ..say(mux_id, Op::Ping, sequence) });
        assert!(ping.payload.is_empty());
        scene.peer.send(say(mux_id, Op::Pong, sequence), b"\x81\xa2nf\xc2").await;
    }
    for _ in 0..2 {
        hears(&mut scene.peer, Op::Ping).await;
    }
    let gone = hears(&mut scene.peer, Op::DisconnectServerMux).await;
    assert_eq!(gone.mux_id, mux_id);
    let ended = rest(&mut receiver).await.1;
    assert!(matches!(ended, Err(StreamError::Silent { missed: 2, .. })), "{ended:?}");
    let error = sender.send("x").await;
    assert!(matches!(error, Err(SendError::Stream(StreamError::Silent { .. }))), "{error:?}");
    scene.peer_is_served().await;
    assert_eq!(scene.connection().stats().connections, 1);
    scene.nothing_happened().await;
}

#[tokio::test]
async fn b07_a_stream_with_a_near_deadline_is_not_pinged() {
    let mut limits = Limits::default();
    limits.stream_ping_interval = Duration::from_secs(2);
    let mut scene = Scene::new(limits).await;
    let open = far(&scene).timeout(Duration::from_secs(1));
    let (stream, mux_id) = acknowledged(&mut scene, open).await;
    let (_sender, mut receiver) = stream.split();
    let ended = rest(&mut receiver).await.1.expect_err("too late");
    assert!(is_deadline(&ended), "{ended}");
    // No ping came before that.
    assert_eq!(hears(&mut scene.peer, Op::DisconnectServerMux).await.mux_id, mux_id);
    scene.nothing_happened().await;
}
