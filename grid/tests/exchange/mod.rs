//! Two connection machines that talk to each other on a virtual clock. Their messages and events
//! are drawn as a sequence diagram in the notation of PROTOCOL.md's section "Exchanges".

#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{
    CallKind, Capacities, CloseReason, Connection, Event, HandlerResult, OpenRequest, Received,
    Request, Respond, SendStatus, Slot, StreamId, StreamSide,
};
use grid::proto::message::{Checksum, Message, parse_frame};
use grid::time::{Instant, Timestamp};

use crate::machine::streams::line;

/// Columns between the two vertical lines.
const WIDTH: usize = 92;

/// One end of the connection: A, at the left, is the caller of every call, and B the callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    A,
    B,
}

impl Endpoint {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The sequence diagram so far, one entry a line.
#[derive(Debug)]
pub struct Diagram(Vec<String>);

impl Diagram {
    pub fn new() -> Self {
        Self(vec![format!("a{:WIDTH$}b", "")])
    }

    /// Adds a message from one end to the other; a long one takes several lines.
    pub fn message(&mut self, from: Endpoint, message: &Message) {
        let text = line(message);
        let parts = wrap(&text);
        for (at, part) in parts.iter().enumerate() {
            let (is_first, is_last) = (at == 0, at + 1 == parts.len());
            let width = WIDTH - part.chars().count() - 3;
            self.0.push(match from {
                Endpoint::A if is_last => format!("│ {part} {}►│", "─".repeat(width)),
                Endpoint::A => format!("│ {part} {}│", " ".repeat(width + 1)),
                Endpoint::B if parts.len() == 1 => format!("│◄{} {part} │", "─".repeat(width)),
                Endpoint::B if is_first => format!("│◄ {part}{} │", " ".repeat(width)),
                Endpoint::B => format!("│  {part}{} │", " ".repeat(width)),
            });
        }
    }

    /// Adds a message that left and does not arrive.
    pub fn lost(&mut self, from: Endpoint, message: &Message) {
        let text = line(message);
        let dashes = "╌".repeat((WIDTH - text.chars().count()) / 2);
        let text = match from {
            Endpoint::A => format!(" {text} {dashes}✗"),
            Endpoint::B => format!("✗{dashes} {text} "),
        };
        self.0.push(match from {
            Endpoint::A => format!("│{text:<WIDTH$}│"),
            Endpoint::B => format!("│{text:>WIDTH$}│"),
        });
    }

    /// Adds an action or event of one end, on its side of the diagram.
    pub fn note(&mut self, at: Endpoint, text: &str) {
        let width = WIDTH - 3;
        self.0.push(match at {
            Endpoint::A => format!("│ · {text:<width$}│"),
            Endpoint::B => format!("│{text:>width$} · │"),
        });
    }

    /// Adds a line across for what concerns both ends, such as time that passes.
    pub fn divider(&mut self, text: &str) {
        self.0.push(format!("├{text:┄^WIDTH$}┤", text = format!(" {text} ")));
    }

    pub fn text(&self) -> String {
        self.0.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
    }
}

/// Splits a text between words into parts that fit a line.
fn wrap(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for word in text.split(' ') {
        let last = parts.last_mut().expect("there is always one");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= WIDTH - 4 {
            *last += &format!(" {word}");
        } else {
            parts.push(word.to_owned());
        }
    }
    parts
}

/// Two ends of one connection after the handshake.
pub struct Exchange {
    a: Connection,
    b: Connection,
    now: Instant,
    wall: Timestamp,
    pub diagram: Diagram,
}

impl Exchange {
    pub fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let machine = || Connection::new(&Limits::default(), Checksum::On, now);
        let wall = Timestamp::new(1_700_000_000, 0);
        Self { a: machine(), b: machine(), now, wall, diagram: Diagram::new() }
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn machine(&mut self, at: Endpoint) -> &mut Connection {
        match at {
            Endpoint::A => &mut self.a,
            Endpoint::B => &mut self.b,
        }
    }

