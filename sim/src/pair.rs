//! Two machines, a wire between them and a clock that only moves when told.
//!
//! The world keeps its own, simple account of every call and holds the machines to it after each
//! operation: it panics where one of them breaks its promise, which is what it is for. Payloads
//! carry a token of their call, so that an answer that reached another call would be seen.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a world is a test: it fails where a promise is broken"
)]

mod events;
mod invariants;
pub mod operation;
pub mod strategies;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use self::operation::{End, How, MESSAGE_BYTES_MAX, Operation, pick};
use bytes::Bytes;
use grid::error::HandlerError;
use grid::limits::Limits;
use grid::proto::connection::{CloseReason, Connection, Outcome, Request, Slot, StartError};
use grid::proto::message::{Checksum, parse_frame};
use grid::proto::subroute::SubrouteId;
use grid::time::{Instant, Timestamp};

/// What a payload begins with.
const TOKEN_BYTES: usize = size_of::<usize>();

/// A call in the world's account. Its index there is its token and its slot.
#[derive(Debug)]
pub struct Call {
    caller: End,
    mux_id: u64,
    payload: Bytes,
    deadline: Instant,
    /// How it ended, once it has.
    pub end: Option<CallEnd>,
    /// What the handler did, once it has.
    pub expected: Option<Expected>,
    was_served: bool,
    /// Given up before its request had left: the other side must never hear of it.
    is_secret: bool,
}

/// What the caller must get for what the handler did, unless the call ends before.
#[derive(Debug)]
pub enum Expected {
    /// This.
    Outcome(Outcome),
    /// An error that tells of an answer beyond the limit.
    TooLarge,
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The machine said how.
    Event(Outcome),
    /// Its caller did not want it any more.
    GivenUp,
}

#[derive(Debug)]
struct Side {
    connection: Connection,
    /// Frames that this side has written and the other has not read.
    wire: VecDeque<Bytes>,
    is_closed: bool,
    is_draining: bool,
    /// Tokens of the calls that are served here and whose handler has not finished, by mux id.
    running: BTreeMap<u64, usize>,
    last_served: u64,
}

/// The two machines, and the account.
#[derive(Debug)]
pub struct World {
    limits: Limits,
    now: Instant,
    a: Side,
    b: Side,
    /// All single requests that were ever made.
    pub calls: Vec<Call>,
    /// What happened at least once: properties of what never happens would be worth nothing.
    pub seen: BTreeSet<&'static str>,
}

