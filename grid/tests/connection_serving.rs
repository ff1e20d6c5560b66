//! The rules of what a peer asks for, each with the smallest scene that shows it: calls that are
//! served and how they are answered, what is not taken, and whom a number means when both sides use
//! it or neither does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{Event, Incoming, Outcome, StartError};
use grid::proto::message::{Flags, Header, Op};
use machine::{MINUTE, START, Subject, answered, ended, ok, refusal_text, response_header};

// ---- answers ----

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

// ---- deadlines ----

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

// ---- cancellation ----

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
    assert_eq!(subject.sent(), [], "whoever looks the handler up decides");
    subject.connection.refuse(20, "Invalid Handler for type: 78");
    let sent = subject.sent_one();
    let expected = Header { op: Op::MuxConnectError, flags: Flags::CRC, ..opening };
    assert_eq!(sent.header, expected);
    assert_eq!(refusal_text(&sent), "Invalid Handler for type: 78");
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
