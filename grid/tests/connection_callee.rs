//! The rules of inbound calls, one minimal test each: responses, refusals, and the call that a mux
//! id refers to if both directions use it or neither does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{End, Event, Incoming, StartError};
use grid::proto::message::{Flags, Header, Op};
use machine::{MINUTE, START, Subject, ended, ok, refusal_text, responded, response_header};

// ---- responses ----

#[test]
fn p13_an_error_keeps_its_text_and_a_response_its_bytes() {
    let mut subject = Subject::new();
    for mux_id in 1..=3 {
        subject.receive_request(mux_id, 60_000);
    }
    subject.respond(1, &ok(b"fine"));
    subject.respond(2, &Err("not fine".into()));
    subject.respond(3, &ok(b""));
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
fn a_response_beyond_the_limit_becomes_an_error_that_says_so() {
    let too_long = "x".repeat(200);
    let responses =
        [(Ok(Bytes::from(too_long.clone())), "answer"), (Err(too_long.into()), "error")];
    for (response, kind) in responses {
        let mut subject = Subject::with_short_queue();
        subject.receive_request(1, 60_000);
        assert!(subject.respond(1, &response));
        let sent = subject.sent_one();
        assert!(sent.header.flags.contains(Flags::ERROR));
        let text = String::from_utf8(sent.payload.to_vec()).expect("a text");
        assert!(text.starts_with(&format!("the handler's {kind} of 2")), "{text}");
        assert!(text.ends_with("larger than the limit of 150"), "{text}");
    }
}

// ---- deadlines ----

#[test]
fn p14_a_handler_is_cancelled_at_its_deadline_and_its_response_is_not_sent() {
    let mut subject = Subject::new();
    subject.receive_request(9, 1_000);
    subject.events();
    subject.advance(Duration::from_secs(1));
    assert_eq!(subject.events(), [Event::Cancel { mux_id: 9 }]);
    assert!(!subject.respond(9, &ok(b"late")));
    assert_eq!(subject.sent(), []);
}

#[test]
fn p14_a_response_after_the_deadline_is_not_sent_even_before_the_timer_runs() {
    let mut subject = Subject::new();
    subject.receive_request(9, 1_000);
    subject.advance_clock(Duration::from_secs(1));
    assert!(!subject.respond(9, &ok(b"late")));
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.connection.live_inbound_calls(), 0);
}

#[test]
fn p14_a_response_that_waited_beyond_its_deadline_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 1_000);
    subject.fill_queue();
    assert!(subject.respond(9, &ok(b"late")), "it is queued");
    subject.advance_clock(Duration::from_secs(1));
    assert!(subject.sent().iter().all(|message| message.header.op != Op::Response));
    assert_eq!(subject.connection.live_inbound_calls(), 0);
    assert_eq!(subject.connection.blocked_messages(), 0);
}

#[test]
fn p14_a_request_without_a_deadline_is_served_for_as_long_as_it_takes() {
    let mut subject = Subject::new();
    subject.receive_request(9, 0);
    let events = subject.events();
    assert!(
        matches!(&events[..], [Event::Incoming(Incoming { deadline: None, .. })]),
        "{events:?}"
    );
    subject.advance_clock(Duration::from_secs(1_000_000));
    assert!(subject.respond(9, &ok(b"at last")));
    assert_eq!(subject.sent_ops(), [(Op::Response, 9)]);
}

// ---- cancellation ----

#[test]
fn b11_a_cancellation_reaches_the_handler_and_discards_its_response() {
    let mut subject = Subject::new();
    subject.receive_request(9, 60_000);
    subject.events();
    subject.receive_op(9, Op::DisconnectServerMux);
    assert_eq!(subject.events(), [Event::Cancel { mux_id: 9 }]);
    assert!(!subject.connection.is_inbound_live(9));
    assert!(!subject.respond(9, &ok(b"late")));
    assert_eq!(subject.sent(), []);
}

#[test]
fn b11_a_cancellation_discards_a_response_that_waits_for_queue_space() {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 60_000);
    subject.fill_queue();
    let before = subject.connection.blocked_messages();
    subject.respond(9, &ok(b"unwanted"));
    subject.receive_op(9, Op::DisconnectServerMux);
    assert_eq!(subject.connection.blocked_messages(), before, "it left the queue");
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
}

#[test]
fn p14_a_cancellation_of_an_unknown_call_is_ignored() {
    let mut subject = Subject::new();
    subject.call(b"");
    subject.sent();
    subject.receive_op(1, Op::DisconnectServerMux);
    subject.receive_op(0, Op::DisconnectServerMux);
    assert_eq!(subject.events(), []);
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.connection.live_outbound_calls(), 1);
}

// ---- two directions ----

#[test]
fn b16_one_mux_id_in_both_directions_is_two_calls() {
    let mut subject = Subject::new();
    assert_eq!(subject.call(b"mine"), 1);
    subject.receive_request(1, 60_000);
    subject.events();
    subject.sent();

    // A message of a callee means the outbound call ...
    subject.receive_op(1, Op::DisconnectClientMux);
    assert_eq!(subject.events(), [ended(Err(End::RemoteError("cancelled by the peer".into())))]);
    assert!(subject.connection.is_inbound_live(1));

    // ... and a message of a caller the inbound one.
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
    subject.receive(response_header(1), Bytes::from_static(b"response"));
    assert_eq!(subject.events(), [responded(b"response")]);
}

