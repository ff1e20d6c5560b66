//! The rules of one open connection, each with the smallest scene that shows it: one machine, the
//! messages that a peer sends it, and what it sends and says in turn.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{
    Answer, CloseReason, Connection, Event, Incoming, Outcome, Request, Slot, StartError,
};
use grid::proto::message::{Checksum, Flags, Header, Message, Op, parse_frame};
use grid::time::{Instant, Timestamp};

const START: Instant = Instant::from_nanos(1_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const WALL: Timestamp = Timestamp::new(1_700_000_000, 0);
const SLOT: Slot = Slot(3);

/// A machine, seen from its peer and its driver.
struct Subject {
    connection: Connection,
    now: Instant,
}

impl Subject {
    fn new() -> Self {
        Self::with_limits(&Limits::default())
    }

    fn with_limits(limits: &Limits) -> Self {
        Self { connection: Connection::new(limits, Checksum::On, START), now: START }
    }

    /// One whose queue holds two messages of 100 bytes and no third.
    fn with_short_queue() -> Self {
        let mut limits = Limits::default();
        limits.message_bytes_max = 150;
        limits.queue_bytes_max = 300;
        Self::with_limits(&limits)
    }

    fn try_call(&mut self, payload: &[u8], deadline: Duration) -> Result<u64, StartError> {
        let request = Request {
            handler: 7,
            subroute: None,
            payload: Bytes::copy_from_slice(payload),
            deadline: self.now + deadline,
        };
        self.connection.call(SLOT, &request, self.now)
    }

    fn call(&mut self, payload: &[u8]) -> u64 {
        self.try_call(payload, MINUTE).expect("the call starts")
    }

    /// Fills a short queue with calls that are nobody's business; the next message waits in line.
    fn fill_queue(&mut self) {
        while self.connection.blocked_messages() == 0 {
            self.call(&[b'x'; 100]);
        }
    }

    fn receive(&mut self, header: Header, payload: impl Into<Bytes>) {
        let message = Message { header, payload: payload.into(), subroute: None };
        self.connection.handle_message(message, self.now);
    }

    fn receive_op(&mut self, mux_id: u64, op: Op) {
        self.receive(Header::new(mux_id, op), Bytes::new());
    }

    fn receive_request(&mut self, mux_id: u64, deadline_ms: u32) {
        self.receive(request_header(mux_id, deadline_ms), Bytes::from_static(b"question"));
    }

    fn answer(&mut self, mux_id: u64, answer: &Answer) -> bool {
        self.connection.answer(mux_id, answer, self.now)
    }

    /// Moves the clock without letting the machine know.
    fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Moves the clock and lets the machine do what is due.
    fn advance(&mut self, duration: Duration) {
        self.pass(duration);
        self.connection.handle_timeout(self.now, WALL);
    }

    /// The messages of the next frame.
    fn next_frame(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some(transmit) = self.connection.poll_transmit(self.now) {
            parse_frame(&transmit.bytes, &mut messages).expect("a frame of a machine parses");
        }
        messages
    }

    /// All messages that wait, in the order in which they leave.
    fn sent(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| Some(self.next_frame()).filter(|frame| !frame.is_empty()))
            .flatten()
            .collect()
    }

    /// Ops and calls of all messages that wait.
    fn sent_ops(&mut self) -> Vec<(Op, u64)> {
        self.sent().iter().map(|message| (message.header.op, message.header.mux_id)).collect()
    }

    /// The one message that waits.
    fn sent_one(&mut self) -> Message {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.into_iter().next().expect("there is one")
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.connection.poll_event()).collect()
    }
}

fn request_header(mux_id: u64, deadline_ms: u32) -> Header {
    Header { handler: 7, deadline_ms, flags: Flags::EOF, ..Header::new(mux_id, Op::Request) }
}

fn response_header(mux_id: u64) -> Header {
    Header { flags: Flags::EOF, ..Header::new(mux_id, Op::Response) }
}

fn ended(outcome: Outcome) -> Event {
    Event::Ended { slot: SLOT, outcome }
}

fn answered(payload: &'static [u8]) -> Event {
    ended(Outcome::Response(Bytes::from_static(payload)))
}

fn ok(payload: &'static [u8]) -> Answer {
    Ok(Bytes::from_static(payload))
}

