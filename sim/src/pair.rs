//! Two protocol machines, a wire between them and a clock that only moves on demand.
//!
//! The pair keeps its own simple model of every call and compares the machines with it after each
//! operation: it panics where a machine breaks a promise, by design. Payloads carry a token of
//! their call, so that a response that reached another call would be noticed.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a pair is a test: it fails where a promise is broken"
)]

mod calls;
mod events;
mod invariants;
pub mod operation;
pub mod strategies;
mod stream_events;
mod stream_model;
mod streams;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{Capacities, CloseReason, Connection};
use grid::proto::message::{Checksum, parse_frame};
use grid::time::{Instant, Timestamp};

use self::calls::TOKEN_BYTES;
pub use self::calls::{Call, CallEnd, Expected};
use self::operation::{EndpointId, Operation, pick};
pub use self::stream_model::Stream;

#[derive(Debug)]
struct Endpoint {
    connection: Connection,
    /// Frames that this endpoint has written and the other has not read.
    wire: VecDeque<Bytes>,
    is_closed: bool,
    is_draining: bool,
    /// Tokens of the inbound calls whose handler has not finished, by mux id.
    running: BTreeMap<u64, usize>,
    /// Tokens of the inbound streams, accepted or undecided, that have not ended, by mux id.
    streams: BTreeMap<u64, usize>,
    last_inbound: u64,
}

/// The two machines and the model.
#[derive(Debug)]
pub struct Pair {
    limits: Limits,
    now: Instant,
    a: Endpoint,
    b: Endpoint,
    /// All single requests ever made.
    pub calls: Vec<Call>,
    /// All streams ever opened.
    pub streams: Vec<Stream>,
    /// Index of each stream, by its caller and its mux id.
    tokens: BTreeMap<(EndpointId, u64), usize>,
    /// Whether expired timers may be unhandled.
    is_late: bool,
    /// Coverage: the situations that occurred at least once.
    pub reached: BTreeSet<&'static str>,
}

impl Pair {
    /// Creates a pair whose two ends are connected.
    pub fn new(limits: &Limits, checksum: Checksum) -> Self {
        let now = Instant::from_nanos(5);
        let endpoint = || Endpoint {
            connection: Connection::new(limits, checksum, now),
            wire: VecDeque::new(),
            is_closed: false,
            is_draining: false,
            running: BTreeMap::new(),
            streams: BTreeMap::new(),
            last_inbound: 0,
        };
        Self {
            limits: limits.clone(),
            now,
            a: endpoint(),
            b: endpoint(),
            calls: Vec::new(),
            streams: Vec::new(),
            tokens: BTreeMap::new(),
            is_late: false,
            reached: BTreeSet::new(),
        }
    }

    fn endpoint_mut(&mut self, end: EndpointId) -> &mut Endpoint {
        match end {
            EndpointId::A => &mut self.a,
            EndpointId::B => &mut self.b,
        }
    }

    fn endpoint_of(&self, end: EndpointId) -> &Endpoint {
        match end {
            EndpointId::A => &self.a,
            EndpointId::B => &self.b,
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(1_700_000_000 + (self.now.as_nanos() / 1_000_000_000) as i64, 0)
    }

    /// Applies the operations in order, and checks everything after each.
    ///
    /// # Panics
    ///
    /// If a machine breaks a promise.
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
            Operation::Cancel { end, selector } => self.cancel_call(end, selector),
            Operation::Open { end, initial, input, output, deadline_ms } => {
                let (input, output) = (u32::from(input % 4), 1 + u32::from(output % 3));
                self.open(end, initial, Capacities { input, output }, deadline_ms);
            }
            Operation::Decide { end, selector, decision } => self.decide(end, selector, decision),
            Operation::Stream { end, selector, action } => {
                self.act_on_stream(end, selector, action);
            }
            Operation::Transmit { end, frames } => self.transmit(end, usize::from(frames)),
            Operation::Receive { end, frames } => self.receive(end, usize::from(frames)),
            Operation::Finish { end, selector, reply } => {
                let running: Vec<_> = self.endpoint_mut(end).running.keys().copied().collect();
                if let Some(mux_id) = pick(&running, selector) {
                    self.finish(end, mux_id, reply);
                }
            }
            Operation::Advance { millis } => {
                self.advance(Duration::from_millis(u64::from(millis)));
            }
            Operation::Stall { millis } => {
                self.is_late |= millis > 0;
                self.now = self.now + Duration::from_millis(u64::from(millis));
            }
            Operation::Run { millis } => {
                self.run_for(Duration::from_millis(u64::from(millis % 60_000)));
            }
            Operation::Drain { end } => {
                let endpoint = self.endpoint_mut(end);
                endpoint.connection.drain();
                endpoint.is_draining = true;
            }
            Operation::Close { end } => {
                self.endpoint_mut(end).connection.close(CloseReason::Transport("cut".into()));
            }
        }
    }

    fn transmit(&mut self, end: EndpointId, frames: usize) {
        let (now, other) = (self.now, end.other());
        let is_read = !self.endpoint_mut(other).is_closed;
        let endpoint = self.endpoint_mut(end);
        for _ in 0..frames {
            let Some(transmit) = endpoint.connection.poll_transmit(now) else { return };
            if is_read {
                endpoint.wire.push_back(transmit.into_bytes());
            }
        }
    }

    fn receive(&mut self, end: EndpointId, frames: usize) {
        let now = self.now;
        for _ in 0..frames {
            let other = self.endpoint_mut(end.other());
            match other.wire.pop_front() {
                Some(frame) => {
                    let mut messages = Vec::new();
                    parse_frame(&frame, &mut messages).expect("the frames of a machine parse");
                    for message in messages {
                        self.record_on_wire(end.other(), &message);
                        self.endpoint_mut(end).connection.handle_message(message, now);
                    }
                }
                None if other.is_closed => {
                    self.endpoint_mut(end).connection.close(CloseReason::Peer);
                }
                None => return,
            }
        }
    }

    /// Moves the clock, and runs each expired timer at its instant.
    fn advance(&mut self, duration: Duration) {
        let target = self.now + duration;
        loop {
            let due = [&self.a, &self.b].iter().filter_map(|s| s.connection.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= target) else { break };
            assert!(due > self.now || self.is_late, "a handled timeout does not expire again");
            self.is_late = false;
            self.now = due.max(self.now);
            let (now, wall) = (self.now, self.wall());
            for end in EndpointId::BOTH {
                self.endpoint_mut(end).connection.handle_timeout(now, wall);
            }
            self.take_events();
        }
        self.is_late = false;
        self.now = target;
    }

    /// Moves the clock in steps, and delivers everything that is written in between.
    fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.deliver_everything();
            self.advance(until.since(self.now).min(Duration::from_secs(1)));
            self.take_events();
            self.check();
        }
    }
}
