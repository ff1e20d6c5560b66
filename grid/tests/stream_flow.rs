//! Flow control of streams between real servers: sends that credit allows and blocks, and other
//! calls that go on; and streams as `Stream` and `Sink` of `futures`.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use futures_util::{FutureExt, SinkExt};
use grid::{HandlerId, Limits, Route, SendError, StreamReceiver, StreamSender};
use support::streams::{collect_rest, message, opened, remote_text};
use support::{ECHO, Server, eventually, within};
use tokio::sync::{Notify, watch};
use tokio::task::coop::unconstrained;

const IDLE: HandlerId = HandlerId::new(210);
const BACK: HandlerId = HandlerId::new(211);
const FLOOD: HandlerId = HandlerId::new(212);

/// Registers a handler that keeps its input, and receives a message for each notification.
fn serve_idle(server: &Server, capacity: u32) -> Arc<Notify> {
    let take = Arc::new(Notify::new());
    let taken = Arc::clone(&take);
    server
        .manager
        .register_stream(Route::new(IDLE).input_capacity(capacity), move |_, _, mut input, _| {
            let taken = Arc::clone(&taken);
            async move {
                loop {
                    taken.notified().await;
                    if input.next().await.is_none() {
                        return Ok(());
                    }
                }
            }
        })
        .expect("free");
    take
}

/// Registers a handler that echoes its input.
fn serve_back(server: &Server, capacity: u32) {
    let route = Route::new(BACK).input_capacity(capacity).output_capacity(capacity);
    server
        .manager
        .register_stream(route, |_, _, mut input, mut output| async move {
            while let Some(message) = input.next().await {
                output.send(message?).await?;
            }
            Ok(())
        })
        .expect("free");
}

/// Sends until there is no credit, and returns the number of messages.
fn fill(sender: &mut StreamSender) -> u32 {
    let mut count = 0;
    // Not to be mistaken for tokio's budget of a task.
    while let Some(sent) = unconstrained(sender.send("x")).now_or_never() {
        sent.expect("the stream is open");
        count += 1;
    }
    count
}

#[tokio::test]
async fn b21_a_caller_sends_as_much_as_the_input_capacity_and_then_waits() {
    for capacity in [1, 2, 64, 1_000] {
        let (one, two) = Server::pair(&Limits::default()).await;
        let take = serve_idle(&two, capacity);
        let connection = one.connection(&two.url);
        let open = connection.stream(IDLE, "").input_capacity(capacity);
        let (mut sender, receiver) = opened(open).await.split();
        assert_eq!(fill(&mut sender), capacity);
        eventually("all messages arrived", || {
            two.connection(&one.url).stats().messages_in == u64::from(capacity) + 1
        })
        .await;
        assert_eq!(fill(&mut sender), 0, "no credit comes before one is taken");
        for _ in 0..3 {
            let mut waiting = Box::pin(sender.send("waits"));
            assert!((&mut waiting).now_or_never().is_none());
            take.notify_one();
            within("a credit", waiting).await.expect("the handler runs");
        }
        assert_eq!(fill(&mut sender), 0, "one is taken, one may be sent");

        // The end takes a credit too (P17).
        let mut finishing = Box::pin(sender.finish());
        assert!((&mut finishing).now_or_never().is_none());
        take.notify_one();
        within("a credit", finishing).await.expect("the handler runs");
        drop(receiver);
        one.assert_quiescent().await;
        two.assert_quiescent().await;
    }
}