/// The payload of a refusal with this text.
fn refusal(text: &str) -> Vec<u8> {
    let mut payload = vec![0x81, 0xa5];
    payload.extend_from_slice(b"Error");
    payload.extend_from_slice(&[0xd9, u8::try_from(text.len()).expect("a short text")]);
    payload.extend_from_slice(text.as_bytes());
    payload
}

fn refusal_text(message: &Message) -> String {
    assert_eq!(message.header.op, Op::MuxConnectError);
    let map: std::collections::BTreeMap<String, String> =
        rmp_serde::from_slice(&message.payload).expect("a map of texts");
    map["Error"].clone()
}

// ---- deadlines ----

#[test]
fn b10_a_deadline_travels_in_milliseconds_rounded_up() {
    for (deadline, millis) in [
        (Duration::from_nanos(1), 1),
        (Duration::from_millis(1), 1),
        (Duration::from_nanos(1_000_001), 2),
        (Duration::from_millis(4_999), 4_999),
        (Limits::default().deadline_default, 60_000),
        (Duration::from_millis(u64::from(u32::MAX) + 1), u32::MAX),
        (Duration::MAX, u32::MAX),
    ] {
        let mut subject = Subject::new();
        subject.try_call(b"", deadline).expect("starts");
        assert_eq!(subject.sent_one().header.deadline_ms, millis, "{deadline:?}");
    }
}

#[test]
fn b10_a_deadline_that_has_passed_fails_without_sending() {
    let mut subject = Subject::new();
    assert_eq!(subject.try_call(b"", Duration::ZERO), Err(StartError::DeadlinePassed));
    assert_eq!(subject.connection.live_calls(), 0);
    assert_eq!(subject.sent(), []);
}

#[test]
fn b10_what_is_left_of_the_deadline_travels_when_the_request_had_to_wait() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.try_call(b"late", Duration::from_secs(5)).expect("starts");
    subject.pass(Duration::from_secs(2));
    let late = subject.sent().pop().expect("it is the last");
    assert_eq!((&late.payload[..], late.header.deadline_ms), (&b"late"[..], 3_000));
}

#[test]
fn b10_a_call_ends_at_its_deadline_and_the_serving_side_is_told() {
    let mut subject = Subject::new();
    let mux_id = subject.try_call(b"", Duration::from_millis(5)).expect("starts");
    assert_eq!(subject.connection.poll_timeout(), Some(START + Duration::from_millis(5)));
    subject.sent();
    subject.advance(Duration::from_nanos(4_999_999));
    assert_eq!(subject.events(), []);
    subject.advance(Duration::from_nanos(1));
    assert_eq!(subject.events(), [ended(Outcome::DeadlineExceeded)]);
    assert_eq!(subject.sent_ops(), [(Op::DisconnectServerMux, mux_id)]);
}

#[test]
fn b10_a_request_that_waited_beyond_its_deadline_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let late = subject.try_call(b"late", Duration::from_secs(1)).expect("starts");
    subject.pass(Duration::from_secs(1));
    let sent = subject.sent();
    assert!(sent.iter().all(|message| message.header.mux_id != late), "{sent:?}");
    assert_eq!(subject.events(), [ended(Outcome::DeadlineExceeded)]);
    subject.advance(Duration::ZERO);
    assert_eq!(subject.events(), [], "it ends once");
    assert_eq!(subject.sent(), [], "the serving side never heard of it");
}

#[test]
fn p14_a_handler_is_cancelled_at_its_deadline_and_its_answer_is_not_sent() {
    let mut subject = Subject::new();
    subject.receive_request(9, 1_000);
    subject.events();
    subject.advance(Duration::from_secs(1));
    assert_eq!(subject.events(), [Event::Cancel { mux_id: 9 }]);
    assert!(!subject.answer(9, &ok(b"late")));
    assert_eq!(subject.sent(), []);
}

#[test]
fn p14_an_answer_after_the_deadline_is_not_sent_though_the_timer_has_not_run() {
    let mut subject = Subject::new();
    subject.receive_request(9, 1_000);
    subject.pass(Duration::from_secs(1));
    assert!(!subject.answer(9, &ok(b"late")));
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.connection.live_served(), 0);
}

#[test]
fn p14_an_answer_that_waited_beyond_its_deadline_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 1_000);
    subject.fill_queue();
    assert!(subject.answer(9, &ok(b"late")), "it waits in line");
    subject.pass(Duration::from_secs(1));
    assert!(subject.sent().iter().all(|message| message.header.op != Op::Response));
    assert_eq!(subject.connection.live_served(), 0);
    assert_eq!(subject.connection.blocked_messages(), 0);
}

