//! What cannot be seen from outside; everything else is in `grid/tests/connection_*.rs`.

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
fn b05_timers_of_a_peer_that_uses_an_id_again_do_not_pile_up() {
    let now = Instant::from_nanos(0);
    let mut machine: Connection = Connection::new(&Limits::default(), Checksum::On, now);
    for _ in 0..10_000 {
        machine.handle_message(request(1), now);
        assert!(matches!(machine.poll_event(), Some(Event::Serve(_))));
        assert!(machine.answer(1, &Ok(Bytes::new()), now));
        machine.poll_transmit(now);
        assert!(machine.deadlines.len() < 100, "{} timers", machine.deadlines.len());
    }
}

#[test]
fn b07_a_serving_side_that_never_misses_pings_keeps_its_streams() {
    let now = Instant::from_nanos(0);
    let limits = Limits { stream_pings_missed_by_callee_max: u32::MAX, ..Limits::default() };
    limits.check().expect("never is a choice");
    let mut machine: Connection = Connection::new(&limits, Checksum::On, now);
    let header = Header { handler: 9, ..Header::new(1, Op::ConnectMux) };
    machine.handle_message(Message { header, payload: Bytes::new(), subroute: None }, now);
    machine.handle_timeout(now + Duration::from_secs(1), Timestamp::default());
    assert!(machine.is_serving(1));
}
