//! Tests of internal state; all others are in `grid/tests/connection_*.rs`.

use super::*;

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
        assert!(connection.respond(1, &Ok(Bytes::new()), now));
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
