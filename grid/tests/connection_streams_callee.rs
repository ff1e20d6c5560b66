//! The rules of inbound streams, one minimal test each: acceptance, credit and sequences,
//! half-close, errors without credit, and pings.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{CallKind, End, Event, Incoming, Received, SendStatus};
use grid::proto::message::{Flags, Header, Op};
use machine::streams::{inbound, inbound_stream_ended, line, message};
use machine::{Subject, ok, refusal_text};

const EOF: Flags = Flags::EOF;

fn failed() -> grid::proto::connection::HandlerResult {
    Err("out of disk".into())
}

// ---- opening ----

#[test]
fn p15_b20_the_acknowledgement_is_the_first_message_to_the_caller() {
    let mut subject = Subject::new();
    subject.receive_open(9, 30_000, Flags::NONE);
    let incoming = Incoming {
        mux_id: 9,
        kind: CallKind::Stream { has_payload: true },
        handler: 7,
        subroute: None,
        payload: Bytes::from_static(b"open"),
        deadline: Some(subject.now + Duration::from_secs(30)),
    };
    assert_eq!(subject.events(), [Event::Incoming(incoming)]);
    assert_eq!(subject.send(inbound(9), b"too early"), SendStatus::StreamEnded);
    assert_eq!(subject.sent(), []);

    assert!(subject.accept(9, 1, 1));
    subject.send(inbound(9), b"hello");
    assert_eq!(subject.lines(), ["AckMux 9 seq=0", r#"MuxServerMsg 9 seq=1 "hello""#]);
}

#[test]
fn b20_a_full_queue_does_not_hold_up_the_acknowledgement() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.receive_open(9, 0, Flags::NONE);
    assert!(subject.accept(9, 1, 1));
    assert_eq!(subject.connection.blocked_messages(), 1, "it does not wait in the queue");
    assert!(subject.sent_ops().contains(&(Op::AckMux, 9)));
}

#[test]
fn p05_p15_an_absent_opening_payload_differs_from_an_empty_one() {
    for (flags, payload, has_payload) in
        [(Flags::NONE, &b""[..], false), (Flags::ZERO, b"", true), (Flags::NONE, b"open", true)]
    {
        let mut subject = Subject::new();
        subject.receive(Header { flags, ..Header::new(9, Op::ConnectMux) }, payload);
        let events = subject.events();
        let [Event::Incoming(incoming)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(incoming.kind, CallKind::Stream { has_payload });
    }
}

#[test]
fn p15_an_opening_with_a_mux_id_in_use_is_skipped() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    subject.receive_request(10, 60_000);
    subject.events();
    for mux_id in [9, 10, 0] {
        subject.receive_open(mux_id, 0, Flags::NONE);
        assert_eq!(subject.events(), [Event::Skipped { op: Op::ConnectMux, mux_id }]);
    }
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.send(id, b"goes on"), SendStatus::Queued);
}

#[test]
fn p06_a_stateless_stream_is_refused_and_not_passed_to_a_handler() {
    let mut subject = Subject::new();
    subject.receive_open(9, 1_000, Flags::STATELESS);
    assert_eq!(subject.events(), []);
    let expected = "MuxConnectError 9 handler=7 deadline=1000ms STATELESS \
                    {Error: \"Stateless streams not supported\"}";
    assert_eq!(subject.lines(), [expected]);
    assert_eq!(subject.connection.live_inbound_calls(), 0);
}

#[test]
fn p15_a_message_before_the_acknowledgement_ends_the_stream() {
    for op in [Op::MuxClientMsg, Op::UnblockSrvMux] {
        let mut subject = Subject::new();
        subject.receive_open(9, 0, Flags::NONE);
        subject.events();
        subject.deliver(op, inbound(9), 1, b"early");
        assert_eq!(subject.events(), [Event::Cancel { mux_id: 9 }]);
        let lines = subject.lines();
        assert!(lines[0].starts_with("MuxServerMsg 9 seq=0 EOF|ERROR"), "{lines:?}");
        assert!(!subject.accept(9, 1, 1), "the stream has ended");
    }
}

