//! [P9], [P15] to [P18], as seen on the wire: each end sends only messages that the protocol
//! permits, whatever the other end makes of it.
//!
//! * Every message belongs to a call that was opened on its connection, in its direction ([B16]). A
//!   response follows a request that was read, and no request has two.
//! * The sequences of each direction of a stream count up without gaps ([B22]).
//! * No end exceeds the credit granted to it ([B21]), or sends after its own end.
//! * A node uses one connection to another, and never returns to one that it has abandoned ([B02]).
//!
//! [B02]: crate::rules#b02
//! [B16]: crate::rules#b16
//! [B21]: crate::rules#b21
//! [B22]: crate::rules#b22
//! [P9]: grid::protocol#p9
//! [P15]: grid::protocol#p15
//! [P18]: grid::protocol#p18

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grid::proto::message::Flags;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, MessageSummary, SocketId};
use crate::plan::{CAPACITIES, Load, Node};

/// Checks the messages of every connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// The node at the other end of each end of a connection.
    remotes: BTreeMap<(SocketId, Node), Node>,
    logs: BTreeMap<(SocketId, Node), SentLog>,
    /// The connection that a node uses to another.
    in_use: BTreeMap<(Node, Node), SocketId>,
    abandoned: BTreeSet<(SocketId, Node)>,
}

/// What one end of a connection has sent.
#[derive(Debug, Default)]
struct SentLog {
    sent: u64,
    /// Messages written that the other end has not read.
    in_flight: VecDeque<(MessageKind, u64)>,
    /// The calls that it has opened, by their mux ids.
    calls: BTreeMap<u64, WireCall>,
}

/// A call as both ends see it on the wire.
#[derive(Debug, Default)]
struct WireCall {
    is_stream: bool,
    /// Whether the callee has read the opening message.
    is_open_read: bool,
    has_response: bool,
    is_acknowledged: bool,
    to_callee: StreamDirection,
    to_caller: StreamDirection,
}

/// What one end of a stream has sent.
#[derive(Debug, Default)]
struct StreamDirection {
    /// The next sequence.
    sequence: u32,
    /// Messages whose credit has not been returned.
    uncredited: u32,
    capacity: u32,
    has_ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Open {
        is_stream: bool,
    },
    /// Keeps the stream alive; counts in the caller's sequence.
    Ping,
    Pong,
    Data(Destination),
    /// Returns one credit for messages toward this end.
    Credit(Destination),
    Acknowledge,
    Response,
    /// Ends a call, toward this end.
    Disconnect(Destination),
    /// A message of the connection itself.
    Connection,
}

/// The end that a message travels to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Callee,
    Caller,
}

impl MessageKind {
    fn of(message: &MessageSummary) -> Option<Self> {
        if message.mux_id == 0 {
            return Some(Self::Connection);
        }
        Some(match message.op.as_str() {
            "Request" => Self::Open { is_stream: false },
            "ConnectMux" => Self::Open { is_stream: true },
            "Ping" => Self::Ping,
            "Pong" => Self::Pong,
            "MuxClientMsg" => Self::Data(Destination::Callee),
            "MuxServerMsg" => Self::Data(Destination::Caller),
            "UnblockClMux" => Self::Credit(Destination::Callee),
            "UnblockSrvMux" => Self::Credit(Destination::Caller),
            "AckMux" => Self::Acknowledge,
            "Response" | "MuxConnectError" => Self::Response,
            "DisconnectServerMux" => Self::Disconnect(Destination::Callee),
            "DisconnectClientMux" => Self::Disconnect(Destination::Caller),
            _ => return None,
        })
    }

    /// Returns the end that the message travels to.
    fn destination(self) -> Destination {
        match self {
            Self::Open { .. } | Self::Ping | Self::Connection => Destination::Callee,
            Self::Data(destination) | Self::Disconnect(destination) => destination,
            Self::Credit(Destination::Callee) | Self::Acknowledge | Self::Response | Self::Pong => {
                Destination::Caller
            }
            Self::Credit(Destination::Caller) => Destination::Callee,
        }
    }
}