    // ---- transport ----

    /// Delivers all queued messages and the replies to them, until both queues are empty.
    pub fn deliver_all(&mut self) {
        self.record_events();
        while self.a.wants_transmit() || self.b.wants_transmit() {
            self.deliver_from(Endpoint::A);
            self.deliver_from(Endpoint::B);
        }
    }

    /// Delivers the messages queued at one end to the other.
    pub fn deliver_from(&mut self, from: Endpoint) {
        for message in self.transmit(from) {
            self.diagram.message(from, &message);
            let now = self.now;
            self.machine(from.other()).handle_message(message, now);
            self.record_events();
        }
        self.record_events();
    }

    /// Takes the queued messages of one end off its queue without delivering them.
    pub fn transmit(&mut self, from: Endpoint) -> Vec<Message> {
        let now = self.now;
        let mut messages = Vec::new();
        while let Some(transmit) = self.machine(from).poll_transmit(now) {
            parse_frame(&transmit.into_bytes(), &mut messages).expect("a machine's frame parses");
        }
        messages
    }

    /// Cuts the connection: messages on the way are lost, and both ends notice.
    pub fn cut(&mut self) {
        for from in [Endpoint::A, Endpoint::B] {
            for message in self.transmit(from) {
                self.diagram.lost(from, &message);
            }
        }
        self.diagram.divider("the connection is cut");
        for at in [Endpoint::A, Endpoint::B] {
            self.machine(at).close(CloseReason::Transport("connection reset".into()));
        }
        self.record_events();
    }

    /// Advances the clock second by second and runs the timers that are due.
    pub fn advance_clock(&mut self, seconds: u64) {
        let plural = if seconds == 1 { " passes" } else { " pass" };
        self.diagram.divider(&format!("{seconds} s{plural}"));
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            self.wall = Timestamp::new(self.wall.seconds() + 1, 0);
            let (now, wall) = (self.now, self.wall);
            self.a.handle_timeout(now, wall);
            self.b.handle_timeout(now, wall);
            self.deliver_all();
        }
    }

    fn record_events(&mut self) {
        for at in [Endpoint::A, Endpoint::B] {
            while let Some(event) = self.machine(at).poll_event() {
                self.diagram.note(at, &event_text(&event));
            }
        }
    }

    // ---- calls of a ----

    /// Sends a request to handler 7, with 60 s.
    pub fn call(&mut self, payload: &'static [u8]) -> u64 {
        let deadline = self.now + Duration::from_secs(60);
        let payload = Bytes::from_static(payload);
        let request = Request { handler: 7, subroute: None, payload, deadline };
        let now = self.now;
        self.a.call(Slot(0), &request, now).expect("the call starts")
    }

    /// Opens a stream to handler 7, with no deadline. Returns a's end of it and b's.
    pub fn open(&mut self, capacities: Capacities) -> (StreamId, StreamId) {
        let payload = Some(Bytes::from_static(b"open"));
        let open = OpenRequest { handler: 7, subroute: None, payload, deadline: None, capacities };
        let now = self.now;
        let id = self.a.open(Slot(0), open, now).expect("the stream opens");
        (id, StreamId { side: StreamSide::Callee, ..id })
    }

    /// Opens a stream that b accepts.
    pub fn open_and_accept(&mut self, input: u32, output: u32) -> (StreamId, StreamId) {
        let capacities = Capacities { input, output };
        let (caller, handler) = self.open(capacities);
        self.deliver_all();
        let now = self.now;
        assert!(self.b.accept(caller.mux_id, Slot(0), capacities, now));
        self.diagram
            .note(Endpoint::B, &format!("accepts the stream: input {input}, output {output}"));
        self.deliver_all();
        (caller, handler)
    }

    pub fn cancel(&mut self, mux_id: u64) {
        self.diagram.note(Endpoint::A, "cancels");
        self.a.cancel(mux_id);
    }

