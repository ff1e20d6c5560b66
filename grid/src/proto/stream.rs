//! One stream, seen from either of its ends (P15 to P18).
//!
//! Both ends send messages against credit, give credit back and count sequences alike; what differs
//! is which op says it, and how an end is said. This module decides what may be sent next and whether
//! what came in was allowed. Room in the queue, ids and timers are `connection`'s business.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::call::Outcome;
use super::credit::{ReceiveCredit, SendCredit};
use super::message::{Checksum, Flags, Header, Op, Outgoing};
use super::subroute::SubrouteId;
use crate::error::HandlerError;
use crate::limits::CLOCK_RATES_DIFFER_BY;
use crate::time::Instant;

/// At which end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// That of whoever opened it.
    Calling,
    /// That of the handler.
    Serving,
}

/// One end of a stream. Each direction of calls has ids of its own (P9), so a number alone does not
/// tell (B16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// At which end.
    pub side: Side,
    /// The caller's id.
    pub mux_id: u64,
}

/// How many messages may be under way. Not negotiated: both ends know them from the handler's
/// declaration (P17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacities {
    /// From the caller to the handler; 0 if the stream has no request side (B26).
    pub input: u32,
    /// From the handler to the caller; at least 1.
    pub output: u32,
}

/// A stream to be opened.
#[derive(Debug, Clone)]
pub struct Open {
    /// The handler's id.
    pub handler: u8,
    /// Which of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// What the handler gets to begin with; absent and empty are two things (P5).
    pub payload: Option<Bytes>,
    /// When the stream ends by itself, if it does.
    pub deadline: Option<Instant>,
    /// How many messages may be under way.
    pub capacities: Capacities,
}

/// How a stream ended. Every stream ends in exactly one of these (B14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// The handler returned well, and everything that it sent was received.
    Finished,
    /// The handler failed, or the serving side gave up.
    RemoteError(Arc<str>),
    /// There is no such handler.
    UnknownHandler(Arc<str>),
    /// The serving side did not take the stream.
    Refused(Arc<str>),
    /// The caller gave the stream up.
    Cancelled,
    /// The deadline passed.
    DeadlineExceeded,
    /// The connection ended.
    Disconnected,
    /// The peer sent a message out of sequence (B22).
    IncorrectSequence {
        /// What the message should have had.
        expected: u32,
        /// What it had.
        received: u32,
    },
    /// The peer sent more than its credit allowed (B21).
    Overrun,
    /// The peer's end of the stream gave no sign of life (B07).
    Silent {
        /// Pings in a row that went unanswered, or did not come.
        missed: u32,
    },
    /// The peer does not know the stream any more.
    NotFound,
}

impl From<Outcome> for StreamEnd {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Response(_) => Self::Finished,
            Outcome::RemoteError(text) => Self::RemoteError(text),
            Outcome::UnknownHandler(text) => Self::UnknownHandler(text),
            Outcome::Refused(text) => Self::Refused(text),
            Outcome::DeadlineExceeded => Self::DeadlineExceeded,
            Outcome::Disconnected => Self::Disconnected,
        }
    }
}

/// What is there to be received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// The next message.
    Message(Bytes),
    /// Nothing yet.
    Nothing,
    /// The caller is done sending, and everything that it sent was received.
    InputOver,
    /// The stream is over: [`Event::StreamEnded`](super::connection::Event::StreamEnded) has the rest.
    StreamOver,
}

/// How far a message, or the end of them, came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Into the queue.
    Queued,
    /// It waits for credit, or for room in the queue.
    Waiting,
    /// It waits for nothing any more: this direction was finished, or the handler has returned.
    Finished,
    /// The stream has no request side (B26).
    NoInput,
    /// It is larger than a message may be. Nothing was done.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The stream is over.
    StreamOver,
}

/// What a peer sent and was not allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    Sequence { expected: u32, received: u32 },
    Overrun,
    NoInput,
}

