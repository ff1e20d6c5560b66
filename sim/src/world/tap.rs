//! A socket that reads along: which grid messages pass, by their meaning.
//!
//! It sits between the shell under test and turmoil's socket and knows WebSocket frames by itself,
//! so that the trace does not depend on what the code under test says that it sends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use grid::proto::message::{Message, Messages, Op};
use iam_bootstrap::wire;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use crate::event::{IamEvent, Meaning, SocketId, What};
use crate::load::body;
use crate::plan::Node;
use crate::recorder::Pen;

/// A simulated socket whose messages are written down.
#[derive(Debug)]
pub(super) struct Tapped {
    stream: TcpStream,
    pen: Pen,
    socket: SocketId,
    remote: Node,
    sent: Ear,
    received: Ear,
}

impl Tapped {
    pub(super) fn new(stream: TcpStream, pen: Pen, socket: SocketId, remote: Node) -> Self {
        Self { stream, pen, socket, remote, sent: Ear::default(), received: Ear::default() }
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.pen.record(What::SocketClosed { socket: self.socket });
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Self { stream, pen, socket, received, .. } = &mut *self;
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        let socket = *socket;
        received.hear(&buffer.filled()[before..], |index, _| {
            pen.record(What::MessageReceived { socket, index });
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, pen, socket, remote, sent, .. } = &mut *self;
        let written = ready!(Pin::new(stream).poll_write(cx, bytes))?;
        sent.hear(&bytes[..written], |index, message| {
            pen.record(What::MessageSent { socket: *socket, index, message: meaning(message) });
            if let Some(iam) = comparison(message, *remote) {
                pen.record(What::Iam(iam));
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

fn meaning(message: &Message) -> Meaning {
    let header = &message.header;
    Meaning {
        op: format!("{:?}", header.op),
        mux_id: header.mux_id,
        sequence: header.sequence,
        flags: header.flags.bits(),
        bytes: u32::try_from(message.payload.len()).unwrap_or(u32::MAX),
        call: body::call_of(&message.payload),
    }
}

/// What a message is to a comparison of copies: it begins with asking for a digest, and ends with
/// asking for records if it found any that are newer.
fn comparison(message: &Message, remote: Node) -> Option<IamEvent> {
    let header = &message.header;
    match header.handler {
        _ if header.op != Op::Request => None,
        id if id == wire::DIGEST.id().get() => Some(IamEvent::Compares { with: remote }),
        id if id == wire::RECORDS.id().get() => Some(IamEvent::Fetches { from: remote }),
        _ => None,
    }
}

/// Understands one direction of a socket: an HTTP head, then WebSocket frames.
#[derive(Debug, Default)]
struct Ear {
    is_past_head: bool,
    buffer: Vec<u8>,
    heard: u64,
}

impl Ear {
    fn hear(&mut self, bytes: &[u8], mut each: impl FnMut(u64, &Message)) {
        self.buffer.extend_from_slice(bytes);
        if !self.is_past_head {
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                return;
            };
            self.buffer.drain(..end + 4);
            self.is_past_head = true;
        }
        let mut at = 0;
        while let Some((frame, length)) = Frame::parse(&self.buffer[at..]) {
            at += length;
            let Some(payload) = frame.binary() else { continue };
            let messages = Messages::of(payload).into_iter().flatten();
            for message in messages.map_while(Result::ok) {
                each(self.heard, &message);
                self.heard += 1;
            }
        }
        self.buffer.drain(..at);
    }
}

const BINARY: u8 = 2;

/// A whole frame (RFC 6455, 5.2).
struct Frame<'a> {
    opcode: u8,
    mask: Option<[u8; 4]>,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `bytes` and its length, if it is there as a whole.
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
        if self.opcode != BINARY {
            return None;
        }
        let mut payload = self.payload.to_vec();
        if let Some(mask) = self.mask {
            // In whole masks, which the compiler makes wide: this is a good part of a run's time.
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
