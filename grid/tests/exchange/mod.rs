//! Two machines that talk to each other on a virtual clock, and the page on which everything that
//! they say and tell is written down, in the notation of PROTOCOL.md's section "Exchanges".

#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{
    Answer, Asked, Capacities, CloseReason, Connection, Event, Open, Received, Request, Sent, Side,
    Slot, StreamId,
};
use grid::proto::message::{Checksum, Message, parse_frame};
use grid::time::{Instant, Timestamp};

use crate::machine::streams::line;

/// Between the two vertical lines.
const WIDTH: usize = 92;

/// The left end, which makes the calls, or the right one, which serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    A,
    B,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What was said and told so far, a line each.
#[derive(Debug)]
pub struct Page(Vec<String>);

impl Page {
    pub fn new() -> Self {
        Self(vec![format!("a{:WIDTH$}b", "")])
    }

    /// A message, from one end to the other; a long one takes several lines.
    pub fn message(&mut self, from: End, message: &Message) {
        let text = line(message);
        let parts = wrap(&text);
        for (at, part) in parts.iter().enumerate() {
            let (is_first, is_last) = (at == 0, at + 1 == parts.len());
            let width = WIDTH - part.chars().count() - 3;
            self.0.push(match from {
                End::A if is_last => format!("│ {part} {}►│", "─".repeat(width)),
                End::A => format!("│ {part} {}│", " ".repeat(width + 1)),
                End::B if parts.len() == 1 => format!("│◄{} {part} │", "─".repeat(width)),
                End::B if is_first => format!("│◄ {part}{} │", " ".repeat(width)),
                End::B => format!("│  {part}{} │", " ".repeat(width)),
            });
        }
    }

    /// A message that left and does not arrive.
    pub fn lost(&mut self, from: End, message: &Message) {
        let text = line(message);
        let dashes = "╌".repeat((WIDTH - text.chars().count()) / 2);
        let text = match from {
            End::A => format!(" {text} {dashes}✗"),
            End::B => format!("✗{dashes} {text} "),
        };
        self.0.push(match from {
            End::A => format!("│{text:<WIDTH$}│"),
            End::B => format!("│{text:>WIDTH$}│"),
        });
    }

    /// What an end does or is told, on its side of the page.
    pub fn note(&mut self, at: End, text: &str) {
        let width = WIDTH - 3;
        self.0.push(match at {
            End::A => format!("│ · {text:<width$}│"),
            End::B => format!("│{text:>width$} · │"),
        });
    }

    /// What happens to both, time for one.
    pub fn meanwhile(&mut self, text: &str) {
        self.0.push(format!("├{text:┄^WIDTH$}┤", text = format!(" {text} ")));
    }

    pub fn text(&self) -> String {
        self.0.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
    }
}

/// Cuts a text between words into parts that fit a line.
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

/// Two ends of one connection, whose handshake is done.
pub struct Exchange {
    a: Connection,
    b: Connection,
    now: Instant,
    wall: Timestamp,
    pub page: Page,
}

impl Exchange {
    pub fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let machine = || Connection::new(&Limits::default(), Checksum::On, now);
        let wall = Timestamp::new(1_700_000_000, 0);
        Self { a: machine(), b: machine(), now, wall, page: Page::new() }
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn machine(&mut self, at: End) -> &mut Connection {
        match at {
            End::A => &mut self.a,
            End::B => &mut self.b,
        }
    }

    // ---- what travels ----

    /// Everything that waits arrives, and so do the answers to it, until both ends are silent.
    pub fn carry(&mut self) {
        self.tell();
        while self.a.wants_transmit() || self.b.wants_transmit() {
            self.carry_from(End::A);
            self.carry_from(End::B);
        }
    }

    /// What waits at one end arrives at the other.
    pub fn carry_from(&mut self, from: End) {
        for message in self.leave(from) {
            self.page.message(from, &message);
            let now = self.now;
            self.machine(from.other()).handle_message(message, now);
            self.tell();
        }
        self.tell();
    }

    /// What waits at one end leaves it, and is somewhere on the way.
    pub fn leave(&mut self, from: End) -> Vec<Message> {
        let now = self.now;
        let mut messages = Vec::new();
        while let Some(transmit) = self.machine(from).poll_transmit(now) {
            parse_frame(&transmit.into_bytes(), &mut messages).expect("a machine's frame parses");
        }
        messages
    }

    /// The connection is cut: what is on the way is lost, and both ends notice.
    pub fn cut(&mut self) {
        for from in [End::A, End::B] {
            for message in self.leave(from) {
                self.page.lost(from, &message);
            }
        }
        self.page.meanwhile("the connection is cut");
        for at in [End::A, End::B] {
            self.machine(at).close(CloseReason::Transport("connection reset".into()));
        }
        self.tell();
    }