impl World {
    /// A world whose two ends are connected.
    pub fn new(limits: &Limits, checksum: Checksum) -> Self {
        let now = Instant::from_nanos(5);
        let side = || Side {
            connection: Connection::new(limits, checksum, now),
            wire: VecDeque::new(),
            is_closed: false,
            is_draining: false,
            running: BTreeMap::new(),
            last_served: 0,
        };
        Self {
            limits: limits.clone(),
            now,
            a: side(),
            b: side(),
            calls: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::A => &mut self.a,
            End::B => &mut self.b,
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(1_700_000_000 + (self.now.as_nanos() / 1_000_000_000) as i64, 0)
    }

    /// Lets one operation happen after the other, and looks at everything after each.
    ///
    /// # Panics
    ///
    /// Where a machine does not do as it promises.
    pub fn run(&mut self, operations: &[Operation]) {
        for operation in operations {
            self.apply(operation);
            self.take_events();
            self.check();
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Call { end, payload_bytes, deadline_ms } => {
                self.call(end, usize::from(payload_bytes).max(TOKEN_BYTES), deadline_ms);
            }
            Operation::GiveUp { end, which } => self.give_up(end, which),
            Operation::Transmit { end, frames } => self.transmit(end, usize::from(frames)),
            Operation::Receive { end, frames } => self.receive(end, usize::from(frames)),
            Operation::Finish { end, which, how } => {
                let running: Vec<_> = self.side(end).running.keys().copied().collect();
                if let Some(mux_id) = pick(&running, which) {
                    self.finish(end, mux_id, how);
                }
            }
            Operation::Advance { millis } => {
                self.advance(Duration::from_millis(u64::from(millis)));
            }
            Operation::Drain { end } => {
                let side = self.side(end);
                side.connection.drain();
                side.is_draining = true;
            }
            Operation::Close { end } => {
                self.side(end).connection.close(CloseReason::Transport("cut".into()));
            }
        }
    }

    fn call(&mut self, end: End, payload_bytes: usize, deadline_ms: u32) {
        let (now, token, calls_made_max) = (self.now, self.calls.len(), self.limits.calls_made_max);
        let mut payload = token.to_be_bytes().to_vec();
        payload.resize(payload_bytes, end as u8);
        let payload = Bytes::from(payload);
        let deadline = now + Duration::from_millis(u64::from(deadline_ms));
        let request = Request {
            handler: 7,
            subroute: token.is_multiple_of(3).then(|| SubrouteId::new(7, "drive-1")),
            payload: payload.clone(),
            deadline,
        };

        let side = self.side(end);
        let live_before = side.connection.live_calls();
        let ids_in_use = side.running.clone();
        let started = side.connection.call(Slot(token), &request, now);
        let expected_error = if side.is_draining || side.is_closed {
            Some(StartError::Draining)
        } else if deadline_ms == 0 {
            Some(StartError::DeadlinePassed)
        } else if live_before >= calls_made_max {
            Some(StartError::TooManyCalls)
        } else {
            None
        };
        match (started, expected_error) {
            (Ok(mux_id), None) if payload_bytes < MESSAGE_BYTES_MAX => {
                if ids_in_use.contains_key(&mux_id) {
                    self.seen.insert("one number in use in both directions");
                }
                self.calls.push(Call {
                    caller: end,
                    mux_id,
                    payload,
                    deadline,
                    end: None,
                    expected: None,
                    was_served: false,
                    is_secret: false,
                });
            }
            (Err(StartError::TooLarge { bytes }), None) => assert!(bytes > MESSAGE_BYTES_MAX),
            (Err(error), Some(expected)) => assert_eq!(error, expected),
            (started, expected) => panic!("{started:?} instead of {expected:?}"),
        }
    }

    /// Gives one of the calls of `end` up, which may be over already.
    fn give_up(&mut self, end: End, which: u32) {
        let made: Vec<_> =
            (0..self.calls.len()).filter(|token| self.calls[*token].caller == end).collect();
        let Some(token) = pick(&made, which) else { return };
        let mux_id = self.calls[token].mux_id;
        let connection = &mut self.side(end).connection;
        let before = (connection.queued_bytes(), connection.blocked_messages());
        connection.give_up(mux_id);
        let after = (connection.queued_bytes(), connection.blocked_messages());

        let call = &mut self.calls[token];
        if call.end.is_some() {
            return assert_eq!(before, after, "giving up what is over does nothing");
        }
        call.end = Some(CallEnd::GivenUp);
        call.is_secret = after.1 < before.1 && before.0 == after.0;
        let is_secret = call.is_secret;
        self.seen.insert(if is_secret { "given up while blocked" } else { "given up" });
    }

    fn transmit(&mut self, end: End, frames: usize) {
        let (now, other) = (self.now, end.other());
        let is_read = !self.side(other).is_closed;
        let side = self.side(end);
        for _ in 0..frames {
            let Some(transmit) = side.connection.poll_transmit(now) else { return };
            if is_read {
                side.wire.push_back(transmit.into_bytes());
            }
        }
    }

    fn receive(&mut self, end: End, frames: usize) {
        let now = self.now;
        for _ in 0..frames {
            let other = self.side(end.other());
            match other.wire.pop_front() {
                Some(frame) => {
                    let mut messages = Vec::new();
                    parse_frame(&frame, &mut messages).expect("the frames of a machine parse");
                    for message in messages {
                        self.side(end).connection.handle_message(message, now);
                    }
                }
                None if other.is_closed => self.side(end).connection.close(CloseReason::Peer),
                None => return,
            }
        }
    }

    /// The handler of a call is done.
    fn finish(&mut self, end: End, mux_id: u64, how: How) {
        let now = self.now;
        let side = self.side(end);
        let token = side.running.remove(&mux_id).expect("it runs");
        assert!(side.connection.is_serving(mux_id), "what was not cancelled is wanted");

        let payload = Bytes::from(format!("the answer to {token}"));
        let text = format!("the error of {token}");
        let too_large = "x".repeat(MESSAGE_BYTES_MAX);
        let answer = match how {
            How::Answer => Ok(payload.clone()),
            How::AnswerTooLarge => Ok(too_large.into()),
            How::Error => Err(HandlerError::new(text.clone())),
            How::ErrorTooLarge => Err(too_large.into()),
            How::UnknownHandler | How::Refusal => return self.refuse(end, mux_id, token, how),
        };
        let is_wanted = side.connection.answer(mux_id, &answer, now);
        assert!(is_wanted, "what was not cancelled is wanted");
        self.calls[token].expected = Some(match how {
            How::Answer => Expected::Outcome(Outcome::Response(payload)),
            How::Error => Expected::Outcome(Outcome::RemoteError(text.into())),
            _ => Expected::TooLarge,
        });
    }

    fn refuse(&mut self, end: End, mux_id: u64, token: usize, how: How) {
        let (reason, outcome): (_, fn(_) -> Outcome) = match how {
            How::UnknownHandler => {
                (format!("Invalid Handler for type: {token}"), Outcome::UnknownHandler)
            }
            _ => (format!("{token} is not wanted here"), Outcome::Refused),
        };
        self.side(end).connection.refuse(mux_id, &reason);
        self.calls[token].expected = Some(Expected::Outcome(outcome(reason.into())));
    }

    /// Moves the clock, and lets the machines do what is due at the instant at which it is.
    fn advance(&mut self, duration: Duration) {
        let target = self.now + duration;
        loop {
            let due = [&self.a, &self.b].iter().filter_map(|s| s.connection.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= target) else { break };
            assert!(due > self.now, "a timeout that was handled is not due again");
            self.now = due;
            let (now, wall) = (self.now, self.wall());
            for end in End::BOTH {
                self.side(end).connection.handle_timeout(now, wall);
            }
            self.take_events();
        }
        self.now = target;
    }
}
