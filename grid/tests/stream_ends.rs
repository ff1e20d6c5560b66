//! How streams between real servers end before their handler does: given up, half or whole, cut off
//! with their connection, or outlived by a task that the handler left behind.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use grid::{CallError, HandlerError, HandlerId, Limits, Route, SendError, StreamError};
use support::live::Live;
use support::streams::{is_disconnected, message, opened, rest};
use support::{ECHO, PATIENCE, Server, eventually, within};
use tokio::sync::mpsc;

const LISTENER: HandlerId = HandlerId::new(210);
const OTHER: HandlerId = HandlerId::new(211);

/// What a handler, or a task of it, saw.
#[derive(Debug, PartialEq)]
enum Saw {
    Message(Bytes),
    /// A clean end of its input.
    End,
    Error(StreamError),
    /// It was cancelled.
    Cancelled,
}

impl From<Option<Result<Bytes, StreamError>>> for Saw {
    fn from(received: Option<Result<Bytes, StreamError>>) -> Self {
        match received {
            Some(Ok(message)) => Self::Message(message),
            Some(Err(error)) => Self::Error(error),
            None => Self::End,
        }
    }
}

type Reports = mpsc::UnboundedReceiver<Saw>;

/// Two connected servers. The handler of the second reports what its input says, to its end, and
/// then never returns; it is counted while it lives.
async fn listening() -> (Server, Server, Live, Reports) {
    let (one, two) = Server::pair(&Limits::default()).await;
    let live = Live::default();
    let (report, reports) = mpsc::unbounded_channel();
    let counter = live.clone();
    two.manager
        .register_stream(Route::new(LISTENER), move |_, _, mut input, output| {
            let (guard, report) = (counter.guard(), report.clone());
            async move {
                let (_guard, _output) = (guard, output);
                loop {
                    let saw = Saw::from(input.next().await);
                    let is_last = !matches!(saw, Saw::Message(_));
                    report.send(saw).expect("the test listens");
                    if is_last {
                        return std::future::pending().await;
                    }
                }
            }
        })
        .expect("free");
    (one, two, live, reports)
}

async fn next(reports: &mut Reports) -> Saw {
    within("a report", reports.recv()).await.expect("the handler is registered")
}

/// Both servers are at rest, and the handler said nothing more.
async fn are_at_rest(one: &Server, two: &Server, live: &Live, reports: &mut Reports) {
    eventually("the handlers are dropped", || live.count() == 0).await;
    one.is_quiescent().await;
    two.is_quiescent().await;
    assert!(reports.try_recv().is_err(), "the handler saw an end that there was not");
}

#[tokio::test]
async fn b25_dropping_a_stream_cancels_its_handler_which_sees_no_clean_end() {
    let (one, two, live, mut reports) = listening().await;
    for how in 0..40 {
        let mut stream = opened(one.connection(&two.url).stream(LISTENER, "")).await;
        stream.send("half of it").await.expect("it is taken");
        assert_eq!(next(&mut reports).await, Saw::Message("half of it".into()));
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
                // A panic between two messages is no end of them either.
                let (sender, receiver) = stream.split();
                let task = tokio::spawn(async move {
                    let _sender = sender;
                    panic!("the caller's own trouble");
                });
                task.await.expect_err("it panicked");
                drop(receiver);
            }
        }
        are_at_rest(&one, &two, &live, &mut reports).await;
    }
}

#[tokio::test]
async fn b11_dropping_the_future_that_opens_cancels_the_handler() {
    let (one, two, live, mut reports) = listening().await;
    for wait in [false, true] {
        let mut opening = Box::pin(one.connection(&two.url).stream(LISTENER, "").into_future());
        assert!((&mut opening).now_or_never().is_none(), "nobody has answered yet");
        if wait {
            eventually("the handler runs", || live.count() == 1).await;
        }
        drop(opening);
        are_at_rest(&one, &two, &live, &mut reports).await;
    }
    assert_eq!(one.connection(&two.url).stats().streams_made, 2);
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
        within("a credit", sender.send("x")).await.expect("it is taken");
    }
    drop(sender);
    let (messages, end) = rest(&mut receiver).await;
    assert_eq!(end, Ok(()));
    let expected: Vec<_> = (0..200).map(|number| format!("100 {number}")).collect();
    assert_eq!(messages, expected);
    one.is_quiescent().await;
    two.is_quiescent().await;
}

