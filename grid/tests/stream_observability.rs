//! Observability of streams between real servers: the context of a handler, traces, statistics.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use grid::trace::{CallSide, CallTrace, Subscriber, TraceOutcome};
use grid::{CallError, HandlerId, Limits, Route, StreamError, Subroute};
use support::streams::{collect_rest, collect_stream, is_deadline, opened};
use support::{Server, WAIT_MAX, eventually, within};

const SHOUT: HandlerId = HandlerId::new(210);
const FAIL: HandlerId = HandlerId::new(211);
const STUCK_STREAM: HandlerId = HandlerId::new(212);

/// Starts two connected servers; the second responds in capitals, fails, or does nothing.
async fn serving() -> (Server, Server) {
    let (one, two) = Server::pair(&Limits::default()).await;
    two.manager
        .register_stream(
            Route::new(SHOUT).name("Shout"),
            |_, _, mut input, mut output| async move {
                while let Some(message) = input.next().await {
                    output.send(message?.to_ascii_uppercase()).await?;
                }
                Ok(())
            },
        )
        .expect("free");
    two.manager
        .register_stream(Route::new(FAIL).name("Fail"), |_, _, _, mut output| async move {
            output.send("one").await?;
            Err("failed".into())
        })
        .expect("free");
    two.manager
        .register_stream(Route::new(STUCK_STREAM).name("Stuck"), |_, _, input, output| async move {
            let _halves = (input, output);
            std::future::pending().await
        })
        .expect("free");
    (one, two)
}

#[tokio::test]
async fn a_handler_knows_its_caller_handler_subroute_and_deadline() {
    let (one, two) = Server::pair(&Limits::default()).await;
    let subroute = Subroute::new("drive-1/pool-0").expect("valid");
    two.manager
        .register_stream(
            Route::new(SHOUT).subroute(&subroute),
            |context, _, _, mut output| async move {
                for text in [
                    context.caller().to_string(),
                    context.local().to_string(),
                    context.handler().to_string(),
                    format!("{:?}", context.subroute()),
                    format!("{:?}", context.time_left().map(|left| left <= WAIT_MAX)),
                    format!("{}", context.is_cancelled()),
                ] {
                    output.send(text).await?;
                }
                Ok(())
            },
        )
        .expect("free");
    let open = || one.connection(&two.url).stream(SHOUT, "").subroute(&subroute);
    let subrouted = "Some(\"drive-1/pool-0\")";
    let (messages, end) = collect_stream(open()).await;
    assert_eq!(messages, [&*one.url, &two.url, "210", subrouted, "None", "false"]);
    assert_eq!(end, Ok(()));
    let (messages, end) = collect_stream(open().timeout(WAIT_MAX)).await;
    assert_eq!(messages, [&*one.url, &two.url, "210", subrouted, "Some(true)", "false"]);
    assert_eq!(end, Ok(()));
}

type Seen = Arc<Mutex<Vec<CallTrace>>>;

fn trace(one: &Server, two: &Server) -> Seen {
    let seen = Seen::default();
    let record = Arc::clone(&seen);
    let subscriber: Subscriber = Arc::new(move |trace: &CallTrace| {
        record.lock().expect("no panic").push(trace.clone());
    });
    one.manager.trace(Arc::clone(&subscriber));
    two.manager.trace(subscriber);
    seen
}

/// Returns the traces of the caller and of the callee of the only stream.
async fn both(seen: &Seen) -> (CallTrace, CallTrace) {
    eventually("both ends are traced", || seen.lock().expect("no panic").len() >= 2).await;
    let traces = std::mem::take(&mut *seen.lock().expect("no panic"));
    assert_eq!(traces.len(), 2, "{traces:?}");
    let of = |side| traces.iter().find(|trace| trace.side == side).cloned().expect("each once");
    (of(CallSide::Caller), of(CallSide::Callee))
}

