//! Streams between real servers: messages in both directions, ends of handlers, refusals.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use grid::{
    CallError, Execution, HandlerError, HandlerId, Limits, RegisterError, Route, SendError,
    StreamError, StreamOutput, Subroute,
};
use support::live::LiveCount;
use support::streams::{
    collect_rest, collect_stream, is_deadline, is_unknown_handler, message, opened, remote_text,
};
use support::{ECHO, ReservedAddress, Server, WAIT_MAX, eventually, within};
use tokio::sync::{mpsc, watch};

const DOUBLE: HandlerId = HandlerId::new(210);
const SECOND: HandlerId = HandlerId::new(211);

/// Starts two connected servers; the second echoes the payload and then each message.
async fn echoing(limits: &Limits) -> (Server, Server) {
    let (one, two) = Server::pair(limits).await;
    two.manager
        .register_stream(Route::new(DOUBLE), |_, payload, mut input, mut output| async move {
            output.send(payload.unwrap_or_default()).await?;
            while let Some(message) = input.next().await {
                output.send(message?).await?;
            }
            Ok(())
        })
        .expect("free");
    (one, two)
}

#[tokio::test]
async fn b22_b25_messages_both_ways_in_order_and_a_half_close() {
    let (one, two) = echoing(&Limits::default()).await;
    let stream = opened(one.connection(&two.url).stream(DOUBLE, "first")).await;
    let (mut sender, mut receiver) = stream.split();
    let sending = tokio::spawn(async move {
        for number in 0..1000_u32 {
            sender.send(number.to_string()).await.expect("the handler takes it");
        }
        sender.finish().await.expect("the handler is there");
    });
    assert_eq!(message(&mut receiver).await, "first");
    let (messages, end) = collect_rest(&mut receiver).await;
    assert_eq!(end, Ok(()));
    let expected: Vec<_> = (0..1000_u32).map(|number| Bytes::from(number.to_string())).collect();
    assert_eq!(messages, expected);
    sending.await.expect("no panic");
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b20_an_absent_payload_differs_from_an_empty_one() {
    let (one, two) = Server::pair(&Limits::default()).await;
    two.manager
        .register_stream(Route::new(DOUBLE), |_, payload, _, mut output| async move {
            Ok(output.send(format!("{payload:?}")).await?)
        })
        .expect("free");
    let open = || one.connection(&two.url).stream(DOUBLE, "");
    assert_eq!(collect_stream(open()).await, (vec![Bytes::from("Some(b\"\")")], Ok(())));
    assert_eq!(collect_stream(open().without_payload()).await, (vec![Bytes::from("None")], Ok(())));
}

#[tokio::test]
async fn b22_messages_of_any_size_up_to_the_limit_and_none_beyond() {
    const MAX: usize = 64 * 1024;
    let mut limits = Limits::default();
    limits.message_bytes_max = MAX;
    let (one, two) = echoing(&limits).await;
    let stream = opened(one.connection(&two.url).stream(DOUBLE, "")).await;
    let (mut sender, mut receiver) = stream.split();
    assert_eq!(message(&mut receiver).await, "");
    let mut refused = 0;
    for size in [0, 1, 2, 255, 256, 65_000].into_iter().chain(MAX - 60..=MAX) {
        let payload = Bytes::from(vec![7; size]);
        match within("sending", sender.send(payload.clone())).await {
            Ok(()) => {
                assert_eq!(refused, 0, "a smaller message than one that fits was refused");
                assert_eq!(message(&mut receiver).await, payload);
            }
            Err(SendError::TooLarge { bytes, max: MAX }) => {
                assert!(bytes > size && size > 65_000, "{size}: {bytes}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0);
    sender.send("goes on").await.expect("the stream does");
    assert_eq!(message(&mut receiver).await, "goes on");
    within("finishing", sender.finish()).await.expect("the handler is there");
    assert_eq!(collect_rest(&mut receiver).await, (vec![], Ok(())));
}

#[tokio::test]
async fn a_handlers_oversized_message_or_error_is_reported_and_the_stream_goes_on() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 64 * 1024;
    let (one, two) = Server::pair(&limits).await;
    two.manager
        .register_stream(Route::new(DOUBLE), |_, _, _, mut output| async move {
            let error = output.send(vec![0; 64 * 1024]).await.expect_err("too large");
            assert!(matches!(error, SendError::TooLarge { max: 65_536, .. }), "{error}");
            output.send("goes on").await?;
            Err(HandlerError::new("x".repeat(70_000)))
        })
        .expect("free");
    let (messages, end) = collect_stream(one.connection(&two.url).stream(DOUBLE, "")).await;
    assert_eq!(messages, ["goes on"]);
    let text = remote_text(end);
    assert!(text.contains("larger than the limit of 65536"), "{text}");

    let large = vec![0; 64 * 1024];
    let error = one.connection(&two.url).stream(DOUBLE, large).await.expect_err("too large");
    assert!(matches!(error, StreamError::Call(CallError::TooLarge { .. })), "{error}");
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

/// Registers a handler that sends three messages and returns at once.
fn serve_three(server: &Server, id: HandlerId, capacity: u32, execution: Execution) {
    let route = Route::new(id).output_capacity(capacity).execution(execution);
    server
        .manager
        .register_stream(route, |_, payload, _, mut output: StreamOutput| async move {
            let payload = payload.unwrap_or_default();
            for number in 0..3_u8 {
                output.send([&payload[..], &[number]].concat()).await?;
            }
            Ok(())
        })
        .expect("free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b23_thousands_of_short_streams_are_complete_and_end_cleanly() {
    let (one, two) = Server::pair(&Limits::default()).await;
    serve_three(&two, DOUBLE, 64, Execution::Inline);
    serve_three(&two, SECOND, 1, Execution::Spawned);
    let connection = one.connection(&two.url);
    let streams: Vec<_> = (0..2_000_u32)
        .map(|number| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let payload = Bytes::from(number.to_string());
                let (id, capacity) = if number % 2 == 0 { (DOUBLE, 64) } else { (SECOND, 1) };
                let open = connection.stream(id, payload.clone()).output_capacity(capacity);
                let (messages, end) = collect_stream(open).await;
                assert_eq!(end, Ok(()));
                let expected = [0_u8, 1, 2].map(|last| [&payload[..], &[last]].concat());
                assert_eq!(messages, expected);
            })
        })
        .collect();
    for stream in streams {
        within("the streams", stream).await.expect("each is complete");
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b23_a_handler_that_returns_before_the_caller_polls_ended_cleanly() {
    let (one, two) = Server::pair(&Limits::default()).await;
    serve_three(&two, DOUBLE, 64, Execution::Inline);
    let connection = one.connection(&two.url);
    for round in 0..200_usize {
        let mut opening = Box::pin(connection.stream(DOUBLE, "").into_future());
        assert!((&mut opening).now_or_never().is_none(), "no acknowledgement yet");
        // Every second time the stream is first polled after all of it arrived.
        if round % 2 == 0 {
            eventually("the end arrived", || connection.stats().live_outbound_streams == 0).await;
        }
        let (_sender, mut receiver) = within("opening", opening).await.expect("it opens").split();
        let (messages, end) = collect_rest(&mut receiver).await;
        assert_eq!((messages.len(), end), (3, Ok(())));
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b24_an_error_is_received_after_every_message_by_any_slow_reader() {
    let (one, two) = Server::pair(&Limits::default()).await;
    for (id, capacity) in [(DOUBLE, 1), (SECOND, 4)] {
        let route = Route::new(id).input_capacity(1).output_capacity(capacity);
        two.manager
            .register_stream(route, move |_, _, _, mut output| async move {
                for number in 0..capacity {
                    output.send(number.to_string()).await?;
                }
                Err("the disk is on fire".into())
            })
            .expect("free");
    }
    let connection = one.connection(&two.url);
    for round in 0..100 {
        let (id, capacity) = if round % 2 == 0 { (DOUBLE, 1) } else { (SECOND, 4) };
        let open = connection.stream(id, "").input_capacity(1).output_capacity(capacity);
        let (mut sender, mut receiver) = opened(open).await.split();
        // The reader does nothing and its buffer is full; a sender still learns of the error.
        eventually("the end arrived", || connection.stats().live_outbound_streams == 0).await;
        let error = sender.send("more").await.expect_err("the stream ended");
        let SendError::Stream(error) = error else { panic!("{error}") };
        assert_eq!(remote_text(Err(error)), "the disk is on fire");
        let (messages, end) = collect_rest(&mut receiver).await;
        let expected: Vec<_> = (0..capacity).map(|number| number.to_string()).collect();
        assert_eq!(messages, expected);
        assert_eq!(remote_text(end), "the disk is on fire");
        let error = sender.finish().await;
        assert_eq!(remote_text(error), "the disk is on fire");
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

/// Runs a caller whose second message waits, and a handler that ends as `how` says once released.
async fn end_while_a_send_waits(
    how: Result<(), HandlerError>,
) -> (SendError, support::streams::StreamResult) {
    let (one, two) = Server::pair(&Limits::default()).await;
    let (release, released) = watch::channel(false);
    let route = Route::new(DOUBLE).input_capacity(1).output_capacity(1);
    two.manager
        .register_stream(route, move |_, _, input, mut output| {
            let (mut released, how) = (released.clone(), how.clone());
            async move {
                let _input = input; // and nothing is received
                output.send("full").await?;
                released.wait_for(|released| *released).await.expect("the test is running");
                how
            }
        })
        .expect("free");
    let open = one.connection(&two.url).stream(DOUBLE, "").input_capacity(1).output_capacity(1);
    let (mut sender, mut receiver) = opened(open).await.split();
    sender.send("one").await.expect("there is credit for it");
    let mut blocked = Box::pin(sender.send("two"));
    assert!((&mut blocked).now_or_never().is_none(), "there is no credit for it");
    release.send_replace(true);
    let outcome = within("the end, or a credit", &mut blocked).await;
    drop(blocked);
    let (messages, end) = collect_rest(&mut receiver).await;
    assert_eq!(messages, ["full"]);
    let late = match outcome {
        Ok(()) => {
            eventually("the end", || one.connection(&two.url).stats().live_outbound_streams == 0)
                .await;
            sender.send("three").await.expect_err("the stream ended")
        }
        Err(error) => error,
    };
    one.assert_quiescent().await;
    two.assert_quiescent().await;
    (late, end)
}

#[tokio::test]
async fn b24_b25_the_end_of_a_handler_unblocks_its_waiting_sender() {
    let (error, end) = end_while_a_send_waits(Err("enough".into())).await;
    let SendError::Stream(error) = error else { panic!("{error}") };
    assert_eq!(remote_text(Err(error)), "enough");
    assert_eq!(remote_text(end), "enough");

    let (error, end) = end_while_a_send_waits(Ok(())).await;
    assert_eq!(error, SendError::Finished);
    assert_eq!(end, Ok(()));
}

#[tokio::test]
async fn b13_a_panic_ends_its_stream_alone_after_its_messages() {
    let (one, two) = echoing(&Limits::default()).await;
    let ids = [220, 221, 222].map(HandlerId::new);
    two.manager
        .register_stream(Route::new(ids[0]), |_, payload, _, _| {
            assert!(payload.is_none(), "before the future");
            std::future::ready(Ok(()))
        })
        .expect("free");
    two.manager
        .register_stream(Route::new(ids[1]), |_, _, _, _| async { panic!("in place") })
        .expect("free");
    two.manager
        .register_stream(Route::new(ids[2]), |_, _, _, mut output| async move {
            output.send("one").await?;
            tokio::task::yield_now().await;
            output.send("two").await?;
            panic!("in its own task")
        })
        .expect("free");
    let connection = one.connection(&two.url);
    let mut other = opened(connection.stream(DOUBLE, "")).await;
    let texts = ["before the future", "in place", "in its own task"];
    for ((id, text), count) in ids.into_iter().zip(texts).zip([0, 0, 2]) {
        let (messages, end) = collect_stream(connection.stream(id, "x")).await;
        assert_eq!(messages.len(), count);
        let error = remote_text(end);
        assert!(error.contains("panicked") && error.contains(text), "{error}");
    }
    other.send("still here").await.expect("the other stream goes on");
    within("finishing", other.finish()).await.expect("the handler runs");
    let (_sender, mut receiver) = other.split();
    assert_eq!(collect_rest(&mut receiver).await, (vec!["".into(), "still here".into()], Ok(())));
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b12_b33_a_stream_without_a_handler_is_an_unknown_handler() {
    let (one, two) = echoing(&Limits::default()).await;
    let connection = one.connection(&two.url);
    let [known, other] = ["drive-1", "drive-2"].map(|text| Subroute::new(text).expect("valid"));
    two.manager
        .register_stream(
            Route::new(SECOND).subroute(&known),
            |context, _, _, mut output| async move {
                Ok(output.send(context.subroute().unwrap_or_default().to_owned()).await?)
            },
        )
        .expect("free");

    let unknown =
        collect_stream(connection.stream(HandlerId::new(99), "")).await.1.expect_err("unknown");
    assert!(is_unknown_handler(&unknown) && unknown.to_string().contains("99"), "{unknown}");
    for open in [connection.stream(SECOND, ""), connection.stream(SECOND, "").subroute(&other)] {
        let error = collect_stream(open).await.1.expect_err("not under that subroute");
        assert!(is_unknown_handler(&error), "{error}");
    }
    let single =
        collect_stream(connection.stream(ECHO, "")).await.1.expect_err("it serves requests");
    assert!(is_unknown_handler(&single), "{single}");
    assert!(single.to_string().contains("single requests"), "{single}");
    let stream = connection.request(DOUBLE, "").await.expect_err("it serves streams");
    assert!(matches!(stream, CallError::UnknownHandler { .. }), "{stream}");
    assert!(stream.to_string().contains("streams"), "{stream}");

    let (messages, end) = collect_stream(connection.stream(SECOND, "").subroute(&known)).await;
    assert_eq!((messages, end), (vec!["drive-1".into()], Ok(())));
    assert_eq!(connection.stats().connections, 1);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn a_stream_to_a_server_that_is_not_connected_fails_at_once() {
    let addresses = [ReservedAddress::new().await, ReservedAddress::new().await];
    let urls = addresses.each_ref().map(|address| address.url.clone());
    let [address, unserved] = addresses;
    drop(unserved);
    let one = Server::start(address, &urls, Limits::default());
    let error = one.connection(&urls[1]).stream(DOUBLE, "").await.expect_err("not connected");
    assert!(matches!(error, StreamError::Call(CallError::NotConnected { .. })), "{error}");
    one.assert_quiescent().await;
}

#[tokio::test]
async fn b10_a_deadline_ends_both_ends_of_a_stream() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let live = LiveCount::default();
    let (report, mut reports) = mpsc::unbounded_channel();
    let counter = live.clone();
    two.manager
        .register_stream(Route::new(DOUBLE), move |context, _, mut input, _| {
            let (guard, report) = (counter.guard(), report.clone());
            async move {
                let _guard = guard;
                report.send(context.time_left()).expect("the test receives");
                while let Some(message) = input.next().await {
                    message?;
                }
                Ok(())
            }
        })
        .expect("free");
    let timeout = Duration::from_secs(1);
    let (_sender, mut receiver) =
        opened(one.connection(&two.url).stream(DOUBLE, "").timeout(timeout)).await.split();
    let left = within("the start", reports.recv()).await.expect("it runs").expect("it travels");
    assert!(left <= timeout && left > Duration::ZERO, "{left:?}");
    let (messages, end) = collect_rest(&mut receiver).await;
    assert!(messages.is_empty() && is_deadline(&end.clone().expect_err("in time")), "{end:?}");
    eventually("the handler is dropped", || live.count() == 0).await;
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b10_a_deadline_that_has_passed_fails_without_sending() {
    let (one, two) = echoing(&Limits::default()).await;
    let connection = one.connection(&two.url);
    let before = connection.stats();
    let error = connection.stream(DOUBLE, "late").timeout(Duration::ZERO).await.expect_err("late");
    assert!(is_deadline(&error), "{error}");
    let after = connection.stats();
    assert_eq!((after.messages_out, after.queued_bytes), (before.messages_out, 0));
    assert_eq!(after.outbound_streams, before.outbound_streams);
}

#[tokio::test]
async fn b09_a_server_that_is_shutting_down_opens_no_streams_and_takes_none() {
    let (one, two) = echoing(&Limits::default()).await;
    let connection = one.connection(&two.url);
    let running = opened(connection.stream(DOUBLE, "running")).await;
    let manager = two.manager.clone();
    let shutdown = tokio::spawn(async move { manager.shutdown(WAIT_MAX).await });
    eventually("it drains", || {
        let error = two.connection(&one.url).stream(DOUBLE, "").into_future().now_or_never();
        matches!(error, Some(Err(StreamError::Call(CallError::Shutdown))))
    })
    .await;
    let error = collect_stream(connection.stream(DOUBLE, "")).await.1.expect_err("it is draining");
    assert!(matches!(error, StreamError::Call(CallError::Refused { .. })), "{error}");

    // Streams in flight finish within the grace period.
    assert!(!shutdown.is_finished());
    let (mut sender, mut receiver) = running.split();
    sender.send("more").await.expect("it goes on");
    within("finishing", sender.finish()).await.expect("it goes on");
    assert_eq!(collect_rest(&mut receiver).await, (vec!["running".into(), "more".into()], Ok(())));
    within("the shutdown", shutdown).await.expect("no panic");
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b21_capacities_out_of_bounds_are_refused_at_registration() {
    let (_, two) = Server::pair(&Limits::default()).await;
    let max = grid::limits::STREAM_CAPACITY_MAX;
    let register =
        |route: Route| two.manager.register_stream(route, |_, _, _, _| std::future::ready(Ok(())));
    let route = || Route::new(DOUBLE).name("Double");
    for wrong in [
        route().output_capacity(0),
        route().output_capacity(max + 1),
        route().input_capacity(max + 1),
        route().input_capacity(u32::MAX),
    ] {
        let error = register(wrong).expect_err("out of bounds");
        let RegisterError::Capacity { name, max: reported } = error else { panic!("{error}") };
        assert_eq!((&*name, reported), ("Double", max));
    }
    register(route().input_capacity(0).output_capacity(max)).expect("within the bounds");
    let error = register(route()).expect_err("taken");
    assert!(matches!(error, RegisterError::Duplicate { .. }), "{error}");
}