#[test]
fn b11_a_stream_that_is_cancelled_before_it_is_accepted_is_not_accepted() {
    let mut subject = Subject::new();
    subject.receive_open(9, 0, Flags::NONE);
    subject.events();
    subject.receive_op(9, Op::DisconnectServerMux);
    assert_eq!(subject.events(), [Event::Cancel { mux_id: 9 }]);
    assert!(!subject.accept(9, 1, 1));
    assert_eq!(subject.sent(), []);
}

#[test]
fn b09_p13_streams_are_refused_where_requests_are() {
    let mut limits = Limits::default();
    limits.inbound_calls_max = 1;
    let mut subject = Subject::with_limits(&limits);
    subject.receive_open(9, 0, Flags::NONE);
    subject.receive_open(10, 0, Flags::NONE);
    assert!(refusal_text(&subject.sent_one()).starts_with("overloaded:"));
    subject.connection.drain();
    subject.receive_open(11, 0, Flags::NONE);
    assert_eq!(refusal_text(&subject.sent_one()), "this server is shutting down");
    assert!(subject.accept(9, 1, 1), "a stream in flight goes on");
    assert_eq!(subject.connection.counters().inbound_streams, 1);
}

// ---- sequences and credit ----

#[test]
fn p16_sequences_of_the_callee_count_messages_and_credits_from_the_acknowledgement() {
    let mut subject = Subject::new();
    subject.receive_open(9, 0, Flags::NONE);
    subject.accept(9, 1, 3);
    let id = inbound(9);
    subject.send(id, b"x");
    subject.deliver(Op::MuxClientMsg, id, 1, b"a");
    subject.read_message(id);
    subject.deliver(Op::Ping, id, 2, b"");
    subject.send(id, b"y");
    subject.respond(9, &ok(b""));
    let expected = [
        "AckMux 9 seq=0",
        r#"MuxServerMsg 9 seq=1 "x""#,
        "UnblockClMux 9 seq=2",
        "Pong 9 seq=2 {nf: false, e: nil, t: zero}",
        r#"MuxServerMsg 9 seq=3 "y""#,
        "MuxServerMsg 9 seq=4 EOF",
    ];
    assert_eq!(subject.lines(), expected, "a pong repeats the ping's sequence and takes none");
}

#[test]
fn b21_p17_a_message_waits_for_credit_and_is_then_sent() {
    for output in [0, 1] {
        let mut subject = Subject::new();
        let id = subject.accepted(9, 1, output);
        assert_eq!(subject.send(id, b"x"), SendStatus::Queued, "the capacity is at least 1");
        assert_eq!(subject.send(id, b"y"), SendStatus::Waiting);
        assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 "x""#]);
        subject.deliver(Op::UnblockSrvMux, id, 1, b"");
        assert_eq!(subject.events(), [Event::Writable(id)]);
        assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=2 "y""#]);
    }
}

#[test]
fn b21_a_peer_beyond_its_credit_ends_that_stream_with_an_error() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    let other = subject.accepted(10, 1, 1);
    subject.deliver(Op::MuxClientMsg, id, 1, b"allowed");
    subject.deliver(Op::MuxClientMsg, id, 2, b"too much");
    let events = [
        Event::Readable(id),
        inbound_stream_ended(&[b"allowed"], End::Overrun),
        Event::Cancel { mux_id: 9 },
    ];
    assert_eq!(subject.events(), events);
    let blocked = r#"MuxServerMsg 9 seq=1 EOF|ERROR "handler blocked: more messages than there was credit for""#;
    assert_eq!(subject.lines(), [blocked]);
    assert!(!subject.respond(9, &ok(b"")), "the stream has ended");
    assert_eq!(subject.send(other, b"goes on"), SendStatus::Queued);
}

