//! The rules of the streams that one side serves, each with the smallest scene that shows it: how
//! they are taken, credit and sequences, half-close, errors that need no credit, and who is watched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{Asked, Event, Incoming, Received, Sent, StreamEnd};
use grid::proto::message::{Flags, Header, Op};
use machine::streams::{line, message, served_over, serving};
use machine::{Subject, ok, refusal_text};

const EOF: Flags = Flags::EOF;

fn failed() -> grid::proto::connection::Answer {
    Err("out of disk".into())
}

// ---- opening ----

#[test]
fn p15_b20_the_acknowledgement_is_the_first_that_the_caller_hears() {
    let mut subject = Subject::new();
    subject.receive_open(9, 30_000, Flags::NONE);
    let incoming = Incoming {
        mux_id: 9,
        asked: Asked::Stream { has_payload: true },
        handler: 7,
        subroute: None,
        payload: Bytes::from_static(b"open"),
        deadline: Some(subject.now + Duration::from_secs(30)),
    };
    assert_eq!(subject.events(), [Event::Serve(incoming)]);
    assert_eq!(subject.say(serving(9), b"too early"), Sent::StreamOver);
    assert_eq!(subject.sent(), []);

    assert!(subject.accept(9, 1, 1));
    subject.say(serving(9), b"hello");
    assert_eq!(subject.lines(), ["AckMux 9 seq=0", r#"MuxServerMsg 9 seq=1 "hello""#]);
}

#[test]
fn b20_a_full_queue_does_not_hold_up_the_acknowledgement() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.receive_open(9, 0, Flags::NONE);
    assert!(subject.accept(9, 1, 1));
    assert_eq!(subject.connection.blocked_messages(), 1, "it does not stand in line");
    assert!(subject.sent_ops().contains(&(Op::AckMux, 9)));
}

#[test]
fn p05_p15_an_absent_opening_payload_is_told_from_an_empty_one() {
    for (flags, payload, has_payload) in
        [(Flags::NONE, &b""[..], false), (Flags::ZERO, b"", true), (Flags::NONE, b"open", true)]
    {
        let mut subject = Subject::new();
        subject.receive(Header { flags, ..Header::new(9, Op::ConnectMux) }, payload);
        let events = subject.events();
        let [Event::Serve(incoming)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(incoming.asked, Asked::Stream { has_payload });
    }
}

#[test]
fn p15_an_opening_with_a_number_in_use_is_skipped() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    subject.receive_request(10, 60_000);
    subject.events();
    for mux_id in [9, 10, 0] {
        subject.receive_open(mux_id, 0, Flags::NONE);
        assert_eq!(subject.events(), [Event::Skipped { op: Op::ConnectMux, mux_id }]);
    }
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.say(id, b"goes on"), Sent::Queued);
}

#[test]
fn p06_a_stateless_stream_is_refused_and_not_served() {
    let mut subject = Subject::new();
    subject.receive_open(9, 1_000, Flags::STATELESS);
    assert_eq!(subject.events(), []);
    let expected = "MuxConnectError 9 handler=7 deadline=1000ms STATELESS \
                    {Error: \"Stateless streams not supported\"}";
    assert_eq!(subject.lines(), [expected]);
    assert_eq!(subject.connection.live_served(), 0);
}

#[test]
fn p15_a_message_before_the_acknowledgement_ends_the_stream() {
    for op in [Op::MuxClientMsg, Op::UnblockSrvMux] {
        let mut subject = Subject::new();
        subject.receive_open(9, 0, Flags::NONE);
        subject.events();
        subject.hear(op, serving(9), 1, b"early");
        assert_eq!(subject.events(), [Event::Cancel { mux_id: 9 }]);
        let lines = subject.lines();
        assert!(lines[0].starts_with("MuxServerMsg 9 seq=0 EOF|ERROR"), "{lines:?}");
        assert!(!subject.accept(9, 1, 1), "nobody wants it any more");
    }
}

#[test]
fn b11_a_stream_that_is_given_up_before_it_was_taken_is_not_taken() {
    let mut subject = Subject::new();
    subject.receive_open(9, 0, Flags::NONE);
    subject.events();
    subject.receive_op(9, Op::DisconnectServerMux);
    assert_eq!(subject.events(), [Event::Cancel { mux_id: 9 }]);
    assert!(!subject.accept(9, 1, 1));
    assert_eq!(subject.sent(), []);
}

