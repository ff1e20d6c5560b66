//! The state machine of one end of a stream ([P15] to [P18]).
//!
//! Both ends send messages against credit, return credit and count sequences in the same way; they
//! differ in the ops they use and in how they end. This module decides what may be sent next and
//! checks what comes in. `connection` handles room in the queue, ids and timers.
//!
//! [P15]: crate::protocol#p15
//! [P18]: crate::protocol#p18

use std::collections::VecDeque;

use bytes::Bytes;

use super::credit::{ReceiveCredit, SendCredit};
use super::end::End;
use super::message::{Checksum, Flags, Header, Op, Outgoing};
use super::sequence::Sequence;
use super::subroute::SubrouteId;
use crate::error::HandlerError;
use crate::limits::CLOCK_DRIFT_DIVISOR;
use crate::time::Instant;

/// The two ends of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamSide {
    /// The end that opened the stream.
    Caller,
    /// The end that runs the handler.
    Callee,
}

/// One end of a stream. The two directions of calls have separate id spaces ([P9]), so a number alone
/// is ambiguous ([B16]).
///
/// [B16]: crate::rules#b16
/// [P9]: crate::protocol#p9
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The end.
    pub side: StreamSide,
    /// The caller's id of the stream.
    pub mux_id: u64,
}

/// Numbers of messages that may be in flight. Not negotiated: both ends know them from the
/// handler's declaration ([P17]).
///
/// [P17]: crate::protocol#p17
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacities {
    /// Messages from the caller to the handler; 0 if the stream has no request side ([B26]).
    ///
    /// [B26]: crate::rules#b26
    pub input: u32,
    /// Messages from the handler to the caller; at least 1.
    pub output: u32,
}

/// A stream to be opened.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// The handler's id.
    pub handler: u8,
    /// The subroute that selects one of several handlers of that id.
    pub subroute: Option<SubrouteId>,
    /// The initial payload for the handler; absent and empty are different ([P5]).
    ///
    /// [P5]: crate::protocol#p5
    pub payload: Option<Bytes>,
    /// The time at which the stream expires, if any.
    pub deadline: Option<Instant>,
    /// Numbers of messages that may be in flight.
    pub capacities: Capacities,
}

/// The result of receiving from a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// The next message.
    Message(Bytes),
    /// No message yet.
    Empty,
    /// The caller has finished sending, and all of its messages were received.
    InputFinished,
    /// The stream ended: [`Event::StreamEnded`](super::connection::Event::StreamEnded) has the
    /// remaining messages.
    StreamEnded,
}

/// The progress of a message, or of the end of a sending direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    /// It is in the send queue.
    Queued,
    /// It waits for credit, or for room in the queue.
    Waiting,
    /// Nothing waits: this direction was finished, or the handler has returned.
    Finished,
    /// The stream has no request side ([B26]).
    ///
    /// [B26]: crate::rules#b26
    NoInput,
    /// The message is larger than the limit. It was not accepted.
    TooLarge {
        /// Size of the message.
        bytes: usize,
    },
    /// The stream ended.
    StreamEnded,
}

/// The effect of an incoming message on the local receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Arrival {
    /// There was nothing to receive before it: the receiver may wait for it.
    First,
    /// Others are to be received before it, or it was discarded.
    Unnoticed,
}

/// A violation of the protocol by the peer's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    Sequence { expected: u32, received: u32 },
    Overrun,
    NoInput,
}

impl Violation {
    /// Returns the error text that is sent to the caller.
    pub(super) fn text(self) -> String {
        match self {
            Self::Sequence { expected, received } => {
                format!("incorrect sequence: expected {expected}, received {received}")
            }
            Self::Overrun => "handler blocked: more messages than there was credit for".into(),
            Self::NoInput => "the handler takes no input".into(),
        }
    }

    pub(super) fn into_end(self) -> End {
        match self {
            Self::Sequence { expected, received } => End::IncorrectSequence { expected, received },
            Self::Overrun | Self::NoInput => End::Overrun,
        }
    }
}

/// The cause that closes a sending direction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CloseCause {
    /// The caller finished sending.
    Input,
    /// The handler returned.
    Response(Result<(), HandlerError>),
}

/// The state of one sending direction.
///
/// ```text
///            finish | handler returns           credit and room
///   Open ───────────────────────────► Closing ──────────────────► Closed
/// ```
///
/// `Closing` exists because the end of a stream takes a credit too (P17), and because it must not
/// overtake the message before it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Direction {
    Open,
    Closing(CloseCause),
    Closed,
}