#[test]
fn p14_a_request_without_a_deadline_is_served_for_as_long_as_it_takes() {
    let mut subject = Subject::new();
    subject.receive_request(9, 0);
    let events = subject.events();
    assert!(matches!(&events[..], [Event::Serve(Incoming { deadline: None, .. })]), "{events:?}");
    subject.pass(Duration::from_secs(1_000_000));
    assert!(subject.answer(9, &ok(b"at last")));
    assert_eq!(subject.sent_ops(), [(Op::Response, 9)]);
}

// ---- giving up ----

#[test]
fn b11_giving_up_a_call_tells_the_serving_side_behind_the_request() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.connection.give_up(mux_id);
    let ops = [(Op::Request, mux_id), (Op::DisconnectServerMux, mux_id)];
    assert_eq!(subject.sent_ops(), ops, "a cancellation does not overtake its request");
    assert_eq!(subject.connection.live_calls(), 0);
    assert_eq!(subject.events(), []);
}

#[test]
fn b11_giving_up_a_call_that_waits_for_room_tells_nobody() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let mux_id = subject.call(b"secret");
    subject.connection.give_up(mux_id);
    assert!(subject.sent_ops().iter().all(|(_, sent)| *sent != mux_id));
    assert_eq!(subject.events(), []);
}

#[test]
fn b11_a_cancellation_reaches_the_handler_and_discards_its_answer() {
    let mut subject = Subject::new();
    subject.receive_request(9, 60_000);
    subject.events();
    subject.receive_op(9, Op::DisconnectServerMux);
    assert_eq!(subject.events(), [Event::Cancel { mux_id: 9 }]);
    assert!(!subject.connection.is_serving(9));
    assert!(!subject.answer(9, &ok(b"late")));
    assert_eq!(subject.sent(), []);
}

#[test]
fn b11_a_cancellation_discards_an_answer_that_waits_for_room() {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 60_000);
    subject.fill_queue();
    let before = subject.connection.blocked_messages();
    subject.answer(9, &ok(b"unwanted"));
    subject.receive_op(9, Op::DisconnectServerMux);
    assert_eq!(subject.connection.blocked_messages(), before, "it does not wait any more");
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
}

#[test]
fn p14_a_late_answer_is_discarded() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.connection.give_up(mux_id);
    subject.sent();
    subject.receive(response_header(mux_id), Bytes::from_static(b"late"));
    subject.receive(Header::new(mux_id, Op::MuxConnectError), refusal("late"));
    assert_eq!(subject.events(), []);
    assert_eq!(subject.sent(), []);
}

#[test]
fn p14_cancelling_what_is_not_served_is_ignored() {
    let mut subject = Subject::new();
    subject.call(b"");
    subject.sent();
    subject.receive_op(1, Op::DisconnectServerMux);
    subject.receive_op(0, Op::DisconnectServerMux);
    assert_eq!(subject.events(), []);
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.connection.live_calls(), 1);
}

// ---- ends of a call ----

#[test]
fn b12_a_refusal_for_an_unknown_handler_is_told_from_others() {
    let unknown = "Invalid Handler for type: 7";
    for (text, outcome) in [
        (unknown, Outcome::UnknownHandler(unknown.into())),
        ("overloaded: 4 calls", Outcome::Refused("overloaded: 4 calls".into())),
        ("no reason", Outcome::Refused("no reason".into())),
    ] {
        let mut subject = Subject::new();
        let mux_id = subject.call(b"");
        subject.receive(Header::new(mux_id, Op::MuxConnectError), refusal(text));
        assert_eq!(subject.events(), [ended(outcome)]);
        assert_eq!(subject.connection.live_calls(), 0);
    }
}

#[test]
fn p13_a_refusal_that_does_not_decode_is_a_refusal_still() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.receive(Header::new(mux_id, Op::MuxConnectError), Bytes::from_static(b"\xff"));
    assert_eq!(subject.events(), [ended(Outcome::Refused("the peer gave no reason".into()))]);
}

#[test]
fn p18_the_serving_side_may_give_a_call_up_with_or_without_a_reason() {
    for (flags, payload, reason) in [
        (Flags::ERROR, &b"out of disk"[..], "out of disk"),
        (Flags::NONE, &b""[..], "cancelled by the peer"),
    ] {
        let mut subject = Subject::new();
        let mux_id = subject.call(b"");
        let header = Header { flags, ..Header::new(mux_id, Op::DisconnectClientMux) };
        subject.receive(header, payload);
        assert_eq!(subject.events(), [ended(Outcome::RemoteError(reason.into()))]);
    }
}