#[test]
fn b09_p13_a_stream_is_refused_where_calls_are() {
    let mut limits = Limits::default();
    limits.calls_served_max = 1;
    let mut subject = Subject::with_limits(&limits);
    subject.receive_open(9, 0, Flags::NONE);
    subject.receive_open(10, 0, Flags::NONE);
    assert!(refusal_text(&subject.sent_one()).starts_with("overloaded:"));
    subject.connection.drain();
    subject.receive_open(11, 0, Flags::NONE);
    assert_eq!(refusal_text(&subject.sent_one()), "this server is shutting down");
    assert!(subject.accept(9, 1, 1), "what is under way goes on");
    assert_eq!(subject.connection.counters().streams_served, 1);
}

// ---- sequences and credit ----

#[test]
fn p16_sequences_of_the_server_count_messages_and_credits_from_the_acknowledgement() {
    let mut subject = Subject::new();
    subject.receive_open(9, 0, Flags::NONE);
    subject.accept(9, 1, 3);
    let id = serving(9);
    subject.say(id, b"x");
    subject.hear(Op::MuxClientMsg, id, 1, b"a");
    subject.take_message(id);
    subject.hear(Op::Ping, id, 2, b"");
    subject.say(id, b"y");
    subject.answer(9, &ok(b""));
    let expected = [
        "AckMux 9 seq=0",
        r#"MuxServerMsg 9 seq=1 "x""#,
        "UnblockClMux 9 seq=2",
        "Pong 9 seq=2 {nf: false, e: nil, t: zero}",
        r#"MuxServerMsg 9 seq=3 "y""#,
        "MuxServerMsg 9 seq=4 EOF",
    ];
    assert_eq!(subject.lines(), expected, "a pong repeats the ping's and takes none");
}

#[test]
fn b21_p17_a_message_waits_for_credit_and_leaves_with_it() {
    for output in [0, 1] {
        let mut subject = Subject::new();
        let id = subject.accepted(9, 1, output);
        assert_eq!(subject.say(id, b"x"), Sent::Queued, "the capacity is at least 1");
        assert_eq!(subject.say(id, b"y"), Sent::Waiting);
        assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 "x""#]);
        subject.hear(Op::UnblockSrvMux, id, 1, b"");
        assert_eq!(subject.events(), [Event::Writable(id)]);
        assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=2 "y""#]);
    }
}

#[test]
fn b21_a_peer_beyond_its_credit_ends_that_stream_with_an_error() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    let other = subject.accepted(10, 1, 1);
    subject.hear(Op::MuxClientMsg, id, 1, b"allowed");
    subject.hear(Op::MuxClientMsg, id, 2, b"too much");
    let events = [
        Event::Readable(id),
        served_over(&[b"allowed"], StreamEnd::Overrun),
        Event::Cancel { mux_id: 9 },
    ];
    assert_eq!(subject.events(), events);
    let blocked = r#"MuxServerMsg 9 seq=1 EOF|ERROR "handler blocked: more messages than there was credit for""#;
    assert_eq!(subject.lines(), [blocked]);
    assert!(!subject.answer(9, &ok(b"")), "nobody wants an answer");
    assert_eq!(subject.say(other, b"goes on"), Sent::Queued);
}

#[test]
fn b21_a_message_behind_the_end_of_the_input_is_beyond_its_credit() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 2, 1);
    subject.hear_flagged(Op::MuxClientMsg, id, 1, EOF, b"");
    subject.hear(Op::MuxClientMsg, id, 2, b"after the end");
    assert!(subject.events().contains(&served_over(&[], StreamEnd::Overrun)));
}

#[test]
fn b22_an_incorrect_sequence_ends_that_stream_and_the_caller_is_told() {
    for op in [Op::MuxClientMsg, Op::UnblockSrvMux, Op::Ping] {
        for received in [0, 1, 3, u32::MAX] {
            let mut subject = Subject::new();
            let id = subject.accepted(9, 2, 1);
            let other = subject.accepted(10, 1, 1);
            subject.hear(Op::MuxClientMsg, id, 1, b"in order");
            subject.hear(op, id, received, b"out of order");
            let end = StreamEnd::IncorrectSequence { expected: 2, received };
            let events = [
                Event::Readable(id),
                served_over(&[b"in order"], end),
                Event::Cancel { mux_id: 9 },
            ];
            assert_eq!(subject.events(), events, "{op:?}");
            let text = format!("incorrect sequence: expected 2, received {received}");
            assert_eq!(subject.lines(), [format!("MuxServerMsg 9 seq=1 EOF|ERROR {text:?}")]);
            assert_eq!(subject.say(other, b"goes on"), Sent::Queued);
        }
    }
}

