//! The settings of the WebSocket layer, and the little that the handshake needs of it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::transport::Socket;
use crate::limits::{HANDSHAKE_BYTES_MAX, Limits};

/// An open WebSocket over any socket.
pub(crate) type WebSocket = WebSocketStream<Box<dyn Socket>>;

/// tungstenite fills this buffer with zeros before each read, so that a large one costs more than
/// the system calls it saves.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The settings for both roles. A frame beyond the limit is refused by its header, before anything
/// of its size is allocated.
pub(crate) fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
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

/// Ends a WebSocket in good order, as far as that is possible within `limit`.
pub(crate) async fn close(mut socket: WebSocket, limit: Duration) {
    // Either the peer gets it, or it finds out by itself.
    let _ = tokio::time::timeout(limit, socket.close(None)).await;
}
