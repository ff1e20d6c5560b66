//! Writes the page of a synthetic run, to look at and to test the page with (`.ci/page`):
//! `cargo run -p sim --example page -- out.html [events]`.
//!
//! Four nodes, requests and streams, most kinds of fault, one violation; deterministic for a number
//! of events. Writes the same run for `ShiViz` beside the page (`out.log`).

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;

use sim::event::{
    CallId, CallKind, ConnectionState, Event, EventKind, HandlerEnd, LockEnd, LockFailure,
    LossNotice, MessageSummary, Outcome, StoreOp, StoreResult, StreamSide,
};
use sim::fault::{Cut, CutOneWay, Drift, Hold, PowerLoss, Repair, Restart, Skew, Slow};
use sim::plan::{Cluster, Fault, LimitsPlan, Node, Plan};
use sim::report;

const NODES: u8 = 4;

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let page = PathBuf::from(arguments.next().unwrap_or_else(|| "run.html".into()));
    let wanted = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(10_000);
    let run = Run::of(wanted);
    fs::write(page.with_extension("log"), report::shiviz(&run.events))?;
    fs::write(page, report::html(&run.plan, &run.events))
}

/// A trace under construction.
struct Run {
    plan: Plan,
    events: Vec<Event>,
    random: u64,
    connections: Vec<Connection>,
    length: u64,
}

/// A connection, from its opening to its end.
struct Connection {
    ends: (u8, u8),
    from: u64,
    to: u64,
    /// Messages sent in each direction, and calls made by each end.
    sent: [u64; 2],
    made: [u64; 2],
}

impl Run {
    fn of(wanted: u64) -> Self {
        let length = (wanted * 3).clamp(3_000, 120_000);
        let plan = plan(length);
        let events = Vec::new();
        let mut run =
            Self { plan, events, random: 0x9e37_79b9_7f4a_7c15, connections: vec![], length };
        run.nodes_and_faults();
        run.connect();
        let mut call = 0;
        while (run.events.len() as u64) < wanted.saturating_sub(12) {
            run.call(call);
            call += 1;
        }
        run.locks(call);
        let text = "stream 41 received message 17 twice: at 20.512 s and at 20.633 s".to_owned();
        let kind = EventKind::Violated { invariant: "stream_order".into(), text };
        run.record(run.part(688), Some(1), kind);
        run.events.sort_by_key(|event| event.at_ms);
        run
    }

    /// Returns the time after so many thousandths of the run.
    fn part(&self, thousandths: u64) -> u64 {
        self.length * thousandths / 1000
    }

    fn record(&mut self, at_ms: u64, node: Option<u8>, kind: EventKind) {
        self.events.push(Event { at_ms, node: node.map(Node), kind });
    }