    /// Time passes, second by second, and what is due happens.
    pub fn pass(&mut self, seconds: u64) {
        let plural = if seconds == 1 { " passes" } else { " pass" };
        self.page.meanwhile(&format!("{seconds} s{plural}"));
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            self.wall = Timestamp::new(self.wall.seconds() + 1, 0);
            let (now, wall) = (self.now, self.wall);
            self.a.handle_timeout(now, wall);
            self.b.handle_timeout(now, wall);
            self.carry();
        }
    }

    fn tell(&mut self) {
        for at in [End::A, End::B] {
            while let Some(event) = self.machine(at).poll_event() {
                self.page.note(at, &told(&event));
            }
        }
    }

    // ---- what a makes ----

    /// A request to handler 7, with 60 s.
    pub fn call(&mut self, payload: &'static [u8]) -> u64 {
        let deadline = self.now + Duration::from_secs(60);
        let payload = Bytes::from_static(payload);
        let request = Request { handler: 7, subroute: None, payload, deadline };
        let now = self.now;
        self.a.call(Slot(0), &request, now).expect("the call starts")
    }

    /// A stream to handler 7, with no deadline. Returns a's end of it and b's.
    pub fn open(&mut self, capacities: Capacities) -> (StreamId, StreamId) {
        let payload = Some(Bytes::from_static(b"open"));
        let open = Open { handler: 7, subroute: None, payload, deadline: None, capacities };
        let now = self.now;
        let id = self.a.open(Slot(0), open, now).expect("the stream opens");
        (id, StreamId { side: Side::Serving, ..id })
    }

    /// Likewise, and b takes it.
    pub fn open_and_accept(&mut self, input: u32, output: u32) -> (StreamId, StreamId) {
        let capacities = Capacities { input, output };
        let (caller, handler) = self.open(capacities);
        self.carry();
        let now = self.now;
        assert!(self.b.accept(caller.mux_id, Slot(0), capacities, now));
        self.page.note(End::B, &format!("takes the stream: {input} in, {output} out"));
        self.carry();
        (caller, handler)
    }

    pub fn give_up(&mut self, mux_id: u64) {
        self.page.note(End::A, "gives up");
        self.a.give_up(mux_id);
    }

    pub fn finish(&mut self, id: StreamId) {
        let sent = self.a.finish(id);
        self.page.note(End::A, &format!("is done sending{}", waits(sent)));
    }

    // ---- what either does with a stream ----

    pub fn send(&mut self, id: StreamId, payload: &'static str) {
        let mut handed = Some(Bytes::from_static(payload.as_bytes()));
        let at = end_of(id);
        let sent = self.machine(at).send(id, &mut handed);
        let how = match sent {
            Sent::Queued | Sent::Waiting => waits(sent).to_owned(),
            other => format!(": {other:?}"),
        };
        self.page.note(at, &format!("sends {payload:?}{how}"));
    }

    pub fn receive(&mut self, id: StreamId) {
        let at = end_of(id);
        let text = match self.machine(at).receive(id) {
            Received::Message(payload) => format!("receives {}", quoted(&payload)),
            Received::Nothing => "has nothing to receive".into(),
            Received::InputOver => "is told that this was all".into(),
            Received::StreamOver => "is told that the stream is over".into(),
        };
        self.page.note(at, &text);
    }

    // ---- what b's handlers do ----

    pub fn answer(&mut self, mux_id: u64, answer: &Answer) {
        let text = match answer {
            Ok(_) => "the handler returns".to_owned(),
            Err(error) => format!("the handler fails: {:?}", error.message()),
        };
        let now = self.now;
        let is_wanted = self.b.answer(mux_id, answer, now);
        let but = match is_wanted {
            false => ", and nobody wants its answer",
            true if self.b.is_serving(mux_id) => "; its end waits for credit",
            true => "",
        };
        self.page.note(End::B, &format!("{text}{but}"));
    }

    pub fn refuse(&mut self, mux_id: u64, reason: &str) {
        self.page.note(End::B, "has no such handler");
        self.b.refuse(mux_id, reason);
    }
}

fn end_of(id: StreamId) -> End {
    match id.side {
        Side::Calling => End::A,
        Side::Serving => End::B,
    }
}

fn waits(sent: Sent) -> &'static str {
    match sent {
        Sent::Waiting => ", which waits for credit",
        _ => "",
    }
}

fn quoted(payload: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(payload))
}

/// An event, in words.
fn told(event: &Event) -> String {
    match event {
        Event::Ended { outcome, .. } => format!("the call is over: {outcome:?}"),
        Event::Serve(incoming) => {
            let handler = incoming.handler;
            let payload = quoted(&incoming.payload);
            match incoming.asked {
                Asked::Request => format!("handler {handler} is asked {payload}"),
                Asked::Stream { .. } => {
                    format!("handler {handler} is asked for a stream, {payload}")
                }
            }
        }
        Event::Opened(_) => "the stream is open".into(),
        Event::Readable(_) => "has something to receive".into(),
        Event::Writable(_) => "what waited was sent".into(),
        Event::StreamEnded { rest, end, .. } if rest.is_empty() => {
            format!("the stream is over: {end:?}")
        }
        Event::StreamEnded { rest, end, .. } => {
            let rest: Vec<_> = rest.iter().map(|payload| quoted(payload)).collect();
            format!("the stream is over: {end:?}, behind {} in hand", rest.join(", "))
        }
        Event::Cancel { .. } => "the handler is cancelled".into(),
        Event::AnswerOver { .. } => "the handler is done".into(),
        Event::Skipped { op, mux_id } => format!("skips {op:?} {mux_id}"),
        Event::Closed(reason) => format!("the connection is over: {reason}"),
    }
}