impl Invariant for Wire {
    fn name(&self) -> &'static str {
        "wire"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        let Some(node) = event.node else { return Ok(()) };
        match &event.kind {
            EventKind::SocketOpened { socket, remote, .. } => {
                self.remotes.insert((*socket, node), *remote);
                Ok(())
            }
            EventKind::MessageSent { socket, index, message } => {
                let result = self.on_sent((*socket, node), *index, message, context);
                result.map_err(|text| format!("{node} on socket {socket}: {message}: {text}"))
            }
            EventKind::MessageReceived { socket, index } => {
                let result = self.on_read((*socket, node), *index);
                result.map_err(|text| format!("{node} on socket {socket}: {text}"))
            }
            _ => Ok(()),
        }
    }
}

impl Wire {
    fn remote(&self, end: (SocketId, Node)) -> Result<Node, String> {
        self.remotes.get(&end).copied().ok_or_else(|| "it was never opened".to_owned())
    }

    fn on_sent(
        &mut self,
        end: (SocketId, Node),
        index: u64,
        message: &MessageSummary,
        context: &CheckContext<'_>,
    ) -> CheckResult {
        let (socket, node) = end;
        let remote = self.remote(end)?;
        let kind = MessageKind::of(message).ok_or("no such message belongs to a call")?;
        let log = self.logs.entry(end).or_default();
        if log.sent != index {
            return Err(format!("it is message {index}, and {} were written", log.sent));
        }
        log.sent += 1;
        log.in_flight.push_back((kind, message.mux_id));
        if kind == MessageKind::Connection {
            return Ok(());
        }
        self.on_use(socket, node, remote)?;
        let owner = match kind.destination() {
            Destination::Callee => end,
            Destination::Caller => (socket, remote),
        };
        let calls = &mut self.logs.entry(owner).or_default().calls;
        if let MessageKind::Open { is_stream } = kind {
            return on_opened(calls, is_stream, message, context);
        }
        let Some(call) = calls.get_mut(&message.mux_id) else {
            return Err("the call was never made on this connection, in this direction".to_owned());
        };
        if kind.destination() == Destination::Caller && !call.is_open_read {
            return Err("the call was not read yet".to_owned());
        }
        call.on_message(kind, message)
    }

    fn on_use(&mut self, socket: SocketId, node: Node, remote: Node) -> CheckResult {
        let in_use = self.in_use.insert((node, remote), socket);
        if let Some(in_use) = in_use.filter(|in_use| *in_use != socket) {
            self.abandoned.insert((in_use, node));
            if self.abandoned.contains(&(socket, node)) {
                return Err(format!("it was abandoned for socket {in_use} before"));
            }
        }
        Ok(())
    }

    /// Handles a message that `end` reads.
    fn on_read(&mut self, end: (SocketId, Node), index: u64) -> CheckResult {
        let remote = self.remote(end)?;
        let other = (end.0, remote);
        let log = self.logs.entry(other).or_default();
        let next = log.sent - log.in_flight.len() as u64;
        let (Some((kind, mux_id)), true) = (log.in_flight.pop_front(), index == next) else {
            return Err(format!("message {index} was read, {next} of {} is next", log.sent));
        };
        let owner = match kind.destination() {
            Destination::Callee => other,
            Destination::Caller => end,
        };
        if let Some(call) = self.logs.get_mut(&owner).and_then(|log| log.calls.get_mut(&mux_id)) {
            match kind {
                MessageKind::Open { .. } => call.is_open_read = true,
                MessageKind::Acknowledge => call.is_acknowledged = true,
                MessageKind::Credit(destination) => {
                    let direction = call.direction(destination);
                    direction.uncredited = direction.uncredited.saturating_sub(1);
                }
                MessageKind::Ping
                | MessageKind::Pong
                | MessageKind::Data(_)
                | MessageKind::Response
                | MessageKind::Disconnect(_)
                | MessageKind::Connection => {}
            }
        }
        Ok(())
    }
}

fn on_opened(
    calls: &mut BTreeMap<u64, WireCall>,
    is_stream: bool,
    message: &MessageSummary,
    context: &CheckContext<'_>,
) -> CheckResult {
    if let Some((last, _)) = calls.last_key_value().filter(|(last, _)| **last >= message.mux_id) {
        return Err(format!("ids grow, and {last} was there before"));
    }
    if message.sequence != 0 {
        return Err("a call begins with the sequence 0".to_owned());
    }
    let (input, output) = match message.call.and_then(|call| context.load(call)) {
        Some(Load::Stream(plan)) => CAPACITIES[usize::from(plan.capacities) % CAPACITIES.len()],
        Some(Load::Request(_) | Load::Lock(_) | Load::Force(_) | Load::Change(_)) | None => (0, 0),
    };
    let has_ended = Flags::from_bits(message.flags).contains(Flags::EOF);
    let to_callee = StreamDirection { sequence: 1, capacity: input, has_ended, uncredited: 0 };
    let to_caller = StreamDirection { capacity: output.max(1), ..StreamDirection::default() };
    calls.insert(
        message.mux_id,
        WireCall { is_stream, to_callee, to_caller, ..WireCall::default() },
    );
    Ok(())
}

