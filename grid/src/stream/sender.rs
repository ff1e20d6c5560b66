//! The halves of a stream that send: a caller's, and a handler's output.
//!
//! Like tokio's own channels they take part in its cooperative scheduling: a task that sends, or
//! receives, and never has to wait lets others have the thread all the same.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Sink;
use tokio::task::coop::poll_proceed;

use super::{Dropped, End};
use crate::error::{SendError, StreamError};
use crate::shared::SendFailure;

/// Sends a caller's messages to the handler.
///
/// Dropping it alone finishes, like [`finish`](Self::finish), but only when the
/// [`StreamReceiver`](super::StreamReceiver) is used after that. If that is dropped instead, in
/// whatever order, the stream is cancelled, and so it is by a panic: a handler must not take half of
/// its input for all of it because a task was aborted. Where each half has a task of its own, finish
/// explicitly, or end with a message that says that it is the last.
#[derive(Debug)]
pub struct StreamSender(Outgoing);

impl StreamSender {
    pub(crate) fn new(end: Arc<End>) -> Self {
        Self(Outgoing { end })
    }

    /// Sends a message. Resolves once it was queued, which may have to wait for the handler to take
    /// earlier ones (B21), or for room in the queue.
    ///
    /// # Errors
    ///
    /// [`SendError`]. Whether the handler took the messages before is not known then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the message back, unless it was queued already (B11).
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.0.send(payload.into()).await
    }

    /// Sends nothing more (B25). Resolves once the other side is to learn that; like a message, the
    /// end may have to wait for the handler.
    ///
    /// # Errors
    ///
    /// [`StreamError`] if the stream is over, and not well.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, once it was polled, finishes the stream all the same, in the background.
    pub async fn finish(self) -> Result<(), StreamError> {
        self.wait_finished().await
    }

    pub(super) async fn wait_finished(&self) -> Result<(), StreamError> {
        poll_fn(|cx| self.0.poll_finish(cx)).await
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        let end = &self.0.end;
        match end.drop_half() {
            Dropped::First if std::thread::panicking() => end.handle.give_up(),
            Dropped::First => end.sender_was_dropped(),
            Dropped::Last => {} // the stream goes with it
        }
    }
}

impl Sink<Bytes> for StreamSender {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_sent(cx)
    }

    fn start_send(self: Pin<&mut Self>, payload: Bytes) -> Result<(), SendError> {
        self.0.start_send(payload)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_sent(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_finish(cx).map_err(SendError::Stream)
    }
}

/// Sends a handler's messages to its caller.
///
/// The stream ends when the handler returns, not when this is dropped.
#[derive(Debug)]
pub struct StreamOutput(Outgoing);

impl StreamOutput {
    pub(crate) fn new(end: Arc<End>) -> Self {
        Self(Outgoing { end })
    }

    /// Sends a message. Resolves once it was queued, which may have to wait for the caller to take
    /// earlier ones (B21), or for room in the queue.
    ///
    /// # Errors
    ///
    /// [`SendError`]. Whether the caller took the messages before is not known then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes the message back, unless it was queued already (B11).
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.0.send(payload.into()).await
    }
}

impl Sink<Bytes> for StreamOutput {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_sent(cx)
    }

    fn start_send(self: Pin<&mut Self>, payload: Bytes) -> Result<(), SendError> {
        self.0.start_send(payload)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_sent(cx)
    }

    /// Flushes: the end of the stream is the handler's return.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_sent(cx)
    }
}

/// What both have in common.
#[derive(Debug)]
struct Outgoing {
    end: Arc<End>,
}

impl Outgoing {
    async fn send(&self, payload: Bytes) -> Result<(), SendError> {
        let bytes = payload.len();
        let mut sending = Sending { outgoing: self, payload: Some(payload), is_over: false };
        poll_fn(|cx| sending.poll(cx)).await?;
        self.count(bytes);
        Ok(())
    }

    fn start_send(&self, payload: Bytes) -> Result<(), SendError> {
        let bytes = payload.len();
        match self.end.handle.hand_over(payload) {
            Ok(true) => {
                self.count(bytes);
                Ok(())
            }
            Ok(false) => Err(SendError::NotReady),
            Err(failure) => Err(self.error(failure)),
        }
    }

    /// Ready when nothing waits.
    fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let budget = ready!(poll_proceed(cx));
        let sent = ready!(self.end.handle.poll_send(&mut None, cx.waker()));
        budget.made_progress();
        Poll::Ready(sent.map_err(|failure| self.error(failure)))
    }

    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let finished = ready!(self.end.handle.poll_finish(cx.waker()));
        Poll::Ready(finished.map_err(|end| self.end.error(end)))
    }

    fn count(&self, bytes: usize) {
        if let Some(traffic) = &self.end.traffic {
            traffic.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn error(&self, failure: SendFailure) -> SendError {
        match failure {
            SendFailure::Finished => SendError::Finished,
            SendFailure::NoInput => SendError::NoInput,
            SendFailure::TooLarge { bytes } => {
                let max = self.end.handle.shared().limits().message_bytes_max;
                SendError::TooLarge { bytes, max }
            }
            SendFailure::StreamOver(crate::proto::connection::StreamEnd::Finished) => {
                SendError::Finished
            }
            SendFailure::StreamOver(end) => SendError::Stream(self.end.error(end)),
        }
    }
}

/// A message on its way into the queue; taken back if it is dropped before.
struct Sending<'a> {
    outgoing: &'a Outgoing,
    /// Until it was handed over.
    payload: Option<Bytes>,
    is_over: bool,
}

impl Sending<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let budget = ready!(poll_proceed(cx));
        let sent = ready!(self.outgoing.end.handle.poll_send(&mut self.payload, cx.waker()));
        budget.made_progress();
        self.is_over = true;
        Poll::Ready(sent.map_err(|failure| self.outgoing.error(failure)))
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.payload.is_none() {
            self.outgoing.end.handle.cancel_send();
        }
    }
}
