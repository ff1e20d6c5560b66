//! What is said of streams: `opened`, `whole`, `rest`, and which error it was.

use std::future::IntoFuture;

use bytes::Bytes;
use grid::{CallError, OpenStream, Stream, StreamError, StreamReceiver};

use super::within;

/// How a stream ended for whoever received from it.
pub type End = Result<(), StreamError>;

/// Opens a stream that must open.
pub async fn opened(open: OpenStream) -> Stream {
    within("opening", open.into_future()).await.expect("it opens")
}

/// The next message of a stream that must have one.
pub async fn message(receiver: &mut StreamReceiver) -> Bytes {
    within("a message", receiver.next()).await.expect("not the end").expect("well")
}

/// What is left of a stream, up to its end.
pub async fn rest(receiver: &mut StreamReceiver) -> (Vec<Bytes>, End) {
    let mut messages = Vec::new();
    loop {
        match within("a message or the end", receiver.next()).await {
            Some(Ok(message)) => messages.push(message),
            Some(Err(error)) => {
                assert!(receiver.next().await.is_none(), "an error comes once, and is the last");
                return (messages, Err(error));
            }
            None => {
                assert!(receiver.next().await.is_none(), "the end is the end");
                return (messages, Ok(()));
            }
        }
    }
}

/// All of a stream that its caller sends nothing to. One that fails at once may do so before it
/// opens, or behind that: both are its end.
pub async fn whole(open: OpenStream) -> (Vec<Bytes>, End) {
    match within("opening", open.into_future()).await {
        Ok(stream) => {
            let (sender, mut receiver) = stream.split();
            drop(sender);
            rest(&mut receiver).await
        }
        Err(error) => (Vec::new(), Err(error)),
    }
}

/// The text of an error that the handler returned, and no other error.
pub fn remote_text(end: End) -> String {
    match end {
        Err(StreamError::Call(CallError::Remote { message, .. })) => message.to_string(),
        other => panic!("not an error of the handler: {other:?}"),
    }
}

pub fn is_disconnected(error: &StreamError) -> bool {
    matches!(error, StreamError::Call(CallError::Disconnected { .. }))
}

pub fn is_deadline(error: &StreamError) -> bool {
    matches!(error, StreamError::Call(CallError::DeadlineExceeded { .. }))
}

pub fn is_unknown_handler(error: &StreamError) -> bool {
    matches!(error, StreamError::Call(CallError::UnknownHandler { .. }))
}
