//! The sending halves of a stream: the caller's sender and the handler's output.
//!
//! Like tokio's channels they consume its cooperative budget: a task that sends or receives without
//! ever having to wait still yields its thread to others.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Sink;
use tokio::task::coop::poll_proceed;

use super::{DroppedHalf, StreamEndpoint};
use crate::error::{SendError, StreamError};

/// Sends a caller's messages to the handler.
///
/// Dropping it alone finishes, like [`finish`](Self::finish), but only when the
/// [`StreamReceiver`](super::StreamReceiver) is polled after that. If the receiver is dropped too,
/// in either order, or the drop is due to a panic, the stream is cancelled: a handler must not
/// mistake half of its input for all of it because a task was aborted. If each half has a task of
/// its own, finish explicitly, or mark the last message as the last.
#[derive(Debug)]
pub struct StreamSender(SendHalf);

impl StreamSender {
    pub(crate) fn new(endpoint: Arc<StreamEndpoint>) -> Self {
        Self(SendHalf { endpoint })
    }

    /// Sends a message. Resolves once it is queued, which may wait for the handler to receive
    /// earlier messages ([B21]), or for room in the queue.
    ///
    /// # Errors
    ///
    /// [`SendError`]. Whether the handler received earlier messages is then not known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the message, unless it was queued already ([B11]).
    ///
    /// [B11]: crate::rules#b11
    /// [B21]: crate::rules#b21
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.0.send(payload.into()).await
    }

    /// Finishes sending ([B25]). Resolves once the end of the input is queued, which, like a message,
    /// may wait for the handler.
    ///
    /// # Errors
    ///
    /// [`StreamError`] if the stream ended with an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, once polled, does not undo the finish, which completes in the
    /// background.
    ///
    /// [B25]: crate::rules#b25
    pub async fn finish(self) -> Result<(), StreamError> {
        self.wait_finished().await
    }

    pub(super) async fn wait_finished(&self) -> Result<(), StreamError> {
        poll_fn(|cx| self.0.poll_finish(cx)).await
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        let endpoint = &self.0.endpoint;
        match endpoint.drop_half() {
            DroppedHalf::First if std::thread::panicking() => endpoint.handle.cancel(),
            DroppedHalf::First => endpoint.on_sender_dropped(),
            DroppedHalf::Last => {} // dropping the endpoint cancels the stream
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
pub struct StreamOutput(SendHalf);

impl StreamOutput {
    pub(crate) fn new(endpoint: Arc<StreamEndpoint>) -> Self {
        Self(SendHalf { endpoint })
    }

    /// Sends a message. Resolves once it is queued, which may wait for the caller to receive
    /// earlier messages ([B21]), or for room in the queue.
    ///
    /// # Errors
    ///
    /// [`SendError`]. Whether the caller received earlier messages is then not known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the message, unless it was queued already ([B11]).
    ///
    /// [B11]: crate::rules#b11
    /// [B21]: crate::rules#b21
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

    /// Only flushes: the stream ends when the handler returns.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_sent(cx)
    }
}

/// Shared implementation of [`StreamSender`] and [`StreamOutput`].
#[derive(Debug)]
struct SendHalf {
    endpoint: Arc<StreamEndpoint>,
}

impl SendHalf {
    async fn send(&self, payload: Bytes) -> Result<(), SendError> {
        let bytes = payload.len();
        let mut send = PendingSend { half: self, payload: Some(payload), is_complete: false };
        poll_fn(|cx| send.poll(cx)).await?;
        self.endpoint.recorder.add_bytes_out(bytes);
        Ok(())
    }

    fn start_send(&self, payload: Bytes) -> Result<(), SendError> {
        let bytes = payload.len();
        self.endpoint.handle.try_send(payload)?;
        self.endpoint.recorder.add_bytes_out(bytes);
        Ok(())
    }

    /// Resolves when no message is blocked.
    fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let budget = ready!(poll_proceed(cx));
        let sent = ready!(self.endpoint.handle.poll_send(&mut None, cx.waker()));
        budget.made_progress();
        Poll::Ready(sent)
    }

    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let finished = ready!(self.endpoint.handle.poll_finish(cx.waker()));
        Poll::Ready(finished.map_err(|end| self.endpoint.error(end)))
    }
}

/// A message that is not queued yet; a drop withdraws it.
struct PendingSend<'a> {
    half: &'a SendHalf,
    /// `None` once `shared` has taken it.
    payload: Option<Bytes>,
    is_complete: bool,
}

impl PendingSend<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let budget = ready!(poll_proceed(cx));
        let sent = ready!(self.half.endpoint.handle.poll_send(&mut self.payload, cx.waker()));
        budget.made_progress();
        self.is_complete = true;
        Poll::Ready(sent)
    }
}

impl Drop for PendingSend<'_> {
    fn drop(&mut self) {
        if !self.is_complete && self.payload.is_none() {
            self.half.endpoint.handle.cancel_send();
        }
    }
}
