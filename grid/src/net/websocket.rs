//! Configuration of the WebSocket layer, and the few operations that the handshake needs.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::transport::Socket;
use crate::limits::{
    HANDSHAKE_BUDGET_BYTES, HANDSHAKE_BYTES_MAX, Limits, READ_BUFFER_BYTES, WRITE_BUFFER_BYTES,
};

/// An open WebSocket over any socket.
pub(crate) type WebSocket = WebSocketStream<ReadLimited>;

/// A socket that limits the bytes read before the handshake is complete, so that an unauthenticated
/// peer cannot make this server buffer a message of the largest size.
pub(crate) struct ReadLimited {
    socket: Box<dyn Socket>,
    /// Bytes that may still be read; `None` after the handshake.
    budget: Option<usize>,
}

impl ReadLimited {
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        Self { socket, budget: Some(HANDSHAKE_BUDGET_BYTES) }
    }

    /// Lifts the limit, after the handshake.
    pub(crate) fn lift_limit(&mut self) {
        self.budget = None;
    }
}

impl AsyncRead for ReadLimited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, budget } = &mut *self;
        let Some(budget) = budget else {
            return Pin::new(socket).poll_read(cx, buffer);
        };
        if *budget == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "more than {HANDSHAKE_BUDGET_BYTES} bytes before the handshake is complete"
                ),
            )));
        }
        // Through an intermediate buffer, because safe code cannot limit `buffer`. Handshakes are
        // short.
        let mut part = [0; 4096];
        let room = part.len().min(*budget).min(buffer.remaining());
        let mut part = ReadBuf::new(&mut part[..room]);
        ready!(Pin::new(socket).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        let read = part.filled().len();
        debug_assert!(
            read <= *budget,
            "read {read} bytes, {budget} were left before the handshake"
        );
        *budget -= read;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadLimited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Returns the configuration for both roles. A frame beyond the limit is refused by its header,
/// before any memory is allocated for it.
pub(crate) fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(2 * (WRITE_BUFFER_BYTES + limits.frame_bytes_max()))
        .max_message_size(Some(limits.frame_bytes_max()))
        .max_frame_size(Some(limits.frame_bytes_max()))
}

/// Why no first message of a handshake was received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirstMessageError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the first message has {0} bytes, {HANDSHAKE_BYTES_MAX} are allowed")]
    TooLarge(usize),
    #[error(transparent)]
    WebSocket(#[from] Box<Error>),
}

/// Receives the next binary message of a handshake. Ignores text (P3).
pub(crate) async fn receive_first(socket: &mut WebSocket) -> Result<Bytes, FirstMessageError> {
    while let Some(message) = socket.next().await {
        match message.map_err(Box::new)? {
            Message::Binary(bytes) if bytes.len() > HANDSHAKE_BYTES_MAX => {
                return Err(FirstMessageError::TooLarge(bytes.len()));
            }
            Message::Binary(bytes) => return Ok(bytes),
            Message::Close(_) => break,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    Err(FirstMessageError::Closed)
}

/// Sends one message and flushes it to the socket.
pub(crate) async fn send(socket: &mut WebSocket, bytes: Vec<u8>) -> Result<(), Box<Error>> {
    socket.send(Message::Binary(bytes.into())).await.map_err(Box::new)
}

/// Performs the closing handshake within `limit`: sends a close and reads to the end. Closing a
/// socket with unread bytes would discard data that is not sent yet.
pub(crate) async fn close(mut socket: WebSocket, limit: Duration) {
    let closing_handshake = async {
        // Not the inherent method, which fails if the peer has sent its close first.
        SinkExt::close(&mut socket).await?;
        while let Some(message) = socket.next().await {
            message?;
            // Lets the timeout fire even if the socket always has data to read.
            tokio::task::yield_now().await;
        }
        Ok::<(), Error>(())
    };
    // On failure the peer detects the end by itself.
    let _ = tokio::time::timeout(limit, closing_handshake).await;
}