/// The next item to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextSend {
    /// A credit for a consumed message.
    Credit,
    /// The waiting message.
    Message,
    /// The end of this direction.
    End,
    /// The handler's error, without a credit: it must reach a caller that has stopped reading
    /// ([B24]).
    ///
    /// [B24]: crate::rules#b24
    Abort,
}

/// One end of an open stream.
#[derive(Debug)]
pub(super) struct Stream {
    side: StreamSide,
    has_input: bool,
    sequence_out: Sequence,
    sequence_in: Sequence,
    send_credit: SendCredit,
    /// The message that waits for credit or room.
    waiting_message: Option<Bytes>,
    out: Direction,
    /// Its position among the waiters for room, while it is one.
    pub(super) position: Option<u64>,
    receive_credit: ReceiveCredit,
    received: VecDeque<Bytes>,
    is_input_finished: bool,
    /// Whether incoming messages are dropped and their credit returned, so that the sender is not
    /// blocked.
    is_discarding: bool,
    /// Caller: the earliest time at which the deadline may have passed by the callee's clock.
    remote_deadline_earliest: Option<Instant>,
    /// Caller: pings sent since the last pong.
    pub(super) pings_without_pong: u32,
    /// Callee: time of the last ping.
    pub(super) last_ping: Instant,
}

impl Stream {
    /// Creates the caller's end. Nothing may be sent before the acknowledgement (P15).
    pub(super) fn for_caller(
        capacities: Capacities,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Self {
        let has_input = capacities.input > 0;
        let remote_deadline_earliest =
            deadline.map(|deadline| deadline - deadline.since(now) / CLOCK_DRIFT_DIVISOR);
        Self {
            side: StreamSide::Caller,
            has_input,
            sequence_out: Sequence::starting_at(1), // the opening message had 0 (P16)
            sequence_in: Sequence::starting_at(0),
            send_credit: SendCredit::none(capacities.input),
            waiting_message: None,
            out: if has_input { Direction::Open } else { Direction::Closed },
            position: None,
            receive_credit: ReceiveCredit::new(capacities.output),
            received: VecDeque::new(),
            is_input_finished: false,
            is_discarding: false,
            remote_deadline_earliest,
            pings_without_pong: 0,
            last_ping: now,
        }
    }

    /// Caller: whether the stream has a deadline.
    pub(super) fn has_deadline(&self) -> bool {
        self.remote_deadline_earliest.is_some()
    }

    /// Caller: whether the deadline may have passed by the callee's clock.
    pub(super) fn may_have_expired_remotely(&self, now: Instant) -> bool {
        self.remote_deadline_earliest.is_some_and(|earliest| earliest <= now)
    }

    /// Creates the callee's end. `is_input_finished` is the EOF flag of the opening message;
    /// `pings` is the number of pings received before the stream was accepted.
    pub(super) fn for_callee(
        capacities: Capacities,
        is_input_finished: bool,
        pings: u32,
        now: Instant,
    ) -> Self {
        Self {
            side: StreamSide::Callee,
            has_input: capacities.input > 0,
            sequence_out: Sequence::starting_at(0),
            // The opening message had 0 (P16).
            sequence_in: Sequence::starting_at(1_u32.wrapping_add(pings)),
            send_credit: SendCredit::full(capacities.output.max(1)),
            waiting_message: None,
            out: Direction::Open,
            position: None,
            receive_credit: ReceiveCredit::new(capacities.input),
            received: VecDeque::new(),
            is_input_finished: is_input_finished || capacities.input == 0,
            is_discarding: false,
            remote_deadline_earliest: None,
            pings_without_pong: 0,
            last_ping: now,
        }
    }

    // ---- incoming ----

    /// Checks the sequence number of a message against the expected one (P16).
    pub(super) fn check_sequence(&mut self, received: u32) -> Result<(), Violation> {
        check_sequence(self.sequence_in.next(), received)?;
        self.sequence_in.take();
        Ok(())
    }

    /// Accepts an incoming message.
    pub(super) fn receive(&mut self, payload: Bytes) -> Result<Arrival, Violation> {
        if self.side == StreamSide::Callee && !self.has_input {
            return Err(Violation::NoInput);
        }
        if self.is_input_finished {
            return Err(Violation::Overrun);
        }
        self.receive_credit.receive().map_err(|_| Violation::Overrun)?;
        if self.is_discarding {
            self.receive_credit.mark_consumed();
            return Ok(Arrival::Unnoticed);
        }
        self.received.push_back(payload);
        Ok(if self.received.len() == 1 { Arrival::First } else { Arrival::Unnoticed })
    }

    /// Records that the caller has finished sending.
    pub(super) fn end_input(&mut self) {
        self.is_input_finished = true;
        self.receive_credit.close();
    }

    pub(super) fn grant_all(&mut self) {
        self.send_credit.grant_all();
    }

    pub(super) fn grant_one(&mut self) {
        self.send_credit.grant_one();
    }

    /// Takes the next received message.
    pub(super) fn take_received(&mut self) -> Received {
        match self.received.pop_front() {
            Some(payload) => {
                if !self.is_input_finished {
                    self.receive_credit.mark_consumed();
                }
                Received::Message(payload)
            }
            None if self.is_input_finished => Received::InputFinished,
            None => Received::Empty,
        }
    }

    /// Whether a message can be received now.
    pub(super) fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    /// Discards incoming messages from now on. Returns those already received.
    pub(super) fn start_discarding(&mut self) -> VecDeque<Bytes> {
        self.is_discarding = true;
        if !self.is_input_finished {
            self.received.iter().for_each(|_| self.receive_credit.mark_consumed());
        }
        std::mem::take(&mut self.received)
    }

    /// Returns the messages that were not received, and the waiting message.
    pub(super) fn into_received(self) -> (VecDeque<Bytes>, Option<Bytes>) {
        (self.received, self.waiting_message)
    }

    // ---- outgoing ----

    /// Checks whether a message may be accepted for sending: at most one waits here.
    pub(super) fn check_can_send(&self) -> Result<(), SendStatus> {
        match &self.out {
            _ if self.side == StreamSide::Caller && !self.has_input => Err(SendStatus::NoInput),
            Direction::Closing(_) | Direction::Closed => Err(SendStatus::Finished),
            Direction::Open if self.waiting_message.is_some() => Err(SendStatus::Waiting),
            Direction::Open => Ok(()),
        }
    }

    /// Accepts a message, to be sent when there is credit and room.
    pub(super) fn send(&mut self, payload: Bytes) {
        debug_assert!(self.waiting_message.is_none(), "at most one message waits");
        self.waiting_message = Some(payload);
    }

    /// Returns the progress of the last accepted message.
    pub(super) fn send_status(&self) -> SendStatus {
        if self.waiting_message.is_some() { SendStatus::Waiting } else { SendStatus::Queued }
    }

    /// Takes back the waiting message.
    pub(super) fn take_waiting(&mut self) -> Option<Bytes> {
        self.waiting_message.take()
    }

    /// Finishes the caller's sending direction (B25).
    pub(super) fn finish(&mut self) {
        debug_assert_eq!(self.side, StreamSide::Caller);
        if self.out == Direction::Open {
            self.out = Direction::Closing(CloseCause::Input);
        }
    }

    /// Records the handler's result.
    pub(super) fn respond(&mut self, result: Result<(), HandlerError>) {
        debug_assert_eq!(self.side, StreamSide::Callee);
        debug_assert!(self.out != Direction::Closed, "a handler returns once");
        self.out = Direction::Closing(CloseCause::Response(result));
    }

    /// Whether this direction's end has been queued.
    pub(super) fn is_closed(&self) -> bool {
        self.out == Direction::Closed
    }

    /// Whether the handler has not returned yet.
    pub(super) fn is_handler_running(&self) -> bool {
        self.out == Direction::Open
    }

    /// Takes the sequence number of the next message.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence_out.take()
    }

