//! The rules of outbound streams, one minimal test each: waiting for the acknowledgement, for
//! credit and for queue space. `connection_streams_caller_ends.rs` has the rules of their ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::time::Duration;

use bytes::Bytes;
use grid::proto::connection::{End, Event, OpenRequest, Received, SendStatus, StartError};
use grid::proto::message::{Flags, Header, Op};
use machine::streams::{message, stream, stream_ended, stream_ended_with};
use machine::{MINUTE, Subject};

const EOF: Flags = Flags::EOF;

// ---- opening ----

#[test]
fn p15_a_stream_opens_with_its_handler_deadline_and_payload() {
    let mut subject = Subject::new();
    subject.open_until(Duration::from_secs(30));
    assert_eq!(subject.lines(), [r#"ConnectMux 1 seq=0 handler=7 deadline=30000ms "open""#]);
    subject.open(1, 1);
    assert_eq!(subject.lines(), [r#"ConnectMux 2 seq=0 handler=7 "open""#], "0 means none");
}

#[test]
fn p05_p15_an_absent_opening_payload_differs_from_an_empty_one() {
    for (payload, expected) in [
        (None, "ConnectMux 1 seq=0 handler=7"),
        (Some(Bytes::new()), r#"ConnectMux 1 seq=0 handler=7 ZERO """#),
    ] {
        let mut subject = Subject::new();
        subject.try_open(OpenRequest { payload, ..stream(1, 1) }).expect("opens");
        assert_eq!(subject.lines(), [expected]);
    }
}

#[test]
fn b26_the_opening_announces_no_input_and_messages_are_refused() {
    let mut subject = Subject::new();
    let id = subject.open(0, 1);
    assert_eq!(subject.lines(), [r#"ConnectMux 1 seq=0 handler=7 EOF "open""#]);
    subject.deliver(Op::AckMux, id, 0, b"");
    assert_eq!(subject.send(id, b"nowhere"), SendStatus::NoInput);
    assert_eq!(subject.connection.finish(id), SendStatus::Queued, "already finished");
    assert_eq!(subject.lines(), [""; 0]);
}

#[test]
fn p15_no_message_is_sent_before_the_acknowledgement() {
    let mut subject = Subject::new();
    let id = subject.open(2, 1);
    assert_eq!(subject.send(id, b"early"), SendStatus::Waiting);
    assert_eq!(subject.sent_ops(), [(Op::ConnectMux, 1)]);
    assert!(!subject.connection.is_open(1));

    subject.deliver(Op::AckMux, id, 0, b"");
    assert!(subject.connection.is_open(1));
    assert_eq!(subject.events(), [Event::Opened(id), Event::Writable(id)]);
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=1 "early""#]);
}

#[test]
fn p15_a_credit_before_the_acknowledgement_grants_nothing() {
    let mut subject = Subject::new();
    let id = subject.open(1, 1);
    subject.send(id, b"early");
    subject.sent();
    subject.deliver(Op::UnblockClMux, id, 0, b"");
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.events(), []);

    subject.deliver(Op::AckMux, id, 1, b"");
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=1 "early""#]);
    assert_eq!(subject.send(id, b"second"), SendStatus::Waiting, "the early credit was dropped");
}

#[test]
fn p17_a_second_acknowledgement_grants_nothing() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.send(id, b"first");
    subject.send(id, b"second");
    subject.sent();
    subject.deliver(Op::AckMux, id, 1, b"");
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.events(), [], "one Opened event");
}

#[test]
fn p17_credits_beyond_the_capacity_grant_nothing() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.deliver(Op::UnblockClMux, id, 1, b"");
    assert_eq!(subject.send(id, b"first"), SendStatus::Queued);
    assert_eq!(subject.send(id, b"second"), SendStatus::Waiting);
}

#[test]
fn b20_an_opening_that_waits_for_queue_space_is_sent_before_the_messages_of_its_stream() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let id = subject.open(1, 1);
    assert_eq!(subject.send(id, b"message"), SendStatus::Waiting);
    subject.advance_clock(Duration::from_secs(1));
    let opening = format!(r#"ConnectMux {} seq=0 handler=7 "open""#, id.mux_id);
    assert_eq!(subject.lines().pop(), Some(opening));
    subject.deliver(Op::AckMux, id, 0, b"");
    assert_eq!(subject.sent_ops(), [(Op::MuxClientMsg, id.mux_id)]);
}

#[test]
fn b10_an_opening_that_waited_carries_the_remaining_time() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.open_until(Duration::from_secs(5));
    subject.advance_clock(Duration::from_secs(2));
    let opening = subject.sent().pop().expect("it is the last");
    assert_eq!((opening.header.op, opening.header.deadline_ms), (Op::ConnectMux, 3_000));
}

#[test]
fn a_stream_or_a_message_beyond_the_limit_is_not_sent() {
    let mut subject = Subject::with_short_queue();
    let payload = Some(Bytes::from_static(&[0; 150]));
    let opened = subject.try_open(OpenRequest { payload, ..stream(1, 1) });
    assert!(matches!(opened, Err(StartError::TooLarge { bytes: 151.. })), "{opened:?}");
    assert_eq!(subject.connection.live_outbound_streams(), 0);

    let id = subject.opened(1, 1);
    let sent = subject.send(id, &[0; 150]);
    assert!(matches!(sent, SendStatus::TooLarge { bytes: 151.. }), "{sent:?}");
    assert_eq!(subject.send(id, b"small"), SendStatus::Queued, "the stream goes on");
}

// ---- sequences and credit ----

#[test]
fn p16_sequences_of_the_caller_count_messages_credits_and_pings() {
    let mut subject = Subject::new();
    let id = subject.opened(2, 2);
    subject.send(id, b"a");
    subject.deliver(Op::MuxServerMsg, id, 1, b"x");
    subject.read_message(id);
    subject.advance(Duration::from_secs(15));
    subject.send(id, b"b");
    subject.connection.cancel(id.mux_id);
    let expected = [
        "Ping 0 deadline=10000ms {t: 1700000000 s}",
        r#"MuxClientMsg 1 seq=1 "a""#,
        "UnblockSrvMux 1 seq=2",
        "Ping 1 seq=3",
        r#"MuxClientMsg 1 seq=4 "b""#,
        "DisconnectServerMux 1",
    ];
    assert_eq!(subject.lines(), expected);
}

#[test]
fn b21_p17_a_message_waits_for_credit_and_is_then_sent() {
    let mut subject = Subject::new();
    let id = subject.opened(2, 1);
    assert_eq!(subject.send(id, b"a"), SendStatus::Queued);
    assert_eq!(subject.send(id, b"b"), SendStatus::Queued);
    assert_eq!(subject.send(id, b"c"), SendStatus::Waiting);
    assert_eq!(subject.sent_ops().len(), 2);
    assert_eq!(subject.connection.send_status(id), SendStatus::Waiting);

    subject.deliver(Op::UnblockClMux, id, 1, b"");
    assert_eq!(subject.connection.send_status(id), SendStatus::Queued);
    assert_eq!(subject.events(), [Event::Writable(id)]);
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=3 "c""#]);
}

#[test]
fn b21_one_message_waits_at_a_time_and_the_next_is_handed_back() {
    let mut subject = Subject::new();
    let id = subject.open(1, 1);
    subject.send(id, b"waits");
    let mut second = Some(Bytes::from_static(b"second"));
    assert_eq!(subject.connection.send(id, &mut second), SendStatus::Waiting);
    assert_eq!(second.as_deref(), Some(&b"second"[..]));
}

#[test]
fn b21_a_stream_without_credit_does_not_hold_up_another() {
    let mut subject = Subject::new();
    let slow = subject.opened(1, 1);
    let fast = subject.opened(1, 1);
    subject.send(slow, b"a");
    subject.send(slow, b"stuck");
    assert_eq!(subject.send(fast, b"free"), SendStatus::Queued);
    assert_eq!(subject.sent_ops(), [(Op::MuxClientMsg, 1), (Op::MuxClientMsg, 2)]);
    assert_eq!(
        subject.connection.blocked_messages(),
        0,
        "it waits for credit, not for queue space"
    );
}

#[test]
fn p17_each_message_that_is_taken_gives_one_credit_back() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 2);
    subject.deliver(Op::MuxServerMsg, id, 1, b"x");
    subject.deliver(Op::MuxServerMsg, id, 2, b"y");
    assert_eq!(subject.events(), [Event::Readable(id)], "one event until the buffer was emptied");
    assert_eq!(subject.sent(), [], "arrival returns no credit");

    assert_eq!(subject.read(id), message(b"x"));
    assert_eq!(subject.lines(), ["UnblockSrvMux 1 seq=1"]);
    assert_eq!(subject.read(id), message(b"y"));
    assert_eq!(subject.lines(), ["UnblockSrvMux 1 seq=2"]);
    assert_eq!(subject.read(id), Received::Empty);
    subject.deliver(Op::MuxServerMsg, id, 3, b"z");
    assert_eq!(subject.events(), [Event::Readable(id)]);
}

