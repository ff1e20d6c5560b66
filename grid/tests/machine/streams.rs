//! Helpers for streams on one machine: shorthands that open and accept, and messages printed as
//! one line of text each, in the notation of PROTOCOL.md.

use std::time::Duration;

use bytes::Bytes;
use grid::proto::connection::{
    Capacities, End, Event, OpenRequest, Received, SendStatus, Slot, StartError, StreamId,
    StreamSide,
};
use grid::proto::message::{Flags, Header, Message, Op};

use super::{SLOT, Subject};

/// The slot of the inbound streams of a test.
pub const INBOUND_SLOT: Slot = Slot(4);

/// A stream with credit for `input` messages to the handler and `output` messages from it.
pub fn stream(input: u32, output: u32) -> OpenRequest {
    OpenRequest {
        handler: 7,
        subroute: None,
        payload: Some(Bytes::from_static(b"open")),
        deadline: None,
        capacities: Capacities { input, output },
    }
}

pub fn outbound(mux_id: u64) -> StreamId {
    StreamId { side: StreamSide::Caller, mux_id }
}

pub fn inbound(mux_id: u64) -> StreamId {
    StreamId { side: StreamSide::Callee, mux_id }
}

/// The end of an outbound stream with nothing left to be received.
pub fn stream_ended(end: End) -> Event {
    stream_ended_with(&[], end)
}