#[test]
fn b14_a_second_answer_is_discarded() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.receive(response_header(mux_id), Bytes::from_static(b"first"));
    subject.receive(response_header(mux_id), Bytes::from_static(b"second"));
    assert_eq!(subject.events(), [answered(b"first")]);
}

#[test]
fn b14_an_answer_that_arrived_before_the_end_of_the_connection_is_delivered() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.call(b"unanswered");
    subject.receive(response_header(mux_id), Bytes::from_static(b"answer"));
    subject.receive_op(0, Op::Disconnect);
    let closed = Event::Closed(CloseReason::Peer);
    assert_eq!(subject.events(), [answered(b"answer"), ended(Outcome::Disconnected), closed]);
}

#[test]
fn b14_nothing_that_a_peer_sends_ends_a_call_that_it_never_got() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let mux_id = subject.call(b"waits");
    subject.receive(response_header(mux_id), Bytes::from_static(b"forged"));
    subject.receive(Header::new(mux_id, Op::MuxConnectError), refusal("forged"));
    subject.receive_op(mux_id, Op::DisconnectClientMux);
    assert_eq!(subject.events(), []);
    assert!(subject.sent_ops().contains(&(Op::Request, mux_id)));

    subject.receive(response_header(mux_id), Bytes::from_static(b"answer"));
    assert_eq!(subject.events(), [answered(b"answer")]);
}

#[test]
fn p13_an_error_keeps_its_text_and_an_answer_its_bytes() {
    let mut subject = Subject::new();
    for mux_id in 1..=3 {
        subject.receive_request(mux_id, 60_000);
    }
    subject.answer(1, &ok(b"fine"));
    subject.answer(2, &Err("not fine".into()));
    subject.answer(3, &ok(b""));
    let sent = subject.sent();
    let seen: Vec<_> =
        sent.iter().map(|m| (m.header.flags.without(Flags::CRC), &m.payload[..])).collect();
    let eof = Flags::EOF;
    assert_eq!(
        seen,
        [
            (eof, &b"fine"[..]),
            (eof.with(Flags::ERROR), &b"not fine"[..]),
            (eof.with(Flags::ZERO), &b""[..]),
        ]
    );
}

#[test]
fn p14_a_request_never_tells_an_empty_payload_from_an_absent_one() {
    let mut subject = Subject::new();
    subject.call(b"");
    assert_eq!(subject.sent_one().header.flags, Flags::EOF.with(Flags::CRC));
}

#[test]
fn an_answer_beyond_the_limit_becomes_an_error_that_says_so() {
    let too_long = "x".repeat(200);
    let answers = [(Ok(Bytes::from(too_long.clone())), "answer"), (Err(too_long.into()), "error")];
    for (answer, kind) in answers {
        let mut subject = Subject::with_short_queue();
        subject.receive_request(1, 60_000);
        assert!(subject.answer(1, &answer));
        let sent = subject.sent_one();
        assert!(sent.header.flags.contains(Flags::ERROR));
        let text = String::from_utf8(sent.payload.to_vec()).expect("a text");
        assert!(text.starts_with(&format!("the handler's {kind} of 2")), "{text}");
        assert!(text.ends_with("larger than the limit of 150"), "{text}");
    }
}

#[test]
fn a_request_beyond_the_limit_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    let started = subject.try_call(&[0; 150], MINUTE);
    assert!(matches!(started, Err(StartError::TooLarge { bytes: 151.. })), "{started:?}");
    assert_eq!(subject.connection.live_calls(), 0);
    assert_eq!(subject.sent(), []);
}

// ---- two directions ----

#[test]
fn b16_one_number_in_both_directions_is_two_calls() {
    let mut subject = Subject::new();
    assert_eq!(subject.call(b"mine"), 1);
    subject.receive_request(1, 60_000);
    subject.events();
    subject.sent();

    // What a serving side sends means the call that this side made ...
    subject.receive_op(1, Op::DisconnectClientMux);
    assert_eq!(subject.events(), [ended(Outcome::RemoteError("cancelled by the peer".into()))]);
    assert!(subject.connection.is_serving(1));

    // ... and what a caller sends the one that it serves.
    subject.receive_op(1, Op::DisconnectServerMux);
    assert_eq!(subject.events(), [Event::Cancel { mux_id: 1 }]);
}