#[tokio::test]
async fn b42_a_stream_is_traced_as_one_call_with_all_its_bytes_on_both_sides() {
    let (one, two) = serving().await;
    let seen = trace(&one, &two);
    let (mut sender, mut receiver) =
        opened(one.connection(&two.url).stream(SHOUT, "payload")).await.split();
    for message in ["a", "bc", "def"] {
        sender.send(message).await.expect("accepted");
    }
    sender.finish().await.expect("the handler is there");
    assert_eq!(collect_rest(&mut receiver).await.0, ["A", "BC", "DEF"]);
    drop(receiver);
    let (client, server) = both(&seen).await;
    assert_eq!((client.bytes_out, client.bytes_in), (7 + 6, 6));
    assert_eq!((server.bytes_out, server.bytes_in), (6, 7 + 6));
    assert_eq!((client.outcome, server.outcome), (TraceOutcome::Ok, TraceOutcome::Ok));
    assert_eq!((&*client.name, &*server.name), ("210", "Shout"));
    assert_eq!((client.local.as_str(), client.remote.as_str()), (&*one.url, &*two.url));
    assert_eq!((server.local.as_str(), server.remote.as_str()), (&*two.url, &*one.url));
}

#[tokio::test]
async fn b42_the_end_of_a_stream_is_traced_on_both_sides() {
    let (one, two) = serving().await;
    let connection = one.connection(&two.url);
    let seen = trace(&one, &two);

    assert!(collect_stream(connection.stream(FAIL, "")).await.1.is_err());
    let (client, server) = both(&seen).await;
    let TraceOutcome::StreamFailed(StreamError::Call(error)) = client.outcome else {
        panic!("{}", client.outcome)
    };
    assert!(matches!(&error, CallError::Remote { message, .. } if &**message == "failed"));
    assert_eq!(server.outcome, TraceOutcome::HandlerFailed("failed".into()));
    assert_eq!((client.bytes_in, server.bytes_out), (3, 3));

    drop(opened(connection.stream(STUCK_STREAM, "abc")).await);
    let (client, server) = both(&seen).await;
    assert_eq!((client.outcome, client.bytes_out), (TraceOutcome::Cancelled, 3));
    assert_eq!((server.outcome, server.bytes_in), (TraceOutcome::Cancelled, 3));

    let open = connection.stream(STUCK_STREAM, "").timeout(Duration::from_millis(300));
    assert!(is_deadline(&collect_stream(open).await.1.expect_err("too late")));
    let (client, server) = both(&seen).await;
    assert!(matches!(&client.outcome, TraceOutcome::StreamFailed(error) if is_deadline(error)));
    assert_eq!(server.outcome, TraceOutcome::Cancelled);

    // A stream that was not opened has no callee.
    let open = connection.stream(STUCK_STREAM, "").timeout(Duration::ZERO);
    assert!(is_deadline(&collect_stream(open).await.1.expect_err("too late")));
    eventually("it is traced", || seen.lock().expect("no panic").len() == 1).await;
    let trace = seen.lock().expect("no panic").remove(0);
    assert!(
        matches!(&trace.outcome, TraceOutcome::Failed(CallError::DeadlineExceeded { .. })),
        "{}",
        trace.outcome
    );
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b08_statistics_count_streams_on_both_sides() {
    let (one, two) = serving().await;
    let (here, there) = (one.connection(&two.url), two.connection(&one.url));
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(opened(here.stream(STUCK_STREAM, "")).await);
    }
    eventually("handlers run", || there.stats().live_handler_tasks == 5).await;
    let (calling, serving) = (here.stats(), there.stats());
    assert_eq!(
        (calling.outbound_streams, calling.live_outbound_streams, calling.live_outbound_calls),
        (5, 5, 5)
    );
    assert_eq!((calling.inbound_streams, calling.live_inbound_streams), (0, 0));
    assert_eq!((serving.inbound_streams, serving.live_inbound_streams), (5, 5));
    assert_eq!(
        (serving.outbound_streams, serving.live_outbound_streams, serving.live_inbound_calls),
        (0, 0, 5)
    );
    assert!(!calling.is_quiescent() && !serving.is_quiescent());

    drop(open);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
    let (calling, serving) = (here.stats(), there.stats());
    assert_eq!(
        (calling.outbound_streams, calling.live_outbound_streams, calling.outbound_calls),
        (5, 0, 5)
    );
    assert_eq!((serving.inbound_streams, serving.live_inbound_streams), (5, 0));
    assert_eq!(serving.live_handler_tasks, 0);

    // The statistics survive their connection.
    within("the shutdown", two.manager.shutdown(Duration::ZERO)).await;
    eventually("the end", || here.stats().state != grid::ConnectionState::Connected).await;
    assert_eq!((here.stats().outbound_streams, there.stats().inbound_streams), (5, 5));
}
