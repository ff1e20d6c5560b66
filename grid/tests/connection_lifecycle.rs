//! The rules of the connection itself, one minimal test each: its queue and the messages that wait
//! for space in it, its pings, and its end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod machine;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use grid::limits::Limits;
use grid::proto::connection::{CloseReason, End, Event, Request, StartError};
use grid::proto::message::{Flags, Header, Op};
use machine::{MINUTE, SLOT, START, Subject, ended, ok};

// ---- the queue ----

#[test]
fn b06_cancellations_and_closing_never_wait_for_queue_space() {
    let mut subject = Subject::with_short_queue();
    let sent = subject.call(b"");
    subject.fill_queue();
    let before = subject.connection.queued_bytes();
    subject.connection.cancel(sent);
    assert!(subject.connection.queued_bytes() > before, "the cancellation is queued");
    subject.connection.close(CloseReason::Superseded);
    assert_eq!(subject.events().pop(), Some(Event::Closed(CloseReason::Superseded)));
}

#[test]
fn messages_that_wait_for_queue_space_enter_in_order_and_none_is_overtaken() {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 60_000);
    subject.fill_queue();
    let large = subject.call(&[1; 100]);
    subject.respond(9, &ok(b"small"));
    let small = subject.call(b"small too");
    let order: Vec<_> =
        subject.sent_ops().into_iter().filter(|sent| sent.1 >= large || sent.1 == 9).collect();
    assert_eq!(order, [(Op::Request, large), (Op::Response, 9), (Op::Request, small)]);
}

#[test]
fn a_peer_that_causes_replies_and_does_not_read_is_disconnected() {
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
fn b07_a_pong_is_sent_before_queued_data() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.receive(Header { deadline_ms: 10_000, ..Header::new(0, Op::Ping) }, Bytes::new());
    let first = subject.next_frame();
    assert_eq!(first[0].header.op, Op::Pong, "{first:?}");
    assert!(subject.sent_ops().iter().all(|(op, _)| *op == Op::Request));
}

#[test]
fn b07_a_ping_is_sent_before_queued_data() {
    let mut subject = Subject::with_short_queue();
    subject.fill_queue();
    subject.advance(Duration::from_secs(10));
    assert_eq!(subject.next_frame()[0].header.op, Op::Ping);
}

/// Makes bytes whose flag is set when their memory is freed.
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

/// Runs `end` on a machine where a payload waits for queue space, and asserts that the payload
/// outlives it.
fn assert_payload_retired(case: &str, wait: fn(&mut Subject, Bytes), end: fn(&mut Subject)) {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 1_000);
    subject.fill_queue();
    subject.events();
    let (payload, is_freed) = tracked(50);
    wait(&mut subject, payload);
    assert_eq!(subject.connection.blocked_messages(), 2, "{case}: it waits");
    end(&mut subject);
    assert!(!is_freed.load(Ordering::Relaxed), "{case}: freed inside the machine");
    drop(subject.connection.take_retired_payloads());
    assert!(is_freed.load(Ordering::Relaxed), "{case}: kept inside the machine");
}

#[test]
fn payloads_that_waited_are_retired_and_never_freed_inside_the_machine() {
    fn call(subject: &mut Subject, payload: Bytes) {
        let deadline = subject.now + Duration::from_secs(1);
        let request = Request { handler: 7, subroute: None, payload, deadline };
        subject.connection.call(SLOT, &request, subject.now).expect("the call starts");
    }
    fn respond(subject: &mut Subject, payload: Bytes) {
        assert!(subject.respond(9, &Ok(payload)));
    }
    fn cancel_last(subject: &mut Subject) {
        let last = subject.connection.counters().outbound_calls;
        subject.connection.cancel(last);
    }
    for (case, wait) in [("request", call as fn(&mut Subject, Bytes)), ("response", respond)] {
        let sent = format!("{case} sent");
        assert_payload_retired(&sent, wait, |subject| drop(subject.sent()));
        let due = format!("{case} due");
        assert_payload_retired(&due, wait, |subject| subject.advance(Duration::from_secs(1)));
        let late = format!("{case} late");
        assert_payload_retired(&late, wait, |subject| {
            subject.advance_clock(Duration::from_secs(1));
            subject.sent();
        });
        let cut = format!("{case} cut");
        assert_payload_retired(&cut, wait, |subject| subject.connection.close(CloseReason::Peer));
    }
    assert_payload_retired("request cancelled", call, cancel_last);
    assert_payload_retired("response cancelled", respond, |subject| {
        subject.receive_op(9, Op::DisconnectServerMux);
    });
}

// ---- pings, pongs and the end of the connection ----

#[test]
fn b07_two_pings_without_a_pong_end_the_connection_after_thirty_seconds() {
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
    assert_eq!(subject.events(), [ended(Err(End::Disconnected)), closed]);
}

#[test]
fn b07_only_a_pong_restarts_the_timeout() {
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
fn p12_a_connection_with_pongs_lives() {
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
fn p12_a_ping_without_a_payload_gets_a_pong() {
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
fn p12_only_the_connections_ping_carries_no_checksum() {
    let mut subject = Subject::new();
    subject.advance(Duration::from_secs(10));
    assert_eq!(subject.sent_one().header.flags, Flags::NONE);

    subject.receive_op(0, Op::Ping);
    subject.receive_op(5, Op::Ping);
    subject.receive_op(5, Op::AckMux);
    subject.receive_op(5, Op::ConnectMux);
    subject.connection.refuse(5, "not here");
    subject.receive_op(6, Op::ConnectMux);
    subject.accept(6, 1, 1);
    subject.respond(6, &ok(b""));
    subject.receive_request(9, 0);
    subject.respond(9, &ok(b""));
    subject.call(b"");
    let sent = subject.sent();
    assert_eq!(sent.len(), 8);
    assert!(sent.iter().all(|message| message.header.flags.contains(Flags::CRC)), "{sent:?}");
}

#[test]
fn b05_the_end_of_a_connection_ends_all_its_calls_and_streams() {
    let mut subject = Subject::with_short_queue();
    subject.receive_request(9, 60_000);
    subject.receive_request(10, 60_000);
    subject.fill_queue();
    subject.respond(10, &ok(b"waits"));
    subject.events();
    let live = subject.connection.live_outbound_calls();
    assert!(live > 1);

    subject.connection.close(CloseReason::Transport("cut".into()));
    subject.connection.close(CloseReason::Peer);
    let events = subject.events();
    assert_eq!(events[..live], vec![ended(Err(End::Disconnected)); live]);
    assert!(events.contains(&Event::Cancel { mux_id: 9 }));
    assert_eq!(events.last(), Some(&Event::Closed(CloseReason::Transport("cut".into()))));

    subject.receive_request(11, 60_000);
    subject.receive_op(0, Op::Ping);
    subject.advance(MINUTE);
    subject.connection.cancel(1);
    subject.connection.refuse(9, "late");
    assert!(!subject.respond(9, &ok(b"late")));
    assert_eq!(subject.try_call(b"", MINUTE), Err(StartError::Draining));
    assert_eq!(subject.events(), []);
    assert_eq!(subject.sent(), []);
    let connection = &subject.connection;
    assert_eq!((connection.live_outbound_calls(), connection.live_inbound_calls()), (0, 0));
    assert_eq!((connection.queued_bytes(), connection.blocked_messages()), (0, 0));
    assert_eq!(connection.poll_timeout(), None);
}