/// The end of an outbound stream with the messages that were not received yet.
pub fn stream_ended_with(rest: &[&'static [u8]], end: End) -> Event {
    stream_ended_event(SLOT, rest, end)
}

/// The end of an inbound stream with the messages that were not received yet.
pub fn inbound_stream_ended(rest: &[&'static [u8]], end: End) -> Event {
    stream_ended_event(INBOUND_SLOT, rest, end)
}

fn stream_ended_event(slot: Slot, rest: &[&'static [u8]], end: End) -> Event {
    Event::StreamEnded {
        slot,
        rest: rest.iter().map(|part| Bytes::from_static(part)).collect(),
        end,
    }
}

impl Subject {
    pub fn try_open(&mut self, open: OpenRequest) -> Result<StreamId, StartError> {
        self.connection.open(SLOT, open, self.now)
    }

    /// Opens a stream without an acknowledgement.
    pub fn open(&mut self, input: u32, output: u32) -> StreamId {
        self.try_open(stream(input, output)).expect("the stream opens")
    }

    /// Opens a stream with a deadline.
    pub fn open_until(&mut self, deadline: Duration) -> StreamId {
        let deadline = Some(self.now + deadline);
        self.try_open(OpenRequest { deadline, ..stream(1, 1) }).expect("the stream opens")
    }

    /// Opens a stream that the peer acknowledges, and drains messages and events.
    pub fn opened(&mut self, input: u32, output: u32) -> StreamId {
        let id = self.open(input, output);
        self.sent();
        self.deliver(Op::AckMux, id, 0, b"");
        assert_eq!(self.events(), [Event::Opened(id)]);
        id
    }

    /// Delivers the peer's opening of a stream.
    pub fn receive_open(&mut self, mux_id: u64, deadline_ms: u32, flags: Flags) {
        let header =
            Header { handler: 7, deadline_ms, flags, ..Header::new(mux_id, Op::ConnectMux) };
        self.receive(header, Bytes::from_static(b"open"));
    }

    pub fn accept(&mut self, mux_id: u64, input: u32, output: u32) -> bool {
        self.connection.accept(mux_id, INBOUND_SLOT, Capacities { input, output }, self.now)
    }

    /// Accepts a stream of the peer, and drains messages and events.
    pub fn accepted(&mut self, mux_id: u64, input: u32, output: u32) -> StreamId {
        self.receive_open(mux_id, 0, Flags::NONE);
        assert!(self.accept(mux_id, input, output), "the stream is live");
        self.sent();
        self.events();
        inbound(mux_id)
    }

    /// Delivers a message of a stream.
    pub fn deliver(&mut self, op: Op, id: StreamId, sequence: u32, payload: &'static [u8]) {
        self.deliver_flagged(op, id, sequence, Flags::NONE, payload);
    }

    pub fn deliver_flagged(
        &mut self,
        op: Op,
        id: StreamId,
        sequence: u32,
        flags: Flags,
        payload: &'static [u8],
    ) {
        let header = Header { sequence, flags, ..Header::new(id.mux_id, op) };
        self.receive(header, Bytes::from_static(payload));
    }

    /// Sends a message, and asserts that the machine took the payload exactly if its status says so.
    pub fn send(&mut self, id: StreamId, payload: &'static [u8]) -> SendStatus {
        let mut offered = Some(Bytes::from_static(payload));
        let sent = self.connection.send(id, &mut offered);
        let is_taken = offered.is_none();
        match sent {
            SendStatus::Queued => assert!(is_taken, "queued, but not taken"),
            SendStatus::Waiting => assert!(is_taken, "another message waits already"),
            _ => assert!(!is_taken, "{sent:?}, but taken"),
        }
        sent
    }

    pub fn read(&mut self, id: StreamId) -> Received {
        self.connection.receive(id)
    }

    /// Reads the next message, which must have arrived.
    pub fn read_message(&mut self, id: StreamId) -> Bytes {
        match self.read(id) {
            Received::Message(payload) => payload,
            other => panic!("no message: {other:?}"),
        }
    }

    /// Returns all queued messages, a line each.
    pub fn lines(&mut self) -> Vec<String> {
        self.sent().iter().map(line).collect()
    }
}

pub fn message(payload: &'static [u8]) -> Received {
    Received::Message(Bytes::from_static(payload))
}

/// Describes a message in one line: op, mux id, and the fields that are set, without its checksum.
pub fn line(message: &Message) -> String {
    let Header { mux_id, sequence, deadline_ms, handler, op, flags } = message.header;
    let mut line = format!("{op:?} {mux_id}");
    // The sequence of the other ops is ignored (P16).
    if mux_id != 0
        && !matches!(op, Op::DisconnectServerMux | Op::DisconnectClientMux | Op::MuxConnectError)
    {
        line += &format!(" seq={sequence}");
    }
    if handler != 0 {
        line += &format!(" handler={handler}");
    }
    if deadline_ms != 0 {
        line += &format!(" deadline={deadline_ms}ms");
    }
    let flags = flag_names(flags);
    if !flags.is_empty() {
        line += &format!(" {}", flags.join("|"));
    }
    if let Some(payload) = message.present_payload() {
        line += &format!(" {}", payload_text(op, payload));
    }
    line
}

fn flag_names(flags: Flags) -> Vec<&'static str> {
    let named = [
        (Flags::EOF, "EOF"),
        (Flags::STATELESS, "STATELESS"),
        (Flags::ERROR, "ERROR"),
        (Flags::ZERO, "ZERO"),
        (Flags::SUBROUTE, "SUBROUTE"),
    ];
    named.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| name).collect()
}

/// Describes payloads of the protocol's own messages as maps, everything else as text.
fn payload_text(op: Op, payload: &[u8]) -> String {
    let is_map =
        matches!(op, Op::Ping | Op::Pong | Op::MuxConnectError | Op::Connect | Op::ConnectResponse);
    if !is_map {
        return format!("{:?}", String::from_utf8_lossy(payload));
    }
    let mut rest = payload;
    let entries = rmp::decode::read_map_len(&mut rest).expect("a map");
    let entries: Vec<_> = (0..entries)
        .map(|_| {
            let key = text(&mut rest);
            format!("{key}: {}", value(&mut rest))
        })
        .collect();
    assert!(rest.is_empty(), "nothing follows the map");
    format!("{{{}}}", entries.join(", "))
}

fn text(rest: &mut &[u8]) -> String {
    let length = rmp::decode::read_str_len(rest).expect("a text") as usize;
    let (text, behind) = rest.split_at(length);
    *rest = behind;
    String::from_utf8_lossy(text).into_owned()
}

fn value(rest: &mut &[u8]) -> String {
    match rest[0] {
        0xc0 => skip(rest, 1, "nil"),
        0xc2 => skip(rest, 1, "false"),
        0xc3 => skip(rest, 1, "true"),
        0xc7 => {
            // P22: the length, the type, seconds, nanoseconds.
            let seconds = i64::from_be_bytes(rest[3..11].try_into().expect("eight bytes"));
            skip(rest, 15, &if seconds == 0 { "zero".into() } else { format!("{seconds} s") })
        }
        0xc4 => {
            let id: String = rest[2..6].iter().map(|byte| format!("{byte:02x}")).collect();
            let length = 2 + usize::from(rest[1]);
            skip(rest, length, &format!("{id}..."))
        }
        _ => format!("{:?}", text(rest)),
    }
}

fn skip(rest: &mut &[u8], bytes: usize, shown: &str) -> String {
    *rest = &rest[bytes..];
    shown.to_owned()
}