impl Violation {
    /// What the caller is told.
    pub(super) fn text(self) -> String {
        match self {
            Self::Sequence { expected, received } => {
                format!("incorrect sequence: expected {expected}, received {received}")
            }
            Self::Overrun => "handler blocked: more messages than there was credit for".into(),
            Self::NoInput => "the handler takes no input".into(),
        }
    }

    pub(super) fn into_end(self) -> StreamEnd {
        match self {
            Self::Sequence { expected, received } => {
                StreamEnd::IncorrectSequence { expected, received }
            }
            Self::Overrun | Self::NoInput => StreamEnd::Overrun,
        }
    }
}

/// How a direction is brought to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Close {
    /// The caller sends nothing more.
    Input,
    /// The handler returned.
    Answer(Result<(), HandlerError>),
}

/// Where one direction stands.
///
/// ```text
///            finish | handler returns           credit and room
///   Open ───────────────────────────► Closing ──────────────────► Closed
/// ```
///
/// `Closing` exists because the end of a stream takes a credit too (P17), and because it must not
/// overtake the message in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Direction {
    Open,
    Closing(Close),
    Closed,
}

/// What is to be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A credit for a message that was taken.
    Credit,
    /// The message that waits.
    Message,
    /// The end of this direction.
    End,
    /// The handler's error, without a credit: it must reach a caller who has stopped reading (B24).
    Abort,
}

/// One end of an open stream.
#[derive(Debug)]
pub(super) struct Stream {
    side: Side,
    has_input: bool,
    sequence_out: u32,
    sequence_in: u32,
    send_credit: SendCredit,
    /// The message that waits for credit or room.
    waiting: Option<Bytes>,
    out: Direction,
    /// Its place in the line for room, while it stands there.
    pub(super) place: Option<u64>,
    receive_credit: ReceiveCredit,
    received: VecDeque<Bytes>,
    is_input_over: bool,
    /// Whether nobody wants what comes in: it is dropped and its credit given back, so that the
    /// sender is not stuck for it.
    is_discarding: bool,
    /// Calling: from when on the deadline may have passed by the other side's clock.
    due_there: Option<Instant>,
    /// Calling: pings sent since the last pong.
    pub(super) pings_unanswered: u32,
    /// Serving: when the last ping came.
    pub(super) last_ping: Instant,
}

impl Stream {
    /// The caller's end. Nothing may be sent before the acknowledgement (P15).
    pub(super) fn calling(capacities: Capacities, deadline: Option<Instant>, now: Instant) -> Self {
        let has_input = capacities.input > 0;
        let due_there =
            deadline.map(|deadline| deadline - deadline.since(now) / CLOCK_RATES_DIFFER_BY);
        Self {
            side: Side::Calling,
            has_input,
            sequence_out: 1, // the opening message had 0 (P16)
            sequence_in: 0,
            send_credit: SendCredit::none(capacities.input),
            waiting: None,
            out: if has_input { Direction::Open } else { Direction::Closed },
            place: None,
            receive_credit: ReceiveCredit::new(capacities.output),
            received: VecDeque::new(),
            is_input_over: false,
            is_discarding: false,
            due_there,
            pings_unanswered: 0,
            last_ping: now,
        }
    }

    /// Calling: whether the deadline may have passed by the other side's clock.
    pub(super) fn may_be_due_there(&self, now: Instant) -> bool {
        self.due_there.is_some_and(|due| due <= now)
    }

    /// The handler's end. `is_input_over` is whether the opening message said so; `pings` came since.
    pub(super) fn serving(
        capacities: Capacities,
        is_input_over: bool,
        pings: u32,
        now: Instant,
    ) -> Self {
        Self {
            side: Side::Serving,
            has_input: capacities.input > 0,
            sequence_out: 0,
            sequence_in: 1 + pings,
            send_credit: SendCredit::full(capacities.output.max(1)),
            waiting: None,
            out: Direction::Open,
            place: None,
            receive_credit: ReceiveCredit::new(capacities.input),
            received: VecDeque::new(),
            is_input_over: is_input_over || capacities.input == 0,
            is_discarding: false,
            due_there: None,
            pings_unanswered: 0,
            last_ping: now,
        }
    }