#[tokio::test]
async fn b25_dropping_the_receiver_alone_leaves_nobody_stuck() {
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
                    report.send(Saw::from(input.next().await)).expect("the test listens");
                    Ok(())
                }
            },
        )
        .expect("free");
    let open = one.connection(&two.url).stream(OTHER, "").output_capacity(4);
    let (mut sender, mut receiver) = opened(open).await.split();
    assert_eq!(message(&mut receiver).await, "0");
    drop(receiver);
    // All 10,000 go out, and input still comes in behind them.
    sender.send("still here").await.expect("the handler runs");
    assert_eq!(next(&mut reports).await, Saw::Message("still here".into()));
    let error = loop {
        match within("the end", sender.send("too late")).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Finished);
    one.is_quiescent().await;
    two.is_quiescent().await;
}

#[tokio::test]
async fn b25_a_handler_that_drops_its_input_leaves_its_caller_unstuck() {
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
        within("a credit", sender.send("for nobody")).await.expect("the handler runs");
    }
    within("finishing", sender.finish()).await.expect("the handler runs");
    drop(receiver);
    one.is_quiescent().await;
    two.is_quiescent().await;
}

/// The handler sends some, and then waits for ever.
fn serve_some(server: &Server, live: &Live) {
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
async fn b05_b14_what_came_before_the_connection_ended_is_received_and_then_the_end() {
    for side in 0..2 {
        let (one, two) = Server::pair(&Limits::default()).await;
        let live = Live::default();
        serve_some(&two, &live);
        let connection = one.connection(&two.url);
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(opened(connection.stream(OTHER, "").input_capacity(1)).await.split());
        }
        // Opening, 20 acknowledgements, 200 messages.
        eventually("all came in", || connection.stats().messages_in == 220).await;
        assert_eq!(live.count(), 20);
        let (ending, other) = if side == 0 { (&one, &two) } else { (&two, &one) };
        within("the shutdown", ending.manager.shutdown(Duration::ZERO)).await;
        eventually("the handlers are dropped", || live.count() == 0).await;
        for (mut sender, mut receiver) in streams {
            let error = within("the end", sender.send("x")).await.expect_err("cut off");
            let SendError::Stream(error) = error else { panic!("{error}") };
            assert!(is_disconnected(&error), "{error}");
            let (messages, end) = rest(&mut receiver).await;
            assert_eq!(messages.len(), 10);
            assert!(is_disconnected(&end.expect_err("cut off")));
            let error = within("the end", sender.finish()).await.expect_err("cut off");
            assert!(is_disconnected(&error), "{error}");
        }
        ending.is_quiescent().await;
        other.is_quiescent().await;
    }
}

#[tokio::test]
async fn b09_shutdown_does_not_wait_longer_than_its_grace_for_a_stream() {
    let (one, two, live, mut reports) = listening().await;
    let mut stream = opened(one.connection(&two.url).stream(LISTENER, "")).await;
    within("the shutdown", two.manager.shutdown(Duration::from_millis(20))).await;
    let error = within("the end", stream.next()).await.expect("an error").expect_err("cut off");
    assert!(is_disconnected(&error), "{error}");
    are_at_rest(&one, &two, &live, &mut reports).await;
}

#[tokio::test]
async fn b09_an_open_stream_keeps_its_manager_and_dropping_it_ends_both() {
    let (one, two, live, mut reports) = listening().await;
    let mut stream = opened(one.connection(&two.url).stream(LISTENER, "")).await;
    drop(one);
    stream.send("I hold a handle").await.expect("the connection lives");
    assert_eq!(next(&mut reports).await, Saw::Message("I hold a handle".into()));
    drop(stream);
    eventually("the handler is dropped", || live.count() == 0).await;
    two.is_quiescent().await;
}

#[tokio::test]
async fn b06_b11_a_send_that_is_dropped_takes_its_message_back() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (take, taken) = mpsc::unbounded_channel::<()>();
    let taken = std::sync::Arc::new(tokio::sync::Mutex::new(taken));
    two.manager
        .register_stream(Route::new(OTHER).input_capacity(1), move |_, _, mut input, mut output| {
            let taken = std::sync::Arc::clone(&taken);
            async move {
                while taken.lock().await.recv().await.is_some() {
                    let Some(message) = input.next().await else { return Ok(()) };
                    output.send(message?).await?;
                }
                Err("the test is over".into())
            }
        })
        .expect("free");
    let open = one.connection(&two.url).stream(OTHER, "").input_capacity(1);
    let (mut sender, mut receiver) = opened(open).await.split();
    let take = || take.send(()).expect("the handler listens");
    let mut expected = Vec::new();
    for round in 0..20 {
        let first = format!("{round} first");
        within("a credit", sender.send(first.clone())).await.expect("there is credit");
        assert!(sender.send("taken back").now_or_never().is_none(), "there is no credit");
        assert_eq!(one.connection(&two.url).stats().blocked_messages, 0, "credit, not room");
        take();
        assert_eq!(message(&mut receiver).await, first);
        expected.push(first);
    }
    let mut last = Box::pin(sender.send("last"));
    take();
    within("a credit", &mut last).await.expect("there is credit");
    drop(last);
    let finishing = tokio::spawn(sender.finish());
    assert_eq!(message(&mut receiver).await, "last");
    take();
    within("finishing", finishing).await.expect("no panic").expect("well");
    assert_eq!(rest(&mut receiver).await, (vec![], Ok(())));
    one.is_quiescent().await;
    two.is_quiescent().await;
}