#[test]
fn p18_b16_a_message_for_an_ended_call_is_rejected_toward_the_initiator_of_the_id() {
    for (received, response) in [
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
        let expected: Vec<_> = response.map(|op| (op, 77)).into_iter().collect();
        assert_eq!(subject.sent_ops(), expected, "{received:?}");
        assert_eq!(subject.events(), [], "{received:?}");
    }
}

#[test]
fn p18_an_end_for_an_ended_call_gets_no_reply() {
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
fn p18_b16_rejections_of_late_messages_end_no_call_at_the_peer() {
    // Two ends that reject each other's messages stop sending, and calls with the same mux id live.
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
fn p18_the_pong_of_an_unknown_stream_says_so() {
    let mut subject = Subject::new();
    subject.receive(Header { sequence: 5, ..Header::new(77, Op::Ping) }, Bytes::new());
    let pong = subject.sent_one();
    let header = pong.header;
    assert_eq!((header.op, header.mux_id, header.sequence), (Op::Pong, 77, 5));
    assert_eq!(pong.payload[..6], [0x83, 0xa2, b'n', b'f', 0xc3, 0xa1], "nf is true");
}

// ---- messages that are skipped or refused ----

#[test]
fn p07_an_unknown_op_is_skipped_and_the_connection_stays_open() {
    for op in [0, 18, 99, 255].map(Op::from_number) {
        let mut subject = Subject::new();
        let mux_id = subject.call(b"");
        subject.receive_op(mux_id, op);
        assert_eq!(subject.events(), [Event::Skipped { op, mux_id }]);
        assert_eq!(subject.connection.counters().skipped, 1);
        subject.receive(response_header(mux_id), Bytes::from_static(b"response"));
        assert_eq!(subject.events(), [responded(b"response")]);
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
fn p13_a_second_request_with_a_mux_id_in_use_is_skipped() {
    let mut subject = Subject::new();
    subject.receive_request(9, 60_000);
    assert!(matches!(subject.events()[..], [Event::Incoming(_)]));
    subject.receive_request(9, 60_000);
    assert_eq!(subject.events(), [Event::Skipped { op: Op::Request, mux_id: 9 }]);
    subject.respond(9, &ok(b"once"));
    assert_eq!(subject.sent_ops(), [(Op::Response, 9)]);
}

#[test]
fn p05_a_request_with_mux_id_0_is_skipped() {
    let mut subject = Subject::new();
    subject.receive_request(0, 60_000);
    assert_eq!(subject.events(), [Event::Skipped { op: Op::Request, mux_id: 0 }]);
    assert_eq!(subject.connection.live_inbound_calls(), 0);
}

#[test]
fn p15_a_stream_is_refused_with_the_fields_of_its_opening() {
    let mut subject = Subject::new();
    let flags = Flags::SUBROUTE.with(Flags::CRC);
    let opening =
        Header { handler: 78, deadline_ms: 30_000, flags, ..Header::new(20, Op::ConnectMux) };
    subject.receive(opening, Bytes::from_static(b"init"));
    assert_eq!(subject.sent(), [], "the handler lookup decides");
    subject.connection.refuse(20, "Invalid Handler for type: 78");
    let sent = subject.sent_one();
    let expected = Header { op: Op::MuxConnectError, flags: Flags::CRC, ..opening };
    assert_eq!(sent.header, expected);
    assert_eq!(refusal_text(&sent), "Invalid Handler for type: 78");
    assert_eq!(subject.connection.live_inbound_calls(), 0);
}

#[test]
fn p06_a_stateless_stream_is_refused_with_its_own_text() {
    let mut subject = Subject::new();
    let opening = Header { flags: Flags::STATELESS, ..Header::new(20, Op::ConnectMux) };
    subject.receive(opening, Bytes::new());
    assert_eq!(refusal_text(&subject.sent_one()), "Stateless streams not supported");
}

#[test]
fn p13_calls_beyond_the_inbound_limit_are_refused_as_overload() {
    let mut limits = Limits::default();
    limits.inbound_calls_max = 2;
    let mut subject = Subject::with_limits(&limits);
    for mux_id in 1..=3 {
        subject.receive_request(mux_id, 60_000);
    }
    assert_eq!(subject.events().len(), 2);
    let sent = subject.sent_one();
    assert_eq!(sent.header.mux_id, 3);
    assert!(refusal_text(&sent).starts_with("overloaded:"));

    subject.respond(1, &ok(b""));
    subject.receive_request(4, 60_000);
    assert!(matches!(subject.events()[..], [Event::Incoming(Incoming { mux_id: 4, .. })]));
}

#[test]
fn b09_a_draining_connection_takes_no_calls_and_finishes_those_in_flight() {
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

    assert!(subject.respond(9, &ok(b"")));
    assert_eq!(subject.sent_ops(), [(Op::Response, 9)]);
    subject.receive(response_header(mine), Bytes::from_static(b"response"));
    assert_eq!(subject.events(), [responded(b"response")]);
    assert!(subject.connection.is_idle());
}