#[test]
fn p17_a_credit_keeps_its_order_in_the_queue() {
    let mut subject = Subject::with_short_queue();
    let id = subject.opened(1, 1);
    subject.deliver(Op::MuxServerMsg, id, 1, b"x");
    subject.fill_queue();
    subject.read_message(id);
    let credit = |sent: &[(Op, u64)]| sent.iter().filter(|s| s.0 == Op::UnblockSrvMux).count();
    assert_eq!(credit(&subject.sent_ops()), 1);
    assert_eq!(subject.connection.blocked_messages(), 0);
}

#[test]
fn b21_messages_after_the_receiver_closed_are_dropped_and_credited() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 2);
    subject.deliver(Op::MuxServerMsg, id, 1, b"x");
    subject.connection.stop_receiving(id);
    assert_eq!(subject.lines(), ["UnblockSrvMux 1 seq=1"]);
    subject.deliver(Op::MuxServerMsg, id, 2, b"y");
    assert_eq!(subject.lines(), ["UnblockSrvMux 1 seq=2"]);
    assert_eq!(subject.read(id), Received::Empty);
    subject.deliver_flagged(Op::MuxServerMsg, id, 3, EOF, b"");
    assert!(subject.events().contains(&stream_ended(End::Finished)), "a clean end");
}

