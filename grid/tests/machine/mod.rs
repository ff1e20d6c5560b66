//! Helpers for tests of one connection machine: `Subject`, driven directly, and the messages of
//! its peer. The helpers for streams are in `streams`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod streams;

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{
    CallOutcome, Connection, Event, HandlerResult, Request, Respond, Slot, StartError,
};
use grid::proto::message::{Checksum, Flags, Header, Message, Op, parse_frame};
use grid::time::{Instant, Timestamp};

pub const START: Instant = Instant::from_nanos(1_000_000_000);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const WALL: Timestamp = Timestamp::new(1_700_000_000, 0);
pub const SLOT: Slot = Slot(3);

/// The connection machine under test, used as its peer and its driver use it.
pub struct Subject {
    pub connection: Connection,
    pub now: Instant,
}

impl Subject {
    pub fn new() -> Self {
        Self::with_limits(&Limits::default())
    }

    pub fn with_limits(limits: &Limits) -> Self {
        Self { connection: Connection::new(limits, Checksum::On, START), now: START }
    }

    /// Makes a machine whose queue holds two messages of 100 bytes and no third.
    pub fn with_short_queue() -> Self {
        let mut limits = Limits::default();
        limits.message_bytes_max = 150;
        limits.queue_bytes_max = 300;
        Self::with_limits(&limits)
    }

    pub fn try_call(&mut self, payload: &[u8], deadline: Duration) -> Result<u64, StartError> {
        let request = Request {
            handler: 7,
            subroute: None,
            payload: Bytes::copy_from_slice(payload),
            deadline: self.now + deadline,
        };
        self.connection.call(SLOT, &request, self.now)
    }

    pub fn call(&mut self, payload: &[u8]) -> u64 {
        self.try_call(payload, MINUTE).expect("the call starts")
    }

    /// Fills a short queue with unrelated calls; the next message must wait in the queue.
    pub fn fill_queue(&mut self) {
        while self.connection.blocked_messages() == 0 {
            self.call(&[b'x'; 100]);
        }
    }

    pub fn receive(&mut self, header: Header, payload: impl Into<Bytes>) {
        let message = Message { header, payload: payload.into(), subroute: None };
        self.connection.handle_message(message, self.now);
    }

    pub fn receive_op(&mut self, mux_id: u64, op: Op) {
        self.receive(Header::new(mux_id, op), Bytes::new());
    }

    pub fn receive_request(&mut self, mux_id: u64, deadline_ms: u32) {
        self.receive(request_header(mux_id, deadline_ms), Bytes::from_static(b"question"));
    }

    pub fn respond(&mut self, mux_id: u64, response: &HandlerResult) -> bool {
        self.connection.respond(mux_id, response, self.now) == Respond::Accepted
    }

    /// Advances the clock without running the machine's timers.
    pub fn advance_clock(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Advances the clock and runs the timers that are due.
    pub fn advance(&mut self, duration: Duration) {
        self.advance_clock(duration);
        self.connection.handle_timeout(self.now, WALL);
    }

    /// Returns the messages of the next frame.
    pub fn next_frame(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some(transmit) = self.connection.poll_transmit(self.now) {
            parse_frame(&transmit.into_bytes(), &mut messages)
                .expect("a frame of a machine parses");
        }
        messages
    }

    /// Returns all queued messages in the order in which they leave.
    pub fn sent(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| Some(self.next_frame()).filter(|frame| !frame.is_empty()))
            .flatten()
            .collect()
    }

    /// Returns the ops and mux ids of all queued messages.
    pub fn sent_ops(&mut self) -> Vec<(Op, u64)> {
        self.sent().iter().map(|message| (message.header.op, message.header.mux_id)).collect()
    }

    /// Returns the only queued message.
    pub fn sent_one(&mut self) -> Message {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.into_iter().next().expect("there is one")
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.connection.poll_event()).collect()
    }
}

pub fn request_header(mux_id: u64, deadline_ms: u32) -> Header {
    Header { handler: 7, deadline_ms, flags: Flags::EOF, ..Header::new(mux_id, Op::Request) }
}

pub fn response_header(mux_id: u64) -> Header {
    Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) }
}

pub fn ended(outcome: CallOutcome) -> Event {
    Event::CallEnded { slot: SLOT, outcome }
}

pub fn responded(payload: &'static [u8]) -> Event {
    ended(Ok(Bytes::from_static(payload)))
}

pub fn ok(payload: &'static [u8]) -> HandlerResult {
    Ok(Bytes::from_static(payload))
}

/// Encodes the payload of a refusal with this text.
pub fn refusal(text: &str) -> Vec<u8> {
    let mut payload = vec![0x81, 0xa5];
    payload.extend_from_slice(b"Error");
    payload.extend_from_slice(&[0xd9, u8::try_from(text.len()).expect("a short text")]);
    payload.extend_from_slice(text.as_bytes());
    payload
}

pub fn refusal_text(message: &Message) -> String {
    assert_eq!(message.header.op, Op::MuxConnectError);
    let map: std::collections::BTreeMap<String, String> =
        rmp_serde::from_slice(&message.payload).expect("a map of texts");
    map["Error"].clone()
}