    // ---- what comes in ----

    /// Holds a message's sequence against what it must be (P16).
    pub(super) fn check_sequence(&mut self, received: u32) -> Result<(), Violation> {
        check_sequence(self.sequence_in, received)?;
        self.sequence_in = self.sequence_in.wrapping_add(1);
        Ok(())
    }

    /// Takes a message in. Returns whether whoever receives has something new to see.
    pub(super) fn receive(&mut self, payload: Bytes) -> Result<bool, Violation> {
        if self.side == Side::Serving && !self.has_input {
            return Err(Violation::NoInput);
        }
        if self.is_input_over {
            return Err(Violation::Overrun);
        }
        self.receive_credit.receive().map_err(|_| Violation::Overrun)?;
        if self.is_discarding {
            self.receive_credit.take();
            return Ok(false);
        }
        self.received.push_back(payload);
        Ok(self.received.len() == 1)
    }

    /// The caller is done sending.
    pub(super) fn end_input(&mut self) {
        self.is_input_over = true;
        self.receive_credit.forgive();
    }

    pub(super) fn grant_all(&mut self) {
        self.send_credit.grant_all();
    }

    pub(super) fn grant_one(&mut self) {
        self.send_credit.grant_one();
    }

    /// The next message for whoever receives.
    pub(super) fn take_received(&mut self) -> Received {
        match self.received.pop_front() {
            Some(payload) => {
                if !self.is_input_over {
                    self.receive_credit.take();
                }
                Received::Message(payload)
            }
            None if self.is_input_over => Received::InputOver,
            None => Received::Nothing,
        }
    }

    /// Whether a message can be received now.
    pub(super) fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    /// Nobody wants what comes in. Returns what had.
    pub(super) fn discard(&mut self) -> VecDeque<Bytes> {
        self.is_discarding = true;
        if !self.is_input_over {
            self.received.iter().for_each(|_| self.receive_credit.take());
        }
        std::mem::take(&mut self.received)
    }

    /// Everything that came in and was not received.
    pub(super) fn into_received(self) -> (VecDeque<Bytes>, Option<Bytes>) {
        (self.received, self.waiting)
    }

    // ---- what goes out ----

    /// Whether a message may be handed over: one at a time waits here.
    pub(super) fn can_send(&self) -> Result<(), Sent> {
        match &self.out {
            _ if self.side == Side::Calling && !self.has_input => Err(Sent::NoInput),
            Direction::Closing(_) | Direction::Closed => Err(Sent::Finished),
            Direction::Open if self.waiting.is_some() => Err(Sent::Waiting),
            Direction::Open => Ok(()),
        }
    }

    /// Hands over a message that is to be sent when there is credit and room.
    pub(super) fn send(&mut self, payload: Bytes) {
        debug_assert!(self.waiting.is_none(), "one at a time");
        self.waiting = Some(payload);
    }

    /// How far the message that was handed over last came.
    pub(super) fn sent(&self) -> Sent {
        if self.waiting.is_some() { Sent::Waiting } else { Sent::Queued }
    }

    /// Takes back the message that waits.
    pub(super) fn take_back(&mut self) -> Option<Bytes> {
        self.waiting.take()
    }

    /// The caller sends nothing more (B25).
    pub(super) fn finish(&mut self) {
        debug_assert_eq!(self.side, Side::Calling);
        if self.out == Direction::Open {
            self.out = Direction::Closing(Close::Input);
        }
    }

    /// The handler returned.
    pub(super) fn answer(&mut self, result: Result<(), HandlerError>) {
        debug_assert_eq!(self.side, Side::Serving);
        debug_assert!(self.out != Direction::Closed, "a handler returns once");
        self.out = Direction::Closing(Close::Answer(result));
    }

    /// Whether this direction's end has been queued.
    pub(super) fn is_closed(&self) -> bool {
        self.out == Direction::Closed
    }