#[tokio::test]
async fn b25_what_a_handler_left_behind_learns_that_it_returned() {
    let (one, two) = Server::pair(&Limits::default()).await;
    for (id, answer) in [(LISTENER, Ok(())), (OTHER, Err(HandlerError::new("failed")))] {
        let (report, mut reports) = mpsc::unbounded_channel();
        let route = Route::new(id).output_capacity(1);
        two.manager
            .register_stream(route, move |context, _, mut input, mut output| {
                let (report, sender, answer) = (report.clone(), report.clone(), answer.clone());
                let cancelled = context.cancelled();
                tokio::spawn(async move {
                    let error = loop {
                        match output.send("left behind").await {
                            Ok(()) => {}
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(error, SendError::Finished);
                    assert_eq!(output.send("again").await, Err(SendError::Finished));
                    cancelled.await;
                    sender.send(Saw::Cancelled).expect("the test listens");
                });
                tokio::spawn(async move {
                    report.send(input.next().await.into()).expect("the test listens");
                    report.send(input.next().await.into()).expect("the test listens");
                });
                std::future::ready(answer)
            })
            .expect("free");
        let open = one.connection(&two.url).stream(id, "").output_capacity(1);
        let receiver = match within("opening", open.into_future()).await {
            Ok(stream) => {
                let (sender, mut receiver) = stream.split();
                drop(rest(&mut receiver).await);
                drop(sender);
                Some(receiver)
            }
            Err(_) => None,
        };
        drop(receiver);
        let mut saw =
            [next(&mut reports).await, next(&mut reports).await, next(&mut reports).await];
        saw.sort_by_key(|saw| match saw {
            Saw::Error(_) => 0,
            Saw::End => 1,
            Saw::Cancelled => 2,
            Saw::Message(_) => 3,
        });
        let is_returned =
            |saw: &Saw| matches!(saw, Saw::Error(StreamError::HandlerReturned { .. }));
        assert!(is_returned(&saw[0]), "{saw:?}");
        assert_eq!(saw[1..], [Saw::End, Saw::Cancelled]);
        one.is_quiescent().await;
        two.is_quiescent().await;
    }
}

#[tokio::test]
async fn b25_what_a_handler_left_behind_learns_of_the_cancellation() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (report, mut reports) = mpsc::unbounded_channel();
    two.manager
        .register_stream(
            Route::new(OTHER).output_capacity(1),
            move |context, _, mut input, mut output| {
                let (report, cancelled) = (report.clone(), context.cancelled());
                tokio::spawn(async move {
                    output.send("one").await.expect("there is credit");
                    report.send(input.next().await.into()).expect("the test listens");
                    let error = output.send("two").await.expect_err("cancelled");
                    let SendError::Stream(error) = error else { panic!("{error}") };
                    report.send(Saw::Error(error)).expect("the test listens");
                    report.send(input.next().await.into()).expect("the test listens");
                    cancelled.await;
                    assert!(context.is_cancelled());
                    report.send(Saw::Cancelled).expect("the test listens");
                });
                std::future::pending()
            },
        )
        .expect("free");
    let mut stream = opened(one.connection(&two.url).stream(OTHER, "").output_capacity(1)).await;
    assert_eq!(within("a message", stream.next()).await.expect("one").expect("well"), "one");
    drop(stream);
    for _ in 0..2 {
        let saw = next(&mut reports).await;
        assert!(matches!(saw, Saw::Error(StreamError::Cancelled { .. })), "{saw:?}");
    }
    assert_eq!(next(&mut reports).await, Saw::End);
    assert_eq!(next(&mut reports).await, Saw::Cancelled);
    one.is_quiescent().await;
    two.is_quiescent().await;
}

#[tokio::test]
async fn b14_what_a_handler_left_behind_learns_of_a_deadline_that_its_handler_ran_over() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (report, mut reports) = mpsc::unbounded_channel();
    two.manager
        .register_stream(Route::new(OTHER), move |context, _, mut input, _| {
            let report = report.clone();
            tokio::spawn(async move {
                report.send(input.next().await.into()).expect("the test listens");
            });
            // Never awaits: nobody gets to look at the clock before it returns.
            while context.time_left().is_some_and(|left| !left.is_zero()) {
                std::hint::spin_loop();
            }
            std::future::ready(Ok(()))
        })
        .expect("free");
    let open = one.connection(&two.url).stream(OTHER, "").timeout(Duration::from_millis(100));
    let (_, end) = support::streams::whole(open).await;
    assert!(support::streams::is_deadline(&end.expect_err("too late")));
    let saw = next(&mut reports).await;
    assert!(matches!(saw, Saw::Error(_)), "{saw:?}");
    one.is_quiescent().await;
    two.is_quiescent().await;
}

