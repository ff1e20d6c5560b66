//! P9, P15 to P18, as they stand on the wire: what one end says is what it may say, whatever the
//! other makes of it.
//!
//! * Every message belongs to a call that was opened on this very connection, in its direction
//!   (B16), and an answer follows a question that was read; no question has two.
//! * Sequences of each direction of a stream count up without gap (B22).
//! * No end sends more than the credit that it has been given back (B21), or behind its own end.
//! * A node uses one connection to another, and never returns to one that it has left (B02).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grid::proto::message::Flags;

use super::{Facts, Invariant, Verdict};
use crate::event::{Event, EventKind, MessageSummary, SocketId};
use crate::plan::{CAPACITIES, Load, Node};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// The other end of each end of a connection.
    remotes: BTreeMap<(SocketId, Node), Node>,
    lines: BTreeMap<(SocketId, Node), Line>,
    /// The connection that a node uses to another.
    used: BTreeMap<(Node, Node), SocketId>,
    left: BTreeSet<(SocketId, Node)>,
}

/// What one end of a connection has said.
#[derive(Debug, Default)]
struct Line {
    sent: u64,
    /// What it has written and the other end has not read.
    under_way: VecDeque<(Kind, u64)>,
    /// The calls that it has opened, by their ids.
    calls: BTreeMap<u64, Call>,
}

/// A call, as far as both ends have spoken of it.
#[derive(Debug, Default)]
struct Call {
    is_stream: bool,
    /// Whether the serving side has read that it was opened.
    is_read: bool,
    is_answered: bool,
    is_acknowledged: bool,
    up: Direction,
    down: Direction,
}

/// What one end of a stream has sent.
#[derive(Debug, Default)]
struct Direction {
    /// The sequence that comes next.
    sequence: u32,
    /// Messages for which no credit came back.
    owed: u32,
    capacity: u32,
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open {
        is_stream: bool,
    },
    /// Says that it lives; counts in the caller's sequence.
    Ping,
    Pong,
    Data(Way),
    /// Gives one credit back, for messages that go this way.
    Credit(Way),
    Acknowledge,
    Answer,
    /// The end of a call, from the end that this is the way away from.
    Disconnect(Way),
    /// Of the connection itself.
    Connection,
}

/// From the caller to the handler, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Kind {
    fn of(message: &MessageSummary) -> Option<Self> {
        if message.mux_id == 0 {
            return Some(Self::Connection);
        }
        Some(match message.op.as_str() {
            "Request" => Self::Open { is_stream: false },
            "ConnectMux" => Self::Open { is_stream: true },
            "Ping" => Self::Ping,
            "Pong" => Self::Pong,
            "MuxClientMsg" => Self::Data(Way::Up),
            "MuxServerMsg" => Self::Data(Way::Down),
            "UnblockClMux" => Self::Credit(Way::Up),
            "UnblockSrvMux" => Self::Credit(Way::Down),
            "AckMux" => Self::Acknowledge,
            "Response" | "MuxConnectError" => Self::Answer,
            "DisconnectServerMux" => Self::Disconnect(Way::Up),
            "DisconnectClientMux" => Self::Disconnect(Way::Down),
            _ => return None,
        })
    }

    /// Who says it: the end that the call is of, or the one that serves it.
    fn way(self) -> Way {
        match self {
            Self::Open { .. } | Self::Ping | Self::Connection => Way::Up,
            Self::Data(way) | Self::Disconnect(way) => way,
            Self::Credit(Way::Up) | Self::Acknowledge | Self::Answer | Self::Pong => Way::Down,
            Self::Credit(Way::Down) => Way::Up,
        }
    }
}

impl Invariant for Wire {
    fn name(&self) -> &'static str {
        "wire"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        let Some(node) = event.node else { return Ok(()) };
        match &event.kind {
            EventKind::SocketOpened { socket, remote, .. } => {
                self.remotes.insert((*socket, node), *remote);
                Ok(())
            }
            EventKind::MessageSent { socket, index, message } => {
                let says = self.sent((*socket, node), *index, message, facts);
                says.map_err(|text| format!("{node} on socket {socket}: {message}: {text}"))
            }
            EventKind::MessageReceived { socket, index } => {
                let read = self.read((*socket, node), *index);
                read.map_err(|text| format!("{node} on socket {socket}: {text}"))
            }
            _ => Ok(()),
        }
    }
}