#[test]
fn b21_a_message_after_the_end_of_the_input_is_beyond_its_credit() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 2, 1);
    subject.deliver_flagged(Op::MuxClientMsg, id, 1, EOF, b"");
    subject.deliver(Op::MuxClientMsg, id, 2, b"after the end");
    assert!(subject.events().contains(&inbound_stream_ended(&[], End::Overrun)));
}

#[test]
fn b22_an_incorrect_sequence_ends_that_stream_and_sends_the_caller_an_error() {
    for op in [Op::MuxClientMsg, Op::UnblockSrvMux, Op::Ping] {
        for received in [0, 1, 3, u32::MAX] {
            let mut subject = Subject::new();
            let id = subject.accepted(9, 2, 1);
            let other = subject.accepted(10, 1, 1);
            subject.deliver(Op::MuxClientMsg, id, 1, b"in order");
            subject.deliver(op, id, received, b"out of order");
            let end = End::IncorrectSequence { expected: 2, received };
            let events = [
                Event::Readable(id),
                inbound_stream_ended(&[b"in order"], end),
                Event::Cancel { mux_id: 9 },
            ];
            assert_eq!(subject.events(), events, "{op:?}");
            let text = format!("incorrect sequence: expected 2, received {received}");
            assert_eq!(subject.lines(), [format!("MuxServerMsg 9 seq=1 EOF|ERROR {text:?}")]);
            assert_eq!(subject.send(other, b"goes on"), SendStatus::Queued);
        }
    }
}

#[test]
fn b26_input_of_a_handler_without_input_is_an_error_of_that_stream() {
    let mut subject = Subject::new();
    subject.receive_open(9, 0, EOF);
    subject.accept(9, 0, 1);
    let id = inbound(9);
    assert_eq!(subject.read(id), Received::InputFinished);
    subject.sent();
    subject.deliver(Op::MuxClientMsg, id, 1, b"nowhere");
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 EOF|ERROR "the handler takes no input""#]);
    assert!(subject.events().contains(&Event::Cancel { mux_id: 9 }));
}