    pub fn finish(&mut self, id: StreamId) {
        let sent = self.a.finish(id);
        self.diagram.note(Endpoint::A, &format!("finishes sending{}", credit_note(sent)));
    }

    // ---- streams, used from either end ----

    pub fn send(&mut self, id: StreamId, payload: &'static str) {
        let mut offered = Some(Bytes::from_static(payload.as_bytes()));
        let at = end_of(id);
        let sent = self.machine(at).send(id, &mut offered);
        let how = match sent {
            SendStatus::Queued | SendStatus::Waiting => credit_note(sent).to_owned(),
            other => format!(": {other:?}"),
        };
        self.diagram.note(at, &format!("sends {payload:?}{how}"));
    }

    pub fn receive(&mut self, id: StreamId) {
        let at = end_of(id);
        let text = match self.machine(at).receive(id) {
            Received::Message(payload) => format!("receives {}", quoted(&payload)),
            Received::Empty => "has nothing to receive".into(),
            Received::InputFinished => "receives the end of the input".into(),
            Received::StreamEnded => "receives the end of the stream".into(),
        };
        self.diagram.note(at, &text);
    }

    // ---- b's handlers ----

    pub fn respond(&mut self, mux_id: u64, response: &HandlerResult) {
        let text = match response {
            Ok(_) => "the handler returns".to_owned(),
            Err(error) => format!("the handler fails: {:?}", error.message()),
        };
        let now = self.now;
        let is_accepted = self.b.respond(mux_id, response, now) == Respond::Accepted;
        let but = match is_accepted {
            false => "; its response is discarded",
            true if self.b.is_inbound_live(mux_id) => "; its end waits for credit",
            true => "",
        };
        self.diagram.note(Endpoint::B, &format!("{text}{but}"));
    }

    pub fn refuse(&mut self, mux_id: u64, reason: &str) {
        self.diagram.note(Endpoint::B, "finds no handler");
        self.b.refuse(mux_id, reason);
    }
}

fn end_of(id: StreamId) -> Endpoint {
    match id.side {
        StreamSide::Caller => Endpoint::A,
        StreamSide::Callee => Endpoint::B,
    }
}

fn credit_note(sent: SendStatus) -> &'static str {
    match sent {
        SendStatus::Waiting => "; it waits for credit",
        _ => "",
    }
}

fn quoted(payload: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(payload))
}

/// Describes an event in words.
fn event_text(event: &Event) -> String {
    match event {
        Event::CallEnded { outcome: Ok(payload), .. } => {
            format!("the call ends: Response({payload:?})")
        }
        Event::CallEnded { outcome: Err(end), .. } => format!("the call ends: {end:?}"),
        Event::Incoming(incoming) => {
            let handler = incoming.handler;
            let payload = quoted(&incoming.payload);
            match incoming.kind {
                CallKind::Request => format!("handler {handler} receives a request: {payload}"),
                CallKind::Stream { .. } => {
                    format!("handler {handler} receives a stream: {payload}")
                }
            }
        }
        Event::Opened(_) => "the stream is open".into(),
        Event::Readable(_) => "the stream is readable".into(),
        Event::Writable(_) => "the waiting message was sent".into(),
        Event::StreamEnded { rest, end, .. } if rest.is_empty() => {
            format!("the stream ends: {end:?}")
        }
        Event::StreamEnded { rest, end, .. } => {
            let rest: Vec<_> = rest.iter().map(|payload| quoted(payload)).collect();
            format!("the stream ends: {end:?}, with {} still buffered", rest.join(", "))
        }
        Event::Cancel { .. } => "the handler is cancelled".into(),
        Event::ResponseRetired { .. } => "the handler is done".into(),
        Event::Skipped { op, mux_id } => format!("skips {op:?} {mux_id}"),
        Event::Closed(reason) => format!("the connection ends: {reason}"),
    }
}
