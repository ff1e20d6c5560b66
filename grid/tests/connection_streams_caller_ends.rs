//! Ends of outbound streams, one minimal test per rule: messages received before the end, messages
//! sent, pings, and the stream that a mux id refers to. `connection_streams_caller.rs` has the rules
//! of open streams.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::time::Duration;

use bytes::Bytes;
use grid::proto::connection::{CloseReason, End, Event, Received, SendStatus};
use grid::proto::message::{Flags, Header, Op};
use machine::streams::{inbound_stream_ended, stream_ended, stream_ended_with};
use machine::{Subject, refusal};

const EOF: Flags = Flags::EOF;
const FAILED: Flags = Flags::EOF.with(Flags::ERROR);
const PING_INTERVAL: Duration = Duration::from_secs(15);

// ---- messages before the end ----

#[test]
fn b23_messages_before_the_end_are_received_first() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 3);
    subject.deliver(Op::MuxServerMsg, id, 1, b"x");
    subject.deliver(Op::MuxServerMsg, id, 2, b"y");
    subject.deliver(Op::MuxServerMsg, id, 3, b"z");
    assert_eq!(subject.read_message(id), "x");
    subject.events();
    subject.deliver_flagged(Op::MuxServerMsg, id, 4, EOF, b"");
    assert_eq!(subject.events(), [stream_ended_with(&[b"y", b"z"], End::Finished)]);
    assert_eq!(subject.read(id), Received::StreamEnded);
    assert_eq!(subject.send(id, b"late"), SendStatus::StreamEnded);
    assert_eq!(subject.connection.finish(id), SendStatus::StreamEnded);
    assert_eq!(subject.connection.live_outbound_streams(), 0);
}

#[test]
fn b23_an_end_with_a_payload_is_a_message_and_then_the_end() {
    for (flags, payload, rest) in [
        (EOF, &b"last"[..], &[&b"first"[..], b"last"][..]),
        (EOF.with(Flags::ZERO), b"", &[b"first", b""]),
        (EOF, b"", &[b"first"]),
    ] {
        let mut subject = Subject::new();
        let id = subject.opened(1, 2);
        subject.deliver(Op::MuxServerMsg, id, 1, b"first");
        subject.events();
        subject.deliver_flagged(Op::MuxServerMsg, id, 2, flags, payload);
        let events = subject.events();
        assert_eq!(events.last(), Some(&stream_ended_with(rest, End::Finished)));
    }
}

#[test]
fn b21_an_end_whose_payload_has_no_credit_is_an_overrun() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.deliver(Op::MuxServerMsg, id, 1, b"first");
    subject.events();
    subject.deliver_flagged(Op::MuxServerMsg, id, 2, EOF, b"too much");
    assert_eq!(subject.events(), [stream_ended_with(&[b"first"], End::Overrun)]);
}

#[test]
fn b23_a_disconnect_after_the_end_is_ignored() {
    // MinIO peers send one after every finished stream.
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    let next = subject.opened(1, 1);
    subject.deliver_flagged(Op::MuxServerMsg, id, 1, EOF, b"");
    subject.receive_op(id.mux_id, Op::DisconnectClientMux);
    assert_eq!(subject.events(), [stream_ended(End::Finished)]);
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.send(next, b"goes on"), SendStatus::Queued);
}

#[test]
fn b23_b24_an_error_is_received_after_the_buffered_messages() {
    let error = End::RemoteError("out of disk".into());
    for (op, flags) in [(Op::MuxServerMsg, FAILED), (Op::DisconnectClientMux, Flags::ERROR)] {
        let mut subject = Subject::new();
        let id = subject.opened(1, 2);
        subject.deliver(Op::MuxServerMsg, id, 1, b"x");
        subject.deliver(Op::MuxServerMsg, id, 2, b"y");
        subject.events();
        subject.deliver_flagged(op, id, 3, flags, b"out of disk");
        assert_eq!(subject.events(), [stream_ended_with(&[b"x", b"y"], error.clone())], "{op:?}");
        assert_eq!(subject.sent(), [], "nothing to clean up at the peer");
    }
}

#[test]
fn p18_the_callee_may_cancel_a_stream_without_a_reason() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.receive_op(id.mux_id, Op::DisconnectClientMux);
    let end = End::RemoteError("cancelled by the peer".into());
    assert_eq!(subject.events(), [stream_ended(end)]);
}

