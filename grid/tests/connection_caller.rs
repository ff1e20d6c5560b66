//! The rules of outbound calls, one minimal test each: transmission of deadlines, cancellation, and
//! outcomes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{CloseReason, End, Event, StartError};
use grid::proto::message::{Flags, Header, Op};
use machine::{MINUTE, START, Subject, ended, refusal, responded, response_header};

// ---- requests ----

#[test]
fn p14_a_request_encodes_empty_and_absent_payloads_alike() {
    let mut subject = Subject::new();
    subject.call(b"");
    assert_eq!(subject.sent_one().header.flags, Flags::EOF.with(Flags::CRC));
}

#[test]
fn a_request_beyond_the_limit_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    let started = subject.try_call(&[0; 150], MINUTE);
    assert!(matches!(started, Err(StartError::TooLarge { bytes: 151.. })), "{started:?}");
    assert_eq!(subject.connection.live_outbound_calls(), 0);
    assert_eq!(subject.sent(), []);
}

#[test]
fn calls_beyond_the_outbound_limit_are_not_started() {
    let mut limits = Limits::default();
    limits.outbound_calls_max = 2;
    let mut subject = Subject::with_limits(&limits);
    let first = subject.call(b"");
    subject.call(b"");
    assert_eq!(subject.try_call(b"", MINUTE), Err(StartError::TooManyCalls));
    subject.connection.cancel(first);
    subject.call(b"");
}

// ---- deadlines ----

#[test]
fn b10_a_deadline_is_sent_in_milliseconds_rounded_up() {
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
    assert_eq!(subject.connection.live_outbound_calls(), 0);
    assert_eq!(subject.sent(), []);
}

#[test]
fn b10_a_request_that_waited_carries_the_remaining_time() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.try_call(b"late", Duration::from_secs(5)).expect("starts");
    subject.advance_clock(Duration::from_secs(2));
    let late = subject.sent().pop().expect("it is the last");
    assert_eq!((&late.payload[..], late.header.deadline_ms), (&b"late"[..], 3_000));
}

#[test]
fn b10_a_call_ends_at_its_deadline_and_cancels_its_handler() {
    let mut subject = Subject::new();
    let mux_id = subject.try_call(b"", Duration::from_millis(5)).expect("starts");
    assert_eq!(subject.connection.poll_timeout(), Some(START + Duration::from_millis(5)));
    subject.sent();
    subject.advance(Duration::from_nanos(4_999_999));
    assert_eq!(subject.events(), []);
    subject.advance(Duration::from_nanos(1));
    assert_eq!(subject.events(), [ended(Err(End::DeadlineExceeded))]);
    assert_eq!(subject.sent_ops(), [(Op::DisconnectServerMux, mux_id)]);
}

#[test]
fn b10_a_request_that_waited_beyond_its_deadline_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let late = subject.try_call(b"late", Duration::from_secs(1)).expect("starts");
    subject.advance_clock(Duration::from_secs(1));
    let sent = subject.sent();
    assert!(sent.iter().all(|message| message.header.mux_id != late), "{sent:?}");
    assert_eq!(subject.events(), [ended(Err(End::DeadlineExceeded))]);
    subject.advance(Duration::ZERO);
    assert_eq!(subject.events(), [], "it ends once");
    assert_eq!(subject.sent(), [], "the callee never received it");
}

// ---- cancellation ----

#[test]
fn b11_the_cancellation_of_a_call_is_sent_after_its_request() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.connection.cancel(mux_id);
    let ops = [(Op::Request, mux_id), (Op::DisconnectServerMux, mux_id)];
    assert_eq!(subject.sent_ops(), ops, "a cancellation does not overtake its request");
    assert_eq!(subject.connection.live_outbound_calls(), 0);
    assert_eq!(subject.events(), []);
}

