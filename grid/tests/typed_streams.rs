//! Typed streams between real servers: declared once, used by caller and callee.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use grid::trace::{CallTrace, Subscriber};
use grid::{
    CallError, CallOptions, HandlerId, Limits, NoInput, NoPayload, RegisterError, Route, SendError,
    StreamError, StreamHandler, Subroute, TypedReceiver, TypedSendError, TypedStreamError,
};
use serde::{Deserialize, Serialize};
use support::streams::is_deadline;
use support::{Server, eventually, within};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Scale {
    by: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Number {
    value: i64,
}

/// The encoding of a [`Number`] by an incompatible version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Word {
    word: String,
}

const SCALE: StreamHandler<Scale, Number, Number> =
    StreamHandler::new(HandlerId::new(210), "Scale").input_capacity(3).output_capacity(2);
const DOUBLE: StreamHandler<NoPayload, Number, Number> =
    StreamHandler::new(HandlerId::new(211), "Double");
const COUNT: StreamHandler<Scale, NoInput, Number> =
    StreamHandler::new(HandlerId::new(212), "Count");
const TICK: StreamHandler<NoPayload, NoInput, Number> =
    StreamHandler::new(HandlerId::new(213), "Tick");

async fn pair() -> (Server, Server) {
    Server::pair(&Limits::default()).await
}

/// Receives all remaining messages, and asserts a clean end.
async fn all<T: Serialize + for<'de> Deserialize<'de>>(mut receiver: TypedReceiver<T>) -> Vec<T> {
    let mut messages = Vec::new();
    while let Some(message) = within("a message", receiver.next()).await {
        messages.push(message.expect("no error"));
    }
    messages
}

fn values(numbers: &[Number]) -> Vec<i64> {
    numbers.iter().map(|number| number.value).collect()
}

fn scale(two: &Server) {
    SCALE
        .register(&two.manager, |_, Scale { by }, mut input, mut output| async move {
            while let Some(number) = input.next().await {
                let Number { value } = number?;
                output.send(&Number { value: value * by }).await?;
            }
            Ok(())
        })
        .expect("free");
}