#[test]
fn b21_a_peer_beyond_its_credit_ends_that_stream_with_an_error() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    let other = subject.opened(1, 1);
    subject.deliver(Op::MuxServerMsg, id, 1, b"allowed");
    subject.deliver(Op::MuxServerMsg, id, 2, b"too much");
    let events = [Event::Readable(id), stream_ended_with(&[b"allowed"], End::Overrun)];
    assert_eq!(subject.events(), events);
    assert_eq!(subject.lines(), ["DisconnectServerMux 1"]);
    assert_eq!(subject.send(other, b"goes on"), SendStatus::Queued);
}

#[test]
fn b22_an_incorrect_sequence_ends_that_stream_and_cancels_its_handler() {
    for op in [Op::MuxServerMsg, Op::UnblockClMux, Op::AckMux] {
        for received in [0, 1, 3, u32::MAX] {
            let mut subject = Subject::new();
            let id = subject.opened(1, 2);
            let other = subject.opened(1, 1);
            subject.deliver(Op::MuxServerMsg, id, 1, b"in order");
            subject.deliver(op, id, received, b"out of order");
            let end = End::IncorrectSequence { expected: 2, received };
            let events = [Event::Readable(id), stream_ended_with(&[b"in order"], end)];
            assert_eq!(subject.events(), events, "{op:?}");
            assert_eq!(subject.lines(), ["DisconnectServerMux 1"], "{op:?}");
            assert_eq!(subject.send(other, b"goes on"), SendStatus::Queued);
        }
    }
}

#[test]
fn b22_an_error_out_of_sequence_is_an_incorrect_sequence_too() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 2);
    subject.deliver_flagged(Op::MuxServerMsg, id, 2, EOF.with(Flags::ERROR), b"a message is lost");
    assert_eq!(
        subject.events(),
        [stream_ended(End::IncorrectSequence { expected: 1, received: 2 })]
    );
}

// ---- waiting messages that are cancelled ----

#[test]
fn b06_b11_cancelling_a_send_that_waits_for_credit() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.send(id, b"a");
    subject.send(id, b"unwanted");
    subject.connection.cancel_send(id);
    subject.sent();

    subject.deliver(Op::UnblockClMux, id, 1, b"");
    assert_eq!(subject.sent(), [], "it left the queue");
    assert_eq!(subject.send(id, b"b"), SendStatus::Queued);
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=2 "b""#], "and took no sequence");
}