    /// Returns a random number below `limit` (xorshift).
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit.max(1)
    }

    fn nodes_and_faults(&mut self) {
        for node in 0..NODES {
            let at = if node == 3 { self.part(25) } else { 0 };
            self.record(at, Some(node), EventKind::Started { incarnation: 1 });
        }
        for (at, fault) in self.plan.faults.clone() {
            self.record(at, None, EventKind::Fault { fault });
            if let Fault::Restart(Restart { node }) = fault {
                self.record(at + 1, Some(node.0), EventKind::Started { incarnation: 2 });
            }
        }
        self.record(self.part(850), None, EventKind::Healed);
        self.record(self.part(985), None, EventKind::Quiet);
        for _ in 0..20 {
            let (at, node) = (self.below(self.length), self.below(4) as u8);
            let point = ["delay-flush", "full-socket", "supersede"][self.below(3) as usize];
            if !self.is_off(node, at) {
                self.record(
                    at,
                    Some(node),
                    EventKind::FaultPoint { point: point.into(), lasts_ms: 3 },
                );
            }
        }
    }

    fn is_off(&self, node: u8, at: u64) -> bool {
        let lost = node == 2 && (self.part(600)..self.part(680)).contains(&at);
        lost || (node == 3 && at < self.part(25))
    }

    /// Returns when a message from one node to another arrives; none if it is lost.
    fn arrival(&mut self, from: u8, to: u8, at: u64) -> Option<u64> {
        let link = (from.min(to), from.max(to));
        let during = |run: &Self, from, to| (run.part(from)..run.part(to)).contains(&at);
        let cut = link == (0, 1) && during(self, 180, 260);
        let one_way = (from, to) == (3, 1) && during(self, 730, 790);
        let arrives = match link {
            (1, 2) if during(self, 320, 345) => self.part(345) + 1,
            (0, 3) if during(self, 440, 540) => at + 60,
            _ => at + 1 + self.below(5),
        };
        (!cut && !one_way && !self.is_off(from, at) && !self.is_off(to, arrives)).then_some(arrives)
    }

    fn connect(&mut self) {
        for one in 0..NODES {
            for other in one + 1..NODES {
                let start = if other == 3 { self.part(25) } else { 0 };
                let broken = match (one, other) {
                    (0, 1) => Some((200, 275)),
                    (1, 3) => Some((750, 800)),
                    (2, _) | (_, 2) => Some((605, 690)),
                    _ => None,
                };
                let end = self.length;
                match broken {
                    Some((from, to)) => {
                        self.connection((one, other), start, self.part(from));
                        self.connection((one, other), self.part(to), end);
                    }
                    None => self.connection((one, other), start, end),
                }
            }
        }
    }

    fn connection(&mut self, ends: (u8, u8), start: u64, to: u64) {
        let socket = self.connections.len() as u32;
        let (one, other) = ends;
        let from = start + 12 + self.below(20);
        self.connections.push(Connection { ends, from, to, sent: [0, 0], made: [0, 0] });
        for (node, remote, dialed) in [(one, other, true), (other, one, false)] {
            let remote = Node(remote);
            let state = |state, cause| EventKind::State { remote, state, cause };
            self.record(start, Some(node), state(ConnectionState::Connecting, None));
            self.record(start + 3, Some(node), EventKind::SocketOpened { socket, remote, dialed });
            self.record(from, Some(node), state(ConnectionState::Connected, None));
            if to < self.length && !self.is_off(node, to) {
                let cause = Some("no pong for 3 s".to_owned());
                self.record(to, Some(node), EventKind::SocketClosed { socket });
                self.record(to, Some(node), state(ConnectionState::Backoff, cause));
            }
        }
        let connection = self.connections.len() - 1;
        self.message(connection, one, start + 4, summary("Connect", 0, 96, None));
        self.message(connection, other, start + 8, summary("ConnectResponse", 0, 40, None));
        let mut at = from + 1000;
        while at < to {
            self.message(connection, one, at, summary("Ping", 0, 12, None));
            self.message(connection, other, at + 9, summary("Pong", 0, 12, None));
            at += 2500;
        }
    }

    /// Sends a message, and returns when it arrives, if it does.
    fn message(
        &mut self,
        connection: usize,
        from: u8,
        at: u64,
        message: MessageSummary,
    ) -> Option<u64> {
        let Connection { ends: (one, other), to: end, sent, .. } =
            &mut self.connections[connection];
        let (to, end) = (if *one == from { *other } else { *one }, *end);
        let counter = &mut sent[usize::from(*one != from)];
        let index = *counter;
        *counter += 1;
        if at >= end || self.is_off(from, at) {
            return None;
        }
        let socket = connection as u32;
        self.record(at, Some(from), EventKind::MessageSent { socket, index, message });
        let arrived = self.arrival(from, to, at).filter(|arrives| *arrives < end)?;
        self.record(arrived, Some(to), EventKind::MessageReceived { socket, index });
        Some(arrived)
    }

    fn call(&mut self, call: CallId) {
        let at = self.part(30) + self.below(self.part(900));
        let from = self.below(u64::from(NODES)) as u8;
        let to = (from + 1 + self.below(3) as u8) % NODES;
        if self.is_off(from, at) {
            return;
        }
        let is_stream = self.below(6) == 0;
        let kind = if is_stream { CallKind::Stream } else { CallKind::Request };
        let timeout = 400 + self.below(1200) as u32;
        let timeout_ms = Some(timeout);
        self.record(at, Some(from), EventKind::CallMade { call, to: Node(to), kind, timeout_ms });
        let ends = (from.min(to), from.max(to));
        let live = |connection: &Connection| {
            connection.ends == ends && connection.from < at && at < connection.to
        };
        let Some(connection) = self.connections.iter().position(live) else {
            let outcome = Outcome::NotConnected;
            return self.record(at + 1, Some(from), EventKind::CallEnded { call, outcome });
        };
        let made = &mut self.connections[connection].made[usize::from(ends.0 != from)];
        *made += 1;
        let exchange = SyntheticCall { connection, call, mux: *made, from, to };
        let deadline = at + u64::from(timeout);
        let (ended, outcome) = if is_stream {
            self.stream(&exchange, at, deadline)
        } else {
            self.request(&exchange, at, deadline)
        };
        self.end(&exchange, ended, outcome);
    }

    /// Ends a call, unless its connection or its caller ends first.
    fn end(&mut self, exchange: &SyntheticCall, at: u64, outcome: Outcome) {
        let closed_at = self.connections[exchange.connection].to;
        let crash = self.part(600);
        let lost = exchange.from == 2 && at >= crash && closed_at < self.part(690);
        let (at, outcome) = match outcome {
            _ if lost => (crash, Outcome::Crashed),
            _ if at > closed_at => (closed_at, Outcome::Disconnected),
            outcome => (at, outcome),
        };
        self.record(at, Some(exchange.from), EventKind::CallEnded { call: exchange.call, outcome });
    }

    /// Adds a lock that is held, and one that times out.
    fn locks(&mut self, call: CallId) {
        let (at, write) = (self.part(900), true);
        for (call, node) in [(call, 0), (call + 1, 1)] {
            let (resources, timeout_ms) = (vec![0, 2], 90);
            let requested = EventKind::LockRequested { call, resources, write, timeout_ms };
            self.record(at, Some(node), requested);
        }
        let (token, resources, valid_ms) = (1_700_000, vec![0, 2], 57_800);
        let granted = EventKind::LockGranted { call, resources, write, token, valid_ms };
        self.record(at + 4, Some(0), granted);
        let (resource, writer, value) = (0, true, Some(17));
        let (accepted, held) = (true, true);
        let op = StoreOp::Write { value: 17 };
        self.record(at + 20, Some(0), EventKind::StoreRequested { call, resource, op });
        self.record(
            at + 22,
            Some(0),
            EventKind::StoreReached { call, resource, token, writer, value, accepted, held },
        );
        let result = StoreResult::Done { value: 17 };
        self.record(at + 24, Some(0), EventKind::StoreCompleted { call, resource, result });
        self.record(at + 60, Some(0), EventKind::LockLost { call, notice: LossNotice::Notified });
        self.record(at + 60, Some(0), EventKind::LockEnded { call, how: LockEnd::Lost });
        let (call, failure) = (call + 1, LockFailure::TimedOut);
        self.record(at + 90, Some(1), EventKind::LockFailed { call, failure });
    }

    fn request(&mut self, exchange: &SyntheticCall, at: u64, deadline: u64) -> (u64, Outcome) {
        let &SyntheticCall { connection, call, mux, from, to } = exchange;
        let bytes = 200 + self.below(4000) as u32;
        let arrived_at =
            self.message(connection, from, at, summary("Request", mux, bytes, Some(call)));
        let Some(arrived_at) = arrived_at else { return (deadline, Outcome::Deadline) };
        self.record(arrived_at, Some(to), EventKind::HandlerStarted { call, from: Node(from) });
        let works = [0, 5, 40, 300][self.below(4) as usize];
        let done = arrived_at + self.below(works + 3);
        let draw = self.below(40);
        let (how, outcome) = match draw {
            0 => (HandlerEnd::Failed, Outcome::RemoteError { text: "no such volume".into() }),
            1 => (HandlerEnd::Panicked, Outcome::RemoteError { text: "handler panicked".into() }),
            _ => (HandlerEnd::Returned, Outcome::Completed),
        };
        if draw == 2 {
            let cancelled_at = arrived_at + 20;
            self.message(
                connection,
                from,
                cancelled_at,
                summary("DisconnectServerMux", mux, 0, None),
            );
            let how = HandlerEnd::Cancelled;
            self.record(cancelled_at + 4, Some(to), EventKind::HandlerEnded { call, how });
            return (cancelled_at, Outcome::Cancelled);
        }
        self.handler_ended(exchange, done, how);
        let response = summary("Response", mux, bytes / 3, (draw != 0).then_some(call));
        match self.message(connection, to, done, response) {
            Some(received_at) if received_at < deadline => (received_at, outcome),
            _ => (deadline, Outcome::Deadline),
        }
    }

    fn handler_ended(&mut self, exchange: &SyntheticCall, at: u64, how: HandlerEnd) {
        let crash = self.part(600);
        let crashes = exchange.to == 2 && at >= crash && self.is_off(2, at);
        let (at, how) = if crashes { (crash, HandlerEnd::Crashed) } else { (at, how) };
        self.record(at, Some(exchange.to), EventKind::HandlerEnded { call: exchange.call, how });
    }

    fn stream(&mut self, exchange: &SyntheticCall, start: u64, deadline: u64) -> (u64, Outcome) {
        let &SyntheticCall { connection, call, mux, from, to } = exchange;
        let opening = summary("ConnectMux", mux, 64, Some(call));
        let Some(opened) = self.message(connection, from, start, opening) else {
            return (deadline, Outcome::Deadline);
        };
        self.record(opened, Some(to), EventKind::HandlerStarted { call, from: Node(from) });
        if let Some(taken) = self.message(connection, to, opened, summary("AckMux", mux, 0, None)) {
            self.record(taken, Some(from), EventKind::StreamOpened { call });
        }
        let count = 2 + self.below(9) as u32;
        let pace = 8 + self.below(60);
        let mut at = opened + 6;
        for number in 0..count {
            at += self.below(pace);
            if !self.stream_message(exchange, StreamSide::Caller, number, at)
                || !self.stream_message(exchange, StreamSide::Callee, number, at + 3)
            {
                self.handler_ended(exchange, deadline + 5, HandlerEnd::Cancelled);
                return (deadline, Outcome::Deadline);
            }
        }
        at += 10;
        self.handler_ended(exchange, at, HandlerEnd::Returned);
        match self.message(connection, to, at, summary("MuxServerMsg", mux, 0, None)) {
            Some(over) if over < deadline + 1000 => {
                let kind = EventKind::InputEnded { call, end: StreamSide::Caller, clean: true };
                self.record(over, Some(from), kind);
                (over + 1, Outcome::Completed)
            }
            _ => (deadline, Outcome::Deadline),
        }
    }

    /// Adds a message of a stream and its returned credit. Returns whether it arrived.
    fn stream_message(
        &mut self,
        exchange: &SyntheticCall,
        end: StreamSide,
        number: u32,
        at: u64,
    ) -> bool {
        let &SyntheticCall { connection, call, mux, from, to } = exchange;
        let (sender, taker, op, credit) = match end {
            StreamSide::Caller => (from, to, "MuxClientMsg", "UnblockClMux"),
            StreamSide::Callee => (to, from, "MuxServerMsg", "UnblockSrvMux"),
        };
        let bytes = 1000 + self.below(30_000) as u32;
        if at >= self.connections[connection].to || self.is_off(sender, at) {
            return false;
        }
        self.record(at, Some(sender), EventKind::Sent { call, end, number });
        let arrived = self.message(connection, sender, at, summary(op, mux, bytes, Some(call)));
        let Some(arrived) = arrived else { return false };
        let other = end.other();
        self.record(arrived, Some(taker), EventKind::Received { call, end: other, number });
        self.message(connection, taker, arrived, summary(credit, mux, 0, None));
        true
    }
}

