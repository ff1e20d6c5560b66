//! The states of calls and streams as tables: every state × every event, one snapshot each.
//!
//! A row says which state an event leads to, and which messages and events it causes. Each cell is
//! computed on a machine of its own, in which call 1 is in the row's state. A change of behaviour
//! shows as a changed row: accept it only if a rule demands it.

use super::*;
use crate::proto::connection::{Respond, Slot};
use crate::proto::inbound::InboundState;
use crate::proto::message::parse_frame;
use crate::proto::outbound::OutboundState;
use crate::proto::stream::StreamSide::{Callee, Caller};

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const ID: u64 = 1;
/// Ids from here on belong to the calls that fill the queue.
const FILLER: u64 = 100;

/// A machine with the call under test, and what left it since the call was in its state.
struct Subject {
    connection: Connection,
    sent: Vec<Message>,
}

type State = (&'static str, fn(&mut Subject));
type Input = (&'static str, fn(&mut Subject));

impl Subject {
    /// Makes a machine whose queue holds two messages of 100 bytes and no third.
    fn new() -> Self {
        let limits = Limits { message_bytes_max: 150, queue_bytes_max: 300, ..Limits::default() };
        Self { connection: Connection::new(&limits, Checksum::Off, NOW), sent: Vec::new() }
    }

    fn receive(&mut self, header: Header, payload: &'static [u8]) {
        let message = Message { header, payload: Bytes::from_static(payload), subroute: None };
        self.connection.handle_message(message, NOW);
    }

    /// Delivers a message of call 1 with the sequence number that its stream expects.
    fn deliver(&mut self, op: Op, flags: Flags, payload: &'static [u8]) {
        let side = match op {
            Op::MuxClientMsg | Op::UnblockSrvMux | Op::Ping => Callee,
            _ => Caller,
        };
        let stream = self.connection.stream_mut(StreamId { side, mux_id: ID });
        let mut sequence = stream.map_or(0, |stream| stream.expected_sequence());
        if let Some(InboundState::Opening { .. }) = self.connection.inbound_state() {
            sequence = 1;
        }
        self.receive(Header { sequence, flags, ..Header::new(ID, op) }, payload);
    }

    fn fill_queue(&mut self) {
        for mux_id in [FILLER, FILLER + 1] {
            self.receive(Header { handler: 7, ..Header::new(mux_id, Op::Request) }, b"");
            let response = Ok(Bytes::from_static(&[b'x'; 100]));
            assert_eq!(self.connection.respond(mux_id, &response, NOW), Respond::Accepted);
        }
    }

    fn call(&mut self) {
        let payload = Bytes::from_static(&[b'x'; 100]);
        let request = Request { handler: 7, subroute: None, payload, deadline: NOW + MINUTE };
        self.connection.call(Slot(1), &request, NOW).expect("the call starts");
    }

    fn open(&mut self) {
        let open = OpenRequest {
            handler: 7,
            subroute: None,
            payload: Some(Bytes::from_static(&[b'x'; 100])),
            deadline: Some(NOW + MINUTE),
            capacities: Capacities { input: 1, output: 1 },
        };
        self.connection.open(Slot(1), open, NOW).expect("the stream opens");
    }

    fn receive_call(&mut self, op: Op) {
        self.receive(Header { handler: 7, deadline_ms: 60_000, ..Header::new(ID, op) }, b"");
    }

    fn accept(&mut self) {
        let capacities = Capacities { input: 1, output: 1 };
        assert!(self.connection.accept(ID, Slot(1), capacities, NOW), "the stream is live");
    }

    fn send(&mut self, side: StreamSide) {
        let mut payload = Some(Bytes::from_static(b"message"));
        self.connection.send(StreamId { side, mux_id: ID }, &mut payload);
    }

    fn respond(&mut self, response: &HandlerResult) {
        let _: Respond = self.connection.respond(ID, response, NOW);
    }

    /// Takes frames without letting waiters into the freed room.
    fn drain_queue(&mut self) {
        while let Some(transmit) = self.connection.queue.pop() {
            self.take(transmit);
        }
    }

    fn transmit_all(&mut self) {
        while let Some(transmit) = self.connection.poll_transmit(NOW) {
            self.take(transmit);
        }
    }

    fn take(&mut self, transmit: crate::proto::Transmit) {
        parse_frame(&transmit.into_bytes(), &mut self.sent).expect("a valid frame");
    }

    fn state(&self, side: StreamSide) -> String {
        match side {
            Caller => match self.connection.outbound.get(ID).map(|call| &call.state) {
                None => "ended".into(),
                Some(OutboundState::Blocked { .. }) => "Blocked".into(),
                Some(OutboundState::Sent) => "Sent".into(),
                Some(OutboundState::StreamBlocked { stream, .. }) => {
                    format!("StreamBlocked {}", stream.description())
                }
                Some(OutboundState::Stream { stream, is_acknowledged: false }) => {
                    format!("Unacknowledged {}", stream.description())
                }
                Some(OutboundState::Stream { stream, is_acknowledged: true }) => {
                    format!("Open {}", stream.description())
                }
            },
            Callee => match self.connection.inbound_state() {
                None => "ended".into(),
                Some(InboundState::Running) => "Running".into(),
                Some(InboundState::Blocked { .. }) => "Blocked".into(),
                Some(InboundState::Opening { .. }) => "Opening".into(),
                Some(InboundState::Stream(inbound)) => {
                    format!("Accepted {}", inbound.stream.description())
                }
            },
        }
    }

    /// Returns the messages and events since the call was in its state.
    fn effects(&mut self) -> Vec<String> {
        self.drain_queue();
        let own = self.sent.iter().filter(|message| message.header.mux_id == ID);
        let sent = own.map(|message| format!("sends {}", message_text(message)));
        let mut effects: Vec<_> = sent.collect();
        while let Some(event) = self.connection.poll_event() {
            effects.push(event_text(event));
        }
        effects
    }
}

impl Connection {
    fn inbound_state(&self) -> Option<&InboundState<Slot>> {
        self.inbound.get(ID).map(|call| &call.state)
    }
}

fn message_text(message: &Message) -> String {
    let Header { op, flags, .. } = message.header;
    let named = [(Flags::EOF, " EOF"), (Flags::ERROR, " ERROR")];
    let flags: String =
        named.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect();
    format!("{op:?}{flags}")
}

fn event_text(event: Event) -> String {
    match event {
        Event::CallEnded { outcome: Ok(_), .. } => "CallEnded(response)".into(),
        Event::CallEnded { outcome: Err(end), .. } => format!("CallEnded({})", end_text(&end)),
        Event::StreamEnded { rest, end, .. } if rest.is_empty() => {
            format!("StreamEnded({})", end_text(&end))
        }
        Event::StreamEnded { rest, end, .. } => {
            format!("StreamEnded({}, {} unread)", end_text(&end), rest.len())
        }
        Event::Incoming(_) => "Incoming".into(),
        Event::Opened(_) => "Opened".into(),
        Event::Readable(_) => "Readable".into(),
        Event::Writable(_) => "Writable".into(),
        Event::Cancel { .. } => "Cancel".into(),
        Event::ResponseRetired { .. } => "ResponseRetired".into(),
        Event::Skipped { .. } => "Skipped".into(),
        Event::Closed(_) => "Closed".into(),
    }
}

fn end_text(end: &End) -> String {
    let text = format!("{end:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

fn table(side: StreamSide, states: &[State], inputs: &[Input]) -> String {
    let mut table = row("STATE", "EVENT", "NEW STATE", "EFFECTS");
    for (name, make) in states {
        for (input, apply) in inputs {
            let mut subject = Subject::new();
            make(&mut subject);
            while subject.connection.poll_event().is_some() {}
            if subject.connection.blocked_messages() == 0 {
                subject.drain_queue();
            }
            subject.sent.clear();
            let before = subject.state(side);
            apply(&mut subject);
            let after = subject.state(side);
            let effects = subject.effects();
            let effects = if effects.is_empty() && before == after {
                "ignored".to_owned()
            } else {
                effects.join(", ")
            };
            let arrow = if before == after { "=".to_owned() } else { after };
            table += &row(name, input, &arrow, &effects);
        }
        table.push('\n');
    }
    table
}

/// A state that does not change is shown as `=`.
fn row(state: &str, event: &str, new_state: &str, effects: &str) -> String {
    let row = format!("{state:<24} {event:<25} -> {new_state:<39} {effects}");
    format!("{}\n", row.trim_end())
}

fn assert_table(name: &str, table: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(name, table));
}

const CALL_INPUTS: [Input; 17] = [
    ("Response", |s| s.deliver(Op::Response, Flags::EOF, b"response")),
    ("Response ERROR", |s| s.deliver(Op::Response, Flags::EOF.with(Flags::ERROR), b"error")),
    ("MuxConnectError", |s| s.deliver(Op::MuxConnectError, Flags::NONE, b"\x81\xa5Error\xa1x")),
    ("DisconnectClientMux", |s| s.deliver(Op::DisconnectClientMux, Flags::NONE, b"")),
    ("DisconnectClientMux ERROR", |s| s.deliver(Op::DisconnectClientMux, Flags::ERROR, b"error")),
    ("AckMux", |s| s.deliver(Op::AckMux, Flags::NONE, b"")),
    ("MuxServerMsg", |s| s.deliver(Op::MuxServerMsg, Flags::NONE, b"message")),
    ("MuxServerMsg EOF", |s| s.deliver(Op::MuxServerMsg, Flags::EOF, b"")),
    ("MuxServerMsg EOF ERROR", |s| {
        s.deliver(Op::MuxServerMsg, Flags::EOF.with(Flags::ERROR), b"error");
    }),
    ("UnblockClMux", |s| s.deliver(Op::UnblockClMux, Flags::NONE, b"")),
    ("wrong sequence", |s| {
        s.receive(Header { sequence: 77, ..Header::new(ID, Op::MuxServerMsg) }, b"");
    }),
    ("Pong", |s| s.deliver(Op::Pong, Flags::NONE, PONG)),
    ("Pong not found", |s| s.deliver(Op::Pong, Flags::NONE, PONG_NOT_FOUND)),
    ("cancel", |s| s.connection.cancel(ID)),
    ("deadline", |s| s.connection.checked(|connection| connection.expire_call(ID))),
    ("room in the queue", Subject::transmit_all),
    ("close", |s| s.connection.close(CloseReason::Peer)),
];

/// Maps of msgpack: absent fields have their defaults.
const PONG: &[u8] = b"\x80";
const PONG_NOT_FOUND: &[u8] = b"\x81\xa2nf\xc3";

#[test]
fn b14_p14_states_of_an_outbound_call() {
    let states: [State; 3] = [
        ("Blocked", |s| {
            s.fill_queue();
            s.call();
        }),
        ("Sent", Subject::call),
        ("ended", |s| {
            s.call();
            s.connection.cancel(ID);
        }),
    ];
    assert_table("outbound_call", &table(Caller, &states, &CALL_INPUTS));
}

#[test]
fn b14_p18_states_of_an_outbound_stream() {
    let states: [State; 8] = [
        ("blocked", |s| {
            s.fill_queue();
            s.open();
        }),
        ("unacknowledged", Subject::open),
        ("unacknowledged, waiting", |s| {
            s.open();
            s.send(Caller);
        }),
        ("open", opened),
        ("open, unread", |s| {
            opened(s);
            s.deliver(Op::MuxServerMsg, Flags::NONE, b"message");
        }),
        ("open, no credit", |s| {
            opened(s);
            s.send(Caller);
            s.send(Caller);
        }),
        ("open, finished", |s| {
            opened(s);
            s.connection.finish(StreamId { side: Caller, mux_id: ID });
        }),
        ("ended", |s| {
            opened(s);
            s.connection.cancel(ID);
        }),
    ];
    let mut inputs = CALL_INPUTS.to_vec();
    inputs.extend::<[Input; 6]>([
        ("send", |s| s.send(Caller)),
        ("cancel_send", |s| s.connection.cancel_send(StreamId { side: Caller, mux_id: ID })),
        ("finish", |s| {
            s.connection.finish(StreamId { side: Caller, mux_id: ID });
        }),
        ("receive", |s| {
            s.connection.receive(StreamId { side: Caller, mux_id: ID });
        }),
        ("stop_receiving", |s| s.connection.stop_receiving(StreamId { side: Caller, mux_id: ID })),
        ("time for a ping", |s| {
            let interval = s.connection.limits.stream_ping_interval;
            s.connection.ping_stream(ID, NOW + interval);
        }),
    ]);
    assert_table("outbound_stream", &table(Caller, &states, &inputs));
}

fn opened(subject: &mut Subject) {
    subject.open();
    subject.drain_queue();
    subject.deliver(Op::AckMux, Flags::NONE, b"");
}

const INBOUND_INPUTS: [Input; 12] = [
    ("Request", |s| s.receive_call(Op::Request)),
    ("ConnectMux", |s| s.receive_call(Op::ConnectMux)),
    ("DisconnectServerMux", |s| s.deliver(Op::DisconnectServerMux, Flags::NONE, b"")),
    ("MuxClientMsg", |s| s.deliver(Op::MuxClientMsg, Flags::NONE, b"message")),
    ("MuxClientMsg EOF", |s| s.deliver(Op::MuxClientMsg, Flags::EOF, b"")),
    ("UnblockSrvMux", |s| s.deliver(Op::UnblockSrvMux, Flags::NONE, b"")),
    ("Ping", |s| s.deliver(Op::Ping, Flags::NONE, b"")),
    ("respond", |s| s.respond(&Ok(Bytes::from_static(&[b'x'; 100])))),
    ("respond with an error", |s| s.respond(&Err("error".into()))),
    ("refuse", |s| s.connection.refuse(ID, "a reason")),
    ("deadline", |s| s.connection.handle_timeout(NOW + MINUTE, Timestamp::default())),
    ("close", |s| s.connection.close(CloseReason::Peer)),
];

#[test]
fn b11_p14_states_of_an_inbound_call() {
    let states: [State; 3] = [
        ("Running", |s| s.receive_call(Op::Request)),
        ("Blocked", |s| {
            s.receive_call(Op::Request);
            s.fill_queue();
            s.respond(&Ok(Bytes::from_static(&[b'x'; 100])));
        }),
        ("ended", |s| {
            s.receive_call(Op::Request);
            s.deliver(Op::DisconnectServerMux, Flags::NONE, b"");
        }),
    ];
    let mut inputs = INBOUND_INPUTS.to_vec();
    inputs.push(("room in the queue", Subject::transmit_all));
    assert_table("inbound_call", &table(Callee, &states, &inputs));
}

#[test]
fn b11_p18_states_of_an_inbound_stream() {
    let states: [State; 7] = [
        ("opening", |s| s.receive_call(Op::ConnectMux)),
        ("accepted", accepted),
        ("accepted, unread", |s| {
            accepted(s);
            s.deliver(Op::MuxClientMsg, Flags::NONE, b"message");
        }),
        ("accepted, input finished", |s| {
            accepted(s);
            s.deliver(Op::MuxClientMsg, Flags::EOF, b"");
        }),
        ("accepted, no credit", |s| {
            accepted(s);
            s.send(Callee);
            s.send(Callee);
        }),
        ("responded, no credit", |s| {
            accepted(s);
            s.send(Callee);
            s.respond(&Ok(Bytes::new()));
        }),
        ("ended", |s| {
            accepted(s);
            s.deliver(Op::DisconnectServerMux, Flags::NONE, b"");
        }),
    ];
    let mut inputs = INBOUND_INPUTS.to_vec();
    inputs.extend::<[Input; 6]>([
        ("accept", |s| {
            let capacities = Capacities { input: 1, output: 1 };
            let _ = s.connection.accept(ID, Slot(1), capacities, NOW);
        }),
        ("send", |s| s.send(Callee)),
        ("cancel_send", |s| s.connection.cancel_send(StreamId { side: Callee, mux_id: ID })),
        ("receive", |s| {
            s.connection.receive(StreamId { side: Callee, mux_id: ID });
        }),
        ("stop_receiving", |s| s.connection.stop_receiving(StreamId { side: Callee, mux_id: ID })),
        ("no ping in time", |s| {
            if s.connection.inbound.is_live(ID, 0) {
                s.connection.check_stream_ping_timeout(ID, 0, NOW + MINUTE + MINUTE);
            }
        }),
    ]);
    assert_table("inbound_stream", &table(Callee, &states, &inputs));
}

fn accepted(subject: &mut Subject) {
    subject.receive_call(Op::ConnectMux);
    subject.accept();
    subject.drain_queue();
}