#[tokio::test]
async fn b30_with_payload_and_input() {
    let (one, two) = pair().await;
    scale(&two);
    let stream = SCALE.call(&one.connection(&two.url), &Scale { by: -3 }).await.expect("it opens");
    let (mut sender, receiver) = stream.split();
    let sending = tokio::spawn(async move {
        for value in 0..100 {
            sender.send(&Number { value }).await.expect("accepted");
        }
        sender.finish().await.expect("the handler is there");
    });
    let expected: Vec<_> = (0..100).map(|value| value * -3).collect();
    assert_eq!(values(&all(receiver).await), expected);
    sending.await.expect("no panic");

    // Without splitting the stream, too.
    let stream = SCALE.call(&one.connection(&two.url), &Scale { by: 2 }).await;
    let mut stream = stream.expect("it opens");
    stream.send(&Number { value: 4 }).await.expect("accepted");
    let response =
        within("a message", stream.next()).await.expect("not the end").expect("no error");
    assert_eq!(response, Number { value: 8 });
    within("finishing", stream.finish()).await.expect("the handler is there");
    assert_eq!(all(stream.split().1).await, []);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b30_without_payload() {
    let (one, two) = pair().await;
    DOUBLE
        .register(&two.manager, |_, NoPayload, input, output| async move {
            let doubled = input.map(|number| {
                let Number { value } = number.expect("the test sends numbers");
                Ok(Number { value: 2 * value })
            });
            Ok(doubled.forward(output).await?)
        })
        .expect("free");
    let stream = DOUBLE.call(&one.connection(&two.url), &NoPayload).await.expect("it opens");
    let (mut sender, receiver) = stream.split();
    for value in [1, 2, 3] {
        SinkExt::send(&mut sender, Number { value }).await.expect("accepted");
    }
    SinkExt::<Number>::close(&mut sender).await.expect("the handler is there");
    assert_eq!(values(&all(receiver).await), [2, 4, 6]);
}

#[tokio::test]
async fn b26_b30_without_input() {
    let (one, two) = pair().await;
    COUNT
        .register(&two.manager, |_, Scale { by }, _, mut output| async move {
            for value in 0..by {
                output.send(&Number { value }).await?;
            }
            Ok(())
        })
        .expect("free");
    TICK.register(&two.manager, |_, NoPayload, _, mut output| async move {
        Ok(output.send(&Number { value: 7 }).await?)
    })
    .expect("free");
    let connection = one.connection(&two.url);
    let (_sender, receiver) =
        COUNT.call(&connection, &Scale { by: 200 }).await.expect("it opens").split();
    assert_eq!(values(&all(receiver).await), (0..200).collect::<Vec<_>>());
    let (_sender, receiver) = TICK.call(&connection, &NoPayload).await.expect("it opens").split();
    assert_eq!(values(&all(receiver).await), [7]);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b33_subroutes_and_timeouts() {
    let (one, two) = pair().await;
    let connection = one.connection(&two.url);
    let subroutes = ["drive-1", "drive-2"].map(|text| Subroute::new(text).expect("valid"));
    for (add, subroute) in (0_i64..).zip(&subroutes) {
        // The id and capacities of the handler override those of the route.
        let route = Route::new(HandlerId::new(99)).subroute(subroute).output_capacity(50);
        SCALE
            .register_at(
                &two.manager,
                route,
                move |context, Scale { by }, _, mut output| async move {
                    output.send(&Number { value: by + add }).await?;
                    if context.deadline().is_some() { std::future::pending().await } else { Ok(()) }
                },
            )
            .expect("free");
    }
    for (add, subroute) in (0..).zip(&subroutes) {
        let options = CallOptions::default().subroute(subroute);
        let stream = SCALE.call_with(&connection, &Scale { by: 10 }, options).await;
        let (_sender, receiver) = stream.expect("it opens").split();
        assert_eq!(values(&all(receiver).await), [10 + add]);
    }
    let options =
        CallOptions::default().subroute(&subroutes[0]).timeout(Duration::from_millis(500));
    let stream = SCALE.call_with(&connection, &Scale { by: 1 }, options).await.expect("it opens");
    let (_sender, mut receiver) = stream.split();
    let value = within("a message", receiver.next()).await.expect("not the end").expect("no error");
    assert_eq!(value, Number { value: 1 });
    let error = within("the deadline", receiver.next()).await.expect("an error");
    assert!(matches!(&error, Err(TypedStreamError::Stream(error)) if is_deadline(error)));

    let error = SCALE.call(&connection, &Scale { by: 1 }).await.map(drop);
    let unknown = |error: &TypedStreamError| {
        matches!(error, TypedStreamError::Stream(StreamError::Call(error))
            if matches!(error, CallError::UnknownHandler { .. }))
    };
    assert!(error.as_ref().is_err_and(unknown), "{error:?}");
    let error = SCALE
        .register_at(
            &two.manager,
            Route::new(HandlerId::new(1)).subroute(&subroutes[0]),
            |_, _, _, _| std::future::ready(Ok(())),
        )
        .expect_err("taken");
    assert_eq!(error, RegisterError::Duplicate { name: "Scale/drive-1".into() });
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

const WORDS: StreamHandler<Word, Word, Word> =
    StreamHandler::new(HandlerId::new(210), "Words").input_capacity(3).output_capacity(2);

#[tokio::test]
async fn b32_a_message_that_does_not_decode_is_an_error_and_the_next_one_is_received() {
    let (one, two) = pair().await;
    // Receives words, and sends the error of each message that does not decode.
    const DECODE_REPORTER: StreamHandler<NoPayload, Word, Word> =
        StreamHandler::new(HandlerId::new(215), "Critic");
    DECODE_REPORTER
        .register(&two.manager, |_, NoPayload, mut input, mut output| async move {
            while let Some(received) = input.next().await {
                let word = match received {
                    Ok(Word { word }) => word,
                    Err(error @ TypedStreamError::Decode { .. }) => error.to_string(),
                    Err(other) => return Err(other.into()),
                };
                output.send(&Word { word }).await?;
            }
            Ok(())
        })
        .expect("free");
    // The same handler in the version of an incompatible peer.
    const OTHER: StreamHandler<NoPayload, Number, Word> =
        StreamHandler::new(HandlerId::new(215), "Critic");
    let connection = one.connection(&two.url);
    let mut stream = OTHER.call(&connection, &NoPayload).await.expect("it opens");
    for value in 0..100 {
        stream.send(&Number { value }).await.expect("accepted");
        let Word { word } =
            within("a response", stream.next()).await.expect("one").expect("no error");
        assert!(word.contains("Word") && word.contains("cannot decode the message"), "{word}");
    }
    drop(stream);

    // The other way: the caller cannot decode, and goes on.
    const THIRD: StreamHandler<NoPayload, Word, Number> =
        StreamHandler::new(HandlerId::new(215), "Critic");
    let mut stream = THIRD.call(&connection, &NoPayload).await.expect("it opens");
    for _ in 0..100 {
        stream.send(&Word { word: "hello".into() }).await.expect("accepted");
        let error = within("a response", stream.next()).await.expect("one").expect_err("a word");
        let TypedStreamError::Decode { type_name, .. } = &error else { panic!("{error}") };
        assert!(type_name.contains("Number"), "{error}");
    }
    within("finishing", stream.finish()).await.expect("the handler is there");
    assert!(within("the end", stream.next()).await.is_none());
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn b32_a_payload_that_does_not_decode_is_an_error_of_that_stream() {
    let (one, two) = pair().await;
    scale(&two);
    let connection = one.connection(&two.url);
    let mut errors = Vec::new();
    let wrong = Word { word: "three".into() };
    match WORDS.call(&connection, &wrong).await {
        Err(error) => errors.push(error),
        Ok(mut stream) => {
            let end = within("the end", stream.next()).await.expect("an error");
            errors.push(end.expect_err("it does not decode"));
        }
    }
    // No payload where one is required.
    const BARE: StreamHandler<NoPayload, Number, Number> =
        StreamHandler::new(HandlerId::new(210), "Bare").input_capacity(3).output_capacity(2);
    match BARE.call(&connection, &NoPayload).await {
        Err(error) => errors.push(error),
        Ok(mut stream) => {
            let end = within("the end", stream.next()).await.expect("an error");
            errors.push(end.expect_err("no payload"));
        }
    }
    for (error, cause) in errors.iter().zip(["by", "the stream has no payload"]) {
        let TypedStreamError::Stream(StreamError::Call(CallError::Remote { message, .. })) = error
        else {
            panic!("{error}")
        };
        assert!(message.contains("cannot decode the payload as"), "{message}");
        assert!(message.contains("Scale") && message.contains(cause), "{message}");
    }
    assert_eq!(errors.len(), 2);
    let mut stream = SCALE.call(&connection, &Scale { by: 5 }).await.expect("it opens");
    stream.send(&Number { value: 5 }).await.expect("accepted");
    let response = within("a response", stream.next()).await.expect("one").expect("no error");
    assert_eq!(response, Number { value: 25 });
    drop(stream);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Blocks {
    #[serde(with = "grid::shared_bytes")]
    a: Bytes,
    #[serde(with = "grid::shared_bytes")]
    b: Bytes,
}

impl Blocks {
    /// Returns whether both lie in one allocation, as far apart as in the frame: a key of one
    /// letter and the header of a large bin are between them.
    fn share_a_frame(&self) -> bool {
        let (a, b) = (self.a.as_ptr_range(), self.b.as_ptr_range());
        b.start as usize == a.end as usize + 2 + 5
    }
}

const BLOCKS: StreamHandler<NoPayload, Blocks, Blocks> =
    StreamHandler::new(HandlerId::new(216), "Blocks");

#[tokio::test]
async fn b31_byte_fields_of_messages_share_the_memory_of_the_frame_they_came_in() {
    let (one, two) = pair().await;
    BLOCKS
        .register(&two.manager, |_, NoPayload, mut input, mut output| async move {
            while let Some(blocks) = input.next().await {
                let blocks = blocks?;
                if !blocks.share_a_frame() {
                    return Err("the data was copied".into());
                }
                output.send(&blocks).await?;
            }
            Ok(())
        })
        .expect("free");
    let mut stream = BLOCKS.call(&one.connection(&two.url), &NoPayload).await.expect("it opens");
    for fill in 0..10 {
        let data = Bytes::from(vec![fill; 1 << 20]);
        let sent = Blocks { a: data.clone(), b: data };
        assert!(!sent.share_a_frame());
        stream.send(&sent).await.expect("accepted");
        let received = within("a message", stream.next()).await.expect("one").expect("no error");
        assert_eq!(received, sent);
        assert!(received.share_a_frame());
    }
    drop(stream);
    one.assert_quiescent().await;
    two.assert_quiescent().await;
}

#[tokio::test]
async fn send_errors_are_distinct_and_names_are_traced() {
    let (one, two) = pair().await;
    scale(&two);
    let (report, names) = std::sync::mpsc::channel();
    let report = std::sync::Mutex::new(report);
    let subscriber: Subscriber = std::sync::Arc::new(move |trace: &CallTrace| {
        report.lock().expect("no panic").send(trace.name.to_string()).expect("the test receives");
    });
    one.manager.trace(std::sync::Arc::clone(&subscriber));
    two.manager.trace(subscriber);

    let stream = SCALE.call(&one.connection(&two.url), &Scale { by: 1 }).await.expect("it opens");
    let (mut sender, receiver) = stream.split();
    SinkExt::<Number>::close(&mut sender).await.expect("the handler is there");
    let error = sender.send(&Number { value: 1 }).await.expect_err("it was closed");
    assert!(matches!(error, TypedSendError::Send(SendError::Finished)), "{error}");
    assert_eq!(all(receiver).await, []);
    drop(sender);
    let mut seen = Vec::new();
    eventually("both ends are traced", || {
        seen.extend(names.try_iter());
        seen.len() == 2
    })
    .await;
    assert_eq!(seen, ["Scale", "Scale"]);
}

#[tokio::test]
async fn b21_capacities_of_a_constant_are_checked_at_registration() {
    const WRONG: StreamHandler<NoPayload, Number, Number> =
        StreamHandler::new(HandlerId::new(217), "Wrong").output_capacity(0);
    const NO_INPUT: StreamHandler<NoPayload, NoInput, Number> =
        StreamHandler::new(HandlerId::new(217), "NoInput").input_capacity(u32::MAX);
    let (_, two) = pair().await;
    let error = WRONG.register(&two.manager, |_, _, _, _| std::future::ready(Ok(())));
    assert!(matches!(error, Err(RegisterError::Capacity { .. })), "{error:?}");
    let registered = NO_INPUT.register(&two.manager, |_, _, _, _| std::future::ready(Ok(())));
    assert_eq!(registered, Ok(()), "input capacity is ignored without input");
}