    /// Returns the next item that may be sent, if there is room for it.
    pub(super) fn next_send(&self) -> Option<NextSend> {
        if self.receive_credit.has_credit_to_return() {
            return Some(NextSend::Credit);
        }
        if !self.send_credit.is_available() {
            // A message that waits for a stalled reader must not hold the error back (B24).
            return self.has_failed().then_some(NextSend::Abort);
        }
        if self.waiting_message.is_some() {
            return Some(NextSend::Message);
        }
        match &self.out {
            Direction::Closing(_) => Some(NextSend::End),
            Direction::Open | Direction::Closed => None,
        }
    }

    /// Builds the message for `next`, and returns its payload if that is shared memory.
    pub(super) fn outgoing(
        &self,
        next: NextSend,
        mux_id: u64,
        checksum: Checksum,
    ) -> (Outgoing<'_>, Option<&Bytes>) {
        let data = match self.side {
            StreamSide::Caller => Op::MuxClientMsg,
            StreamSide::Callee => Op::MuxServerMsg,
        };
        let error: &[u8] = match &self.out {
            Direction::Closing(CloseCause::Response(Err(error))) => error.message().as_bytes(),
            _ => &[],
        };
        let (op, flags, payload, shared) = match next {
            NextSend::Credit => (self.credit_op(), Flags::NONE, &[][..], None),
            NextSend::Message => {
                let shared = self.waiting_message.as_ref();
                let payload = shared.map_or(&[][..], |payload| &payload[..]);
                let flags = if payload.is_empty() { Flags::ZERO } else { Flags::NONE };
                (data, flags, payload, shared)
            }
            NextSend::End if self.has_failed() => {
                (data, Flags::EOF.with(Flags::ERROR), error, None)
            }
            NextSend::End => (data, Flags::EOF, &[][..], None),
            NextSend::Abort => (Op::DisconnectClientMux, Flags::ERROR, error, None),
        };
        let header =
            Header { sequence: self.sequence_out.next(), flags, ..Header::new(mux_id, op) };
        (Outgoing { header, payload, subroute: None, checksum }, shared)
    }

