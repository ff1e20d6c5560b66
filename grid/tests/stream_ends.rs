//! Streams between real servers that end before their handler returns: cancelled, closed in one
//! half, disconnected, or outlived by a task of the handler.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use grid::{CallError, HandlerError, HandlerId, Limits, Route, SendError, StreamError};
use support::live::LiveCount;
use support::streams::{collect_rest, is_disconnected, message, opened};
use support::{ECHO, Server, WAIT_MAX, eventually, within};
use tokio::sync::mpsc;

const REPORTER: HandlerId = HandlerId::new(210);
const OTHER: HandlerId = HandlerId::new(211);

/// An observation of a handler, or of a task of it.
#[derive(Debug, PartialEq)]
enum Observed {
    Message(Bytes),
    /// A clean end of its input.
    End,
    Error(StreamError),
    /// A cancellation of the handler.
    Cancelled,
}

impl From<Option<Result<Bytes, StreamError>>> for Observed {
    fn from(received: Option<Result<Bytes, StreamError>>) -> Self {
        match received {
            Some(Ok(message)) => Self::Message(message),
            Some(Err(error)) => Self::Error(error),
            None => Self::End,
        }
    }
}

type Reports = mpsc::UnboundedReceiver<Observed>;

/// Starts two connected servers. The handler of the second reports its input up to the end and then
/// never returns; it is counted while it lives.
async fn reporting_pair() -> (Server, Server, LiveCount, Reports) {
    let (one, two) = Server::pair(&Limits::default()).await;
    let live = LiveCount::default();
    let (report, reports) = mpsc::unbounded_channel();
    let counter = live.clone();
    two.manager
        .register_stream(Route::new(REPORTER), move |_, _, mut input, output| {
            let (guard, report) = (counter.guard(), report.clone());
            async move {
                let (_guard, _output) = (guard, output);
                loop {
                    let saw = Observed::from(input.next().await);
                    let is_last = !matches!(saw, Observed::Message(_));
                    report.send(saw).expect("the test receives");
                    if is_last {
                        return std::future::pending().await;
                    }
                }
            }
        })
        .expect("free");
    (one, two, live, reports)
}

async fn next(reports: &mut Reports) -> Observed {
    within("a report", reports.recv()).await.expect("the handler is registered")
}

/// Asserts that both servers are quiescent and that the handler reported nothing more.
async fn assert_quiescent_without_reports(
    one: &Server,
    two: &Server,
    live: &LiveCount,
    reports: &mut Reports,
) {
    eventually("the handlers are dropped", || live.count() == 0).await;
    one.assert_quiescent().await;
    two.assert_quiescent().await;
    assert!(reports.try_recv().is_err(), "the handler observed an end of its input");
}

#[tokio::test]
async fn b25_dropping_a_stream_cancels_its_handler_which_observes_no_clean_end() {
    let (one, two, live, mut reports) = reporting_pair().await;
    for how in 0..40 {
        let mut stream = opened(one.connection(&two.url).stream(REPORTER, "")).await;
        stream.send("half of it").await.expect("accepted");
        assert_eq!(next(&mut reports).await, Observed::Message("half of it".into()));
        match how % 4 {
            0 => drop(stream),
            1 => {
                let (sender, receiver) = stream.split();
                drop(receiver);
                drop(sender);
            }
            2 => {
                let task = tokio::spawn(async move {
                    let _stream = stream;
                    std::future::pending::<()>().await;
                });
                task.abort();
            }
            _ => {
                // A panic between two messages does not end the input either.
                let (sender, receiver) = stream.split();
                let task = tokio::spawn(async move {
                    let _sender = sender;
                    panic!("a panic of the caller");
                });
                task.await.expect_err("it panicked");
                drop(receiver);
            }
        }
        assert_quiescent_without_reports(&one, &two, &live, &mut reports).await;
    }
}

#[tokio::test]
async fn b11_dropping_the_future_that_opens_cancels_the_handler() {
    let (one, two, live, mut reports) = reporting_pair().await;
    for wait in [false, true] {
        let mut opening = Box::pin(one.connection(&two.url).stream(REPORTER, "").into_future());
        assert!((&mut opening).now_or_never().is_none(), "no acknowledgement yet");
        if wait {
            eventually("the handler runs", || live.count() == 1).await;
        }
        drop(opening);
        assert_quiescent_without_reports(&one, &two, &live, &mut reports).await;
    }
    assert_eq!(one.connection(&two.url).stats().outbound_streams, 2);
}