    /// Whether the handler has not returned yet.
    pub(super) fn is_running(&self) -> bool {
        self.out == Direction::Open
    }

    /// The sequence of the next message.
    pub(super) fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence_out;
        self.sequence_out = sequence.wrapping_add(1);
        sequence
    }

    /// What may be sent now, if there is room for it.
    pub(super) fn next(&self) -> Option<Next> {
        if self.receive_credit.is_owed() {
            return Some(Next::Credit);
        }
        if !self.send_credit.is_available() {
            // A message that waits for a reader who has stopped must not hold the error back (B24).
            return self.has_failed().then_some(Next::Abort);
        }
        if self.waiting.is_some() {
            return Some(Next::Message);
        }
        match &self.out {
            Direction::Closing(_) => Some(Next::End),
            Direction::Open | Direction::Closed => None,
        }
    }

    /// The message for `next`, and its payload where that is shared memory.
    pub(super) fn outgoing(
        &self,
        next: Next,
        mux_id: u64,
        checksum: Checksum,
    ) -> (Outgoing<'_>, Option<&Bytes>) {
        let data = match self.side {
            Side::Calling => Op::MuxClientMsg,
            Side::Serving => Op::MuxServerMsg,
        };
        let error: &[u8] = match &self.out {
            Direction::Closing(Close::Answer(Err(error))) => error.message().as_bytes(),
            _ => &[],
        };
        let (op, flags, payload, shared) = match next {
            Next::Credit => (self.credit_op(), Flags::NONE, &[][..], None),
            Next::Message => {
                let shared = self.waiting.as_ref();
                let payload = shared.map_or(&[][..], |payload| &payload[..]);
                let flags = if payload.is_empty() { Flags::ZERO } else { Flags::NONE };
                (data, flags, payload, shared)
            }
            Next::End if self.has_failed() => (data, Flags::EOF.with(Flags::ERROR), error, None),
            Next::End => (data, Flags::EOF, &[][..], None),
            Next::Abort => (Op::DisconnectClientMux, Flags::ERROR, error, None),
        };
        let header = Header { sequence: self.sequence_out, flags, ..Header::new(mux_id, op) };
        (Outgoing { header, payload, subroute: None, checksum }, shared)
    }

    fn credit_op(&self) -> Op {
        match self.side {
            Side::Calling => Op::UnblockSrvMux,
            Side::Serving => Op::UnblockClMux,
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.out, Direction::Closing(Close::Answer(Err(_))))
    }

    /// `next` was queued. Returns a payload that is done with.
    pub(super) fn mark_sent(&mut self, next: Next) -> Option<Bytes> {
        self.next_sequence();
        match next {
            Next::Credit => self.receive_credit.give_back(),
            Next::Message => {
                self.send_credit.consume();
                return self.waiting.take();
            }
            Next::End => {
                self.send_credit.consume();
                self.out = Direction::Closed;
            }
            Next::Abort => self.out = Direction::Closed,
        }
        None
    }
}

/// Holds a sequence against what it must be (P16).
pub(super) fn check_sequence(expected: u32, received: u32) -> Result<(), Violation> {
    if received == expected { Ok(()) } else { Err(Violation::Sequence { expected, received }) }
}

/// The message that opens a stream (P15). `deadline_ms` is 0 where it has none.
pub(super) fn open_message(
    mux_id: u64,
    open: &Open,
    deadline_ms: u32,
    checksum: Checksum,
) -> Outgoing<'_> {
    let is_empty = open.payload.as_ref().is_some_and(Bytes::is_empty);
    let flags = if is_empty { Flags::ZERO } else { Flags::NONE };
    let flags = if open.capacities.input == 0 { flags.with(Flags::EOF) } else { flags };
    let header =
        Header { deadline_ms, handler: open.handler, flags, ..Header::new(mux_id, Op::ConnectMux) };
    let payload = open.payload.as_deref().unwrap_or_default();
    Outgoing { header, payload, subroute: open.subroute.as_ref(), checksum }
}
