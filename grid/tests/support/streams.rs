//! Helpers for streams: `opened`, `collect_stream`, `collect_rest`, and predicates for errors.

use std::future::IntoFuture;

use bytes::Bytes;
use grid::{CallError, OpenStream, Stream, StreamError, StreamReceiver};

use super::within;

/// How a stream ended for its receiver.
pub type StreamResult = Result<(), StreamError>;

/// Opens a stream, which must succeed.
pub async fn opened(open: OpenStream) -> Stream {
    within("opening", open.into_future()).await.expect("it opens")
}

/// Receives the next message, which must come.
pub async fn message(receiver: &mut StreamReceiver) -> Bytes {
    within("a message", receiver.next()).await.expect("a message, not the end").expect("no error")
}

/// Receives the rest of a stream up to its end.
pub async fn collect_rest(receiver: &mut StreamReceiver) -> (Vec<Bytes>, StreamResult) {
    let mut messages = Vec::new();
    loop {
        match within("a message or the end", receiver.next()).await {
            Some(Ok(message)) => messages.push(message),
            Some(Err(error)) => {
                assert!(receiver.next().await.is_none(), "nothing follows an error");
                return (messages, Err(error));
            }
            None => {
                assert!(receiver.next().await.is_none(), "nothing follows the end");
                return (messages, Ok(()));
            }
        }
    }
}

/// Receives all of a stream without input. A stream that fails at once may do so before or after it
/// opens; either counts as its end.
pub async fn collect_stream(open: OpenStream) -> (Vec<Bytes>, StreamResult) {
    match within("opening", open.into_future()).await {
        Ok(stream) => {
            let (sender, mut receiver) = stream.split();
            drop(sender);
            collect_rest(&mut receiver).await
        }
        Err(error) => (Vec::new(), Err(error)),
    }
}

/// Returns the text of an error of the handler; panics on any other result.
pub fn remote_text(end: StreamResult) -> String {
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