    fn credit_op(&self) -> Op {
        match self.side {
            StreamSide::Caller => Op::UnblockSrvMux,
            StreamSide::Callee => Op::UnblockClMux,
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.out, Direction::Closing(CloseCause::Response(Err(_))))
    }

    /// Records that `next` was queued. Returns a payload that is no longer needed.
    pub(super) fn mark_sent(&mut self, next: NextSend) -> Option<Bytes> {
        self.next_sequence();
        match next {
            NextSend::Credit => self.receive_credit.return_one(),
            NextSend::Message => {
                self.send_credit.consume();
                return self.waiting_message.take();
            }
            NextSend::End => {
                self.send_credit.consume();
                self.out = Direction::Closed;
            }
            NextSend::Abort => self.out = Direction::Closed,
        }
        None
    }
}

impl Stream {
    /// Checks what must hold between two operations.
    pub(super) fn check_invariants(&self, id: StreamId) {
        assert_eq!(self.side, id.side, "stream {id:?}: side");
        let is_closed = self.is_input_finished;
        self.send_credit.check_invariants();
        self.receive_credit.check_invariants(self.received.len(), is_closed);
        self.sequence_out.check_invariants(self.send_credit.in_flight(), "sequence_out");
        self.sequence_in.check_invariants(self.receive_credit.in_flight(), "sequence_in");
        let unread = self.received.len();
        assert!(
            !self.is_discarding || unread == 0,
            "stream {id:?}: received = {unread}, discarded"
        );
        // What can be sent and is not in the queue waits for room in it (B06).
        let (next, position) = (self.next_send(), self.position);
        assert_eq!(
            next.is_some(),
            position.is_some(),
            "stream {id:?}: next_send = {next:?}, position = {position:?}"
        );
        self.check_direction(id);
    }

    fn check_direction(&self, id: StreamId) {
        let Self { out, has_input, waiting_message, pings_without_pong, .. } = self;
        let is_possible = match (self.side, out) {
            (StreamSide::Caller, Direction::Open) => *has_input,
            (StreamSide::Caller, Direction::Closing(cause)) => *cause == CloseCause::Input,
            (StreamSide::Caller, Direction::Closed) => waiting_message.is_none(),
            (StreamSide::Callee, Direction::Open) => true,
            (StreamSide::Callee, Direction::Closing(cause)) => {
                self.is_discarding && *cause != CloseCause::Input
            }
            // The stream is removed when its end is queued.
            (StreamSide::Callee, Direction::Closed) => false,
        };
        assert!(is_possible, "stream {id:?}: out = {out:?}, has_input = {has_input}");
        let is_caller = self.side == StreamSide::Caller;
        let pings = *pings_without_pong;
        assert!(is_caller || pings == 0, "stream {id:?}: pings_without_pong = {pings}");
        assert!(
            !(is_caller && self.is_input_finished),
            "stream {id:?}: is_input_finished at the caller"
        );
    }
}

#[cfg(test)]
impl Stream {
    /// Returns the sequence number of the next incoming message.
    pub(super) fn expected_sequence(&self) -> u32 {
        self.sequence_in.next()
    }

    /// Describes the state in a few words.
    pub(super) fn description(&self) -> String {
        let mut words = vec![match self.out {
            Direction::Open => "out=open",
            Direction::Closing(_) => "out=closing",
            Direction::Closed => "out=closed",
        }];
        let flags = [
            (self.waiting_message.is_some(), "waiting"),
            (self.has_received(), "unread"),
            (self.is_discarding, "discarding"),
            (self.is_input_finished, "in=finished"),
        ];
        words.extend(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word));
        words.join(" ")
    }
}

/// Compares a sequence number with the expected one (P16).
pub(super) fn check_sequence(expected: u32, received: u32) -> Result<(), Violation> {
    if received == expected { Ok(()) } else { Err(Violation::Sequence { expected, received }) }
}

/// Builds the message that opens a stream (P15). `deadline_ms` is 0 if it has no deadline.
pub(super) fn open_message(
    mux_id: u64,
    open: &OpenRequest,
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
