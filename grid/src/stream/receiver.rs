//! The receiving half of a stream: of its caller, or the input of its handler.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::coop::poll_proceed;

use super::{DroppedHalf, StreamEndpoint};
use crate::error::StreamError;

/// Receives the messages of the other end of a stream, in order ([B22]).
///
/// Each received message returns one credit to the sender ([B21]). After a drop, further messages are
/// discarded and their credit is returned, so that the sender is not blocked. A caller that drops
/// the [`StreamSender`](super::StreamSender) too cancels the stream.
///
/// [B21]: crate::rules#b21
/// [B22]: crate::rules#b22
#[derive(Debug)]
pub struct StreamReceiver {
    endpoint: Arc<StreamEndpoint>,
    is_ended: bool,
}

impl StreamReceiver {
    pub(crate) fn new(endpoint: Arc<StreamEndpoint>) -> Self {
        Self { endpoint, is_ended: false }
    }

    /// Receives the next message.
    ///
    /// Returns `None` once the other end has finished. For a caller: the handler returned without
    /// error and all of its messages are received ([B23]). For a handler: the caller has finished
    /// sending.
    ///
    /// A message is a slice of the received frame and keeps the whole frame allocated: copy data
    /// that is kept for long.
    ///
    /// # Errors
    ///
    /// [`StreamError`], once, after all earlier messages; then `None`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    ///
    /// [B23]: crate::rules#b23
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StreamError>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let budget = ready!(poll_proceed(cx));
        self.endpoint.on_receiver_polled();
        let received = self.endpoint.handle.poll_receive(cx.waker());
        if received.is_pending() {
            // Again: the sender may have been dropped in between, before the waker was registered.
            self.endpoint.on_receiver_polled();
        }
        let received = ready!(received);
        budget.made_progress();
        Poll::Ready(match received {
            Some(Ok(payload)) => {
                self.endpoint.recorder.add_bytes_in(payload.len());
                Some(Ok(payload))
            }
            Some(Err(end)) => {
                self.is_ended = true;
                Some(Err(self.endpoint.error(end)))
            }
            None => {
                self.is_ended = true;
                None
            }
        })
    }
}

impl futures_util::Stream for StreamReceiver {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(cx)
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        if self.endpoint.drop_half() == DroppedHalf::First {
            self.endpoint.handle.stop_receiving();
        } // else dropping the endpoint cancels the stream
    }
}
