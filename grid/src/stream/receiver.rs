//! The half of a stream that receives: a caller's, or a handler's input.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::coop::poll_proceed;

use super::{Dropped, End};
use crate::error::StreamError;

/// Receives what the other side of a stream sends, in order (B22).
///
/// With each message that is taken, the other side may send one more (B21). Dropping it says that
/// nobody wants the rest: that is discarded, so that the other side is not stuck for it. A caller
/// who drops the [`StreamSender`](super::StreamSender) too cancels the stream.
#[derive(Debug)]
pub struct StreamReceiver {
    end: Arc<End>,
    is_over: bool,
}

impl StreamReceiver {
    pub(crate) fn new(end: Arc<End>) -> Self {
        Self { end, is_over: false }
    }

    /// The next message.
    ///
    /// `None` once the other side has finished: for a caller, the handler returned well and all of
    /// its messages were received (B23); for a handler, its caller sends nothing more.
    ///
    /// A message is a slice of the frame that it came in, which stays allocated as long as the
    /// message does: copy what is kept for long.
    ///
    /// # Errors
    ///
    /// [`StreamError`], once, behind all messages that came before it; then `None`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, StreamError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let budget = ready!(poll_proceed(cx));
        self.end.receiver_is_used();
        let received = self.end.handle.poll_receive(cx.waker());
        if received.is_pending() {
            // Once more: the sender may have been dropped in between, and found nobody to wake.
            self.end.receiver_is_used();
        }
        let received = ready!(received);
        budget.made_progress();
        Poll::Ready(match received {
            Some(Ok(payload)) => {
                if let Some(traffic) = &self.end.traffic {
                    traffic.bytes_in.fetch_add(payload.len(), Ordering::Relaxed);
                }
                Some(Ok(payload))
            }
            Some(Err(end)) => {
                self.is_over = true;
                Some(Err(self.end.error(end)))
            }
            None => {
                self.is_over = true;
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
        if self.end.drop_half() == Dropped::First {
            self.end.handle.stop_receiving();
        } // else the stream goes with it
    }
}