#[test]
fn b06_b11_cancelling_a_send_that_waits_for_credit_or_for_queue_space() {
    let mut subject = Subject::with_short_queue();
    let (id, other) = (subject.accepted(9, 1, 2), subject.accepted(10, 1, 2));
    subject.fill_queue();
    assert_eq!(subject.send(id, b"unwanted"), SendStatus::Waiting);
    assert_eq!(subject.send(other, b"wanted"), SendStatus::Waiting);
    subject.connection.cancel_send(id);
    let lines: Vec<_> = subject.lines().into_iter().filter(|line| line.contains("Mux")).collect();
    assert_eq!(lines, [r#"MuxServerMsg 10 seq=1 "wanted""#]);

    subject.send(id, b"x");
    subject.send(id, b"y");
    subject.send(id, b"unwanted");
    subject.connection.cancel_send(id);
    subject.respond(9, &ok(b""));
    subject.deliver(Op::UnblockSrvMux, id, 1, b"");
    let expected =
        [r#"MuxServerMsg 9 seq=1 "x""#, r#"MuxServerMsg 9 seq=2 "y""#, "MuxServerMsg 9 seq=3 EOF"];
    assert_eq!(subject.lines(), expected);
}

#[test]
fn p05_an_empty_message_is_a_message() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 3, 2);
    subject.send(id, b"");
    subject.respond(9, &ok(b""));
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 ZERO """#, "MuxServerMsg 9 seq=2 EOF"]);

    let id = subject.accepted(10, 3, 1);
    subject.deliver_flagged(Op::MuxClientMsg, id, 1, Flags::ZERO, b"");
    subject.deliver(Op::MuxClientMsg, id, 2, b""); // absent, and still a message: it takes a credit
    assert_eq!(subject.read(id), message(b""));
    assert_eq!(subject.read(id), message(b""));
    assert_eq!(subject.read(id), Received::Empty);
}

// ---- half-close, and the handler's end ----

#[test]
fn b25_half_close() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 2, 1);
    subject.deliver(Op::MuxClientMsg, id, 1, b"last");
    subject.deliver_flagged(Op::MuxClientMsg, id, 2, EOF, b"");
    assert_eq!(subject.events(), [Event::Readable(id)]);
    assert_eq!(subject.read(id), message(b"last"));
    assert_eq!(subject.read(id), Received::InputFinished);
    assert_eq!(subject.read(id), Received::InputFinished);
    assert_eq!(subject.sent(), [], "a finished sender needs no credit");
    assert_eq!(subject.send(id, b"still here"), SendStatus::Queued);
}

#[test]
fn b25_a_waiting_handler_learns_of_the_end_of_the_input() {
    for (flags, payload, expected) in [
        (EOF, &b""[..], Received::InputFinished),
        (EOF, b"last", message(b"last")),
        (EOF.with(Flags::ZERO), b"", message(b"")),
    ] {
        let mut subject = Subject::new();
        let id = subject.accepted(9, 1, 1);
        subject.deliver_flagged(Op::MuxClientMsg, id, 1, flags, payload);
        assert_eq!(subject.events(), [Event::Readable(id)]);
        assert_eq!(subject.read(id), expected);
        assert_eq!(subject.read(id), Received::InputFinished);
    }
}

#[test]
fn p15_an_opening_with_eof_is_a_stream_without_input() {
    let mut subject = Subject::new();
    subject.receive_open(9, 0, EOF);
    subject.accept(9, 3, 1);
    assert_eq!(subject.read(inbound(9)), Received::InputFinished);
}

#[test]
fn b25_a_caller_that_cancels_cancels_the_handler() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 2, 1);
    subject.send(id, b"x");
    subject.send(id, b"waits");
    subject.deliver(Op::MuxClientMsg, id, 1, b"input");
    subject.events();
    subject.receive_op(9, Op::DisconnectServerMux);
    let events = [inbound_stream_ended(&[b"input"], End::Cancelled), Event::Cancel { mux_id: 9 }];
    assert_eq!(subject.events(), events);
    assert!(!subject.respond(9, &ok(b"")));
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 "x""#]);
}

#[test]
fn b25_input_of_a_handler_that_returned_is_dropped_and_credited() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 2, 1);
    subject.deliver(Op::MuxClientMsg, id, 1, b"a");
    subject.send(id, b"x");
    subject.events();
    subject.sent();
    subject.respond(9, &ok(b""));
    assert_eq!(subject.lines(), ["UnblockClMux 9 seq=2"], "the end waits for credit");
    assert_eq!(subject.send(id, b"y"), SendStatus::Finished);

    subject.deliver(Op::MuxClientMsg, id, 2, b"b");
    assert_eq!(subject.lines(), ["UnblockClMux 9 seq=3"]);
    assert_eq!(subject.events(), []);
    subject.deliver(Op::UnblockSrvMux, id, 3, b"");
    assert_eq!(subject.lines(), ["MuxServerMsg 9 seq=4 EOF"]);
    let events = [inbound_stream_ended(&[], End::Finished), Event::ResponseRetired { mux_id: 9 }];
    assert_eq!(subject.events(), events);
    assert_eq!(subject.connection.live_inbound_calls(), 0);
}

#[test]
fn b23_the_end_follows_the_waiting_message() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    subject.send(id, b"x");
    subject.send(id, b"last");
    subject.respond(9, &ok(b""));
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 "x""#]);

    subject.deliver(Op::UnblockSrvMux, id, 1, b"");
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=2 "last""#]);
    subject.deliver(Op::UnblockSrvMux, id, 2, b"");
    assert_eq!(subject.lines(), ["MuxServerMsg 9 seq=3 EOF"]);
}

#[test]
fn b24_an_error_overtakes_a_message_that_waits_for_credit() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    subject.send(id, b"x");
    assert_eq!(subject.send(id, b"waits"), SendStatus::Waiting);
    subject.respond(9, &failed());
    let expected = [r#"MuxServerMsg 9 seq=1 "x""#, r#"DisconnectClientMux 9 ERROR "out of disk""#];
    assert_eq!(subject.lines(), expected);
}

#[test]
fn b24_an_error_needs_no_credit() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    subject.send(id, b"x");
    subject.respond(9, &failed());
    let expected = [r#"MuxServerMsg 9 seq=1 "x""#, r#"DisconnectClientMux 9 ERROR "out of disk""#];
    assert_eq!(subject.lines(), expected);
    let events = [inbound_stream_ended(&[], End::Finished), Event::ResponseRetired { mux_id: 9 }];
    assert_eq!(subject.events(), events);
}

#[test]
fn p18_b24_an_error_with_credit_is_the_last_message_of_its_stream() {
    let mut subject = Subject::new();
    subject.accepted(9, 1, 1);
    subject.respond(9, &failed());
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 EOF|ERROR "out of disk""#]);
    assert_eq!(subject.connection.live_inbound_calls(), 0);
}

#[test]
fn an_error_beyond_the_limit_becomes_one_that_says_so() {
    let mut subject = Subject::with_short_queue();
    subject.accepted(9, 1, 1);
    assert!(subject.respond(9, &Err("x".repeat(200).into())));
    let line = line(&subject.sent_one());
    assert!(
        line.starts_with(r#"MuxServerMsg 9 seq=1 EOF|ERROR "the handler's error of 2"#),
        "{line}"
    );
}

// ---- deadlines ----

#[test]
fn p14_a_stream_is_cancelled_at_its_deadline_and_nothing_is_sent() {
    let mut subject = Subject::new();
    subject.receive_open(9, 1_000, Flags::NONE);
    subject.accept(9, 1, 1);
    subject.deliver(Op::MuxClientMsg, inbound(9), 1, b"input");
    subject.sent();
    subject.events();
    subject.advance(Duration::from_secs(1));
    let end = End::DeadlineExceeded;
    let events = [inbound_stream_ended(&[b"input"], end), Event::Cancel { mux_id: 9 }];
    assert_eq!(subject.events(), events);
    assert!(!subject.respond(9, &ok(b"")));
    assert_eq!(subject.sent(), [], "the caller has its own timer");
}

#[test]
fn b14_p14_a_stream_that_returns_after_its_deadline_ends_even_before_the_timer_runs() {
    let mut subject = Subject::with_short_queue();
    subject.receive_open(9, 1_000, Flags::NONE);
    subject.accept(9, 1, 1);
    subject.sent();
    subject.fill_queue();
    subject.send(inbound(9), b"waits");
    subject.events();
    subject.advance_clock(Duration::from_secs(1));
    assert!(!subject.respond(9, &ok(b"")));
    // Another part of the handler may wait for the event.
    assert_eq!(subject.events(), [inbound_stream_ended(&[], End::DeadlineExceeded)]);
    assert_eq!(subject.connection.blocked_messages(), 1, "its message left the queue");
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
}

#[test]
fn p14_an_end_that_waited_beyond_the_deadline_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    subject.receive_open(9, 1_000, Flags::NONE);
    subject.accept(9, 1, 1);
    subject.sent();
    subject.fill_queue();
    subject.events();
    assert!(subject.respond(9, &ok(b"")), "it is queued");
    subject.advance_clock(Duration::from_secs(1));
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
    let end = End::DeadlineExceeded;
    assert_eq!(
        subject.events(),
        [inbound_stream_ended(&[], end), Event::ResponseRetired { mux_id: 9 }]
    );
    assert_eq!(subject.connection.blocked_messages(), 0);
}

// ---- pings (B07), and late messages ----

/// Advances the clock on a connection whose peer sends its pongs.
fn advance_with_pongs(subject: &mut Subject, seconds: u64) {
    for _ in 0..seconds {
        subject.advance(Duration::from_secs(1));
        let pong = b"\x81\xa1t\xc7\x0c\x05\0\0\0\0\0\0\0\0\0\0\0\0";
        subject.receive(Header::new(0, Op::Pong), Bytes::from_static(pong));
        subject.next_frame();
    }
}

#[test]
fn b07_a_stream_without_pings_for_75_seconds_is_cancelled() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    advance_with_pongs(&mut subject, 74);
    assert_eq!(subject.events(), []);
    subject.advance(Duration::from_secs(1));
    assert_eq!(subject.lines(), [r#"DisconnectClientMux 9 ERROR "no ping for 75 s""#]);
    let end = End::PingTimeout { missed: 4 };
    assert_eq!(subject.events(), [inbound_stream_ended(&[], end), Event::Cancel { mux_id: 9 }]);
    assert_eq!(subject.read(id), Received::StreamEnded);
}

#[test]
fn b07_only_a_ping_restarts_the_timeout() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 9, 1);
    advance_with_pongs(&mut subject, 40);
    subject.deliver(Op::Ping, id, 1, b"");
    advance_with_pongs(&mut subject, 35);
    subject.deliver(Op::MuxClientMsg, id, 2, b"not a ping");
    advance_with_pongs(&mut subject, 39);
    assert_eq!(subject.connection.live_inbound_calls(), 1);
    advance_with_pongs(&mut subject, 1);
    assert_eq!(subject.connection.live_inbound_calls(), 0, "75 s after the ping");
}

#[test]
fn b07_no_ping_timeout_where_the_deadline_is_nearer() {
    let mut subject = Subject::new();
    subject.receive_open(9, 75_000, Flags::NONE);
    subject.accept(9, 1, 1);
    subject.events();
    advance_with_pongs(&mut subject, 75);
    let end = End::DeadlineExceeded;
    assert_eq!(subject.events(), [inbound_stream_ended(&[], end), Event::Cancel { mux_id: 9 }]);
}

#[test]
fn b07_the_pong_repeats_the_sequence_of_the_ping() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    for sequence in 1..=3 {
        subject.deliver(Op::Ping, id, sequence, b"");
        let pong = format!("Pong 9 seq={sequence} {{nf: false, e: nil, t: zero}}");
        assert_eq!(subject.lines(), [pong]);
    }
    subject.deliver(Op::Ping, inbound(77), 5, b"");
    assert_eq!(subject.lines(), ["Pong 77 seq=5 {nf: true, e: nil, t: zero}"]);
}

#[test]
fn p18_late_messages_of_ended_streams_are_rejected_toward_the_initiator() {
    for (op, flags, response) in [
        (Op::MuxClientMsg, Flags::NONE, Some("DisconnectClientMux 9")),
        (Op::MuxClientMsg, EOF, None),
        (Op::UnblockSrvMux, Flags::NONE, None),
        (Op::DisconnectServerMux, Flags::NONE, None),
        (Op::Ping, Flags::NONE, Some("Pong 9 seq=1 {nf: true, e: nil, t: zero}")),
    ] {
        let mut subject = Subject::new();
        let id = subject.accepted(9, 1, 1);
        subject.respond(9, &ok(b""));
        subject.sent();
        subject.events();
        subject.deliver_flagged(op, id, 1, flags, b"");
        let expected: Vec<_> = response.into_iter().collect();
        assert_eq!(subject.lines(), expected, "{op:?}");
    }
}

#[test]
fn p18_a_stream_message_for_a_request_with_the_same_mux_id_ends_nothing() {
    let mut subject = Subject::new();
    subject.receive_request(9, 60_000);
    subject.events();
    subject.deliver(Op::MuxClientMsg, inbound(9), 1, b"lost");
    assert_eq!(subject.events(), [Event::Skipped { op: Op::MuxClientMsg, mux_id: 9 }]);
    assert_eq!(subject.sent(), [], "a reply would end the request at its caller");
    assert!(subject.connection.is_inbound_live(9));
}