#[tokio::test]
async fn b24_an_error_reaches_a_caller_who_does_not_read_also_past_a_message_that_waits() {
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
    // Nobody reads, and still the caller's end learns of it.
    eventually("the end came in", || one.connection(&two.url).stats().live_streams == 0).await;
    assert_eq!(message(&mut receiver).await, "sent");
    let end = rest(&mut receiver).await.1;
    assert_eq!(support::streams::remote_text(end), "failed");
    assert!(one.connection(&two.url).request(ECHO, "x").timeout(PATIENCE).await.is_ok());
}

/// Gives its memory up by asking the connection for its statistics, as a user's code may.
struct Curious(grid::Connection);

impl AsRef<[u8]> for Curious {
    fn as_ref(&self) -> &[u8] {
        b"memory of the user's own"
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        self.0.stats();
    }
}

#[tokio::test]
async fn a_payload_of_a_stream_that_does_not_open_is_not_dropped_under_the_lock() {
    let place = support::Place::new().await;
    let nowhere = "http://127.0.0.1:1".to_owned();
    let urls = [place.url.clone(), nowhere.clone()];
    let server = Server::start(place, &urls, Limits::default());
    let connection = server.connection(&nowhere);
    let payload = Bytes::from_owner(Curious(connection.clone()));
    let error = within("an error", connection.stream(LISTENER, payload).into_future()).await;
    let error = error.expect_err("nobody is there");
    assert!(matches!(error, StreamError::Call(CallError::NotConnected { .. })), "{error}");
}

/// A task that is aborted may drop the sender first: what it captured it drops in the order of its
/// own. Its handler must not take what came until then for all of the input.
#[tokio::test]
async fn b25_dropping_the_sender_first_and_then_the_receiver_never_ends_the_input_well() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (told, mut inputs) = mpsc::unbounded_channel();
    two.manager
        .register_stream(Route::new(LISTENER), move |_, _, mut input, _| {
            let told = told.clone();
            async move {
                // In a task of its own, which a cancelled handler does not take along.
                tokio::spawn(async move {
                    let mut last = input.next().await;
                    while let Some(Ok(_)) = last {
                        last = input.next().await;
                    }
                    told.send(last.is_none()).expect("the test waits");
                });
                std::future::pending().await
            }
        })
        .expect("free");
    let connection = one.connection(&two.url);
    for _ in 0..200 {
        let stream = within("opening", connection.stream(LISTENER, "").into_future()).await;
        let (mut sender, receiver) = stream.expect("it opens").split();
        sender.send("half").await.expect("there is credit");
        drop(sender);
        tokio::task::yield_now().await; // however long it takes until the other half goes
        drop(receiver);
        let is_clean = within("the input's end", inputs.recv()).await.expect("the handler runs");
        assert!(!is_clean, "half of the input looked like all of it");
    }
    one.is_quiescent().await;
    two.is_quiescent().await;
}

#[tokio::test]
async fn b23_finishing_a_stream_that_has_failed_loses_no_message_that_came_before() {
    let (one, two) = Server::pair(&Limits::default()).await;
    two.manager
        .register_stream(Route::new(LISTENER), |_, _, _, mut output| async move {
            for text in ["one", "two", "three"] {
                output.send(text).await?;
            }
            Err("out of disk".into())
        })
        .expect("free");
    let connection = one.connection(&two.url);
    let mut stream = opened(connection.stream(LISTENER, "")).await;
    eventually("the end is here", || connection.stats().live_streams == 0).await;
    stream.finish().await.expect_err("it has failed");
    for text in ["one", "two", "three"] {
        assert_eq!(stream.next().await.expect("a message").expect("well"), text);
    }
    stream.next().await.expect("the error").expect_err("it has failed");
    assert!(stream.next().await.is_none());
}