/// A call on its connection.
struct SyntheticCall {
    connection: usize,
    call: CallId,
    mux: u64,
    from: u8,
    to: u8,
}

fn summary(op: &str, mux_id: u64, bytes: u32, call: Option<CallId>) -> MessageSummary {
    MessageSummary { op: op.into(), mux_id, sequence: 0, flags: 1, bytes, call }
}

fn plan(length: u64) -> Plan {
    let [n0, n1, n2, n3] = [Node(0), Node(1), Node(2), Node(3)];
    let faults = [
        (90, Fault::Skew(Skew { node: n1, ms: -2500 })),
        (180, Fault::Cut(Cut { a: n0, b: n1 })),
        (260, Fault::Repair(Repair { a: n0, b: n1 })),
        (320, Fault::Hold(Hold { a: n1, b: n2 })),
        (345, Fault::Repair(Repair { a: n1, b: n2 })),
        (400, Fault::Drift(Drift { node: n0, ppm: 300 })),
        (440, Fault::Slow(Slow { a: n0, b: n3, ms: 60 })),
        (540, Fault::Repair(Repair { a: n0, b: n3 })),
        (600, Fault::PowerLoss(PowerLoss { node: n2 })),
        (680, Fault::Restart(Restart { node: n2 })),
        (730, Fault::CutOneWay(CutOneWay { from: n3, to: n1 })),
        (790, Fault::Repair(Repair { a: n1, b: n3 })),
    ];
    let cluster = Cluster {
        nodes: NODES,
        tick_ms: 1,
        latency_min_ms: 1,
        latency_max_ms: 6,
        socket_segments: 64,
        limits: LimitsPlan::default(),
        fault_points: vec![("delay-flush".into(), 20)],
        late: vec![(n3, length * 25 / 1000)],
        wrong_secret_nodes: vec![],
        locks: None,
        iam: None,
        metrics: None,
    };
    Plan {
        scenario: "synthetic".into(),
        seed: 0xfeed_0000_0000_0042,
        cluster,
        duration_ms: length * 85 / 100,
        faults: faults.map(|(part, fault)| (length * part / 1000, fault)).to_vec(),
        load: vec![],
    }
}
