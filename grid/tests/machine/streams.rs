//! The vocabulary of streams: opened and accepted with one word, and messages as one line of text
//! each, so that a test shows a conversation as a reader of PROTOCOL.md would write it down.

use std::time::Duration;

use bytes::Bytes;
use grid::proto::connection::{
    Capacities, Event, Open, Received, Sent, Side, Slot, StartError, StreamEnd, StreamId,
};
use grid::proto::message::{Flags, Header, Message, Op};

use super::{SLOT, Subject};

/// Whose the streams are that a test serves.
pub const SERVED: Slot = Slot(4);

/// A stream with room for `input` messages to the handler and `output` from it.
pub fn stream(input: u32, output: u32) -> Open {
    Open {
        handler: 7,
        subroute: None,
        payload: Some(Bytes::from_static(b"open")),
        deadline: None,
        capacities: Capacities { input, output },
    }
}

pub fn calling(mux_id: u64) -> StreamId {
    StreamId { side: Side::Calling, mux_id }
}

pub fn serving(mux_id: u64) -> StreamId {
    StreamId { side: Side::Serving, mux_id }
}

/// The end of a stream that this side opened, everything received.
pub fn over(end: StreamEnd) -> Event {
    over_with(&[], end)
}

/// Likewise with what was not received yet.
pub fn over_with(rest: &[&'static [u8]], end: StreamEnd) -> Event {
    ended_stream(SLOT, rest, end)
}

/// The end of a stream that this side serves.
pub fn served_over(rest: &[&'static [u8]], end: StreamEnd) -> Event {
    ended_stream(SERVED, rest, end)
}

fn ended_stream(slot: Slot, rest: &[&'static [u8]], end: StreamEnd) -> Event {
    Event::StreamEnded {
        slot,
        rest: rest.iter().map(|part| Bytes::from_static(part)).collect(),
        end,
    }
}

impl Subject {
    pub fn try_open(&mut self, open: Open) -> Result<StreamId, StartError> {
        self.connection.open(SLOT, open, self.now)
    }

    /// Opens a stream, which is not acknowledged yet.
    pub fn open(&mut self, input: u32, output: u32) -> StreamId {
        self.try_open(stream(input, output)).expect("the stream opens")
    }

    /// Opens a stream that ends by itself.
    pub fn open_until(&mut self, deadline: Duration) -> StreamId {
        let deadline = Some(self.now + deadline);
        self.try_open(Open { deadline, ..stream(1, 1) }).expect("the stream opens")
    }

    /// A stream of this side that the peer has taken, with nothing left to be sent or told.
    pub fn opened(&mut self, input: u32, output: u32) -> StreamId {
        let id = self.open(input, output);
        self.sent();
        self.hear(Op::AckMux, id, 0, b"");
        assert_eq!(self.events(), [Event::Opened(id)]);
        id
    }

    /// The peer opens a stream.
    pub fn receive_open(&mut self, mux_id: u64, deadline_ms: u32, flags: Flags) {
        let header =
            Header { handler: 7, deadline_ms, flags, ..Header::new(mux_id, Op::ConnectMux) };
        self.receive(header, Bytes::from_static(b"open"));
    }

    pub fn accept(&mut self, mux_id: u64, input: u32, output: u32) -> bool {
        self.connection.accept(mux_id, SERVED, Capacities { input, output }, self.now)
    }

    /// A stream of the peer that this side has taken, with nothing left to be sent or told.
    pub fn accepted(&mut self, mux_id: u64, input: u32, output: u32) -> StreamId {
        self.receive_open(mux_id, 0, Flags::NONE);
        assert!(self.accept(mux_id, input, output), "nobody gave it up");
        self.sent();
        self.events();
        serving(mux_id)
    }

    /// A message of a stream comes in.
    pub fn hear(&mut self, op: Op, id: StreamId, sequence: u32, payload: &'static [u8]) {
        self.hear_flagged(op, id, sequence, Flags::NONE, payload);
    }

    pub fn hear_flagged(
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

    /// Hands a message over, and checks that it was taken exactly where the machine says so.
    pub fn say(&mut self, id: StreamId, payload: &'static [u8]) -> Sent {
        let mut handed = Some(Bytes::from_static(payload));
        let sent = self.connection.send(id, &mut handed);
        let is_taken = handed.is_none();
        match sent {
            Sent::Queued => assert!(is_taken, "queued, but not taken"),
            Sent::Waiting => assert!(is_taken, "another message waits already"),
            _ => assert!(!is_taken, "{sent:?}, but taken"),
        }
        sent
    }

    pub fn take(&mut self, id: StreamId) -> Received {
        self.connection.receive(id)
    }

    /// Takes the next message, which must be there.
    pub fn take_message(&mut self, id: StreamId) -> Bytes {
        match self.take(id) {
            Received::Message(payload) => payload,
            other => panic!("no message: {other:?}"),
        }
    }

    /// All messages that wait, a line each.
    pub fn lines(&mut self) -> Vec<String> {
        self.sent().iter().map(line).collect()
    }
}

pub fn message(payload: &'static [u8]) -> Received {
    Received::Message(Bytes::from_static(payload))
}

/// A message in one line: op, id, and what else it says. A checksum is not worth a word.
pub fn line(message: &Message) -> String {
    let Header { mux_id, sequence, deadline_ms, handler, op, flags } = message.header;
    let mut line = format!("{op:?} {mux_id}");
    // The sequence of the others is not looked at (P16).
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

/// Maps of the protocol's own messages as maps, everything else as text.
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
    assert!(rest.is_empty(), "nothing stands behind the map");
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
