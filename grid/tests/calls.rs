//! Calls between real servers: responses, errors, deadlines, cancellation, panics, shutdown.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use grid::trace::{CallSide, CallTrace, Subscriber, TraceOutcome};
use grid::{
    CallError, CallOptions, ConnectionState, Execution, HandlerError, HandlerId, Limits,
    RegisterError, Route, SingleHandler, Subroute, TypedCallError,
};
use serde::{Deserialize, Serialize};
use support::live::LiveCount;
use support::{ECHO, ReservedAddress, STUCK, Server, WAIT_MAX, eventually, within};

const COUNTED: HandlerId = HandlerId::new(202);

/// Starts two connected servers; the second counts the calls that are stuck in `COUNTED`.
async fn pair() -> (Server, Server, LiveCount) {
    let mut servers = Server::cluster(2, &Limits::default()).await.into_iter();
    let (one, two) = (servers.next().expect("two"), servers.next().expect("two"));
    let live = LiveCount::default();
    let counter = live.clone();
    two.manager
        .register(Route::new(COUNTED).name("Counted"), move |_, _| {
            let guard = counter.guard();
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .expect("free");
    one.wait_connected(&two.url).await;
    two.wait_connected(&one.url).await;
    (one, two, live)
}

#[tokio::test]
async fn b10_payload_in_and_payload_out_in_both_directions() {
    let (one, two, _) = pair().await;
    for (from, to) in [(&one, &two), (&two, &one)] {
        let connection = from.connection(&to.url);
        for size in [0, 1, 255, 256, 65_535, 65_536, 1 << 20, (16 << 20) - 64] {
            let payload = Bytes::from(vec![7; size]);
            let response = connection.request(ECHO, payload.clone()).timeout(WAIT_MAX).await;
            assert_eq!(response.expect("an echo"), payload);
        }
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b14_concurrent_calls_get_their_own_responses() {
    let (one, two, _) = pair().await;
    let mut calls = Vec::new();
    for caller in 0..64_u32 {
        for (from, to) in [(&one, &two), (&two, &one)] {
            let connection = from.connection(&to.url);
            calls.push(tokio::spawn(async move {
                for round in 0..200_u32 {
                    let payload = format!("{} {caller} {round}", connection.local());
                    let response = connection.request(ECHO, payload.clone()).await;
                    assert_eq!(response.expect("an echo"), payload);
                }
            }));
        }
    }
    for call in calls {
        within("the calls", call).await.expect("each got its own response");
    }
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b10_a_call_without_a_deadline_gets_the_default_and_the_handler_sees_the_remaining_time() {
    let mut limits = Limits::default();
    limits.deadline_default = Duration::from_millis(50);
    let servers = Server::cluster(2, &limits).await;
    let left = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&left);
    servers[1]
        .manager
        .register(Route::new(COUNTED), move |context: grid::RequestContext, _| {
            *seen.lock().expect("no panic") = context.time_left();
            std::future::pending()
        })
        .expect("free");
    let connection = servers[0].wait_connected(&servers[1].url).await;

    let error = within("the deadline", connection.request(COUNTED, "").into_future()).await;
    assert!(matches!(error, Err(CallError::DeadlineExceeded { .. })), "{error:?}");
    let left = left.lock().expect("no panic").expect("the deadline is sent");
    assert!(left <= Duration::from_millis(50) && left > Duration::ZERO, "{left:?}");
    servers[1].assert_quiescent().await;
}

#[tokio::test]
async fn b10_a_deadline_that_has_passed_fails_without_sending() {
    let (one, two, _) = pair().await;
    let connection = one.connection(&two.url);
    let before = connection.stats().messages_out;
    let error = connection.request(ECHO, "late").timeout(Duration::ZERO).await;
    assert!(matches!(error, Err(CallError::DeadlineExceeded { .. })), "{error:?}");
    assert_eq!(connection.stats().messages_out, before);
    assert_eq!(connection.stats().queued_bytes, 0);
}

#[tokio::test]
async fn b11_dropping_a_call_cancels_its_handler() {
    let (one, two, live) = pair().await;
    let connection = one.connection(&two.url);
    let call = tokio::spawn(connection.request(COUNTED, "").into_future());
    eventually("the handler runs", || live.count() == 1).await;
    call.abort();
    eventually("the handler is dropped", || live.count() == 0).await;
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b11_a_deadline_cancels_the_handler_too() {
    let (one, two, live) = pair().await;
    let connection = one.connection(&two.url);
    let call = connection.request(COUNTED, "").timeout(Duration::from_millis(30));
    assert!(matches!(call.await, Err(CallError::DeadlineExceeded { .. })));
    eventually("the handler is dropped", || live.count() == 0).await;
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b11_a_task_of_a_handler_learns_of_the_cancellation() {
    let (one, two, _) = pair().await;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    two.manager
        .register(Route::new(HandlerId::new(203)), move |context: grid::RequestContext, _| {
            let (cancelled, sender) = (context.cancelled(), sender.clone());
            tokio::spawn(async move {
                sender.send("runs").expect("the test receives");
                cancelled.await;
                assert!(context.is_cancelled());
                sender.send("cancelled").expect("the test receives");
            });
            std::future::pending()
        })
        .expect("free");
    let connection = one.connection(&two.url);
    let call = tokio::spawn(connection.request(HandlerId::new(203), "").into_future());
    assert_eq!(within("the start", receiver.recv()).await, Some("runs"));
    call.abort();
    assert_eq!(within("the cancellation", receiver.recv()).await, Some("cancelled"));
}

#[tokio::test]
async fn b12_an_unknown_handler_is_an_error_of_its_own_and_affects_no_other_call() {
    let (one, two, _) = pair().await;
    let connection = one.connection(&two.url);
    let unknown = HandlerId::new(99);
    let error = connection.request(unknown, "").await.expect_err("no handler");
    assert!(matches!(&error, CallError::UnknownHandler { .. }), "{error:?}");
    assert!(error.to_string().contains("99"), "{error}");

    let subroute = Subroute::new("drive-1").expect("valid");
    let error = connection.request(ECHO, "").subroute(&subroute).await.expect_err("no subroute");
    assert!(matches!(&error, CallError::UnknownHandler { .. }), "{error:?}");
    assert_eq!(connection.request(ECHO, "still here").await.expect("an echo"), "still here");
    assert_eq!(connection.stats().connections, 1);
}

#[tokio::test]
async fn b13_a_panic_fails_its_call_alone() {
    let (one, two, _) = pair().await;
    let ids = [210, 211, 212].map(HandlerId::new);
    two.manager.register(Route::new(ids[0]), |_, _| async { panic!("in place") }).expect("free");
    two.manager
        .register(Route::new(ids[1]), |_, _| async {
            tokio::task::yield_now().await;
            panic!("in its own task")
        })
        .expect("free");
    two.manager
        .register(Route::new(ids[2]), |_, payload: Bytes| {
            assert!(payload.is_empty(), "before the future");
            std::future::ready(Ok(payload))
        })
        .expect("free");
    let connection = one.connection(&two.url);
    let other = tokio::spawn(connection.request(STUCK, "").into_future());
    for (id, text) in ids.into_iter().zip(["in place", "in its own task", "before the future"]) {
        let error = within("the response", connection.request(id, "x").into_future()).await;
        let error = error.expect_err("it panicked").to_string();
        assert!(error.contains("panicked") && error.contains(text), "{error}");
    }
    assert_eq!(connection.request(ECHO, "still here").await.expect("an echo"), "still here");
    assert!(!other.is_finished());
    other.abort();
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b05_the_end_of_a_connection_ends_its_calls_and_handlers() {
    let (one, two, live) = pair().await;
    let connection = one.connection(&two.url);
    let calls: Vec<_> =
        (0..100).map(|_| tokio::spawn(connection.request(COUNTED, "").into_future())).collect();
    eventually("all handlers run", || live.count() == 100).await;

    two.manager.shutdown(Duration::ZERO).await;
    for call in calls {
        let error = within("the end", call).await.expect("no panic").expect_err("no response");
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
    }
    eventually("all handlers are dropped", || live.count() == 0).await;
    one.assert_quiescent().await;
    two.assert_quiescent().await;

    let error = connection.request(ECHO, "").await.expect_err("not connected");
    assert!(matches!(error, CallError::NotConnected { .. }), "{error}");
}

#[tokio::test]
async fn b04_a_server_that_restarts_is_reconnected() {
    let mut addresses = vec![ReservedAddress::new().await, ReservedAddress::new().await];
    let urls: Vec<_> = addresses.iter().map(|address| address.url.clone()).collect();
    let two = Server::start(addresses.pop().expect("two"), &urls, Limits::default());
    let one = Server::start(addresses.pop().expect("two"), &urls, Limits::default());
    let connection = one.wait_connected(&two.url).await;
    let mut watch = connection.watch();

    let address = two.url.strip_prefix("http://").expect("a base URL").to_owned();
    two.manager.shutdown(Duration::ZERO).await;
    drop(two);
    assert_ne!(within("a change", watch.changed()).await, ConnectionState::Connected);

    let listener = loop {
        match tokio::net::TcpListener::bind(&address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let two =
        Server::start(ReservedAddress { listener, url: urls[1].clone() }, &urls, Limits::default());
    within("reconnecting", connection.wait_connected()).await.expect("not shut down");
    assert_eq!(connection.request(ECHO, "again").await.expect("an echo"), "again");
    assert_eq!(connection.stats().reconnects(), 1);
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b09_shutdown_takes_no_new_calls_and_finishes_those_in_flight() {
    let (one, two, _) = pair().await;
    let (release, released) = tokio::sync::watch::channel(false);
    two.manager
        .register(Route::new(HandlerId::new(204)), move |_, payload: Bytes| {
            let mut released = released.clone();
            async move {
                released.wait_for(|released| *released).await.expect("the test is running");
                Ok(payload)
            }
        })
        .expect("free");
    let connection = one.connection(&two.url);
    let running = tokio::spawn(connection.request(HandlerId::new(204), "done").into_future());
    eventually("it runs", || two.connection(&one.url).stats().live_inbound_calls == 1).await;

    let manager = two.manager.clone();
    let shutdown = tokio::spawn(async move { manager.shutdown(WAIT_MAX).await });
    let refused = |error: &CallError| matches!(error, CallError::Refused { .. });
    let error = connection.request(ECHO, "").await.expect_err("it is draining");
    assert!(refused(&error) && error.to_string().contains("shutting down"), "{error}");
    let error = two.connection(&one.url).request(ECHO, "").await.expect_err("it is draining");
    assert!(matches!(error, CallError::Shutdown), "{error}");

    assert!(!running.is_finished() && !shutdown.is_finished());
    release.send_replace(true);
    let response = within("the response", running).await.expect("no panic");
    assert_eq!(response.expect("it finished within the grace"), "done");
    within("the shutdown", shutdown).await.expect("no panic");
    assert_eq!(two.connection(&one.url).state(), ConnectionState::Shutdown);
    let error = two.connection(&one.url).wait_connected().await.expect_err("never again");
    assert!(matches!(error, CallError::Shutdown));
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b09_shutdown_does_not_wait_longer_than_its_grace() {
    let (one, two, live) = pair().await;
    let connection = one.connection(&two.url);
    let stuck = tokio::spawn(connection.request(COUNTED, "").into_future());
    eventually("it runs", || live.count() == 1).await;
    within("the shutdown", two.manager.shutdown(Duration::from_millis(20))).await;
    let error = within("the call", stuck).await.expect("no panic").expect_err("cut off");
    assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
    eventually("the handler is dropped", || live.count() == 0).await;
}

#[tokio::test]
async fn b09_dropping_the_last_handle_ends_everything() {
    let (one, two, live) = pair().await;
    let connection = one.connection(&two.url);
    let stuck = tokio::spawn(connection.request(COUNTED, "").into_future());
    eventually("it runs", || live.count() == 1).await;

    let last = two.connection(&one.url);
    drop(two);
    assert_eq!(last.request(ECHO, "a connection is a handle").await.expect("an echo").len(), 24);
    drop(last);
    let error = within("the call", stuck).await.expect("no panic").expect_err("cut off");
    assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
    eventually("the handler is dropped", || live.count() == 0).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_on_either_side() {
    let mut limits = Limits::default();
    limits.message_bytes_max = 64 * 1024;
    let servers = Server::cluster(2, &limits).await;
    servers[1]
        .manager
        .register(Route::new(HandlerId::new(205)), |_, _| async { Ok(vec![0; 100_000].into()) })
        .expect("free");
    let connection = servers[0].wait_connected(&servers[1].url).await;

    let error = connection.request(ECHO, vec![0; 64 * 1024]).await.expect_err("too large");
    assert!(matches!(error, CallError::TooLarge { max: 65_536, .. }), "{error}");
    let error = connection.request(HandlerId::new(205), "").await.expect_err("too large");
    assert!(matches!(error, CallError::Remote { .. }), "{error}");
    assert!(error.to_string().contains("larger than the limit of 65536"), "{error}");
    assert_eq!(connection.request(ECHO, "still here").await.expect("an echo"), "still here");
}

#[tokio::test]
async fn calls_beyond_the_inbound_limit_are_refused_and_not_run() {
    let mut limits = Limits::default();
    limits.inbound_calls_max = 2;
    let servers = Server::cluster(2, &limits).await;
    let connection = servers[0].wait_connected(&servers[1].url).await;
    let served = servers[1].connection(&servers[0].url);
    let stuck: Vec<_> =
        (0..2).map(|_| tokio::spawn(connection.request(STUCK, "").into_future())).collect();
    eventually("both run", || served.stats().live_inbound_calls == 2).await;

    let error = connection.request(ECHO, "").await.expect_err("overloaded");
    assert!(matches!(&error, CallError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("overloaded"), "{error}");
    stuck.into_iter().for_each(|call| call.abort());
    eventually("both calls ended", || served.stats().live_inbound_calls == 0).await;
    connection.request(ECHO, "").await.expect("the limit has room again");
}

#[tokio::test]
async fn calls_beyond_the_outbound_limit_fail_locally() {
    let mut limits = Limits::default();
    limits.outbound_calls_max = 2;
    let servers = Server::cluster(2, &limits).await;
    let connection = servers[0].wait_connected(&servers[1].url).await;
    let stuck: Vec<_> =
        (0..2).map(|_| tokio::spawn(connection.request(STUCK, "").into_future())).collect();
    eventually("both calls are in flight", || connection.stats().live_outbound_calls == 2).await;
    let error = connection.request(ECHO, "").await.expect_err("too many");
    assert!(matches!(error, CallError::TooManyCalls { max: 2, .. }), "{error}");
    stuck.into_iter().for_each(|call| call.abort());
    eventually("both calls ended", || connection.stats().live_outbound_calls == 0).await;
    connection.request(ECHO, "").await.expect("the limit has room again");
}

/// Returns the task in which each of three calls of a handler began.
async fn tasks_of_three_calls(execution: Execution) -> Vec<tokio::task::Id> {
    let (one, two, _) = pair().await;
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&tasks);
    two.manager
        .register(Route::new(HandlerId::new(206)).execution(execution), move |_, payload| {
            seen.lock().expect("no panic").push(tokio::task::id());
            std::future::ready(Ok(payload))
        })
        .expect("free");
    let connection = one.connection(&two.url);
    for _ in 0..3 {
        connection.request(HandlerId::new(206), "x").await.expect("an echo");
    }
    two.assert_quiescent().await;
    std::mem::take(&mut *tasks.lock().expect("no panic"))
}

#[tokio::test]
async fn a_handler_begins_in_the_connections_task_or_in_a_spawned_one() {
    let in_place = tasks_of_three_calls(Execution::Inline).await;
    assert!(in_place.iter().all(|task| *task == in_place[0]));
    let spawned = tasks_of_three_calls(Execution::Spawned).await;
    assert!(spawned[0] != spawned[1] && spawned[1] != spawned[2] && spawned[0] != spawned[2]);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sum {
    numbers: Vec<i64>,
}

const SUM: SingleHandler<Sum, i64> = SingleHandler::new(HandlerId::new(207), "Sum");

const BROKEN: SingleHandler<(), String> = SingleHandler::new(HandlerId::new(208), "Broken");

/// The same id with other types, as after an incompatible change.
const OTHER: SingleHandler<String, String> = SingleHandler::new(HandlerId::new(207), "Other");

#[tokio::test]
async fn b30_typed_handlers_are_declared_once_and_used_by_caller_and_callee() {
    let (one, two, _) = pair().await;
    SUM.register(&two.manager, |_, request| async move {
        let sum = request.numbers.iter().try_fold(0_i64, |sum, number| sum.checked_add(*number));
        sum.ok_or_else(|| HandlerError::from("overflow"))
    })
    .expect("free");
    let connection = one.connection(&two.url);
    assert_eq!(SUM.call(&connection, &Sum { numbers: vec![1, -2, 44] }).await.expect("a sum"), 43);
    let error = SUM.call(&connection, &Sum { numbers: vec![i64::MAX, 1] }).await;
    let error = error.expect_err("an overflow").to_string();
    assert!(error.ends_with("returned an error: overflow"), "{error}");
}

#[tokio::test]
async fn b32_a_payload_that_does_not_decode_is_an_error_of_its_call() {
    let (one, two, _) = pair().await;
    SUM.register(&two.manager, |_, _| async { Ok(0) }).expect("free");
    let connection = one.connection(&two.url);

    let error = OTHER.call(&connection, &"not numbers".to_owned()).await.expect_err("no Sum");
    let text = error.to_string();
    assert!(matches!(error, TypedCallError::Call(CallError::Remote { .. })), "{text}");
    assert!(text.contains("cannot decode the request as") && text.contains("Sum"), "{text}");

    two.manager
        .register(Route::new(HandlerId::new(208)), |_, _| async { Ok(Bytes::from_static(b"\xc1")) })
        .expect("free");
    let error = BROKEN.call(&connection, &()).await.expect_err("no string");
    assert!(matches!(error, TypedCallError::Decode { .. }), "{error}");
    connection.request(ECHO, "").await.expect("other calls are unaffected");
}

#[tokio::test]
async fn b33_subroutes_reach_their_own_handlers() {
    let (one, two, _) = pair().await;
    let subroutes = ["drive-1/pool-0", "drive-2/pool-0"].map(|s| Subroute::new(s).expect("valid"));
    for subroute in &subroutes {
        SUM.register_at(&two.manager, Route::new(SUM.id()).subroute(subroute), {
            let subroute = subroute.clone();
            move |context, _| {
                assert_eq!(context.subroute(), Some(subroute.as_str()));
                let length = subroute.as_str().len() as i64;
                let first = subroute == Subroute::new("drive-1/pool-0").expect("valid");
                std::future::ready(Ok(if first { length } else { -length }))
            }
        })
        .expect("free");
    }
    let twice = SUM.register_at(&two.manager, Route::new(SUM.id()).subroute(&subroutes[0]), {
        |_, _| async { Ok(0) }
    });
    assert!(matches!(twice, Err(RegisterError::Duplicate { .. })));

    let connection = one.connection(&two.url);
    for (subroute, expected) in subroutes.iter().zip([14, -14]) {
        let options = CallOptions::default().subroute(subroute).timeout(WAIT_MAX);
        let response = SUM.call_with(&connection, &Sum { numbers: vec![] }, options).await;
        assert_eq!(response.expect("its own handler"), expected);
    }
}

#[tokio::test]
async fn b42_every_call_is_traced_by_caller_and_callee() {
    let (one, two, _) = pair().await;
    let seen: Arc<Mutex<Vec<CallTrace>>> = Arc::default();
    let record = Arc::clone(&seen);
    let subscriber: Subscriber = Arc::new(move |trace: &CallTrace| {
        record.lock().expect("no panic").push(trace.clone());
    });
    one.manager.trace(Arc::clone(&subscriber));
    two.manager.trace(Arc::clone(&subscriber));

    let connection = one.connection(&two.url);
    connection.request(ECHO, "four").await.expect("an echo");
    connection.request(HandlerId::new(99), "x").await.expect_err("unknown");
    let call = tokio::spawn(connection.request(COUNTED, "xy").into_future());
    eventually("it runs", || two.connection(&one.url).stats().live_inbound_calls == 1).await;
    call.abort();
    eventually("all calls are traced", || seen.lock().expect("no panic").len() == 5).await;

    let traces = std::mem::take(&mut *seen.lock().expect("no panic"));
    let find = |side, name: &str| {
        let is_it = |trace: &&CallTrace| trace.side == side && &*trace.name == name;
        traces.iter().find(is_it).cloned().expect("it was traced")
    };
    let client = find(CallSide::Caller, "200");
    assert_eq!((client.bytes_out, client.bytes_in, client.outcome), (4, 4, TraceOutcome::Ok));
    assert_eq!((client.local.as_str(), client.remote.as_str()), (&*one.url, &*two.url));
    let server = find(CallSide::Callee, "Echo");
    assert_eq!((server.bytes_out, server.bytes_in, server.outcome), (4, 4, TraceOutcome::Ok));
    assert_eq!((server.local.as_str(), server.remote.as_str()), (&*two.url, &*one.url));
    let unknown = find(CallSide::Caller, "99").outcome;
    assert!(matches!(unknown, TraceOutcome::Failed(CallError::UnknownHandler { .. })));
    assert_eq!(find(CallSide::Caller, "202").outcome, TraceOutcome::Cancelled);
    assert_eq!(find(CallSide::Callee, "Counted").outcome, TraceOutcome::Cancelled);

    one.manager.untrace(&subscriber);
    two.manager.untrace(&subscriber);
    connection.request(ECHO, "untraced").await.expect("an echo");
    assert!(seen.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_subscriber_that_panics_affects_no_call() {
    let (one, two, _) = pair().await;
    let subscriber: Subscriber = Arc::new(|_: &CallTrace| panic!("a bad subscriber"));
    one.manager.trace(Arc::clone(&subscriber));
    two.manager.trace(subscriber);
    let connection = one.connection(&two.url);
    for _ in 0..3 {
        connection.request(ECHO, "x").await.expect("an echo");
    }
    assert_eq!(connection.stats().connections, 1);
}

#[tokio::test]
async fn b08_statistics_count_calls_messages_and_bytes() {
    let (one, two, _) = pair().await;
    let connection = one.connection(&two.url);
    for _ in 0..10 {
        connection.request(ECHO, "0123456789").await.expect("an echo");
    }
    let (here, there) = (connection.stats(), two.connection(&one.url).stats());
    assert_eq!((here.outbound_calls, there.inbound_calls), (10, 10));
    assert_eq!((here.messages_out, here.messages_in), (10, 10));
    assert_eq!((here.bytes_out, here.bytes_in), (there.bytes_in, there.bytes_out));
    assert_eq!((here.state, here.connections), (ConnectionState::Connected, 1));
}