#[test]
fn b06_b11_cancelling_a_send_that_waits_for_queue_space() {
    let mut subject = Subject::with_short_queue();
    let (id, other) = (subject.opened(1, 1), subject.opened(1, 1));
    subject.fill_queue();
    assert_eq!(subject.send(id, b"unwanted"), SendStatus::Waiting);
    assert_eq!(subject.send(other, b"wanted"), SendStatus::Waiting);
    assert_eq!(subject.connection.blocked_messages(), 3);
    subject.connection.cancel_send(id);
    assert_eq!(subject.connection.blocked_messages(), 2, "it left the queue");

    let lines: Vec<_> = subject.lines().into_iter().filter(|line| line.contains("Mux")).collect();
    assert_eq!(lines, [r#"MuxClientMsg 2 seq=1 "wanted""#]);
    assert_eq!(subject.events(), [Event::Writable(other)]);
    assert_eq!(subject.send(id, b"later"), SendStatus::Queued);
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=1 "later""#]);
}

#[test]
fn b06_b11_cancelling_a_stream_removes_its_message_from_the_queue() {
    let mut subject = Subject::with_short_queue();
    let (id, other) = (subject.opened(1, 1), subject.opened(1, 1));
    subject.fill_queue();
    subject.send(id, b"unwanted");
    subject.send(other, b"wanted");
    subject.connection.cancel(id.mux_id);
    assert_eq!(subject.events(), [stream_ended(End::Cancelled)]);
    let lines: Vec<_> = subject.lines().into_iter().filter(|line| line.contains("Mux")).collect();
    assert_eq!(lines, ["DisconnectServerMux 1", r#"MuxClientMsg 2 seq=1 "wanted""#]);
}

#[test]
fn b11_cancelling_a_stream_that_waits_for_queue_space_ends_its_halves_and_sends_nothing() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    let id = subject.open(1, 1);
    subject.send(id, b"unwanted");
    subject.connection.cancel(id.mux_id);
    assert_eq!(subject.events(), [stream_ended(End::Cancelled)], "open() promises exactly one");
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
    assert_eq!(subject.connection.blocked_messages(), 0);
}

// ---- half-close ----

#[test]
fn b25_half_close() {
    let mut subject = Subject::new();
    let id = subject.opened(2, 2);
    subject.send(id, b"last");
    assert_eq!(subject.connection.finish(id), SendStatus::Queued);
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=1 "last""#, "MuxClientMsg 1 seq=2 EOF"]);
    assert_eq!(subject.send(id, b"too late"), SendStatus::Finished);
    assert_eq!(subject.connection.finish(id), SendStatus::Queued, "finish() is idempotent");

    subject.deliver(Op::MuxServerMsg, id, 1, b"still here");
    assert_eq!(subject.read(id), message(b"still here"));
    assert_eq!(subject.lines(), ["UnblockSrvMux 1 seq=3"]);
}

#[test]
fn b25_p17_the_end_of_the_input_follows_the_waiting_message_and_takes_a_credit() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.send(id, b"a");
    subject.send(id, b"b");
    assert_eq!(subject.connection.finish(id), SendStatus::Waiting);
    assert_eq!(subject.send(id, b"too late"), SendStatus::Finished);
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=1 "a""#]);

    subject.deliver(Op::UnblockClMux, id, 1, b"");
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=2 "b""#]);
    assert_eq!(subject.connection.finish(id), SendStatus::Waiting);
    subject.deliver(Op::UnblockClMux, id, 2, b"");
    assert_eq!(subject.lines(), ["MuxClientMsg 1 seq=3 EOF"]);
    assert_eq!(subject.events(), [Event::Writable(id), Event::Writable(id)]);
}

#[test]
fn p05_an_empty_message_differs_from_the_end_of_the_input() {
    let mut subject = Subject::new();
    let id = subject.opened(2, 1);
    subject.send(id, b"");
    subject.connection.finish(id);
    assert_eq!(subject.lines(), [r#"MuxClientMsg 1 seq=1 ZERO """#, "MuxClientMsg 1 seq=2 EOF"]);
}

// ---- deadlines and draining ----

#[test]
fn b10_a_stream_ends_at_its_deadline_and_cancels_its_handler() {
    let mut subject = Subject::new();
    let id = subject.open_until(Duration::from_secs(5));
    subject.sent();
    subject.deliver(Op::AckMux, id, 0, b"");
    subject.deliver(Op::MuxServerMsg, id, 1, b"in time");
    subject.events();
    subject.advance(Duration::from_nanos(4_999_999_999));
    assert_eq!(subject.events(), []);
    subject.advance(Duration::from_nanos(1));
    assert_eq!(subject.events(), [stream_ended_with(&[b"in time"], End::DeadlineExceeded)]);
    assert_eq!(subject.lines(), ["DisconnectServerMux 1"]);
}

#[test]
fn b10_a_stream_that_waited_beyond_its_deadline_is_not_opened() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.open_until(Duration::from_secs(1));
    subject.advance_clock(Duration::from_secs(1));
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
    assert_eq!(subject.events(), [stream_ended(End::DeadlineExceeded)]);
    subject.advance(Duration::ZERO);
    assert_eq!(subject.events(), [], "it ends once");
}

#[test]
fn b09_a_draining_connection_opens_no_streams_and_finishes_those_in_flight() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.connection.drain();
    assert_eq!(subject.try_open(stream(1, 1)), Err(StartError::Draining));
    assert_eq!(subject.try_call(b"", MINUTE), Err(StartError::Draining));
    assert_eq!(subject.send(id, b"goes on"), SendStatus::Queued);
    subject.deliver_flagged(Op::MuxServerMsg, id, 1, EOF, b"");
    assert_eq!(subject.events(), [stream_ended(End::Finished)]);
    subject.sent();
    assert!(subject.connection.is_idle());
}

#[test]
fn p18_a_response_to_a_stream_is_skipped() {
    let mut subject = Subject::new();
    let id = subject.opened(1, 1);
    subject.receive(Header { flags: EOF, ..Header::new(id.mux_id, Op::Response) }, Bytes::new());
    assert_eq!(subject.events(), [Event::Skipped { op: Op::Response, mux_id: id.mux_id }]);
    assert_eq!(subject.connection.live_outbound_streams(), 1);
}