#[test]
fn b16_a_cancellation_leaves_the_call_of_the_other_direction_alone() {
    let mut subject = Subject::new();
    assert_eq!(subject.call(b"mine"), 1);
    subject.receive_request(1, 60_000);
    subject.receive_op(1, Op::DisconnectServerMux);
    subject.events();
    subject.receive(response_header(1), Bytes::from_static(b"answer"));
    assert_eq!(subject.events(), [answered(b"answer")]);
}

#[test]
fn p18_b16_a_message_for_what_is_gone_is_answered_toward_the_side_that_owns_the_id() {
    for (received, answer) in [
        (Op::AckMux, Some(Op::DisconnectServerMux)),
        (Op::MuxServerMsg, Some(Op::DisconnectServerMux)),
        (Op::Pong, Some(Op::DisconnectServerMux)),
        (Op::MuxClientMsg, Some(Op::DisconnectClientMux)),
        (Op::UnblockClMux, None),
        (Op::UnblockSrvMux, None),
        (Op::DisconnectClientMux, None),
        (Op::DisconnectServerMux, None),
        (Op::Response, None),
        (Op::MuxConnectError, None),
    ] {
        let mut subject = Subject::new();
        subject.receive(Header { sequence: 4, ..Header::new(77, received) }, Bytes::new());
        let expected: Vec<_> = answer.map(|op| (op, 77)).into_iter().collect();
        assert_eq!(subject.sent_ops(), expected, "{received:?}");
        assert_eq!(subject.events(), [], "{received:?}");
    }
}

#[test]
fn p18_an_end_of_what_is_gone_is_never_answered() {
    for op in [Op::AckMux, Op::MuxServerMsg, Op::Pong, Op::MuxClientMsg] {
        for flags in [Flags::EOF, Flags::EOF.with(Flags::ERROR)] {
            let mut subject = Subject::new();
            subject.receive(Header { flags, ..Header::new(77, op) }, Bytes::new());
            assert_eq!(subject.sent(), [], "{op:?}");
            assert_eq!(subject.events(), [Event::Skipped { op, mux_id: 77 }]);
        }
    }
}

#[test]
fn p18_b16_answers_to_what_is_gone_end_nothing_on_the_other_end() {
    // Two ends that disown each other's messages come to rest, and calls of the same number live.
    for op in [Op::AckMux, Op::MuxServerMsg, Op::Pong, Op::MuxClientMsg] {
        let (mut left, mut right) = (Subject::new(), Subject::new());
        left.receive_op(77, op);
        for message in left.sent() {
            right.connection.handle_message(message, START);
        }
        assert_eq!(right.sent(), [], "{op:?}");
        assert_eq!(right.events(), [], "{op:?}");
    }
}

#[test]
fn p18_a_ping_of_an_unknown_stream_is_told_that_it_is_unknown() {
    let mut subject = Subject::new();
    subject.receive(Header { sequence: 5, ..Header::new(77, Op::Ping) }, Bytes::new());
    let pong = subject.sent_one();
    let header = pong.header;
    assert_eq!((header.op, header.mux_id, header.sequence), (Op::Pong, 77, 5));
    assert_eq!(pong.payload[..6], [0x83, 0xa2, b'n', b'f', 0xc3, 0xa1], "nf is true");
}

// ---- what is not taken ----

#[test]
fn p07_an_unknown_op_is_skipped_and_the_connection_goes_on() {
    for op in [0, 18, 99, 255].map(Op::from_number) {
        let mut subject = Subject::new();
        let mux_id = subject.call(b"");
        subject.receive_op(mux_id, op);
        assert_eq!(subject.events(), [Event::Skipped { op, mux_id }]);
        assert_eq!(subject.connection.counters().skipped, 1);
        subject.receive(response_header(mux_id), Bytes::from_static(b"answer"));
        assert_eq!(subject.events(), [answered(b"answer")]);
    }
}

#[test]
fn p07_a_handshake_message_on_an_open_connection_is_skipped() {
    for op in [Op::Connect, Op::ConnectResponse] {
        let mut subject = Subject::new();
        subject.receive_op(0, op);
        assert_eq!(subject.events(), [Event::Skipped { op, mux_id: 0 }]);
        assert_eq!(subject.sent(), []);
    }
}