/// Regression test from a simulation with clock rates 1 % apart: the deadline passed at the callee
/// first, and the caller's next message got a reply as if the stream had been cancelled.
#[test]
fn b10_p18_a_disconnect_around_the_deadline_is_a_deadline() {
    let (long_before, just_before) = (Duration::from_millis(900), Duration::from_millis(990));
    let cancelled = End::RemoteError("cancelled by the peer".into());
    for (after, end) in [(long_before, cancelled), (just_before, End::DeadlineExceeded)] {
        let mut subject = Subject::new();
        let id = subject.open_until(Duration::from_secs(1));
        subject.deliver(Op::AckMux, id, 0, b"");
        subject.events();
        subject.advance(after);
        subject.receive_op(id.mux_id, Op::DisconnectClientMux);
        assert_eq!(subject.events(), [stream_ended(end)]);
    }
    // A disconnect with a reason keeps the reason.
    let mut subject = Subject::new();
    let id = subject.open_until(Duration::from_secs(1));
    subject.advance(just_before);
    let header = Header { flags: Flags::ERROR, ..Header::new(id.mux_id, Op::DisconnectClientMux) };
    subject.receive(header, Bytes::from_static(b"the reason"));
    assert_eq!(subject.events(), [stream_ended(End::RemoteError("the reason".into()))]);
}

#[test]
fn b25_a_handler_that_ends_early_drops_the_waiting_message() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.send(id, b"a");
    subject.send(id, b"waits");
    subject.sent();
    subject.deliver_flagged(Op::MuxServerMsg, id, 1, FAILED, b"enough");
    assert_eq!(subject.events(), [stream_ended(End::RemoteError("enough".into()))]);
    assert_eq!(subject.connection.send_status(id), SendStatus::StreamEnded);
    let spent = subject.connection.take_retired_payloads();
    assert_eq!(spent.last().map(|payload| &payload[..]), Some(&b"waits"[..]));
    assert_eq!(subject.sent(), []);
}

#[test]
fn b12_a_refused_stream_ends_with_the_kind_of_refusal() {
    let unknown = "Invalid Handler for type: 7";
    for (text, end) in [
        (unknown, End::UnknownHandler(unknown.into())),
        ("overloaded: 4 calls", End::Refused("overloaded: 4 calls".into())),
    ] {
        let mut subject = Subject::new();
        let id = subject.open(1, 1);
        subject.send(id, b"waits");
        subject.sent();
        subject.receive(Header::new(id.mux_id, Op::MuxConnectError), refusal(text));
        assert_eq!(subject.events(), [stream_ended(end)]);
        assert_eq!(subject.sent(), []);
    }
}

#[test]
fn b11_cancelling_a_stream_ends_its_halves_and_its_handler() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.deliver(Op::MuxServerMsg, id, 1, b"unread");
    subject.events();
    subject.connection.cancel(id.mux_id);
    assert_eq!(subject.events(), [stream_ended_with(&[b"unread"], End::Cancelled)]);
    assert_eq!(subject.lines(), ["DisconnectServerMux 1"]);
}

#[test]
fn b05_the_end_of_the_connection_ends_every_stream_with_the_messages_it_received() {
    let mut subject = Subject::with_short_queue();
    let unread = subject.opened(1, 1);
    let unsent = subject.opened(1, 1);
    let served = subject.accepted(9, 1, 1);
    subject.deliver(Op::MuxServerMsg, unread, 1, b"unread");
    subject.deliver(Op::MuxClientMsg, served, 1, b"input");
    subject.open(1, 1);
    subject.events();
    subject.fill_queue();
    subject.send(unsent, b"unsent");
    subject.connection.close(CloseReason::Peer);

    let ends: Vec<_> = subject
        .events()
        .into_iter()
        .filter(|event| !matches!(event, Event::CallEnded { .. }))
        .collect();
    let lost = End::Disconnected;
    let expected = [
        stream_ended_with(&[b"unread"], lost.clone()),
        stream_ended(lost.clone()),
        stream_ended(lost.clone()),
        inbound_stream_ended(&[b"input"], lost),
        Event::Cancel { mux_id: 9 },
        Event::Closed(CloseReason::Peer),
    ];
    assert_eq!(ends, expected);
    assert_eq!(subject.connection.queued_bytes(), 0);
    assert_eq!(subject.connection.blocked_messages(), 0);
    assert!(subject.connection.take_retired_payloads().contains(&Bytes::from_static(b"unsent")));
}

// ---- pings (B07) ----

/// Returns the queued messages except the connection's own pings.
fn stream_lines(subject: &mut Subject) -> Vec<String> {
    subject.lines().into_iter().filter(|line| !line.starts_with("Ping 0")).collect()
}