#[test]
fn b26_input_of_a_handler_without_input_is_an_error_of_that_stream() {
    let mut subject = Subject::new();
    subject.receive_open(9, 0, EOF);
    subject.accept(9, 0, 1);
    let id = serving(9);
    assert_eq!(subject.take(id), Received::InputOver);
    subject.sent();
    subject.hear(Op::MuxClientMsg, id, 1, b"nowhere");
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 EOF|ERROR "the handler takes no input""#]);
    assert!(subject.events().contains(&Event::Cancel { mux_id: 9 }));
}

#[test]
fn b06_b11_cancelling_a_send_that_waits_for_credit_or_for_room() {
    let mut subject = Subject::with_short_queue();
    let (id, other) = (subject.accepted(9, 1, 2), subject.accepted(10, 1, 2));
    subject.fill_queue();
    assert_eq!(subject.say(id, b"unwanted"), Sent::Waiting);
    assert_eq!(subject.say(other, b"wanted"), Sent::Waiting);
    subject.connection.cancel_send(id);
    let lines: Vec<_> = subject.lines().into_iter().filter(|line| line.contains("Mux")).collect();
    assert_eq!(lines, [r#"MuxServerMsg 10 seq=1 "wanted""#]);

    subject.say(id, b"x");
    subject.say(id, b"y");
    subject.say(id, b"unwanted");
    subject.connection.cancel_send(id);
    subject.answer(9, &ok(b""));
    subject.hear(Op::UnblockSrvMux, id, 1, b"");
    let expected =
        [r#"MuxServerMsg 9 seq=1 "x""#, r#"MuxServerMsg 9 seq=2 "y""#, "MuxServerMsg 9 seq=3 EOF"];
    assert_eq!(subject.lines(), expected);
}

#[test]
fn p05_an_empty_message_is_a_message() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 3, 2);
    subject.say(id, b"");
    subject.answer(9, &ok(b""));
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 ZERO """#, "MuxServerMsg 9 seq=2 EOF"]);

    let id = subject.accepted(10, 3, 1);
    subject.hear_flagged(Op::MuxClientMsg, id, 1, Flags::ZERO, b"");
    subject.hear(Op::MuxClientMsg, id, 2, b""); // absent, and still a message: it took a credit
    assert_eq!(subject.take(id), message(b""));
    assert_eq!(subject.take(id), message(b""));
    assert_eq!(subject.take(id), Received::Nothing);
}

// ---- half-close, and the handler's end ----

#[test]
fn b25_half_close() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 2, 1);
    subject.hear(Op::MuxClientMsg, id, 1, b"last");
    subject.hear_flagged(Op::MuxClientMsg, id, 2, EOF, b"");
    assert_eq!(subject.events(), [Event::Readable(id)]);
    assert_eq!(subject.take(id), message(b"last"));
    assert_eq!(subject.take(id), Received::InputOver);
    assert_eq!(subject.take(id), Received::InputOver);
    assert_eq!(subject.sent(), [], "who is done sending needs no credit");
    assert_eq!(subject.say(id, b"still here"), Sent::Queued);
}

#[test]
fn b25_a_handler_that_waits_is_told_of_the_end_of_the_input() {
    for (flags, payload, expected) in [
        (EOF, &b""[..], Received::InputOver),
        (EOF, b"last", message(b"last")),
        (EOF.with(Flags::ZERO), b"", message(b"")),
    ] {
        let mut subject = Subject::new();
        let id = subject.accepted(9, 1, 1);
        subject.hear_flagged(Op::MuxClientMsg, id, 1, flags, payload);
        assert_eq!(subject.events(), [Event::Readable(id)]);
        assert_eq!(subject.take(id), expected);
        assert_eq!(subject.take(id), Received::InputOver);
    }
}

#[test]
fn p15_an_opening_with_the_end_is_a_stream_whose_input_is_over() {
    let mut subject = Subject::new();
    subject.receive_open(9, 0, EOF);
    subject.accept(9, 3, 1);
    assert_eq!(subject.take(serving(9)), Received::InputOver);
}

#[test]
fn b25_the_caller_that_gives_up_cancels_the_handler() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 2, 1);
    subject.say(id, b"x");
    subject.say(id, b"waits");
    subject.hear(Op::MuxClientMsg, id, 1, b"input");
    subject.events();
    subject.receive_op(9, Op::DisconnectServerMux);
    let events = [served_over(&[b"input"], StreamEnd::Cancelled), Event::Cancel { mux_id: 9 }];
    assert_eq!(subject.events(), events);
    assert!(!subject.answer(9, &ok(b"")));
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 "x""#]);
}

#[test]
fn b25_input_of_a_handler_that_returned_is_dropped_and_credited() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 2, 1);
    subject.hear(Op::MuxClientMsg, id, 1, b"a");
    subject.say(id, b"x");
    subject.events();
    subject.sent();
    subject.answer(9, &ok(b""));
    assert_eq!(subject.lines(), ["UnblockClMux 9 seq=2"], "the end waits for credit");
    assert_eq!(subject.say(id, b"y"), Sent::Finished);

    subject.hear(Op::MuxClientMsg, id, 2, b"b");
    assert_eq!(subject.lines(), ["UnblockClMux 9 seq=3"]);
    assert_eq!(subject.events(), []);
    subject.hear(Op::UnblockSrvMux, id, 3, b"");
    assert_eq!(subject.lines(), ["MuxServerMsg 9 seq=4 EOF"]);
    let events = [served_over(&[], StreamEnd::Finished), Event::AnswerOver { mux_id: 9 }];
    assert_eq!(subject.events(), events);
    assert_eq!(subject.connection.live_served(), 0);
}

#[test]
fn b23_the_end_stands_behind_the_message_that_waits() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    subject.say(id, b"x");
    subject.say(id, b"last");
    subject.answer(9, &ok(b""));
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 "x""#]);

    subject.hear(Op::UnblockSrvMux, id, 1, b"");
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=2 "last""#]);
    subject.hear(Op::UnblockSrvMux, id, 2, b"");
    assert_eq!(subject.lines(), ["MuxServerMsg 9 seq=3 EOF"]);
}

#[test]
fn b24_an_error_is_not_held_back_by_a_message_that_waits_for_credit() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    subject.say(id, b"x");
    assert_eq!(subject.say(id, b"waits"), Sent::Waiting);
    subject.answer(9, &failed());
    let expected = [r#"MuxServerMsg 9 seq=1 "x""#, r#"DisconnectClientMux 9 ERROR "out of disk""#];
    assert_eq!(subject.lines(), expected);
}

#[test]
fn b24_an_error_needs_no_credit() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    subject.say(id, b"x");
    subject.answer(9, &failed());
    let expected = [r#"MuxServerMsg 9 seq=1 "x""#, r#"DisconnectClientMux 9 ERROR "out of disk""#];
    assert_eq!(subject.lines(), expected);
    let events = [served_over(&[], StreamEnd::Finished), Event::AnswerOver { mux_id: 9 }];
    assert_eq!(subject.events(), events);
}

#[test]
fn p18_b24_an_error_with_credit_is_the_last_message_of_its_stream() {
    let mut subject = Subject::new();
    subject.accepted(9, 1, 1);
    subject.answer(9, &failed());
    assert_eq!(subject.lines(), [r#"MuxServerMsg 9 seq=1 EOF|ERROR "out of disk""#]);
    assert_eq!(subject.connection.live_served(), 0);
}

#[test]
fn an_error_beyond_the_limit_becomes_one_that_says_so() {
    let mut subject = Subject::with_short_queue();
    subject.accepted(9, 1, 1);
    assert!(subject.answer(9, &Err("x".repeat(200).into())));
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
    subject.hear(Op::MuxClientMsg, serving(9), 1, b"input");
    subject.sent();
    subject.events();
    subject.advance(Duration::from_secs(1));
    let end = StreamEnd::DeadlineExceeded;
    let events = [served_over(&[b"input"], end), Event::Cancel { mux_id: 9 }];
    assert_eq!(subject.events(), events);
    assert!(!subject.answer(9, &ok(b"")));
    assert_eq!(subject.sent(), [], "the caller has a timer of its own");
}

#[test]
fn b14_p14_a_stream_answered_after_its_deadline_ends_though_the_timer_has_not_run() {
    let mut subject = Subject::with_short_queue();
    subject.receive_open(9, 1_000, Flags::NONE);
    subject.accept(9, 1, 1);
    subject.sent();
    subject.fill_queue();
    subject.say(serving(9), b"waits");
    subject.events();
    subject.pass(Duration::from_secs(1));
    assert!(!subject.answer(9, &ok(b"")));
    // Another part of the handler may wait for it.
    assert_eq!(subject.events(), [served_over(&[], StreamEnd::DeadlineExceeded)]);
    assert_eq!(subject.connection.blocked_messages(), 1, "its message does not stand in line");
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
    assert!(subject.answer(9, &ok(b"")), "it waits in line");
    subject.pass(Duration::from_secs(1));
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
    let end = StreamEnd::DeadlineExceeded;
    assert_eq!(subject.events(), [served_over(&[], end), Event::AnswerOver { mux_id: 9 }]);
    assert_eq!(subject.connection.blocked_messages(), 0);
}

// ---- pings (B07), and what is gone ----

/// Time passes on a connection whose peer answers its pings.
fn pass_alive(subject: &mut Subject, seconds: u64) {
    for _ in 0..seconds {
        subject.advance(Duration::from_secs(1));
        let pong = b"\x81\xa1t\xc7\x0c\x05\0\0\0\0\0\0\0\0\0\0\0\0";
        subject.receive(Header::new(0, Op::Pong), Bytes::from_static(pong));
        subject.next_frame();
    }
}

#[test]
fn b07_a_stream_whose_pings_stay_away_for_75_seconds_is_given_up() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    pass_alive(&mut subject, 74);
    assert_eq!(subject.events(), []);
    subject.advance(Duration::from_secs(1));
    assert_eq!(subject.lines(), [r#"DisconnectClientMux 9 ERROR "no ping for 75 s""#]);
    let end = StreamEnd::Silent { missed: 4 };
    assert_eq!(subject.events(), [served_over(&[], end), Event::Cancel { mux_id: 9 }]);
    assert_eq!(subject.take(id), Received::StreamOver);
}

#[test]
fn b07_a_ping_is_a_sign_of_life_and_other_messages_are_none() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 9, 1);
    pass_alive(&mut subject, 40);
    subject.hear(Op::Ping, id, 1, b"");
    pass_alive(&mut subject, 35);
    subject.hear(Op::MuxClientMsg, id, 2, b"not a ping");
    pass_alive(&mut subject, 39);
    assert_eq!(subject.connection.live_served(), 1);
    pass_alive(&mut subject, 1);
    assert_eq!(subject.connection.live_served(), 0, "75 s after the ping");
}

#[test]
fn b07_pings_are_not_missed_where_the_deadline_is_nearer() {
    let mut subject = Subject::new();
    subject.receive_open(9, 75_000, Flags::NONE);
    subject.accept(9, 1, 1);
    subject.events();
    pass_alive(&mut subject, 75);
    let end = StreamEnd::DeadlineExceeded;
    assert_eq!(subject.events(), [served_over(&[], end), Event::Cancel { mux_id: 9 }]);
}

#[test]
fn b07_the_pong_repeats_the_sequence_of_the_ping() {
    let mut subject = Subject::new();
    let id = subject.accepted(9, 1, 1);
    for sequence in 1..=3 {
        subject.hear(Op::Ping, id, sequence, b"");
        let pong = format!("Pong 9 seq={sequence} {{nf: false, e: nil, t: zero}}");
        assert_eq!(subject.lines(), [pong]);
    }
    subject.hear(Op::Ping, serving(77), 5, b"");
    assert_eq!(subject.lines(), ["Pong 77 seq=5 {nf: true, e: nil, t: zero}"]);
}

#[test]
fn p18_late_messages_of_gone_streams_are_answered_toward_the_owner() {
    for (op, flags, answer) in [
        (Op::MuxClientMsg, Flags::NONE, Some("DisconnectClientMux 9")),
        (Op::MuxClientMsg, EOF, None),
        (Op::UnblockSrvMux, Flags::NONE, None),
        (Op::DisconnectServerMux, Flags::NONE, None),
        (Op::Ping, Flags::NONE, Some("Pong 9 seq=1 {nf: true, e: nil, t: zero}")),
    ] {
        let mut subject = Subject::new();
        let id = subject.accepted(9, 1, 1);
        subject.answer(9, &ok(b""));
        subject.sent();
        subject.events();
        subject.hear_flagged(op, id, 1, flags, b"");
        let expected: Vec<_> = answer.into_iter().collect();
        assert_eq!(subject.lines(), expected, "{op:?}");
    }
}

#[test]
fn p18_a_message_of_a_stream_for_a_request_of_the_same_number_ends_nothing() {
    let mut subject = Subject::new();
    subject.receive_request(9, 60_000);
    subject.events();
    subject.hear(Op::MuxClientMsg, serving(9), 1, b"lost");
    assert_eq!(subject.events(), [Event::Skipped { op: Op::MuxClientMsg, mux_id: 9 }]);
    assert_eq!(subject.sent(), [], "an answer would end the request at its caller");
    assert!(subject.connection.is_serving(9));
}