#[test]
fn p13_a_second_request_of_a_number_in_use_is_not_served() {
    let mut subject = Subject::new();
    subject.receive_request(9, 60_000);
    assert!(matches!(subject.events()[..], [Event::Serve(_)]));
    subject.receive_request(9, 60_000);
    assert_eq!(subject.events(), [Event::Skipped { op: Op::Request, mux_id: 9 }]);
    subject.answer(9, &ok(b"once"));
    assert_eq!(subject.sent_ops(), [(Op::Response, 9)]);
}

#[test]
fn p05_a_request_of_the_connection_itself_is_not_served() {
    let mut subject = Subject::new();
    subject.receive_request(0, 60_000);
    assert_eq!(subject.events(), [Event::Skipped { op: Op::Request, mux_id: 0 }]);
    assert_eq!(subject.connection.live_served(), 0);
}

#[test]
fn p15_a_stream_is_refused_with_the_fields_of_its_opening() {
    let mut subject = Subject::new();
    let flags = Flags::SUBROUTE.with(Flags::CRC);
    let opening =
        Header { handler: 78, deadline_ms: 30_000, flags, ..Header::new(20, Op::ConnectMux) };
    subject.receive(opening, Bytes::from_static(b"init"));
    let sent = subject.sent_one();
    let expected = Header { op: Op::MuxConnectError, flags: Flags::CRC, ..opening };
    assert_eq!(sent.header, expected);
    assert!(refusal_text(&sent).starts_with("Invalid Handler for type: "));
    assert_eq!(subject.connection.live_served(), 0);
}

#[test]
fn p06_a_stateless_stream_is_refused_with_its_own_text() {
    let mut subject = Subject::new();
    let opening = Header { flags: Flags::STATELESS, ..Header::new(20, Op::ConnectMux) };
    subject.receive(opening, Bytes::new());
    assert_eq!(refusal_text(&subject.sent_one()), "Stateless streams not supported");
}

#[test]
fn p13_more_calls_than_the_limit_are_refused_as_overload() {
    let mut limits = Limits::default();
    limits.calls_served_max = 2;
    let mut subject = Subject::with_limits(&limits);
    for mux_id in 1..=3 {
        subject.receive_request(mux_id, 60_000);
    }
    assert_eq!(subject.events().len(), 2);
    let sent = subject.sent_one();
    assert_eq!(sent.header.mux_id, 3);
    assert!(refusal_text(&sent).starts_with("overloaded:"));

    subject.answer(1, &ok(b""));
    subject.receive_request(4, 60_000);
    assert!(matches!(subject.events()[..], [Event::Serve(Incoming { mux_id: 4, .. })]));
}

#[test]
fn b09_a_connection_that_drains_takes_no_calls_and_finishes_those_under_way() {
    let mut subject = Subject::new();
    let mine = subject.call(b"");
    subject.receive_request(9, 60_000);
    subject.events();
    subject.sent();
    subject.connection.drain();

    assert_eq!(subject.try_call(b"", MINUTE), Err(StartError::Draining));
    subject.receive_request(10, 60_000);
    assert_eq!(refusal_text(&subject.sent_one()), "this server is shutting down");
    assert!(!subject.connection.is_idle());

    assert!(subject.answer(9, &ok(b"")));
    assert_eq!(subject.sent_ops(), [(Op::Response, 9)]);
    subject.receive(response_header(mine), Bytes::from_static(b"answer"));
    assert_eq!(subject.events(), [answered(b"answer")]);
    assert!(subject.connection.is_idle());
}

#[test]
fn more_calls_than_this_side_may_make_are_not_started() {
    let mut limits = Limits::default();
    limits.calls_made_max = 2;
    let mut subject = Subject::with_limits(&limits);
    let first = subject.call(b"");
    subject.call(b"");
    assert_eq!(subject.try_call(b"", MINUTE), Err(StartError::TooManyCalls));
    subject.connection.give_up(first);
    subject.call(b"");
}

// ---- the queue ----

#[test]
fn b06_giving_up_and_closing_never_wait_for_room() {
    let mut subject = Subject::with_short_queue();
    let sent = subject.call(b"");
    subject.fill_queue();
    let before = subject.connection.queued_bytes();
    subject.connection.give_up(sent);
    assert!(subject.connection.queued_bytes() > before, "the cancellation is queued");
    subject.connection.close(CloseReason::Superseded);
    assert_eq!(subject.events().pop(), Some(Event::Closed(CloseReason::Superseded)));
}

