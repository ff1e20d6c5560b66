//! The rules of the calls that one side makes, each with the smallest scene that shows it: how
//! their deadlines travel, how they are given up, and how they end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{CloseReason, Event, Outcome, StartError};
use grid::proto::message::{Flags, Header, Op};
use machine::{MINUTE, START, Subject, answered, ended, refusal, response_header};

// ---- what is sent ----

#[test]
fn p14_a_request_never_tells_an_empty_payload_from_an_absent_one() {
    let mut subject = Subject::new();
    subject.call(b"");
    assert_eq!(subject.sent_one().header.flags, Flags::EOF.with(Flags::CRC));
}

#[test]
fn a_request_beyond_the_limit_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    let started = subject.try_call(&[0; 150], MINUTE);
    assert!(matches!(started, Err(StartError::TooLarge { bytes: 151.. })), "{started:?}");
    assert_eq!(subject.connection.live_calls(), 0);
    assert_eq!(subject.sent(), []);
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