impl WireCall {
    fn direction(&mut self, destination: Destination) -> &mut StreamDirection {
        match destination {
            Destination::Callee => &mut self.to_callee,
            Destination::Caller => &mut self.to_caller,
        }
    }

    fn on_message(&mut self, kind: MessageKind, message: &MessageSummary) -> CheckResult {
        match kind {
            MessageKind::Response if self.has_response => {
                return Err("it has a response already".to_owned());
            }
            MessageKind::Response if self.is_stream && message.op == "Response" => {
                return Err("it is a stream".to_owned());
            }
            MessageKind::Response => {
                self.has_response = true;
                return Ok(());
            }
            MessageKind::Disconnect(_)
            | MessageKind::Pong
            | MessageKind::Open { .. }
            | MessageKind::Connection => {
                return Ok(());
            }
            _ if !self.is_stream => return Err("it is not a stream".to_owned()),
            MessageKind::Data(Destination::Callee) if !self.is_acknowledged => {
                return Err("the stream was not acknowledged".to_owned());
            }
            MessageKind::Data(_)
            | MessageKind::Credit(_)
            | MessageKind::Acknowledge
            | MessageKind::Ping => {}
        }
        let from = self.direction(kind.destination());
        if message.sequence != from.sequence {
            return Err(format!("its sequence must be {}", from.sequence));
        }
        from.sequence += 1;
        if let MessageKind::Data(destination) = kind {
            return self.direction(destination).on_data(Flags::from_bits(message.flags));
        }
        Ok(())
    }
}