#[test]
fn who_waits_for_room_is_let_in_in_order_and_by_nobody_overtaken() {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 60_000);
    subject.fill_queue();
    let large = subject.call(&[1; 100]);
    subject.answer(9, &ok(b"small"));
    let small = subject.call(b"small too");
    let order: Vec<_> =
        subject.sent_ops().into_iter().filter(|sent| sent.1 >= large || sent.1 == 9).collect();
    assert_eq!(order, [(Op::Request, large), (Op::Response, 9), (Op::Request, small)]);
}

#[test]
fn a_peer_that_makes_us_answer_and_does_not_read_is_disconnected() {
    let mut limits = Limits::default();
    limits.control_bytes_max = 1_000;
    limits.queue_bytes_max = 1_000;
    let mut subject = Subject::with_limits(&limits);
    for mux_id in 1..1_000 {
        subject.receive(Header::new(mux_id, Op::Ping), Bytes::new());
        assert!(subject.connection.queued_bytes() <= 2_000);
    }
    let overrun = CloseReason::ControlOverrun { max: 1_000 };
    assert_eq!(subject.events(), [Event::Closed(overrun)]);
    assert_eq!(subject.connection.queued_bytes(), 0);
}

#[test]
fn b07_the_answer_to_a_ping_leaves_before_queued_data() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.receive(Header { deadline_ms: 10_000, ..Header::new(0, Op::Ping) }, Bytes::new());
    let first = subject.next_frame();
    assert_eq!(first[0].header.op, Op::Pong, "{first:?}");
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
}

#[test]
fn b07_a_ping_leaves_before_queued_data() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.advance(Duration::from_secs(10));
    assert_eq!(subject.next_frame()[0].header.op, Op::Ping);
}

/// Bytes that tell when their memory is freed, and whether it has been.
fn tracked(length: usize) -> (Bytes, Arc<AtomicBool>) {
    struct Owner(Vec<u8>, Arc<AtomicBool>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    let is_freed = Arc::new(AtomicBool::new(false));
    (Bytes::from_owner(Owner(vec![b'x'; length], Arc::clone(&is_freed))), is_freed)
}

/// Runs `end` on a machine where a payload waits for room, and checks that the payload outlives it.
fn assert_given_back(scene: &str, wait: fn(&mut Subject, Bytes), end: fn(&mut Subject)) {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 1_000);
    subject.fill_queue();
    subject.events();
    let (payload, is_freed) = tracked(50);
    wait(&mut subject, payload);
    assert_eq!(subject.connection.blocked_messages(), 2, "{scene}: it waits");
    end(&mut subject);
    assert!(!is_freed.load(Ordering::Relaxed), "{scene}: freed inside of the machine");
    drop(subject.connection.take_spent());
    assert!(is_freed.load(Ordering::Relaxed), "{scene}: kept inside of the machine");
}

#[test]
fn payloads_that_waited_are_given_back_and_never_freed_inside() {
    fn call(subject: &mut Subject, payload: Bytes) {
        let deadline = subject.now + Duration::from_secs(1);
        let request = Request { handler: 7, subroute: None, payload, deadline };
        subject.connection.call(SLOT, &request, subject.now).expect("the call starts");
    }
    fn answer(subject: &mut Subject, payload: Bytes) {
        assert!(subject.answer(9, &Ok(payload)));
    }
    fn give_up_last(subject: &mut Subject) {
        let last = subject.connection.counters().calls_made;
        subject.connection.give_up(last);
    }
    for (scene, wait) in [("request", call as fn(&mut Subject, Bytes)), ("answer", answer)] {
        let sent = format!("{scene} sent");
        assert_given_back(&sent, wait, |subject| drop(subject.sent()));
        let due = format!("{scene} due");
        assert_given_back(&due, wait, |subject| subject.advance(Duration::from_secs(1)));
        let late = format!("{scene} late");
        assert_given_back(&late, wait, |subject| {
            subject.pass(Duration::from_secs(1));
            subject.sent();
        });
        let cut = format!("{scene} cut");
        assert_given_back(&cut, wait, |subject| subject.connection.close(CloseReason::Peer));
    }
    assert_given_back("request given up", call, give_up_last);
    assert_given_back("answer cancelled", answer, |subject| {
        subject.receive_op(9, Op::DisconnectServerMux);
    });
}

// ---- the life of the connection ----