/// Advances the clock on a connection whose peer sends its pongs.
fn advance_with_pongs(subject: &mut Subject, duration: Duration) {
    for _ in 0..duration.as_secs() {
        subject.advance(Duration::from_secs(1));
        let pong =
            Bytes::from_static(b"\x83\xa2nf\xc2\xa1e\xc0\xa1t\xc7\x0c\x05\0\0\0\0\0\0\0\0\0\0\0\0");
        subject.receive(Header::new(0, Op::Pong), pong);
    }
}

/// Encodes the payload of a stream's pong.
fn pong(not_found: bool, error: Option<&str>) -> Bytes {
    let mut payload = b"\x83\xa2nf".to_vec();
    payload.push(if not_found { 0xc3 } else { 0xc2 });
    payload.extend_from_slice(b"\xa1e");
    match error {
        Some(text) => {
            payload.push(0xa0 | u8::try_from(text.len()).expect("a short text"));
            payload.extend_from_slice(text.as_bytes());
        }
        None => payload.push(0xc0),
    }
    payload.extend_from_slice(b"\xa1t\xc7\x0c\x05\0\0\0\0\0\0\0\0\0\0\0\0");
    payload.into()
}

#[test]
fn b07_stream_pings_are_sent_every_15_seconds_and_two_without_a_pong_end_the_stream() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    advance_with_pongs(&mut subject, PING_INTERVAL - Duration::from_secs(1));
    assert_eq!(stream_lines(&mut subject), [""; 0]);
    advance_with_pongs(&mut subject, Duration::from_secs(1));
    assert_eq!(stream_lines(&mut subject), ["Ping 1 seq=1"]);
    advance_with_pongs(&mut subject, PING_INTERVAL);
    assert_eq!(stream_lines(&mut subject), ["Ping 1 seq=2"]);
    assert_eq!(subject.events(), []);
    advance_with_pongs(&mut subject, PING_INTERVAL);
    assert_eq!(stream_lines(&mut subject), ["DisconnectServerMux 1"]);
    assert_eq!(subject.events(), [stream_ended(End::PingTimeout { missed: 2 })]);
    assert_eq!(subject.read(id), Received::StreamEnded);
}

#[test]
fn b07_a_pong_resets_the_ping_count_and_takes_no_sequence() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    for round in 1..=10 {
        advance_with_pongs(&mut subject, PING_INTERVAL);
        assert_eq!(stream_lines(&mut subject), [format!("Ping 1 seq={round}")]);
        let header = Header { sequence: round, ..Header::new(id.mux_id, Op::Pong) };
        subject.receive(header, pong(false, None));
    }
    assert_eq!(subject.events(), []);
    subject.deliver(Op::MuxServerMsg, id, 1, b"in order");
    assert_eq!(subject.read_message(id), "in order");
}

#[test]
fn b07_a_stream_with_a_nearer_deadline_is_not_pinged() {
    for (deadline, pings) in [(15, 0), (16, 1), (31, 2)] {
        let mut subject = Subject::new();
        subject.open_until(Duration::from_secs(deadline));
        subject.sent();
        advance_with_pongs(&mut subject, Duration::from_secs(60));
        let lines = stream_lines(&mut subject);
        let count = lines.iter().filter(|line| line.starts_with("Ping 1")).count();
        assert_eq!(count, pings, "deadline {deadline} s: {lines:?}");
        assert_eq!(lines.last().map(String::as_str), Some("DisconnectServerMux 1"));
        assert_eq!(subject.events(), [stream_ended(End::DeadlineExceeded)]);
    }
}

#[test]
fn b07_a_stream_that_waits_for_queue_space_is_not_pinged_until_it_is_opened() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let id = subject.open(1, 1);
    advance_with_pongs(&mut subject, PING_INTERVAL * 3);
    assert_eq!(subject.connection.live_outbound_streams(), 1);
    let lines = stream_lines(&mut subject);
    assert!(lines.iter().all(|line| !line.starts_with("Ping")), "{lines:?}");
    advance_with_pongs(&mut subject, PING_INTERVAL);
    let ping = format!("Ping {} seq=1", id.mux_id);
    assert!(stream_lines(&mut subject).contains(&ping), "the calls in front of it expired");
}

#[test]
fn b07_a_pong_with_not_found_or_an_error_ends_its_stream() {
    for (payload, end) in [
        (pong(true, None), End::NotFound),
        (pong(false, Some("broken")), End::RemoteError("broken".into())),
    ] {
        let mut subject = Subject::new();
        let id = subject.opened(1, 2);
        subject.deliver(Op::MuxServerMsg, id, 1, b"unread");
        subject.events();
        subject.receive(Header { sequence: 1, ..Header::new(id.mux_id, Op::Pong) }, payload);
        assert_eq!(subject.events(), [stream_ended_with(&[b"unread"], end)]);
        assert_eq!(subject.sent(), [], "nothing to clean up at the peer");
    }
}