#[test]
fn b11_cancelling_a_call_that_waits_for_queue_space_sends_nothing() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let mux_id = subject.call(b"secret");
    subject.connection.cancel(mux_id);
    assert!(subject.sent_ops().iter().all(|(_, sent)| *sent != mux_id));
    assert_eq!(subject.events(), []);
}

#[test]
fn p14_a_late_response_is_discarded() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.connection.cancel(mux_id);
    subject.sent();
    subject.receive(response_header(mux_id), Bytes::from_static(b"late"));
    subject.receive(Header::new(mux_id, Op::MuxConnectError), refusal("late"));
    assert_eq!(subject.events(), []);
    assert_eq!(subject.sent(), []);
}

// ---- ends of a call ----

#[test]
fn b12_a_refusal_for_an_unknown_handler_has_its_own_outcome() {
    // The second is a MinIO peer's, of an id beyond its own.
    let [unknown, beyond] = ["Invalid Handler for type: 7", "Invalid Handler"];
    for (text, outcome) in [
        (unknown, Err(End::UnknownHandler(unknown.into()))),
        (beyond, Err(End::UnknownHandler(beyond.into()))),
        ("overloaded: 4 calls", Err(End::Refused("overloaded: 4 calls".into()))),
        ("no reason", Err(End::Refused("no reason".into()))),
    ] {
        let mut subject = Subject::new();
        let mux_id = subject.call(b"");
        subject.receive(Header::new(mux_id, Op::MuxConnectError), refusal(text));
        assert_eq!(subject.events(), [ended(outcome)]);
        assert_eq!(subject.connection.live_outbound_calls(), 0);
    }
}

#[test]
fn p13_a_refusal_that_does_not_decode_is_still_a_refusal() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.receive(Header::new(mux_id, Op::MuxConnectError), Bytes::from_static(b"\xff"));
    assert_eq!(subject.events(), [ended(Err(End::Refused("the peer gave no reason".into())))]);
}

#[test]
fn p18_the_callee_may_cancel_a_call_with_or_without_a_reason() {
    for (flags, payload, reason) in [
        (Flags::ERROR, &b"out of disk"[..], "out of disk"),
        (Flags::NONE, &b""[..], "cancelled by the peer"),
    ] {
        let mut subject = Subject::new();
        let mux_id = subject.call(b"");
        let header = Header { flags, ..Header::new(mux_id, Op::DisconnectClientMux) };
        subject.receive(header, payload);
        assert_eq!(subject.events(), [ended(Err(End::RemoteError(reason.into())))]);
    }
}

#[test]
fn b14_a_second_response_is_discarded() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.receive(response_header(mux_id), Bytes::from_static(b"first"));
    subject.receive(response_header(mux_id), Bytes::from_static(b"second"));
    assert_eq!(subject.events(), [responded(b"first")]);
}

#[test]
fn b14_a_response_that_arrived_before_the_end_of_the_connection_is_delivered() {
    let mut subject = Subject::new();
    let mux_id = subject.call(b"");
    subject.call(b"no response");
    subject.receive(response_header(mux_id), Bytes::from_static(b"response"));
    subject.receive_op(0, Op::Disconnect);
    let closed = Event::Closed(CloseReason::Peer);
    assert_eq!(subject.events(), [responded(b"response"), ended(Err(End::Disconnected)), closed]);
}

#[test]
fn b14_no_message_of_a_peer_ends_a_call_that_was_not_sent() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let mux_id = subject.call(b"waits");
    subject.receive(response_header(mux_id), Bytes::from_static(b"forged"));
    subject.receive(Header::new(mux_id, Op::MuxConnectError), refusal("forged"));
    subject.receive_op(mux_id, Op::DisconnectClientMux);
    assert_eq!(subject.events(), []);
    assert!(subject.sent_ops().contains(&(Op::Request, mux_id)));

    subject.receive(response_header(mux_id), Bytes::from_static(b"response"));
    assert_eq!(subject.events(), [responded(b"response")]);
}