/// Registers a handler that sends without end, and counts its messages.
fn serve_flood(server: &Server, capacity: u32) -> Arc<AtomicUsize> {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    server
        .manager
        .register_stream(Route::new(FLOOD).output_capacity(capacity), move |_, _, _, mut output| {
            let counter = Arc::clone(&counter);
            async move {
                loop {
                    output.send("x").await?;
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .expect("free");
    sent
}

/// Waits until each side has handled all that the other had sent.
async fn round_trip(one: &Server, two: &Server) {
    let (there, back) = (one.connection(&two.url), two.connection(&one.url));
    for connection in [there, back] {
        connection.request(ECHO, "x").await.expect("an echo");
    }
}

#[tokio::test]
async fn b21_a_handler_sends_as_much_as_the_output_capacity_and_then_waits() {
    for capacity in [1, 2, 64] {
        let (one, two) = Server::pair(&Limits::default()).await;
        let sent = serve_flood(&two, capacity as u32);
        let open = one.connection(&two.url).stream(FLOOD, "").output_capacity(capacity as u32);
        let (_sender, mut receiver) = opened(open).await.split();
        for taken in 0..10 {
            eventually("credit is used", || sent.load(Ordering::SeqCst) == capacity + taken).await;
            round_trip(&one, &two).await;
            assert_eq!(sent.load(Ordering::SeqCst), capacity + taken);
            message(&mut receiver).await;
        }
        drop((_sender, receiver));
        one.assert_quiescent().await;
        two.assert_quiescent().await;
    }
}

#[tokio::test]
async fn b21_slow_streams_slow_no_other_call() {
    let (one, two) = Server::pair(&Limits::default()).await;
    serve_idle(&two, 8);
    serve_back(&two, 64);
    let sent = serve_flood(&two, 8);
    let connection = one.connection(&two.url);
    let mut stuck = Vec::new();
    for _ in 0..25 {
        let (mut sender, receiver) =
            opened(connection.stream(IDLE, "").input_capacity(8)).await.split();
        assert_eq!(fill(&mut sender), 8);
        let waiting = tokio::spawn(async move { sender.send("waits").await });
        let unread = opened(connection.stream(FLOOD, "").output_capacity(8)).await;
        stuck.push((receiver, waiting, unread));
    }
    eventually("all are out of credit", || sent.load(Ordering::SeqCst) == 25 * 8).await;

    let (mut sender, mut receiver) = opened(connection.stream(BACK, "")).await.split();
    for number in 0..1_000_u32 {
        within("a credit", sender.send(number.to_string())).await.expect("it flows");
        assert_eq!(message(&mut receiver).await, number.to_string());
        let response = within("a response", connection.request(ECHO, "x").into_future()).await;
        assert_eq!(response.expect("an echo"), "x");
    }
    drop((sender, receiver));
    assert!(stuck.iter().all(|(_, waiting, _)| !waiting.is_finished()));
    assert_eq!(sent.load(Ordering::SeqCst), 25 * 8);
    for (receiver, waiting, unread) in stuck {
        drop((receiver, unread));
        waiting.abort();
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b21_capacities_of_one_carry_a_thousand_messages_both_ways() {
    let (one, two) = Server::pair(&Limits::default()).await;
    serve_back(&two, 1);
    let open = one.connection(&two.url).stream(BACK, "").input_capacity(1).output_capacity(1);
    let (mut sender, mut receiver) = opened(open).await.split();
    let sending = tokio::spawn(async move {
        for number in 0..1_000_u32 {
            sender.send(number.to_string()).await.expect("accepted");
        }
    });
    let (messages, end) = collect_rest(&mut receiver).await;
    let expected: Vec<_> = (0..1_000_u32).map(|number| number.to_string()).collect();
    assert_eq!(messages, expected);
    assert_eq!(end, Ok(()));
    sending.await.expect("no panic");
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b26_a_stream_without_input_ends_its_input_at_once() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let release = Arc::new(Notify::new());
    let released = Arc::clone(&release);
    let route = Route::new(BACK).input_capacity(0);
    two.manager
        .register_stream(route, move |_, _, mut input, mut output| {
            let released = Arc::clone(&released);
            async move {
                assert!(input.next().await.is_none());
                released.notified().await;
                Ok(output.send("the end").await?)
            }
        })
        .expect("free");
    let open = one.connection(&two.url).stream(BACK, "").input_capacity(0);
    let (mut sender, mut receiver) = opened(open).await.split();
    assert_eq!(sender.send("x").await, Err(SendError::NoInput));
    assert_eq!(sender.feed("x".into()).await, Err(SendError::NoInput));
    within("finishing", sender.finish()).await.expect("there is nothing to finish");
    release.notify_one();
    assert_eq!(collect_rest(&mut receiver).await, (vec!["the end".into()], Ok(())));
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn streams_implement_stream_and_sink() {
    let (one, two) = Server::pair(&Limits::default()).await;
    two.manager
        .register_stream(
            Route::new(BACK).input_capacity(3).output_capacity(2),
            |_, _, input: StreamReceiver, output| async move {
                let doubled = input.map_ok(|message| Bytes::from(message.repeat(2)));
                Ok(doubled.map_err(SendError::Stream).forward(output).await?)
            },
        )
        .expect("free");
    let open = || one.connection(&two.url).stream(BACK, "").input_capacity(3).output_capacity(2);
    let numbers = || (0..500_u32).map(|number| Ok(Bytes::from(number.to_string())));
    let expected: Vec<_> = (0..500_u32).map(|number| number.to_string().repeat(2)).collect();

    // `forward` closes the sink, which finishes the stream.
    let (sender, receiver) = opened(open()).await.split();
    let sending = tokio::spawn(stream::iter(numbers()).forward(sender));
    let received: Vec<_> = within("all", receiver.try_collect()).await.expect("a clean end");
    assert_eq!(received.iter().map(Bytes::len).sum::<usize>(), 2 * 1_390);
    assert_eq!(received, expected);
    within("sending", sending).await.expect("no panic").expect("all are taken");

    // `send_all` flushes and does not close.
    let (mut sender, receiver) = opened(open()).await.split();
    let sending = tokio::spawn(async move {
        sender.send_all(&mut stream::iter(numbers())).await.expect("all are taken");
        SinkExt::send(&mut sender, Bytes::from("one more")).await.expect("accepted");
        SinkExt::<Bytes>::close(&mut sender).await.expect("the handler is there");
        assert_eq!(sender.feed("too late".into()).await, Err(SendError::Finished));
    });
    let received: Vec<_> = within("all", receiver.collect()).await;
    assert_eq!(received.len(), 501);
    assert!(received.into_iter().all(|message: Result<Bytes, _>| message.is_ok()));
    within("sending", sending).await.expect("no panic");
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn a_sink_that_is_not_ready_accepts_nothing_and_loses_nothing() {
    use futures_util::Sink;
    use std::pin::Pin;
    let (one, two) = Server::pair(&Limits::default()).await;
    let take = serve_idle(&two, 1);
    let open = one.connection(&two.url).stream(IDLE, "").input_capacity(1);
    let (mut sender, receiver) = opened(open).await.split();
    sender.feed("one".into()).await.expect("there is credit");
    sender.feed("two".into()).await.expect("a sink keeps one");
    let refused = Pin::new(&mut sender).start_send("three".into());
    assert_eq!(refused, Err(SendError::NotReady));
    assert!(SinkExt::<Bytes>::flush(&mut sender).now_or_never().is_none(), "it waits for credit");
    take.notify_one();
    within("a credit", SinkExt::<Bytes>::flush(&mut sender)).await.expect("the handler runs");
    drop((sender, receiver));
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_whose_stream_ends_returns_the_reason() {
    let (one, two) = Server::pair(&Limits::default()).await;
    two.manager
        .register_stream(Route::new(BACK), |_, _, mut input, _| async move {
            for _ in 0..20 {
                input.next().await;
            }
            Err("enough".into())
        })
        .expect("free");
    let connection = one.connection(&two.url);
    let streams: Vec<_> = (0..500)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let (mut sender, _receiver) = opened(connection.stream(BACK, "")).await.split();
                let error = loop {
                    if let Err(error) = sender.feed("x".into()).await {
                        break error;
                    }
                };
                let SendError::Stream(error) = error else { panic!("{error:?}") };
                assert_eq!(remote_text(Err(error)), "enough");
            })
        })
        .collect();
    for stream in streams {
        within("the end", stream).await.expect("the reason");
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b21_messages_of_many_streams_each_in_order_with_small_queues() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 32 << 10;
    limits.queue_bytes_max = 64 << 10;
    let (one, two) = Server::pair(&limits).await;
    serve_back(&two, 8);
    let connection = one.connection(&two.url);
    let (start, started) = watch::channel(false);
    let streams: Vec<_> = (0..40_u8)
        .map(|number| {
            let (connection, mut started) = (connection.clone(), started.clone());
            tokio::spawn(async move {
                let open = connection.stream(BACK, "").input_capacity(8).output_capacity(8);
                let (mut sender, mut receiver) = opened(open).await.split();
                started.wait_for(|start| *start).await.expect("the test is running");
                let sending = tokio::spawn(async move {
                    for round in 0..30 {
                        let payload = vec![number ^ round; 20 << 10];
                        sender.send(payload).await.expect("accepted");
                    }
                });
                let (messages, end) = collect_rest(&mut receiver).await;
                assert_eq!((messages.len(), end), (30, Ok(())));
                for (round, message) in (0_u8..).zip(messages) {
                    assert_eq!(message.len(), 20 << 10);
                    assert!(message.iter().all(|byte| *byte == number ^ round));
                }
                sending.await.expect("no panic");
            })
        })
        .collect();
    start.send_replace(true);
    for stream in streams {
        within("the streams", stream).await.expect("each is complete");
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}