// ---- late messages, and one mux id in both directions ----

#[test]
fn p18_late_messages_of_ended_streams_are_rejected_toward_the_initiator() {
    for (op, response) in [
        (Op::AckMux, Some(Op::DisconnectServerMux)),
        (Op::MuxServerMsg, Some(Op::DisconnectServerMux)),
        (Op::Pong, Some(Op::DisconnectServerMux)),
        (Op::UnblockClMux, None),
    ] {
        let mut subject = Subject::new();
        let id = subject.opened(1, 1);
        subject.connection.cancel(id.mux_id);
        subject.events();
        subject.sent();
        subject.deliver(op, id, 1, b"late");
        let expected: Vec<_> = response.map(|op| (op, id.mux_id)).into_iter().collect();
        assert_eq!(subject.sent_ops(), expected, "{op:?}");
        assert_eq!(subject.events(), [], "{op:?}");
    }
}

#[test]
fn p18_a_late_message_with_the_end_gets_no_reply() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.connection.cancel(id.mux_id);
    subject.sent();
    subject.deliver_flagged(Op::MuxServerMsg, id, 1, FAILED, b"context canceled");
    assert_eq!(subject.sent(), []);
}

#[test]
fn b16_one_mux_id_in_both_directions_is_two_streams() {
    let mut subject = Subject::new();
    let mine = subject.opened(1, 1);
    let theirs = subject.accepted(1, 1, 1);
    subject.deliver(Op::MuxServerMsg, mine, 1, b"to the caller");
    subject.deliver(Op::MuxClientMsg, theirs, 1, b"to the handler");
    assert_eq!(subject.read_message(mine), "to the caller");
    assert_eq!(subject.read_message(theirs), "to the handler");
    assert_eq!(subject.lines(), ["UnblockSrvMux 1 seq=1", "UnblockClMux 1 seq=1"]);
    subject.events();

    subject.receive_op(1, Op::DisconnectServerMux);
    let events = [inbound_stream_ended(&[], End::Cancelled), Event::Cancel { mux_id: 1 }];
    assert_eq!(subject.events(), events);
    subject.receive_op(1, Op::DisconnectClientMux);
    let end = End::RemoteError("cancelled by the peer".into());
    assert_eq!(subject.events(), [stream_ended(end)]);
}

#[test]
fn b16_the_end_of_a_stream_leaves_the_stream_of_the_other_direction_alone() {
    let mut subject = Subject::new();
    let mine = subject.opened(1, 1);
    let theirs = subject.accepted(1, 1, 1);
    subject.deliver_flagged(Op::MuxServerMsg, mine, 1, FAILED, b"mine failed");
    // A late message for an ended stream: its rejection must not look like the end of `theirs`.
    subject.deliver(Op::MuxServerMsg, mine, 2, b"late");
    assert_eq!(subject.lines(), ["DisconnectServerMux 1"], "toward the callee");
    assert_eq!(subject.send(theirs, b"goes on"), SendStatus::Queued);
    assert_eq!(subject.connection.live_inbound_streams(), 1);
}

#[test]
fn p18_a_stream_message_for_a_request_with_the_same_mux_id_ends_nothing() {
    for op in [Op::AckMux, Op::MuxServerMsg, Op::Pong] {
        let mut subject = Subject::new();
        let mux_id = subject.call(b"a request");
        subject.sent();
        subject.receive_op(mux_id, op);
        assert_eq!(subject.events(), [Event::Skipped { op, mux_id }]);
        assert_eq!(subject.sent(), [], "a reply would cancel the request");
    }
}

#[test]
fn b14_no_message_of_a_peer_ends_a_stream_that_was_not_opened() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let id = subject.open(1, 1);
    subject.deliver(Op::AckMux, id, 0, b"");
    subject.deliver_flagged(Op::MuxServerMsg, id, 0, EOF, b"");
    subject.receive(Header::new(id.mux_id, Op::MuxConnectError), refusal("forged"));
    subject.receive_op(id.mux_id, Op::DisconnectClientMux);
    subject.receive(Header::new(id.mux_id, Op::Pong), pong(true, None));
    let is_skipped = |event: &Event| matches!(event, Event::Skipped { .. });
    assert!(subject.events().iter().all(is_skipped));
    assert!(subject.sent_ops().contains(&(Op::ConnectMux, id.mux_id)));
    subject.deliver(Op::AckMux, id, 0, b"");
    assert_eq!(subject.events(), [Event::Opened(id)]);
}