impl StreamDirection {
    fn on_data(&mut self, flags: Flags) -> CheckResult {
        if self.has_ended {
            return Err("this direction has ended already".to_owned());
        }
        self.has_ended = flags.contains(Flags::EOF);
        // An error needs no credit: it must reach a caller that has stopped reading (B24).
        if !flags.contains(Flags::EOF.with(Flags::ERROR)) {
            self.uncredited += 1;
        }
        if self.uncredited > self.capacity {
            return Err(format!("{} messages are in flight of {}", self.uncredited, self.capacity));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, assert_violates, read, request, sent, stream,
    };
    use super::*;

    const EOF: u8 = 2;
    const ERROR: u8 = 8;

    /// Two ends of socket 1; call 0 of the load is a stream.
    fn harness(load: Load) -> Harness {
        let mut harness = Harness::new(Wire::default(), vec![load]);
        for socket in [1, 2] {
            let opened = |remote| EventKind::SocketOpened { socket, remote, dialed: true };
            harness.feed([(0, CALLER, opened(CALLEE)), (0, CALLEE, opened(CALLER))]);
        }
        harness
    }

    /// A stream with the id 5, acknowledged.
    fn open(harness: &mut Harness) {
        harness.feed([
            (1, CALLER, sent(1, 0, "ConnectMux", (5, 0, 0))),
            (2, CALLEE, read(1, 0)),
            (2, CALLEE, sent(1, 0, "AckMux", (5, 0, 0))),
            (3, CALLER, read(1, 0)),
        ]);
    }

    #[test]
    fn valid_stream_and_request_pass() {
        let mut harness = harness(stream(|_| {}));
        open(&mut harness);
        harness.feed([
            (4, CALLER, sent(1, 1, "MuxClientMsg", (5, 1, 0))),
            (4, CALLER, sent(1, 2, "MuxClientMsg", (5, 2, 0))),
            (5, CALLEE, read(1, 1)),
            (5, CALLEE, sent(1, 1, "UnblockClMux", (5, 1, 0))),
            (6, CALLER, read(1, 1)),
            (6, CALLER, sent(1, 3, "MuxClientMsg", (5, 3, EOF))),
            (6, CALLEE, sent(1, 2, "MuxServerMsg", (5, 2, EOF))),
            (7, CALLER, sent(1, 4, "Request", (6, 0, EOF))),
            (8, CALLEE, read(1, 2)),
            (8, CALLEE, read(1, 3)),
            (8, CALLEE, read(1, 4)),
            (8, CALLEE, sent(1, 3, "Response", (6, 0, EOF))),
            (9, CALLER, sent(2, 0, "Request", (1, 0, EOF))),
            (9, CALLER, sent(1, 5, "Disconnect", (0, 0, 0))),
        ]);
    }

    #[test]
    fn credits_are_counted_in_both_directions_and_an_error_needs_none() {
        let mut up = harness(stream(|_| {}));
        open(&mut up);
        up.feed([
            (4, CALLER, sent(1, 1, "MuxClientMsg", (5, 1, 0))),
            (4, CALLER, sent(1, 2, "MuxClientMsg", (5, 2, 0))),
        ]);
        assert_violates(
            up.at(4, CALLER, sent(1, 3, "MuxClientMsg", (5, 3, 0))),
            "3 messages are in flight",
        );
        let mut down = harness(stream(|_| {}));
        open(&mut down);
        for number in 1..=3 {
            let data = sent(1, u64::from(number), "MuxServerMsg", (5, number, 0));
            down.feed([(4, CALLEE, data)]);
        }
        down.feed([(5, CALLEE, sent(1, 4, "MuxServerMsg", (5, 4, EOF | ERROR)))]);
        let behind = sent(1, 5, "MuxServerMsg", (5, 5, 0));
        assert_violates(down.at(5, CALLEE, behind), "ended already");
    }

    #[test]
    fn message_out_of_order_is_a_violation() {
        let cases = [
            (CALLER, sent(1, 1, "MuxClientMsg", (5, 2, 0)), "must be 1"),
            (CALLEE, sent(1, 1, "MuxServerMsg", (5, 0, 0)), "must be 1"),
            (CALLER, sent(1, 1, "ConnectMux", (5, 0, 0)), "ids grow"),
            (CALLER, sent(1, 1, "ConnectMux", (6, 1, 0)), "sequence 0"),
            (CALLER, sent(1, 2, "Ping", (5, 1, 0)), "1 were written"),
            (CALLER, sent(1, 1, "Merged", (5, 1, 0)), "no such message"),
            (CALLEE, sent(1, 1, "Response", (5, 0, 0)), "is a stream"),
            (CALLER, read(1, 1), "1 of 1 is next"),
            (CALLER, read(3, 0), "never opened"),
        ];
        for (node, kind, names) in cases {
            let mut harness = harness(stream(|_| {}));
            open(&mut harness);
            assert_violates(harness.at(4, node, kind), names);
        }
        let mut early = harness(stream(|_| {}));
        early.feed([(1, CALLER, sent(1, 0, "ConnectMux", (5, 0, 0)))]);
        let data = sent(1, 1, "MuxClientMsg", (5, 1, 0));
        assert_violates(early.at(1, CALLER, data), "not acknowledged");
    }

    #[test]
    fn b16_response_needs_a_request_of_its_direction_that_was_read_and_has_none() {
        let response = |index| sent(1, index, "Response", (5, 0, EOF));
        let mut harness = harness(request(|_| {}));
        harness.feed([(1, CALLER, sent(1, 0, "Request", (5, 0, EOF)))]);
        assert_violates(
            harness.at(1, CALLER, sent(1, 1, "Response", (5, 0, EOF))),
            "in this direction",
        );
        assert_violates(harness.at(1, CALLEE, response(0)), "not read");
        harness.feed([(2, CALLEE, read(1, 0)), (2, CALLEE, response(1))]);
        assert_violates(harness.at(3, CALLEE, response(2)), "has a response already");
        assert_violates(harness.at(3, CALLEE, sent(1, 3, "AckMux", (5, 0, 0))), "not a stream");
    }

    #[test]
    fn b02_abandoned_connection_is_not_used_again() {
        let mut harness = harness(request(|_| {}));
        harness.feed([
            (1, CALLER, sent(1, 0, "Request", (1, 0, EOF))),
            (2, CALLER, sent(2, 0, "Request", (1, 0, EOF))),
        ]);
        assert_violates(
            harness.at(3, CALLER, sent(1, 1, "Request", (2, 0, EOF))),
            "abandoned for socket 2",
        );
    }
}
