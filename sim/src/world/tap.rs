//! A socket that records the grid messages that pass through it.
//!
//! It sits between the code under test and turmoil's socket and decodes WebSocket frames itself:
//! the trace is recorded on the wire, not reported by the code under test.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use grid::proto::message::{Message, Messages, Op};
use iam_bootstrap::wire;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use crate::event::{EventKind, IamEvent, MessageSummary, SocketId};
use crate::load::body;
use crate::plan::Node;
use crate::recorder::NodeRecorder;

/// A simulated socket whose messages are recorded.
#[derive(Debug)]
pub(super) struct TappedSocket {
    stream: TcpStream,
    recorder: NodeRecorder,
    socket: SocketId,
    remote: Node,
    sent: MessageDecoder,
    received: MessageDecoder,
}

impl TappedSocket {
    pub(super) fn new(
        stream: TcpStream,
        recorder: NodeRecorder,
        socket: SocketId,
        remote: Node,
    ) -> Self {
        Self {
            stream,
            recorder,
            socket,
            remote,
            sent: MessageDecoder::default(),
            received: MessageDecoder::default(),
        }
    }
}

impl Drop for TappedSocket {
    fn drop(&mut self) {
        self.recorder.record(EventKind::SocketClosed { socket: self.socket });
    }
}

impl AsyncRead for TappedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { stream, recorder, socket, received, .. } = &mut *self;
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        let socket = *socket;
        received.feed(&buffer.filled()[before..], |index, _| {
            recorder.record(EventKind::MessageReceived { socket, index });
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TappedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, recorder, socket, remote, sent, .. } = &mut *self;
        let written = ready!(Pin::new(stream).poll_write(cx, bytes))?;
        sent.feed(&bytes[..written], |index, message| {
            recorder.record(EventKind::MessageSent {
                socket: *socket,
                index,
                message: summary(message),
            });
            if let Some(iam) = reconciliation(message, *remote) {
                recorder.record(EventKind::Iam(iam));
            }
        });
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn summary(message: &Message) -> MessageSummary {
    let header = &message.header;
    MessageSummary {
        op: format!("{:?}", header.op),
        mux_id: header.mux_id,
        sequence: header.sequence,
        flags: header.flags.bits(),
        bytes: u32::try_from(message.payload.len()).unwrap_or(u32::MAX),
        call: body::call_of(&message.payload),
    }
}

/// Returns the reconciliation event of a message: a digest request starts a reconciliation, and a
/// records request fetches the newer records that it found.
fn reconciliation(message: &Message, remote: Node) -> Option<IamEvent> {
    let header = &message.header;
    match header.handler {
        _ if header.op != Op::Request => None,
        id if id == wire::DIGEST.id().get() => Some(IamEvent::Reconciles { with: remote }),
        id if id == wire::RECORDS.id().get() => Some(IamEvent::Fetches { from: remote }),
        _ => None,
    }
}

/// Decodes one direction of a socket: an HTTP head, then WebSocket frames.
#[derive(Debug, Default)]
struct MessageDecoder {
    is_past_head: bool,
    buffer: Vec<u8>,
    count: u64,
}

impl MessageDecoder {
    fn feed(&mut self, bytes: &[u8], mut on_message: impl FnMut(u64, &Message)) {
        self.buffer.extend_from_slice(bytes);
        if !self.is_past_head {
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                return;
            };
            self.buffer.drain(..end + 4);
            self.is_past_head = true;
        }
        let mut at = 0;
        while let Some((frame, length)) = WebSocketFrame::parse(&self.buffer[at..]) {
            at += length;
            let Some(payload) = frame.binary() else { continue };
            let messages = Messages::new(payload).into_iter().flatten();
            for message in messages.map_while(Result::ok) {
                on_message(self.count, &message);
                self.count += 1;
            }
        }
        self.buffer.drain(..at);
    }
}

const OPCODE_BINARY: u8 = 2;

/// A complete frame (RFC 6455, 5.2).
struct WebSocketFrame<'a> {
    opcode: u8,
    mask: Option<[u8; 4]>,
    payload: &'a [u8],
}

impl<'a> WebSocketFrame<'a> {
    /// Parses the frame at the start of `bytes`, and returns it with its length if it is complete.
    fn parse(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk::<8>()?;
                (u64::from_be_bytes(*length), rest)
            }
            length => (u64::from(length), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let (mask, rest) = rest.split_first_chunk::<4>()?;
            (Some(*mask), rest)
        };
        let length = usize::try_from(length).ok()?;
        let payload = rest.get(..length)?;
        let header = bytes.len() - rest.len();
        Some((Self { opcode: first & 0x0f, mask, payload }, header + length))
    }

    fn binary(&self) -> Option<Bytes> {
        if self.opcode != OPCODE_BINARY {
            return None;
        }
        let mut payload = self.payload.to_vec();
        if let Some(mask) = self.mask {
            // Four bytes at a time, which the compiler vectorises: unmasking takes a large part of
            // a run's time.
            let (whole, rest) = payload.as_chunks_mut::<4>();
            for four in whole {
                *four = (u32::from_ne_bytes(*four) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
            }
            for (byte, mask) in rest.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        Some(payload.into())
    }
}