impl Wire {
    fn remote(&self, end: (SocketId, Node)) -> Result<Node, String> {
        self.remotes.get(&end).copied().ok_or_else(|| "it was never opened".to_owned())
    }

    fn sent(
        &mut self,
        end: (SocketId, Node),
        index: u64,
        message: &MessageSummary,
        facts: &Facts<'_>,
    ) -> Verdict {
        let (socket, node) = end;
        let remote = self.remote(end)?;
        let kind = Kind::of(message).ok_or("no such message belongs to a call")?;
        let line = self.lines.entry(end).or_default();
        if line.sent != index {
            return Err(format!("it is message {index}, and {} were written", line.sent));
        }
        line.sent += 1;
        line.under_way.push_back((kind, message.mux_id));
        if kind == Kind::Connection {
            return Ok(());
        }
        self.uses(socket, node, remote)?;
        let owner = match kind.way() {
            Way::Up => end,
            Way::Down => (socket, remote),
        };
        let calls = &mut self.lines.entry(owner).or_default().calls;
        if let Kind::Open { is_stream } = kind {
            return opened(calls, is_stream, message, facts);
        }
        let Some(call) = calls.get_mut(&message.mux_id) else {
            return Err("the call was never made on this connection, in this direction".to_owned());
        };
        if kind.way() == Way::Down && !call.is_read {
            return Err("the call was not read yet".to_owned());
        }
        call.says(kind, message)
    }

    fn uses(&mut self, socket: SocketId, node: Node, remote: Node) -> Verdict {
        let used = self.used.insert((node, remote), socket);
        if let Some(used) = used.filter(|used| *used != socket) {
            self.left.insert((used, node));
            if self.left.contains(&(socket, node)) {
                return Err(format!("it was left for socket {used} before"));
            }
        }
        Ok(())
    }

    /// `end` reads a message.
    fn read(&mut self, end: (SocketId, Node), index: u64) -> Verdict {
        let remote = self.remote(end)?;
        let other = (end.0, remote);
        let line = self.lines.entry(other).or_default();
        let next = line.sent - line.under_way.len() as u64;
        let (Some((kind, mux_id)), true) = (line.under_way.pop_front(), index == next) else {
            return Err(format!("message {index} was read, {next} of {} is next", line.sent));
        };
        let owner = match kind.way() {
            Way::Up => other,
            Way::Down => end,
        };
        if let Some(call) = self.lines.get_mut(&owner).and_then(|line| line.calls.get_mut(&mux_id))
        {
            match kind {
                Kind::Open { .. } => call.is_read = true,
                Kind::Acknowledge => call.is_acknowledged = true,
                Kind::Credit(way) => {
                    let direction = call.direction(way);
                    direction.owed = direction.owed.saturating_sub(1);
                }
                Kind::Ping
                | Kind::Pong
                | Kind::Data(_)
                | Kind::Answer
                | Kind::Disconnect(_)
                | Kind::Connection => {}
            }
        }
        Ok(())
    }
}

fn opened(
    calls: &mut BTreeMap<u64, Call>,
    is_stream: bool,
    message: &MessageSummary,
    facts: &Facts<'_>,
) -> Verdict {
    if let Some((last, _)) = calls.last_key_value().filter(|(last, _)| **last >= message.mux_id) {
        return Err(format!("ids grow, and {last} was there before"));
    }
    if message.sequence != 0 {
        return Err("a call begins with the sequence 0".to_owned());
    }
    let (input, output) = match message.call.and_then(|call| facts.load(call)) {
        Some(Load::Stream(plan)) => CAPACITIES[usize::from(plan.capacities) % CAPACITIES.len()],
        Some(Load::Request(_) | Load::Lock(_) | Load::Force(_) | Load::Change(_)) | None => (0, 0),
    };
    let is_over = Flags::from_bits(message.flags).contains(Flags::EOF);
    let up = Direction { sequence: 1, capacity: input, is_over, owed: 0 };
    let down = Direction { capacity: output.max(1), ..Direction::default() };
    calls.insert(message.mux_id, Call { is_stream, up, down, ..Call::default() });
    Ok(())
}

