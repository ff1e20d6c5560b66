//! Tests of internal state; all others are in `grid/tests/connection_*.rs`.

use super::*;
use crate::proto::inbound::InboundState;

mod state_tables;

fn request(mux_id: u64) -> Message {
    let header = Header {
        handler: 9,
        deadline_ms: 60_000,
        flags: Flags::EOF,
        ..Header::new(mux_id, Op::Request)
    };
    Message { header, payload: Bytes::new(), subroute: None }
}

#[test]
fn b05_timers_of_a_peer_that_reuses_an_id_do_not_accumulate() {
    let now = Instant::from_nanos(0);
    let mut connection: Connection = Connection::new(&Limits::default(), Checksum::On, now);
    for _ in 0..10_000 {
        connection.handle_message(request(1), now);
        assert!(matches!(connection.poll_event(), Some(Event::Incoming(_))));
        assert_eq!(connection.respond(1, &Ok(Bytes::new()), now), Respond::Accepted);
        connection.poll_transmit(now);
        assert!(connection.deadlines.len() < 100, "{} timers", connection.deadlines.len());
    }
}

#[test]
fn b07_a_callee_without_a_ping_timeout_keeps_its_streams() {
    let now = Instant::from_nanos(0);
    let limits = Limits { stream_pings_missed_by_callee_max: u32::MAX, ..Limits::default() };
    limits.check().expect("no ping timeout is allowed");
    let mut connection: Connection = Connection::new(&limits, Checksum::On, now);
    let header = Header { handler: 9, ..Header::new(1, Op::ConnectMux) };
    connection.handle_message(Message { header, payload: Bytes::new(), subroute: None }, now);
    connection.handle_timeout(now + Duration::from_secs(1), Timestamp::default());
    assert!(connection.is_inbound_live(1));
}

fn open(connection: &mut Connection, mux_id: u64, now: Instant) {
    let header = Header { handler: 9, ..Header::new(mux_id, Op::ConnectMux) };
    connection.handle_message(Message { header, payload: Bytes::new(), subroute: None }, now);
}

fn ping(connection: &mut Connection, mux_id: u64, sequence: u32, now: Instant) {
    let header = Header { sequence, ..Header::new(mux_id, Op::Ping) };
    connection.handle_message(Message { header, payload: Bytes::new(), subroute: None }, now);
}

#[test]
fn p16_pings_before_the_acceptance_wrap_as_all_sequence_numbers_do() {
    let now = Instant::from_nanos(0);
    let mut connection: Connection = Connection::new(&Limits::default(), Checksum::On, now);
    open(&mut connection, 1, now);
    let call = connection.inbound.get_mut(1).expect("the stream is opening");
    call.state = InboundState::Opening { is_input_finished: false, pings: u32::MAX - 1 };
    ping(&mut connection, 1, u32::MAX, now);
    let capacities = Capacities { input: 1, output: 1 };
    assert!(connection.accept(1, Slot(1), capacities, now), "the last number is valid");
    ping(&mut connection, 1, 0, now);
    assert!(connection.is_inbound_live(1), "0 follows the last number");
    ping(&mut connection, 1, 0, now);
    assert!(!connection.is_inbound_live(1), "a repeated number");

    open(&mut connection, 2, now);
    let call = connection.inbound.get_mut(2).expect("the stream is opening");
    call.state = InboundState::Opening { is_input_finished: false, pings: u32::MAX };
    ping(&mut connection, 2, 0, now);
    assert!(connection.is_inbound_live(2), "0 follows the last number, before the acceptance too");
}