#[test]
fn b07_two_unanswered_pings_end_the_connection_after_thirty_seconds() {
    let mut subject = Subject::new();
    subject.call(b"");
    subject.sent();
    for _ in 0..2 {
        assert_eq!(subject.connection.poll_timeout(), Some(subject.now + Duration::from_secs(10)));
        subject.advance(Duration::from_secs(10));
        assert_eq!(subject.sent_ops(), [(Op::Ping, 0)]);
    }
    subject.advance(Duration::from_nanos(9_999_999_999));
    assert_eq!(subject.events(), []);
    subject.advance(Duration::from_nanos(1));
    assert_eq!(subject.now, START + Duration::from_secs(30));
    let closed = Event::Closed(CloseReason::PingTimeout { missed: 2 });
    assert_eq!(subject.events(), [ended(Outcome::Disconnected), closed]);
}

#[test]
fn b07_bytes_that_arrive_are_no_pong() {
    let mut subject = Subject::new();
    for _ in 0..3 {
        subject.advance(Duration::from_secs(10));
        subject.receive_op(0, Op::Ping);
        subject.receive_request(9, 0);
    }
    let last = subject.events().pop();
    assert_eq!(last, Some(Event::Closed(CloseReason::PingTimeout { missed: 2 })));
}

#[test]
fn p12_a_connection_whose_pings_are_answered_lives() {
    let (mut left, mut right) = (Subject::new(), Subject::new());
    for _ in 0..100 {
        for subject in [&mut left, &mut right] {
            subject.advance(Duration::from_secs(10));
        }
        for _ in 0..2 {
            left.sent().into_iter().for_each(|m| right.connection.handle_message(m, right.now));
            right.sent().into_iter().for_each(|m| left.connection.handle_message(m, left.now));
        }
        assert_eq!((left.events(), right.events()), (vec![], vec![]));
    }
}

#[test]
fn p12_a_ping_without_a_payload_is_answered() {
    let mut subject = Subject::new();
    subject.receive_op(0, Op::Ping);
    assert_eq!(subject.sent_ops(), [(Op::Pong, 0)]);
}

#[test]
fn p12_a_ping_or_pong_that_does_not_decode_ends_the_connection() {
    for op in [Op::Ping, Op::Pong] {
        let mut subject = Subject::new();
        subject.receive(Header::new(0, op), Bytes::from_static(b"\xc1"));
        let events = subject.events();
        assert!(
            matches!(&events[..], [Event::Closed(CloseReason::Protocol(_))]),
            "{op:?}: {events:?}"
        );
    }
}

#[test]
fn p12_the_connections_own_ping_carries_no_checksum_and_everything_else_does() {
    let mut subject = Subject::new();
    subject.advance(Duration::from_secs(10));
    assert_eq!(subject.sent_one().header.flags, Flags::NONE);

    subject.receive_op(0, Op::Ping);
    subject.receive_op(5, Op::Ping);
    subject.receive_op(5, Op::AckMux);
    subject.receive_op(5, Op::ConnectMux);
    subject.receive_request(9, 0);
    subject.answer(9, &ok(b""));
    subject.call(b"");
    let sent = subject.sent();
    assert_eq!(sent.len(), 6);
    assert!(sent.iter().all(|message| message.header.flags.contains(Flags::CRC)), "{sent:?}");
}

#[test]
fn b05_the_end_of_a_connection_ends_everything_on_it() {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 60_000);
    subject.receive_request(10, 60_000);
    subject.fill_queue();
    subject.answer(10, &ok(b"waits in line"));
    subject.events();
    let live = subject.connection.live_calls();
    assert!(live > 1);

    subject.connection.close(CloseReason::Transport("cut".into()));
    subject.connection.close(CloseReason::Peer);
    let events = subject.events();
    assert_eq!(events[..live], vec![ended(Outcome::Disconnected); live]);
    assert!(events.contains(&Event::Cancel { mux_id: 9 }));
    assert_eq!(events.last(), Some(&Event::Closed(CloseReason::Transport("cut".into()))));

    subject.receive_request(11, 60_000);
    subject.receive_op(0, Op::Ping);
    subject.advance(MINUTE);
    subject.connection.give_up(1);
    subject.connection.refuse(9, "late");
    assert!(!subject.answer(9, &ok(b"late")));
    assert_eq!(subject.try_call(b"", MINUTE), Err(StartError::Draining));
    assert_eq!(subject.events(), []);
    assert_eq!(subject.sent(), []);
    let connection = &subject.connection;
    assert_eq!((connection.live_calls(), connection.live_served()), (0, 0));
    assert_eq!((connection.queued_bytes(), connection.blocked_messages()), (0, 0));
    assert_eq!(connection.poll_timeout(), None);
}
