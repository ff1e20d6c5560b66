//! The settings of the WebSocket layer, and the little that the handshake needs of it.

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
pub(crate) type WebSocket = WebSocketStream<Metered>;

/// A socket that reads a limited number of bytes until the handshake is over, because a peer that
/// has not proved who it is must not make us hold a message of the largest size.
pub(crate) struct Metered {
    socket: Box<dyn Socket>,
    /// How much may still be read; `None` after the handshake.
    budget: Option<usize>,
}

impl Metered {
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        Self { socket, budget: Some(HANDSHAKE_BUDGET_BYTES) }
    }

    /// The handshake is over.
    pub(crate) fn lift(&mut self) {
        self.budget = None;
    }
}

impl AsyncRead for Metered {
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
                format!("more than {HANDSHAKE_BUDGET_BYTES} bytes before the handshake is over"),
            )));
        }
        // By way of a buffer of our own, which is what safe code can limit. Handshakes are short.
        let mut part = [0; 4096];
        let room = part.len().min(*budget).min(buffer.remaining());
        let mut part = ReadBuf::new(&mut part[..room]);
        ready!(Pin::new(socket).poll_read(cx, &mut part))?;
        buffer.put_slice(part.filled());
        *budget -= part.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
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

/// The settings for both roles. A frame beyond the limit is refused by its header, before anything
/// of its size is allocated.
pub(crate) fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(2 * (WRITE_BUFFER_BYTES + limits.frame_bytes_max()))
        .max_message_size(Some(limits.frame_bytes_max()))
        .max_frame_size(Some(limits.frame_bytes_max()))
}

/// Why the first message of a handshake did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirstMessageError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the first message has {0} bytes, {HANDSHAKE_BYTES_MAX} are allowed")]
    TooLarge(usize),
    #[error(transparent)]
    WebSocket(#[from] Box<Error>),
}

/// The next binary message of a handshake. Text is ignored (P3).
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

/// Writes one message, and waits until the socket has it.
pub(crate) async fn send(socket: &mut WebSocket, bytes: Vec<u8>) -> Result<(), Box<Error>> {
    socket.send(Message::Binary(bytes.into())).await.map_err(Box::new)
}

/// Ends a WebSocket in good order, as far as that is possible within `limit`: says so, and reads to
/// the end. A socket that is closed with bytes unread takes with it what it has yet to send.
pub(crate) async fn close(mut socket: WebSocket, limit: Duration) {
    let ending = async {
        // Not the method of the same name, which refuses where the peer has said so first.
        SinkExt::close(&mut socket).await?;
        while let Some(message) = socket.next().await {
            message?;
            // A socket that always has something to read would outlast the limit.
            tokio::task::yield_now().await;
        }
        Ok::<(), Error>(())
    };
    // Either the peer hears of it, or it finds out by itself.
    let _ = tokio::time::timeout(limit, ending).await;
}