impl Call {
    fn direction(&mut self, way: Way) -> &mut Direction {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    fn says(&mut self, kind: Kind, message: &MessageSummary) -> Verdict {
        match kind {
            Kind::Answer if self.is_answered => return Err("it was answered before".to_owned()),
            Kind::Answer if self.is_stream && message.op == "Response" => {
                return Err("it is a stream".to_owned());
            }
            Kind::Answer => {
                self.is_answered = true;
                return Ok(());
            }
            Kind::Disconnect(_) | Kind::Pong | Kind::Open { .. } | Kind::Connection => {
                return Ok(());
            }
            _ if !self.is_stream => return Err("it is no stream".to_owned()),
            Kind::Data(Way::Up) if !self.is_acknowledged => {
                return Err("the stream was not acknowledged".to_owned());
            }
            Kind::Data(_) | Kind::Credit(_) | Kind::Acknowledge | Kind::Ping => {}
        }
        let from = self.direction(kind.way());
        if message.sequence != from.sequence {
            return Err(format!("its sequence must be {}", from.sequence));
        }
        from.sequence += 1;
        if let Kind::Data(way) = kind {
            return self.direction(way).data(Flags::from_bits(message.flags));
        }
        Ok(())
    }
}

impl Direction {
    fn data(&mut self, flags: Flags) -> Verdict {
        if self.is_over {
            return Err("this direction was over before".to_owned());
        }
        self.is_over = flags.contains(Flags::EOF);
        // An error needs no credit: it must reach whoever has stopped reading (B24).
        if !flags.contains(Flags::EOF.with(Flags::ERROR)) {
            self.owed += 1;
        }
        if self.owed > self.capacity {
            return Err(format!("{} messages are under way of {}", self.owed, self.capacity));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, SERVER, bites, read, request, sent, stream};
    use super::*;

    const EOF: u8 = 2;
    const ERROR: u8 = 8;

    /// Two ends of socket 1; call 0 of the load is a stream.
    fn bench(load: Load) -> Bench {
        let mut bench = Bench::new(Wire::default(), vec![load]);
        for socket in [1, 2] {
            let opened = |remote| EventKind::SocketOpened { socket, remote, dialed: true };
            bench.well([(0, CALLER, opened(SERVER)), (0, SERVER, opened(CALLER))]);
        }
        bench
    }

    /// A stream with the id 5, acknowledged.
    fn open(bench: &mut Bench) {
        bench.well([
            (1, CALLER, sent(1, 0, "ConnectMux", (5, 0, 0))),
            (2, SERVER, read(1, 0)),
            (2, SERVER, sent(1, 0, "AckMux", (5, 0, 0))),
            (3, CALLER, read(1, 0)),
        ]);
    }

    #[test]
    fn a_stream_and_a_request_pass() {
        let mut bench = bench(stream(|_| {}));
        open(&mut bench);
        bench.well([
            (4, CALLER, sent(1, 1, "MuxClientMsg", (5, 1, 0))),
            (4, CALLER, sent(1, 2, "MuxClientMsg", (5, 2, 0))),
            (5, SERVER, read(1, 1)),
            (5, SERVER, sent(1, 1, "UnblockClMux", (5, 1, 0))),
            (6, CALLER, read(1, 1)),
            (6, CALLER, sent(1, 3, "MuxClientMsg", (5, 3, EOF))),
            (6, SERVER, sent(1, 2, "MuxServerMsg", (5, 2, EOF))),
            (7, CALLER, sent(1, 4, "Request", (6, 0, EOF))),
            (8, SERVER, read(1, 2)),
            (8, SERVER, read(1, 3)),
            (8, SERVER, read(1, 4)),
            (8, SERVER, sent(1, 3, "Response", (6, 0, EOF))),
            (9, CALLER, sent(2, 0, "Request", (1, 0, EOF))),
            (9, CALLER, sent(1, 5, "Disconnect", (0, 0, 0))),
        ]);
    }

    #[test]
    fn credits_are_counted_in_both_directions_and_an_error_needs_none() {
        let mut up = bench(stream(|_| {}));
        open(&mut up);
        up.well([
            (4, CALLER, sent(1, 1, "MuxClientMsg", (5, 1, 0))),
            (4, CALLER, sent(1, 2, "MuxClientMsg", (5, 2, 0))),
        ]);
        bites(up.at(4, CALLER, sent(1, 3, "MuxClientMsg", (5, 3, 0))), "3 messages are under way");
        let mut down = bench(stream(|_| {}));
        open(&mut down);
        for number in 1..=3 {
            let data = sent(1, u64::from(number), "MuxServerMsg", (5, number, 0));
            down.well([(4, SERVER, data)]);
        }
        down.well([(5, SERVER, sent(1, 4, "MuxServerMsg", (5, 4, EOF | ERROR)))]);
        let behind = sent(1, 5, "MuxServerMsg", (5, 5, 0));
        bites(down.at(5, SERVER, behind), "over before");
    }

    #[test]
    fn what_breaks_the_order_of_a_stream_is_refused() {
        let cases = [
            (CALLER, sent(1, 1, "MuxClientMsg", (5, 2, 0)), "must be 1"),
            (SERVER, sent(1, 1, "MuxServerMsg", (5, 0, 0)), "must be 1"),
            (CALLER, sent(1, 1, "ConnectMux", (5, 0, 0)), "ids grow"),
            (CALLER, sent(1, 1, "ConnectMux", (6, 1, 0)), "sequence 0"),
            (CALLER, sent(1, 2, "Ping", (5, 1, 0)), "1 were written"),
            (CALLER, sent(1, 1, "Merged", (5, 1, 0)), "no such message"),
            (SERVER, sent(1, 1, "Response", (5, 0, 0)), "is a stream"),
            (CALLER, read(1, 1), "1 of 1 is next"),
            (CALLER, read(3, 0), "never opened"),
        ];
        for (node, kind, names) in cases {
            let mut bench = bench(stream(|_| {}));
            open(&mut bench);
            bites(bench.at(4, node, kind), names);
        }
        let mut early = bench(stream(|_| {}));
        early.well([(1, CALLER, sent(1, 0, "ConnectMux", (5, 0, 0)))]);
        let data = sent(1, 1, "MuxClientMsg", (5, 1, 0));
        bites(early.at(1, CALLER, data), "not acknowledged");
    }

    #[test]
    fn b16_an_answer_needs_a_question_of_its_direction_that_was_read_and_has_none() {
        let response = |index| sent(1, index, "Response", (5, 0, EOF));
        let mut bench = bench(request(|_| {}));
        bench.well([(1, CALLER, sent(1, 0, "Request", (5, 0, EOF)))]);
        bites(bench.at(1, CALLER, sent(1, 1, "Response", (5, 0, EOF))), "in this direction");
        bites(bench.at(1, SERVER, response(0)), "not read");
        bench.well([(2, SERVER, read(1, 0)), (2, SERVER, response(1))]);
        bites(bench.at(3, SERVER, response(2)), "answered before");
        bites(bench.at(3, SERVER, sent(1, 3, "AckMux", (5, 0, 0))), "no stream");
    }

    #[test]
    fn b02_a_connection_that_was_left_is_not_used_again() {
        let mut bench = bench(request(|_| {}));
        bench.well([
            (1, CALLER, sent(1, 0, "Request", (1, 0, EOF))),
            (2, CALLER, sent(2, 0, "Request", (1, 0, EOF))),
        ]);
        bites(bench.at(3, CALLER, sent(1, 1, "Request", (2, 0, EOF))), "left for socket 2");
    }
}
