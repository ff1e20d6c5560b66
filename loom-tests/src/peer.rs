//! Messages and reactions of a peer.

use bytes::Bytes;
use grid::proto::message::{Flags, Header, Message, Op};

fn message(header: Header, payload: &'static [u8]) -> Message {
    Message { header, payload: Bytes::from_static(payload), subroute: None }
}

/// A single request.
pub fn request(mux_id: u64) -> Message {
    message(Header { flags: Flags::EOF, handler: 9, ..Header::new(mux_id, Op::Request) }, b"")
}

/// The response to a single request.
pub fn response(mux_id: u64, payload: Bytes) -> Message {
    let header = Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) };
    Message { header, payload, subroute: None }
}

/// The opening of a stream.
pub fn connect(mux_id: u64) -> Message {
    message(Header { handler: 9, ..Header::new(mux_id, Op::ConnectMux) }, b"")
}

/// A stream's acknowledgement: the callee's first message.
pub fn ack(mux_id: u64) -> Message {
    message(Header::new(mux_id, Op::AckMux), b"")
}

/// A message of a handler, with the sequence number of the peer's direction.
pub fn data(mux_id: u64, sequence: u32, payload: Bytes) -> Message {
    let header = Header { sequence, ..Header::new(mux_id, Op::MuxServerMsg) };
    Message { header, payload, subroute: None }
}

/// A handler's clean end.
pub fn end(mux_id: u64, sequence: u32) -> Message {
    let header = Header { sequence, flags: Flags::EOF, ..Header::new(mux_id, Op::MuxServerMsg) };
    message(header, b"")
}

/// A handler's error. It needs no credit.
pub fn error(mux_id: u64) -> Message {
    let header = Header { flags: Flags::ERROR, ..Header::new(mux_id, Op::DisconnectClientMux) };
    message(header, b"it failed")
}

/// A credit for one message of the caller's.
pub fn credit(mux_id: u64, sequence: u32) -> Message {
    message(Header { sequence, ..Header::new(mux_id, Op::UnblockClMux) }, b"")
}

/// A caller's cancellation.
pub fn cancel(mux_id: u64) -> Message {
    message(Header::new(mux_id, Op::DisconnectServerMux), b"")
}

/// Reacts to each request with a response, and to nothing else.
pub fn responding(written: &Message) -> Vec<Message> {
    match written.header.op {
        Op::Request => vec![response(written.header.mux_id, Bytes::from_static(b"response"))],
        _ => Vec::new(),
    }
}

/// Reacts to nothing.
pub fn silent(_: &Message) -> Vec<Message> {
    Vec::new()
}