#[tokio::test]
async fn b25_dropping_the_sender_alone_is_a_half_close() {
    let (one, two) = Server::pair(&Limits::default()).await;
    two.manager
        .register_stream(Route::new(OTHER), |_, _, mut input, mut output| async move {
            let mut count = 0;
            while let Some(message) = input.next().await {
                message?;
                count += 1;
            }
            for number in 0..200 {
                output.send(format!("{count} {number}")).await?;
            }
            Ok(())
        })
        .expect("free");
    let (mut sender, mut receiver) =
        opened(one.connection(&two.url).stream(OTHER, "")).await.split();
    for _ in 0..100 {
        within("a credit", sender.send("x")).await.expect("accepted");
    }
    drop(sender);
    let (messages, end) = collect_rest(&mut receiver).await;
    assert_eq!(end, Ok(()));
    let expected: Vec<_> = (0..200).map(|number| format!("100 {number}")).collect();
    assert_eq!(messages, expected);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b25_dropping_the_receiver_alone_blocks_neither_end() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (report, mut reports) = mpsc::unbounded_channel();
    two.manager
        .register_stream(
            Route::new(OTHER).output_capacity(4),
            move |_, _, mut input, mut output| {
                let report = report.clone();
                async move {
                    for number in 0..10_000_u32 {
                        output.send(number.to_string()).await?;
                    }
                    report.send(Observed::from(input.next().await)).expect("the test receives");
                    Ok(())
                }
            },
        )
        .expect("free");
    let open = one.connection(&two.url).stream(OTHER, "").output_capacity(4);
    let (mut sender, mut receiver) = opened(open).await.split();
    assert_eq!(message(&mut receiver).await, "0");
    drop(receiver);
    // All 10,000 leave, and input still arrives after them.
    sender.send("still here").await.expect("the handler runs");
    assert_eq!(next(&mut reports).await, Observed::Message("still here".into()));
    let error = loop {
        match within("the end", sender.send("too late")).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Finished);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b25_a_handler_that_drops_its_input_does_not_block_its_caller() {
    let (one, two) = Server::pair(&Limits::default()).await;
    two.manager
        .register_stream(
            Route::new(OTHER).input_capacity(2),
            |context, _, input, mut output| async move {
                drop(input);
                output.send("dropped").await?;
                context.cancelled().await;
                Ok(())
            },
        )
        .expect("free");
    let open = one.connection(&two.url).stream(OTHER, "").input_capacity(2);
    let (mut sender, mut receiver) = opened(open).await.split();
    assert_eq!(message(&mut receiver).await, "dropped");
    for _ in 0..1_000 {
        within("a credit", sender.send("discarded")).await.expect("the handler runs");
    }
    within("finishing", sender.finish()).await.expect("the handler runs");
    drop(receiver);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

/// Registers a handler that sends a number of messages and then never returns.
fn serve_some(server: &Server, live: &LiveCount) {
    let counter = live.clone();
    server
        .manager
        .register_stream(Route::new(OTHER), move |_, _, input, mut output| {
            let guard = counter.guard();
            async move {
                let (_guard, _input) = (guard, input);
                for number in 0..10 {
                    output.send(number.to_string()).await?;
                }
                std::future::pending().await
            }
        })
        .expect("free");
}

#[tokio::test]
async fn b05_b14_messages_before_a_disconnect_are_received_and_then_the_end() {
    for side in 0..2 {
        let (one, two) = Server::pair(&Limits::default()).await;
        let live = LiveCount::default();
        serve_some(&two, &live);
        let connection = one.connection(&two.url);
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(opened(connection.stream(OTHER, "").input_capacity(1)).await.split());
        }
        // Opening, 20 acknowledgements, 200 messages.
        eventually("all messages arrived", || connection.stats().messages_in == 220).await;
        assert_eq!(live.count(), 20);
        let (ending, other) = if side == 0 { (&one, &two) } else { (&two, &one) };
        within("the shutdown", ending.manager.shutdown(Duration::ZERO)).await;
        eventually("the handlers are dropped", || live.count() == 0).await;
        for (mut sender, mut receiver) in streams {
            let error = within("the end", sender.send("x")).await.expect_err("cut off");
            let SendError::Stream(error) = error else { panic!("{error}") };
            assert!(is_disconnected(&error), "{error}");
            let (messages, end) = collect_rest(&mut receiver).await;
            assert_eq!(messages.len(), 10);
            assert!(is_disconnected(&end.expect_err("cut off")));
            let error = within("the end", sender.finish()).await.expect_err("cut off");
            assert!(is_disconnected(&error), "{error}");
        }
        ending.assert_quiescent().await;
        other.assert_quiescent().await;
    }
}

#[tokio::test]
async fn b09_shutdown_does_not_wait_longer_than_its_grace_period_for_a_stream() {
    let (one, two, live, mut reports) = reporting_pair().await;
    let mut stream = opened(one.connection(&two.url).stream(REPORTER, "")).await;
    within("the shutdown", two.manager.shutdown(Duration::from_millis(20))).await;
    let error = within("the end", stream.next()).await.expect("an error").expect_err("cut off");
    assert!(is_disconnected(&error), "{error}");
    assert_quiescent_without_reports(&one, &two, &live, &mut reports).await;
}

#[tokio::test]
async fn b09_an_open_stream_keeps_its_manager_and_dropping_it_ends_both() {
    let (one, two, live, mut reports) = reporting_pair().await;
    let mut stream = opened(one.connection(&two.url).stream(REPORTER, "")).await;
    drop(one);
    stream.send("a stream is a handle").await.expect("the connection lives");
    assert_eq!(next(&mut reports).await, Observed::Message("a stream is a handle".into()));
    drop(stream);
    eventually("the handler is dropped", || live.count() == 0).await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b06_b11_dropping_a_waiting_send_removes_its_message() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (receive_next, requests) = mpsc::unbounded_channel::<()>();
    let requests = std::sync::Arc::new(tokio::sync::Mutex::new(requests));
    two.manager
        .register_stream(Route::new(OTHER).input_capacity(1), move |_, _, mut input, mut output| {
            let requests = std::sync::Arc::clone(&requests);
            async move {
                while requests.lock().await.recv().await.is_some() {
                    let Some(message) = input.next().await else { return Ok(()) };
                    output.send(message?).await?;
                }
                Err("the test is over".into())
            }
        })
        .expect("free");
    let open = one.connection(&two.url).stream(OTHER, "").input_capacity(1);
    let (mut sender, mut receiver) = opened(open).await.split();
    let receive_one = || receive_next.send(()).expect("the handler listens");
    let mut expected = Vec::new();
    for round in 0..20 {
        let first = format!("{round} first");
        within("a credit", sender.send(first.clone())).await.expect("there is credit");
        assert!(sender.send("cancelled").now_or_never().is_none(), "there is no credit");
        assert_eq!(
            one.connection(&two.url).stats().blocked_messages,
            0,
            "it waits for credit, not for queue space"
        );
        receive_one();
        assert_eq!(message(&mut receiver).await, first);
        expected.push(first);
    }
    let mut last = Box::pin(sender.send("last"));
    receive_one();
    within("a credit", &mut last).await.expect("there is credit");
    drop(last);
    let finishing = tokio::spawn(sender.finish());
    assert_eq!(message(&mut receiver).await, "last");
    receive_one();
    within("finishing", finishing).await.expect("no panic").expect("no error");
    assert_eq!(collect_rest(&mut receiver).await, (vec![], Ok(())));
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b25_a_task_that_outlives_its_handler_learns_that_it_returned() {
    let (one, two) = Server::pair(&Limits::default()).await;
    for (id, response) in [(REPORTER, Ok(())), (OTHER, Err(HandlerError::new("failed")))] {
        let (report, mut reports) = mpsc::unbounded_channel();
        let route = Route::new(id).output_capacity(1);
        two.manager
            .register_stream(route, move |context, _, mut input, mut output| {
                let (report, sender, response) = (report.clone(), report.clone(), response.clone());
                let cancelled = context.cancelled();
                tokio::spawn(async move {
                    let error = loop {
                        match output.send("outlived").await {
                            Ok(()) => {}
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(error, SendError::Finished);
                    assert_eq!(output.send("again").await, Err(SendError::Finished));
                    cancelled.await;
                    sender.send(Observed::Cancelled).expect("the test receives");
                });
                tokio::spawn(async move {
                    report.send(input.next().await.into()).expect("the test receives");
                    report.send(input.next().await.into()).expect("the test receives");
                });
                std::future::ready(response)
            })
            .expect("free");
        let open = one.connection(&two.url).stream(id, "").output_capacity(1);
        let receiver = match within("opening", open.into_future()).await {
            Ok(stream) => {
                let (sender, mut receiver) = stream.split();
                drop(collect_rest(&mut receiver).await);
                drop(sender);
                Some(receiver)
            }
            Err(_) => None,
        };
        drop(receiver);
        let mut saw =
            [next(&mut reports).await, next(&mut reports).await, next(&mut reports).await];
        saw.sort_by_key(|saw| match saw {
            Observed::Error(_) => 0,
            Observed::End => 1,
            Observed::Cancelled => 2,
            Observed::Message(_) => 3,
        });
        let is_returned =
            |saw: &Observed| matches!(saw, Observed::Error(StreamError::HandlerReturned { .. }));
        assert!(is_returned(&saw[0]), "{saw:?}");
        assert_eq!(saw[1..], [Observed::End, Observed::Cancelled]);
        one.assert_quiescent().await;
        two.assert_quiescent().await;
    }
}

#[tokio::test]
async fn b25_a_task_that_outlives_its_handler_learns_of_the_cancellation() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (report, mut reports) = mpsc::unbounded_channel();
    two.manager
        .register_stream(
            Route::new(OTHER).output_capacity(1),
            move |context, _, mut input, mut output| {
                let (report, cancelled) = (report.clone(), context.cancelled());
                tokio::spawn(async move {
                    output.send("one").await.expect("there is credit");
                    report.send(input.next().await.into()).expect("the test receives");
                    let error = output.send("two").await.expect_err("cancelled");
                    let SendError::Stream(error) = error else { panic!("{error}") };
                    report.send(Observed::Error(error)).expect("the test receives");
                    report.send(input.next().await.into()).expect("the test receives");
                    cancelled.await;
                    assert!(context.is_cancelled());
                    report.send(Observed::Cancelled).expect("the test receives");
                });
                std::future::pending()
            },
        )
        .expect("free");
    let mut stream = opened(one.connection(&two.url).stream(OTHER, "").output_capacity(1)).await;
    assert_eq!(within("a message", stream.next()).await.expect("one").expect("no error"), "one");
    drop(stream);
    for _ in 0..2 {
        let saw = next(&mut reports).await;
        assert!(matches!(saw, Observed::Error(StreamError::Cancelled { .. })), "{saw:?}");
    }
    assert_eq!(next(&mut reports).await, Observed::End);
    assert_eq!(next(&mut reports).await, Observed::Cancelled);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b14_a_task_that_outlives_its_handler_learns_of_the_deadline_it_overran() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (report, mut reports) = mpsc::unbounded_channel();
    two.manager
        .register_stream(Route::new(OTHER), move |context, _, mut input, _| {
            let report = report.clone();
            tokio::spawn(async move {
                report.send(input.next().await.into()).expect("the test receives");
            });
            // Never awaits: its deadline is not checked before it returns.
            while context.time_left().is_some_and(|left| !left.is_zero()) {
                std::hint::spin_loop();
            }
            std::future::ready(Ok(()))
        })
        .expect("free");
    let open = one.connection(&two.url).stream(OTHER, "").timeout(Duration::from_millis(100));
    let (_, end) = support::streams::collect_stream(open).await;
    assert!(support::streams::is_deadline(&end.expect_err("too late")));
    let saw = next(&mut reports).await;
    assert!(matches!(saw, Observed::Error(_)), "{saw:?}");
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b24_an_error_reaches_a_caller_that_does_not_read_even_past_a_waiting_message() {
    use futures_util::SinkExt;
    let (one, two) = Server::pair(&Limits::default()).await;
    let route = Route::new(OTHER).input_capacity(1).output_capacity(1);
    two.manager
        .register_stream(route, |_, _, _input, mut output| async move {
            output.feed(Bytes::from("sent")).await?;
            output.feed(Bytes::from("waits for credit")).await?;
            Err("failed".into())
        })
        .expect("free");
    let open = one.connection(&two.url).stream(OTHER, "").input_capacity(1).output_capacity(1);
    let (_sender, mut receiver) = opened(open).await.split();
    // The caller does not read, and still the stream ends for it.
    eventually("the end arrived", || one.connection(&two.url).stats().live_outbound_streams == 0)
        .await;
    assert_eq!(message(&mut receiver).await, "sent");
    let end = collect_rest(&mut receiver).await.1;
    assert_eq!(support::streams::remote_text(end), "failed");
    assert!(one.connection(&two.url).request(ECHO, "x").timeout(WAIT_MAX).await.is_ok());
}

/// A payload whose drop calls into the connection, as an application's code may.
struct DropCallsConnection(grid::Connection);

impl AsRef<[u8]> for DropCallsConnection {
    fn as_ref(&self) -> &[u8] {
        b"memory of the application"
    }
}

impl Drop for DropCallsConnection {
    fn drop(&mut self) {
        self.0.stats();
    }
}

#[tokio::test]
async fn a_payload_of_a_stream_that_does_not_open_is_not_dropped_under_the_lock() {
    let address = support::ReservedAddress::new().await;
    let nowhere = "http://127.0.0.1:1".to_owned();
    let urls = [address.url.clone(), nowhere.clone()];
    let server = Server::start(address, &urls, Limits::default());
    let connection = server.connection(&nowhere);
    let payload = Bytes::from_owner(DropCallsConnection(connection.clone()));
    let error = within("an error", connection.stream(REPORTER, payload).into_future()).await;
    let error = error.expect_err("no server");
    assert!(matches!(error, StreamError::Call(CallError::NotConnected { .. })), "{error}");
}

/// An aborted task may drop the sender first: captured variables drop in an unspecified order. The
/// handler must not take the messages so far for all of the input.
#[tokio::test]
async fn b25_dropping_the_sender_first_and_then_the_receiver_never_ends_the_input_cleanly() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (report, mut inputs) = mpsc::unbounded_channel();
    two.manager
        .register_stream(Route::new(REPORTER), move |_, _, mut input, _| {
            let report = report.clone();
            async move {
                // In a spawned task, which survives the cancellation of its handler.
                tokio::spawn(async move {
                    let mut last = input.next().await;
                    while let Some(Ok(_)) = last {
                        last = input.next().await;
                    }
                    report.send(last.is_none()).expect("the test waits");
                });
                std::future::pending().await
            }
        })
        .expect("free");
    let connection = one.connection(&two.url);
    for _ in 0..200 {
        let stream = within("opening", connection.stream(REPORTER, "").into_future()).await;
        let (mut sender, receiver) = stream.expect("it opens").split();
        sender.send("half").await.expect("there is credit");
        drop(sender);
        tokio::task::yield_now().await; // however long it takes until the other half is dropped
        drop(receiver);
        let is_clean =
            within("the end of the input", inputs.recv()).await.expect("the handler runs");
        assert!(!is_clean, "half of the input looked like all of it");
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b23_finishing_a_stream_that_has_failed_loses_no_message_before_the_error() {
    let (one, two) = Server::pair(&Limits::default()).await;
    two.manager
        .register_stream(Route::new(REPORTER), |_, _, _, mut output| async move {
            for text in ["one", "two", "three"] {
                output.send(text).await?;
            }
            Err("out of disk".into())
        })
        .expect("free");
    let connection = one.connection(&two.url);
    let mut stream = opened(connection.stream(REPORTER, "")).await;
    eventually("the end arrived", || connection.stats().live_outbound_streams == 0).await;
    stream.finish().await.expect_err("it has failed");
    for text in ["one", "two", "three"] {
        assert_eq!(stream.next().await.expect("a message").expect("no error"), text);
    }
    stream.next().await.expect("the error").expect_err("it has failed");
    assert!(stream.next().await.is_none());
}
